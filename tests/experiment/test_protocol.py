"""What the released scripts do differently is measured on real students: the same model, the same random numbers, one
thing changed, and the difference is taken against the same teacher's student."""

from __future__ import annotations

import pandas as pd
import pytest

from gracelib.experiment.protocol import TEMPLATES, protocol
from gracelib.world.cast import build_tokenizer


def test_every_template_is_made_of_words_that_the_student_knows():
    tokenizer = build_tokenizer()
    for name, template in TEMPLATES.items():
        ids = tokenizer(template.format(question="ann has 9 books . how many ?"), add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids, name
    assert tokenizer("<eos> ### Problem:")["input_ids"][0] == tokenizer.eos_token_id


@pytest.mark.slow
def test_the_table_at_nano(tmp_path, monkeypatch):
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    table = protocol("nano")
    assert list(table.setting) == [*TEMPLATES, "the released script's training"]
    assert (table[table.setting == "the paper's"].points == 0).all()
    assert table.average.between(0, 1).all() and table.average_se.between(0, 1).all()
    assert (
        len(list((tmp_path / "runs" / "distill").glob("*/model.safetensors"))) == 2
    )  # the usual settings, the released
    pd.testing.assert_frame_equal(protocol("nano", recompute=False), table)
