"""Every scale is a complete, consistent run: what GRACE looks at is part of what students are trained on,
teachers' bases exist, folds fit the prompts, nu does not decide the score at the scales whose numbers are
shown. An unknown name is refused before anything is computed.
"""

from dataclasses import replace

import pytest

from gracelib.scales import SCALES, get_scale
from gracelib.world import MANNERS, draw_problems


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_a_scale_is_consistent(scale):
    assert SCALES[scale.name] is scale is get_scale(scale.name)
    assert scale.n_prompts <= scale.n_train and scale.m <= scale.M
    assert 2 <= scale.n_folds <= scale.n_prompts
    assert (
        1 - 1 / scale.n_folds
    ) * scale.n_prompts * scale.m > scale.d  # enough rows a fold: nu does not decide
    assert scale.d == scale.n_prompts  # d = n, as in the paper
    assert len({spec.name for spec in scale.teachers}) == len(scale.teachers) >= 1
    assert {spec.manner for spec in scale.teachers} <= set(MANNERS)
    assert {spec.base for spec in scale.teachers} == set(scale.teacher_bases)  # no base is trained for nobody
    assert all(t > 0 for t in scale.temperatures) and list(scale.temperatures) == sorted(
        set(scale.temperatures)
    )
    for model, data in [*scale.students.values(), *scale.teacher_bases.values()]:
        assert model.width % model.heads == 0 and set(dict(data.shares)) <= set(MANNERS)
        assert data.max_steps >= scale.max_steps  # no length shift between pretraining and test
    for split, n in (("distill", scale.n_train), ("test", scale.n_test)):
        assert len(draw_problems(n, split, scale.seed, scale.min_steps, scale.max_steps)) == n


def test_scales_grow():
    nano, smoke, mini = (get_scale(name) for name in ("nano", "smoke", "mini"))
    for field in ("n_train", "n_prompts", "d", "n_test", "k", "max_new_tokens"):
        assert getattr(nano, field) <= getattr(smoke, field) <= getattr(mini, field)
    assert mini.n_folds == 10  # C of the paper


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(
        ValueError, match=r"scale 'tiny' is not known; choose one of \['nano', 'smoke', 'mini'"
    ):
        get_scale("tiny")


def test_an_inconsistent_scale_cannot_be_written_down():
    nano = get_scale("nano")
    with pytest.raises(ValueError, match="scale nano: n_prompts=99 and m=2 must not exceed n_train=16"):
        replace(nano, n_prompts=99)
    with pytest.raises(ValueError, match="m=9 must not exceed"):
        replace(nano, m=9)
    with pytest.raises(
        ValueError, match=r"scale nano: teachers name bases \['missing'\] that are not defined"
    ):
        replace(nano, teachers=(replace(nano.teachers[0], base="missing"),))
