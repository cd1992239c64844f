"""One file whatever happens on the way: the same rows for the same settings, however often the run was killed,
whatever the batch; a file made with other settings is never taken for it. The transformers engine gives a prompt
what `sample_responses` gives it, and both engines see the tokens that training and scoring see.
"""

import json
import shutil
from importlib.util import find_spec

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from checkpoints_for_tests import make_checkpoint
from gracelib.cli.app import app
from gracelib.models import accuracy, decoding, sampling, vllm_engine
from gracelib.models.checkpoints import load_student
from gracelib.models.prompting import CHAT, TEACHER_INSTRUCTION, Policy, encode_questions
from gracelib.models.sampled_file import sidecar
from gracelib.models.sampling import Request, sample
from gracelib.scale import ModelSpec
from gracelib.text.responses import read_generations, write_jsonl
from gracelib.text.selection import expand
from gracelib.world import stories
from gracelib.world.models import build_model, build_tokenizer

QUESTIONS = ["How many apples are 3 and 4?", "What is 12 * 5?", "Betty has $50.", "How far?", "Is 7 more than 6?"]
PROMPTS = [{"id": f"q{i}", "question": q, "answer": str(i), "kept": 1} for i, q in enumerate(QUESTIONS)]
SETTINGS = dict(m=3, temperature=1.0, max_new_tokens=12, seed=5, style="chat", progress=False)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture(scope="module")
def world_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "world"
    tokenizer = build_tokenizer()
    build_model(ModelSpec(16, 1, 2), len(tokenizer), 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def out(tmp_path, one_thread):
    return tmp_path / "made" / "gen.jsonl"


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory, one_thread):
    """The bytes of a run that nothing disturbed."""
    return sample(llama, PROMPTS, out=tmp_path_factory.mktemp("whole") / "gen.jsonl", **SETTINGS).read_bytes()


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# --- what is in the file ------------------------------------------------------------------------------------


def test_a_row_a_prompt_in_their_order(whole, out):
    found = [json.loads(line) for line in whole.decode().splitlines()]
    names = ["id", "question", "answer", "responses", "finish_reasons", "n_truncated"]
    assert [list(row) for row in found] == [names] * len(PROMPTS)
    assert [(row["id"], row["question"], row["answer"]) for row in found] == [
        (p["id"], p["question"], p["answer"]) for p in PROMPTS
    ]
    assert all(len(row["responses"]) == len(row["finish_reasons"]) == 3 for row in found)
    assert all(row["finish_reasons"].count("length") == row["n_truncated"] for row in found)
    assert len({text for row in found for text in row["responses"]}) > 10  # not one text over and over
    assert not any(mark in text for row in found for text in row["responses"] for mark in ("<s>", "</s>", "<pad>"))


def test_the_sidecar_says_how_it_was_made(llama, out):
    path = sample(llama, PROMPTS[:2], out=out, **SETTINGS)
    record = json.loads(sidecar(path).read_text("utf-8"))
    said = record["settings"]
    assert {name: said[name] for name in ("model", "backend", "m", "temperature", "seed", "style", "dtype")} == {
        "model": str(llama),
        "backend": "transformers",
        "m": 3,
        "temperature": 1.0,
        "seed": 5,
        "style": "chat",
        "dtype": "float32",
    }
    assert {"gracelib", "torch", "transformers", "tokenizers"} == set(said["versions"])
    assert record["n_prompts"] == 2


def test_what_is_written_can_be_scored(llama, out):
    """A folder of generations is a folder of teachers: neither sidecar nor lock is taken for one."""
    sample(llama, PROMPTS, out=out, **SETTINGS)
    assert expand([out.parent]) == [out]
    assert [p.id for p in read_generations(out, allow_empty=True).prompts] == [p["id"] for p in PROMPTS]


def test_a_prompt_of_the_world_gets_what_sample_responses_gives_it(world_model, out):
    prompts = [{"id": i, "question": p.question} for i, p in enumerate(stories.draw_problems(24, "test", 0))]
    for temperature, m, top_p in ((0.8, 3, 0.9), (0.0, 1, 1.0)):
        path = sample(
            world_model,
            prompts,
            out=out.with_name(f"{m}.jsonl"),
            m=m,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=10,
            seed=2,
            style="student",
            batch_size=1024,
            progress=False,
        )
        model, tokenizer = load_student(world_model)
        expected = decoding.sample_responses(
            model, tokenizer, prompts, m=m, temperature=temperature, top_p=top_p, max_new_tokens=10, seed=2
        )
        assert [(r["responses"], r["n_truncated"]) for r in rows(path)] == [
            (r["responses"], r["n_truncated"]) for r in expected
        ]
        assert all(row["answer"] is None for row in rows(path))


