"""Copies of the undisturbed run to harm, and nothing that a harmed run leaves."""

import ctypes
import os
import sys
import warnings

import pytest

from nano_for_tests import Nano


@pytest.fixture(autouse=sys.platform == "linux")
def orphans_are_adopted():
    """Not by process 1, which most programs watch for, but as in a desktop's session or a container: by another one."""
    adopt, libc = 36, ctypes.CDLL(None, use_errno=True)  # PR_SET_CHILD_SUBREAPER
    if libc.prctl(adopt, 1):
        warnings.warn(f"orphans go where they go on this machine: {os.strerror(ctypes.get_errno())}", stacklevel=1)
    yield
    libc.prctl(adopt, 0)


@pytest.fixture
def nano(undisturbed, tmp_path) -> Nano:
    return Nano(tmp_path / "nano").copy_of(undisturbed)


@pytest.fixture
def fresh(tmp_path):
    """Nothing yet; nothing of it may be left running."""
    nano = Nano(tmp_path / "nano")
    yield nano
    nano.wait_until_alone()
