"""Students beyond the grid of cells: taught by filtered responses, for other numbers of epochs, by other numbers of
responses (the paper's figures 15 to 18).

Each changes one thing about a cell of the first task and student and keeps all else, seeds included. The runs that
change nothing (the usual epochs, the usual M) are the cell's own and cost nothing. Which teachers: the paper argues
about its strongest one and about one that is very terse, so the strongest and the tersest of the cast, chosen by how
they were made and not by how they turned out; filtering adds the weakest, where there is most to drop, and then one of
every family.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from gracelib.experiment.filtering import FILTERED, KEPT
from gracelib.experiment.plan import KEY, Plan, accuracy_of, compared_at
from gracelib.experiment.scales import get_scale
from gracelib.experiment.tables import _table, cell_scores, load_features
from gracelib.jobs import paths
from gracelib.jobs.store import Job
from gracelib.jobs.workers import run_jobs
from gracelib.scale import Scale

#: Filtered students: number of teachers and their temperatures (the paper's where the scale is large enough).
FEW, MANY = (3, (0.6, 1.0)), (8, (0.4, 0.6, 0.8, 1.0))
SMALL_CAST = 6  #: scales of at most this many teachers get FEW
TRAIN_K = 4  #: samples a training prompt: there are several times as many as held-out problems


def strongest(scale: Scale) -> str:
    """The teacher built to be strong: plain equations or algebra, the widest such, the last listed of several."""
    plain = [t for t in scale.teachers if t.manner in ("equations", "algebra")] or list(scale.teachers)
    return max(enumerate(plain), key=lambda it: (_width(scale, it[1]), it[0]))[1].name


def tersest(scale: Scale) -> str:
    """The widest teacher of the terse manner, the last listed of several; of a cast without one, the last listed."""
    terse = [t for t in scale.teachers if t.manner == "terse"] or [scale.teachers[-1]]
    return max(enumerate(terse), key=lambda it: (_width(scale, it[1]), it[0]))[1].name


def weakest(scale: Scale) -> str:
    """The narrowest teacher, of several the one trained on the fewest texts: only just competent."""
    return min(scale.teachers, key=lambda t: (_width(scale, t), t.n_texts)).name


def _width(scale: Scale, teacher) -> int:
    return scale.teacher_bases[teacher.base][0].width


def filtered_cells(scale: Scale) -> list[tuple[str, float]]:
    """(teacher, temperature) of the filtered students: strongest, tersest, weakest, the widest of every other family,
    then the weakest of the rest, as many as `FEW` or `MANY` say."""
    number, temperatures = FEW if len(scale.teachers) <= SMALL_CAST else MANY
    weakest_first = sorted(scale.teachers, key=lambda t: (_width(scale, t), t.n_texts))
    widest = {t.manner: t.name for t in weakest_first}  # the last of a family stays
    rest = [widest[t.manner] for t in scale.teachers] + [t.name for t in weakest_first]
    teachers = list(dict.fromkeys([strongest(scale), tersest(scale), weakest(scale), *rest]))[:number]
    return [(teacher, t) for teacher in teachers for t in temperatures if t in scale.temperatures]


class ExtraPlan:
    """Jobs of the extra students on top of a scale's `Plan` (first task, first student).

    `filtered`, `filtered_features`, `filtered_accuracy` are keyed by (teacher, temperature); `test` and `train`, the
    accuracies on held-out problems and on the training prompts, by (axis, teacher, value).
    """

    def __init__(self, plan: Plan):
        self.plan, self.scale = plan, plan.scale
        self.filtered, self.filtered_features, self.filtered_accuracy = {}, {}, {}
        self.test, self.train = {}, {}
        for cell in filtered_cells(self.scale):
            self._add_filtered(cell)
        for teacher in dict.fromkeys((strongest(self.scale), tersest(self.scale))):
            for axis, values in training_axes(self.scale).items():
                for value in values:
                    self._add_training(axis, teacher, value)

    def _add_filtered(self, cell: tuple[str, float]) -> None:
        plan, scale, (teacher, t) = self.plan, self.scale, cell
        name, source = f"{teacher} at T={t}, filtered", plan.responses[cell]
        # The same prompts are filtered for training and, as far as GRACE reads them, for the features.
        both = {
            n: Job(FILTERED, {"M": scale.M, "seed": scale.seed + 11, "n_prompts": n}, {"responses": source}, name)
            for n in (scale.n_train, scale.n_prompts)
        }
        self.filtered[cell] = both[scale.n_train]
        like = plan.features[scale.student, teacher, t]
        # All prompts that are left: how many is not known before the run.
        params = like.params | {"n_prompts": None, "m": scale.m, "d": scale.d}
        self.filtered_features[cell] = Job(
            like.stage,
            params,
            like.inputs | {"responses": both[scale.n_prompts]},
            name,
            scale.n_prompts * scale.m / 300,
        )
        # M = None: all of the N x M responses, also where a prompt has more than M because another has none.
        cost = plan.distilled[scale.student, teacher, t].cost
        usual = plan.student(scale.student, self.filtered[cell], name)
        student = Job(usual.stage, usual.params | {"M": None}, usual.inputs, name, cost)
        self.filtered_accuracy[cell] = plan.accuracy(student, name)

    def _add_training(self, axis: str, teacher: str, value: float) -> None:
        plan, scale = self.plan, self.scale
        name = f"{teacher}, {value:g} {axis}"
        model = plan.student(
            scale.student,
            plan.responses[teacher, compared_at(scale)],
            name,
            **{{"epochs": "epochs", "generations": "M"}[axis]: value},
        )
        test = plan.accuracy(model, name)
        train = plan.accuracy(model, f"{name}, training prompts", prompts=plan.train_prompts)
        k = min(TRAIN_K, scale.k)
        self.test[axis, teacher, value] = test
        self.train[axis, teacher, value] = Job(
            train.stage, train.params | {"k": k}, train.inputs, train.label, scale.n_train * k / 400
        )


def filtered_jobs(extra: ExtraPlan) -> list[Job]:
    """Students and features of the filtered responses, as many as there can be; none of a cell before its filters."""
    ready = [
        cell
        for cell, job in extra.filtered.items()
        if all(one.done(paths.runs()) for one in (job, extra.filtered_features[cell].inputs["responses"]))
    ]
    there = [(cell, possible(extra, cell)) for cell in ready]
    return [
        *(extra.filtered_accuracy[cell] for cell, (taught, _) in there if taught),
        *(extra.filtered_features[cell] for cell, (taught, scored) in there if taught and scored),
    ]


def training_axes(scale: Scale) -> dict[str, list]:
    """Values of the two axes: epochs from a quarter of the usual to twice it, responses a prompt from 1 to all kept."""
    epochs = {scale.epochs * factor for factor in (0.25, 0.5, 1, 2)}
    generations = {*(2**k for k in range(scale.M_kept.bit_length()) if 2**k <= scale.M_kept), scale.M, scale.M_kept}
    # Whole numbers as integers: 4 and 4.0 would be two keys for the same student.
    return {"epochs": sorted(int(e) for e in epochs if e >= 1 and e == int(e)), "generations": sorted(generations)}


def _kept(job: Job, root: Path | None = None) -> dict:
    return json.loads((job.folder(root or paths.runs()) / KEPT).read_text(encoding="utf-8"))


def filters(extra: ExtraPlan) -> list[Job]:
    """The jobs that say which filtered students there can be: run first."""
    return [*extra.filtered.values(), *(job.inputs["responses"] for job in extra.filtered_features.values())]


def possible(extra: ExtraPlan, cell: tuple, root: Path | None = None) -> tuple[bool, bool]:
    """Whether the filter, once run, left a cell anything to teach a student with, and enough prompts for its scores."""
    taught, read = (
        _kept(job, root)["prompts_kept"]
        for job in (extra.filtered[cell], extra.filtered_features[cell].inputs["responses"])
    )
    return taught > 0, taught > 0 and read >= extra.scale.n_folds


def filtered(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Students of filtered responses, one row a cell: key, kept_share, prompts, prompts_kept, accuracies, scores.

    `average` and the other accuracies are those of `distilled_students`, of a student taught only right responses (N x M
    of them); the scores are of the filtered responses of the prompts that GRACE reads. NaN where a teacher has no right
    response (no student), or right ones to fewer prompts than there are folds (no scores). The unfiltered students of
    the same cells are in `students`, their scores in `scores`.
    """
    config, root = get_scale(scale), paths.runs()

    def make():
        extra, rows = ExtraPlan(Plan(config)), []
        run_jobs(filters(extra), root, "filtered responses")
        there = [cell for cell in extra.filtered if possible(extra, cell)[0]]
        scored = [cell for cell in there if possible(extra, cell)[1]]
        run_jobs(filtered_jobs(extra), root, "filtered students")
        for cell, job in extra.filtered.items():
            row = dict(zip(KEY, (extra.plan.task.name, config.student, *cell), strict=True)) | _kept(job)
            undefined = {"average": np.nan, "average_se": np.nan}
            row |= accuracy_of(extra.filtered_accuracy[cell], root) if cell in there else undefined
            if cell in scored:
                features = load_features(extra.filtered_features[cell].folder(root), config.m, config.d)
                with warnings.catch_warnings():  # resampled responses repeat: that nu decides more is what they do
                    warnings.filterwarnings("ignore", message="nu = ")
                    row |= cell_scores(features, config.n_folds, config.nu)
            rows.append(row)
        return pd.DataFrame(rows)

    return _table(scale, "filtered", recompute, make)