def watched(monkeypatch, dies_at=None):
    """Every call of the engine as a list of (request, its samples' new tokens); it dies at its call `dies_at`."""
    usual, calls = decoding.TransformersEngine.tokens, []

    def tokens(self, requests, settings):
        if len(calls) == dies_at:
            raise KeyboardInterrupt
        calls.append([*zip(requests, usual(self, requests, settings), strict=True)])
        return [samples for _, samples in calls[-1]]

    monkeypatch.setattr(decoding.TransformersEngine, "tokens", tokens)
    return calls


def test_the_model_sees_the_prompt_of_its_style(llama, out, monkeypatch):
    tokenizer, calls = AutoTokenizer.from_pretrained(llama), watched(monkeypatch)
    sample(llama, PROMPTS[:1], out=out, **SETTINGS)
    assert [calls[0][0][0].ids] == encode_questions(tokenizer, QUESTIONS[:1], Policy(CHAT), TEACHER_INSTRUCTION)
    assert calls[0][0][0].ids.count(tokenizer.bos_token_id) == 1
    policy = Policy(template="Q: {question} A:", bos=True)
    sample(llama, PROMPTS[:1], out=out.with_name("b.jsonl"), **SETTINGS | {"style": "student"}, policy=policy)
    text = tokenizer(f"Q: {QUESTIONS[0]} A:", add_special_tokens=False)["input_ids"]
    assert calls[1][0][0].ids == [tokenizer.bos_token_id, *text]


def test_an_end_of_turn_that_the_checkpoint_declares_ends_a_response(llama, tmp_path, one_thread, monkeypatch):
    """Chat models end their turn with another token than EOS; it stands in generation_config.json."""
    calls = watched(monkeypatch)
    free = rows(sample(llama, PROMPTS, out=tmp_path / "free.jsonl", **SETTINGS))
    ids = {request.id: samples for call in calls for request, samples in call}
    turn = ids["q0"][0][2]
    model = shutil.copytree(llama, tmp_path / "turn")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, turn]}))
    ended = rows(sample(model, PROMPTS, out=tmp_path / "ended.jsonl", **SETTINGS))
    tokenizer = AutoTokenizer.from_pretrained(llama)
    for before, after in zip(free, ended, strict=True):
        assert after["responses"] == [
            tokenizer.decode(s[: s.index(turn)] if turn in s else s, skip_special_tokens=True)
            for s in ids[before["id"]]
        ]
    assert sum(row["n_truncated"] for row in ended) < sum(row["n_truncated"] for row in free)


def test_a_response_ends_where_the_model_reads_no_further(tmp_path, one_thread, capsys):
    model = make_checkpoint(tmp_path / "m", "gpt2", positions=40)
    policy = Policy(template="{question}")
    prompts = [{"id": 1, "question": "How many apples are 3 and 4? How many are left of them today?"}]
    (row,) = rows(
        sample(
            model,
            prompts,
            out=tmp_path / "a.jsonl",
            m=1,
            temperature=0,
            max_new_tokens=500,
            style="student",
            policy=policy,
            progress=False,
        )
    )
    assert row["n_truncated"] == 1 and "1 of 1 prompts leave room for fewer" in capsys.readouterr().err
    with pytest.raises(ValueError, match="prompt 2 has .* tokens, but the model reads 40 with its answer"):
        sample(
            model,
            [{"id": 2, "question": "How far? " * 30}],
            out=tmp_path / "b.jsonl",
            m=1,
            temperature=0,
            max_new_tokens=5,
            style="student",
            policy=policy,
        )


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_the_batch_size_changes_no_response(llama, whole, out, batch_size):
    assert sample(llama, PROMPTS, out=out, **SETTINGS, batch_size=batch_size).read_bytes() == whole


# --- killed, resumed, repeated ------------------------------------------------------------------------------


