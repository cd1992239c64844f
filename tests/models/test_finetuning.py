"""Fine-tuning of real students: what is optimised does not depend on how a batch is cut up, a killed run ends with
the same weights, and what cannot work is refused before training.
"""

import json
import math
import shutil
from unittest.mock import Mock

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, TrainerCallback
from typer.testing import CliRunner

from checkpoints_for_tests import make_checkpoint
from gracelib.cli.app import app
from gracelib.models import finetuning
from gracelib.models.finetuning import fine_tune
from gracelib.models.prompting import CHAT, Policy, encode_examples
from gracelib.text.responses import write_jsonl

ROWS = [
    {
        "id": i,
        "question": f"What is {i} + {i}?",
        "responses": [f"{i} + {i} = {2 * i}. " * (1 + (i + k) % 4) + f"#### {2 * i}" for k in range(2)],
    }
    for i in range(6)
]
QUICK = {"batch_size": 8, "epochs": 2, "lr": 1e-3, "progress": False}  # 12 responses: 2 steps a pass, the second of 4


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("student"), "llama")


@pytest.fixture(scope="module")
def whole(student, tmp_path_factory):
    """(folder, what training says) of a run with the batch in one piece and without recomputing activations."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, fine_tune(student, ROWS, out, micro_batch=8, gradient_checkpointing=False, **QUICK)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Of the student's vocabulary, and larger: its embedding is padded to more rows, as relatives' are."""
    folder = make_checkpoint(tmp_path_factory.mktemp("teacher"), "llama", hidden=48, seed=1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(416)
    model.save_pretrained(folder)
    return folder


def furthest(a, b):
    a, b = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_a_trained_student_is_an_ordinary_checkpoint(student, whole):
    out, about = whole
    assert about["n_examples"] == 12 and about["steps"] == 4 and about["n_cut"] == 0
    assert about == json.loads((out / "training.json").read_text(encoding="utf-8"))
    AutoModelForCausalLM.from_pretrained(out)
    assert AutoTokenizer.from_pretrained(out).eos_token_id == AutoTokenizer.from_pretrained(student).eos_token_id
    assert furthest(student, out) > 1e-4
    assert not out.with_name("out.scratch").exists() and not list(out.glob("*.bin"))


def test_micro_batches_and_recomputed_activations_change_rounding_only(student, whole, tmp_path):
    """The mean over the tokens of the whole batch, not the mean of micro-batch means: lengths differ fourfold
    here.
    """
    fine_tune(student, ROWS, tmp_path / "out", micro_batch=2, **QUICK)
    assert furthest(whole[0], tmp_path / "out") < 1e-5


def test_a_students_divergence_is_averaged_over_the_whole_batch_too(student, whole, teacher, tmp_path):
    how = QUICK | {"objective": "gkd", "beta": 0.5, "teacher": teacher}
    for name, micro_batch in (("large", 8), ("small", 2)):
        fine_tune(student, ROWS, tmp_path / name, micro_batch=micro_batch, **how)
    assert furthest(tmp_path / "large", tmp_path / "small") < 1e-5
    assert furthest(tmp_path / "large", whole[0]) > 1e-4


def test_the_loss_is_the_mean_over_supervised_tokens(student, tmp_path):
    """Computed apart, from the definition: one step over everything, and what it reports is the loss before the
    step.
    """
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(student, dtype="float32"),
        AutoTokenizer.from_pretrained(student),
    )
    total, count = 0.0, 0
    for prompt, ids in encode_examples(tokenizer, [(row["question"], r) for row in ROWS for r in row["responses"]]):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0]  # (T, V)
        chosen = logits[len(prompt) - 1 : -1].log_softmax(-1)  # (|y|, V)
        total -= float(chosen[range(len(ids)), ids].sum())
        count += len(ids)
    about = fine_tune(student, ROWS, tmp_path / "out", micro_batch=4, batch_size=12, epochs=1, lr=1e-3, progress=False)
    assert about["steps"] == 1 and about["n_tokens"] == count
    assert math.isclose(about["loss"], total / count, rel_tol=1e-4)


