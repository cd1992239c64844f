"""Are the committed result tables what this code computes? A sample of their cells is computed again, from nothing.

What may be expected depends on the machine. On the same kind (package versions, platform, vector instructions, threads)
training, sampling and scoring give the same bits, so every number of a table must come out again to its last digit.
Another CPU rounds differently: one float flips one sampled token and everything after it, so that it trains other
checkpoints, and accuracies and means are compared within three standard errors of the difference (of prompts and
samples; what another training run would add is not in them). Features are comparable across CPUs only for the same
checkpoint and the same responses: `against` takes both from the other machine's runs folder, and allows 1e-4.

Which of the two applies: the same kind where a record (`figures/<scale>/verify.json`, of these very tables) names this
machine as one that gave them back, or where most losses, norms and scores are equal to the last digit, which no other
training run would give by chance; then all must be. Otherwise another CPU.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd

from gracelib import paths
from gracelib.feature_file import load_features
from gracelib.influence import grace_influence
from gracelib.intervals import grace_interval
from gracelib.pipeline import Plan, _accuracy, _teacher_row, cell_scores, feature_means
from gracelib.scales import Scale, command_for, get_scale
from gracelib.scores import grace, recalibrate
from gracelib.store import DECISIVE, META, Job, fault_in, file_hash, versions, with_upstream, write_atomically
from gracelib.tasks import read_responses
from gracelib.workers import run_jobs

FEATURES_WITHIN = 1e-4  #: relative, of each response's projected gradient and of its other numbers
STANDARD_ERRORS = 3
KEYS = {"teachers": ["task", "teacher", "temperature"], "base_students": ["task", "student"],
        **dict.fromkeys(("features", "scores", "students"), ["task", "student", "teacher", "temperature"])}
RECORD = "verify"


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
    cost = {(plan.task.name, *cell): sum(job.cost for job in with_upstream(_chain(plan, cell)))
            for plan in (Plan(config, task.name) for task in config.tasks) for cell in plan.features}
    if not 0 < n <= len(cost):
        raise ValueError(f"--cells {n}: scale {config.name!r} has {len(cost)} cells; choose 1 to {len(cost)}")
    cheap = sorted(cost, key=lambda cell: (cost[cell], cell))[:max(n, len(cost) // 2)]
    return sorted(Random(seed).sample(cheap, n))


def _chain(plan: Plan, cell: tuple) -> list[Job]:
    student, teacher, t = cell
    accuracies = plan.student_accuracy[cell], plan.teacher_accuracy[teacher, t], plan.base_accuracy[student]
    return [plan.features[cell], *accuracies]


def verify(scale: str, n: int = 3, seed: int = 0, machine: str = "auto") -> Report:
    """Compute `n` sampled cells again under runs/verify/<scale> (what is finished there is reused) and compare them.

    `machine`: "auto", or "same" / "other" to say which comparison applies. ValueError for an unknown scale, too many
    cells, a table without one of them; FileNotFoundError for a table that is not there; RuntimeError for a failed job.
    """
    if machine not in ("auto", "same", "other"):
        raise ValueError(f"--machine {machine!r} is not known; choose auto, same or other")
    config, root = get_scale(scale), paths.runs() / "verify" / scale
    cells = sample(config, n, seed)
    committed = {name: _committed(scale, name, cells) for name in KEYS}  # before hours are spent
    plans = {task.name: Plan(config, task.name) for task in config.tasks}
    run_jobs([job for task, *cell in cells for job in _chain(plans[task], tuple(cell))], root, f"verify {scale}")
    rows = {}
    for task, *cell in cells:
        for name, found in _again(config, plans[task], tuple(cell), root).items():
            key = tuple(dict(zip(KEYS["features"], (task, *cell), strict=True))[k] for k in KEYS[name])
            for column, (value, se) in found.items():
                there = committed[name].loc[key]
                # The same quantity, measured as often: where the table has no error of its own, ours stands for both.
                its = there.get("average_se", se) if column == "average" else se
                rows[" ".join(map(str, key)), f"{name}.{column}"] = (float(there[column]), float(f"{value:.10g}"),
                                                                      _joined(se, its))  # ten digits, as a table
    kinds = {json.dumps(_kind(plans[task].features[tuple(cell)], root), sort_keys=True) for task, *cell in cells}
    kind = json.loads(max(kinds))
    equal = {where: _equal(there, again) for where, (there, again, _) in rows.items()}
    share = float(np.mean([equal[where] for where in rows if _tells(where)]))
    expected, because = _expected(scale, kind, len(kinds), share, machine)
    table = [(*where, there, again, *_verdict(there, again, error, equal[where], expected))
             for where, (there, again, error) in rows.items()]
    return Report(_frame(table), expected, because, kind)


def _frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["cell", "quantity", "committed", "rerun", "difference", "tolerance", "verdict"])


def _joined(se: float | None, its: float | None) -> float | None:
    return None if se is None else float(np.hypot(se, its))


def _verdict(there: float, again: float, error: float | None, equal: bool, expected: str) -> tuple[float, float, str]:
    """(difference, tolerance, verdict) of one number."""
    if expected == "equal bits":
        return again - there, 0.0, "equal" if equal else "OUTSIDE"
    if error is None or not np.isfinite(again - there):
        return again - there, float("nan"), "equal" if equal else "not compared"
    within = abs(again - there) <= STANDARD_ERRORS * error + 1e-9 * abs(there)  # ten digits are what a table holds
    return again - there, STANDARD_ERRORS * error, "equal" if equal else "within" if within else "OUTSIDE"


def _equal(there: float, again: float) -> bool:
    return there == again or (np.isnan(there) and np.isnan(again))  # two empty cells are equal


def _tells(where: tuple[str, str]) -> bool:
    """Whether a quantity is a sum of many rounded numbers: counts and shares may be equal by chance, these are not."""
    table, column = where[1].split(".")
    return table == "scores" and column != "mean_length" or column in ("loss", "mean_prob", "grad_norm")


def _committed(scale: str, name: str, cells: list[tuple]) -> pd.DataFrame:
    path = paths.results(scale) / f"{name}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; `{command_for(scale)}` makes it")
    table = pd.read_csv(path).set_index(KEYS[name])
    for cell in cells:
        key = tuple(dict(zip(KEYS["features"], cell, strict=True))[k] for k in KEYS[name])
        if (n := int((table.index == key).sum())) != 1:
            raise ValueError(f"{path}: {n} rows of {' '.join(map(str, key))}, expected one; `{command_for(scale)}` "
                             "makes the table again")
    return table.sort_index()


def _again(config: Scale, plan: Plan, cell: tuple, root: Path) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Table -> column -> (value, its standard error over prompts or None where none is known), of a cell just made."""
    student, teacher, t = cell
    data = read_responses(plan.responses[teacher, t].folder(root) / "responses.jsonl", allow_empty=True)
    result = _accuracy(plan.teacher_accuracy[teacher, t], root)
    errors = {"accuracy": result["average_se"],
              "train_accuracy": _error([np.mean(row["correct"][:config.M]) for row in data]),
              "mean_length": _error([np.mean([len(r.split()) for r in row["responses"][:config.M]]) for row in data])}
    teachers = {k: (v, errors.get(k)) for k, v in _teacher_row(data, result, config.M).items()}
    f = load_features(plan.features[cell].folder(root), config.m, config.d)
    prompt = pd.Series(f["prompt_id"])
    means = {k: (v, _error(pd.Series(f[k]).groupby(prompt.to_numpy()).mean()) if k in f else None)
             for k, v in feature_means(config, f).items()}
    scored = {k: (v, _grace_error(f, config) if k == "grace" else None)
              for k, v in cell_scores(f, config.n_folds, config.nu).items()}
    accuracies = {name: {k: (v, result["average_se"] if k == "average" else None) for k, v in result.items()}
                  for name, job in (("base_students", plan.base_accuracy[student]),
                                    ("students", plan.student_accuracy[cell]))
                  for result in [_accuracy(job, root)]}
    return {"teachers": teachers, "features": means, "scores": scored, **accuracies}