def killed(llama, out, monkeypatch, n_calls, **changes):
    """What a run leaves whose engine died after `n_calls` calls: its .part."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        watched(patch, n_calls)
        sample(llama, PROMPTS, out=out, **SETTINGS, **changes)
    return out.with_name("gen.jsonl.part")


@pytest.mark.parametrize("finished, torn", [(0, 0), (1, 0), (2, 5), (3, 1)])
def test_killed_and_resumed_gives_the_same_file(llama, whole, out, monkeypatch, finished, torn):
    """Also when the last line was torn: it is sampled again."""
    part = killed(llama, out, monkeypatch, finished, batch_size=3)
    assert not out.exists() and len(part.read_bytes().splitlines()) == 1 + finished
    if torn:
        part.write_bytes(part.read_bytes()[:-torn])
    again = watched(monkeypatch)
    assert sample(llama, PROMPTS, out=out, **SETTINGS, batch_size=3).read_bytes() == whole
    assert sum(map(len, again)) == len(PROMPTS) - finished + bool(torn)  # and nothing else was sampled twice
    assert sorted(p.name for p in out.parent.iterdir() if p.name[0] != ".") == ["gen.jsonl"]


def test_a_prompt_of_a_batch_that_was_half_written_is_not_written_twice(llama, whole, out, monkeypatch):
    part = killed(llama, out, monkeypatch, 0)
    last = whole.splitlines(keepends=True)[3]
    part.write_bytes(part.read_bytes() + last + last[:40])
    assert sample(llama, PROMPTS, out=out, **SETTINGS).read_bytes() == whole


def test_a_finished_file_is_not_sampled_again(llama, whole, out, monkeypatch):
    """Also where the run was killed between its last two steps: the .part that is still there is removed."""
    sample(llama, PROMPTS, out=out, **SETTINGS)
    part = out.with_name("gen.jsonl.part")
    part.write_bytes(b"{}\n")
    monkeypatch.setattr(sampling, "TransformersEngine", None)
    assert sample(llama, PROMPTS, out=out, **SETTINGS).read_bytes() == whole and not part.exists()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"temperature": 0.5}, "temperature 1.0 there, 0.5 asked for"),
        ({"seed": 6}, "seed 5 there, 6 asked for"),
        ({"m": 4}, "m 3 there, 4 asked for"),
        ({"style": "student"}, "style 'chat' there, 'student' asked for"),
        ({"instruction": "Think."}, "instruction .* asked for"),
    ],
)
def test_work_with_other_settings_is_refused(llama, out, monkeypatch, changed, message):
    part = killed(llama, out, monkeypatch, 1)
    before = part.read_bytes()
    with pytest.raises(ValueError, match=rf"gen.jsonl.part was made with other settings \(.*{message}"):
        sample(llama, PROMPTS, out=out, **SETTINGS | changed)
    assert part.read_bytes() == before
    sample(llama, PROMPTS, out=out, **SETTINGS)
    with pytest.raises(ValueError, match=rf"gen.jsonl was made with other settings \(.*{message}"):
        sample(llama, PROMPTS, out=out, **SETTINGS | changed)


def test_other_prompts_or_another_model_under_the_same_name_are_refused(llama, out, tmp_path):
    model = make_checkpoint(tmp_path / "model", "llama")
    sample(model, PROMPTS, out=out, **SETTINGS)
    with pytest.raises(ValueError, match="prompts_digest .* there"):
        sample(model, PROMPTS[:4], out=out, **SETTINGS)
    make_checkpoint(tmp_path / "model", "llama", seed=1)
    with pytest.raises(ValueError, match="model_digest .* there"):
        sample(model, PROMPTS, out=out, **SETTINGS)


def test_damage_is_named_and_nothing_is_overwritten(llama, out):
    sample(llama, PROMPTS, out=out, **SETTINGS)
    for harm, message in (
        (
            lambda: out.write_bytes(out.read_bytes().replace(b"q3", b"q9")),
            "gen.jsonl was changed after it was written; move it away",
        ),
        (sidecar(out).unlink, "is there, but not the settings it was made with"),
        (
            lambda: out.rename(out.with_name("gen.jsonl.part")),
            r"gen.jsonl.part, line 1: damaged \(KeyError: 'settings'\); remove the file",
        ),
    ):
        harm()
        with pytest.raises(ValueError, match=message):
            sample(llama, PROMPTS, out=out, **SETTINGS)


# --- refused before a model is loaded -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"prompts": []}, "no prompts"),
        ({"prompts": [{"id": 1}]}, "prompt 1: field 'question' is missing"),
        ({"prompts": [{"id": 1, "question": " "}]}, "prompt 1: question ' ' is not text"),
        ({"prompts": [*PROMPTS[:2], {"id": "q0", "question": "x"}]}, "prompt 3: id 'q0' is prompt 1's already"),
        ({"out": "gen.json"}, "choose a name that ends in .jsonl"),
    ],
)
def test_prompts_and_places_that_make_no_sense_are_refused(llama, out, monkeypatch, changed, message):
    """By the function; what a command can be given wrongly is in tests/bad_inputs."""
    monkeypatch.setattr(sampling, "TransformersEngine", None)
    with pytest.raises(ValueError, match=message):
        sample(llama, changed.get("prompts", PROMPTS), out=out.with_name(changed.get("out", out.name)), **SETTINGS)
    assert not out.parent.exists()


# --- vllm, as far as it goes without vllm -------------------------------------------------------------------


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is here")
def test_without_vllm_it_says_how_to_install_it(llama, out):
    with pytest.raises(
        ValueError, match=r"needs the package vllm.*pip install -e '\.\[gpu\]'; or take backend 'transf"
    ):
        sample(llama, PROMPTS, out=out, **SETTINGS, backend="vllm")
    assert not out.parent.exists()


def test_prompt_seeds_depend_on_seed_and_prompt_and_are_never_none_for_vllm():
    seeds = {vllm_engine.prompt_seed(seed, prompt) for seed in (0, 1) for prompt in range(500)}
    assert len(seeds) == 1000 and min(seeds) > 16 and max(seeds) < 2**49  # 0 and -1 mean: no seed
    assert vllm_engine.prompt_seed(3, "p") == vllm_engine.prompt_seed(3, "p")


def test_batches_hold_every_request_once_and_one_length_where_asked():
    requests = [Request(i, [0] * (3 + i % 3), 5) for i in range(20)]
    for length in (lambda r: len(r.ids), lambda r: 0):
        found = decoding.batches(requests, 4, length)
        assert sorted(r.id for batch in found for r in batch) == [*range(20)] and max(map(len, found)) == 4
        assert all(len({length(r) for r in batch}) == 1 for batch in found)


# --- accuracy -----------------------------------------------------------------------------------------------


def test_accuracy_of_known_answers(llama, tmp_path, monkeypatch):
    """Average@k, best-of-k and greedy of responses that are given, read from `####`, a box or the last number."""
    said = {
        "sampled": [["#### 7", "so 8"], ["\\boxed{60}", "It is 60."], ["no idea", "0"]],
        "greedy": [["7"], ["61"], ["#### 1,000"]],
    }
    prompts = [
        {"id": i, "question": q, "answer": a} for i, (q, a) in enumerate(zip("abc", ("7", "60", "1000"), strict=True))
    ]

    def given(model, prompts, *, out, m, temperature, **rest):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(
            "".join(
                json.dumps({**p, "responses": r, "n_truncated": int(m > 1)}) + "\n"
                for p, r in zip(prompts, said[out.stem], strict=True)
            )
        )
        assert (m, temperature) == ((2, 0.7) if out.stem == "sampled" else (1, 0.0))
        return out

    monkeypatch.setattr(accuracy.sampling, "sample", given)
    for grader in accuracy.GRADERS:
        if grader == "last-number":
            said["greedy"][2] = ["1000"]
        found = accuracy.measure("m", prompts, tmp_path / grader, k=2, temperature=0.7, max_new_tokens=9, grader=grader)
        assert found["average"] == pytest.approx((0.5 + 1 + 0) / 3) and found["best_of"] == pytest.approx(2 / 3)
        assert found["greedy"] == pytest.approx(2 / 3) and found["truncated"] == 0.5
        graded = rows(tmp_path / grader / "sampled_graded.jsonl")
        assert [row["correct"] for row in graded] == [[True, False], [True, True], [False, False]]
        assert (tmp_path / grader / "accuracy.csv").read_text().startswith("model,temperature,grader,average,")


def test_accuracy_needs_answers_before_anything_is_sampled(llama, tmp_path):
    with pytest.raises(ValueError, match="prompt 2 has no answer to compare with"):
        accuracy.measure(
            llama,
            [*({"id": i, "question": "a", "answer": "1"} for i in (0, 1)), {"id": 2, "question": "b"}],
            tmp_path / "e",
            max_new_tokens=5,
        )
    assert not (tmp_path / "e").exists()


# --- from the command line ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command, to, options, stdout, made, settings",
    [
        (
            "generate",
            "made/gen.jsonl",
            ["--m", "2", "--n", "3", "--instruction", "Think."],
            "{out}\n",
            "gen.jsonl",
            {"m": 2, "temperature": 0.6, "max_new_tokens": 5, "instruction": "Think."},
        ),
        (
            "evaluate",
            "made",
            ["--k", "2", "--template", r"Q: {question}\nA:", "--bos", "--grader", "last-number"],
            "Average@2 0.",
            "greedy.jsonl",
            {"template": "Q: {question}\nA:", "bos": True, "temperature": 0.0, "m": 1},
        ),
    ],
)
def test_from_the_command_line(llama, tmp_path, one_thread, command, to, options, stdout, made, settings):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / to
    write_jsonl(prompts, [{"question": p["question"], "answer": p["answer"]} for p in PROMPTS])
    given = ["--model", str(llama), "--prompts", str(prompts), "--out", str(out), "--max-new-tokens", "5"]
    result = CliRunner().invoke(app, [command, *given, *options])
    assert result.exit_code == 0 and result.stdout.startswith(stdout.format(out=out)), result.output
    path = tmp_path / "made" / made
    assert json.loads(sidecar(path).read_text("utf-8"))["settings"].items() >= settings.items()
    assert [row["question"] for row in rows(path)] == QUESTIONS[: 3 if command == "generate" else None]
    assert (tmp_path / "made" / "accuracy.csv").is_file() == (command == "evaluate")
