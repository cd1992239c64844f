"""What the forward pass of the features tells beside the loss, for the scores that were published after GRACE.

Why here: nearly all of them are means over a response's tokens of something that the logits say (how likely, how
surprising, how spread), and the logits are there once, for the gradients. So they are looked at before they go, a few rows
at a time; nothing is kept of them but five numbers a supervised token, and none of the numbers that the gradients are made
of is touched.

Of each supervised token y_t with the student's logits z_t and p_t = softmax(z_t), one flat array over all responses, in
their order (`length` says where each ends):

    token_logprob  log p_t(y_t)                        float32
    token_rank     1 + #{v : z_t[v] > z_t[y_t]}        uint8, at most RANK_MOST
    token_entropy  - sum_v p log p, in nats            float32
    token_brier    1 - 2 p_t(y_t) + sum_v p_t(v)^2     float16
    token_brier50  the same with p_t of the TOP most likely tokens alone, made to add up to 1 (p_t(y_t) = 0 outside)  float16

which is TOKEN_BYTES a token; float64 features keep float64. And of each response: vocabulary, the number of logits;
prompt_loss, content_loss, the mean loss of the prompt's tokens after its first and of the response's, special tokens left
out; act_self = |mu_A|^2 and act_cross = mu_A . mu_Q, where mu is the mean of the unit vectors that the last layer's
`mlp.up_proj` puts out over the response's tokens (A; the last one is no input, so it is not among them) and the prompt's
(Q), special tokens left out. NaN where no token is left. A student without that module has no act_self and act_cross.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

RANK_MOST, TOP = 100, 50
CHUNK_BYTES = 2 << 20  # of logits looked at together: what is made of them stays near the cores
TOKEN = {
    "token_logprob": np.float32,
    "token_rank": np.uint8,
    "token_entropy": np.float32,
    "token_brier": np.float16,
    "token_brier50": np.float16,
}
TOKEN_BYTES = sum(np.dtype(kind).itemsize for kind in TOKEN.values())
RESPONSE = ("vocabulary", "prompt_loss", "content_loss", "act_self", "act_cross")


def up_projection(model: nn.Module) -> nn.Module | None:
    """`mlp.up_proj` of the last decoder layer; None where there is none (GPT-2, Phi-3, mixtures of experts)."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=())
    found = dict(layers[-1].named_modules()).get("mlp.up_proj") if len(layers) else None
    return found if isinstance(found, nn.Linear) else None