def _error(of_prompts) -> float:
    return float(np.std(of_prompts, ddof=1) / len(of_prompts) ** 0.5)


def _grace_error(f: dict, config: Scale) -> float:
    h, keys = recalibrate(f["g"], f["length"]), {"n_folds": config.n_folds, "nu": config.nu, "zero_rows": "keep"}
    interval = grace_interval(grace(h, f["prompt_id"], **keys), influence=grace_influence(h, f["prompt_id"], **keys))
    return (interval.high - interval.low) / (2 * 1.96)


def _kind(job: Job, root: Path) -> dict:
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
    changed = [f"{name} {then} there, {kind[name]} here" for name, then in _made_with(scale).items()
               if then != kind[name]]
    return "another CPU", (", ".join(changed) or "the CPU that made the tables is not recorded") + (
        f", and {share:.0%} of the losses, norms and scores are equal to the last digit")


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
    about = {"name": RECORD, "scale": scale, "seed": seed, "expected": report.expected, "because": report.because,
             "verdicts": report.table["verdict"].value_counts().to_dict(), "kind": report.kind, "kinds": known,
             "inputs": _tables(scale), "files": {csv.name: file_hash(csv)}, "versions": versions()}
    text = json.dumps(about, indent=1, sort_keys=True) + "\n"
    write_atomically(sidecar, lambda part: part.write_text(text, encoding="utf-8"))
    return [csv, sidecar]


