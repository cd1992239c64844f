"""Every result table of a scale: which jobs it is read off, and what its rows say.

`TABLES` is the one list of them. From it follow what a notebook gets (`table`), which jobs a part of a full run
consists of and what is planned (`run.jobs`), and what must be there before anything is drawn (`check`). A table is
written under figures/<scale>/results and read back: with `recompute=False` the run's own or the published file is read,
so that a reader of a notebook need not train anything. Figures are drawn from those files alone.

A file may have been edited, cut or merged badly: it is whole, or one error with file and line. Why not
`pandas.read_csv` alone: it takes a line that was cut for one with missing values, and a word in a column of numbers for
a column of words, so that a figure shows something else or fails far from the fault.
"""

import csv
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gracelib.baselines import SINCE, compute_scores
from gracelib.checks import check_choice
from gracelib.evidence.cells import ACCURACIES, TRAINING_SD, UNTRAINED, training_sd
from gracelib.evidence.regimes import near_copies
from gracelib.experiment import extras, measurements
from gracelib.experiment.mixtures import mixture_jobs
from gracelib.experiment.objectives import FURTHER, objective_jobs
from gracelib.experiment.plan import KEY, Plan, accuracy_of, compared_at, plans_of
from gracelib.experiment.scales import COVERAGE, REDRAWN, SCALES, TABLES_ONLY, WORLDS, command_for, get_scale
from gracelib.features.files import load_features, rows_of
from gracelib.intervals import DIFFERENCES, grace_interval, ranked_differences
from gracelib.jobs import paths
from gracelib.jobs.arithmetic import arithmetic
from gracelib.jobs.running import run_jobs
from gracelib.jobs.store import META, Job, versions, write_atomically
from gracelib.scale import PaperScale, Scale
from gracelib.scores import Grace, recalibrate
from gracelib.since import pooled
from gracelib.text.responses import read_jsonl, read_responses

Jobs = dict[tuple, tuple[Job, ...]]
MADE_WITH = "made_with.json"  #: beside the tables: the arithmetic and the versions that made them


@dataclass(frozen=True)
class Table:
    """One result table.

    `jobs(plans)`, with the plans of all tasks of a scale, gives the jobs that each row is read off, by the row's key:
    its values of the columns `key`. Once they are finished, `rows(scale, key, *jobs)` gives what stands beside that
    key, a dict a row. `then(plans)` replaces `jobs(plans)` where the rest is known only when these are finished.
    """

    part: str  #: of a full run that finishes the jobs, see `run.jobs`; "cells": one part a task and student
    jobs: Callable[[list[Plan]], Jobs]
    rows: Callable[..., Iterable[dict]]
    key: Sequence[str] = tuple(KEY)
    then: Callable[[list[Plan]], Jobs] | None = None
    not_at: Sequence[str] = TABLES_ONLY  #: scales that do not have it
    asked_at: Sequence[str] = ()  #: scales that make it only where its part is named


# --- teachers and students ----------------------------------------------------------------------------------


def _teachers(plans: list[Plan]) -> Jobs:
    found = {}
    for plan in plans:
        specs = {spec.name: spec for spec in plan.scale.teachers}
        for (teacher, t), responses in plan.responses.items():
            key = (plan.task.name, teacher, specs[teacher].manner, plan.scale.width(specs[teacher]), t)
            graded = (plan.correct[teacher, t],) if plan.correct else ()  # else the responses are graded themselves
            found[key] = (responses, plan.teacher_accuracy[teacher, t], *graded)
    return found


def _teacher_rows(scale: Scale, key: tuple, responses: Job, accuracy: Job, *graded: Job) -> list[dict]:
    data = _responses(responses)
    for job in graded:
        verdicts = {row["id"]: row["correct"] for row in read_jsonl(job.folder(paths.runs()) / "correct.jsonl")}
        data = [row | {"correct": verdicts[row["id"]]} for row in data]
    return [teacher_row(data, accuracy_of(accuracy, paths.runs()), scale.M)]


def _cast(plans: list[Plan]) -> Jobs:
    students = [("student", plan.task.name, role) for plan in plans for role in plan.students]
    return dict.fromkeys([*students, *(("teacher", "", teacher) for teacher in plans[0].teachers)], ())


def _cast_rows(scale: PaperScale, key: tuple) -> list[dict]:
    kind, task, name = key
    teachers = {model.name: model for model in scale.teachers}
    model = scale.model(scale.task(task), name) if kind == "student" else teachers[name]
    data = scale.task(task).title if task else ""
    return [{"model": model.name, "source": model.source, "parameters": model.parameters, "data": data}]


