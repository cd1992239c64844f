"""The ways of making features that `bench` puts side by side, each on the same student and the same responses.

Why these: an exact projected gradient per response needs at least one forward and backward pass and, Pi being dense,
the arithmetic of one matrix product (n m x D)(D x d): the floor. Above it lie what users of other code do: the paper's
way (one response at a time, all gradients concatenated, then a projector that makes its random matrix again at each
call), the same with a batch of gradients in one call, and what a careful user can put together from plain parts (batch
1, the signs made once and kept). The others' projectors are real ones, of the packages `traker` and `dattri`, and are
left out where these are not installed.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gracelib.bench.report import BACKWARD, BARE, CAREFUL, DATTRI, OURS, PAPER, PASSES, PRODUCT, STACKED
from gracelib.features.gradients import Batch, Example, response_features
from gracelib.features.per_response import parameter_names
from gracelib.jobs.progress import timed
from gracelib.projection import signs

STACK = 32  # gradients that a careful user, and dattri's user, multiplies at once
ROOM = 3 << 30  # bytes that a method may allocate for one matrix, more is left out

PEERS = {PAPER: "trak", DATTRI: "dattri"}  # method -> module of its package


def random_student(
    width: int,
    layers: int,
    heads: int,
    intermediate: int,
    vocabulary: int,
    positions: int = 1024,
    kv_heads: int | None = None,
    dtype: str = "float32",
) -> nn.Module:
    """A tied Llama with random weights (neither values nor text change the time), on torch's default device."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads or heads,
            intermediate_size=intermediate,
            vocab_size=vocabulary,
            tie_word_embeddings=True,
            max_position_embeddings=positions,
        ),
        dtype=getattr(torch, dtype),
    ).eval()


def gemma_270m() -> nn.Module:
    """A student of Gemma 3 270M's shape with random weights: two thirds of it are a tied vocabulary of 262,144 tokens."""
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    shape = dict(hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4, head_dim=256)
    return AutoModelForCausalLM.from_config(
        Gemma3TextConfig(**shape, num_key_value_heads=1, vocab_size=262144, sliding_window=512)
    ).eval()


