"""What a GPU does here, for whoever has one: `make gpu`, at most ten minutes, one table (figures/bench/gpu.csv) and tests.

`make` runs the tests that a machine without a GPU skips: CUDA's features against the CPU's, the Triton kernel's signs bit for
bit, vllm, and a cell of SCALE=paper from end to end with tiny models. Here are the features of a billion-parameter student: the
paper's Table 1 gives about ten minutes per teacher for Llama-3.2-1B's gradients on one H100. The same work here, with random weights and tokens
of the same shape and lengths (neither changes the time): seconds beside those of plain forward and backward passes,
memory beside what `memory.plan_memory` had stated before, in float32 and bfloat16; and whether the two precisions order eight
made-up teachers alike. `--dry-run`: a tiny student, on a CPU too, so that it is known to run before somebody lends a GPU.
"""

import argparse
import sys

import numpy as np
import pandas as pd
import torch

from gracelib.bench import methods as ways
from gracelib.evidence.ranks import spearman
from gracelib.features.gradients import response_features
from gracelib.features.memory import one_backward, peak_memory, plan_memory, reset_peak
from gracelib.jobs.paths import figures, runs
from gracelib.jobs.progress import timed
from gracelib.jobs.store import write_atomically
from gracelib.projection import MIB
from gracelib.scores import grace, recalibrate

SHAPES = {
    "llama-3.2-1b": dict(
        width=2048, layers=16, heads=32, intermediate=8192, vocabulary=128256, positions=4096, kv_heads=8
    ),
    "tiny": dict(width=32, layers=2, heads=4, intermediate=64, vocabulary=300, positions=4096, kv_heads=2),
}
BATCH_TOKENS = 8192
ON_PAPER = "about 10 minutes on one H100 for 2,048 responses, d = 512 (submission, table 1)"
TEACHERS = 8


def measure_features(shape: str, n: int, d: int, dtype: str, device: str) -> dict:
    """Of n responses, all parameters: see the keys. extra: MiB beyond the weights and one backward pass."""
    with torch.device(device):
        model = ways.random_student(**SHAPES[shape], dtype=dtype)
    examples = ways.gsm8k_examples(n, model.config.vocab_size)
    lengths = [len(x) + len(y) for x, y in examples]
    plan = plan_memory(model, lengths, d, BATCH_TOKENS, device=device, dtype=dtype)
    how = dict(d=d, batch_tokens=BATCH_TOKENS, device=device, dtype=dtype)
    response_features(model, examples[:2], progress=False, **how)  # kernels are chosen and loaded
    work = ways.Work(model, examples, d, max(1, BATCH_TOKENS // max(lengths)))
    with torch.device(device):
        ways.plain_passes(work, work.batch)
        passes, _ = timed(lambda: ways.plain_passes(work, n))
    reset_peak(device)
    one_backward(model, examples, BATCH_TOKENS)
    backward = peak_memory(device)
    reset_peak(device)
    seconds, features = timed(lambda: response_features(model, examples, **how))
    peak = peak_memory(device)
    return {
        "seconds": seconds,
        "times_passes": seconds / passes,
        "peak_mib": peak / MIB,
        "extra_mib": (peak - backward) / MIB,
        "extra_mib_stated": plan.extra / MIB,
        "failed": bool(
            not (np.isfinite(features["g"]).all() and (features["grad_norm"] > 0).all())
            or (device == "cuda" and peak - backward > plan.extra)
        ),
        "note": f"{sum(p.numel() for p in model.parameters()):,} parameters, {n} responses, {sum(lengths):,} tokens, d = {d}"
        + (f"; the paper: {ON_PAPER}" if shape == "llama-3.2-1b" else ""),
    }


def agreement(shape: str, n: int, d: int, device: str) -> dict:
    """Spearman's correlation of GRACE in bfloat16 with float32 over teachers that use ever fewer words."""
    with torch.device(device):
        model = ways.random_student(**SHAPES[shape])

    def score(teacher: int, dtype: str) -> float:
        examples = ways.gsm8k_examples(n, model.config.vocab_size >> teacher, seed=teacher)
        f = response_features(model, examples, d=d, device=device, dtype=dtype, progress=False)
        return grace(recalibrate(f["g"], f["length"]), np.arange(n), n_folds=4).total

    seconds, found = timed(lambda: [[score(t, kind) for t in range(TEACHERS)] for kind in ("float32", "bfloat16")])
    return {
        "seconds": seconds,
        "value": spearman(*found, "higher"),
        "note": f"{TEACHERS} teachers, {n} responses each, d = {d}",
    }


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(prog="python -m gracelib.bench.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="a tiny student, on a CPU too, written to runs/bench")
    a = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not a.dry_run:
        parser.error("no CUDA device is present; --dry-run tries all of it with a tiny student")
    shape, n, d, n_each = ("tiny", 16, 16, 8) if a.dry_run else ("llama-3.2-1b", 2048, 512, 64)
    kinds = ("float32", "bfloat16")
    rows = {f"features, {dtype}": measure_features(shape, n, d, dtype, device) for dtype in kinds}
    rows["order of teachers, bfloat16 with float32"] = agreement(shape, n_each, d, device)
    place = {"device": torch.cuda.get_device_name() if device == "cuda" else device, "torch": torch.__version__}
    table = pd.DataFrame([{"what": what, **place, **row} for what, row in rows.items()])
    print(table.drop(columns=place).to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    path = (runs() / "bench" if a.dry_run else figures("bench")) / "gpu.csv"
    write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.6g"))
    print(f"written to {path.parent.name}/{path.name}")
    if table["failed"].eq(True).any():  # the last row has no verdict
        sys.exit(1)
    return table


if __name__ == "__main__":
    main()
