"""Distillation from the teacher's next-token distributions, in place of its words alone: the objectives in use since.

Each but one is a divergence of two distributions over the vocabulary at each token, averaged over the supervised tokens of a
batch as the cross-entropy is (sequence-level distillation, the paper's), so all else about fine-tuning stays: order, schedule,
micro-batches, resuming. PLaD compares whole responses, the teacher's and the student's own, and is averaged over pairs.

Why not TRL's trainers: GKDTrainer and DPOTrainer (1.16) train the world's models to the same losses, about as fast, but GKD and
ULD (GOLDTrainer) are experimental there, DistiLLM and TAID are in none, and what a run of the small scales needs is in the base
environment. So the formulas are here; a test holds GKD against TRL's where that is installed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import cross_entropy, logsigmoid, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, Trainer

from gracelib.checks import positions
from gracelib.models.checkpoints import check_student, load_student
from gracelib.models.decoding import decode_all, row_keys
from gracelib.models.training import IGNORED, collate

# Log-probabilities of student and teacher, (tokens, V) each (of ULD each over its own V; see `plad` for its own); a number of
# the objective's; the share of training done.
Divergence = Callable[[torch.Tensor, torch.Tensor, float, float], torch.Tensor]


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of log-probabilities (tokens, V); (tokens,)."""
    return (p.exp() * (p - q)).sum(-1)


def mixed(p: torch.Tensor, q: torch.Tensor, share: float) -> torch.Tensor:
    """Log-probabilities of share p + (1 - share) q, with 0 < share < 1."""
    return torch.logaddexp(p + np.log(share), q + np.log1p(-share))


def gkd(student: torch.Tensor, teacher: torch.Tensor, beta: float, done: float) -> torch.Tensor:
    """The generalised Jensen-Shannon divergence of GKD (arXiv 2306.13649): forward KL at beta 0, reverse KL at 1."""
    if beta in (0, 1):
        return kl(student, teacher) if beta else kl(teacher, student)
    middle = mixed(teacher, student, beta)
    return beta * kl(teacher, middle) + (1 - beta) * kl(student, middle)


def skew(student: torch.Tensor, teacher: torch.Tensor, alpha: float, done: float) -> torch.Tensor:
    """DistiLLM's skew KL (arXiv 2402.03898): KL(p || alpha p + (1 - alpha) q), p the teacher, q the student."""
    return kl(teacher, mixed(teacher, student, alpha))


def skew_reverse(student: torch.Tensor, teacher: torch.Tensor, alpha: float, done: float) -> torch.Tensor:
    """DistiLLM's skew reverse KL: KL(q || alpha q + (1 - alpha) p)."""
    return kl(student, mixed(student, teacher, alpha))


def taid(student: torch.Tensor, teacher: torch.Tensor, start: float, done: float) -> torch.Tensor:
    """TAID (arXiv 2501.16937): forward KL from a mixture of the logits, student's to teacher's, whose teacher's share goes
    from `start` to 1. It grows linearly here; the source adapts its pace within that."""
    t = start + (1 - start) * done
    return kl(((1 - t) * student.detach() + t * teacher).log_softmax(-1), student)


def uld(student: torch.Tensor, teacher: torch.Tensor, weight: float, done: float) -> torch.Tensor:
    """ULD (arXiv 2402.12030): the sum of the differences of both distributions, each sorted, times `weight`. The smaller
    vocabulary gets probabilities of zero, so none need be in common."""
    pair = [x.exp().sort(-1, descending=True).values for x in (student, teacher)]
    size = max(x.shape[-1] for x in pair)
    q, p = (pad(x, (0, size - x.shape[-1])) for x in pair)
    return weight * (p - q).abs().sum(-1)


def plad(student: torch.Tensor, before: torch.Tensor, beta: float, done: float) -> torch.Tensor:
    """PLaD (arXiv 2406.02886), by the loss of DPO (arXiv 2305.18290): -log sigmoid of beta times what the teacher's response
    gained over the rejected one. Log-probabilities of responses, of the teacher's (pairs,) and then of the rejected ones, under
    the student as it is and as it was before training."""
    better, worse = (student - before).chunk(2)
    return -logsigmoid(beta * (better - worse))


