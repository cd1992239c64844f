"""A process of a run dies: a worker, a kernel, the command that executes a notebook. One error says what was in
flight, nothing else is lost, nothing stays behind, and the same command goes on from there.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from nano_for_tests import kill_group, wait_until, write_notebook

pytestmark = pytest.mark.slow
DIES = "import os, signal\nfrom pathlib import Path\nif (Path(os.environ['GRACELIB_RUNS']) / 'fault').exists():\n    "


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_a_kernel_ends_with_a_command_that_is_killed_while_the_kernel_starts(undisturbed, fresh, delay):
    """In that second or two it does not watch its parent yet."""
    fresh.copy_of(undisturbed)
    (fresh.figures / "nano/drawn.csv").unlink()
    main = fresh.start()

    def kernels():
        return [line for line in fresh.processes().values() if "-m ipykernel_launcher" in line]

    wait_until(kernels, 120, fresh.stderr)
    time.sleep(delay)
    assert kernels()
    kill_group(main)  # waits for the kernel's end of the pipe
    fresh.wait_until_alone()
    assert "02_students.ipynb: up to date" in fresh.finish() and fresh.tables() == undisturbed.tables()


def test_a_notebook_whose_runner_is_killed_leaves_nothing_and_is_executed_again(undisturbed, fresh):
    """kill -9 of the command alone, while a cell runs: its kernel ends, its half-written copy goes at the next run."""
    fresh.copy_of(undisturbed)
    write_notebook(
        fresh.notebooks / "04_waits.ipynb",
        DIES + "import time\n    (Path(os.environ['GRACELIB_RUNS']) / 'waiting').touch()\n    time.sleep(600)",
    )
    (fresh.runs / "fault").touch()
    main = fresh.start()
    wait_until((fresh.runs / "waiting").exists, 120, fresh.stderr)
    kernels = [pid for pid, line in fresh.processes().items() if "ipykernel" in line]
    assert len(kernels) == 1
    os.kill(main.pid, signal.SIGKILL)
    main.communicate(timeout=60)
    wait_until(lambda: not Path(f"/proc/{kernels[0]}").exists() or kernels[0] not in fresh.processes(), 30)
    fresh.wait_until_alone()
    left = fresh.leftovers()
    assert len(left) == 1 and left[0].startswith("runs/notebook/")  # so that the next assertion is about something
    assert "04_waits.ipynb" not in fresh.executed()
    (fresh.runs / "fault").unlink()
    again = fresh.finish()
    assert "01_teachers.ipynb: up to date" in again and "02_students.ipynb: up to date" in again
    assert "04_waits.ipynb: to be run: never finished (a run was stopped in it)" in again
    assert fresh.leftovers() == [] and fresh.tables() == undisturbed.tables()
