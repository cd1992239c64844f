"""kill -9 at seeded random moments of a run, again and again: each run goes on where the one before was killed, loses
nothing that was finished, and the last ends with the bytes of a run that was never disturbed.

`make test-faults` kills 100 runs, in chains of 50; otherwise 8 are killed. (Those of `smoke`: test_fault_smoke.)
"""

import os
import time

import pytest

from chain_for_tests import Chain, comparable
from nano_for_tests import Nano

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("GRACELIB_KILLS", 8))


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
