"""kill -9 at seeded random moments of a run, again and again: each run goes on where the one before was killed, loses
nothing that was finished, and the last ends with the bytes of a run that was never disturbed.

`make test-faults` kills 100 runs, in chains of 50; otherwise 8 are killed. And it kills `smoke`, with all notebooks of the
project.
"""

import os
import time

import pytest

from chain_for_tests import Chain, comparable
from nano_for_tests import Nano

pytestmark = pytest.mark.slow
KILLS, SMOKE_KILLS = (int(os.environ.get(f"GRACELIB_{name}", n)) for name, n in (("KILLS", 8), ("SMOKE_KILLS", 0)))


def test_killed_runs_go_on_to_the_same_bytes(undisturbed, tmp_path, capsys):
    started, moments, executing, seed = time.monotonic(), [], 0, 0
    while len(moments) < KILLS:
        chain = Chain(Nano(tmp_path / f"chain{seed}"), undisturbed, seed)
        chain.run(min(50, KILLS - len(moments)))
        assert comparable(chain.nano.tables()) == comparable(undisturbed.tables())
        moments, executing, seed = moments + chain.moments, executing + chain.in_notebooks, seed + 1
    quarters = [sum(q <= 4 * moment < q + 1 for moment in moments) for q in range(4)]
    with capsys.disabled():
        print(
            f"\n{len(moments)} kills in {time.monotonic() - started:.0f} s; by quarter of the finished results: "
            f"{quarters}; while a notebook was executed: {executing}"
        )
    assert all(quarters), "the kills did not spread over the run"
    assert executing, "no kill hit a notebook"


@pytest.mark.skipif(not SMOKE_KILLS, reason="minutes: `make test-faults` runs it (GRACELIB_SMOKE_KILLS=3)")
def test_killed_runs_of_smoke_go_on_to_the_same_bytes(tmp_path):
    reference = Nano(tmp_path / "undisturbed", "smoke", full=True)
    reference.finish()
    chain = Chain(Nano(tmp_path / "killed", "smoke", full=True), reference, 3)
    chain.run(SMOKE_KILLS)
    assert comparable(chain.nano.tables()) == comparable(reference.tables())
