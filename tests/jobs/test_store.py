"""A result's key is a hash of everything that determines it and of nothing else; a folder that exists is
finished; a finished one is never made again. If any of these breaks, a figure shows stale numbers, or a run
of hours starts over.
"""

import importlib
import json
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from gracelib.jobs import store
from gracelib.jobs.store import META, VERSIONED, Job, compute, digest, file_hash, fingerprint, with_upstream
from stages_for_tests import ADD, OTHER, job, ran

# --- keys ---------------------------------------------------------------------------------------------------


def test_the_key_depends_on_stage_parameters_and_upstream(tmp_path):
    log = tmp_path / "log"
    base = job(log, inputs={"x": job(log, 5)})
    different = [
        job(log, 2, {"x": job(log, 5)}),
        job(log, inputs={"x": job(log, 6)}),
        job(log),
        job(log, inputs={"y": job(log, 5)}),
        job(log, inputs={"x": job(log, 5)}, stage=OTHER),
        job(log, inputs={"x": job(log, 5, stage=OTHER)}),
        job(log, inputs={"x": job(log, 5)}, more=None),
    ]
    assert len({base.key, *(other.key for other in different)}) == 8
    assert base.key == job(log, inputs={"x": job(log, 5)}).key


def test_the_key_ignores_dict_order_label_and_cost(tmp_path):
    a, b = job("log", 1), job("log", 2)
    first = Job(ADD, {"value": 1, "log": "x"}, {"a": a, "b": b}, label="one", cost=1.0)
    second = Job(ADD, {"log": "x", "value": 1}, {"b": b, "a": a}, label="two", cost=9.0)
    assert first.key == second.key
    assert digest({"a": [1, 2], "b": None}) == digest({"b": None, "a": [1, 2]}) != digest({"a": [2, 1], "b": None})


