"""`SCALE=paper` from the plan to the figures: print, confirm, check access, run, collect the tables, draw.

The tables have the columns of the built-in world's, so `tables.cells("paper")` and every figure that needs nothing
else read them. What other notebooks need beside them (ablation grids, filtered students, odd teachers) is not run
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gracelib.drawing import correlations
from gracelib.experiment import tables as pipeline
from gracelib.experiment.paper_plan import PaperPlan, run_in_turn
from gracelib.experiment.plan import accuracy_of, compared_at
from gracelib.jobs import notebooks, paths
from gracelib.paper.cast import check_access
from gracelib.paper.cost import Assumptions
from gracelib.paper.settings import changes
from gracelib.scale import PaperScale
from gracelib.text.responses import read_jsonl

DRAWN = "06_design_choices"  #: the notebook that needs the cells and nothing else


def check(scale: PaperScale) -> None:
    """What can be known before any compute: the engine is installed, every model and local data set can be had.

    ValueError with what to do.
    """
    if scale.backend == "vllm":
        from gracelib.models.vllm_engine import version

        version()
    for task in scale.tasks:
        if task.source and not Path(task.source).exists() and task.source.count("/") != 1:
            raise ValueError(
                f"{task.title}: {task.source} is neither there nor a hub id; correct [tasks] {task.dataset}"
            )
    check_access(scale.models())


def run(
    scale: PaperScale,
    *,
    drop_weights: bool = False,
    isolated: bool = True,
    draw_figures: bool = True,
    assumptions: Assumptions = Assumptions(),
) -> list[Path]:
    """Finish every cell of the scale, then write its tables and figures; their paths.

    Finished work is reused. `drop_weights` removes each trained student once it is measured. A scale restricted to
    some cells (`settings.only`) writes tables of those cells: several machines run a part each, and a last call of
    the whole scale, which finds everything finished where they share GRACELIB_RUNS, collects.
    """
    check(scale)
    root, plans = paths.runs(), [PaperPlan(scale, task.name, assumptions) for task in scale.tasks]
    prompts = [
        job for plan in plans for job in (plan.train_prompts, plan.test_prompts)
    ]  # first: data that is not there
    drop = [job for plan in plans for job in plan.distilled.values()] if drop_weights else ()
    run_in_turn([*prompts, *(job for plan in plans for job in plan.jobs())], root, drop, isolated)
    return [*tables(scale, plans), *(draw(scale) if draw_figures else ())]


def tables(scale: PaperScale, plans: Sequence[PaperPlan]) -> list[Path]:
    """Write the result tables of finished plans: cast, teachers, base_students, features, scores, students."""
    teachers = [_teacher(scale, plan, *pair) for plan in plans for pair in plan.responses]
    made = {"cast": pd.DataFrame(_cast(scale)), "teachers": pd.DataFrame(teachers)}
    made |= {name: pipeline.collect(plans, name) for name in ("base_students", "features", "scores", "students")}
    return [pipeline.write(scale.name, name, table) for name, table in made.items()]


def _cast(scale: PaperScale) -> list[dict]:
    """Who stands behind the names of the tables: kind, task, name, model, source, parameters, data."""
    rows = []
    for task in scale.tasks:
        for role, _ in task.casting:
            model = scale.model(task, role)
            rows.append(
                {
                    "kind": "student",
                    "task": task.name,
                    "name": role,
                    "model": model.name,
                    "source": model.source,
                    "parameters": model.parameters,
                    "data": task.title,
                }
            )
    return rows + [
        {
            "kind": "teacher",
            "task": "",
            "name": m.name,
            "model": m.name,
            "source": m.source,
            "parameters": m.parameters,
            "data": "",
        }
        for m in scale.teachers
    ]


def _teacher(scale: PaperScale, plan: PaperPlan, name: str, t: float) -> dict:
    """The row of one teacher at one temperature, as the table `teachers` has it."""
    model = next(m for m in scale.teachers if m.name == name)
    rows = read_jsonl(plan.correct[name, t].folder(paths.runs()) / "correct.jsonl")
    measured = accuracy_of(plan.teacher_accuracy[name, t], paths.runs())
    n = sum(len(row["correct"]) for row in rows)
    return {
        "task": plan.task.name,
        "teacher": name,
        "manner": model.manner,
        "width": model.budget,
        "temperature": t,
        "accuracy": measured["average"],
        "best_of": measured["best_of"],
        "greedy": measured["greedy"],
        "train_accuracy": sum(sum(row["correct"]) for row in rows) / n,
        "mean_length": sum(row["words"] for row in rows) / len(rows),
        "truncated": measured["truncated"],
        "distinct": sum(row["n_distinct"] for row in rows) / n,
    }


def draw(scale: PaperScale) -> list[Path]:
    """The figures of notebook 05 that need the cells alone, by its functions, and notebook 06 as it is; their
    files.
    """
    name, k = scale.name, scale.k
    named = {task.name: pipeline.cells(name, task.name) for task in scale.tasks}
    first, longer = named[scale.tasks[0].name], named.get("long") if len(named) > 1 else None
    student, at = scale.student, compared_at(scale)
    drawn = {
        "fig01_correlations": correlations.figure1(first, student, name, longer=longer, k=k),
        "fig02_scatter": correlations.figure2(first, student, name, k=k),
        "fig04_all_scores": correlations.figure4(first, student, name, longer=longer, k=k),
        "fig05_one_temperature": correlations.figure5(first, student, name, k=k, temperature=at),
        "fig11_greedy": correlations.figure2(first, student, name, k=k, accuracy="greedy"),
        "fig12_best_of_k": correlations.figure2(first, student, name, k=k, accuracy="best_of"),
        "regret_bars": correlations.regret_bars(first, student, name, longer=longer, k=k),
    }
    others = [(first, role) for role in dict.fromkeys(first["student"]) if role != student]
    if "second" in set(first["student"]) - {student}:
        drawn["fig03_second_student"] = correlations.figure2(first, "second", name, k=k, item="figure 3")
    if longer is not None:
        drawn["fig08_long_task"] = correlations.figure2(longer, student, name, k=k, item="figure 8")
        others.append((longer, student))
    drawn["table_main"] = correlations.table_main(first, student, name, others=others, leave_out=None, k=k)
    about = {
        "inputs": ["scores", "students", "teachers"],
        "seed": scale.seed,
        "parameters": {"scale": name, "student": student, "not the paper's": changes(scale)},
    }
    files = [path for figure, one in drawn.items() for path in one.save(name, figure, **about)]
    notebooks.run(name, recompute=False, notebooks=[paths.NOTEBOOKS / f"{DRAWN}.ipynb"])
    return files
