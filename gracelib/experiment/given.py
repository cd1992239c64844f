"""The comparisons that hold on any CPU: given the same checkpoints and the same responses.

Models trained on another kind of CPU are other models (`verify`), so a scale may have one cell committed beside its
tables, in figures/<scale>/given: the base student, the teacher, the teacher's responses, and the features of its first
prompts. `committed_cell` starts from these: features agree to 1e-4, accuracies within three standard errors; `pack` makes
the folder from a finished run. `against` compares features with another machine's whole runs folder.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from gracelib.experiment.plan import Plan
from gracelib.experiment.scales import command_for, get_scale
from gracelib.experiment.verify import (
    STANDARD_ERRORS,
    Cell,
    Report,
    Row,
    both,
    cell_jobs,
    committed,
    frame,
    is_equal,
    kind_of,
    sample,
    verdict,
)
from gracelib.features.files import load_features
from gracelib.jobs import paths
from gracelib.jobs.store import META, Job, Stage, fault_in, file_hash, signed, verified, write_atomically
from gracelib.jobs.workers import run_jobs

FEATURES_WITHIN = 1e-4  #: relative: of each response's projected gradient, its other numbers, and the scores from them
FOLDER, ABOUT, FEATURES = "given", "given.json", "features.safetensors"
N_KEPT, D_KEPT = 64, 128  # prompts and columns whose projected gradients are committed, at most: 128 KiB


def run_given(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Copy what is committed into the run, checking that it is what was packed."""
    for name, digest in params["files"].items():
        path = paths.figures(params["scale"]) / FOLDER / params["part"] / name
        _check(path, digest)
        shutil.copyfile(path, out / name)


GIVEN = Stage("given", run_given)


def committed_cell(scale: str, machine: str = "auto") -> Report:
    """Compute the committed cell again from its checkpoints and responses, and compare with them and with the tables.

    Equal bits are expected where the folder was packed on this kind of machine; `machine` "same" or "other" overrides it.
    ValueError where the scale has no such folder or it is damaged; RuntimeError for a failed job.
    """
    config, folder = get_scale(scale), paths.figures(scale) / FOLDER
    about = _about(folder, scale)
    task, *key = about["cell"]
    plan, root = Plan(config, task), paths.runs() / "verify" / f"{scale}-given"
    jobs, cell = _given_jobs(scale, plan, tuple(key), about["files"]), (task, *key)
    there = committed(scale, cell)
    run_jobs([*jobs], root, f"verify the committed cell of {scale}")
    kind = kind_of(jobs.features, root)
    same = kind == about["kind"] if machine == "auto" else machine == "same"
    because = f"--machine {machine}" if machine != "auto" else f"it was packed on {'this' if same else 'another'} kind"
    table = []
    for (name, quantity), row in both(config, cell, jobs, there, root).items():
        table.append(verdict(name, quantity, row, 0.0 if same else _tolerance(quantity, row)))
    theirs = load_features(folder)
    ours = load_features(jobs.features.folder(root), config.m, theirs["g"].shape[1])
    n = len(theirs["g"])
    table += _of_features(" ".join(map(str, cell)), theirs, {name: values[:n] for name, values in ours.items()}, same)
    return Report(frame(table), "equal bits" if same else "another CPU", because, kind)


def _tolerance(quantity: str, row: Row) -> float | None:
    """What rounding may change: features and scores little, and where it flips a sampled token, a whole response."""
    if quantity.split(".")[0] in ("features", "scores"):
        return FEATURES_WITHIN * abs(row.committed)
    return None if row.error is None else STANDARD_ERRORS * row.error


def _about(folder: Path, scale: str) -> dict:
    path = folder / ABOUT
    if not path.is_file():
        raise ValueError(
            f"{path} is not there: scale {scale!r} has no committed cell; "
            f"`gracelib verify --scale {scale}` trains instead"
        )
    try:
        about = verified(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); `git checkout` gets it back") from error
    for part, files in about["files"].items():
        for name, digest in files.items():
            _check(folder / part / name, digest)
    return about


def _check(path: Path, digest: str) -> None:
    if not path.is_file() or file_hash(path) != digest:
        raise ValueError(f"{path} is damaged (its checksum changed); `git checkout` gets it back")


def _given_jobs(scale: str, plan: Plan, cell: tuple, files: dict) -> Cell:
    """The cell's jobs, from the committed models and responses instead of from training and sampling."""
    student, teacher, responses = (
        Job(GIVEN, {"scale": scale, "part": part, "files": files[part]}, label=f"given {part}")
        for part in ("student", "teacher", "responses")
    )
    usual, distilled = cell_jobs(plan, cell), plan.distilled[cell]
    taught = replace(distilled, inputs={"student": student, "responses": responses})
    return Cell(
        responses=replace(usual.responses, inputs=usual.responses.inputs | {"teacher": teacher}),
        features=replace(usual.features, inputs={"student": student, "responses": responses}),
        teacher_accuracy=_of_model(usual.teacher_accuracy, teacher),
        base_accuracy=_of_model(usual.base_accuracy, student),
        student_accuracy=_of_model(usual.student_accuracy, taught),
    )


def _of_model(accuracy: Job, model: Job) -> Job:
    return replace(accuracy, inputs=accuracy.inputs | {"model": model})