def test_values_that_json_cannot_hold_are_refused():
    """NaN in a parameter would be a key that equals nothing."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"lr": float("nan")})
    with pytest.raises(TypeError):
        digest({"path": Path("x")})


CODE = '''\
"""A module."""
# a comment

class Thing:
    """Docstring."""

    def f(self, x):
        """Another."""
        return x + 1  # so

    def empty(self):
        """Only a docstring."""
'''


def test_the_fingerprint_sees_code_and_not_its_clothes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def of(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        (tmp_path / "as_seen.py").write_text(source)
        fingerprint.cache_clear()
        return fingerprint(("as_seen",))

    original = of("m1", CODE)
    undressed = "class Thing:\n    def f(self, x):\n\n        return (x + 1)\n    def empty(self): pass\n"
    assert of("m2", CODE.replace("# a comment", "# another").replace("Docstring", "Words")) == original
    assert (
        of(
            "m3",
            undressed.replace("class", '"""m"""\nclass', 1)
            .replace("    def f", '    """d"""\n    def f')
            .replace("\n\n        return", '\n        """d"""\n        return'),
        )
        == original
    )
    assert of("m4", CODE.replace("x + 1", "x + 2")) != original
    assert of("m5", CODE.replace("return x + 1", 'return "x + 1"')) != original
    assert of("m6", CODE.replace("def f", "def g")) != original
    fingerprint.cache_clear()
    sys.modules.pop("as_seen", None)
    assert fingerprint(("gracelib.jobs.paths", "gracelib.world.stories")) == fingerprint(
        ("gracelib.world.stories", "gracelib.jobs.paths")
    )


# --- results ------------------------------------------------------------------------------------------------


def test_a_finished_job_is_never_run_again(tmp_path):
    log, fault = tmp_path / "log", tmp_path / "fault"
    folder = compute(job(log, 4, fault=str(fault)), tmp_path)
    assert (folder / "value.txt").read_text() == "4" and len(ran(log)) == 1
    fault.write_text("raise")  # from now on the stage fails when it is called
    again = job(log, 4, fault=str(fault))
    assert again.done(tmp_path) and compute(again, tmp_path) == folder and len(ran(log)) == 1
    with pytest.raises(ValueError, match="on strike"):
        compute(job(log, 5, fault=str(fault)), tmp_path)


def test_a_published_result_is_copied_unless_it_is_asked_for_from_scratch(tmp_path, monkeypatch):
    log, one = tmp_path / "log", job(tmp_path / "log")
    monkeypatch.setattr(store, "published", lambda name: tmp_path / name)
    made = compute(one, tmp_path / "jobs")
    monkeypatch.setenv(store.FROM_SCRATCH, "0")
    copied = compute(one, tmp_path / "runs")
    assert ran(log) == [7] and (copied / META).read_bytes() == (made / META).read_bytes()
    assert compute(job(log, 8), tmp_path / "runs") and ran(log) == [7, 8]  # another key
    monkeypatch.setenv(store.FROM_SCRATCH, "1")
    assert compute(one, tmp_path / "own") and ran(log) == [7, 8, 7]
    monkeypatch.delenv(store.FROM_SCRATCH)
    (made / "value.txt").write_text("70")
    again = compute(one, tmp_path / "third")  # what was published is damaged
    assert ran(log) == [7, 8, 7, 7] and (again / "value.txt").read_text() == "7"


def test_what_a_stage_goes_on_from_stays_until_its_result_is_safe(tmp_path, monkeypatch):
    one = job(tmp_path / "log")
    scratch = one.folder(tmp_path).with_suffix(".scratch")
    scratch.mkdir(parents=True)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "flush", Mock(side_effect=KeyboardInterrupt))  # a kill while the result is put on disk
        compute(one, tmp_path)
    assert scratch.is_dir()
    compute(one, tmp_path)
    assert not scratch.exists()


def test_inputs_reach_the_stage(tmp_path):
    log = tmp_path / "log"
    a, b = job(log, 1), job(log, 10)
    total = job(log, 100, {"a": a, "b": b})
    with pytest.raises(RuntimeError, match="add job 100: its input 'a' is not there; run that stage first"):
        compute(total, tmp_path)
    assert len(ran(log)) == 0
    for each in with_upstream([total]):
        compute(each, tmp_path)
    assert (total.folder(tmp_path) / "value.txt").read_text() == "111"


@pytest.mark.parametrize("leftover", ["part", "folder without meta"])
def test_a_half_written_result_is_not_taken_as_finished(tmp_path, leftover):
    log = tmp_path / "log"
    mine = job(log, 4)
    folder = mine.folder(tmp_path)
    debris = folder.with_suffix(".part") if leftover == "part" else folder
    debris.mkdir(parents=True)
    (debris / "value.txt").write_text("hal")
    (debris / "old.txt").write_text("from another time")
    assert not mine.done(tmp_path)
    compute(mine, tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == [META, "value.txt"]
    assert (folder / "value.txt").read_text() == "4" and not folder.with_suffix(".part").exists()


def test_the_meta_file_says_what_made_the_result(tmp_path):
    upstream = job(tmp_path / "log", 1)
    mine = job(tmp_path / "log", 2, {"x": upstream})
    for each in (upstream, mine):
        folder = compute(each, tmp_path)
    meta = json.loads((folder / META).read_text())
    assert (meta["stage"], meta["label"], meta["key"]) == ("add", "job 2", mine.key)
    assert meta["params"] == mine.params and meta["inputs"] == {"x": upstream.key}
    assert meta["files"] == {"value.txt": file_hash(folder / "value.txt")}
    assert set(VERSIONED) | {"python", "machine"} == set(meta["versions"]) and meta["versions"]["torch"]
    assert meta["code"] == ADD.code and meta["seconds"] >= 0
    assert str(tmp_path) not in json.dumps({k: v for k, v in meta.items() if k != "params"})  # no paths of a machine


def test_upstream_comes_first_and_each_job_once(tmp_path):
    log = tmp_path / "log"
    bottom = job(log, 1)
    left, right = job(log, 2, {"x": bottom}), job(log, 3, {"x": job(log, 1)})  # two objects, one key
    top = job(log, 4, {"l": left, "r": right})
    assert [j.params["value"] for j in with_upstream([top, left])] == [1, 2, 3, 4]


def test_what_a_finished_job_was_made_from_is_needed_no_more(tmp_path):
    log = tmp_path / "log"
    bottom, other = job(log, 1), job(log, 7)
    top = job(log, 2, {"x": bottom})
    for each in (bottom, top):
        compute(each, tmp_path)
    for file in bottom.folder(tmp_path).iterdir():
        file.unlink()
    assert not bottom.done(tmp_path)
    assert with_upstream([top, other], unfinished_in=tmp_path) == [other]
    assert with_upstream([job(log, 3, {"x": bottom})], unfinished_in=tmp_path)[0] is bottom


# --- single files -------------------------------------------------------------------------------------------


def test_the_key_depends_on_the_packages_that_compute(tmp_path, monkeypatch):
    before = job(tmp_path / "log").key
    found = store.versions()
    monkeypatch.setattr(store, "versions", lambda: found | {"torch": "9.9.9"})
    assert job(tmp_path / "log").key != before
    monkeypatch.setattr(store, "versions", lambda: found | {"seaborn": "9.9.9"})  # draws, does not compute
    assert job(tmp_path / "log").key == before


def test_the_key_depends_on_what_a_stage_uses_in_its_own_module(tmp_path, monkeypatch):
    """Its function, the helpers and constants: loading a model in another precision is a helper's business, and changes
    every result. What else lives in the module does not count."""
    monkeypatch.syspath_prepend(tmp_path)

    def code(name, helper=1, constant=7, own="SHARE * helper()", beside=0):
        (tmp_path / f"{name}.py").write_text(
            f"SHARE = {constant}\n\n\ndef helper():\n    return {helper}\n\n\n"
            f"def stage(out, params, inputs):\n    return {own}\n\n\ndef other():\n    return {beside}\n"
        )
        return store.Stage("s", importlib.import_module(name).stage).code

    usual = code("usual")
    assert usual == code("again") == code("with_another_beside", beside=1)
    changed = [code("with_two", 2), code("with_another_constant", constant=8), code("of_its_own", own="helper()")]
    assert usual not in changed and len(set(changed)) == 3
