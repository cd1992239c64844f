"""Jobs on other machines: the same bytes as here, whatever dies; what cannot work is refused by name before any work.

The machines are two of Ray's on this one, with one CPU and two GPUs each that are nothing but numbers, and submitit's
executors that need no Slurm. What takes time is starting Ray's processes, a second or two each: so few machines are
started, few cells run at once, and the second machine is the one that dies.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gracelib.cli import elsewhere
from gracelib.cli.app import app, one_line_errors
from gracelib.cli.elsewhere import anywhere
from gracelib.jobs import cluster
from gracelib.jobs.disk import ended
from gracelib.jobs.running import executor_of_run, run_jobs
from gracelib.jobs.store import Job, Needs
from gracelib.jobs.workers import ADDRESS, EXECUTOR
from nano_for_tests import wait_until
from stages_for_tests import HOLD, begun, greet, job, ran

pytestmark = pytest.mark.cluster
HELPERS, ROOT = Path(__file__).resolve().parents[1] / "helpers", Path(__file__).resolve().parents[2]
PYTHONPATH = os.pathsep.join([str(HELPERS), str(ROOT)])
#: Ray's processes yield to all others, and report their use, unless told otherwise; a dead machine is noticed sooner.
RAY = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_period_ms": "500",
}
MACHINE = {"num_cpus": 1, "num_gpus": 2, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


def holding(log, value, gpus=1, memory_gb=0, **params) -> Job:
    params = {"value": value, "log": str(log), "sleep": 0} | params
    return Job(HOLD, params, {}, f"cell {value}", needs=Needs(0.5, gpus, memory_gb))


@pytest.fixture(scope="module")
def machines():
    """Two machines, one of which may be taken away; Ray's own `Cluster`."""
    pytest.importorskip("ray", reason="needs the extra gracelib[ray]")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (RAY | {"PYTHONPATH": PYTHONPATH}).items():
            patch.setenv(name, value)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # a stage that ran in this process may have left it
        found = Cluster(initialize_head=True, head_node_args=MACHINE)
        yield found
        import ray

        ray.shutdown()
        found.shutdown()


@pytest.fixture
def on_ray(machines, monkeypatch):
    if not machines.worker_nodes:
        machines.add_node(**MACHINE)
    monkeypatch.setenv(EXECUTOR, "ray")
    monkeypatch.setenv(ADDRESS, machines.address)
    return machines


def test_two_cells_never_share_a_gpu_and_all_gpus_are_at_work(on_ray, tmp_path, capsys):
    """The first four wait for each other."""
    log = tmp_path / "log"
    run_jobs([holding(log, i, at_once=4, sleep=0.1) for i in range(12)], tmp_path / "runs", "holding")
    held = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(value) for value, *_ in held) == [*range(12)]
    by_gpu = {}
    for _, machine, gpu, begin, end in held:
        by_gpu.setdefault((machine, gpu), []).append((float(begin), float(end)))
    assert len(by_gpu) == 4 and {gpu for _, gpu in by_gpu} == {"0", "1"}
    for spans in map(sorted, by_gpu.values()):
        assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))
    assert "12/12 jobs, 0 running, 0 waiting, 0 failed" in capsys.readouterr().err


