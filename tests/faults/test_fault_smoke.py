"""kill -9 in the middle of `smoke`, with all notebooks of the project: the next run goes on to the same bytes."""

import os

import pytest

from chain_for_tests import Chain, comparable
from nano_for_tests import Nano

pytestmark = pytest.mark.slow
SMOKE_KILLS = int(os.environ.get("GRACELIB_SMOKE_KILLS", 0))


@pytest.mark.skipif(not SMOKE_KILLS, reason="minutes: `make test-faults` runs it (GRACELIB_SMOKE_KILLS=3)")
def test_killed_runs_of_smoke_go_on_to_the_same_bytes(tmp_path):
    reference = Nano(tmp_path / "undisturbed", "smoke", full=True)
    reference.finish()
    chain = Chain(Nano(tmp_path / "killed", "smoke", full=True), reference, 3)
    chain.run(SMOKE_KILLS)
    assert comparable(chain.nano.tables()) == comparable(reference.tables())