def student_of(parameters: int) -> nn.Module:
    """A `random_student` of about that many parameters, shaped like the built-in students (MLP twice the width)."""
    layers, vocabulary = (2 if parameters < 5e5 else 3 if parameters < 5e6 else 4), (160 if parameters < 5e6 else 1000)
    width = 8
    while 10 * layers * (width + 8) ** 2 + vocabulary * (width + 8) <= parameters:
        width += 8
    # The width goes in steps; the MLP takes up what is left.
    left = parameters - vocabulary * width - layers * (4 * width + 2) * width - width
    return random_student(width, layers, 4, max(8, left // (3 * width * layers)), vocabulary)


def random_examples(n: int, prompt: int, response: int, vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """n pairs of random tokens whose lengths vary by a fifth around the given means."""
    draw, mean = np.random.default_rng(0), np.array([prompt, response])
    lengths = draw.integers(mean - mean // 5, mean + mean // 5, (n, 2), endpoint=True)
    return [tuple(draw.integers(0, vocabulary, size).tolist() for size in pair) for pair in lengths]


def gsm8k_examples(n: int, vocabulary: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """n pairs of random tokens as long as GSM8K's: prompts of about 75 tokens, responses lognormal with median 122 and
    nine in ten below 210 (ten open models' answers to its test questions, at 3.4 characters a token)."""
    draw = np.random.default_rng(seed)
    prompts = np.clip(draw.normal(75, 25, n), 20, 250).astype(int)
    responses = np.clip(draw.lognormal(np.log(122), 0.415, n), 10, 2000).astype(int)
    return [tuple(draw.integers(0, vocabulary, size).tolist() for size in pair) for pair in zip(prompts, responses)]


@dataclass
class Work:
    """What every method is given: the student, its responses, d. `batch` is for `passes`; `n_parameters` is D."""

    model: nn.Module
    examples: Sequence[Example]
    d: int
    batch: int = 32

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in parameter_names(self.model))


@dataclass(frozen=True)
class Method:
    """`prepare(work)` makes, untimed, what a user makes once, and returns the timed `run(k)` over the first k
    responses (which returns the seconds of its parts by name, or None). `bytes_kept(D, n, d)`: of its largest matrix.
    `each` > 0: its time is so much a response that runs over a multiple of `each` responses tell it."""

    name: str
    prepare: Callable[[Work], Callable[[int], dict | None]]
    bytes_kept: Callable[[int, int, int], int] = lambda D, n, d: 0
    each: int = 0


def plain_passes(work: Work, k: int) -> dict[str, float]:
    """Forward and backward over the same tokens as training would do it: sorted by length, right-padded, no mask,
    summed gradients. Returns the seconds of the backward passes."""
    backward = 0.0
    order = sorted(work.examples[:k], key=lambda e: len(e[0]) + len(e[1]))
    for at in range(0, len(order), work.batch):
        rows = order[at : at + work.batch]
        ids = nn.utils.rnn.pad_sequence([torch.tensor([*x, *y][:-1]) for x, y in rows], batch_first=True)
        targets = nn.utils.rnn.pad_sequence(
            [torch.tensor([-100] * (len(x) - 1) + list(y)) for x, y in rows], batch_first=True, padding_value=-100
        )
        logits = work.model(input_ids=ids, use_cache=False).logits  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        backward += timed(loss.backward)[0]
    work.model.zero_grad(set_to_none=True)
    return {BACKWARD: backward}


def _product(work: Work) -> Callable[[int], None]:
    """One dense (n x D)(D x d) product; where its factors do not fit in ROOM, in equal pieces of D, one after another,
    each with the same factors (making others is not part of it)."""
    D, n = work.n_parameters, len(work.examples)
    pieces = -(-4 * D * (n + work.d) // ROOM)
    size = -(-D // pieces)
    left, right, out = torch.randn(n, size), torch.randn(size, work.d), torch.zeros(n, work.d)

    def run(k: int) -> None:
        for _ in range(pieces):
            out.addmm_(left, right)  # (n, D) @ (D, d)

    return run


def gradient_of(model: nn.Module, example: Example) -> torch.Tensor:
    """All gradients of one response concatenated, (D,): a plain backward pass of that response alone."""
    batch = Batch([example], torch.device("cpu"))
    batch.loss(model(input_ids=batch.input_ids, use_cache=False).logits).backward()
    g = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameter_names(model)])
    model.zero_grad(set_to_none=True)
    return g


def _by_stacks(work: Work, size: int, project: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[int], None]:
    """Gradients made one response at a time and projected `size` at a time: `project` takes (B, D)."""

    def run(k: int) -> None:
        stacks = (
            [gradient_of(work.model, e) for e in work.examples[at : min(at + size, k)]] for at in range(0, k, size)
        )
        torch.cat([project(torch.stack(own)) for own in stacks])

    return run


def _careful(work: Work, size: int) -> Callable[[int], None]:
    kept, at = torch.empty(work.n_parameters, work.d), 0
    for p, name in parameter_names(work.model).items():
        for start in range(0, p.numel(), 4096):
            stop = min(start + 4096, p.numel())
            kept[at + start : at + stop] = signs(0, name, start, stop, work.d)
        at += p.numel()
    return _by_stacks(work, size, lambda g: g @ kept)  # (B, D) @ (D, d)


def _traker(work: Work) -> Callable[[int], None]:
    from trak.projectors import BasicProjector, ProjectionType

    projector = BasicProjector(work.n_parameters, work.d, seed=0, proj_type=ProjectionType.rademacher, device="cpu")
    return _by_stacks(work, 1, lambda g: projector.project(g, model_id=0))


def _dattri(work: Work) -> Callable[[int], None]:
    from dattri.func.projection import random_project

    size = min(STACK, len(work.examples))
    project = random_project(torch.empty(size, work.n_parameters), size, work.d, STACK, proj_type="rademacher")
    return _by_stacks(work, size, project)


def _ours(work: Work, record: bool = True) -> Callable[[int], None]:
    def run(k: int) -> None:
        response_features(work.model, work.examples[:k], d=work.d, device="cpu", progress=False, record=record)

    return run


METHODS = (
    Method(PASSES, lambda work: lambda k: plain_passes(work, k)),
    Method(PRODUCT, _product),
    Method(OURS, _ours),
    Method(BARE, lambda work: _ours(work, record=False)),
    Method(CAREFUL, lambda work: _careful(work, 1), lambda D, n, d: 4 * D * d, each=1),
    Method(STACKED, lambda work: _careful(work, STACK), lambda D, n, d: 4 * D * (d + min(n, STACK)), each=STACK),
    Method(DATTRI, _dattri, lambda D, n, d: 4 * D * (min(d, 100) + min(n, STACK)), each=STACK),
    Method(PAPER, _traker, lambda D, n, d: 4 * D * min(d, 100), each=1),
)


def missing(method: str) -> str | None:
    """The package that a method needs and that is not installed, or None."""
    module = PEERS.get(method)
    absent = module is not None and importlib.util.find_spec(module) is None
    return {"trak": "traker"}.get(module, module) if absent else None
