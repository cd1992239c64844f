"""Two runs at once in the same folders: one waits and says so, or both finish; no file is torn, no work done twice."""

import json
import threading

import pytest
from filelock import FileLock

from gracelib.jobs.store import META, compute
from gracelib.text.responses import read_jsonl, write_jsonl
from nano_for_tests import wait_until
from stages_for_tests import job


@pytest.mark.slow
def test_the_same_command_twice_at_once(undisturbed, fresh):
    fresh.copy_of(undisturbed).unfinish("features")
    kept = {folder: (folder / META).read_bytes() for folder in fresh.finished()}
    first = fresh.start(name="first")
    wait_until(lambda: list((fresh.runs / "features").glob("*.part")), 120, lambda: fresh.stderr("first"))
    second = fresh.start(name="second")  # the first is at work, and has notebooks before it
    for main, name in ((first, "first"), (second, "second")):
        assert fresh.ended(main, name) == ""
    said = fresh.stderr("second")
    assert "another run of this scale is at work; waiting for it" in said and said.count("up to date") == 4
    assert fresh.stderr("first").count("running at scale") == 4
    assert fresh.tables() == undisturbed.tables() and fresh.results() == undisturbed.results()
    assert kept == {folder: (folder / META).read_bytes() for folder in kept} and fresh.leftovers() == []


@pytest.mark.slow
def test_other_commands_at_once(undisturbed, fresh):
    """`figures`, and twice `score` on the same student and files: the three share runs/."""
    fresh.copy_of(undisturbed).unfinish("features")
    student = next(p.parent for p in fresh.runs.glob(f"pretrain/*/{META}") if "base student first" in p.read_text())
    teachers = fresh.where / "teachers"
    teachers.mkdir()
    rows = read_jsonl(next(iter(sorted(fresh.runs.glob("responses/*/responses.jsonl")))))
    for name, step in (("one", 1), ("other", -1)):
        write_jsonl(
            teachers / f"{name}.jsonl",
            [{"id": row["id"], "question": row["question"], "responses": row["responses"][::step]} for row in rows],
        )
    score = ["score", str(teachers), "--student", str(student), *"--n 8 --m 2 --d 8 --folds 2 --plot".split(), ""]
    runs = {
        "said": fresh.start(name="said"),
        "said-a": fresh.start(*score, "--out", "a.csv", name="said-a"),
        "said-b": fresh.start(*score, "--out", "b.csv", name="said-b"),
    }
    out = {name: fresh.ended(main, name) for name, main in runs.items()}
    assert fresh.tables() == undisturbed.tables() and fresh.results() == undisturbed.results()
    assert fresh.leftovers() == [] and out["said-a"].replace("a.", "b.") == out["said-b"].replace("a.", "b.")
    table = (fresh.where / "a.csv").read_bytes()
    assert table == (fresh.where / "b.csv").read_bytes() and table.count(b"\n") > 2


def test_the_second_of_two_that_want_a_result_says_that_it_waits(tmp_path, capfd):
    mine = job(tmp_path / "log")
    mine.folder(tmp_path).parent.mkdir(parents=True)
    with FileLock(mine.folder(tmp_path).with_suffix(".lock")):
        thread = threading.Thread(target=compute, args=(mine, tmp_path))
        thread.start()
        said = ""

        def waits():
            nonlocal said
            said += capfd.readouterr().err
            return "add job 7: another run is at work on it; waiting for it" in said

        wait_until(waits, 20)
        assert not mine.folder(tmp_path).exists() and not mine.folder(tmp_path).with_suffix(".part").exists()
    thread.join(20)
    assert mine.done(tmp_path)


def test_a_damaged_result_is_not_removed_while_another_run_replaces_it(tmp_path):
    """Between finding the damage and computing it again, the other run may have put the good one there."""
    mine = job(tmp_path / "log")
    folder = compute(mine, tmp_path)
    good = (folder / "value.txt").read_bytes()
    (folder / "value.txt").write_text("8")
    answers = []
    with FileLock(folder.with_suffix(".lock")):
        thread = threading.Thread(target=lambda: answers.append(compute(mine, tmp_path)))
        thread.start()
        thread.join(1)
        assert thread.is_alive() and folder.exists()
        (folder / "value.txt").write_bytes(good)
    thread.join(20)
    assert answers == [folder] and json.loads((folder / META).read_text())["label"] == "job 7"
    assert (tmp_path / "log").read_text().count("7 ") == 1
