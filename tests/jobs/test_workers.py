"""Jobs run in spawned worker processes, inputs first; an error names the job and keeps what was finished; a
worker that is killed, or whose parent is killed, leaves a state from which the same command simply goes on.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gracelib.jobs.running import run_jobs
from gracelib.jobs.store import Job
from gracelib.jobs.workers import worker_pool
from nano_for_tests import wait_until
from stages_for_tests import ADD, job, ran

TESTS = Path(__file__).resolve().parents[1]


def value(job, root) -> int:
    return int((job.folder(root) / "value.txt").read_text())


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie, where that can be seen, does not)."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def diamond(log, **top):
    a = job(log, 1)
    b, c = job(log, 20, {"a": a}), job(log, 30, {"a": a})
    return a, b, c, job(log, 400, {"b": b, "c": c}, **top)


def test_inputs_come_first_and_nothing_is_done_twice(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("GRACELIB_WORKERS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    log = tmp_path / "log"
    a, b, c, d = diamond(log)
    run_jobs([d], tmp_path / "runs", "adding")
    order = ran(log)
    assert order[0] == 1 and set(order[1:3]) == {20, 30} and order[3] == 400
    assert value(d, tmp_path / "runs") == 400 + 21 + 31
    captured = capfd.readouterr()
    assert captured.out == ""  # bars and a stage's prints go to stderr: a notebook's stdout is compared
    assert "adding" in captured.err and "a stage that prints" in captured.err
    assert "OMP_NUM_THREADS" not in os.environ  # set for the workers only

    monkeypatch.setattr("gracelib.jobs.workers.Local", None)  # a second run does not even start a pool
    run_jobs([d], tmp_path / "runs", "adding")
    assert ran(log) == order and capfd.readouterr().err == ""


def test_an_error_names_the_job_and_keeps_what_was_done(tmp_path, monkeypatch):
    monkeypatch.setenv("GRACELIB_WORKERS", "1")
    log, fault = tmp_path / "log", tmp_path / "fault"
    a, b, c, d = diamond(log, fault=str(fault))
    fault.write_text("raise")
    with pytest.raises(RuntimeError, match="^add job 400 failed: the arithmetic went on strike$") as caught:
        run_jobs([d], tmp_path / "runs", "adding")
    assert isinstance(caught.value.__cause__, ValueError)
    assert all(j.done(tmp_path / "runs") for j in (a, b, c)) and not d.done(tmp_path / "runs")
    fault.unlink()
    run_jobs([d], tmp_path / "runs", "adding")
    assert value(d, tmp_path / "runs") == 452 and sorted(ran(log)) == [1, 20, 30, 400, 400]


@pytest.mark.parametrize("way, kept", [("exit", True), ("kill", True), ("kill", False)])
def test_a_worker_that_dies_is_reported_and_the_run_resumes(tmp_path, way, kept):
    log, fault = tmp_path / "log", tmp_path / "fault"
    a = job(log, 1)
    b = job(log, 20, {"a": a}, fault=str(fault))
    fault.write_text(way)
    said = r"a worker process died \(out of memory\?\) while computing \['add job 20'\]; finished work is kept, run the same "
    with pytest.raises(RuntimeError, match=said + "command again"):
        with worker_pool(1 + kept, kept) as pool:
            run_jobs([b], tmp_path / "runs", "adding", pool)
    assert a.done(tmp_path / "runs") and not b.done(tmp_path / "runs")
    fault.unlink()
    run_jobs([b], tmp_path / "runs", "adding")
    assert value(b, tmp_path / "runs") == 21 and ran(log) == [1, 20, 20]


def test_in_turn_each_has_a_process_of_its_own_and_what_is_needed_no_more_is_dropped(tmp_path, capfd):
    """In the order asked for, whatever they cost; nothing is begun beside the one that fails, and nothing after it."""
    log, fault, root = tmp_path / "log", tmp_path / "fault", tmp_path / "runs"
    a = job(log, 1)
    b, c = job(log, 20, {"a": a}, fault=str(fault)), job(log, 30)
    with worker_pool(1, kept=False) as pool:
        fault.write_text("raise")
        with pytest.raises(RuntimeError, match="^add job 20 failed: the arithmetic went on strike$"):
            run_jobs([b, c], root, "in turn", pool, drop=[a])
        assert a.done(root) and ran(log) == [1, 20]
        fault.unlink()
        run_jobs([b, c], root, "in turn", pool, drop=[a])
    assert value(b, root) == 21 and not a.folder(root).exists() and ran(log) == [1, 20, 20, 30]
    assert len({line.split()[1] for line in log.read_text().splitlines()} - {str(os.getpid())}) == 4
    said = capfd.readouterr().err
    assert said.index("\nadd job 1\n") < said.index("\nadd job 20\n") < said.index("\nadd job 30\n")


def test_workers_die_with_a_killed_parent_and_the_run_resumes(tmp_path):
    """kill -9 on the main process: its workers end too, instead of holding locks and memory for ever. The script has no
    main guard: were it run again in the workers, each would start workers in turn."""
    log, fault, root = tmp_path / "log", tmp_path / "fault", tmp_path / "runs"
    fault.write_text("hang")
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom stages_for_tests import ADD\n"
        "from gracelib.jobs.store import Job\nfrom gracelib.jobs.running import run_jobs\n"
        "log, fault, root = sys.argv[1:]\n"
        "jobs = [Job(ADD, {'value': v, 'log': log, 'fault': fault}, {}) for v in (1, 2)]\n"
        "run_jobs(jobs, Path(root), 'adding')\n"
    )
    path = os.pathsep.join([str(TESTS / "helpers"), str(TESTS.parent)])
    main = subprocess.Popen(
        [sys.executable, str(script), str(log), str(fault), str(root)],
        env={**os.environ, "PYTHONPATH": path, "GRACELIB_WORKERS": "2"},
    )
    try:
        wait_until(lambda: len(ran(log)) == 2)
    finally:
        main.send_signal(signal.SIGKILL)
        main.wait()
    workers = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert len(set(workers)) == 2 and main.pid not in workers
    wait_until(lambda: not any(map(alive, workers)), seconds=20)

    fault.unlink()
    jobs = [Job(ADD, {"value": v, "log": str(log), "fault": str(fault)}, {}) for v in (1, 2)]
    assert not any(j.done(root) for j in jobs)
    run_jobs(jobs, root, "adding")  # the dead workers' locks do not stop it
    assert [value(j, root) for j in jobs] == [1, 2] and sorted(ran(log)) == [1, 1, 2, 2]


def test_two_runs_share_their_workers_also_after_a_failure(tmp_path):
    """What loads torch once: the next run of a pool finds its processes, which end with the pool; and of a run that failed at
    most what was handed out already is done."""
    log, root, fault = tmp_path / "log", tmp_path / "runs", tmp_path / "fault"
    fault.write_text("raise")
    last = job(log, 77)
    with worker_pool(1) as pool:
        with pytest.raises(RuntimeError, match="add job 900 failed"):
            run_jobs([job(log, 900, fault=str(fault)), *(job(log, i) for i in range(2, 8))], root, "failing", pool)
        (pid,) = pool._processes
        run_jobs([last], root, "going on", pool)
        assert value(last, root) == 77 and list(pool._processes) == [pid] and alive(pid)
    assert ran(log)[0] == 900 and ran(log)[-1] == 77 and len(ran(log)) <= 3
    wait_until(lambda: not alive(pid))


def test_what_is_started_has_one_thread_and_what_was_set_comes_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    show = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"]
    with worker_pool(1):
        assert subprocess.run(show, capture_output=True, text=True, check=True).stdout.split() == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ
