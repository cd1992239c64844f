"""Are the committed result tables what this code computes? A sample of their cells is computed again, from nothing.

What may be expected depends on the machine. On the same kind (package versions, platform, vector instructions, threads)
training, sampling and scoring give the same bits, so every number of a table must come out again to its last digit.
Another CPU rounds differently: one float flips one sampled token and everything after it, so that it trains other
checkpoints. Accuracies and means are then compared within three standard errors of the difference, in which a training
run has its part: a teacher that is only just competent may become another one (`spread`). That is a weak test of a cell;
`gracelib.experiment.given` starts from committed checkpoints and responses, where features must agree to 1e-4.

Which of the two applies: the same kind where a record (`figures/<scale>/verify.json`, of these very tables) names this
machine as one that gave them back, or where most losses, norms and scores are equal to the last digit, which no other
training run would give by chance; then all must be. Otherwise another CPU.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import pandas as pd

from gracelib.experiment.plan import Plan, accuracy_of, plans_of
from gracelib.experiment.scales import command_for, get_scale
from gracelib.experiment.tables import cell_scores, feature_means, teacher_row
from gracelib.features.files import load_features
from gracelib.intervals import grace_influence, grace_interval
from gracelib.jobs import paths
from gracelib.jobs.store import DECISIVE, META, Job, file_hash, versions, with_upstream, write_atomically
from gracelib.jobs.workers import run_jobs
from gracelib.scale import Scale
from gracelib.scores import grace, recalibrate
from gracelib.text.responses import read_responses

STANDARD_ERRORS = 3
#: Scales that differ in nothing but the seeds of all models and problems: what another training run may find.
OTHER_SEEDS = ("lab", "lab-world1", "lab-world2")
KEYS = {
    "teachers": ["task", "teacher", "temperature"],
    "base_students": ["task", "student"],
    **dict.fromkeys(("features", "scores", "students"), ["task", "student", "teacher", "temperature"]),
}
RECORD = "verify"


class Cell(NamedTuple):
    """The jobs that a cell's rows of the result tables are read from."""

    responses: Job
    features: Job
    teacher_accuracy: Job
    base_accuracy: Job
    student_accuracy: Job


@dataclass(frozen=True)
class Report:
    """What came out: one row a (cell, quantity), which comparison applied and why, and this machine's kind."""

    table: pd.DataFrame
    expected: str  #: "equal bits" or "another CPU"
    because: str
    kind: dict

    @property
    def outside(self) -> int:
        return int((self.table["verdict"] == "OUTSIDE").sum())