def of_tokens(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Rank, entropy and both Brier terms (n,) of the tokens `targets` (n,) under `logits` (n, V), float32 or float64."""
    step, found = max(1, CHUNK_BYTES // (logits.element_size() * logits.shape[1])), []
    for z, y in zip(logits.split(step), targets[:, None].split(step), strict=True):
        log_p = torch.log_softmax(z, 1)
        own = log_p.gather(1, y).exp().squeeze(1)  # p(y)
        rank = 1 + (z > z.gather(1, y)).sum(1, dtype=torch.int32)
        log_p.clamp_(min=-500)  # of a token that is ruled out, -inf: 0 log 0 is 0
        p = torch.softmax(z, 1)
        top = _largest(p) if p.shape[1] > TOP else p
        mass, inside = top.sum(1), rank <= TOP
        brier = [1 - 2 * own + _dot(p, p), 1 - 2 * own * inside / mass + _dot(top, top) / mass.square()]
        found.append((rank.clamp_max(RANK_MOST), -_dot(p, log_p), *brier))
    return tuple(map(torch.cat, zip(*found, strict=True)))


def _largest(p: torch.Tensor) -> torch.Tensor:
    """The TOP largest of each row (n, TOP) of numbers >= 0, in no order. numpy's partition takes a seventh of the time of torch's
    topk, and half of that on whole numbers: the bits of numbers >= 0 stand in their order."""
    if p.device.type != "cpu":
        return p.topk(TOP, 1, sorted=False).values
    bits, rest = p.numpy().view(f"i{p.element_size()}"), p.shape[1] - TOP
    return torch.from_numpy(np.partition(bits, rest, axis=1)[:, rest:].view(p.numpy().dtype))


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vecdot(a, b)


class Recorder:
    """Takes down what the module's head lists while `model` is run on `examples` (context manager: hooks the model).

    special: ids of tokens that are no text. `arrays`: what was found, when all responses were run."""

    def __init__(self, model: nn.Module, examples: Sequence, wide: torch.dtype, special: Sequence[int] = ()):
        self.module, self.special = up_projection(model), torch.tensor(sorted(special), dtype=torch.long)
        self.sizes = np.array([(len(x), len(y)) for x, y in examples]).reshape(-1, 2)
        ends = np.cumsum([0, *self.sizes[:, 1]])
        self.parts = [np.arange(a, b) for a, b in pairwise(ends)]
        kinds = TOKEN if wide == torch.float32 else dict.fromkeys(TOKEN, np.float64) | {"token_rank": np.uint8}
        self.arrays = {name: np.zeros(ends[-1], kind) for name, kind in kinds.items()}
        there = RESPONSE if self.module else RESPONSE[:3]
        self.arrays |= {name: np.full(len(examples), np.nan) for name in there}
        first: dict = {}
        self.first = np.array([first.setdefault(tuple(x), i) for i, (x, _) in enumerate(examples)])  # with this prompt
        self._batch = None

    def __enter__(self):
        self._handle = self.module.register_forward_hook(self._activations) if self.module else None
        return self

    def __exit__(self, *exc):
        if self._handle:
            self._handle.remove()

    def begin(self, rows: Sequence[int], batch) -> None:
        """The next forward pass is of these responses, `batch` (`gradients.Batch`), whose `watch` is set."""
        self._rows, self._batch, self._seen, batch.watch = rows, batch, [], self._tokens
        ids = batch.input_ids
        at = torch.arange(ids.shape[1], device=ids.device)[None]
        prompt, response = (torch.tensor(v, device=ids.device)[:, None] for v in self.sizes[rows].T)
        text = self._is_text(ids)
        self._prompt = (at < prompt) & text  # (B, T)
        self._response = (at >= prompt) & (at < prompt + response - 1) & text

    def _is_text(self, ids: torch.Tensor) -> torch.Tensor:
        if not len(self.special):
            return torch.ones_like(ids, dtype=torch.bool)
        return ~torch.isin(ids, self.special.to(ids.device))

    def _tokens(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        with torch.no_grad():
            self._seen.append(of_tokens(logits, targets))
        self._vocabulary = logits.shape[1]

    def _activations(self, module, args, out) -> None:
        """Of the pass on the way up only: layers may run again on the way down."""
        if self._batch is None or out.shape[:2] != self._batch.input_ids.shape:
            return
        x = out.detach() if out.dtype == torch.float64 else out.detach().float()  # (B, T, I)
        size = torch.linalg.vector_norm(x, dim=-1).clamp_min(1e-30)
        sets = torch.stack([self._response, self._prompt], 1)  # (B, 2, T)
        mean = torch.bmm(sets.to(x) / sets.sum(2, keepdim=True) / size[:, None], x)  # (B, 2, T) @ (B, T, I)
        for name, other in (("act_self", mean[:, 0]), ("act_cross", mean[:, 1])):
            self.arrays[name][self._rows] = _dot(mean[:, 0], other).cpu().numpy()

    @torch.no_grad()
    def end(self, logits, nll: torch.Tensor) -> None:
        """After the loss: logits as the model gave them (B, T, V) or `Unmade`; nll (n,) of the supervised tokens."""
        batch, rows = self._batch, self._rows
        where = np.concatenate([self.parts[i] for i in rows])
        for name, values in zip(TOKEN, (-nll, *map(torch.cat, zip(*self._seen, strict=True))), strict=True):
            self.arrays[name][where] = values.cpu().numpy()
        self.arrays["vocabulary"][rows] = self._vocabulary
        self.arrays["content_loss"][rows] = self._means(nll, batch.row, self._is_text(batch.targets))
        new = torch.tensor(self.first[rows] == rows, device=nll.device)[:, None]  # a prompt is looked at once
        row, at = torch.nonzero(self._prompt[:, 1:] & new, as_tuple=True)
        targets, found = batch.input_ids[row, at + 1], nll[:0]
        if len(row):
            found = batch.losses_at(logits, row * batch.input_ids.shape[1] + at, targets)
        self.arrays["prompt_loss"][rows] = self._means(found, row, torch.ones_like(row, dtype=torch.bool))
        self._batch = None

    def _means(self, losses: torch.Tensor, row: torch.Tensor, counts: torch.Tensor) -> np.ndarray:
        """Mean (B,) of the losses of each row that count; NaN where a row has none."""
        row, weights = row.cpu().numpy(), (torch.where(counts, losses, 0), counts)
        sums, n = (np.bincount(row, w.double().cpu().numpy(), len(self._rows)) for w in weights)
        with np.errstate(invalid="ignore"):
            return sums / n

    def finish(self) -> dict[str, np.ndarray]:
        """All arrays."""
        self.arrays["prompt_loss"] = self.arrays["prompt_loss"][self.first]
        return self.arrays
