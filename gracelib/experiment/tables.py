"""From a scale to its result tables: which jobs there are, and what is read off them.

A notebook calls one function here for its stage (`teacher_data`, `student_features`, `score_table`,
`distilled_students`); each finishes its jobs in worker processes, writes a result table under figures/<scale>/results
and returns it. With `recompute=False` it returns the committed table instead, so that a reader of a notebook need
not train anything. Figures are drawn from those tables alone.
"""

from __future__ import annotations

import pandas as pd

from gracelib.baselines import compute_scores
from gracelib.experiment.plan import accuracy_of, plans_of
from gracelib.experiment.scales import command_for, get_scale
from gracelib.experiment.table_files import read_table
from gracelib.features.files import load_features
from gracelib.jobs import paths
from gracelib.jobs.store import write_atomically
from gracelib.jobs.workers import run_jobs
from gracelib.scale import Scale
from gracelib.text.tasks import read_jsonl, read_responses


def _table(scale: str, name: str, recompute: bool, make) -> pd.DataFrame:
    """The result table `name` of a scale: made and written, or read where it was committed."""
    path = paths.results(scale) / f"{name}.csv"
    if recompute:
        table = make()
        write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.10g", lineterminator="\n"))
    elif not path.is_file():
        raise FileNotFoundError(
            f"{path.relative_to(paths.figures(scale).parent.parent)} is not there: run "
            f"`{command_for(scale)}`, or set recompute = True"
        )
    return read_table(path, command_for(scale))  # what a figure sees is what a fresh clone sees: the file


def _finish(jobs: list[dict], description: str) -> None:
    """Run the jobs of several dictionaries together: fewer moments at which a core waits for the other."""
    run_jobs([job for group in jobs for job in group.values()], paths.runs(), description)


