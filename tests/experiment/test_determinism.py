"""How many threads torch has, and how responses are put into batches, is nobody's finding: features and every score are
the same to rounding. On one machine with the same settings they are the same bits (`test_tables`, `test_verify`).

Tolerances: 1e-5 of each response's gradient; 1e-4 of a score. What is compared is a student of mini's size, not yet
trained, on answers of two manners of the built-in world.
"""

from random import Random

import numpy as np
import pytest
import torch

from gracelib.experiment.tables import cell_scores
from gracelib.features.gradients import response_features
from gracelib.models.prompting import encode_examples
from gracelib.scale import ModelSpec
from gracelib.world import stories
from gracelib.world.models import build_model, build_tokenizer

N, MANNERS, D, FOLDS, NU = 16, ("equations", "terse"), 24, 4, 1e-3
SETTINGS = [(threads, tokens) for threads in (1, 2) for tokens in (120, 700, 10**6)]


@pytest.fixture(scope="module")
def found(one_thread):
    """Features and scores by (threads, padded tokens of a batch)."""
    tokenizer, rng = build_tokenizer(), Random(0)
    model = build_model(ModelSpec(64), len(tokenizer), 0)
    problems = stories.draw_problems(N, "distill", 0)
    examples = encode_examples(
        tokenizer, [(p.question, stories.solve(p, manner, rng)) for p in problems for manner in MANNERS]
    )
    made = {}
    for threads, tokens in SETTINGS:
        torch.set_num_threads(threads)
        f = response_features(model, examples, d=D, batch_tokens=tokens, device="cpu", progress=False)
        f["prompt_id"] = np.repeat(np.arange(N).astype(str), len(MANNERS))
        f["correct"] = np.arange(len(examples)) % 3 < 2
        made[threads, tokens] = f, cell_scores(f, FOLDS, NU)
    return made


@pytest.mark.parametrize("setting", SETTINGS[1:], ids=lambda s: f"{s[0]} threads, {s[1]} tokens")
def test_features_and_scores_do_not_hang_on_threads_or_batches(found, setting):
    (f, scores), (base, usual) = found[setting], found[SETTINGS[0]]
    size = np.linalg.norm(base["g"], axis=1)
    assert (np.linalg.norm(f["g"] - base["g"], axis=1) / size).max() < 1e-5
    for name in ("loss", "mean_prob", "grad_norm"):
        np.testing.assert_allclose(f[name], base[name], rtol=1e-5, err_msg=name)
    assert f["length"].tolist() == base["length"].tolist()
    assert set(scores) == set(usual) and len(scores) > 15
    for name, value in usual.items():
        assert scores[name] == pytest.approx(value, rel=1e-4), name


def test_the_settings_do_round_differently(found):
    """Otherwise the test above compares a number with itself."""
    assert any((f["g"] != found[SETTINGS[0]][0]["g"]).any() for f, _ in found.values())