@dataclass(frozen=True)
class Objective:
    """A divergence with its number (the source's), on the teacher's responses or on samples of the student. `words`: added
    to the cross-entropy, and the teacher reads the text with its own tokenizer. `pairs`: of responses and of others that are
    rejected for them; no teacher but its words, and the student before training in its place."""

    divergence: Divergence
    number: float
    on_policy: bool = False
    words: bool = False
    pairs: bool = False


OBJECTIVES = {
    "gkd": Objective(gkd, 0.5),
    "on-policy": Objective(gkd, 1.0, True),  # reverse KL on the student's own samples, the place of MiniLLM
    "skew": Objective(skew, 0.1),
    "skew-reverse": Objective(skew_reverse, 0.1),
    "taid": Objective(taid, 0.4),
    "uld": Objective(uld, 1.5, words=True),
    "plad": Objective(plad, 0.1, pairs=True),
}
SEQUENCE = "sequence"  #: the paper's: no divergence, the cross-entropy


def find_objective(name: str, beta: float | None = None) -> Objective | None:
    """The objective of that name; None: the paper's. ValueError for one that is not known, a beta outside [0, 1] or where
    there is none."""
    if name not in (SEQUENCE, *OBJECTIVES):
        raise ValueError(f"objective {name!r} is not known; choose one of {', '.join((SEQUENCE, *OBJECTIVES))}")
    found = OBJECTIVES.get(name)
    if beta is None:
        return found
    usable = {gkd: 0 <= beta <= 1, plad: 0 < beta < np.inf}
    if not found or not usable.get(found.divergence):
        raise ValueError(
            f"beta={beta} with objective {name}: gkd and on-policy have one, from 0 (forward KL) to 1 (reverse KL), and plad "
            "one above 0"
        )
    return replace(found, number=beta)


def load_teacher(source: str | os.PathLike, tokenizer, dtype: str = "float32", common: bool = True) -> tuple:
    """A teacher and its tokenizer. common: its distributions must be over the vocabulary of the student's `tokenizer`;
    ValueError, before its weights are read, for another one, or as `load_student`."""
    own, its = tokenizer.get_vocab(), check_student(source)[1].get_vocab()
    if common and own != its:
        raise ValueError(
            f"teacher {os.fspath(source)!r}: {len(own.items() ^ its.items())} entries of its vocabulary are not as the "
            "student's, so their distributions cannot be compared word by word; choose objective uld, which needs no common "
            "vocabulary, a teacher with the student's tokenizer, or text alone (objective sequence)"
        )
    return load_student(source, dtype)


def collate_pairs(examples: list[dict]) -> dict[str, torch.Tensor]:
    """`input_ids` and `labels`, (2 batch, longest), right-padded: the examples, and in the same order what each has as
    `rejected`."""
    ids, labels = [], []
    for e in [*examples, *(e["rejected"] for e in examples)]:
        ids.append(torch.tensor(e["input_ids"]))
        labels.append(torch.tensor([IGNORED] * e["n_masked"] + e["input_ids"][e["n_masked"] :]))
    return {"input_ids": pad_sequence(ids, True), "labels": pad_sequence(labels, True, IGNORED)}


