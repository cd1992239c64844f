"""Features of a student on responses: one projected gradient per response, and what is cheap to keep beside
it.

Why: every score of the paper is a function of h(x, y) = log|y| * Pi grad L(y | x) at the student's given
weights (paper, section 2). This module makes Pi grad L for all responses in one pass and keeps the log|y| factor
out of it, so that one gradient pass serves every ablation. L is the cross-entropy averaged over the
response's tokens (its EOS counted, the prompt not), the gradient is taken in eval mode with respect to all
parameters, a tied embedding once with both of its contributions. Nothing of size (number of responses) x D is
ever held; see `per_response.py` for how.

Batches are padded on the right and given no attention mask: in a causal model a position cannot see what
follows it, and a padded position is in no loss, so padding changes nothing but the rounding.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gracelib.checks import rope_switch
from gracelib.features.batches import batch_groups, keep_freed, length_batches
from gracelib.features.per_response import (
    SIGN_WORK,
    LayerByLayer,
    OneAtATime,
    Unmade,
    Unsupported,
    parameter_names,
    work,
)
from gracelib.features.record import Recorder
from gracelib.jobs.progress import Bar
from gracelib.projection import MIB, SignProjection

Example = tuple[Sequence[int], Sequence[int]]

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
# How far the layer-by-layer gradient may be from plain autograd's before it is not trusted: rounding only.
_TOLERANCE = {"float32": 1e-3, "float64": 1e-4, "bfloat16": 0.2}
_PROBE_ROWS = 8
_WORD_ROWS = 32  # making the signs of few rows costs as much as making these
_exact = WeakKeyDictionary()  # model -> the dtypes in which `LayerByLayer` was found exact for it


def sign_projection(d: int, seed: int, device: torch.device) -> SignProjection:
    """The `SignProjection` for a device: on CUDA the fused kernel of `features.gpu_projection` where it works (else the plain
    one, with a warning that says why), the plain one on anything else. Raises ValueError for d < 1."""
    if device.type == "cuda":
        if (fault := kernel_fault(device)) is None:
            from gracelib.features.gpu_projection import TritonSignProjection

            return TritonSignProjection(d, seed, device)
        warnings.warn(f"signs are made by torch, which is slower on a GPU than the fused kernel: {fault}", stacklevel=3)
    return SignProjection(d, seed, device)


@cache
def kernel_fault(device: torch.device) -> str | None:
    """Why the fused kernel cannot be used on a device; None if it can."""
    try:
        from gracelib.features.gpu_projection import works_on
    except ImportError as error:
        return f"triton cannot be imported ({error}); pip install triton"
    return works_on(device)


def response_features(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    d: int,
    seed: int = 0,
    batch_tokens: int | None = None,
    block_bytes: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    progress: bool = True,
    names: Sequence[str] | None = None,
    done: Callable[[float], None] = lambda n: None,
    engine: Callable | None = None,
    projection: Callable[[int, int, torch.device], SignProjection] = sign_projection,
    record: bool = True,
    special: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """Per-response gradient features of a causal language model, in the order of `examples` (N of them).

    examples: (prompt_ids, response_ids) pairs; the supervised tokens are exactly response_ids, which already
        end with EOS; the first is predicted from the last prompt token.
    d, seed: rows and seed of the sign projection. Rows are independent: g[:, :k] is the projection
        to k numbers.
    batch_tokens: padded tokens per batch (default: see `batch_groups`). It changes time, memory and rounding, not
        results. block_bytes: size of one block of per-response gradients (default: see `default_block_bytes`).
    device: "auto" (CUDA when present) or a torch device. dtype: of weights and activations, "float32",
        "float64" or "bfloat16"; projections add up in float32 (float64 for "float64"). A model elsewhere or
        of another dtype is copied, so the caller's model is never changed.
    names: N labels for error messages. progress: a bar on stderr. done: called as work goes on, with the responses that
        this makes, in fractions: their sum is N.
    engine: what makes the gradients, called as `LayerByLayer`; None takes that where it is exact, else `OneAtATime`,
        which is plain autograd. projection: what is projected with, called with d, seed and the device. Cheaper
        ones of either are in `estimators.py`; D, g and grad_norm are then of the engine's parameters.
    record: also take down what later scores need (`record`); no bit of the rest depends on it. special: ids that it leaves
        out, the tokenizer's special tokens.

    Returns arrays: g (N, d) float32 (float64 for "float64"), scaled by 1/sqrt(D), not length-recalibrated;
    length (N,) int64 = |y| in tokens; loss (N,) = L in nats; mean_prob (N,) = mean probability of the
    response's tokens; grad_norm (N,) = l2 norm of the unprojected gradient. The last three are float64. And what `record`
    lists.

    Raises ValueError for an empty prompt or response, ids outside the vocabulary, a text longer than the model's
    positions, or a non-finite loss or gradient, naming the response. Warns when it falls back to one response at a
    time. On a CPU the process keeps the memory that is freed (`batches.keep_freed`).
    """
    label = _labels(examples, names)
    _check_arguments(d, batch_tokens, dtype)
    _check_examples(model, examples, label)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    given, model = model, _placed(model, device, _DTYPES[dtype])
    n = len(examples)
    wide = torch.float64 if dtype == "float64" else torch.float32
    result = {
        "g": np.zeros((n, d), np.float64 if dtype == "float64" else np.float32),
        "length": np.array([len(y) for _, y in examples], dtype=np.int64),
        **{k: np.zeros(n) for k in ("loss", "mean_prob", "grad_norm")},
    }
    if n == 0:
        return result
    if device.type == "cpu":
        keep_freed()
    was_training = model.training
    model.eval()  # dropout off: the gradient belongs to the response, not to a random draw
    try:
        lengths = [len(x) + len(y) for x, y in examples]
        waits = engine in (None, LayerByLayer) and device.type == "cpu"
        grouped = batch_groups(model, lengths, batch_tokens, waits)
        groups = grouped.groups
        if dtype in _exact.get(given, ()) and engine is None:
            engine = LayerByLayer
        pair = _pair(model, lengths) if engine is None else []

        def cost(group: list[list[int]], d: int) -> float:
            tokens = sum(len(batch) * max(lengths[i] for i in batch) for batch in group)
            return work(model, grouped.found, sum(map(len, group)), tokens, d)

        bar = Bar(total=n, desc="gradients", unit="response", disable=not progress)
        steps = _Steps(n, lambda share: (bar.update(share), done(share)))
        check = 3 * cost([pair], _WORD_ROWS) if pair else 0.0
        steps.total = check + sum(cost(group, d) for group in groups)
        if engine is not OneAtATime:
            engine = partial(engine or LayerByLayer, found=grouped.found)
        if pair:
            engine = _engine(model, [examples[i] for i in pair], device, dtype, engine, steps.add)
            # Where long texts are computed otherwise than short ones, every call has its own pair to show.
            if engine is not OneAtATime and not (hasattr(model, "config") and rope_switch(model.config)):
                _exact.setdefault(given, set()).add(dtype)
            steps.reach(check)
        if engine is OneAtATime:
            groups = [[batch] for batch in length_batches(lengths, 1, 1)]
            steps.total = check + sum(cost(group, d) for group in groups)
        projector = projection(d, seed, device)
        recorder = Recorder(model, examples if record else [], wide, special)
        with bar, recorder, engine(model, max(sum(map(len, group)) for group in groups), block_bytes) as gradients:
            scale = 1 / math.sqrt(sum(p.numel() for p in gradients.names))  # 1/sqrt(D)
            gradients.done = steps.add
            for group in groups:
                end = steps.made + cost(group, d)
                rows = [i for batch in group for i in batch]
                g = torch.zeros(d, len(rows), dtype=wide, device=device).T  # a layout for fast products
                squares = torch.zeros(len(rows), dtype=torch.float64, device=device)

                def sink(name, start, block, g=g, squares=squares):
                    projector.accumulate(g, name, start, block)
                    squares.add_(torch.linalg.vector_norm(block, dim=1).double().square_())
                    steps.add(block.shape[1] * d * (len(block) + SIGN_WORK))

                for own in group:
                    batch = Batch([examples[i] for i in own], device)
                    if record:
                        recorder.begin(own, batch)

                    def loss_of(logits, batch=batch, own=own):
                        total = batch.loss(logits)
                        _check_finite("loss", batch.losses, own, label)
                        if record:
                            recorder.end(logits, batch.tokens)
                        return total

                    gradients.run(batch.input_ids, loss_of, sink if len(group) == 1 else None)
                    result["loss"][own] = batch.losses.cpu().numpy()
                    result["mean_prob"][own] = batch.probabilities.cpu().numpy()
                if len(group) > 1:
                    gradients.hand_on(sink)
                _check_finite("gradient norm", squares.sqrt(), rows, label)
                _check_finite("projected gradient", g.abs().amax(1), rows, label)
                result["g"][rows] = (g * scale).cpu().numpy()
                result["grad_norm"][rows] = np.sqrt(squares.cpu().numpy())  # torch's is not the same everywhere
                steps.reach(end)
    finally:
        model.train(was_training)
    return result | (recorder.finish() if record else {})


class _Steps:
    """Work of `total` (any unit), told to `done` in shares of n."""

    def __init__(self, n: int, done: Callable[[float], None]):
        self.n, self.done, self.total, self.made, self.told = n, done, 1.0, 0.0, 0.0

    def add(self, k: float) -> None:
        self.reach(self.made + k)

    def reach(self, made: float) -> None:
        self.made = made
        share = self.n * min(1.0, made / self.total)
        if share > self.told:  # the estimate may have been passed
            self.done(share - self.told)
            self.told = share


class Batch:
    """Right-padded inputs of some examples and the positions of their supervised tokens."""

    def __init__(self, examples: Sequence[Example], device: torch.device):
        # The last token predicts nothing, so it is never an input.
        texts = [torch.tensor([*x, *y]) for x, y in examples]
        self.input_ids = nn.utils.rnn.pad_sequence([t[:-1] for t in texts], batch_first=True)  # (B, T)
        self.input_ids = self.input_ids.to(device)
        width = self.input_ids.shape[1]
        at = [torch.arange(len(x) - 1, len(x) - 1 + len(y)) + b * width for b, (x, y) in enumerate(examples)]
        self.at = torch.cat(at).to(device)  # (n,) flat positions
        self.targets = torch.cat([t[len(x) :] for t, (x, _) in zip(texts, examples)]).to(device)
        lengths = torch.tensor([len(y) for _, y in examples])
        self.row = torch.repeat_interleave(torch.arange(len(examples)), lengths).to(device)
        self.lengths = lengths.to(device)
        self.watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None  # sees logits and targets, in order

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Sum over responses of their token means (responses do not meet, so each gets its own gradient); of `Unmade`
        logits a scalar with its gradient. logits (B, T, V); keeps `tokens` (n,), the loss of each, and `losses` and
        `probabilities`, both (B,) float64."""
        wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
        if isinstance(logits, Unmade):
            shares = 1 / self.lengths[self.row].to(wide)
            nll, total = logits.cross_entropy(self.at, self.targets, shares, self.lengths.tolist(), self.watch)
        else:
            chosen = logits.flatten(0, 1)[self.at].to(wide)  # (n, V)
            nll = F.cross_entropy(chosen, self.targets, reduction="none")  # (n,)
            total = (nll / self.lengths[self.row]).sum()
            if self.watch:
                self.watch(chosen.detach(), self.targets)
        self.tokens = nll.detach()
        tokens = self.tokens.double()
        self.losses = self._mean(tokens)
        self.probabilities = self._mean(torch.exp(-tokens))
        return total

    @torch.no_grad()
    def losses_at(self, logits: torch.Tensor, at: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Loss (n,) of the tokens `targets` at flat positions `at` of logits (B, T, V), which may be `Unmade`."""
        if isinstance(logits, Unmade):
            return torch.cat([F.cross_entropy(z, targets[i], reduction="none") for i, z in logits.rows(at)])
        wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
        return F.cross_entropy(logits.detach().flatten(0, 1)[at].to(wide), targets, reduction="none")

    def _mean(self, per_token: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(self.lengths, dtype=per_token.dtype).index_add_(0, self.row, per_token) / self.lengths


def _pair(model, lengths: Sequence[int]) -> list[int]:
    """Two responses, of different length where a batch may hold both, on which an engine is checked."""
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    pair = [by_length[0], by_length[len(by_length) // 4]]
    switch = rope_switch(model.config) if hasattr(model, "config") else None
    if switch and lengths[pair[0]] - 1 <= switch < lengths[pair[1]] - 1:  # never in one batch
        pair[1] = pair[0]
    return pair


def _engine(model, pair, device, dtype, layer_by_layer, done):
    """`layer_by_layer` where it is exact, else OneAtATime, announced. Being known is not enough (a parameter can
    be used outside its own module): two responses are done both ways first and must agree, tensor by tensor."""
    try:
        try:
            fast = _probe(model, layer_by_layer, [pair], device, done)
        except (
            RuntimeError,
            TypeError,
            IndexError,
            AttributeError,
        ) as error:  # of a model that two responses do not fit
            raise Unsupported(f"{type(error).__name__}: {error}") from error
        plain = _probe(model, OneAtATime, [[pair[0]], [pair[1]]], device, done)
        total = torch.stack(list(plain.values())).norm(dim=(0, 2))  # (P, 2, rows) -> (2,)
        for name, exact in plain.items():
            floor = torch.maximum(exact.norm(dim=1), 1e-3 * total)  # (2,)
            error = (fast[name] - exact).norm(dim=1) / floor.clamp_min(1e-30)
            # A student that is itself non-finite passes here: the main pass names the response.
            if (torch.isfinite(total) & ~(error <= _TOLERANCE[dtype])).any():
                raise Unsupported(f"{name} differs from plain autograd by {error.max():.1e} (relative)")
    except Unsupported as reason:
        warnings.warn(f"gradients one response at a time (exact, but slow): {reason}", stacklevel=3)
        return OneAtATime
    return layer_by_layer


def _probe(model, engine, batches, device, done) -> dict[str, torch.Tensor]:
    """Each parameter's gradient, projected by itself to a few numbers: name -> (responses, rows)."""
    projection = SignProjection(_PROBE_ROWS, 0, device, cache_bytes=0)
    n = sum(map(len, batches))
    seen = {
        name: torch.zeros(n, _PROBE_ROWS, dtype=torch.float64, device=device)
        for name in parameter_names(model).values()
    }
    first = 0
    with engine(model, max(map(len, batches)), 8 * MIB) as gradients:
        gradients.done = done
        for rows in batches:
            batch = Batch(rows, device)

            def sink(name, start, block, part=slice(first, first + len(rows))):
                projection.accumulate(seen[name][part], name, start, block)
                done(block.shape[1] * _WORD_ROWS * (len(block) + SIGN_WORK))

            gradients.run(batch.input_ids, batch.loss, sink)
            first += len(rows)
    return seen


def _placed(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    here = all(p.dtype == dtype and p.device.type == device.type for p in model.parameters())
    return model if here else copy.deepcopy(model).to(device=device, dtype=dtype)


def _labels(examples, names):
    if names is not None and len(names) != len(examples):
        raise ValueError(f"response_features: {len(names)} names for {len(examples)} examples; give one each or none")
    return lambda i: f"response {i}" if names is None else f"response {i} ({names[i]})"


def _check_arguments(d, batch_tokens, dtype):
    for name, value in (("d", d), ("batch_tokens", batch_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"response_features: {name} must be at least 1, got {value}")
    if dtype not in _DTYPES:
        raise ValueError(f"response_features: dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")


def _check_examples(model, examples, label):
    config = getattr(model, "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    vocabulary = getattr(config, "vocab_size", None)
    for i, (prompt, response) in enumerate(examples):
        if len(prompt) == 0:
            raise ValueError(
                f"{label(i)}: the prompt is empty, so nothing predicts the first response "
                "token; put at least a BOS token there"
            )
        if len(response) == 0:
            raise ValueError(f"{label(i)}: the response is empty; it needs at least its EOS token")
        total = len(prompt) + len(response)
        if positions is not None and total > positions:
            raise ValueError(
                f"{label(i)}: {len(prompt)} prompt + {len(response)} response tokens exceed "
                f"the model's {positions} positions; shorten the response or drop it"
            )
        if vocabulary is not None:
            low, high = min(min(prompt), min(response)), max(max(prompt), max(response))
            if low < 0 or high >= vocabulary:
                raise ValueError(
                    f"{label(i)}: token id {low if low < 0 else high} is outside the model's "
                    f"vocabulary of {vocabulary}; use the student's own tokenizer"
                )


def _check_finite(what, values, rows, label):
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        k = int(bad[0])
        raise ValueError(
            f"{label(rows[k])}: {what} is {values[k].item()}; look for non-finite student "
            "weights, or use dtype='float32' if this was 'bfloat16'"
        )
