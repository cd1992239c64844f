"""A disk that is full, or that cannot be written to: one error that names the folder, what is free and the remedy,
before work is spent where that can be known; nothing half-written is taken for finished, and with room the run goes on.
"""

import errno
import os
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest
from filelock import FileLock

from gracelib.jobs.disk import DiskError, explained, in_words, sweep
from gracelib.jobs.running import run_jobs
from gracelib.jobs.store import META, Job, compute, write_atomically
from stages_for_tests import ADD

slow = pytest.mark.slow
AGAIN = "then run the same command again: what was finished is kept"
FULL = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
LEFT = ("features", "distill", "evaluate")  # stages left to do


@pytest.fixture
def small_disk(tmp_path):
    """8 MiB that can be filled, or remounted read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine cannot mount a tmpfs ({done.stderr.strip() or done.returncode})")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, free: int) -> Path:
    """Fill a disk up to `free` bytes; the file to remove to make room again."""
    filler = disk / "filler"
    stat = os.statvfs(disk)
    filler.write_bytes(bytes(stat.f_bavail * stat.f_frsize - free))
    return filler


@slow
def test_a_disk_that_fills_up_is_one_error_and_with_room_the_run_goes_on(undisturbed, fresh, small_disk):
    fresh.runs = small_disk / "runs"
    fresh.copy_of(undisturbed).unfinish(*LEFT)
    there = fresh.results()
    filler = fill(small_disk, 96 << 10)  # the students need more
    said = fresh.refused()
    assert f"{fresh.runs}: the disk is full (" in said and " free); make space there, or set GRACELIB_RUNS" in said
    assert AGAIN in said and any(f"error: {stage} " in said for stage in LEFT)
    kept, expected = fresh.results(), undisturbed.results()
    assert set(there) <= set(kept) and all(files == expected[name] for name, files in kept.items())
    filler.unlink()
    fresh.finish()
    assert fresh.tables() == undisturbed.tables() and fresh.results() == expected and fresh.leftovers() == []


@slow
def test_a_disk_that_is_full_or_read_only_is_found_before_anything_is_computed(undisturbed, fresh, small_disk):
    fresh.runs = small_disk / "runs"
    fresh.copy_of(undisturbed).unfinish(*LEFT)
    there = fresh.results()
    filler = fill(small_disk, 4096)
    said = fresh.refused()
    assert f"{fresh.runs}: the disk is full (4.0 KiB free); make space" in said
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    said = fresh.refused()
    assert f"{fresh.runs}: the file system is read-only (" in said
    assert "free); mount it writable, or set GRACELIB_RUNS" in said and AGAIN in said
    assert "models and gradients" not in fresh.stderr() and fresh.results() == there


@slow
def test_a_file_larger_than_the_limit_of_the_process_is_one_error(undisturbed, fresh):
    """The form of a full disk that every machine can show: a student's weights do not fit, its tokenizer does."""
    fresh.copy_of(undisturbed).unfinish("distill", "evaluate")
    said = fresh.refused(file_limit=str(30 << 10))
    assert f"{fresh.runs}: a file would be larger than this process may write (" in said
    assert "ulimit -f unlimited" in said and AGAIN in said and "error: distill " in said
    expected = undisturbed.results()
    assert all(files == expected[name] for name, files in fresh.results().items())
    fresh.finish()
    assert fresh.tables() == undisturbed.tables() and fresh.results() == expected and fresh.leftovers() == []


@pytest.mark.parametrize("variable", ["GRACELIB_RUNS", "GRACELIB_FIGURES"])
def test_a_file_in_the_place_of_a_folder_is_found_at_once(fresh, variable):
    wrong = fresh.where / "file"
    wrong.write_text("not a folder")
    said = fresh.refused(**{variable: str(wrong)})
    assert f"{variable}='{wrong}' is a file; name a folder, or unset it" in said
    assert "models and gradients" not in fresh.stderr()


def test_score_looks_at_its_folder_before_it_loads_a_student(fresh):
    wrong = fresh.where / "file"
    wrong.write_text("not a folder")
    (fresh.where / "a.jsonl").write_text('{"id": 1, "question": "1 + 1", "responses": ["2", "3"]}\n')
    said = fresh.refused("score", "a.jsonl", "--student", "no-student-here", "--work", str(wrong / "work"))
    assert "a file stands in place of a folder" in said and "no-student-here" not in said


# --- the words ---