def training_runs(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Accuracy of students against epochs and against responses a prompt, one row a run.

    Columns: key, axis ("epochs", "generations"), value, usual (the scale's own setting: a cell of the grid), test and
    test_se (Average@k on held-out problems), train and train_se (Average@4 on the prompts of the training set),
    test_greedy, train_greedy.
    """
    config, root = get_scale(scale), paths.runs()

    def make():
        extra, rows = ExtraPlan(Plan(config)), []
        run_jobs([*extra.test.values(), *extra.train.values()], root, "epochs and generations")
        usual = {"epochs": config.epochs, "generations": config.M}
        for (axis, teacher, value), job in extra.test.items():
            test, train = accuracy_of(job, root), accuracy_of(extra.train[axis, teacher, value], root)
            key = (extra.plan.task.name, config.student, teacher, compared_at(config))
            rows.append(
                dict(zip(KEY, key, strict=True))
                | {
                    "axis": axis,
                    "value": value,
                    "usual": value == usual[axis],
                    "test": test["average"],
                    "test_se": test["average_se"],
                    "train": train["average"],
                    "train_se": train["average_se"],
                    "test_greedy": test["greedy"],
                    "train_greedy": train["greedy"],
                }
            )
        return pd.DataFrame(rows)

    return _table(scale, "training_runs", recompute, make)
