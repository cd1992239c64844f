"""Shared by the tests: one thread, so that trained and sampled numbers are the same bits in every run."""

import pytest


@pytest.fixture
def one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
