"""Truncated files, flipped bits, and clocks that jump: what is damaged is found by its checksum, named and made again;
what is not damaged is used again, whatever its times say.
"""

import os
import shutil

import pytest

from gracelib.jobs.store import META, compute, signed, verified
from stages_for_tests import job


def flip(path):
    """One bit in the middle; size and times as before."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize(
    "shift",
    [
        0,
        pytest.param(
            1,
            marks=pytest.mark.skipif("GRACELIB_KILLS" not in os.environ, reason="the other harms: `make test-faults`"),
        ),
        pytest.param(
            2,
            marks=pytest.mark.skipif("GRACELIB_KILLS" not in os.environ, reason="the other harms: `make test-faults`"),
        ),
    ],
)
def test_every_kind_of_file_is_checked_named_and_made_again(undisturbed, nano, shift):
    """All at once: one of each stage, a model that is still needed, a result table, a drawn one, two runs of notebooks."""

    def of(stage, name, which=0):
        return sorted(nano.runs.glob(f"{stage}/*/{name}"))[which]

    # The distilled models are needed again only where an accuracy is missing.
    student = next(p for p in sorted(nano.runs.glob("evaluate/*/meta.json")) if "taught by" in p.read_text())
    model = verified(student.read_text())["inputs"]["model"]
    shutil.rmtree(student.parent)
    weights = nano.runs / "distill" / model / "model.safetensors"
    accuracy = next(p for p in sorted(nano.runs.glob("evaluate/*/meta.json")) if "taught by" in p.read_text())
    harmed = [
        weights,
        of("responses", "responses.jsonl"),
        of("features", "features.safetensors"),
        of("features", META, 1),
        accuracy.with_name("accuracy.json"),
        nano.figures / "nano/results/students.csv",
        nano.figures / "nano/drawn.csv",
        of("notebook", "01_teachers.ipynb").with_name(META),
        of("notebook", "06_draws_too.ipynb"),
    ]
    # The last is what a power cut leaves of a file that was renamed before it was written.
    harms = [lambda path: path.write_bytes(path.read_bytes()[:-7]), flip, lambda path: path.write_bytes(b"")]
    for i, path in enumerate(harmed):
        harms[(i + shift) % 3](path)
    said = nano.finish()
    for path in harmed[:5]:
        assert f"{path.parent.name}/{path.name} is damaged" in said, path
    assert said.count("it is computed again") == 9
    for line in (
        "02_students.ipynb: to be run: damaged: nano/results/students.csv is damaged or was edited",
        "05_draws.ipynb: to be run: damaged: nano/drawn.csv is damaged or was edited",
        "01_teachers.ipynb: to be run: damaged: meta.json is damaged",
        "06_draws_too.ipynb: to be run: damaged: 06_draws_too.ipynb is damaged",
    ):
        assert line in said
    assert nano.tables() == undisturbed.tables() and nano.results() == undisturbed.results()
    assert nano.finish().count("up to date") == 4


def test_a_result_in_another_s_place_is_found(tmp_path):
    first, second = compute(job(tmp_path / "log"), tmp_path), job(tmp_path / "log", 8).folder(tmp_path)
    shutil.copytree(first, second)
    assert f"belongs to another result, {first.name}" in job(tmp_path / "log", 8).fault(tmp_path)


def test_damage_is_seen_by_the_process_that_looked_before_whatever_the_times_say(tmp_path):
    mine = job(tmp_path / "log")
    path = compute(mine, tmp_path) / "value.txt"
    assert mine.done(tmp_path)
    flip(path)
    assert path.read_bytes() != b"7" and not mine.done(tmp_path)


def test_a_signed_record_is_refused_once_it_changed():
    text = signed({"a": 1.5, "b": ["x"]})
    assert verified(text) == {"a": 1.5, "b": ["x"]}
    for wrong in (text.replace("1.5", "1.25"), text.replace("checksum", "checksun"), "[]", "{}", ""):
        with pytest.raises(ValueError):
            verified(wrong)
