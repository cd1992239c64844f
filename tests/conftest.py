"""Shared by the tests: one thread, so that trained and sampled numbers are the same bits in every run."""

import os

import pytest

# Helpers assert, too: without this a failure there would not say what it found.
pytest.register_assert_rewrite("bad_inputs_for_tests", "chain_for_tests", "nano_for_tests")

if "PYTEST_XDIST_WORKER" in os.environ:  # test processes side by side: a thread each, before torch is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Files that run a pipeline come first: the other process then goes through the small ones meanwhile."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module")
def one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A `Nano`, finished and never disturbed, made once also where several test processes want it: look, copy, do not
    touch."""
    from filelock import FileLock

    from nano_for_tests import Nano

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if base.name.startswith("popen-") else base) / "undisturbed"  # popen-: a process of xdist
    with FileLock(shared.with_suffix(".lock")):
        there = (shared / "finished").exists()
        nano = Nano(shared)
        if not there:
            nano.finish()
            (shared / "finished").touch()
    return nano