def pack(scale: str, cell: tuple[str, str, str, float]) -> Path:
    """Write figures/<scale>/given from the finished run of (task, student, teacher, temperature); the folder.

    ValueError where the run is not finished, or is not the one that the committed tables are of.
    """
    from safetensors.numpy import save_file

    config, (task, *key), runs = get_scale(scale), cell, paths.runs()
    plan = Plan(config, task)
    if tuple(key) not in plan.features:
        raise ValueError(f"cell {cell} is not one of scale {scale!r}; its cells are {sorted(plan.features)}")
    jobs = cell_jobs(plan, tuple(key))
    sources = {
        "student": jobs.features.inputs["student"],
        "teacher": jobs.responses.inputs["teacher"],
        "responses": jobs.responses,
    }
    for job in (*jobs, *sources.values()):
        if not job.done(runs):
            raise ValueError(f"{job.stage.name} {job.label} is not in {runs}; `{command_for(scale)}` makes it")
    there = both(config, cell, jobs, committed(scale, cell), runs)
    if changed := [
        f"{quantity} {row.committed:.10g} there, {row.rerun:.10g} in the run"
        for (_, quantity), row in there.items()
        if not is_equal(row.committed, row.rerun)
    ]:
        raise ValueError(
            f"{paths.results(scale)} is not of the run in {runs}: {changed[0]}; `{command_for(scale)}` "
            "makes the tables again"
        )
    folder, f = (
        paths.figures(scale) / FOLDER,
        load_features(jobs.features.folder(runs), config.m, min(D_KEPT, config.d)),
    )
    shutil.rmtree(folder, ignore_errors=True)
    for part, job in sources.items():
        shutil.copytree(job.folder(runs), folder / part, ignore=shutil.ignore_patterns(META))
    kept = f["prompt"] < N_KEPT
    ids = list(dict.fromkeys(f.pop("prompt_id")[kept].tolist()))
    save_file(
        {name: np.ascontiguousarray(values[kept]) for name, values in f.items()},
        folder / FEATURES,
        metadata={"about": json.dumps({"prompt_ids": ids})},
    )
    files = {part: {path.name: file_hash(path) for path in sorted((folder / part).iterdir())} for part in sources}
    about = {
        "cell": list(cell),
        "kind": kind_of(jobs.features, runs),
        "files": files | {"": {FEATURES: file_hash(folder / FEATURES)}},
    }
    write_atomically(folder / ABOUT, lambda part: part.write_text(signed(about) + "\n", encoding="utf-8"))
    return folder


def _of_features(cell: str, theirs: dict, ours: dict, same: bool) -> list[tuple]:
    """Lines of the worst response, of each of its numbers, relative to its size there."""
    lines = []
    for name in ("g", "loss", "mean_prob", "grad_norm", "length"):
        a, b = (np.atleast_2d(f[name].astype(np.float64).T).T for f in (theirs, ours))
        norm = np.linalg.norm(a, axis=1)
        worst = float((np.linalg.norm(a - b, axis=1) / np.where(norm > 0, norm, 1)).max())
        tolerance = 0.0 if same else FEATURES_WITHIN
        said = "equal" if worst == 0 else "within" if worst <= tolerance else "OUTSIDE"
        lines.append(
            (
                cell,
                f"features.{name}, worst response, relative",
                float(norm.max()),
                float(np.linalg.norm(b, axis=1).max()),
                worst,
                tolerance,
                said,
            )
        )
    return lines


def against(scale: str, other: Path, n: int = 3, seed: int = 0) -> Report:
    """Features of the sampled cells computed here from the checkpoints and responses in another machine's runs folder,
    against the features that lie there. Tolerance 1e-4 relative; zero where both machines are of one kind.

    ValueError naming the folder where a finished, undamaged result of this code and these parameters is missing.
    """
    config, root = get_scale(scale), paths.runs() / "verify" / f"{scale}-against"
    plans, jobs = {task.name: Plan(config, task.name) for task in config.tasks}, {}
    for task, *cell in sample(config, n, seed):
        jobs[task, *cell] = job = plans[task].features[tuple(cell)]
        for needed in (*job.inputs.values(), job):
            if not (needed.folder(other) / META).is_file():
                raise ValueError(
                    f"{needed.folder(other)} is not there: {needed.stage.name} {needed.label}, by the "
                    "same code, parameters and package versions as here, is what can be compared"
                )
            if fault := fault_in(needed.folder(other)):
                raise ValueError(f"{needed.folder(other).parent}: {fault}; copy it from the other machine again")
        for given in job.inputs.values():
            shutil.copytree(given.folder(other), given.folder(root), dirs_exist_ok=True)
    run_jobs([*jobs.values()], root, f"verify features of {scale}")
    lines, all_same = [], True
    for cell, job in jobs.items():
        same = kind_of(job, other) == kind_of(job, root)
        all_same &= same
        there, again = (load_features(job.folder(where)) for where in (other, root))
        lines += _of_features(" ".join(map(str, cell)), there, again, same)
    return Report(
        frame(lines),
        "equal bits" if all_same else "another CPU",
        "both machines are of one kind" if all_same else "the folder was made on another kind of machine",
        kind_of(next(iter(jobs.values())), root),
    )