def _responses(job: Job) -> list[dict]:
    return read_responses(job.folder(paths.runs()) / "responses.jsonl", allow_empty=True)


def teacher_row(data: list[dict], result: dict, M: int) -> dict[str, float]:
    """What a row of `teachers` says beside its key, from graded responses, the first M of each, and an accuracy.

    accuracy (Average@k on held-out problems), best_of, greedy, train_accuracy (of the responses students learn from),
    mean_length (words), truncated (share), distinct (share of a prompt's responses that differ).
    """
    texts = [r for row in data for r in row["responses"][:M]]
    return {
        "accuracy": result["average"],
        "best_of": result["best_of"],
        "greedy": result["greedy"],
        "train_accuracy": sum(sum(row["correct"][:M]) for row in data) / len(texts),
        "mean_length": sum(len(r.split()) for r in texts) / len(texts),
        "truncated": result["truncated"],
        "distinct": sum(len(set(row["responses"][:M])) for row in data) / len(texts),
    }


def _base_students(plans: list[Plan]) -> Jobs:
    return {(plan.task.name, name): (job,) for plan in plans for name, job in plan.base_accuracy.items()}


def _students(plans: list[Plan]) -> Jobs:
    return {(plan.task.name, *cell): (job,) for plan in plans for cell, job in plan.student_accuracy.items()}


def _accuracy_rows(scale: Scale, key: tuple, accuracy: Job) -> list[dict]:
    return [accuracy_of(accuracy, paths.runs())]


def _examples(plans: list[Plan]) -> Jobs:
    return {
        (plan.task.name, teacher, t): (job,)
        for plan in plans
        for (teacher, t), job in plan.responses.items()
        if t in (plan.task.sampled()[0], plan.task.sampled()[-1])
    }


def _example_rows(scale: Scale, key: tuple, responses: Job) -> list[dict]:
    row = read_jsonl(responses.folder(paths.runs()) / "responses.jsonl")[0]
    return [
        {
            "question": row["question"],
            "answer": row["answer"],
            "response": row["responses"][0],
            "correct": row["correct"][0],
        }
    ]


# --- features and scores ------------------------------------------------------------------------------------


def _features(plans: list[Plan]) -> Jobs:
    return {(plan.task.name, *cell): (job,) for plan in plans for cell, job in plan.features.items()}


def _loaded(scale: Scale, features: Job) -> dict:
    return load_features(features.folder(paths.runs()), scale.m, scale.d)


def _feature_rows(scale: Scale, key: tuple, features: Job) -> list[dict]:
    f = _loaded(scale, features)
    copies = {"near_copies": near_copies(f["g"], scale.m)} if scale.name in _COVERAGE else {}
    return [feature_means(scale, f) | copies]


def feature_means(scale: Scale, f: dict) -> dict[str, float]:
    """What a row of `features` says beside its key: n_prompts, m, d; means over responses of length, loss, mean_prob
    and grad_norm."""
    means = {k: float(f[k].mean()) for k in ("length", "loss", "mean_prob", "grad_norm")}
    return {"n_prompts": scale.n_prompts, "m": scale.m, "d": scale.d, **means}


def _score_rows(scale: Scale, key: tuple, features: Job) -> list[dict]:
    return [cell_scores(_loaded(scale, features), scale.n_folds, scale.nu)]


def cell_scores(features: dict, n_folds: int, nu: float) -> dict[str, float]:
    """Every score of `baselines.SCORES` that features allow, after length recalibration, and GRACE's cross term.

    A score that no prompt of a teacher allows (the probability of wrong responses of a teacher that is never wrong)
    is NaN: an empty cell of the table.
    """
    scored = compute_scores(features, n_folds=n_folds, nu=nu)
    return {"grace_cross": scored.grace.cross, **scored.values, **dict.fromkeys(scored.undefined, float("nan"))}


def _recorded(scale: Scale, key: tuple, job: Job) -> list[dict]:
    return measurements.rows_of(job, paths.runs())


def _six_digits(rows: Iterable[dict]) -> list[dict]:
    """The rows with their numbers to six significant digits: large tables stay small."""
    return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def _grid_rows(scale: Scale, key: tuple, job: Job) -> list[dict]:
    return _six_digits(_recorded(scale, key, job))


