"""A mix takes of each prompt the response that the student finds likeliest (or whose rank per surprisal is least), by a
plain second reading; under shares it is the best of all assignments; and it is a file that can be trained on."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from checkpoints_for_tests import make_checkpoint
from gracelib.cli.app import app
from gracelib.models.checkpoints import load_student
from gracelib.models.prompting import encode_examples
from gracelib.ranking.mix import mix
from gracelib.since import assigned
from gracelib.text.responses import read_generations, read_jsonl, write_jsonl
from gracelib.text.selection import read_teachers

THREE = sorted((Path(__file__).parents[1] / "data" / "gsm8k_excerpt").glob("*.jsonl"))[2:5]
NAMES = [path.stem for path in THREE]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    texts = tuple(p.question for p in read_teachers([THREE[0]])[0].prompts)
    return make_checkpoint(tmp_path_factory.mktemp("student") / "llama", "llama", vocab=600, texts=texts)


def plainly(model, tokenizer, question, response):
    """Loss per token, and rank per surprisal."""
    ((x, y),) = encode_examples(tokenizer, [(question, response)])
    with torch.no_grad():
        z = model(input_ids=torch.tensor([[*x, *y]])).logits[0, len(x) - 1 : -1].double()
    own = z.gather(1, torch.tensor(y)[:, None])
    surprisal = (torch.logsumexp(z, 1) - own[:, 0]).mean().item()
    return {"grape": surprisal, "rsr": (1 + (z > own).sum(1)).clamp_max(100).double().mean().item() / surprisal}


@pytest.mark.parametrize("by", ["grape", "rsr"])
def test_of_each_prompt_the_best_response(by, student, tmp_path):
    counts = mix(student, THREE, tmp_path / "mix.jsonl", by=by, work=tmp_path / "work")
    rows = read_jsonl(tmp_path / "mix.jsonl")
    model, tokenizer = load_student(student)
    teachers = {t.name: {p.question: p for p in t.prompts} for t in read_teachers(THREE)}
    assert len(rows) == 24 == sum(counts.values()) and {*counts} <= {*NAMES}
    for row in rows:
        values = {
            name: plainly(model, tokenizer, row["question"], found[row["question"]].responses[0])[by]
            for name, found in teachers.items()
        }
        assert values[row["teacher"]] == pytest.approx(min(values.values()), rel=1e-5)
        assert row["responses"] == [teachers[row["teacher"]][row["question"]].responses[0]]
    assert [len(p.responses) for p in read_generations(tmp_path / "mix.jsonl").prompts] == [1] * 24


def test_what_a_file_says_of_a_response_goes_with_it(student, tmp_path):
    """That it was cut, so that no end is taught; the answer that another file has; what leaves prompts out."""
    texts = [("Here is 12.", {"finish_reasons": ["length"]}), ("a b c d e f", {"answer": "12"})]
    for k, (response, more) in enumerate(texts):
        rows = [
            {"question": f"Twelve, {i} times?" + " Think." * k, "responses": [response] * (2 - (i > 2))}
            for i in range(4)
        ]
        write_jsonl(
            tmp_path / f"{k}.jsonl",
            [row | {key: v * len(row["responses"]) if key[0] == "f" else v for key, v in more.items()} for row in rows],
        )
    paths, out = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"], tmp_path / "mix.jsonl"
    mix(student, paths, out, shares={"0": 1, "1": 0}, m=2, min_m=True, drop_text=["Think."], work=tmp_path / "work")
    found = read_generations(out).prompts
    assert len(found) == 3 and {(p.answer, p.cut) for p in found} == {("12", frozenset({0}))}


def test_under_shares_no_assignment_is_better():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = rng.random((6, 3))
        chosen = assigned(cost, [0.5, 0.34, 0.16])
        assert np.bincount(chosen, minlength=3).tolist() == [3, 2, 1]
        best = min(sum(cost[i, k] for i, k in enumerate(p)) for p in set(itertools.permutations([0, 0, 0, 1, 1, 2])))
        assert cost[range(6), chosen].sum() == pytest.approx(best)
        assert (assigned(cost, None) == cost.argmin(1)).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--by", "loss"], "by = 'loss': choose one of grape, rsr"),
        (
            ["--share", f"{NAMES[0]}=1"],
            f"shares {NAMES[0]}=1: give each of {', '.join(NAMES)} one of at least 0, adding up to 1",
        ),
        (["--share", f"{NAMES[0]}=all"], "expected TEACHER=0.5 for each teacher"),
        (["--out", "mix.csv"], "choose one of .jsonl"),
    ],
)
def test_what_cannot_be_is_one_line(options, message, student, tmp_path):
    done = CliRunner().invoke(
        app, ["mix", "--student", str(student), "--out", str(tmp_path / "m.jsonl"), *options, *map(str, THREE)]
    )
    assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") == 1