def teacher_data(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Train the cast and sample every teacher at every temperature; one row a (task, teacher, temperature).

    Columns: task, teacher, manner, width, temperature, accuracy (Average@k on held-out problems), best_of, greedy,
    train_accuracy (of the responses students learn from), mean_length (words), truncated (share), distinct (share of a
    prompt's responses that differ). Base students' accuracies go to the table `base_students`.
    """
    config, root = get_scale(scale), paths.runs()

    def make():
        plans = plans_of(config)
        # The base students and their evaluation join in: long pretrainings fill two cores better together.
        _finish(
            [jobs for plan in plans for jobs in (plan.responses, plan.teacher_accuracy, plan.base_accuracy)], "teachers"
        )
        specs = {spec.name: spec for spec in config.teachers}
        return pd.DataFrame(
            [
                {
                    "task": plan.task.name,
                    "teacher": teacher,
                    "manner": specs[teacher].manner,
                    "width": config.teacher_bases[specs[teacher].base][0].width,
                    "temperature": t,
                    **_teacher_row(
                        read_responses(job.folder(root) / "responses.jsonl", allow_empty=True),
                        accuracy_of(plan.teacher_accuracy[teacher, t], root),
                        config.M,
                    ),
                }
                for plan in plans
                for (teacher, t), job in plan.responses.items()
            ]
        )

    return _table(scale, "teachers", recompute, make)


def _teacher_row(data: list[dict], result: dict, M: int) -> dict[str, float]:
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


def base_students(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Accuracy of each base student before any distillation: task, student, average, best_of, greedy, truncated."""
    config, root = get_scale(scale), paths.runs()

    def make():
        plans = plans_of(config)
        _finish([plan.base_accuracy for plan in plans], "base students")
        return pd.DataFrame(
            [
                {"task": plan.task.name, "student": name, **accuracy_of(job, root)}
                for plan in plans
                for name, job in plan.base_accuracy.items()
            ]
        )

    return _table(scale, "base_students", recompute, make)


def examples(scale: str, recompute: bool = True) -> pd.DataFrame:
    """One question of each task and each teacher's first response to it, coldest temperature first."""
    config, root = get_scale(scale), paths.runs()

    def make():
        plans, rows = plans_of(config), []
        _finish([plan.responses for plan in plans], "teachers")
        for plan in plans:
            for (teacher, t), job in plan.responses.items():
                if t in (plan.task.sampled()[0], plan.task.sampled()[-1]):
                    row = read_jsonl(job.folder(root) / "responses.jsonl")[0]
                    rows.append(
                        {
                            "task": plan.task.name,
                            "teacher": teacher,
                            "temperature": t,
                            "question": row["question"],
                            "answer": row["answer"],
                            "response": row["responses"][0],
                            "correct": row["correct"][0],
                        }
                    )
        return pd.DataFrame(rows)

    return _table(scale, "examples", recompute, make)


def student_features(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Project every response's gradient; one row a cell with what needs no score: lengths, losses, norms.

    Columns: task, student, teacher, temperature, n_prompts, m, d, length, loss, mean_prob, grad_norm (means over responses).
    """
    return _table(scale, "features", recompute, lambda: _from_features(scale, feature_means))


def feature_means(config: Scale, f: dict) -> dict[str, float]:
    """What a row of `student_features` says of a cell, beside its key."""
    means = {k: float(f[k].mean()) for k in ("length", "loss", "mean_prob", "grad_norm")}
    return {"n_prompts": config.n_prompts, "m": config.m, "d": config.d, **means}


def _from_features(scale: str, row) -> pd.DataFrame:
    """One row a cell: its key and `row(config, features)`, at the scale's m and d."""
    config, root = get_scale(scale), paths.runs()
    plans = plans_of(config)
    _finish([plan.features for plan in plans], "features")
    return pd.DataFrame(
        [
            {
                "task": plan.task.name,
                "student": student,
                "teacher": teacher,
                "temperature": t,
                **row(config, load_features(job.folder(root), config.m, config.d)),
            }
            for plan in plans
            for (student, teacher, t), job in plan.features.items()
        ]
    )


def cell_scores(features: dict, n_folds: int, nu: float) -> dict[str, float]:
    """Every score of `baselines.SCORES` that features allow, after length recalibration, and GRACE's cross term.

    A score that no prompt of a teacher allows (the probability of wrong responses of a teacher that is never wrong)
    is NaN: an empty cell of the table.
    """
    scored = compute_scores(features, n_folds=n_folds, nu=nu)
    return {"grace_cross": scored.grace.cross, **scored.values, **dict.fromkeys(scored.undefined, float("nan"))}


def score_table(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Every score of every cell, from the features of `student_features`."""
    return _table(
        scale,
        "scores",
        recompute,
        lambda: _from_features(scale, lambda config, f: cell_scores(f, config.n_folds, config.nu)),
    )


def distilled_students(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Distil the base student on every cell's responses and measure it; columns as `base_students`, per cell."""
    config, root = get_scale(scale), paths.runs()

    def make():
        plans = plans_of(config)
        _finish([plan.student_accuracy for plan in plans], "students")
        return pd.DataFrame(
            [
                {"task": plan.task.name, "student": s, "teacher": teacher, "temperature": t, **accuracy_of(job, root)}
                for plan in plans
                for (s, teacher, t), job in plan.student_accuracy.items()
            ]
        )

    return _table(scale, "students", recompute, make)


def cells(scale: str, task: str | None = None) -> pd.DataFrame:
    """The table figures are drawn from: scores, student and teacher accuracies of every cell of a task (None: the first).

    Read from the committed results; all students of the task are in it.
    """
    key, name = ["task", "student", "teacher", "temperature"], get_scale(scale).task(task).name
    students = distilled_students(scale, recompute=False).rename(columns={"average": "average_at_k"})
    teachers = teacher_data(scale, recompute=False).rename(
        columns={
            "accuracy": "teacher_accuracy",
            "truncated": "teacher_truncated",
            "best_of": "teacher_best_of",
            "greedy": "teacher_greedy",
            "mean_length": "mean_words",
        }
    )
    joined = (
        score_table(scale, recompute=False)
        .merge(students, on=key, validate="1:1")
        .merge(teachers, on=["task", "teacher", "temperature"], validate="m:1")
    )
    return joined[joined["task"] == name].reset_index(drop=True)
