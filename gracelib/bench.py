"""What features cost beside what they cannot do without: `python -m gracelib.bench`, or `make bench`.

Why: an exact projected gradient per response needs at least one forward and backward pass and, if Pi is
dense, the arithmetic of one matrix product (N x D)(D x d). Times on somebody's machine mean little; the ratio
to this floor, measured in the same process with the same threads, means the same everywhere. The floor's
passes run at their own best batch size.
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from gracelib.gradients import response_features
from gracelib.per_response import parameter_names

FLOOR_BATCHES = (32, 128, 512)    # responses per batch tried for plain forward + backward


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of `repeats` calls after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def random_student(width: int, layers: int, heads: int, intermediate: int, vocabulary: int) -> nn.Module:
    """A tied Llama with random weights, of the built-in student's shape by default."""
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        intermediate_size=intermediate, vocab_size=vocabulary, tie_word_embeddings=True,
        max_position_embeddings=1024))


def random_examples(n: int, prompt: int, response: int, vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """n pairs of random tokens whose lengths vary by a fifth around the given means."""
    generator = torch.Generator().manual_seed(0)

    def text(mean: int) -> list[int]:
        low, high = mean - mean // 5, mean + mean // 5
        size = int(torch.randint(low, high + 1, (1,), generator=generator))
        return torch.randint(vocabulary, (size,), generator=generator).tolist()
    return [(text(prompt), text(response)) for _ in range(n)]


def plain_passes(model: nn.Module, examples, batch: int, device: str) -> None:
    """Forward and backward over the same tokens as training would do it: sorted by length, no mask, summed
    gradients."""
    model.eval()
    order = sorted(examples, key=lambda e: len(e[0]) + len(e[1]))
    for at in range(0, len(order), batch):
        rows = order[at:at + batch]
        ids = nn.utils.rnn.pad_sequence([torch.tensor([*x, *y]) for x, y in rows], batch_first=True)
        targets = nn.utils.rnn.pad_sequence(
            [torch.tensor([-100] * (len(x) - 1) + list(y)) for x, y in rows],
            batch_first=True, padding_value=-100)
        logits = model(input_ids=ids[:, :-1].to(device), use_cache=False).logits            # (B, T, V)
        targets = targets.flatten().to(device)
        F.cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=-100).backward()
    model.zero_grad(set_to_none=True)


def measure(model: nn.Module, examples, d: int, repeats: int, device: str,
            batch_tokens: int | None = None) -> dict[str, float]:
    """Seconds of the two parts of the floor and of `response_features`, and the ratio (features / sum of the
    parts)."""
    model = model.to(device)
    n, size = len(examples), sum(p.numel() for p in parameter_names(model))
    passes = {b: median_seconds(lambda: plain_passes(model, examples, b, device), 1) for b in FLOOR_BATCHES}
    best = min(passes, key=passes.get)
    left, right = torch.randn(n, size, device=device), torch.randn(size, d, device=device)
    product = median_seconds(lambda: left @ right, repeats)                                 # (N, D) @ (D, d)
    del left, right
    plain = median_seconds(lambda: plain_passes(model, examples, best, device), repeats)
    features = median_seconds(lambda: response_features(
        model, examples, d=d, batch_tokens=batch_tokens, device=device, progress=False), repeats)
    return {"parameters": size, "batch": best, "forward_backward": plain, "matrix_product": product,
            "features": features, "ratio": features / (plain + product)}


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(prog="python -m gracelib.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", help="a checkpoint folder (default: a random Llama)")
    defaults = dict(width=64, layers=2, heads=4, intermediate=128, vocabulary=160, n=2048, prompt=20,
                    response=45, d=512, repeats=3, threads=0, batch_tokens=0)
    for key, value in defaults.items():
        parser.add_argument("--" + key.replace("_", "-"), type=int, default=value, help=f"default {value}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args(argv)
    if a.threads:
        torch.set_num_threads(a.threads)
    if a.checkpoint:
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained(a.checkpoint, dtype=torch.float32, use_safetensors=True)
    else:
        model = random_student(a.width, a.layers, a.heads, a.intermediate, a.vocabulary)
    examples = random_examples(a.n, a.prompt, a.response, model.config.vocab_size)
    m = measure(model, examples, a.d, a.repeats, a.device, a.batch_tokens or None)
    print(f"{a.n} responses, about {a.prompt} + {a.response} tokens, D = {m['parameters']:,}, d = {a.d}, "
          f"{torch.get_num_threads()} threads, {a.device}, median of {a.repeats}")
    print(f"forward + backward (batches of {m['batch']})   {m['forward_backward']:8.2f} s")
    print(f"one dense (N x D)(D x d) product     {m['matrix_product']:8.2f} s")
    print(f"features                             {m['features']:8.2f} s")
    print(f"ratio                                {m['ratio']:8.2f}   (features / sum of the other two)")
    return m


if __name__ == "__main__":
    main()
