"""Every scale is a complete, consistent run: what GRACE looks at is part of what students are trained on,
teachers' bases exist, folds fit the prompts, nu does not decide the score at the scales whose numbers are
shown. An unknown name is refused before anything is computed.
"""

from dataclasses import replace

import pytest

from gracelib.experiment.scales import SCALES, get_scale
from gracelib.world.stories import MANNERS, draw_problems


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_a_scale_is_consistent(scale):
    assert SCALES[scale.name] is scale is get_scale(scale.name)
    assert scale.n_prompts <= scale.n_train and scale.m <= scale.M
    assert 2 <= scale.n_folds <= scale.n_prompts
    assert (1 - 1 / scale.n_folds) * scale.n_prompts * scale.m > scale.d  # enough rows a fold: nu does not decide
    assert scale.d == scale.n_prompts  # d = n, as in the paper
    assert len({spec.name for spec in scale.teachers}) == len(scale.teachers) >= 1
    assert {spec.manner for spec in scale.teachers} <= set(MANNERS)
    assert {spec.base for spec in scale.teachers} == set(scale.teacher_bases)  # no base is trained for nobody
    assert (scale.m_kept, scale.d_kept, scale.M_kept) >= (scale.m, scale.d, scale.M)
    assert scale.student == next(iter(scale.students)) and scale.task() is scale.tasks[0]
    assert {s for task in scale.tasks for s, _ in task.temperatures} == set(
        scale.students
    )  # nobody is trained for nothing
    longest = max(task.max_steps for task in scale.tasks)
    for task in scale.tasks:
        for _, temperatures in task.temperatures:
            assert all(t > 0 for t in temperatures) and list(temperatures) == sorted(set(temperatures))
        for split, n in (("distill", scale.n_train), ("test", scale.n_test)):
            assert len(draw_problems(n, split, scale.seed, task.min_steps, task.max_steps)) == n
    for model, data in [*scale.students.values(), *scale.teacher_bases.values()]:
        assert model.width % model.heads == 0 and set(dict(data.shares)) <= set(MANNERS)
        assert data.max_steps >= longest  # no length shift between pretraining and test
    for spec in scale.teachers:
        assert spec.max_steps >= longest


def test_the_tasks_stand_where_the_papers_do():
    """Two students on the first task, the first student alone on the second, which is strictly longer: no shared run."""
    for name in ("nano", "smoke", "mini", "lab"):
        short, long = get_scale(name).tasks
        assert [s for s, _ in short.temperatures] == ["first", "second"] and [s for s, _ in long.temperatures] == [
            "first"
        ]
        assert short.max_steps < long.min_steps


def test_the_lab_is_what_the_figures_need():
    lab = get_scale("lab")
    widths = {lab.teacher_bases[spec.base][0].width for spec in lab.teachers}
    assert len(lab.teachers) == 30 and len({spec.manner for spec in lab.teachers}) >= 5 and len(widths) >= 3
    assert lab.temperatures == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert (lab.n_prompts, lab.m, lab.d, lab.n_folds) == (512, 4, 512, 10)
    assert (lab.m_kept, lab.d_kept) == (8, 1024)
    for name in ("lab-world1", "lab-world2"):  # other seeds, the same cast
        world = get_scale(name)
        assert (
            world.teachers == lab.teachers
            and world.seed != lab.seed
            and set(world.temperatures) < set(lab.temperatures)
        )


TINY = get_scale("nano")


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda: get_scale("tiny"), r"scale \(SCALE=... of make\) = 'tiny': choose one of nano, smoke, mini"),
        (lambda: TINY.task("wide"), r"task 'wide' is not one of scale nano's: \['short', 'long'\]"),
        (lambda: replace(TINY, n_prompts=99), "scale nano: n_prompts=99, m=2 and m_kept=2 must not exceed n_train=16"),
        (lambda: replace(TINY, m=9, m_kept=0), "m=9 and m_kept=9 must not exceed"),
        (lambda: replace(TINY, d_kept=8), "d_kept=8 is less than d=16"),
        (
            lambda: replace(TINY, students={"first": TINY.students["first"]}),
            r"tasks name students \['second'\] that are not defined",
        ),
        (
            lambda: replace(TINY, teachers=(replace(TINY.teachers[0], base="missing"),)),
            r"scale nano: teachers name bases \['missing'\] that are not defined",
        ),
    ],
)
def test_names_that_are_not_there_and_inconsistent_scales_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()
