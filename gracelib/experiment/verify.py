"""Are the committed result tables what this code computes? A sample of their cells is computed again, from nothing.

Where the tables were made with the arithmetic and the versions of this machine (`reference.changed_since`), every number
must come out again to its last digit. Other bits flip one sampled token and everything after it, so that they train other
checkpoints. Accuracies and means are then compared within three standard errors of the difference over prompts. That is
a weak test of a cell, and a teacher that is only just competent may fail it: two training runs of one differ by more
(lab and its worlds of other seeds show by how much). The sharp test starts from committed checkpoints and responses,
where features must agree to 1e-4: tests/experiment/test_verify.py.
"""

from pathlib import Path
from random import Random

import numpy as np
import pandas as pd

from gracelib.experiment.plan import KEY, Plan, accuracy_of, plans_of
from gracelib.experiment.reference import changed_since
from gracelib.experiment.scales import command_for, get_scale
from gracelib.experiment.tables import cell_scores, feature_means, table, teacher_row
from gracelib.features.files import load_features
from gracelib.intervals import grace_influence, grace_interval
from gracelib.jobs import paths
from gracelib.jobs.running import run_jobs
from gracelib.jobs.store import Job, with_upstream
from gracelib.scale import Scale
from gracelib.scores import grace, recalibrate
from gracelib.text.responses import read_responses

STANDARD_ERRORS = 3
TABLES = ("teachers", "base_students", "features", "scores", "students")


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


def cell_jobs(plan: Plan, cell: tuple[str, str, float]) -> list[Job]:
    """The jobs that the rows of (student, teacher, temperature) are read off."""
    student, teacher, t = cell
    accuracies = [plan.teacher_accuracy[teacher, t], plan.base_accuracy[student], plan.student_accuracy[cell]]
    return [plan.responses[teacher, t], plan.features[cell], *accuracies]


def verify(scale: str, n: int = 3, seed: int = 0) -> tuple[pd.DataFrame, str]:
    """Compute `n` sampled cells again under runs/verify/<scale> (what is finished there is reused) and compare them.

    Returns one row a (cell, quantity) as `compared`, with tolerance and verdict ("equal", "within", "not compared",
    "OUTSIDE"), and in words which comparison applied and why.
    ValueError for an unknown scale, too many cells, a table without one of them; FileNotFoundError for a table that is
    not there; RuntimeError for a failed job.
    """
    config, root = get_scale(scale), paths.runs() / "verify" / scale
    plans = {plan.task.name: plan for plan in plans_of(config)}
    cells = sample(config, n, seed)
    there = {cell: committed(scale, cell) for cell in cells}  # before hours are spent
    run_jobs([job for task, *cell in cells for job in cell_jobs(plans[task], tuple(cell))], root, f"verify {scale}")
    found = pd.concat([compared(plans[cell[0]], cell[1:], there[cell], root) for cell in cells], ignore_index=True)
    equal = (found["committed"] == found["rerun"]) | (found["committed"].isna() & found["rerun"].isna())
    changed = changed_since(paths.tables(scale))
    same = not changed
    found["tolerance"] = 0.0 if same else STANDARD_ERRORS * found.pop("error")
    within = found["difference"].abs() <= found["tolerance"] + 1e-9 * found["committed"].abs()  # a table has ten digits
    unknown = found["tolerance"].isna() | found["difference"].isna()
    found["verdict"] = np.select(
        [equal, same, unknown, within], ["equal", "OUTSIDE", "not compared", "within"], "OUTSIDE"
    )
    return found, f"other bits ({', '.join(changed)})" if changed else "equal bits"


def committed(scale: str, cell: tuple) -> dict[str, pd.Series]:
    """Table -> the cell's row of it, of (task, student, teacher, temperature). FileNotFoundError for a table that is not
    there, ValueError for one that has not exactly one such row."""
    rows = {}
    for name in TABLES:
        whole = table(scale, name, recompute=False)
        key = {column: value for column, value in zip(KEY, cell, strict=True) if column in whole}
        own = whole[np.logical_and.reduce([whole[column] == value for column, value in key.items()])]
        if len(own) != 1:
            raise ValueError(
                f"{paths.tables(scale) / name}.csv: {len(own)} rows of {' '.join(map(str, key.values()))}, expected "
                f"one; `{command_for(scale)}` makes the table again"
            )
        rows[name] = own.iloc[0]
    return rows


def compared(plan: Plan, cell: tuple[str, str, float], there: dict[str, pd.Series], root: Path) -> pd.DataFrame:
    """Every number of a cell as committed and as its finished jobs in `root` say, one row each.

    Columns: cell, quantity (table.column), committed, rerun, difference, error: the standard error of the difference
    over prompts, NaN where none is known.
    """
    config, (student, teacher, t) = plan.scale, cell
    data = read_responses(plan.responses[teacher, t].folder(root) / "responses.jsonl", allow_empty=True)
    f = load_features(plan.features[cell].folder(root), config.m, config.d)
    accuracy = accuracy_of(plan.teacher_accuracy[teacher, t], root)
    again = {
        "teachers": teacher_row(data, accuracy, config.M),
        "base_students": accuracy_of(plan.base_accuracy[student], root),
        "features": feature_means(config, f),
        "scores": cell_scores(f, config.n_folds, config.nu),
        "students": accuracy_of(plan.student_accuracy[cell], root),
    }
    words = [[len(r.split()) for r in row["responses"][: config.M]] for row in data]
    errors = {
        "teachers.accuracy": accuracy["average_se"],
        "teachers.train_accuracy": _error([np.mean(row["correct"][: config.M]) for row in data]),
        "teachers.mean_length": _error([np.mean(lengths) for lengths in words]),
        "scores.grace": _grace_error(f, config),
    }
    for name in ("length", "loss", "mean_prob", "grad_norm"):
        errors[f"features.{name}"] = _error(pd.Series(f[name]).groupby(f["prompt_id"]).mean())
    rows = []
    for name, row in again.items():
        for column, value in row.items():
            # Measured twice: where the table has an error of its own, that is the other one.
            ours = row["average_se"] if column == "average" else errors.get(f"{name}.{column}", np.nan)
            theirs = there[name]["average_se"] if column == "average" else ours
            pair = float(there[name][column]), float(f"{value:.10g}")  # ten digits, as in a table
            rows.append((f"{name}.{column}", *pair, pair[1] - pair[0], np.hypot(ours, theirs)))
    columns = ["quantity", "committed", "rerun", "difference", "error"]
    found = pd.DataFrame(rows, columns=columns)
    found.insert(0, "cell", " ".join(map(str, (plan.task.name, *cell))))
    return found


def _error(of_prompts) -> float:
    return float(np.std(of_prompts, ddof=1) / len(of_prompts) ** 0.5)


def _grace_error(f: dict, config: Scale) -> float:
    h, keys = recalibrate(f["g"], f["length"]), {"n_folds": config.n_folds, "nu": config.nu, "zero_rows": "keep"}
    interval = grace_interval(grace(h, f["prompt_id"], **keys), influence=grace_influence(h, f["prompt_id"], **keys))
    return (interval.high - interval.low) / (2 * 1.96)
