"""The pipeline at `nano` as the command line runs it, in a folder of its own, for tests that disturb it.

Run as a script this is `gracelib figures --scale nano`, with the notebooks of a folder: either all of the project, or
(the usual) four short ones that make every result table of the pipeline and draw from it. Every process that comes
of it carries a mark in its environment, kernels and workers included, so that a test can tell whether any is left.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = "GRACELIB_TEST_MARK"
DIAL = 'scale = "mini"\nrecompute = False'
#: name -> (tags of the parameters cell, code cells)
NOTEBOOKS = {
    "01_teachers": (
        (),
        [
            "from gracelib.experiment import tables",
            "for name in ('teachers', 'base_students', 'examples'):\n    tables.table(scale, name, recompute)",
        ],
    ),
    "02_students": (
        (),
        [
            "from gracelib.experiment import tables",
            "for name in ('features', 'scores', 'students'):\n    print(len(tables.table(scale, name, recompute)))",
        ],
    ),
    "05_draws": (
        ("only-reads",),
        [
            "from gracelib.experiment import tables; from gracelib.jobs import paths",
            "table = tables.cells(scale)",
            # As every figure's does, the file beside it says whose it is: the two may run at once.
            """_ = (paths.figures(scale) / 'drawn.json').write_text('{"notebook": "05_draws"}')""",
            "table.to_csv(paths.figures(scale) / 'drawn.csv', index=False)",
        ],
    ),
    "06_draws_too": (
        ("only-reads",),
        [
            "from gracelib.experiment import tables; from gracelib.jobs import paths",
            "table = tables.cells(scale, 'long')",
            # As every figure's does, the file beside it says whose it is: the two may run at once.
            """_ = (paths.figures(scale) / 'drawn_too.json').write_text('{"notebook": "06_draws_too"}')""",
            "table.to_csv(paths.figures(scale) / 'drawn_too.csv', index=False)",
        ],
    ),
}


def write_notebook(path: Path, *cells: str, tags: tuple[str, ...] = (), dial: str | None = DIAL, **kernel: str) -> None:
    """A notebook of a parameters cell (`dial`, if any) and code cells."""
    from nbformat import v4, write

    head = [] if dial is None else [v4.new_code_cell(dial, metadata={"tags": ["parameters", *tags]})]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"} | kernel
    write(v4.new_notebook(cells=[*head, *map(v4.new_code_cell, cells)], metadata={"kernelspec": kernel}), path)


class Nano:
    """A folder with runs/, figures/ and notebooks/ of its own; `full` takes all notebooks of the project."""

    def __init__(self, where: Path, scale: str = "nano", full: bool = False):
        self.where, self.scale = Path(where), scale
        self.runs, self.figures = self.where / "runs", self.where / "figures"
        self.notebooks = self.where / "notebooks"
        self.mark = uuid.uuid4().hex
        (self.where / "tmp").mkdir(parents=True, exist_ok=True)
        if full:
            self.notebooks = ROOT / "notebooks"
        elif not self.notebooks.exists():
            self.notebooks.mkdir()
            for name, (tags, cells) in NOTEBOOKS.items():
                write_notebook(self.notebooks / f"{name}.ipynb", *cells, tags=tags)

    def copy_of(self, other: "Nano") -> "Nano":
        for mine, theirs in ((self.runs, other.runs), (self.figures, other.figures)):
            shutil.copytree(theirs, mine, dirs_exist_ok=True)
        return self

    def here(self, patch) -> Path:
        """Make its folders those of this process (until `patch` is undone), which then works alone; their place."""
        for name, value in (("RUNS", self.runs), ("FIGURES", self.figures), ("WORKERS", 1)):
            patch.setenv(f"GRACELIB_{name}", str(value))
        return self.where

    def unfinish(self, *stages: str) -> "Nano":
        """Take away the results of these stages and everything that notebooks made: seconds of work are left to do."""
        for folder in (*(self.runs / stage for stage in (*stages, "notebook")), self.figures / self.scale):
            shutil.rmtree(folder, ignore_errors=True)
        return self

    def start(self, *command: str, name: str = "stderr", **environment: str) -> subprocess.Popen:
        """The command in a process group of its own; stderr goes to the file `name` of the folder, anew each time.

        `file_limit` in the environment: the largest file (bytes) that its processes may write.
        """
        limit = environment.pop("file_limit", None)
        before = limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit))))
        env = {
            **os.environ,
            "GRACELIB_RUNS": str(self.runs),
            "GRACELIB_FIGURES": str(self.figures),
            "GRACELIB_WORKERS": "2",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.where / "tmp"),
            MARK: self.mark,
            "PYTHONPATH": os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), str(ROOT)])),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            **environment,
        }
        command = command or ("figures", "--scale", self.scale)
        with open(self.where / name, "wb") as err:
            return subprocess.Popen(
                [sys.executable, __file__, str(self.notebooks), *command],
                cwd=self.where,
                env=env,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                start_new_session=True,
                preexec_fn=before,
            )

    def stderr(self, name: str = "stderr") -> str:
        return (self.where / name).read_text(errors="replace")

    def ended(self, main: subprocess.Popen, name: str = "stderr") -> str:
        """What a started command says on stdout until its good end."""
        out, _ = main.communicate(timeout=900)
        assert main.returncode == 0, self.stderr(name)[-3000:]
        return out

    def finish(self, *command: str, **environment: str) -> str:
        """Run to the end; what it said on stderr."""
        assert self.ended(self.start(*command, **environment)) == ""  # stdout is for results
        return self.stderr()

    def refused(self, *command: str, **environment: str) -> str:
        """Run to an end that a user can mend: exit status 2, and one error, which is returned."""
        main = self.start(*command, **environment)
        main.communicate(timeout=900)
        said = self.stderr()
        assert main.returncode == 2, said[-3000:]
        assert "Traceback" not in said, said[-3000:]
        assert said.count("error: ") == 1, said[-3000:]
        return said[said.index("error: ") :]

    def processes(self) -> dict[int, str]:
        """Those that carry the mark and live: process id -> command line."""
        found = {}
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (proc / "environ").read_bytes().split(b"\0"):
                    if (proc / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                        found[int(proc.name)] = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, IndexError):
                pass  # it ended meanwhile
        return found

    def wait_until_alone(self, seconds: float = 30) -> None:
        """Every process of a run has ended. On a failure they are killed, so that no other test meets them."""
        try:
            wait_until(lambda: not self.processes(), seconds, lambda: f"left behind: {self.processes()}")
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)

    def finished(self) -> list[Path]:
        """Finished folders of runs/ but those of notebooks, whose copies hold times."""
        metas = [meta.parent for meta in self.runs.glob("*/*/meta.json") if meta.parent.suffix != ".part"]
        return [folder for folder in metas if folder.parent.name != "notebook"]

    def results(self) -> dict[str, dict[str, bytes]]:
        """The files of the finished folders, but for meta.json, which says how long it took."""
        return {
            f"{folder.parent.name}/{folder.name}": {
                p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "meta.json"
            }
            for folder in self.finished()
        }

    def executed(self) -> list[str]:
        """The notebooks with a finished run."""
        return sorted(path.name for path in self.runs.glob("notebook/*/*.ipynb") if path.parent.suffix != ".part")

    def tables(self) -> dict[str, bytes]:
        root = self.figures / self.scale
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    def leftovers(self) -> list[str]:
        """What a dead run left half-written."""
        return sorted(
            str(p.relative_to(self.where))
            for folder in (self.runs, self.figures)
            for p in folder.rglob("*")
            if ".part" in p.name
        )


def wait_until(condition, seconds: float = 60.0, why=lambda: "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain. {why()}"
        time.sleep(0.02)


def kill_group(main: subprocess.Popen) -> None:
    """kill -9 of all that a terminal would kill: the command and its workers (kernels have groups of their own)."""
    os.killpg(main.pid, signal.SIGKILL)
    main.communicate(timeout=60)  # to the end of its stdout: kernels, too, have closed it


def _models(config) -> None:
    """What the short notebooks need, in one go, as `run._models` does for all."""
    from gracelib.experiment.plan import Plan
    from gracelib.jobs import paths
    from gracelib.jobs.running import run_jobs

    plans = [Plan(config, task.name) for task in config.tasks]
    run_jobs(
        [
            job
            for plan in plans
            for group in (plan.teacher_accuracy, plan.base_accuracy, plan.features, plan.student_accuracy)
            for job in group.values()
        ],
        paths.runs(),
        "models and gradients",
    )


if __name__ == "__main__":
    from gracelib.cli.app import app
    from gracelib.experiment import run
    from gracelib.jobs import paths

    folder = Path(sys.argv.pop(1))
    if folder != paths.NOTEBOOKS:
        paths.NOTEBOOKS, run._models = folder, _models
    app()
