"""The peak of the features does not grow with the number of responses, and stays below weights + activations + 1.5
times the largest layer's batch of per-response gradients.

Measured in a process of its own, because the peak of a process never falls. "Weights + activations" is what one
backward pass over the same batch takes, whose weight gradients are freed as they appear.
"""

import json
import os
import subprocess
import sys

from gracelib.jobs.paths import ROOT

# 256 MiB of kept signs are not gradients: the largest layer here (a tied embedding of 13 million numbers, 400 MiB for a
# batch of 8) is large enough that the bound would not hold if they and a whole batch of gradients were there.
RUN = """
import json, sys
import torch
from gracelib.bench.methods import random_examples, random_student
from gracelib.features.gradients import response_features
from gracelib.features.memory import one_backward, peak_memory
n = int(sys.argv[1])
model = random_student(width=320, layers=3, heads=4, intermediate=640, vocabulary=40000)
examples = random_examples(8, 10, 20, 40000) * (n // 8)    # the same eight again: the same batches
tokens = 8 * max(len(x) + len(y) for x, y in examples)
for _ in range(2):
    one_backward(model, examples, tokens)
before = peak_memory()
features = response_features(model, examples, d=32, batch_tokens=tokens, device="cpu", progress=False)
largest = max(p.numel() for p in model.parameters())
print(json.dumps({"beyond": peak_memory() - before, "largest": 4 * 8 * largest, "results": features["g"].nbytes,
                  "whole": 4 * 8 * sum(p.numel() for p in model.parameters())}))
"""


def measured(n: int) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(n)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_peak_is_bounded_by_the_largest_layer_and_does_not_grow():
    few, many = measured(8), measured(32)
    for m in (few, many):
        assert 0 < m["beyond"] < 1.5 * m["largest"], (few, many)
    # four times the responses: less than a fifth of one more batch of gradients
    assert abs(many["beyond"] - few["beyond"]) < 0.2 * few["whole"], (few, many)