@pytest.mark.parametrize("objective", ["sequence", "taid", "on-policy", "plad"])
def test_a_killed_run_ends_with_the_same_bytes(student, teacher, objective, tmp_path, monkeypatch):
    options = QUICK | {"micro_batch": 4, "save_every": 1, "objective": objective}
    options["teacher"] = teacher if objective in ("taid", "on-policy") else None
    options["rejected"] = [row | {"responses": row["responses"][::-1]} for row in ROWS] if objective == "plad" else None
    fine_tune(student, ROWS, tmp_path / "a", **options)
    kill = TrainerCallback()
    kill.on_step_end = Mock(side_effect=[None, None, None, KeyboardInterrupt])  # at the fourth of its steps
    with pytest.raises(KeyboardInterrupt):
        fine_tune(student, ROWS, tmp_path / "b", callbacks=[kill], **options)
    assert not (tmp_path / "b").exists()
    torn = tmp_path / "b.scratch" / "checkpoint-9"  # a kill while a checkpoint was being written: no state in it
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="b.scratch was made with other settings .lr 0.001 there, 0.01 asked for"):
        fine_tune(student, ROWS, tmp_path / "b", **(options | {"lr": 1e-2}))
    with FileLock(tmp_path / "b.scratch" / ".lock"), pytest.raises(ValueError, match="another run trains there"):
        fine_tune(student, ROWS, tmp_path / "b", **options)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "copytree", Mock(side_effect=KeyboardInterrupt))  # while the last weights are written
        fine_tune(student, ROWS, tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()
    about = fine_tune(student, ROWS, tmp_path / "b", **options)
    fine_tune(student, ROWS, tmp_path / "c", scratch=tmp_path / "a folder of mine", **options)
    assert about["steps"] == 4 and (tmp_path / "a folder of mine").is_dir()
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert not (tmp_path / "b.scratch").exists()


def test_long_responses_are_cut_and_counted(student, tmp_path, capsys):
    about = fine_tune(
        student, ROWS, tmp_path / "out", policy=Policy(max_tokens=40), micro_batch=4, batch_size=12, epochs=1
    )
    said = capsys.readouterr().err
    assert about["n_cut"] > 0 and about["tokens_cut"] > 0
    assert f"{about['n_cut']} of 12 responses did not fit max_tokens=40" in said
    assert "training:   0%" in said and "1/1 steps" in said and f"loss {about['loss']:.4g}" in said


@pytest.mark.parametrize("rows, micro_batch, said", [([], 4, "no rows to train on"), (ROWS, 0, "micro_batch=0")])
def test_what_cannot_work_is_refused_before_training(student, tmp_path, rows, micro_batch, said):
    """By the function; what a command can be given wrongly is in tests/bad_inputs."""
    with pytest.raises(ValueError, match=said):
        fine_tune(student, rows, tmp_path / "out", micro_batch=micro_batch, **QUICK)
    assert not (tmp_path / "out").exists()


def test_a_chat_student_stops_where_its_template_does_and_cut_responses_have_no_end(tmp_path):
    """Whoever samples the trained student is told the end of turn, which neither tokenizer nor configuration named."""
    student = make_checkpoint(tmp_path / "student", "qwen2")
    tokenizer = AutoTokenizer.from_pretrained(student)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}<|im_start|>"
    )
    tokenizer.save_pretrained(student)
    rows = [row | {"cut": {1}} for row in ROWS]
    about = fine_tune(student, rows, tmp_path / "out", policy=Policy(CHAT), micro_batch=8, **QUICK)
    whole = encode_examples(tokenizer, [(row["question"], text) for row in ROWS for text in row["responses"]])
    assert about["n_cut"] == len(ROWS) and about["n_tokens"] == sum(len(ids) for _, ids in whole) - len(ROWS)
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == turn != tokenizer.eos_token_id


def test_longrope_texts_on_both_sides_share_no_micro_batch(student, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "rope_switch", lambda config: 48)
    with pytest.raises(ValueError, match="more than 48 tokens .*: choose max_tokens=48, or micro_batch=1"):
        fine_tune(student, ROWS, tmp_path / "out", **QUICK)
    fine_tune(student, ROWS, tmp_path / "out", micro_batch=1, **QUICK)


def test_a_loss_that_is_not_finite_stops_the_run(student, tmp_path):
    with pytest.raises(ValueError, match="not finite at step .*lower the learning rate"):
        fine_tune(student, ROWS, tmp_path / "out", **(QUICK | {"lr": 1e30, "micro_batch": 8}))


def test_the_command_trains_the_same_student(student, whole, tmp_path):
    """From chats, whose reasoning is dropped, as from rows of our own."""
    path = tmp_path / "responses.jsonl"
    said = [
        {"role": role, "content": text}
        for row in ROWS
        for response in row["responses"]
        for role, text in (("user", row["question"]), ("assistant", f"<think>Hm.</think>\n{response}"))
    ]
    write_jsonl(path, [{"messages": said[k : k + 2]} for k in range(0, len(said), 2)])
    places = ["--student", str(student), "--out", str(tmp_path / "out")]
    options = "--epochs 2 --lr 1e-3 --batch-size 8 --micro-batch 8 --no-gradient-checkpointing --thinking drop"
    result = CliRunner().invoke(app, ["distill", str(path), *places, *options.split()])
    assert result.exit_code == 0, result.output
    assert f"12 responses, {whole[1]['n_tokens']} tokens, 4 steps in float32" in result.stdout
    assert furthest(whole[0], tmp_path / "out") == 0
