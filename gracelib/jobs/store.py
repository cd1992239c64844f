"""Where results are kept and how a finished one is recognised.

A job is a stage, its parameters and the jobs it depends on. Its key is a hash of exactly that, with a fingerprint of
the stage's source code and the versions of the packages that compute, all the way up the chain; its result is a
folder named after the key. A folder is written under a temporary name and renamed when complete, so one that exists
is finished: a killed run loses only the jobs that were in flight, the same command twice does no work twice, and a
changed stage makes new keys instead of returning stale results. A finished folder is checked against its checksums
before it is used: a damaged one is computed again.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from gracelib.jobs.arithmetic import arithmetic
from gracelib.jobs.disk import alone, explained, flush, part_of
from gracelib.jobs.paths import PACKAGE, figures, published

META = "meta.json"
FROM_SCRATCH = "GRACELIB_FROM_SCRATCH"  #: 1: what the project publishes of finished jobs is made again, not copied
DECISIVE = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "scipy")  # another version, another result
VERSIONED = ("gracelib", *DECISIVE, "pandas", "matplotlib", "seaborn")


@dataclass(frozen=True)
class Stage:
    """A kind of work. `run(out, params, inputs)` writes files into the folder `out`; `inputs` maps the job's
    dependency names to their finished folders. What it writes below figures/ besides, it returns: path there -> hash.
    What decides the result is read off the code: no list could forget a module."""

    name: str
    run: Callable[[Path, dict, dict[str, Path]], dict[str, str] | None]

    @property
    def modules(self) -> tuple[str, ...]:
        """The gracelib modules whose code decides the result."""
        return _deciding(self.run)[0]

    @property
    def parts(self) -> dict[str, str]:
        """A fingerprint of each piece that decides the result, by name, so that a finished one can say later which
        changed: its `modules`, and the function itself with its neighbours that it calls."""
        own = {f"{self.run.__module__}.{self.run.__name__}": digest(_deciding(self.run)[1])}
        return own | {name: fingerprint((name,)) for name in self.modules}

    @property
    def code(self) -> str:
        return digest(sorted(self.parts.values()))


@dataclass(frozen=True)
class Needs:
    """What a job takes while it runs (memory 0: not said). It decides where the job runs and no number: not in its key."""

    cpus: float = 1
    gpus: float = 0
    memory_gb: float = 0


@dataclass(frozen=True, eq=False)
class Job:
    """One result to be had: a stage, JSON-ready parameters, and named upstream jobs."""

    stage: Stage
    params: dict
    inputs: dict[str, "Job"] = field(default_factory=dict)
    label: str = ""
    cost: float = 1.0  # rough seconds: long jobs start first
    needs: Needs = Needs()

    @property
    def name(self) -> str:
        return f"{self.stage.name} {self.label}".strip()

    @cached_property
    def key(self) -> str:
        return digest(
            {
                "stage": self.stage.name,
                "code": self.stage.code,
                "params": self.params,
                "versions": {name: versions()[name] for name in DECISIVE},
                "arithmetic": arithmetic(),
                "inputs": {name: job.key for name, job in self.inputs.items()},
            }
        )

    def folder(self, root: Path) -> Path:
        return Path(root) / self.stage.name / self.key

    def log(self, root: Path) -> Path:
        """What it prints where it runs on another machine."""
        return self.folder(root).with_suffix(".log")

    def fault(self, root: Path) -> str | None:
        """None for a result that is there and whole; else "missing", or what is damaged in it."""
        folder = self.folder(root)
        return fault_in(folder) if (folder / META).is_file() else "missing"

    def done(self, root: Path) -> bool:
        return self.fault(root) is None


def fault_in(folder: Path) -> str | None:
    """What is wrong with a finished folder as it is at this moment, or None."""
    try:
        # Not only times: a clock may jump, and a copy keeps them. An inode's change time cannot be set by anybody.
        stats = {str(path.relative_to(folder)): path.stat() for path in sorted(folder.rglob("*"))}
        stamp = tuple((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats.items())
        fault, drawn = _fault(folder, stamp)
    except FileNotFoundError:
        return f"{folder.name} vanished while it was read"
    return fault or _damaged(figures(""), drawn)


@cache
def _fault(folder: Path, stamp: tuple) -> tuple[str | None, dict]:
    """What is wrong with a finished folder, or None, and what it wrote below figures/. Read once a process as long as no
    file in the folder changes (`stamp`)."""
    try:
        meta = verified((folder / META).read_text(encoding="utf-8"))
        files, drawn = dict(meta["files"]), meta.get("figures", {})
    except (ValueError, KeyError, TypeError) as error:
        return f"{folder.name}/{META} is damaged ({error})", {}
    if meta["key"] != folder.name:
        return f"{folder.name}/{META} belongs to another result, {meta['key']}", {}
    return _damaged(folder.parent, {f"{folder.name}/{name}": expected for name, expected in files.items()}), drawn


def _damaged(folder: Path, files: dict[str, str]) -> str | None:
    for name, expected in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if file_hash(folder / name) != expected:
            return f"{name} is damaged or was edited (its checksum changed)"
    return None


def signed(record: dict) -> str:
    """JSON text of a record with a checksum of itself, for `verified`."""
    return json.dumps({**record, "checksum": digest(record)}, indent=1, sort_keys=True)


def verified(text: str) -> dict:
    """The record of a `signed` text. ValueError if it is not what was written."""
    record = json.loads(text)
    if not isinstance(record, dict) or record.pop("checksum", None) != digest(record):
        raise ValueError("its checksum changed")
    return record


def digest(record) -> str:
    """A short hash of a JSON-ready value; key order does not matter."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def file_hash(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@cache