def _length_rows(scale: Scale, key: tuple, features: Job) -> list[dict]:
    f = load_features(features.folder(paths.runs()))  # every response that was kept
    return _six_digits(measurements.length_bins(f["length"], f["grad_norm"]).to_dict("records"))


# --- intervals, and who carries the score -------------------------------------------------------------------


def _contributions(job: Job) -> tuple[Grace, np.ndarray]:
    """GRACE's per-prompt contributions and influences of a cell."""
    rows = measurements.rows_of(job, paths.runs())
    prompt, value, count, moved = (
        np.array([row[k] for row in rows]) for k in ("prompt", "contribution", "count", "influence")
    )
    total, nan = float((count * value).sum() / count.sum()), float("nan")
    return Grace(total, nan, nan, nan, rows[0]["nu_share"], prompt, value, count, np.zeros(0), 0), moved


def _interval_rows(scale: Scale, key: tuple, job: Job) -> list[dict]:
    result, moved = _contributions(job)
    full, fixed = grace_interval(result, influence=moved), grace_interval(result)
    return [
        {"grace": result.total, "low": full.low, "high": full.high, "low_fixed": fixed.low, "high_fixed": fixed.high}
    ]


def _concentration(plans: list[Plan]) -> Jobs:
    found = {}
    for key, own in measurements.contribution_jobs(plans).items():
        features = plans[0].features[key[1:]]
        found[key] = (*own, features, features.inputs["responses"])
    return found


def _concentration_rows(scale: Scale, key: tuple, job: Job, features: Job, responses: Job) -> list[dict]:
    result, moved = _contributions(job)
    f = _loaded(scale, features)
    h, bounds = recalibrate(f["g"], f["length"]), grace_interval(result, influence=moved)
    top = result.prompt_ids[np.argmax(result.count * result.per_prompt)]
    number = np.argmax((h[f["prompt_id"] == top] ** 2).sum(1))  # features keep a prompt's responses in order
    share, rest = top_share(result)
    return [
        {
            "grace": result.total,
            "grace_low": bounds.low,
            "grace_high": bounds.high,
            "top3_share": share,
            "grace_without_top3": rest,
            "nu_share": result.nu_share,
            "largest_response": next(
                row["responses"][number] for row in _responses(responses) if str(row["id"]) == str(top)
            ),
        }
    ]


def top_share(result: Grace, k: int = 3) -> tuple[float, float]:
    """The share of GRACE's sum over prompts that the k largest contributions make, and the mean over the other prompts.

    The matrices stay as fitted on all prompts.
    """
    part = result.count * result.per_prompt
    top, rest = np.split(np.argsort(-part, kind="stable"), [k])
    return float(part[top].sum() / part.sum()), float(part[rest].sum() / result.count[rest].sum())


def _ranked(plans: list[Plan]) -> Jobs:
    """The contributions of every teacher, in the order of the cast, by student and temperature."""
    found = {}
    for (_, student, _, t), own in measurements.contribution_jobs(plans).items():
        found[student, t] = found.get((student, t), ()) + own
    return dict(sorted(found.items()))


def _neighbour_rows(scale: Scale, key: tuple, *jobs: Job) -> list[dict]:
    cast = [spec.name for spec in scale.teachers if scale.task().takes(spec.name, key[1])]
    scored = {name: _contributions(job) for name, job in zip(cast, jobs, strict=True)}
    return ranked_differences(sorted(scored, key=lambda name: scored[name][0].total), scored)


# --- scores published since ---


def _since(plans: list[Plan]) -> Jobs:
    """Features and further passes of every cell of the first task and student, one after the other."""
    jobs = ()
    for key, own in measurements.further_jobs(plans).items():
        jobs += (plans[0].features[key[1:]], *own)
    return {key[:2]: jobs}


def _since_rows(scale: Scale, key: tuple, *jobs: Job) -> Iterable[dict]:
    from safetensors.numpy import load_file

    cells = [(spec.name, t) for spec in scale.teachers for t in scale.temperatures if scale.task().takes(spec.name, t)]
    features = {}
    for cell, own, further in zip(cells, jobs[::2], jobs[1::2], strict=True):
        features[cell] = _loaded(scale, own) | load_file(further.folder(paths.runs()) / measurements.LOSSES)
    for n in (n for n in measurements.halves(scale.n_prompts, 4) if n >= scale.n_folds):
        few = {cell: rows_of(f, f["prompt"] < n) for cell, f in features.items()}
        for (teacher, t), f in pooled(few).items():  # the pool: all that a user would choose from
            f["g"] = f["g"][:, : min(scale.d, n)]
            found = compute_scores(f, ("grace", "g_norm", "g_vendi", *SINCE), n_folds=scale.n_folds, nu=scale.nu)
            values = found.values | dict.fromkeys(found.undefined, np.nan)
            yield from _six_digits([{"teacher": teacher, "temperature": t, "n": n, **values}])


