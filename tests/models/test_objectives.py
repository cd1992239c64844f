"""Each objective is the formula of its source, written out token by token in numpy, and its gradient the slope of that;
students learn from it by fine-tuning, from the same seed to the same bits.
"""

import copy
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from checkpoints_for_tests import make_checkpoint
from gracelib.models import objectives
from gracelib.models.checkpoints import load_student
from gracelib.models.finetuning import fine_tune
from gracelib.models.objectives import OBJECTIVES, find_objective, load_teacher
from gracelib.models.prompting import encode_examples
from gracelib.models.training import train_causal_lm
from gracelib.scale import ModelSpec
from gracelib.world import stories
from gracelib.world.models import build_model, build_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


def kl(p, q):
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))


def of_one_token(name, number, done, student, teacher, before):
    """Of the probabilities of one token: q the student's, p the teacher's; `before`, the student's, is held fixed."""
    q, p = (np.exp(x) / np.exp(x).sum() for x in (student, teacher))
    if name in ("gkd", "on-policy"):
        m = number * p + (1 - number) * q
        return {0: kl(p, q), 1: kl(q, p)}.get(number, number * kl(p, m) + (1 - number) * kl(q, m))
    if name == "uld":
        return number * sum(abs(a - b) for a, b in zip(sorted(p), sorted(q), strict=True))
    if name.startswith("skew"):
        a, b = (q, p) if name == "skew-reverse" else (p, q)
        return kl(a, number * a + (1 - number) * b)
    t = number + (1 - number) * done
    between = np.exp((1 - t) * before + t * teacher)
    return kl(between / between.sum(), q)


CASES = [("gkd", 0), ("gkd", 0.5), ("gkd", 0.3), ("gkd", 1), ("on-policy", 1)] + [
    (name, OBJECTIVES[name].number) for name in ("skew", "skew-reverse", "taid", "uld")
]


@pytest.mark.parametrize("done", [0.0, 0.7])
@pytest.mark.parametrize("name, number", CASES)
def test_loss_and_gradient_are_those_of_the_source(name, number, done):
    rng = np.random.default_rng(0)
    teacher, start = rng.normal(0, 2, (2, 5, 7))  # (tokens, V)

    def plain(student):
        return sum(of_one_token(name, number, done, *rows) for rows in zip(student, teacher, start, strict=True))

    student = torch.tensor(start, requires_grad=True)
    pair = student.log_softmax(-1), torch.tensor(teacher).log_softmax(-1)
    loss = OBJECTIVES[name].divergence(*pair, number, done).sum()
    loss.backward()
    assert loss.item() == pytest.approx(plain(start), abs=1e-6)
    step = 1e-5 * np.eye(start.size).reshape(-1, *start.shape)
    slope = [(plain(start + e) - plain(start - e)) / 2e-5 for e in step]
    assert np.allclose(student.grad.flatten(), slope, atol=1e-6)


def test_extreme_logits_are_finite():
    """Where a probability is zero in float32, no divergence and no gradient is NaN."""
    student = torch.tensor([[0.0, 200.0, -200.0]], requires_grad=True)
    for name, number in CASES:
        pair = student.log_softmax(-1), torch.tensor([[200.0, 0.0, -200.0]]).log_softmax(-1)
        loss = OBJECTIVES[name].divergence(*pair, number, 0.5).sum()
        (slope,) = torch.autograd.grad(loss, student)
        assert loss >= 0 and torch.isfinite(loss) and torch.isfinite(slope).all(), name


@pytest.mark.parametrize("beta", [0, 0.3, 0.5, 1])
def test_gkd_is_what_trl_computes(beta):
    gkd = pytest.importorskip("trl.experimental.gkd", reason="trl is not installed: pip install trl")
    student, teacher = torch.randn(2, 3, 4, 11, generator=torch.manual_seed(0))
    ours = objectives.gkd(student.log_softmax(-1), teacher.log_softmax(-1), beta, 0.0)
    theirs = gkd.GKDTrainer.generalized_jsd_loss(student, teacher, beta=beta, reduction="none")
    assert torch.allclose(ours, theirs.sum(-1), atol=1e-6)


# --- training ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cast(tmp_path_factory):
    """Folders of a teacher that has learned a little and of a student that has not, and 24 examples of the teacher's."""
    tokenizer = build_tokenizer()
    pairs = stories.mixture_texts(24, 3, {"equations": 1.0}, 0.0, 1, 3)
    teacher, student = (build_model(ModelSpec(16, 1, 2), len(tokenizer), seed) for seed in (0, 1))
    train_causal_lm(teacher, encode_examples(tokenizer, pairs), epochs=20, lr=1e-2, batch_size=8, seed=0)
    folders = []
    for model in (teacher, student):
        folders.append(tmp_path_factory.mktemp("model"))
        for part in (model, tokenizer):
            part.save_pretrained(folders[-1])
    return *folders, [{"id": k, "question": q, "responses": [r]} for k, (q, r) in enumerate(pairs)]


