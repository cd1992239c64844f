"""The features of a billion-parameter student on a GPU: `python -m gracelib.bench.cuda`, where CUDA is present.

Why: the paper's Table 1 gives about ten minutes a teacher for Llama-3.2-1B's gradients on one H100. The same work here,
with random weights and tokens of the same shape and lengths (neither changes the time), is written to
figures/bench/: seconds, peak memory, and what `memory.plan_memory` had stated before. Other sizes are for tests.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from torch import nn

from gracelib.features.estimators import PARAMS, estimator
from gracelib.features.gradients import response_features
from gracelib.features.memory import one_backward, peak_memory, plan_memory, reset_peak, size_of
from gracelib.jobs.paths import figures
from gracelib.jobs.store import write_atomically

PAPER = "about 10 minutes on one H100 for 2,048 responses, d = 512 (submission, table 1)"
LLAMA_1B = dict(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    vocab_size=128256,
)
TINY = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    vocab_size=300,
)
SHAPES = {"llama-3.2-1b": LLAMA_1B, "tiny": TINY}


def random_llama(shape: str, dtype: str, device: str) -> nn.Module:
    """A tied Llama of that shape with random weights, made where and in the dtype in which it is used."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=True)
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def gsm8k_examples(n: int, vocabulary: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """n pairs of random tokens as long as GSM8K's: prompts of about 75 tokens, responses lognormal with median 122 and
    nine in ten below 210 (ten open models' answers to its test questions, at 3.4 characters a token)."""
    draw = np.random.default_rng(seed)
    prompts = np.clip(draw.normal(75, 25, n), 20, 250).astype(int)
    responses = np.clip(draw.lognormal(np.log(122), 0.415, n), 10, 2000).astype(int)
    return [tuple(draw.integers(0, vocabulary, size).tolist() for size in pair) for pair in zip(prompts, responses)]


def measure(
    *,
    shape: str = "llama-3.2-1b",
    n: int = 2048,
    d: int = 512,
    dtype: str = "float32",
    params: str = "all",
    batch_tokens: int = 8192,
    device: str = "cuda",
) -> dict:
    """Seconds and bytes of the features of n responses; see the keys. Raises ValueError where CUDA is asked for and not
    present."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is present; `make bench` measures a small student on the CPU")
    model = random_llama(shape, dtype, device)
    examples = gsm8k_examples(n, model.config.vocab_size)
    lengths = [len(x) + len(y) for x, y in examples]
    plan = plan_memory(model, n, d, batch_tokens, lengths=lengths, dtype=dtype, device=device, params=params)
    options = dict(d=d, dtype=dtype, batch_tokens=batch_tokens, device=device, **estimator(params))
    response_features(model, examples[:2], progress=False, **options)  # kernels are chosen and loaded
    reset_peak(device)
    one_backward(model, examples, batch_tokens)
    backward = peak_memory(device)
    reset_peak(device)
    begin = time.perf_counter()
    features = response_features(model, examples, **options)  # its results are on the CPU: nothing is pending
    seconds = time.perf_counter() - begin
    peak = peak_memory(device)
    assert np.isfinite(features["g"]).all() and np.all(features["grad_norm"] > 0)
    return {
        "shape": shape,
        "parameters": sum(p.numel() for p in model.parameters()),
        "responses": n,
        "d": d,
        "params": params,
        "dtype": dtype,
        "tokens": sum(lengths),
        "batch_tokens": batch_tokens,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "seconds": seconds,
        "responses_per_second": n / seconds,
        "peak_bytes": peak,
        "one_backward_peak_bytes": backward,
        "extra_bytes_measured": peak - backward,
        "extra_bytes_stated": plan.extra,
        "extra_parts_stated": plan.parts,
        "weight_bytes": plan.weights,
        "paper": PAPER,
    }


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(prog="python -m gracelib.bench.cuda", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--n", type=int, default=2048, help="responses (default 2048)")
    parser.add_argument("--d", type=int, default=512, help="rows of the projection (default 512)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--params", choices=PARAMS, default="all")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(argv)
    try:
        result = measure(**vars(options))
    except ValueError as error:
        parser.error(str(error))
    name = f"{options.shape}_{options.params}_{options.dtype}_{options.device}.json"
    path = figures("bench") / name
    write_atomically(path, lambda part: part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8"))
    print(
        f"{result['responses']} responses ({result['tokens']:,} tokens), D = {result['parameters']:,}, d = "
        f"{result['d']}, {result['device']}: {result['seconds']:.1f} s; the paper: {PAPER}"
    )
    print(
        f"peak {size_of(result['peak_bytes'])}, of which beyond weights and one backward pass "
        f"{size_of(max(0, result['extra_bytes_measured']))}; stated before: at most "
        f"{size_of(result['extra_bytes_stated'])}\nwritten to {path.parent.name}/{path.name}"
    )
    return result


if __name__ == "__main__":
    main()