def _mixture_rows(scale: Scale, key: tuple, responses: Job, accuracy: Job) -> list[dict]:
    alone, used = key[3] in {spec.name for spec in scale.teachers}, accuracy.inputs["model"].params
    rows = _responses(responses)[: used["n_prompts"]]
    # The models of a chain and of a regeneration stand behind the strongest teacher.
    whose = Counter(row.get("teacher", key[3] if alone else extras.strongest(scale)) for row in rows)
    ((most, count),) = whose.most_common(1)
    right = np.mean([c for row in rows for c in row["correct"][: used["M"]]])
    said = {"alone": alone, "most": most, "most_share": count / len(rows), "correct": right}
    return [said | accuracy_of(accuracy, paths.runs())]


# --- what it takes ------------------------------------------------------------------------------------------


def _cost(plans: list[Plan]) -> Jobs:
    """Students of the temperature where teachers are compared are trained if they are not there yet."""
    timed, found = measurements.timing_jobs(plans), {}
    for plan in plans:
        for cell, accuracy in plan.student_accuracy.items():
            key = (plan.task.name, *cell)
            measured = (accuracy,) if cell[2] == compared_at(plan.scale) else ()
            found[key] = (plan.students[cell[0]], *timed[key], *measured)
    return found


def _cost_rows(scale: Scale, key: tuple, student: Job, timing: Job, *accuracy: Job) -> list[dict]:
    features = timing.inputs["features"]
    row = {
        "parameters": _parameters(student.folder(paths.runs())),
        "responses": features.params["n_prompts"] * features.params["m"],
        "feature_seconds": seconds_of(features),
        "needed": scale.n_prompts * scale.m,
        **measurements.rows_of(timing, paths.runs())[0],
    }
    for job in accuracy:
        row |= {"train_seconds": seconds_of(job.inputs["model"]), "test_seconds": seconds_of(job)}
    return [row | {"device": features.params["device"], "volatile": True}]


def seconds_of(job: Job) -> float:
    """What a finished job took; NaN if its folder was removed to save space (what needed it is finished)."""
    path = job.folder(paths.runs()) / META
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.is_file() else float("nan")


