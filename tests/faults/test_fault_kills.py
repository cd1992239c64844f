"""kill -9 at seeded random moments of a run, again and again: each run goes on where the one before was killed, loses
nothing that was finished, and the last ends with the bytes of a run that was never disturbed.

`make test-faults` kills 100 `nano` runs (the pipeline and four short notebooks) and 3 of `smoke` (all notebooks of the
project); otherwise 8 of `nano` are killed.
"""

import os
import random
import shutil
import time

import pytest
from nano_for_tests import Nano, kill_group

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("GRACELIB_KILLS", 8))
SMOKE_KILLS = int(os.environ.get("GRACELIB_SMOKE_KILLS", 0))
# Measured seconds are among the numbers of these: no two runs agree.
TIMED = ("table01_cost", "fig_cost", "results/cost", "claims")


def comparable(tables: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in tables.items() if name.endswith(".csv") and not name.startswith(TIMED)}


class Chain:
    """One run that is killed and started again until it is through."""

    def __init__(self, nano: Nano, undisturbed: Nano, seed: int):
        self.nano, self.rng = nano, random.Random(seed)
        self.expected, self.stamps = undisturbed.results(), undisturbed.stamps()
        self.total = len(self.expected) + len(self.stamps)
        self.moments: list[float] = []  # finished share of the run, at each kill
        self.executing = 0  # kills while a notebook was at work

    def finished(self) -> int:
        return len(self.nano.finished()) + len(self.nano.stamps())

    def kill_at(self, target: int, delay: float) -> bool:
        """Start, kill once `target` results are there and `delay` seconds have passed; False if it was through before."""
        main = self.nano.start()
        end = time.monotonic() + 600
        try:
            while main.poll() is None and self.finished() < target:
                assert time.monotonic() < end, self.nano.stderr()[-2000:]
                time.sleep(0.01)
            end = time.monotonic() + delay
            while main.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            killed = main.poll() is None
        finally:
            kill_group(main) if main.poll() is None else main.communicate()
        if not killed:
            assert main.returncode == 0, self.nano.stderr()[-3000:]
            return False
        self.moments.append(self.finished() / self.total)
        text = self.nano.stderr()
        self.executing += text.count(".ipynb: running at scale") > text.count(".ipynb: done in")
        return True

    def check(self, before: set[str]) -> set[str]:
        """Nothing finished was lost, and each finished result is the right one, byte for byte."""
        there = self.nano.results()
        assert before <= set(there), f"lost: {sorted(before - set(there))}"
        for name, files in there.items():
            if not name.startswith("timing/"):
                assert files == self.expected[name], f"{name} differs from the undisturbed run's"
        return set(there)

    def run(self, n: int) -> None:
        """`n` kills, each at a moment drawn from its own n-th of the run, then to the end."""
        there: set[str] = set()
        for i in range(n):
            target = int(self.total * (i + self.rng.random()) / n)
            while not self.kill_at(target, self.rng.uniform(0, 6 if i % 2 else 1.5)):  # it was through before
                for folder in (self.nano.figures, self.nano.runs / "notebooks"):
                    shutil.rmtree(folder)
                target = len(self.expected)
            if i % 2:
                self.nano.wait_until_alone()
            # else: the next run meets the dying workers and kernels of this one
            there = self.check(there)
        self.nano.finish()
        self.check(there)
        self.nano.wait_until_alone()
        assert self.nano.leftovers() == []
        assert self.nano.stamps() == self.stamps


def test_killed_runs_go_on_to_the_same_bytes(undisturbed, tmp_path, capsys):
    started, moments, executing, seed = time.monotonic(), [], 0, 0
    while len(moments) < KILLS:
        chain = Chain(Nano(tmp_path / f"chain{seed}"), undisturbed, seed)
        chain.run(min(50, KILLS - len(moments)))
        assert comparable(chain.nano.tables()) == comparable(undisturbed.tables())
        moments, executing, seed = moments + chain.moments, executing + chain.executing, seed + 1
    quarters = [sum(q <= 4 * moment < q + 1 for moment in moments) for q in range(4)]
    with capsys.disabled():
        print(f"\n{len(moments)} kills in {time.monotonic() - started:.0f} s; by quarter of the finished results: "
              f"{quarters}; while a notebook was executed: {executing}")
    assert all(quarters), "the kills did not spread over the run"
    assert executing, "no kill hit a notebook"


@pytest.mark.skipif(not SMOKE_KILLS, reason="minutes: `make test-faults` runs it (GRACELIB_SMOKE_KILLS=3)")
def test_killed_runs_of_smoke_go_on_to_the_same_bytes(tmp_path):
    reference = Nano(tmp_path / "undisturbed", "smoke", full=True)
    reference.finish()
    chain = Chain(Nano(tmp_path / "killed", "smoke", full=True), reference, 3)
    there: set[str] = set()
    for k in range(SMOKE_KILLS):
        target = int(chain.total * (k + chain.rng.random()) / SMOKE_KILLS)
        assert chain.kill_at(target, chain.rng.uniform(0, 1)), "it finished before it could be killed"
        there = chain.check(there)
    chain.nano.finish()
    chain.check(there)
    assert comparable(chain.nano.tables()) == comparable(reference.tables())
    chain.nano.wait_until_alone()
    assert chain.nano.leftovers() == []
