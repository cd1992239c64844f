"""A run that is killed and started again until it is through."""

import io
import json
import math
import random
import shutil
import time

import pandas as pd

from nano_for_tests import Nano, kill_group

# Measured seconds decide the numbers of these: no two runs agree.
TIMED = ("table01_cost", "fig_cost", "results/cost", "claims")
ESTIMATORS, MEASURED = "results/estimators.csv", ("seconds", "peak_mib")  # the rest of that table must agree


def comparable(tables: dict[str, bytes]) -> dict[str, bytes]:
    found = {name: data for name, data in tables.items() if name.endswith(".csv") and not name.startswith(TIMED)}
    if ESTIMATORS in found:
        table = pd.read_csv(io.BytesIO(found[ESTIMATORS]), dtype=str)
        found[ESTIMATORS] = table.drop(columns=list(MEASURED)).to_csv(index=False).encode()
    return found


def settled(name: str, files: dict[str, bytes]) -> object:
    """What of a finished result no clock decides."""
    if name.startswith("timing/"):
        return None
    if name.startswith("estimator/"):
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in json.loads(files["rows.json"])]
    return files


class Chain:
    def __init__(self, nano: Nano, undisturbed: Nano, seed: int):
        self.nano, self.rng = nano, random.Random(seed)
        self.expected, self.executed = undisturbed.results(), undisturbed.executed()
        self.total = len(self.expected) + len(self.executed)
        self.moments: list[float] = []  # finished share of the run, at each kill
        self.in_notebooks = 0  # kills while one was executed

    def finished(self) -> int:
        return len(self.nano.finished()) + len(self.nano.executed())

    def executing(self) -> bool:
        """Whether the command says that it is at a notebook."""
        text = self.nano.stderr()
        return text.count(".ipynb: running at scale") > text.count(".ipynb: done in")

    def kill_at(self, target: int, delay: float, latest: float = math.inf, notebook: bool = False) -> bool:
        """Start, kill `delay` seconds after `target` results are there (and, if asked for, a notebook is executed), or
        as soon as `latest` of them are.

        False if it was through before."""
        main = self.nano.start()
        end = time.monotonic() + 600
        try:
            while main.poll() is None and (self.finished() < target or notebook and not self.executing()):
                assert time.monotonic() < end, self.nano.stderr()[-2000:]
                time.sleep(0.01)
            end = time.monotonic() + delay
            while main.poll() is None and time.monotonic() < end and self.finished() < latest:
                time.sleep(0.01)
            killed = main.poll() is None
        finally:
            kill_group(main) if main.poll() is None else main.communicate(timeout=60)
        if not killed:
            assert main.returncode == 0, self.nano.stderr()[-3000:]
            return False
        self.moments.append(self.finished() / self.total)
        self.in_notebooks += self.executing()
        return True

    def check(self, before: set[str]) -> set[str]:
        """Nothing finished was lost, and each finished result is the right one, byte for byte."""
        there = self.nano.results()
        assert before <= set(there), f"lost: {sorted(before - set(there))}"
        for name, files in there.items():
            assert settled(name, files) == settled(name, self.expected[name]), (
                f"{name} differs from the undisturbed run's"
            )
        return set(there)

    def run(self, n: int) -> None:
        """`n` kills, each at a moment drawn from its own n-th of the run, then to the end.

        On a fast machine the seconds of one delay would finish what the next kills are to hit: none goes beyond its
        eighth of the run."""
        there: set[str] = set()
        for i in range(n):
            target = int(self.total * (i + self.rng.random()) / n)
            latest = self.total * (8 * i // n + 1) / 8
            notebook = i >= n - max(1, n // 8)  # they are few among the results, and take a good part of the time
            while not self.kill_at(target, self.rng.uniform(0, 6 if i % 2 and not notebook else 1), latest, notebook):
                for folder in (self.nano.figures, self.nano.runs / "notebook"):
                    shutil.rmtree(folder)
                target, latest = len(self.expected), math.inf
            if i % 2:
                self.nano.wait_until_alone()
            # else: the next run meets the dying workers and kernels of this one
            there = self.check(there)
        self.nano.finish()
        self.check(there)
        self.nano.wait_until_alone()
        assert self.nano.leftovers() == []
        assert self.nano.executed() == self.executed