def sample(config: Scale, n: int, seed: int) -> list[tuple]:
    """`n` cells (task, student, teacher, temperature), drawn by `seed` from the cheaper half of the scale's: their
    whole chain counts, so that a few take minutes. ValueError where there are fewer than n cells.
    """
    cost = {
        (plan.task.name, *cell): sum(job.cost for job in with_upstream(cell_jobs(plan, cell)))
        for plan in plans_of(config)
        for cell in plan.features
    }
    if not 0 < n <= len(cost):
        raise ValueError(f"--cells {n}: scale {config.name!r} has {len(cost)} cells; choose 1 to {len(cost)}")
    cheap = sorted(cost, key=lambda cell: (cost[cell], cell))[: max(n, len(cost) // 2)]
    return sorted(Random(seed).sample(cheap, n))


def cell_jobs(plan: Plan, cell: tuple[str, str, float]) -> Cell:
    """Those of (student, teacher, temperature)."""
    student, teacher, t = cell
    return Cell(
        plan.responses[teacher, t],
        plan.features[cell],
        plan.teacher_accuracy[teacher, t],
        plan.base_accuracy[student],
        plan.student_accuracy[cell],
    )


def verify(scale: str, n: int = 3, seed: int = 0, machine: str = "auto") -> Report:
    """Compute `n` sampled cells again under runs/verify/<scale> (what is finished there is reused) and compare them.

    `machine`: "auto", or "same" / "other" to say which comparison applies. ValueError for an unknown scale, too many
    cells, a table without one of them; FileNotFoundError for a table that is not there; RuntimeError for a failed job.
    """
    config, root = get_scale(scale), paths.runs() / "verify" / scale
    cells = sample(config, n, seed)
    there = {cell: committed(scale, cell) for cell in cells}  # before hours are spent
    plans = {task.name: Plan(config, task.name) for task in config.tasks}
    jobs = {(task, *cell): cell_jobs(plans[task], tuple(cell)) for task, *cell in cells}
    run_jobs([job for cell in jobs.values() for job in cell], root, f"verify {scale}")
    found = {where: row for cell in cells for where, row in both(config, cell, jobs[cell], there[cell], root).items()}
    kinds = {json.dumps(kind_of(cell.features, root), sort_keys=True) for cell in jobs.values()}
    kind = json.loads(max(kinds))
    equal = {where: is_equal(row.committed, row.rerun) for where, row in found.items()}
    share = float(np.mean([equal[where] for where in found if _tells(where)]))
    expected, because = _expected(scale, kind, len(kinds), share, machine)
    runs = spread() if expected != "equal bits" else {}
    if expected != "equal bits" and not runs:
        because += f"; no tables of {', '.join(OTHER_SEEDS)} are here, so that what another training run adds is not allowed for"
    table = []
    for (name, quantity), row in found.items():
        allowed = 0.0 if expected == "equal bits" else allowance(quantity, row, runs)
        table.append(verdict(name, quantity, row, allowed))
    return Report(frame(table), expected, because, kind)


class Row(NamedTuple):
    """One number of a table: as committed, as found now, and the standard error of the difference (None: none known)."""

    committed: float
    rerun: float
    error: float | None


def allowance(quantity: str, row: Row, runs: dict[str, float]) -> float | None:
    """By how much a number may differ on another CPU: `STANDARD_ERRORS` of its own error and of `runs`, what training runs
    differ by. An error of 0 (every answer right, twice) is one; None, where none is known, gives None."""
    if row.error is None:
        return None
    return STANDARD_ERRORS * float(np.hypot(row.error, runs.get(quantity, 0.0) * _size(quantity, row.committed)))


def both(config: Scale, cell: tuple, jobs: Cell, there: dict[str, pd.Series], root: Path) -> dict[tuple[str, str], Row]:
    """(cell, quantity) -> what was committed and what the cell's finished jobs in `root` say, of every number."""
    rows = {}
    for name, found in _again(config, jobs, root).items():
        for column, (value, se) in found.items():
            # The same quantity, measured as often: where the table has no error of its own, ours stands for both.
            its = there[name].get("average_se", se) if column == "average" else se
            error = None if se is None else float(np.hypot(se, its))
            rows[" ".join(map(str, _key(name, cell))), f"{name}.{column}"] = Row(
                float(there[name][column]), float(f"{value:.10g}"), error
            )  # ten digits, as in a table
    return rows


def spread() -> dict[str, float]:
    """Quantity -> the standard deviation between training runs, of the main table's cells; {} where no table is.

    From the committed worlds that differ from the lab in all their seeds: root mean square over 60 cells of the deviation
    between three runs. Absolute for shares and accuracies, relative for the rest (`_size`).
    """
    found = {}
    for name, key in KEYS.items():
        paths_there = [paths.results(scale) / f"{name}.csv" for scale in OTHER_SEEDS]
        if not all(path.is_file() for path in paths_there):
            return {}
        runs = pd.concat(
            [pd.read_csv(path).set_index(key).select_dtypes("float") for path in paths_there], join="inner"
        )
        runs = runs.groupby(level=key).filter(lambda cell: len(cell) == len(OTHER_SEEDS)).groupby(level=key)
        variances, means = runs.var(), runs.mean()
        for column in variances:
            size = _size(f"{name}.{column}", means[column])
            found[f"{name}.{column}"] = float(np.sqrt((variances[column] / size**2).mean()))
    return found


def _size(quantity: str, value):
    """What a spread is relative to: 1 for shares, which lie between 0 and 1."""
    share = quantity.split(".")[0] in ("teachers", "students", "base_students") and not quantity.endswith("mean_length")
    return 1.0 if share else abs(value)


def frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["cell", "quantity", "committed", "rerun", "difference", "tolerance", "verdict"])


def verdict(cell: str, quantity: str, row: Row, tolerance: float | None) -> tuple:
    """A line of the report. A tolerance of None: the two may differ by nobody knows how much."""
    difference, equal = row.rerun - row.committed, is_equal(row.committed, row.rerun)
    if equal:
        said = "equal"
    elif tolerance is None or (tolerance and not np.isfinite(difference)):
        said = "not compared"
    else:  # ten digits are what a table holds
        said = "within" if tolerance and abs(difference) <= tolerance + 1e-9 * abs(row.committed) else "OUTSIDE"
    return (cell, quantity, row.committed, row.rerun, difference, np.nan if tolerance is None else tolerance, said)


def is_equal(there: float, again: float) -> bool:
    return there == again or (np.isnan(there) and np.isnan(again))  # two empty cells are equal


def _tells(where: tuple[str, str]) -> bool:
    """Whether a quantity is a sum of many rounded numbers: counts and shares may be equal by chance, these are not."""
    table, column = where[1].split(".")
    return table == "scores" and column != "mean_length" or column in ("loss", "mean_prob", "grad_norm")


def committed(scale: str, cell: tuple) -> dict[str, pd.Series]:
    """Table -> the cell's row of it, of (task, student, teacher, temperature). FileNotFoundError for a table that is not
    there, ValueError for one that has not exactly one such row."""
    rows = {}
    for name in KEYS:
        path, key = paths.results(scale) / f"{name}.csv", _key(name, cell)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; `{command_for(scale)}` makes it")
        table = pd.read_csv(path).set_index(KEYS[name]).sort_index()
        if (n := int((table.index == key).sum())) != 1:
            raise ValueError(
                f"{path}: {n} rows of {' '.join(map(str, key))}, expected one; `{command_for(scale)}` "
                "makes the table again"
            )
        rows[name] = table.loc[key]
    return rows


def _key(table: str, cell: tuple) -> tuple:
    return tuple(dict(zip(KEYS["features"], cell, strict=True))[k] for k in KEYS[table])


def _again(config: Scale, cell: Cell, root: Path) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Table -> column -> (value, its standard error over prompts or None where none is known), of a cell just made."""
    data = read_responses(cell.responses.folder(root) / "responses.jsonl", allow_empty=True)
    result = accuracy_of(cell.teacher_accuracy, root)
    errors = {
        "accuracy": result["average_se"],
        "train_accuracy": _error([np.mean(row["correct"][: config.M]) for row in data]),
        "mean_length": _error([np.mean([len(r.split()) for r in row["responses"][: config.M]]) for row in data]),
    }
    teachers = {k: (v, errors.get(k)) for k, v in teacher_row(data, result, config.M).items()}
    f = load_features(cell.features.folder(root), config.m, config.d)
    prompt = pd.Series(f["prompt_id"])
    means = {
        k: (v, _error(pd.Series(f[k]).groupby(prompt.to_numpy()).mean()) if k in f else None)
        for k, v in feature_means(config, f).items()
    }
    scored = {
        k: (v, _grace_error(f, config) if k == "grace" else None)
        for k, v in cell_scores(f, config.n_folds, config.nu).items()
    }
    accuracies = {
        name: {k: (v, result["average_se"] if k == "average" else None) for k, v in result.items()}
        for name, job in (("base_students", cell.base_accuracy), ("students", cell.student_accuracy))
        for result in [accuracy_of(job, root)]
    }
    return {"teachers": teachers, "features": means, "scores": scored, **accuracies}


def _error(of_prompts) -> float:
    return float(np.std(of_prompts, ddof=1) / len(of_prompts) ** 0.5)


def _grace_error(f: dict, config: Scale) -> float:
    h, keys = recalibrate(f["g"], f["length"]), {"n_folds": config.n_folds, "nu": config.nu, "zero_rows": "keep"}
    interval = grace_interval(grace(h, f["prompt_id"], **keys), influence=grace_influence(h, f["prompt_id"], **keys))
    return (interval.high - interval.low) / (2 * 1.96)


def kind_of(job: Job, root: Path) -> dict:
    """The kind of machine that a finished job ran on: packages that decide, Python, platform, instructions, threads."""
    meta = json.loads((job.folder(root) / META).read_text(encoding="utf-8"))
    return _of_versions(meta["versions"]) | meta.get("machine", {"cpu": None, "threads": None})


def _of_versions(found: dict) -> dict:
    return {name: found.get(name) for name in (*DECISIVE, "python", "machine")}


def _expected(scale: str, kind: dict, n_kinds: int, share: float, machine: str) -> tuple[str, str]:
    if machine != "auto":
        return ("equal bits" if machine == "same" else "another CPU"), f"--machine {machine}"
    if kind in _recorded(scale).get("kinds", []) and n_kinds == 1:
        return "equal bits", f"{RECORD}.json names this kind of machine as one that gave these tables back"
    if share > 0.5:
        return "equal bits", f"{share:.0%} of the losses, norms and scores are equal to the last digit"
    changed = [
        f"{name} {then} there, {kind[name]} here" for name, then in _made_with(scale).items() if then != kind[name]
    ]
    return "another CPU", (", ".join(changed) or "the CPU that made the tables is not recorded") + (
        f", and {share:.0%} of the losses, norms and scores are equal to the last digit"
    )


def _made_with(scale: str) -> dict:
    """Versions in the figures' sidecars: of the run that drew them, which at mini and lab made the tables."""
    path = paths.figures(scale) / "table_main.json"
    return _of_versions(json.loads(path.read_text(encoding="utf-8"))["versions"]) if path.is_file() else {}


def _tables(scale: str) -> dict[str, str]:
    return {f"results/{name}.csv": file_hash(paths.results(scale) / f"{name}.csv") for name in KEYS}


def _recorded(scale: str) -> dict:
    """The record that is there, if it is of the tables as they are now."""
    path = paths.figures(scale) / f"{RECORD}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return record if record.get("inputs") == _tables(scale) else {}


def record(scale: str, seed: int, report: Report) -> list[Path]:
    """Write figures/<scale>/verify.csv and verify.json. A kind of machine that gave every number back is remembered."""
    csv, sidecar = (paths.figures(scale) / f"{RECORD}{ending}" for ending in (".csv", ".json"))
    known = _recorded(scale).get("kinds", [])
    if (report.table["verdict"] == "equal").all() and report.kind not in known:
        known = [*known, report.kind]
    form = {"index": False, "float_format": "%.10g", "lineterminator": "\n"}
    write_atomically(csv, lambda part: report.table.to_csv(part, **form))
    about = {
        "name": RECORD,
        "scale": scale,
        "seed": seed,
        "expected": report.expected,
        "because": report.because,
        "verdicts": report.table["verdict"].value_counts().to_dict(),
        "kind": report.kind,
        "kinds": known,
        "inputs": _tables(scale),
        "files": {csv.name: file_hash(csv)},
        "versions": versions(),
    }
    text = json.dumps(about, indent=1, sort_keys=True) + "\n"
    write_atomically(sidecar, lambda part: part.write_text(text, encoding="utf-8"))
    return [csv, sidecar]
