"""vllm, really run: what it samples from a teacher of the built-in world is what transformers samples from it, up
to the luck of the draw; the same seed writes the same file (after a kill, too: tests/models/test_sampling). `make test-vllm` runs this in an
environment of its own (minutes; most of them are vllm's start and the teacher's training).
"""

import json
import math
import os

import pytest

if os.environ.get("GRACELIB_TEST_VLLM") != "1":
    pytest.skip("vllm needs an environment of its own: make test-vllm", allow_module_level=True)

import torch

from gracelib.models.sampled_file import sidecar
from gracelib.models.sampling import sample
from gracelib.scale import ModelSpec, TeacherSpec
from gracelib.text.answers import grade
from gracelib.text.responses import read_responses
from gracelib.world import stories
from gracelib.world.models import build_model, build_tokenizer, train_teacher

PROBLEMS = stories.draw_problems(160, "test", 0, 1, 3)
PROMPTS = [{"id": f"p{i}", "question": p.question, "answer": str(p.answer)} for i, p in enumerate(PROBLEMS)]
M = 8
COMMON = dict(style="student", max_new_tokens=70, progress=False)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher that is right about as often as wrong at temperature 0.8. Two heads, not four: vllm's attention for
    processors needs 32 numbers a head."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    tokenizer = build_tokenizer()
    build_model(ModelSpec(64, 2, 2), len(tokenizer), 0).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    train_teacher(
        folder / "teacher",
        folder / "base",
        TeacherSpec("equations", "base", "equations", 6000, epochs=4, min_steps=1, max_steps=3),
        seed=0,
    )
    return folder / "teacher"


@pytest.fixture(scope="module")
def made(teacher, tmp_path_factory):
    """made(name, backend, ...) samples once; one engine of each kind serves all tests."""
    folder, loaded, paths = tmp_path_factory.mktemp("made"), {"vllm": {}, "transformers": {}}, {}

    def make(name, backend, m=M, temperature=0.8, seed=0, prompts=PROMPTS, **changes):
        batch_size = changes.pop("batch_size", 1024)
        if name not in paths:
            paths[name] = sample(
                teacher,
                prompts,
                out=folder / f"{name}.jsonl",
                backend=backend,
                m=m,
                seed=seed,
                temperature=temperature,
                loaded=loaded[backend],
                batch_size=batch_size,
                **COMMON | changes,
            )
        return paths[name]

    return make


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def shares(path):
    """The share of right responses of each prompt."""
    return [sum(row["correct"]) / len(row["correct"]) for row in grade(read_responses(path, allow_empty=True))]


def difference(a, b):
    """(mean difference, its standard error) of two lists of shares of the same prompts: paired, since prompts differ
    far more than samples do."""
    d = [y - x for x, y in zip(a, b, strict=True)]
    mean = sum(d) / len(d)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d))


def test_accuracy_agrees_within_sampling_error(made):
    """And the comparison is sharp: another temperature would be noticed."""
    here = shares(made("transformers", "transformers"))
    there = shares(made("vllm", "vllm"))
    colder = shares(made("colder", "transformers", temperature=0.5))
    mean, se = difference(here, there)
    print(
        f"accuracy: transformers {sum(here) / len(here):.4f}, vllm {sum(there) / len(there):.4f}, "
        f"difference {mean:+.4f} +- {se:.4f}"
    )
    assert 0.15 < sum(here) / len(here) < 0.85 and se < 0.025
    assert abs(mean) < 3.5 * se
    shift, its_se = difference(here, colder)
    assert abs(shift) > 5 * its_se


def test_responses_are_as_long_and_as_varied(made):
    """Of the same distribution, not only as often right."""
    both = [rows(made(backend, backend)) for backend in ("transformers", "vllm")]
    words = [[sum(len(t.split()) for t in row["responses"]) / M for row in found] for found in both]
    distinct = [[len(set(row["responses"])) / M for row in found] for found in both]
    assert all(sum(shares) > 0.3 * len(shares) for shares in distinct)
    for mean, se in (difference(*words), difference(*distinct)):
        assert abs(mean) < 3.5 * se


def test_greedy_texts_are_the_same(made):
    """No luck is involved: the same tokens in, the same model, the same tokens out (rounding may flip a tie)."""
    here = rows(made("greedy-transformers", "transformers", m=1, temperature=0.0))
    there = rows(made("greedy-vllm", "vllm", m=1, temperature=0.0))
    same = sum(
        a["responses"] == b["responses"] and a["n_truncated"] == b["n_truncated"]
        for a, b in zip(here, there, strict=True)
    )
    print(f"greedy: {same} of {len(here)} texts are the same")
    assert same >= 0.98 * len(here)


def test_top_p_arrives(made):
    """A nucleus of one token is greedy decoding."""
    greedy = [row["responses"][0] for row in rows(made("greedy-vllm", "vllm", m=1, temperature=0.0))]
    nucleus = rows(made("nucleus", "vllm", m=2, temperature=1.0, top_p=1e-6))
    assert sum(row["responses"] == [text] * 2 for row, text in zip(nucleus, greedy, strict=True)) >= 0.98 * len(greedy)


def test_the_same_seed_writes_the_same_file_and_another_does_not(made):
    assert made("again", "vllm").read_bytes() == made("vllm", "vllm").read_bytes()
    assert made("other-seed", "vllm", seed=1).read_bytes() != made("vllm", "vllm").read_bytes()


def test_what_a_prompt_gets_depends_on_no_other(made):
    """Rounding may flip a token, as with another batch."""
    whole = {row["id"]: row["responses"] for row in rows(made("vllm", "vllm"))}
    some = rows(made("some", "vllm", prompts=PROMPTS[::-3], m=2))
    same = sum(row["responses"] == whole[row["id"]][:2] for row in some)
    assert same >= 0.95 * len(some)


def test_a_response_that_is_cut_off_is_counted_and_stops_at_the_right_place(made):
    whole = {row["id"]: row["responses"] for row in rows(made("vllm", "vllm"))}
    short = rows(made("short", "vllm", max_new_tokens=3))
    assert all(row["n_truncated"] == M for row in short)
    prefixes = [w.startswith(s) for row in short for s, w in zip(row["responses"], whole[row["id"]], strict=True)]
    assert sum(prefixes) >= 0.98 * len(prefixes)
    assert not any("<" in text for row in rows(made("vllm", "vllm")) for text in row["responses"])  # no special token


def test_the_sidecar_names_the_engine(made):
    said = json.loads(sidecar(made("vllm", "vllm")).read_text("utf-8"))["settings"]
    assert said["backend"] == "vllm" and said["versions"]["vllm"].startswith("vllm") and said["dtype"] == "float32"
