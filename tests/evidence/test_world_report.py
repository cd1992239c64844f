"""The committed `mini` world does its job: the statements that were fixed before any score was computed on it."""

from __future__ import annotations

import pandas as pd
import pytest

from gracelib.drawing.saving import check_sidecars
from gracelib.evidence.world_report import world_report
from gracelib.experiment import tables
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths


@pytest.fixture(scope="module")
def report():
    config = get_scale("mini")
    return world_report(
        tables.cells("mini"),
        tables.table("mini", "base_students", recompute=False),
        min(config.d, config.n_prompts * config.m),
    )


def test_every_statement_about_the_world_itself_holds(report):
    world = report[report.kind == "world"]
    assert len(world) >= 5
    assert world.holds.all(), world[~world.holds].to_string()


def test_statements_about_scores_are_reported_with_numbers(report):
    reported = report[report.kind == "reported"]
    assert len(reported) == 4
    assert reported.measured.str.contains(r"\d").all()


def test_a_failing_world_is_seen():
    """The check can fail: teachers of one strength, a student that learns nothing."""
    cells = pd.DataFrame(
        [
            {
                "task": "short",
                "student": "s",
                "teacher": f"t{i}",
                "manner": "algebra",
                "temperature": t,
                "teacher_accuracy": 0.9,
                "average_at_k": 0.2,
                "average_se": 0.01,
                "g_norm": 1.0,
                "g_vendi": 0.1,
            }
            for i in range(3)
            for t in (0.6, 1.0)
        ]
    )
    base = pd.DataFrame([{"task": "short", "student": "s", "average": 0.2}])
    held = world_report(cells, base, 64).set_index("statement").holds
    assert (
        not held.filter(like="spans").any()
        and not held.filter(like="lifts").any()
        and not held.filter(like="lowers").any()
    )
    with pytest.raises(ValueError, match="no cells at temperature 0.5"):
        world_report(cells, base, 64, temperature=0.5)
    with pytest.raises(ValueError, match="cells of the tasks long, short: the report is about one task"):
        world_report(pd.concat([cells, cells.assign(task="long")]), base, 64)
    with pytest.raises(ValueError, match=r"no accuracy of the untaught student\(s\) s on task short"):
        world_report(cells, base.assign(task="long"), 64)


def test_students_taught_at_other_temperatures_are_compared_at_their_own():
    """A second student with fewer temperatures takes part with its own extremes; the base row is its own task's."""

    def row(student, teacher, t, norm):
        return {
            "task": "short",
            "student": student,
            "teacher": teacher,
            "manner": "algebra",
            "temperature": t,
            "teacher_accuracy": 1 - 0.5 * t,
            "average_at_k": 0.5,
            "average_se": 0.01,
            "g_norm": norm,
            "g_vendi": 0.1,
        }

    cells = pd.DataFrame(
        [
            row("first", "a", 0.4, 1.0),
            row("first", "a", 0.6, 9.0),
            row("first", "a", 1.0, 2.0),
            row("second", "a", 0.6, 3.0),
            row("second", "a", 1.0, 2.0),
        ]
    )
    base = pd.DataFrame(
        [
            {"task": task, "student": s, "average": v}
            for task, s, v in (("long", "first", 0.0), ("short", "first", 0.1), ("short", "second", 0.4))
        ]
    )
    table = world_report(cells, base, 64).set_index("statement")
    assert table.filter(like="raises G-Norm", axis=0).measured.item() == "1 of 2 teachers and students"
    assert table.filter(like="T=1 lowers the teachers' accuracy against T=0.4", axis=0).measured.item() == "1 of 1"
    assert table.filter(like="base student first", axis=0).measured.item() == "0.100"
    assert not table.filter(like="base student second", axis=0).holds.item()


@pytest.mark.parametrize(
    "accuracy, holds, measured",
    [
        ((0.50, 0.504), True, "a is strongest, b teaches best by 0.4 points, SE 1.4 (within noise)"),
        ((0.40, 0.504), True, "a is strongest, b teaches best by 10.4 points, SE 1.4"),
        (
            (0.50, 0.500),
            False,
            "a is strongest and teaches best",
        ),  # a tie: the first of the best is the strongest teacher
        ((0.504, 0.50), False, "a is strongest and teaches best"),
    ],
)
def test_the_gap_is_compared_as_a_number_and_with_its_noise(accuracy, holds, measured):
    cells = pd.DataFrame(
        [
            {
                "task": "short",
                "student": "s",
                "teacher": n,
                "manner": "algebra",
                "temperature": t,
                "teacher_accuracy": strength,
                "average_at_k": a,
                "average_se": 0.01,
                "g_norm": 1.0,
                "g_vendi": 0.1,
            }
            for n, a, strength in zip("ab", accuracy, (0.99, 0.9), strict=True)
            for t in (0.6, 1.0)
        ]
    )
    base = pd.DataFrame([{"task": "short", "student": "s", "average": 0.2}])
    row = world_report(cells, base, 64).set_index("statement").filter(like="strongest teacher is not", axis=0).iloc[0]
    assert row.holds == holds
    assert row.measured == f"s: {measured}"
    with pytest.raises(ValueError, match="lack the column average_se: run `make figures` again"):
        world_report(cells.drop(columns="average_se"), base, 64)


def test_committed_mini_figures_match_their_tables_and_sidecars():
    assert (paths.results("mini") / "scores.csv").is_file()
    assert check_sidecars("mini") == []