class TokenMean(Trainer):
    """A Trainer of a loss that is averaged over all supervised tokens of the global batch: here the cross-entropy."""

    def __init__(self, **how):
        super().__init__(compute_loss_func=self._share, **how)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.ids = inputs["input_ids"]
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _share(self, outputs, labels, num_items_in_batch=None) -> torch.Tensor:
        """The micro-batch's, of `num_items_in_batch` tokens; position t predicts token t + 1."""
        wanted = labels[:, 1:] != IGNORED  # (B, T - 1)
        # Only supervised positions are copied to float32: with a vocabulary of 128,000 the others would be gigabytes.
        return self.summed_loss(outputs["logits"][:, :-1][wanted], labels[:, 1:], wanted) / num_items_in_batch

    def summed_loss(self, logits: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """logits (tokens, V) of the `wanted` tokens of labels (B, T - 1)."""
        return cross_entropy(logits.float(), labels[wanted], reduction="sum")


class FromTeacher(TokenMean):
    """The loss is the divergence of an objective from a teacher. `tokenizers`: the student's and the teacher's; `read`: of
    each example, by the student's ids, prompt and response as the teacher reads them (empty: the same ids); `stop`: the token
    that ends a response; `seed`: of the student's samples."""

    def __init__(self, *, objective: Objective, teacher, tokenizers: tuple, read: dict, stop: int, seed: int, **how):
        super().__init__(**how)
        self.objective, self.read, self.stop, self.seed = objective, read, stop, seed
        self.teacher = teacher.to(self.args.device)
        self.reads = min(positions(self.model.config), positions(teacher.config))
        # Relatives pad their embeddings to different sizes: no token is there.
        self.n_words = [max(tokenizer.get_vocab().values()) + 1 for tokenizer in tokenizers]

    def summed_loss(self, logits: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        words = super().summed_loss(logits, labels, wanted) if self.objective.words else 0.0
        with torch.no_grad():
            if self.read:
                taught, told = self._own_reading(wanted)
            else:
                taught, told = self.teacher(input_ids=self.ids, use_cache=False).logits[:, :-1][wanted], slice(None)
        pair = [x[:, :n].float().log_softmax(-1) for x, n in zip((logits[told], taught), self.n_words, strict=True)]
        if self.objective.pairs:
            sizes, said = wanted.sum(1).tolist(), labels[wanted][:, None]
            pair = [torch.stack([own.sum() for own in x.gather(1, said).split(sizes)]) for x in pair]
        done = self.state.global_step / self.state.max_steps
        return words + self.objective.divergence(*pair, self.objective.number, done).sum()

    def _own_reading(self, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The teacher's logits of each response as it reads it, and which of the wanted tokens have one: the k-th of the
        student's goes with the k-th of the teacher's, and what the longer reading has beyond the shorter is left out."""
        found, told = [], []
        for ids, own in zip(self.ids, wanted, strict=True):
            prompt, response = self.read[tuple(ids[: int(own.nonzero()[-1]) + 2].tolist())]
            theirs = torch.tensor([prompt + response], device=ids.device)
            found.append(self.teacher(input_ids=theirs, use_cache=False).logits[0, len(prompt) - 1 : -1][: own.sum()])
            told.append(torch.arange(int(own.sum()), device=ids.device) < len(response))
        return torch.cat(found), torch.cat(told)

    def _get_num_items_in_batch(self, batches: list[dict], device):
        """What the loss is averaged over: pairs, where the Trainer counts supervised tokens."""
        if self.objective.pairs:
            counted = [batch["labels"].chunk(2)[0][:, 0] * 0 for batch in batches]  # one a pair, and none is IGNORED
            batches = [{"labels": one, "shift_labels": one} for one in counted]
        return super()._get_num_items_in_batch(batches, device)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of one step: here is the last moment to sample from the student as it is."""
        batches, n_tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.objective.on_policy:
            batches = [self._sampled(batch, k) for k, batch in enumerate(batches)]
            n_tokens = self._get_num_items_in_batch(batches, device)
        return batches, n_tokens

    @torch.no_grad()
    def _sampled(self, batch: dict, k: int) -> dict:
        """Batch k of a step with a sample of the student in place of each response, cut where the longest of them ends."""
        starts = (batch["labels"] != IGNORED).int().argmax(1).tolist()  # where a response begins
        room = min(batch["input_ids"].shape[1] - min(starts), self.reads - max(starts))
        prompts = sorted((ids[:start].tolist() for ids, start in zip(batch["input_ids"], starts, strict=True)), key=len)
        usual, self.model.generation_config = self.model.generation_config, GenerationConfig()  # no penalty
        found = decode_all(
            self.model.eval(),
            prompts,
            row_keys(self.seed, [(self.state.global_step, k)] * len(prompts), [*range(len(prompts))]),
            greedy=np.zeros(len(prompts), bool),
            batch_size=len(prompts),
            temperature=1.0,
            max_new_tokens=room,
            stop=(self.stop,),
        )
        self.model.generation_config = usual
        return collate([{"input_ids": p + r, "n_masked": len(p)} for p, r in zip(prompts, found, strict=True)])