def taught(cast, out, objective, beta=None, **changes):
    teacher, student, rows = cast
    usual = {"epochs": 3, "lr": 1e-2, "batch_size": 24, "micro_batch": 4, "progress": False, "device": "cpu"}
    usual |= {"rejected": rejected(rows)} if objective == "plad" else {"teacher": teacher}
    return fine_tune(student, rows, out, objective=objective, beta=beta, **(usual | changes))


def rejected(rows):
    """To each question what stands under another, in another order."""
    return [row | {"responses": other["responses"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)][::-1]


@torch.no_grad()
def divergence(cast, student, beta):
    """The mean over the examples' response tokens, one example at a time."""
    (student, tokenizer), (teacher, _), total, count = load_student(student), load_student(cast[0]), 0.0, 0
    for prompt, response in encode_examples(tokenizer, [(row["question"], row["responses"][0]) for row in cast[2]]):
        ids = torch.tensor([prompt + response])
        pair = (m(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for m in (student, teacher))
        total += objectives.gkd(*pair, beta, 0.0).sum().item()
        count += len(response)
    return total / count


@pytest.mark.parametrize("beta", [0, 0.5, 1])
def test_the_loss_is_the_mean_over_supervised_tokens_of_the_batch(cast, beta, tmp_path):
    about = taught(cast, tmp_path / "out", "gkd", beta, epochs=1)
    assert about["loss"] == pytest.approx(divergence(cast, cast[1], beta), rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_students_come_closer_to_the_teacher_and_the_same_seed_gives_the_same_bits(cast, name, tmp_path):
    for out, seed in (("first", 1), ("again", 1), ("other", 2)):
        taught(cast, tmp_path / out, name, seed=seed, batch_size=8)
    if name != "plad":  # which says only that the teacher's words are likelier than others
        assert divergence(cast, tmp_path / "first", 0) < 0.9 * divergence(cast, cast[1], 0)
    first, again, other = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("first", "again", "other"))
    assert first == again != other


def test_on_policy_learns_from_samples_of_the_student_as_it_is(cast, monkeypatch, tmp_path):
    """Fresh ones at each step, to the same prompts, none longer than the teacher's longest or than the student reads, ended by
    EOS or cut."""
    tokenizer = build_tokenizer()
    examples = encode_examples(tokenizer, [(row["question"], row["responses"][0]) for row in cast[2]])
    reads, seen, sampled = max(len(p) + len(r) for p, r in examples), [], objectives.decode_all
    student = shutil.copytree(cast[1], tmp_path / "student")
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"max_position_embeddings": reads}))

    def spy(model, prompts, keys, **how):
        seen.append((prompts, sampled(model, prompts, keys, **how), how["max_new_tokens"], set(keys.tolist())))
        return seen[-1][1]

    monkeypatch.setattr(objectives, "decode_all", spy)
    taught((cast[0], student, cast[2]), tmp_path / "out", "on-policy", batch_size=12, micro_batch=6, epochs=2)
    assert len(seen) == 8 and sorted(p for own in seen[:4] for p in own[0]) == sorted(p for p, _ in examples)
    assert len(set.union(*(own[3] for own in seen))) == 48  # no number is drawn twice
    for prompts, found, most, _ in seen:
        assert most + max(map(len, prompts)) <= reads
        assert all(ids[-1] == tokenizer.eos_token_id or len(ids) == most for ids in found)


@pytest.mark.parametrize("beta", [None, 2.0])
def test_plad_is_the_loss_of_dpo_over_the_pairs_of_a_batch(cast, beta, tmp_path):
    """One pair at a time, from the student before the last step."""
    seen, spy = [], TrainerCallback()
    spy.on_step_end = lambda args, state, control, model, **_: seen.append(copy.deepcopy(model).eval())
    about = taught(cast, tmp_path / "out", "plad", beta, epochs=3, micro_batch=6, callbacks=[spy])
    (before, tokenizer), pairs = load_student(cast[1]), [(row["question"], row["responses"][0]) for row in cast[2]]
    others = {row["question"]: row["responses"][0] for row in rejected(cast[2])}
    gains = []
    for texts in (pairs, [(question, others[question]) for question, _ in pairs]):
        own = [[said(m, *example) for m in (seen[1], before)] for example in encode_examples(tokenizer, texts)]
        gains.append(np.array([now - then for now, then in own]))
    margin = (beta or 0.1) * (gains[0] - gains[1])
    assert margin.std() > 0.01 and about["loss"] == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-5)


@torch.no_grad()
def said(model, prompt, response):
    """The log-probability of a response."""
    words = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    return words[range(len(response)), response].sum().item()


