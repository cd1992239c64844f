"""Freed memory stays with the process that makes features, and goes back when it is asked to."""

import sys

import pytest

from gradient_models import in_a_process

RUN = """
import resource, sys
import torch
from gracelib.bench.methods import random_examples, student_of
from gracelib.features import batches, gradients
if sys.argv[1] == "as it was":
    gradients.keep_freed = lambda: None
torch.set_num_threads(1)
student, examples = student_of(300_000), random_examples(256, 20, 100, 160)

def faults_of(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def features():
    gradients.response_features(student, examples, d=64, device="cpu", progress=False)

features()
again = sorted(faults_of(features) for _ in range(3))[1]
batches.give_back()
print(again, faults_of(features))
"""


def faults(how: str) -> tuple[int, int]:
    """Pages asked of the system by a later call (median of three: where the heap ends up is chance), and by one after
    everything was given back."""
    again, after = map(int, in_a_process(RUN, how).split())
    return again, after


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems is not told")
def test_a_second_call_uses_the_memory_of_the_first():
    kept, after = faults("kept")
    before, _ = faults("as it was")
    assert kept < before / 10, (kept, before)
    assert after > 10 * kept, (after, kept)  # given back, and asked for again