@pytest.mark.parametrize(
    "error, cause, what",
    [
        (OSError(errno.ENOSPC, "No space left on device"), None, "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), None, "the disk quota is used up"),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            None,
            "the disk is full",
        ),
        (RuntimeError("could not save"), OSError(errno.EROFS, "Read-only"), "the file system is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "HERE/x"), None, "this user may not write there"),
    ],
    ids=["full", "quota", "rust", "cause", "permission"],
)
def test_every_library_s_words_become_the_same_ones(tmp_path, error, cause, what):
    if getattr(error, "filename", None):
        error.filename = error.filename.replace("HERE", str(tmp_path))
    with pytest.raises(DiskError) as caught, explained(tmp_path / "deeper"), explained(tmp_path):
        raise error from cause
    assert str(caught.value).startswith(f"{tmp_path}: {what} (") and AGAIN in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("not a number"),
        OSError("disk full, says somebody"),
        FileNotFoundError(errno.ENOENT, "No", "x"),
        PermissionError(errno.EACCES, "Permission denied", "/root/somebody's input"),
    ],
)
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, explained(tmp_path):
        raise error
    assert caught.value is error and in_words(error) == str(error)


def test_errors_that_nobody_explained_are_explained_at_the_command_line(tmp_path):
    assert in_words(OSError(errno.ENOSPC, "No space")).startswith("the disk is full; make space there")
    named = OSError(errno.EROFS, "Read-only", str(tmp_path / "x"))
    assert in_words(named).startswith(f"{tmp_path}: the file system is read-only (")


def test_the_command_line_explains_what_nobody_did(monkeypatch):
    from typer.testing import CliRunner

    from gracelib.cli.app import app
    from gracelib.experiment import run

    monkeypatch.setattr(run, "figures", FULL)
    result = CliRunner().invoke(app, ["figures", "--scale", "nano"])
    assert result.exit_code == 2 and result.stderr.startswith("error: the disk is full; make space there")
    assert result.stderr.count("\n") == 1


def test_a_file_is_replaced_whole_or_not_at_all_and_the_disk_explained(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "table.csv"
    write_atomically(path, lambda part: part.write_text("old"))

    def fills_the_disk(part):
        part.write_text("ne")
        assert path.read_text() == "old" and part.suffix == ".csv"
        FULL()

    with pytest.raises(DiskError, match=f"^{path.parent}: the disk is full"):
        write_atomically(path, fills_the_disk)
    with monkeypatch.context() as patch, pytest.raises(DiskError, match=f"^{path.parent}: the disk is full"):
        patch.setattr(os, "fsync", FULL)  # where a disk with delayed allocation says it
        write_atomically(path, lambda part: part.write_text("new"))
    assert path.read_text() == "old" and os.listdir(path.parent) == ["table.csv"]
    write_atomically(path, lambda part: part.write_text("new"))
    assert path.read_text() == "new"


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """After a power cut a renamed file may otherwise be empty."""
    events = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor):
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def seen_replace(old, new):
        events.append(f"-> {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_atomically(tmp_path / "table.csv", lambda part: part.write_text("1"))
    assert len(events) == 2 and events[0].startswith(".table.") and events[1] == "-> table.csv"
    events.clear()
    mine = Job(ADD, {"value": 1, "log": str(tmp_path / "log")}, {})
    compute(mine, tmp_path)
    assert set(events[:3]) == {"value.txt", META, f"{mine.key}.part"} and events[3:] == [f"-> {mine.key}"]


# --- what dead runs left ---


def test_files_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path):
    dead, zombie = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    dead.wait()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it ended, but nobody took its exit status
    (tmp_path / "deep").mkdir()
    names = {
        "dead": f".table.{dead.pid}-0123abcd.part.csv",
        "zombie": f".table.{zombie.pid}-0123abcd.part.csv",
        "mine": f".table.{os.getpid()}-0123abcd.part.csv",
        "other": ".part.csv",
        "result": "table.part.csv",
    }
    for name in names.values():
        (tmp_path / "deep" / name).touch()
    sweep(tmp_path)
    zombie.wait()
    assert sorted(os.listdir(tmp_path / "deep")) == sorted([names["mine"], names["other"], names["result"]])


def test_folders_that_nobody_holds_are_removed(tmp_path):
    dead, held = "0a" * 10, "1b" * 10
    for name in (f"{dead}.part", f"{held}.part", "finished", "a_film.part"):  # the last somebody else's
        (tmp_path / "stage" / name).mkdir(parents=True)
    with FileLock(tmp_path / f"stage/{held}.lock"):
        run_jobs([Job(ADD, {"value": 1, "log": str(tmp_path / "log")}, {})], tmp_path, "adding")
    there = {p.name for p in (tmp_path / "stage").iterdir()} - {f"{dead}.lock", f"{held}.lock"}
    assert there == {f"{held}.part", "finished", "a_film.part"}