def test_plads_gradient_is_the_slope_of_its_loss():
    before, start = np.random.default_rng(0).normal(0, 2, (2, 6))

    def plain(now):
        better, worse = np.split(now - before, 2)
        return np.log1p(np.exp(-0.7 * (better - worse))).sum()

    now = torch.tensor(start, requires_grad=True)
    loss = objectives.plad(now, torch.tensor(before), 0.7, 0.0).sum()
    loss.backward()
    slope = [(plain(start + e) - plain(start - e)) / 2e-5 for e in 1e-5 * np.eye(6)]
    assert loss.item() == pytest.approx(plain(start), abs=1e-6) and np.allclose(now.grad, slope, atol=1e-6)


def test_plad_is_refused_without_as_many_rejected_responses(cast, tmp_path):
    own = rejected(cast[2])
    for given, said in (
        (own[1:], r"1 of 24 prompts have no rejected responses.*same words"),
        ([], "24 of 24 prompts have no rejected responses"),
        (None, "give the student's own"),
    ):
        with pytest.raises(ValueError, match=said):
            taught(cast, tmp_path / "out", "plad", rejected=given)
    rows = [row | {"responses": row["responses"] * 2} for row in cast[2]]
    with pytest.raises(ValueError, match="has 1 responses, fewer than M = 2"):
        taught((*cast[:2], rows), tmp_path / "out", "plad", rejected=own)


def test_a_teacher_of_another_vocabulary_is_refused_where_words_are_compared(cast):
    own = build_tokenizer()
    assert load_teacher(cast[0], own)[0].config.hidden_size == 16
    own.add_tokens(["another"])
    with pytest.raises(ValueError, match=r"1 entries of its vocabulary.*; choose objective uld"):
        load_teacher(cast[0], own)
    assert load_teacher(cast[0], own, common=False)[1].get_vocab() == build_tokenizer().get_vocab()


def test_a_teacher_that_ends_otherwise_is_named(cast, capsys, tmp_path):
    teacher, tokenizer = shutil.copytree(cast[0], tmp_path / "teacher"), build_tokenizer()
    tokenizer.eos_token = "."
    tokenizer.save_pretrained(teacher)
    said = {}
    for name, its in (("other", teacher), ("same", cast[0])):
        taught((its, *cast[1:]), tmp_path / name, "gkd", epochs=0.1)
        said[name] = "ends with <eos>, and the teacher (a chat model?) ends its own with .:" in capsys.readouterr().err
    assert said == {"other": True, "same": False}


@pytest.mark.parametrize("longer", ["the teacher's", "the student's"])
def test_uld_learns_from_a_teacher_that_reads_other_tokens(cast, longer, tmp_path):
    """Its loss is the cross-entropy and 1.5 times the L1 distances of sorted probabilities, of the k-th tokens of both
    readings, the longer one's last tokens without; in batches as one example at a time."""
    texts = tuple(row["question"] + " " + row["responses"][0] for row in cast[2][:3])
    pair = make_checkpoint(tmp_path / "bytes", "llama", vocab=300, texts=texts), cast[0]  # of bytes and of words
    its, own = pair if longer == "the teacher's" else pair[::-1]
    about = taught((its, own, cast[2]), tmp_path / "out", "uld", epochs=1)
    total, count, sizes = per_example(own, its, [(row["question"], row["responses"][0]) for row in cast[2]])
    assert all((a < b) == (longer == "the teacher's") for a, b in sizes)
    assert about["loss"] == pytest.approx(total / count, rel=1e-5)
    for name, teacher in (("uld", its), ("sequence", None)):
        taught((teacher, own, cast[2]), tmp_path / name, name, batch_size=8)
    by_both, by_words = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("uld", "sequence"))
    assert by_both != by_words  # the distances, too, have a gradient


@torch.no_grad()
def per_example(own, its, pairs):
    (student, tokenizer), (teacher, theirs), total, count, sizes = load_student(own), load_student(its), 0.0, 0, []
    for own, its in zip(encode_examples(tokenizer, pairs), encode_examples(theirs, pairs), strict=True):
        (q, words), (p, _) = (
            (m(torch.tensor([x + y])).logits[0, len(x) - 1 : -1].softmax(-1).numpy(), y)
            for m, (x, y) in ((student, own), (teacher, its))
        )
        sizes.append((len(q), len(p)))
        total -= sum(np.log(row[word]) for row, word in zip(q, words, strict=True))
        for a, b in zip(p, q, strict=False):
            a, b = np.sort(a[: len(theirs)])[::-1], np.sort(b[: len(tokenizer)])[::-1]
            total += 1.5 * sum(abs(x - y) for x, y in itertools.zip_longest(a, b, fillvalue=0.0))
        count += len(words)
    return total, count, sizes


@pytest.mark.parametrize(
    "name, beta, said",
    [("sequence", 0.5, "have one"), ("gkd", 2, "from 0"), ("taid", 1, "have one"), ("plad", 0.0, "plad one above 0")],
)
def test_objectives_that_are_none_are_refused(name, beta, said):
    with pytest.raises(ValueError, match=said):
        find_objective(name, beta)