def fingerprint(modules: tuple[str, ...]) -> str:
    """A hash of what modules *do*, the same for the same code wherever it lies."""
    return digest(
        [
            f"{name}:{_behaviour(Path(importlib.util.find_spec(name).origin).read_text(encoding='utf-8'))}"
            for name in sorted(modules)
        ]
    )


@cache
def package_files() -> dict[str, Path]:
    """The package's modules by dotted name."""
    return {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def _imported(nodes: Iterable[ast.AST]) -> set[tuple[str, str]]:
    """Modules of the package that statements import, each with the name that is taken from it ("": the module itself)."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add((whole, "") if whole in package_files() else (node.module, alias.name))
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return {(module, name) for module, name in found if module in package_files()}


@cache
def closure(*modules: str) -> tuple[str, ...]:
    """`modules` and every gracelib module that they import, at their heads or inside functions, and so on.

    `gracelib.jobs` is left out: it keeps results and decides no number.
    """
    found, todo = set(), list(modules)
    while todo:
        module = todo.pop()
        if module not in found and not module.startswith(f"{PACKAGE.name}.jobs."):
            found.add(module)
            todo += [
                name for name, _ in _imported(ast.walk(ast.parse(package_files()[module].read_text(encoding="utf-8"))))
            ]
    return tuple(sorted(found))


@cache
def _deciding(run: Callable) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What decides the result of a stage's function: whole modules with all they import, and what the function and those
    that it calls in its own wing do. Its own wing is not taken whole: it holds every other stage, and the plan of all."""
    wing, texts, modules = run.__module__.rpartition(".")[0], {}, set()

    def visit(function: Callable) -> None:
        if function in texts:
            return
        source = textwrap.dedent(inspect.getsource(function))
        texts[function] = _behaviour(source)
        named = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
        for module, name in _imported(ast.walk(ast.parse(source))):
            if module.rpartition(".")[0] != wing:
                modules.add(module)
            elif name:
                named[name] = getattr(importlib.import_module(module), name)
        for name, value in named.items():
            home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            if inspect.isroutine(value) and (
                home == function.__module__ or home in package_files() and home.rpartition(".")[0] == wing
            ):
                visit(inspect.unwrap(value))
            elif home in package_files() and home.rpartition(".")[0] != wing:
                modules.add(home)
            else:
                with contextlib.suppress(TypeError, ValueError):  # a constant, where it is one that JSON can hold
                    texts[name] = f"{name} = {digest(value)}"

    visit(run)
    return closure(*sorted(modules)), tuple(sorted(texts.values()))


def _names(code) -> set[str]:
    """Global names that code uses, functions and comprehensions inside it included."""
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if inspect.iscode(inner)))


def _behaviour(source: str) -> str:
    """The syntax tree of a source text without docstrings: comments and layout do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0] = ast.Pass()
    return ast.dump(tree)


@cache
def versions() -> dict[str, str]:
    """What made a result: package versions, Python and the kind of machine (never its name or a path)."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "source tree"  # gracelib run from a checkout that was not installed
    return found | {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary sibling, then rename it to `path`: readers see the old file or the whole new one,
    also after a power cut. Raises DiskError for a disk that cannot take it."""
    part = part_of(path)
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            flush(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def compute(job: Job, root: Path) -> Path:
    """The finished folder of a job, computing it (not its inputs) if need be.

    Two processes that want the same job at once: one says that it waits, and does. Raises RuntimeError if an input is
    missing, DiskError for a disk that cannot take the result.
    """
    folder = job.folder(root)
    if job.done(root):
        return folder
    for name, upstream in job.inputs.items():
        if not upstream.done(root):
            raise RuntimeError(f"{job.name}: its input {name!r} is not there; run that stage first")
    with explained(root), alone(folder.with_suffix(".lock"), f"{job.name}: another run is at work on it"):
        if fault := job.fault(root):  # the other run may have put a good one there meanwhile
            if fault != "missing":
                print(f"{job.name}: {fault}; it is computed again", file=sys.stderr)
            _make(job, folder, {name: upstream.folder(root) for name, upstream in job.inputs.items()})
    return folder


def _make(job: Job, folder: Path, inputs: dict[str, Path]) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # left by a run that was killed
    try:
        # The project publishes a few that take minutes; the key says that this code and these versions make the same.
        if os.environ.get(FROM_SCRATCH, "0") in ("", "0") and job.done(published("jobs")):
            shutil.copytree(job.folder(published("jobs")), part)
        else:
            _run(job, part, inputs)
        for path in (*part.rglob("*"), part):  # a power cut after the rename must not find them empty
            flush(path)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one, or one without its meta file
        os.replace(part, folder)
        # What a stage goes on from: only now is its result safe.
        shutil.rmtree(folder.with_suffix(".scratch"), ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _run(job: Job, part: Path, inputs: dict[str, Path]) -> None:
    part.mkdir()
    started = time.perf_counter()
    drawn = job.stage.run(part, job.params, inputs) or {}
    meta = {
        "stage": job.stage.name,
        "label": job.label,
        "key": job.key,
        "params": job.params,
        "code": job.stage.code,
        "modules": job.stage.parts,
        "arithmetic": arithmetic(),
        "inputs": {name: upstream.key for name, upstream in job.inputs.items()},
        "files": {str(path.relative_to(part)): file_hash(path) for path in sorted(part.rglob("*")) if path.is_file()},
        "figures": drawn,
        "versions": versions(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    (part / META).write_text(signed(meta), encoding="utf-8")


def with_upstream(jobs: Iterable[Job], unfinished_in: Path | None = None) -> list[Job]:
    """The jobs and everything they depend on, each key once, inputs before what needs them.

    With `unfinished_in` (a root) only what is still to be done there: a finished job needs its inputs no more, even
    if somebody removed them to save space.
    """
    ordered: dict[str, Job] = {}

    def visit(job: Job) -> None:
        if job.key not in ordered and not (unfinished_in is not None and job.done(unfinished_in)):
            for upstream in job.inputs.values():
                visit(upstream)
            ordered[job.key] = job

    for job in jobs:
        visit(job)
    return list(ordered.values())
