"""Where results are kept and how a finished one is recognised.

A job is a stage, its parameters and the jobs it depends on. Its key is a hash of exactly that, with a fingerprint of
the stage's source code and the versions of the packages that compute, all the way up the chain; its result is a
folder named after the key. A folder is written under a temporary name and renamed when complete, so one that exists
is finished: a killed run loses only the jobs that were in flight, the same command twice does no work twice, and a
changed stage makes new keys instead of returning stale results. A finished folder is checked against its checksums
before it is used: a damaged one is computed again.
"""

from __future__ import annotations

import ast
import hashlib
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
from functools import cache
from pathlib import Path

from filelock import FileLock

META = "meta.json"
DECISIVE = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "scipy")  # another version, another result
VERSIONED = ("gracelib", *DECISIVE, "pandas", "matplotlib", "seaborn")


@dataclass(frozen=True)
class Stage:
    """A kind of work. `run(out, params, inputs)` writes files into the folder `out`; `inputs` maps the job's
    dependency names to their finished folders. `modules` are the gracelib modules whose code decides the result."""

    name: str
    run: Callable[[Path, dict, dict[str, Path]], None]
    modules: tuple[str, ...]

    @property
    def code(self) -> str:
        """A fingerprint of what the stage does: its modules, the function itself and its neighbours that it calls."""
        return digest([fingerprint(self.modules), *_own(self.run)])

    @property
    def parts(self) -> dict[str, str]:
        """A fingerprint of each piece of `code` by name, so that a finished result can say later which one changed."""
        return ({name: fingerprint((name,)) for name in self.modules}
                | {f"{self.run.__module__}.{self.run.__name__}": digest(_own(self.run))})


@dataclass(frozen=True, eq=False)
class Job:
    """One result to be had: a stage, JSON-ready parameters, and named upstream jobs."""

    stage: Stage
    params: dict
    inputs: dict[str, "Job"] = field(default_factory=dict)
    label: str = ""
    cost: float = 1.0  # rough seconds: long jobs start first

    @property
    def key(self) -> str:
        if "_key" not in self.__dict__:
            record = {"stage": self.stage.name, "code": self.stage.code, "params": self.params,
                      "versions": {name: versions()[name] for name in DECISIVE},
                      "inputs": {name: job.key for name, job in self.inputs.items()}}
            object.__setattr__(self, "_key", digest(record))
        return self.__dict__["_key"]

    def folder(self, root: Path) -> Path:
        return Path(root) / self.stage.name / self.key

    def done(self, root: Path) -> bool:
        """Whether the result is there and undamaged. A damaged one is named on stderr and thrown away."""
        meta = self.folder(root) / META
        if not meta.is_file():
            return False
        if (fault := _fault(self.folder(root), meta.stat().st_mtime_ns)) is None:
            return True
        print(f"{self.stage.name} {self.label}: {fault}; it is computed again", file=sys.stderr)
        shutil.rmtree(self.folder(root), ignore_errors=True)
        return False


@cache
def _fault(folder: Path, stamp: int) -> str | None:
    """What is wrong with a finished folder, or None. Read once a process for each version (`stamp`) of its meta file."""
    try:
        files = json.loads((folder / META).read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError):
        return f"{folder.name}/{META} cannot be read"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{folder.name}/{name} is missing"
        if file_hash(path) != expected:
            return f"{folder.name}/{name} is damaged (its checksum changed)"
    return None


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
    return digest([f"{name}:{_behaviour(Path(importlib.util.find_spec(name).origin).read_text(encoding='utf-8'))}"
                   for name in sorted(modules)])


@cache
def _own(function: Callable) -> tuple[str, ...]:
    return tuple(sorted(_sources(function, set())))


def _sources(function: Callable, seen: set[Callable]) -> set[str]:
    """What a function and the functions of its own module that it calls do."""
    seen.add(function)
    found = {_behaviour(textwrap.dedent(inspect.getsource(function)))}
    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if inspect.isfunction(called) and called.__module__ == function.__module__ and called not in seen:
            found |= _sources(called, seen)
    return found


def _behaviour(source: str) -> str:
    """The syntax tree of a source text without docstrings: comments and layout do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body
                and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)):
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


def machine() -> dict[str, str | int | None]:
    """What else decides the last bits: the vector instructions torch uses ("AVX512", "AVX2", ...) and its threads; None
    where torch was not needed. Beside a result, never in its key: results may be carried from machine to machine."""
    torch = sys.modules.get("torch")
    return {"cpu": torch.backends.cpu.get_cpu_capability() if torch else None,
            "threads": torch.get_num_threads() if torch else None}


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary sibling, then rename it to `path`: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def compute(job: Job, root: Path) -> Path:
    """The finished folder of a job, computing it (not its inputs) if need be.

    Two processes that want the same job at once: one waits for the other. Raises RuntimeError if an input is missing.
    """
    folder = job.folder(root)
    if job.done(root):
        return folder
    inputs = {name: upstream.folder(root) for name, upstream in job.inputs.items()}
    for name, upstream in job.inputs.items():
        if not upstream.done(root):
            raise RuntimeError(f"{job.stage.name} {job.label}: its input {name!r} is not there; run that stage first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if job.done(root):
            return folder
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)  # left by a run that was killed
        part.mkdir()
        started = time.perf_counter()
        job.stage.run(part, job.params, inputs)
        meta = {"stage": job.stage.name, "label": job.label, "key": job.key, "params": job.params,
                "code": job.stage.code, "modules": job.stage.parts, "machine": machine(),
                "inputs": {name: upstream.key for name, upstream in job.inputs.items()},
                "files": {str(p.relative_to(part)): file_hash(p) for p in sorted(part.rglob("*")) if p.is_file()},
                "versions": versions(), "seconds": round(time.perf_counter() - started, 3)}
        (part / META).write_text(json.dumps(meta, indent=1, sort_keys=True), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # a folder without its meta file: not ours to trust
        os.replace(part, folder)
    return folder


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