def _parameters(folder: Path) -> int:
    """The numbers in a model's file; tied weights are in it once."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="numpy") as f:
        return sum(int(np.prod(f.get_slice(name).get_shape())) for name in f.keys())


# --- beyond the grid of cells -------------------------------------------------------------------------------


def _filtered_rows(scale: Scale, key: tuple, taught: Job, *student: Job) -> list[dict]:
    row = extras.kept(taught, paths.runs()) | {"average": np.nan, "average_se": np.nan}
    for accuracy in student[:1]:
        row |= accuracy_of(accuracy, paths.runs())
    for features in student[1:]:
        row |= cell_scores(_loaded(scale, features), scale.n_folds, scale.nu)
    return [row]


def _training_rows(scale: Scale, key: tuple, *jobs: Job) -> list[dict]:
    test, train = (accuracy_of(job, paths.runs()) for job in jobs)
    return [
        {
            "usual": key[-1] == {"epochs": scale.epochs, "generations": scale.M}[key[-2]],
            "test": test["average"],
            "test_se": test["average_se"],
            "train": train["average"],
            "train_se": train["average_se"],
            "test_greedy": test["greedy"],
            "train_greedy": train["greedy"],
        }
    ]


def _absurd_scores(plans: list[Plan]) -> Jobs:
    return {key: (responses, features) for key, (responses, features, _) in extras.absurd_jobs(plans).items()}


def _absurd_rows(scale: Scale, key: tuple, responses: Job, features: Job, *accuracy: Job) -> list[dict]:
    right = [c for row in _responses(responses) for c in row["correct"]]
    row = {"what": extras.KINDS[key[1]], "correct": sum(right) / len(right)}
    row |= cell_scores(_loaded(scale, features), scale.n_folds, scale.nu)
    for job in accuracy:
        measured = accuracy_of(job, paths.runs())
        row |= {"average_at_k" if k == "average" else k: v for k, v in measured.items()}
    return [row]


def _sample_rows(scale: Scale, key: tuple, accuracy: Job, features: Job) -> Iterable[dict]:
    f, known = _loaded(scale, features), accuracy_of(accuracy, paths.runs())
    responses = extras.MORE_PROMPTS * scale.n_train * scale.M
    for n in (n for n in measurements.halves(scale.n_prompts, 5) if n >= scale.n_folds):
        few = rows_of(f, f["prompt"] < n)
        few["g"] = few["g"][:, : min(scale.d, n)]
        yield {"n": n, "share": n * scale.m / responses, **cell_scores(few, scale.n_folds, scale.nu), **known}


def _protocol_rows(scale: Scale, key: tuple, own: Job, usual: Job) -> list[dict]:
    found, base = (accuracy_of(job, paths.runs()) for job in (own, usual))
    points = 100 * (found["average"] - base["average"])
    return [{"average": found["average"], "average_se": found["average_se"], "points": points}]


# --- the list -----------------------------------------------------------------------------------------------

_TEACHER = ("task", "teacher", "manner", "width", "temperature")
_ODD = ("student", "teacher")
_MIXED = ("task", "student", "temperature", "mixture", "seed")
_COVERAGE = {scale.name for scale in COVERAGE}
_ONE_SETTING = tuple(set(TABLES_ONLY) - _COVERAGE)  # whose scores are computed at one setting
#: A scale whose scores since GRACE nobody reads.
_NO_RECORD = ("coverage-mini",)
_LABS = (*REDRAWN, *(scale.name for scale in WORLDS))
_NOT_LAB, _NO_REPEATS = tuple(SCALES.keys() - {*REDRAWN}), tuple(SCALES.keys() - {*_LABS})
TABLES = {
    # Who stands behind the names of the other tables: model, source, parameters, data.
    "cast": Table("teachers", _cast, _cast_rows, ("kind", "task", "name"), not_at=tuple(SCALES)),
    # One row a (task, teacher, temperature), `teacher_row`.
    "teachers": Table("teachers", _teachers, _teacher_rows, _TEACHER, not_at=()),
    # Accuracy of each base student before any distillation: average, average_se, best_of, greedy, truncated.
    "base_students": Table("teachers", _base_students, _accuracy_rows, ("task", "student"), not_at=()),
    # One question of each task and each teacher's first response to it, at the coldest and the hottest temperature.
    "examples": Table("teachers", _examples, _example_rows, ("task", "teacher", "temperature")),
    # What needs no score, `feature_means`; for the second world also near_copies (`regimes.near_copies`).
    "features": Table("cells", _features, _feature_rows, not_at=()),
    # Every score of every cell, `cell_scores`.
    "scores": Table("cells", _features, _score_rows, not_at=()),
    # Accuracy of the student distilled on every cell's responses; columns as `base_students`.
    "students": Table("cells", _students, _accuracy_rows, not_at=()),
    # `measurements.length_bins` of every cell of every task and student, over all responses kept; six significant digits.
    "lengths": Table("cells", _features, _length_rows),
    # Students of filtered responses: kept_share, prompts, prompts_kept; accuracies of a student taught only right
    # responses (N x M of them); scores of the filtered responses of the prompts that GRACE reads. NaN where a teacher
    # has no right response (no student), or right ones to fewer prompts than there are folds (no scores). The
    # unfiltered students of the same cells are in `students`, their scores in `scores`.
    "filtered": Table("extra", extras.filter_jobs, _filtered_rows, then=extras.possible_students),
    # Accuracy against epochs and against responses per prompt, a row a run: usual (the scale's own setting: a cell of the
    # grid), test and test_se (Average@k on held-out problems), train and train_se (Average@4 on the training prompts).
    "training_runs": Table("extra", extras.training_jobs, _training_rows, (*KEY, "axis", "value")),
    # Every variant of `variants.VARIANTS` (and what it is compared with), one column each.
    "variants": Table("figures", measurements.variant_jobs, _recorded),
    # The released code on all prompts and on 4, see `variants.few_prompts`.
    "few_prompts": Table("figures", measurements.few_prompts_jobs, _recorded),
    # GRACE with 95% intervals: low, high; low_fixed, high_fixed with the fold matrices held fixed.
    "intervals": Table("figures", measurements.contribution_jobs, _interval_rows),
    # How few prompts carry GRACE, and how much of it the smoothing decides: grace, grace_low, grace_high (as
    # `intervals`), top3_share and grace_without_top3 (`top_share`), nu_share (`Grace.nu_share`), largest_response (to
    # the prompt with the largest contribution, the text with the longest gradient).
    "concentration": Table("figures", _concentration, _concentration_rows),
    # Teachers next to each other in GRACE's ranking of one student and temperature: `ranked_differences`.
    "neighbours": Table("figures", _ranked, _neighbour_rows, ("student", "temperature")),
    # `score_grid` along the lines the ablations need, `measurements.grid_jobs`; six significant digits.
    "grid": Table("figures", measurements.grid_jobs, _grid_rows, not_at=_ONE_SETTING),
    # Whether students are at their end, and how far training decides: accuracies as `students`, by cell and `what` it is of
    # (`extras.check_jobs`).
    "checks": Table("extra", extras.check_jobs, _accuracy_rows, (*KEY, "what"), not_at=tuple(set(SCALES) - _COVERAGE)),
    # Terms of `cmi.CmiBound` with eta = sigma = 1 (multiply by eta^2/sigma^2), a row per setting: space ("g", "h"),
    # preconditioner, nu, n.
    "cmi": Table("figures", measurements.cmi_jobs, _recorded),
    # What each cell took, as measured when its jobs ran: parameters (D of the student), responses (whose gradients were
    # taken), feature_seconds (for these), needed (n m, what a score is computed from), score_seconds (GRACE from
    # features in memory), feature_bytes (of n m x d numbers), train_seconds and test_seconds (of the cell's student, at
    # the temperature at which teachers are compared, empty elsewhere), device, volatile (always True: seconds differ
    # between machines, and between two runs on one).
    "cost": Table("figures", _cost, _cost_rows),
    # Every estimator of `measurements.ESTIMATORS` for every teacher (first task and student, one temperature): parameters (D
    # of its gradients), responses, seconds and peak_mib (of the features, beyond the student; empty where the system
    # does not tell), grace, device, volatile. At lab it would be hours to see the same ranks again.
    "estimators": Table(
        "figures", measurements.estimator_jobs, _recorded, (*KEY, "estimator"), not_at=(*REDRAWN, *TABLES_ONLY)
    ),
    # Every score of the absurd teachers (`extras.KINDS`): what, correct (share of the responses), scores.
    "pathological_scores": Table("figures", _absurd_scores, _absurd_rows, _ODD),
    # The same with the accuracy of the students that these teachers make.
    "pathological": Table("figures", extras.absurd_jobs, _absurd_rows, _ODD),
    # Students by other objectives than the paper's (`objectives.OBJECTIVES`), columns as `base_students` without greedy; and
    # those of further seeds of training.
    "objectives": Table("objectives", objective_jobs, _accuracy_rows, (*KEY, "objective", "seed"), asked_at=REDRAWN),
    "objectives_seeds": Table(
        "seeds",
        functools.partial(objective_jobs, seeds=FURTHER),
        _accuracy_rows,
        (*KEY, "objective", "seed"),
        asked_at=tuple(SCALES),
    ),
    # The released scripts' settings: average (Average@k), average_se, points (difference from the paper's setting).
    "protocol": Table(
        "figures", extras.protocol_jobs, _protocol_rows, ("student", "teacher", "temperature", "setting")
    ),
    # The scores published since, and what they are compared with, of every cell of the first task and student, from its first n
    # prompts and in min(d, n) dimensions; teachers at all temperatures are the pool. Six significant digits.
    "since": Table("figures", _since, _since_rows, KEY[:2], not_at=_NO_RECORD),
    # What else these scores read, in seconds per cell: forward_seconds (of the pass that GRACE takes gradients in, without them),
    # alone_loss_seconds, local_loss_seconds; responses, device, volatile.
    "passes": Table("figures", measurements.further_jobs, _recorded, not_at=TABLES_ONLY),
    # `until_clear.race` on each temperature's teachers, a row an order of the prompts, see `measurements.run_race`.
    "races": Table("figures", measurements.race_jobs, _recorded, ("task", "student", "temperature"), not_at=_NO_RECORD),
    # Students of each teacher alone and of several (`mixtures`), of the same number of training tokens: alone, most (the
    # teacher of most prompts), most_share, correct (share of the responses), accuracies; and those of further seeds.
    "mixtures": Table("objectives", mixture_jobs, _mixture_rows, _MIXED, asked_at=REDRAWN),
    "mixtures_seeds": Table(
        "seeds", functools.partial(mixture_jobs, seeds=FURTHER), _mixture_rows, _MIXED, asked_at=tuple(SCALES)
    ),
    # Accuracy of each teacher's student after a part of the epochs, columns as `students`; after several times as many; and of
    # students of other training seeds.
    "smoke_test": Table("extra", extras.smoke_jobs, _accuracy_rows, (*KEY, "epochs"), not_at=TABLES_ONLY),
    "epochs": Table(
        "epochs", extras.to_the_end_jobs, _accuracy_rows, (*KEY, "epochs"), not_at=_NOT_LAB, asked_at=REDRAWN
    ),
    "repeats": Table("repeats", extras.repeat_jobs, _accuracy_rows, (*KEY, "what"), not_at=_NO_REPEATS, asked_at=_LABS),
    # Scores from the first n of many more training prompts, a row an n, beside the accuracy of the student of all of them: n,
    # share (of the training responses, that the score reads), scores in min(d, n) dimensions, accuracies.
    "small_sample": Table("small_sample", extras.more_prompts_jobs, _sample_rows, not_at=_NOT_LAB, asked_at=REDRAWN),
}
#: Columns that everything drawn from a table needs, by its name; all but _WORDS must be numbers in every row.
NEEDED = {
    "teachers": ("task", "teacher", "manner", "width", "temperature", "accuracy"),
    "base_students": ("task", "student", "average", "greedy"),
    "features": (*KEY, "n_prompts", "m", "d", "length", "loss", "mean_prob", "grad_norm"),
    "scores": (*KEY, "grace", "grace_variance", "grace_bias", "g_norm", "g_var", "g_vendi", "student_loss"),
    "students": (*KEY, "average", "average_se", "best_of", "greedy", "truncated"),
}
_WORDS = ("task", "student", "teacher", "manner")
#: A table that may be empty (of one teacher there are no neighbours), with the columns that it has then.
MAY_BE_EMPTY = {"neighbours": ("student", "temperature", *DIFFERENCES)}


def names(scale: str, asked: bool = False) -> list[str]:
    """The tables that a scale has, in the order in which they are made; with `asked` those that it makes on request, too."""
    return [
        name for name, table in TABLES.items() if scale not in table.not_at and (asked or scale not in table.asked_at)
    ]


def table(scale: str, name: str, recompute: bool = True) -> pd.DataFrame:
    """The result table `name` of a scale, one of `TABLES`: made and written, or read where it was committed.

    Recomputing, its jobs are finished in worker processes first. FileNotFoundError, naming the command that makes it,
    for a table that is not there to be read; ValueError for one that the scale does not have.
    """
    check_choice(f"table (of scale {scale})", name, names(scale, asked=True))
    if recompute:
        path = write(scale, name, collect(plans_of(get_scale(scale)), name))
    else:
        path = paths.tables(scale) / f"{name}.csv"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: run `{command_for(scale)}`, or set recompute = True")
    return read_table(path, command_for(scale))  # what a figure sees is what a fresh clone sees: the file


def collect(plans: list[Plan], name: str) -> pd.DataFrame:
    """The rows of a table, once its jobs are finished."""
    one = TABLES[name]
    for known in filter(None, (one.jobs, one.then)):
        made = known(plans)
        run_jobs([job for own in made.values() for job in own], paths.runs(), name)
    rows = [
        dict(zip(one.key, key, strict=True)) | row
        for key, jobs in made.items()
        for row in one.rows(plans[0].scale, key, *jobs)
    ]
    return pd.DataFrame(rows, columns=None if rows else MAY_BE_EMPTY.get(name))


def write(scale: str, name: str, made: pd.DataFrame) -> Path:
    """Write a result table; its file."""
    path = paths.results(scale) / f"{name}.csv"
    write_atomically(path, lambda part: made.to_csv(part, index=False, float_format="%.10g", lineterminator="\n"))
    about = json.dumps({"arithmetic": arithmetic(), "versions": versions()}, indent=1) + "\n"
    write_atomically(path.with_name(MADE_WITH), lambda part: part.write_text(about, encoding="utf-8"))
    return path


def check(scale: str) -> None:
    """Every table of a scale is there and whole: before anything is drawn from the first.

    FileNotFoundError naming those that are not there, ValueError as `read_table`.
    """
    folder = paths.tables(scale)
    files = [folder / f"{name}.csv" for name in names(scale)]
    if missing := [path.name for path in files if not path.is_file()]:
        raise FileNotFoundError(
            f"nothing to draw from: {folder} has no {', '.join(missing)}; `{command_for(scale)}` makes them"
        )
    for path in files:
        read_table(path, command_for(scale))


def read_table(path: Path, command: str) -> pd.DataFrame:
    """A result table. `command` is said to make it anew.

    Raises ValueError naming file, line and `command`: not UTF-8; empty; a line with more or fewer entries than the
    head, or a last line without an end (cut); a column of `NEEDED` missing, or something else than numbers in it.
    """
    remedy = f"`{command}` makes it again, or take the committed file back"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (byte {error.object[error.start]:#04x}); {remedy}") from error
    if not text.strip():
        raise ValueError(f"{path}, line 1: the file is empty; {remedy}")
    rows = csv.reader(text.splitlines(keepends=True))
    try:
        head, n_rows = next(rows), 0
        for row in rows:
            n_rows += bool(row)
            if row and len(row) != len(head):
                raise ValueError(
                    f"{path}, line {rows.line_num}: {len(row)} entries under {len(head)} columns: the table "
                    f"was cut or merged; {remedy}"
                )
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: not CSV ({error}); {remedy}") from error
    if not text.endswith("\n"):
        raise ValueError(f"{path}, line {rows.line_num}: the last line has no end: the table was cut; {remedy}")
    if not n_rows and path.stem not in MAY_BE_EMPTY:
        raise ValueError(f"{path}: it has a head and no rows; {remedy}")
    needed = NEEDED.get(path.stem, ())
    if lost := [name for name in needed if name not in head]:
        raise ValueError(f"{path}, line 1: column {lost[0]!r} is missing; {remedy}")
    found = pd.read_csv(path)
    for name in needed:
        if name not in _WORDS and not pd.api.types.is_numeric_dtype(found[name]):
            at = pd.to_numeric(found[name], errors="coerce").isna().to_numpy().argmax()
            raise ValueError(
                f"{path}, line {at + 2}: column {name!r} holds {found[name][at]!r}, not a number; {remedy}"
            )
    return found


def made(scale: str, name: str) -> bool:
    """Whether a table that a scale makes on request is there to be read."""
    return name in names(scale, asked=True) and (paths.tables(scale) / f"{name}.csv").is_file()


def of_all_seeds(scale: str, name: str, recompute: bool = False) -> pd.DataFrame:
    """The table `objectives` or `mixtures` with further seeds of training, where these were made."""
    further = [table(scale, f"{name}_seeds", False)] if made(scale, f"{name}_seeds") else []
    return pd.concat([table(scale, name, recompute), *further], ignore_index=True)


def repeats(scale: str) -> pd.DataFrame | None:
    """A row a cell of the first student that was trained again and seed, accuracies as in `cells`; None if none was."""
    for name in ("repeats", "checks"):
        if made(scale, name):
            again = table(scale, name, recompute=False).rename(columns={"average": "average_at_k"})
            again = again[again["what"].str.startswith("again")]
            if len(again):
                return again
    return None


def cells(scale: str, task: str | None = None) -> pd.DataFrame:
    """The table figures are drawn from: scores, student and teacher accuracies of every cell of a task (None: the first).

    Read from the committed results; all students of the task are in it.
    """
    name = get_scale(scale).task(task).name
    students = table(scale, "students", recompute=False).rename(columns={"average": "average_at_k"})
    teachers = table(scale, "teachers", recompute=False).rename(
        columns={
            "accuracy": "teacher_accuracy",
            "truncated": "teacher_truncated",
            "best_of": "teacher_best_of",
            "greedy": "teacher_greedy",
            "mean_length": "mean_words",
        }
    )
    untrained = table(scale, "base_students", recompute=False)[["task", "student", "average", "best_of", "greedy"]]
    untrained.columns = ["task", "student", *(f"{UNTRAINED}_{accuracy}" for accuracy in ACCURACIES)]
    joined = (
        table(scale, "scores", recompute=False)
        .merge(students, on=KEY, validate="1:1")
        .merge(teachers, on=["task", "teacher", "temperature"], validate="m:1")
        .merge(untrained, on=["task", "student"], validate="m:1")
    )
    if (again := repeats(scale)) is not None:  # of the first task's first student, and taken for all
        joined[TRAINING_SD] = training_sd(joined, again)
    return joined[joined["task"] == name].reset_index(drop=True)