def test_several_gpus_are_those_of_one_machine_and_what_fits_nowhere_is_refused(on_ray, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(
        ValueError, match=r"^hold cell 2 needs 0.5 CPUs, 3 GPUs and 0 GiB .* the largest, .*, has 1, 2 and"
    ):
        run_jobs([holding(log, 1), holding(log, 2, gpus=3)], tmp_path, "refused")
    with pytest.raises(ValueError, match="hold cell 3 needs 0.5 CPUs, 0 GPUs and 4000 GiB"):
        run_jobs([holding(log, 3, gpus=0, memory_gb=4000)], tmp_path, "refused")
    assert not log.exists()
    run_jobs([holding(log, 4, gpus=2), holding(log, 5, gpus=0)], tmp_path, "wide")
    assert {line.split()[0]: line.split()[2] for line in log.read_text().splitlines()} == {"4": "0,1", "5": "-"}


def test_a_cell_that_fails_is_tried_again_and_reported_when_the_others_are_done(on_ray, tmp_path):
    log, fault, root = tmp_path / "log", tmp_path / "fault", tmp_path / "runs"
    fault.write_text("raise")
    bad = job(log, 7, fault=str(fault))
    good, after = job(log, 8), job(log, 9, {"x": bad})
    with pytest.raises(RuntimeError) as caught:
        run_jobs([after, good], root, "adding")
    said = str(caught.value)
    assert "1 of 3 jobs failed twice, 1 that stand on them were not begun" in said
    assert f"add job 7 failed: the arithmetic went on strike\n  on {cluster.socket.gethostname()}; the end of" in said
    assert f"{bad.log(root)}:" in said and said.endswith("    ValueError: the arithmetic went on strike")
    assert sorted(ran(log)) == [7, 7, 8] and good.done(root)
    assert "a stage that prints" in good.log(root).read_text()
    fault.write_text("kill")
    with pytest.raises(RuntimeError, match=r"add job 7 failed: its process died \(out of memory\?\)"):
        run_jobs([bad], root, "adding")
    fault.unlink()
    run_jobs([after], root, "adding")
    assert (after.folder(root) / "value.txt").read_text() == "16"


def test_a_nano_run_has_the_bytes_of_one_on_this_machine(on_ray, tmp_path, monkeypatch):
    from gracelib.experiment.plan import plans_of
    from gracelib.experiment.scales import NANO

    groups = ("teacher_accuracy", "base_accuracy", "features", "student_accuracy")
    jobs = [job for plan in plans_of(NANO) for name in groups for job in getattr(plan, name).values()]
    found = {}
    for where in ("ray", "local"):
        monkeypatch.setenv(EXECUTOR, where)
        run_jobs(jobs, tmp_path / where, "nano")
        files = [path for path in (tmp_path / where).glob("*/*/*") if path.name != "meta.json"]
        found[where] = {str(path.relative_to(tmp_path / where)): path.read_bytes() for path in files}
    assert len(found["ray"]) > 30 and found["ray"] == found["local"]


def test_a_driver_that_dies_and_two_at_once_do_nothing_twice(on_ray, tmp_path):
    """A cell takes a machine. A driver dies in its second two cells; another one and this process do the rest."""
    log, root, go, script = tmp_path / "log", tmp_path / "runs", tmp_path / "go", tmp_path / "driver.py"
    cells = [holding(log, i, 2, sleep=0.2, go=str(go if i > 1 else tmp_path)) for i in range(6)]
    script.write_text(
        "import json, os, sys, time, ray\nfrom pathlib import Path\nfrom gracelib.jobs.store import Job, Needs\n"
        "from gracelib.jobs.running import run_jobs\nfrom stages_for_tests import HOLD\n"
        "ray.init(os.environ['GRACELIB_ADDRESS'], log_to_driver=False)\n"
        "while not Path(sys.argv[3]).exists():\n    time.sleep(0.05)\n"
        "cells = [Job(HOLD, params, needs=Needs(1, 2)) for params in json.loads(sys.argv[1])]\n"
        "run_jobs(cells, Path(sys.argv[2]), 'holding')\n"
    )
    command = [sys.executable, str(script), json.dumps([cell.params for cell in cells]), str(root)]
    with open(tmp_path / "second", "w") as err:  # both are started at once: that takes seconds
        first = subprocess.Popen([*command, str(tmp_path)], stderr=subprocess.DEVNULL)
        second = subprocess.Popen([*command, str(go)], stderr=err)
    wait_until(lambda: len(begun(log)) == 4)
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_until(lambda: all(ended(int(pid)) for *_, pid, _ in begun(log)[2:]))
    finished = {cell.params["value"] for cell in cells if cell.done(root)}
    assert finished == {0, 1}
    go.touch()
    wait_until(lambda: len(begun(log)) > 4)
    run_jobs(cells, root, "holding")
    assert second.wait(timeout=120) == 0, (tmp_path / "second").read_text()
    values = [int(value) for value, *_ in begun(log)]
    assert set(values) == {*range(6)} and [values.count(i) for i in finished] == [1, 1]
    assert max(map(values.count, values)) == 2 and not any(stored == "True" for *_, stored in begun(log))


def test_a_machine_that_is_not_as_the_others_is_refused_by_name(on_ray, tmp_path):
    """One that sees another folder, and has another transformers."""
    odd = tmp_path / "odd"
    (odd / "transformers-9.9.dist-info").mkdir(parents=True)
    (odd / "transformers-9.9.dist-info" / "METADATA").write_text("Name: transformers\nVersion: 9.9\n")
    (odd / "sitecustomize.py").write_text(
        "import io, os\nreal = io.open\n\n\ndef opened(path, *how, **more):\n"
        "    if str(path).startswith(os.environ['HIDDEN']):\n        raise FileNotFoundError(2, 'not there', str(path))\n"
        "    return real(path, *how, **more)\n\n\nio.open = opened\n"
    )
    hidden = tmp_path / "hidden"
    path = os.pathsep.join([str(odd), PYTHONPATH])
    node = on_ray.add_node(**MACHINE, env_vars={"PYTHONPATH": path, "HIDDEN": str(hidden)})
    log = tmp_path / "log"
    try:
        with pytest.raises(
            ValueError, match=rf"machine .*{node.node_id[:8]}\): store is not at {hidden} there and .* here; mount"
        ):
            run_jobs([holding(log, 1)], hidden, "refused")
        with pytest.raises(
            ValueError, match=rf"{node.node_id[:8]}\): transformers is 9.9 there and .* here; install transf"
        ):
            run_jobs([holding(log, 1)], tmp_path / "runs", "refused")
    finally:
        on_ray.remove_node(node)
    assert not log.exists()


def test_a_machine_that_dies_loses_no_cell(on_ray, tmp_path):
    """The cells end when it is dead."""
    log, root, go = tmp_path / "log", tmp_path / "runs", tmp_path / "go"
    jobs = [holding(log, i, go=str(go)) for i in range(8)]
    (second,) = on_ray.worker_nodes
    dying = str(second.all_processes["raylet"][0].process.pid)
    with executor_of_run(1) as engine:
        engine.check(jobs, root)
        futures = [future for _, future in engine.start(jobs, root)]
        wait_until(lambda: dying in {machine for _, machine, _, _ in begun(log)})
        on_ray.remove_node(second, allow_graceful=False)
        wait_until(lambda: all(ended(int(pid)) for _, machine, pid, _ in begun(log) if machine == dying))
        go.touch()
        assert [future.result(timeout=120) for future in futures] == [None] * 8
    lost = {value for value, machine, _, _ in begun(log) if machine == dying}
    values = [value for value, *_ in begun(log)]
    assert lost and {value: values.count(value) for value in values} == {str(i): 1 + (str(i) in lost) for i in range(8)}
    assert all(job.done(root) for job in jobs) and not any(stored == "True" for *_, stored in begun(log))


@pytest.mark.parametrize("kind", ["local", "debug"])
def test_slurm_s_stand_ins_run_the_same_cells(kind, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="needs the extra gracelib[slurm]")
    for name, value in ((EXECUTOR, "slurm"), (ADDRESS, kind), ("PYTHONPATH", PYTHONPATH), ("GRACELIB_WORKERS", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path))
    log, fault = tmp_path / "log", tmp_path / "fault"
    a = job(log, 1)
    b, c = job(log, 20, {"a": a}), job(log, 30, {"a": a}, fault=str(fault))
    fault.write_text("raise")
    with pytest.raises(
        RuntimeError, match="1 of 3 jobs failed twice(.|\n)*job 30 failed: the arithmetic went on strike"
    ):
        run_jobs([b, c], tmp_path, "adding")
    fault.unlink()
    run_jobs([b, c], tmp_path, "adding")
    assert sorted(ran(log)) == [1, 20, 30, 30, 30]
    assert (c.folder(tmp_path) / "value.txt").read_text() == "31" and "a stage that prints" in c.log(
        tmp_path
    ).read_text()


def test_a_command_runs_elsewhere_in_the_same_folder(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="needs the extra gracelib[slurm]")
    for name, value in ((EXECUTOR, ""), (ADDRESS, ""), ("PYTHONPATH", PYTHONPATH), ("GRACELIB_RUNS", str(tmp_path))):
        monkeypatch.setenv(name, value)
    own = typer.Typer()
    own.command()(one_line_errors()(anywhere(greet)))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    there = ["--executor", "slurm", "--address", "debug", "--device", "cpu"]
    assert CliRunner().invoke(own, ["--word", "hello"]).stdout == "hello in here\n"
    found = CliRunner().invoke(own, ["--word", "hello", *there])
    assert found.exit_code == 0 and found.stdout == "hello in here\n", found.output
    failed = CliRunner().invoke(own, there)
    assert failed.exit_code == 2 and failed.stdout == ""
    assert "error: nobody is there to be greeted\n  on " in failed.stderr and ".log:" in failed.stderr


def test_score_is_a_task_for_each_teacher_and_one_more(tmp_path, monkeypatch):
    handed_out = []

    class Engine:
        def check_machines(self, root): ...
        def check_fits(self, needs, name):
            assert (needs, name) == (Needs(4, 1), "score")

        def calls(self, calls):
            handed_out.append([options["gradients_of"] for _, (_, options, _, out), *_ in calls if out.write_text("!")])
            return []

    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path))
    monkeypatch.setenv(EXECUTOR, "ray")
    (tmp_path / "commands").mkdir()
    monkeypatch.setattr(elsewhere, "executor_of_run", lambda at_once: nullcontext(Engine()))
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": "1 + 1", "response": "2"}) + "\n")
    found = CliRunner().invoke(app, ["score", "--student", "s", *(str(tmp_path / f"{name}.jsonl") for name in "ab")])
    assert found.exit_code == 0 and found.stdout == "!" and handed_out == [["a", "b"], [""]]


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_without_its_package_an_executor_says_how_to_install_it(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, {"ray": "ray", "slurm": "submitit"}[name], None)
    monkeypatch.setenv(EXECUTOR, name)
    with pytest.raises(ValueError, match=rf"--executor {name} needs a package .*: pip install 'gracelib\[{name}\]'"):
        run_jobs([job(tmp_path / "log")], tmp_path, "nothing")


def test_without_an_executor_nothing_of_it_is_imported(tmp_path):
    code = "import sys, gracelib.cli.app; print(sorted({'ray', 'submitit', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_an_engine_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv(EXECUTOR, "kubernetes")
    with pytest.raises(ValueError, match=r"--executor\) 'kubernetes': choose one of local, ray, slurm"):
        run_jobs([job(tmp_path / "log")], tmp_path, "nothing")
    if shutil.which("sbatch") is None:
        monkeypatch.setenv(EXECUTOR, "slurm")
        pytest.importorskip("submitit", reason="needs the extra gracelib[slurm]")
        with pytest.raises(ValueError, match="there is no `sbatch` here"):
            run_jobs([job(tmp_path / "log")], tmp_path, "nothing")