def against(scale: str, other: Path, n: int = 3, seed: int = 0) -> Report:
    """Features of the sampled cells computed here from the checkpoints and responses in another machine's runs folder,
    against the features that lie there. Tolerance 1e-4 relative; zero where both machines are of one kind.

    ValueError naming the folder where a finished, undamaged result of this code and these parameters is missing.
    """
    config, root = get_scale(scale), paths.runs() / "verify" / f"{scale}-given"
    plans, jobs = {task.name: Plan(config, task.name) for task in config.tasks}, {}
    for task, *cell in sample(config, n, seed):
        jobs[task, *cell] = job = plans[task].features[tuple(cell)]
        for needed in (*job.inputs.values(), job):
            if not (needed.folder(other) / META).is_file():
                raise ValueError(f"{needed.folder(other)} is not there: {needed.stage.name} {needed.label}, by the "
                                 "same code, parameters and package versions as here, is what can be compared")
            if fault := fault_in(needed.folder(other)):
                raise ValueError(f"{needed.folder(other).parent}: {fault}; copy it from the other machine again")
        for given in job.inputs.values():
            shutil.copytree(given.folder(other), given.folder(root), dirs_exist_ok=True)
    run_jobs([*jobs.values()], root, f"verify features of {scale}")
    rows, equal = [], True
    for cell, job in jobs.items():
        there, again = (load_features(job.folder(where)) for where in (other, root))
        same = _kind(job, other) == _kind(job, root)
        equal &= same
        for name in ("g", "loss", "mean_prob", "grad_norm", "length"):
            a, b = (np.atleast_2d(f[name].astype(np.float64).T).T for f in (there, again))
            norm = np.linalg.norm(a, axis=1)
            worst = float((np.linalg.norm(a - b, axis=1) / np.where(norm > 0, norm, 1)).max())
            tolerance = 0.0 if same else FEATURES_WITHIN
            verdict = "equal" if worst == 0 else "within" if worst <= tolerance else "OUTSIDE"
            rows.append((" ".join(map(str, cell)), f"features.{name}, worst response, relative", float(norm.max()),
                         float(np.linalg.norm(b, axis=1).max()), worst, tolerance, verdict))
    kind = _kind(next(iter(jobs.values())), root)
    return Report(_frame(rows), "equal bits" if equal else "another CPU",
                  "both machines are of one kind" if equal else "the folder was made on another kind of machine", kind)
