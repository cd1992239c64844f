"""A ranking is a function of the student, the teachers' texts and the settings, and of nothing else: not of the order
of the files, of how many responses fill a batch, or of whether the run was killed on the way. GRACE in it is GRACE: a
few lines of numpy on the gradients give the same number. And whatever is wrong with files or options is said in one
line before a model is loaded.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from checkpoints_for_tests import KINDS, make_checkpoint
from gracelib.baselines import SCORES
from gracelib.cli.app import app
from gracelib.evidence import until_clear
from gracelib.features import files, gradients
from gracelib.features.gradients import response_features
from gracelib.models import checkpoints
from gracelib.models.prompting import CHAT, Policy, encode, encode_examples
from gracelib.ranking import rank as ranking
from gracelib.ranking import reading, report
from gracelib.ranking.rank import score_teachers
from gracelib.scores import Grace
from gracelib.text.responses import write_jsonl
from gracelib.text.selection import read_teachers

EXCERPT = Path(__file__).parents[1] / "data" / "gsm8k_excerpt"
TEN = sorted(EXCERPT.glob("*.jsonl"))
THREE = TEN[2:5]
TEXTS = tuple(p.question for p in read_teachers([TEN[0]])[0].prompts)
SMALL = {"n": 16, "m": 1, "d": 8, "n_folds": 4, "seed": 1}
NUMBERS = ["grace", "grace_low", "grace_high", *ranking.SCORED, "top3_share", "nu_share", "near_copies"]
runner = CliRunner()
pytestmark = pytest.mark.usefixtures("one_thread")  # as in the killed process


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("student") / "llama", "llama", vocab=600, texts=TEXTS)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Finished pieces shared by the tests that do not look at how they are made."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def scored(one_thread, llama, work):
    return rank(llama, THREE, work)


@pytest.fixture
def no_gradients(scored, monkeypatch):
    """From here on only what `scored` left in `work` can be read."""
    monkeypatch.setattr(gradients, "response_features", lambda *_, **__: pytest.fail("a gradient was computed"))


def rank(student, files, work, **options):
    return score_teachers(student, files, work=work, **{**SMALL, **options})


# --- the numbers --------------------------------------------------------------------------------------------


def test_grace_is_grace(scored, llama):
    """Written out: folds of sorted prompts, unit gradients outside a fold, h^T Sigma^-1 h inside, and the mean."""
    result = scored
    model, tokenizer = checkpoints.load_student(llama)
    (teacher,) = read_teachers([THREE[0]])
    prompts = sorted((p for p in teacher.prompts if p.id in result.settings["prompt_ids"]), key=lambda p: p.id)
    examples = encode_examples(tokenizer, [(p.question, p.responses[0]) for p in prompts])
    found = response_features(model, examples, d=8, seed=1, device="cpu", progress=False)
    h = np.log(found["length"])[:, None] * found["g"].astype(float)
    unit, total = h / np.linalg.norm(h, axis=1, keepdims=True), 0.0
    for fold in np.array_split(np.random.default_rng(1).permutation(16), 4):
        others = np.delete(unit, fold, axis=0)
        inverse = np.linalg.inv(others.T @ others / len(others) + 1e-3 / 8 * np.eye(8))
        total += np.einsum("rd,de,re->", h[fold], inverse, h[fold])
    row = result.table.set_index("teacher").loc[teacher.name]
    assert len(prompts) == 16 and row.grace == pytest.approx(total / 16, rel=1e-4)
    assert row.g_norm == pytest.approx((h**2).sum(1).mean(), rel=1e-4)
    assert row.mean_length == np.mean(found["length"])
    assert row.student_loss == pytest.approx(found["loss"].mean(), rel=1e-5)
    assert row.grace_low < row.grace < row.grace_high


def test_ten_teachers_from_a_folder(llama, work):
    result = rank(llama, EXCERPT, work)
    table = result.table
    assert list(table.columns) == list(ranking.COLUMNS) and sorted(table.teacher) == sorted(f.stem for f in TEN)
    assert list(table["rank"]) == [*range(1, 11)] and table.grace.is_monotonic_increasing
    assert np.isfinite(table[NUMBERS].to_numpy(float)).all() and (table.grace > 0).all()
    pairs = result.neighbours
    assert list(pairs.better) == list(table.teacher[:-1]) and list(pairs.worse) == list(table.teacher[1:])
    assert np.allclose(pairs.difference, np.diff(table.grace)) and list(pairs["rank"]) == [*range(1, 10)]
    assert set(result.against_first.better) == {table.teacher[0]} and len(result.against_first) == 9
    assert result.sentences[0].startswith("24 prompts were answered by all 10 teachers (left out: none); 16 of them")
    assert result.memory["peak"] >= result.memory["before"] > 0 and result.memory["weights_planned"] > 0


def test_the_order_of_the_files_does_not_matter_and_a_second_run_computes_no_gradient(
    scored, llama, work, tmp_path, no_gradients
):
    there, back = scored, rank(llama, THREE[::-1], work)
    assert str(there) == str(back)
    pd.testing.assert_frame_equal(there.table, back.table, check_exact=True)
    pd.testing.assert_frame_equal(there.neighbours, back.neighbours, check_exact=True)
    for path in THREE:  # nor does the order of the lines
        lines = path.read_text("utf-8").splitlines(keepends=True)
        (tmp_path / path.name).write_text("".join(lines[::-1]), "utf-8")
    pd.testing.assert_frame_equal(there.table, rank(llama, tmp_path, work).table, check_exact=True)


def test_other_scores_beside_grace(scored, llama, work, tmp_path, no_gradients, monkeypatch):
    """GRACE first, as without them; each other score with its interval, its own ranks, its agreement and what it took."""
    names = ("rsr", "lark", "aslec_casl", "scas", "car", "zlib_joint", "student_loss", "badge", "grace_bias")
    result = rank(llama, THREE, work, scores=("grace", *names, "rsr"))  # GRACE is there anyway, with its own interval
    pd.testing.assert_frame_equal(result.table[list(ranking.COLUMNS)], scored.table, check_exact=True)
    for name in names:
        value, low, high, place = (result.table[name + part] for part in ("", "_low", "_high", "_rank"))
        assert np.isfinite(value).all() and ((low < value) & (value < high)).all() == (name != "grace_bias"), name
        best = value.min() if SCORES[name].direction == "lower" else value.max()
        assert value[place == 1].tolist() == [best] and sorted(place) == [1, 2, 3]
        row = result.costs.set_index("score").loc[SCORES[name].label]
        mine = place.to_numpy()
        assert row.agreement == pytest.approx(1 - 6 * ((mine - [1, 2, 3]) ** 2).sum() / 24) and row.seconds < 60
        assert (-1 <= row.low <= row.agreement <= row.high <= 1) == (name != "grace_bias"), name
        assert row.passes == ("no model" if name == "zlib_joint" else "none beyond GRACE's")
    (teacher,) = read_teachers([THREE[0]])
    own = [p.responses[0] for p in teacher.prompts if p.id in result.settings["prompt_ids"]]
    row = result.table.set_index("teacher").loc[teacher.name]
    assert row.zlib_joint > 0 and "RSR" in str(result) and "agreement: Spearman" in str(result)
    assert row.car == pytest.approx(round(row.car * 16 * (1 + row.student_loss)) / 16 / (1 + row.student_loss))
    about = json.loads(result.save(tmp_path / "r.csv").read_text())
    assert [r["score"] for r in about["costs"]] == ["GRACE", *(SCORES[name].label for name in names)] and len(own) == 16
    # Which take a pass more: without the prompt, by the sentence; and one that a single response per prompt does not allow.
    names = ("ifd", "ifd_perplexity", "lalp", "inner_product")
    monkeypatch.undo()
    result, (model, tokenizer) = rank(llama, THREE, work, scores=names), checkpoints.load_student(llama)
    pairs = [(p.question, p.responses[0]) for p in teacher.prompts if p.id in result.settings["prompt_ids"]]
    ratios, local = [], []
    for (x, y), e in zip(encode_examples(tokenizer, pairs), encode(tokenizer, pairs, steps=True)):
        cuts = [k for k, s in enumerate(e.step) if s == 0] + [len(y)]
        each = []
        for s in range(len(cuts) - 1):
            before, own = x + y[cuts[s - -(-s // 4)] : cuts[s]], y[cuts[s] : cuts[s + 1]]
            lp = model(input_ids=torch.tensor([before + own])).logits[0, len(before) - 1 : -1].log_softmax(1)
            each.append(lp.gather(1, torch.tensor(own)[:, None]).mean().item())
        local.append(np.mean(each))
    for x, y in encode_examples(tokenizer, pairs):
        lp = [model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(1) for ids in ([*x, *y], y)]
        each = [-v.gather(1, torch.tensor([*x, *y][1:] if k == 0 else y[1:])[:, None])[:, 0] for k, v in enumerate(lp)]
        ratios.append((each[0][len(x) - 1 :].mean() / each[1].mean()).item())
    assert result.table.set_index("teacher").loc[teacher.name].ifd == pytest.approx(np.mean(ratios), rel=1e-5)
    assert result.table.set_index("teacher").loc[teacher.name].lalp == pytest.approx(np.mean(local), rel=1e-5)
    assert set(result.costs.passes[1:-1]) == {"one forward more, for both IFD", "a forward for each sentence"}
    assert " - (no pair: each of the 16 prompts has fewer than two responses" in str(result)
    with pytest.raises(ValueError, match="scas looks at mlp.up_proj of the last layer, which GPT2LMHeadModel has not"):
        rank(make_checkpoint(tmp_path / "gpt2", "gpt2", vocab=600, texts=TEXTS), THREE, work, scores=("scas",))


@pytest.mark.parametrize(
    "names, message",
    [
        (("rsrr",), "unknown score 'rsrr': did you mean rsr"),
        (("teacher_accuracy",), "teacher_accuracy is no function of responses and student: Average@k .* leave it out"),
        (("car",), r"line \d+: no file has an answer to this prompt, and car needs to know .* add the field 'answer'"),
    ],
)
def test_a_score_that_cannot_be_is_refused_before_a_model_is_loaded(names, message, llama, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "check_student", lambda *_: pytest.fail("a student was looked at"))
    for path in THREE:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        write_jsonl(tmp_path / path.name, [{k: v for k, v in row.items() if k != "answer"} for row in rows])
    with pytest.raises(ValueError, match=message) as error:
        rank(llama, tmp_path, tmp_path / "work", scores=names)
    assert "\n" not in str(error.value)


def test_a_ranking_stops_when_it_knows(llama, tmp_path, monkeypatch):
    """Rounds of 6, 12 and 16 prompts, and a rule loose enough that somebody leaves: no gradient is taken of who left, a
    second run takes none at all, and those that stayed are ranked as by a run on the same prompts without rounds."""
    taken, whole = [], gradients.response_features
    monkeypatch.setattr(gradients, "response_features", lambda m, e, **k: (taken.append(len(e)), whole(m, e, **k))[1])
    monkeypatch.setattr(until_clear, "FIRST", 6)
    monkeypatch.setattr(until_clear, "LEVEL", 3.5)
    files, options = TEN[:6], {"d": 16}
    result = rank(llama, files, tmp_path, until_clear=True, **options)
    left, ended = result.left, result.settings["n"]
    assert (
        len(left)
        and set(left.left_after) <= {6, 12}
        and {*left.teacher, *result.table.teacher} == {f.stem for f in files}
    )
    assert (left.difference > left.clear_beyond).all() and result.settings["d"] == min(16, ended)
    assert sum(taken) == left.left_after.sum() + ended * len(result.table)
    saved = 1 - sum(taken) / (16 * 6)
    assert f"{ended} of 16 prompts were taken" in str(result) and f"{saved:.0%} of the gradients were saved" in str(
        result
    )
    del taken[:]
    again = rank(llama, files, tmp_path, until_clear=True, **options)
    assert not taken and str(again) == str(result)
    full = rank(llama, files, tmp_path / "full", n=ended, d=min(16, ended))
    kept = full.table[full.table.teacher.isin(result.table.teacher)]
    assert list(kept.teacher) == list(result.table.teacher)
    np.testing.assert_allclose(kept.grace, result.table.grace, rtol=1e-5)
    assert json.loads(result.save(tmp_path / "r.csv").read_text())["left"][0]["left_after"] in (6, 12)
    assert (
        rank(llama, files[:1], tmp_path, until_clear=True, **options).settings["n"] == 16
    )  # nothing gets clear of one


def test_the_best_teacher_seldom_leaves():
    """Contributions of six teachers, each drawn anew: two good ones that are the same, four worse. The first
    leaves in few runs, and the worse ones go early."""
    rng, gone, saved, runs = np.random.default_rng(0), 0, [], 200
    worth = {"a": 1.0, "b": 1.0, "c": 1.3, "d": 1.6, "e": 2.0, "f": 3.0}
    for _ in range(runs):
        values = {name: rng.gamma(4, mean / 4, 512) * 1.0 for name, mean in worth.items()}

        def look(name, stop):
            own, ids = values[name][:stop], np.arange(stop)
            nan = float("nan")
            moved = (own - own.mean()) / np.sqrt(stop * (stop - 1))
            return Grace(own.mean(), nan, nan, nan, nan, ids, own, np.ones(stop), ids, 0), moved

        stayed, _, _, share = until_clear.race([*worth], until_clear.rounds(512, 10), lambda *_: None, look)
        gone += "a" not in stayed
        saved.append(share)
    assert gone <= 0.02 * runs and np.mean(saved) > 0.4, (gone, np.mean(saved))
    assert until_clear.rounds(512, 10) == [32, 64, 128, 256, 512] and until_clear.rounds(20, 10) == [20]
    assert until_clear.rounds(100, 48) == [48, 96, 100]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "llama"])
def test_other_architectures(kind, tmp_path):
    student = make_checkpoint(tmp_path / kind, kind, vocab=600, texts=TEXTS)
    table = rank(student, THREE[:2], tmp_path / "work").table
    assert len(table) == 2 and (table.grace > 0).all() and np.isfinite(table[NUMBERS].to_numpy(float)).all()
    again = rank(student, THREE[:1], tmp_path / "other", batch_tokens=500).table  # another batch size
    before = table[table.teacher == THREE[0].stem]
    np.testing.assert_allclose(again[NUMBERS].to_numpy(float), before[NUMBERS].to_numpy(float), rtol=1e-4)


@pytest.mark.parametrize("params", ranking.PARAMS[1:])
def test_other_gradients_are_other_pieces(llama, work, params):
    other = rank(llama, THREE[:2], work, params=params).table
    assert not np.allclose(other.grace, rank(llama, THREE[:2], work).table.grace, rtol=0.01)


def test_several_responses_a_prompt(llama, work, tmp_path):
    """m = 2 takes the first two; the folds keep them together, so a copy tells nothing new about another prompt."""
    for path in THREE[:2]:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for row in rows:
            row["responses"] = [row["responses"][0], row["responses"][0], "never used"]
        write_jsonl(tmp_path / path.name, rows)
    once, twice = rank(llama, THREE[:2], work), rank(llama, tmp_path, work, m=2)
    for column in ("grace", "g_norm", "g_vendi", "mean_length", "student_loss"):
        np.testing.assert_allclose(twice.table[column], once.table[column], rtol=1e-4)


def test_a_teacher_is_not_told_apart_from_its_copy(llama, work, tmp_path):
    shutil.copy(THREE[0], tmp_path / "copy.jsonl")
    result = rank(llama, [THREE[0], tmp_path / "copy.jsonl"], work)
    (pair,) = result.neighbours.itertuples()
    assert (pair.difference, pair.low, pair.high, pair.p_better, pair.apart) == (0, 0, 0, 0.5, False)
    assert "cannot tell apart 1 of 1 pair of neighbours" in str(result)


def test_one_teacher_is_scored_and_not_compared(llama, work):
    result = rank(llama, THREE[:1], work)
    assert len(result.table) == 1 and result.neighbours.empty and "One teacher" in str(result)


def test_truncation_is_counted_and_said(llama, work, capsys):
    result = rank(llama, THREE[:2], work, policy=Policy(max_tokens=250))
    assert (result.table.cut_responses > 0).all() and (result.table.cut_tokens > result.table.cut_responses).all()
    said = capsys.readouterr().err
    for row in result.table.itertuples():
        what = f"{row.cut_responses} of 16 responses did not fit max_tokens=250 and were cut: {row.cut_tokens:,} tokens"
        note = f"{row.teacher}: {what}"
        assert any(text.startswith(note) for text in result.notes) and f"note: {note}" in said
    assert result.settings["max_tokens"] == 250


def test_a_chat_student_and_responses_that_came_cut(llama, tmp_path):
    """The student's own chat template, said in settings and notes; cut responses have no end and are counted, and so are
    those of one token, which count as zero in GRACE."""
    rows = [{"question": f"Add {i} and 5.", "responses": [f"{i} + 5 = {i + 5}", "7"]} for i in range(8)]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    write_jsonl(whole, rows)
    write_jsonl(cut, [row | {"finish_reasons": ["stop", "length"]} for row in rows])
    how = dict(n=8, m=2, d=4, n_folds=2, device="cpu", work=tmp_path / "work", policy=Policy(CHAT))
    result = score_teachers(llama, [whole, cut], **how)
    table = result.table.set_index("teacher")
    assert list(table.loc["cut", ["cut_before", "one_token"]]) == [8, 8] and table.loc["whole", "cut_before"] == 0
    assert table.loc["whole", "mean_length"] - table.loc["cut", "mean_length"] == 0.5  # an EOS of every second response
    assert result.settings["template"] == "chat"
    for said in (
        "cut: 8 of 16 responses were cut by their teacher's limit",
        "responses of one token (log|y| = 0, so they count as zero and lower GRACE): cut 8; leave",
        "the student reads its own chat template; a whole response ends with </s>",
    ):
        assert any(note.startswith(said) for note in result.notes), result.notes


@pytest.mark.filterwarnings("error")
def test_more_dimensions_than_gradients_are_warned_of(llama, work, capsys):
    result = rank(llama, THREE[:2], work, d=32)
    assert result.notes[0].startswith("nu decides these scores: gradients per dimension outside a fold: 0.4; use more")
    assert sum("nu decides" in note for note in result.notes) == 1  # once for all teachers, not a warning for each
    assert result.notes[0] in capsys.readouterr().err


# --- pieces -------------------------------------------------------------------------------------------------


def arguments(student, files, folder, *more):
    sizes = ["--n", "16", "--m", "1", "--d", "8", "--folds", "4", "--seed", "1", "--device", "cpu"]
    places = ["--work", folder / "work", "--out", folder / "ranking.csv", "--plot", folder / "ranking.svg"]
    return ["score", "--student", *map(str, [student, *sizes, *places, *more, *files])]


def test_killed_and_run_again(scored, llama, tmp_path):
    """kill -9 after the first piece: the second run keeps it, computes the rest, and ends with the same bytes."""
    command = [sys.executable, "-m", "gracelib.cli", *arguments(llama, THREE, tmp_path)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **streams) as process:
        while not list(tmp_path.glob("work/[!.]*.safetensors")):  # finished ones, not those being written
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/[!.]*.safetensors")}
    assert process.returncode == -signal.SIGKILL and 1 <= len(kept) < 3 and not (tmp_path / "ranking.csv").exists()

    result = runner.invoke(app, arguments(llama, THREE, tmp_path))
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("work/*.safetensors"))) == 3 and {p: p.stat().st_mtime_ns for p in kept} == kept
    whole = scored
    whole.save(tmp_path / "whole.csv")
    assert (tmp_path / "ranking.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert str(whole) in result.stdout
    assert "Memory planned: weights" in result.stderr and "peak memory: " in result.stderr
    report.save_picture(whole.figure(), tmp_path / "whole.svg")
    assert (tmp_path / "ranking.svg").read_bytes() == (tmp_path / "whole.svg").read_bytes()
    about = json.loads((tmp_path / "ranking.settings.json").read_text("utf-8"))
    assert about["settings"]["n"] == 16 and len(about["neighbours"]) == 2
    assert about["sentences"] == list(whole.sentences)


def test_the_table_is_saved_before_anything_is_printed(scored, llama, work, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking.Ranking, "__str__", lambda self: 1 / 0)
    runner.invoke(app, arguments(llama, THREE, tmp_path, "--work", work, "--plot", ""))
    assert (tmp_path / "ranking.csv").is_file()


def test_machines_that_take_a_teacher_each_leave_nothing_to_do(scored, llama, tmp_path, monkeypatch):
    for path in THREE:
        assert rank(llama, THREE, tmp_path, gradients_of=path.stem) is None
    monkeypatch.setattr(gradients, "response_features", lambda *_, **__: pytest.fail("a gradient was computed"))
    assert rank(llama, THREE, tmp_path).table.equals(scored.table)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_piece_is_computed_again(llama, tmp_path, damage, capsys):
    model, _ = checkpoints.load_student(llama)

    def features():
        return files.chunked_features(model, [([3, 4], [5, 6, 1])], ["a"], tmp_path, student="x", d=4)

    first = features()
    (piece,) = tmp_path.glob("*.safetensors")
    whole = piece.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    piece.write_bytes({"flip": flipped, "cut": whole[:-40], "empty": b""}[damage])
    again = features()
    assert all((again[name] == values).all() for name, values in first.items())
    assert f"{piece.name} " in capsys.readouterr().err and piece.read_bytes() == whole


def test_what_a_piece_depends_on(llama, tmp_path):
    """Another seed, another width, another weight: another piece. Other shards of the same weights: the same."""
    model, _ = checkpoints.load_student(llama)
    key = checkpoints.weights_digest(model)
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert checkpoints.weights_digest(AutoModelForCausalLM.from_pretrained(tmp_path / "shards")) == key
    assert checkpoints.weights_digest(model.to(torch.bfloat16)) != key
    model, _ = checkpoints.load_student(llama)
    examples, names = [([3, 4], [5, 6, 1])] * 2, ["a", "b"]

    def pieces(**changed):
        options = {"student": key, "d": 4, **changed}
        files.chunked_features(model, examples, names, tmp_path / "work", **options)
        return len(list((tmp_path / "work").iterdir()))

    counts = [pieces(), pieces(batch_tokens=5), pieces(d=5), pieces(seed=1), pieces(params="last-layer")]
    assert counts == [1, 1, 2, 3, 4]
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
    assert checkpoints.weights_digest(model) != key and pieces(student=checkpoints.weights_digest(model)) == 5


def test_many_responses_are_cut_into_pieces(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST", 5)
    monkeypatch.setattr(files, "FEWEST", 2)
    model, tokenizer = checkpoints.load_student(llama)
    examples = encode_examples(tokenizer, [(text[:40], text[40:80]) for text in TEXTS[:12]])
    done = []
    names = [*map(str, range(12))]
    found = files.chunked_features(model, examples, names, tmp_path, student="x", d=4, done=done.append)
    whole = response_features(model, examples, d=4, device="cpu", progress=False)
    assert len(done) > 12 and sum(done) == pytest.approx(12) and len(list(tmp_path.iterdir())) == 3
    for name, values in whole.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "n_parameters, device, size",
    [
        (30_000, "cpu", 256),
        (268 * 10**6, "cpu", 119),
        (10**9, "cpu", 32),
        (10**9, "cuda", 256),
        (8 * 10**9, "cuda", 37),
    ],
)
def test_a_piece_is_minutes_of_work_whatever_the_student(n_parameters, device, size):
    student = torch.nn.Linear(n_parameters, 1, bias=False, device="meta")
    assert files.piece_size(student, device) == size


# --- what is given ------------------------------------------------------------------------------------------


def test_generations_as_people_have_them_are_the_same_generations(scored, llama, work, tmp_path):
    """A batch with its requests, reasoning, an instruction in its questions, and one prompt too many that failed."""
    told, lines, requests = "\nThink first.", [], []
    for k, prompt in enumerate(read_teachers(THREE[0])[0].prompts):
        chat = [{"role": "user", "content": prompt.question + told}]
        requests.append({"custom_id": f"c{k}", "body": {"messages": chat}})
        choice = {"message": {"content": prompt.responses[0], "reasoning_content": "Hm."}, "finish_reason": "stop"}
        lines.append({"custom_id": f"c{k}", "response": {"status_code": 200, "body": {"choices": [choice]}}})
    requests.append({"custom_id": "more", "body": {"messages": [{"role": "user", "content": "More?"}]}})
    lines.append({"custom_id": "more", "response": {"choices": [{"text": "<think>Hm.", "finish_reason": "length"}]}})
    batch, asked = tmp_path / THREE[0].name, tmp_path / "requests" / "asked.jsonl"
    asked.parent.mkdir()
    write_jsonl(batch, lines)
    write_jsonl(asked, requests)
    options = ["--requests", asked, "--thinking", "drop", "--drop-text", "Think first.", "--min-m", "--work", work]
    result = runner.invoke(app, arguments(llama, [batch, *THREE[1:]], tmp_path, *options))
    assert result.exit_code == 0, result.output
    said = (
        f"Responses whose reasoning was dropped: 25 of {THREE[0].stem} (1 of them left out: nothing else is in them)."
    )
    assert said in result.stdout
    scored.save(tmp_path / "whole.csv")
    assert (tmp_path / "ranking.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with pytest.raises(ValueError, match="thinking = 'think': choose one of keep, drop"):
        rank(llama, THREE, work, thinking="think")


def test_a_response_that_the_student_cannot_read_is_named_before_a_model_is_loaded(llama, tmp_path, monkeypatch):
    """One of too many tokens, and one whose prompt leaves no room; what else is refused is in tests/bad_inputs."""
    monkeypatch.setattr(reading, "load_student", lambda *_, **__: pytest.fail("a model was loaded"))
    student = shutil.copytree(llama, tmp_path / "student")
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 100}))
    place = r"\.jsonl, line \d+, response 1: "
    for given, policy, message in (
        (student, Policy(), r"\d+ tokens with its prompt, but the student has 100 positions; --max-tokens 100 cuts"),
        (llama, Policy(max_tokens=9), "the prompt .* which leaves none of max_tokens=9 for a response"),
    ):
        with pytest.raises(ValueError, match=place + message):
            rank(given, THREE, tmp_path / "work", policy=policy)
    assert not (tmp_path / "work").exists()


# --- reading ------------------------------------------------------------------------------------------------


def made_up(values, apart):
    """A table of as many teachers, and neighbours told apart as stated."""
    table = pd.DataFrame(
        {
            "rank": range(1, len(values) + 1),
            "teacher": [f"t{i}" for i in range(len(values))],
            "grace": values,
            "g_norm": 1.0,
            "g_vendi": 2.0,
            "mean_length": 30.0,
            "student_loss": 1.5,
        }
    )
    table = table.assign(grace_low=table.grace * 0.9, grace_high=table.grace * 1.1)
    pairs = zip(table.teacher[:-1], table.teacher[1:], apart, strict=True)
    rows = [(a, b, 0.9, ok) for a, b, ok in pairs]
    return table, pd.DataFrame(rows, columns=["better", "worse", "p_better", "apart"])


@pytest.mark.parametrize(
    "apart, sentence",
    [
        ([], "One teacher: there is nothing to compare it with."),
        ([True], "The two teachers are told apart."),
        ([True, True], "All neighbours in the ranking are told apart."),
        (
            [False],
            "The data cannot tell apart 1 of 1 pair of neighbours: t0 and t1 (90% of resamples keep this order).",
        ),
        (
            [True, False, True],
            "The data cannot tell apart 1 of 3 pairs of neighbours: t1 and t2 (90% of resamples keep this order).",
        ),
        (
            [False, False, True],
            "The data cannot tell apart 2 of 3 pairs of neighbours: t0, t1 and t2 "
            "(90% to 90% of resamples keep two neighbours in this order).",
        ),
        (
            [False, True, False],
            "The data cannot tell apart 2 of 3 pairs of neighbours: t0 and t1 "
            "(90% of resamples keep this order); t2 and t3 (90% of resamples keep this order).",
        ),
        (
            [False, False],
            "The data cannot tell apart any of the 2 pairs of neighbours: 90% to 90% of resamples keep their order.",
        ),
    ],
)
def test_which_neighbours_are_told_apart(apart, sentence):
    assert report.neighbours_sentence(made_up(np.arange(1.0, len(apart) + 2), apart)[1]) == sentence


@pytest.mark.parametrize(
    "apart, end",
    [
        ([True, True, True], "and is told apart from every other teacher."),
        ([False, True, False], "but is not told apart from t1 and t3."),
        ([False, True, True], "but is not told apart from t1."),
        ([False, False, False], "but is not told apart from any other teacher."),
        ([False], "but is not told apart from t1."),
        ([False, False, False, True], "but is not told apart from those ranked 2 to 4."),
        ([False, False, True, False], "but is not told apart from t1, t2 and t4."),
    ],
)
def test_who_else_may_be_the_best(apart, end):
    first = pd.DataFrame({"better": "t0", "worse": [f"t{i}" for i in range(1, len(apart) + 1)], "apart": apart})
    assert report.first_sentence(first) == f"t0 comes first, {end}"
    assert report.first_sentence(first[:0]) == ""


def test_the_table_lines_up():
    text = report.table_text(made_up([0.5, 12.25], [True])[0].assign(teacher=["short", "a-much-longer-name"]))
    head, first, second, legend = text.splitlines()
    assert first.split() == ["1", "short", "0.5", "0.45", "to", "0.55", "1", "2.000", "30.0", "1.500"]
    assert head.index("teacher") == first.index("short") == second.index("a-much")
    assert len(head) == len(first) == len(second)
    assert "GRACE lower, G-Norm lower, G-Vendi higher, Student loss lower" in legend


def test_the_picture_shows_every_teacher_and_the_ties(tmp_path):
    table, neighbours = made_up([1.0, 1.2, 3.0, 9.0], [False, True, True])
    fig = report.ranking_figure(table, neighbours, "a note")
    ax = fig.axes[0]
    ties = [line for line in ax.lines if (line.get_gid() or "").startswith("tie-")]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["t0  1", "t1  2", "t2  3", "t3  4"]
    assert [line.get_gid() for line in ties] == ["tie-0"] and ax.get_xscale() == "log" and ax.yaxis_inverted()
    points = next(line for line in ax.lines if line.get_marker() == "o")
    assert list(points.get_xdata()) == list(table.grace)
    linear = report.ranking_figure(*made_up([1.0, 1.2], [True]), "a note")
    assert linear.axes[0].get_xscale() == "linear"
    for ending in report.PICTURES:
        for name in ("one", "two"):
            alone = report.ranking_figure(*made_up([1.0], []), "a note")
            report.save_picture(alone, tmp_path / f"{name}.{ending}")
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_a_plan_says_seconds_and_memory_and_leaves_nothing(llama, tmp_path, monkeypatch):
    """By the command; and a teacher with twice the responses takes about twice as long."""
    result = runner.invoke(app, arguments(llama, THREE, tmp_path, "--plan"))
    assert result.exit_code == 0, result.output
    assert all(path.stem in result.output for path in THREE) and "Nothing was scored" in result.output
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    plan = rank(llama, THREE, tmp_path / "work", plan=True)
    assert (plan.table["responses"] == 16).all() and (plan.table["seconds"] > 0).all()
    assert plan.peak_bytes > 100 << 20  # this process has torch
    monkeypatch.setattr(
        files, "planned_seconds", lambda model, examples, *, d, **_: lambda lengths: float(sum(lengths))
    )
    plan, further = (rank(llama, THREE, tmp_path / "work", plan=True, scores=s).table for s in ((), ("ifd", "lalp")))
    assert (further.seconds > 2.5 * plan.seconds).all() and (further.tokens == plan.tokens).all()  # two passes more
    monkeypatch.undo()
    model, _ = checkpoints.load_student(llama)
    seconds = files.planned_seconds(model, [([1, 2], [3, 4, 5])] * 3, d=8)
    assert seconds([20] * 200) > 1.5 * seconds([20] * 100) > 0
