"""Sampling responses from a teacher or a student.

The randomness of every token is keyed by (seed, prompt id, sample, step): one uniform number, turned into a token by
the inverse of the cumulative distribution. So what a prompt gets depends neither on the prompts that share its batch
nor on their order, and a run that is resumed or split over processes writes the same responses. Float rounding may
still flip a token that sits on a boundary; measured in the tests, it does so in fewer than one response in a thousand.
"""

import hashlib
import math
from collections.abc import Callable
from itertools import groupby

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from gracelib.models.checkpoints import load_student
from gracelib.models.prompting import STUDENT_TEMPLATE, Policy, encode_questions, end_token


def _mix(x: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser: 64 well-mixed bits from a 64-bit counter (wraps on purpose)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_keys(seed: int, prompt_ids: list, samples: list[int]) -> np.ndarray:
    """A key per row, determined by (seed, prompt id, sample). Shape (rows,), uint64."""
    digests = (
        hashlib.blake2b(repr((seed, str(p), k)).encode(), digest_size=8).digest()
        for p, k in zip(prompt_ids, samples, strict=True)
    )
    return np.array([int.from_bytes(d, "big") for d in digests], dtype=np.uint64)


def uniforms(keys: np.ndarray, step: int) -> np.ndarray:
    """Uniform numbers in [0, 1), one per row, determined by (key, step). Shape (rows,)."""
    with np.errstate(over="ignore"):
        bits = _mix(keys + np.uint64(step + 1) * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(11)).astype(np.float64) / 2.0**53


class KeyedSampler(LogitsProcessor):
    """Leaves one token per row: the one that the row's keyed uniform number selects, or, in the rows where `greedy`, the
    most probable one (last in a processor list)."""

    def __init__(self, keys: np.ndarray, prompt_length: int, greedy: np.ndarray):
        self.keys, self.prompt_length = keys, prompt_length
        self.greedy = torch.from_numpy(greedy) if greedy.any() else None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        u = torch.from_numpy(uniforms(self.keys, input_ids.shape[1] - self.prompt_length)).to(scores.device)
        cumulative = torch.softmax(scores.double(), -1).cumsum(-1)  # (rows, vocab)
        # A total short of one by rounding must not select a token of probability zero behind the last real one.
        target = torch.minimum(u, cumulative[:, -1] * (1 - 1e-12))
        token = torch.searchsorted(cumulative, target[:, None], right=True)  # (rows, 1)
        if self.greedy is not None:
            token = torch.where(self.greedy[:, None].to(token.device), scores.argmax(-1, keepdim=True), token)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


class _HalfEnded(StoppingCriteria):
    """True as soon as half of the rows have ended; `stepped(rows)` is called for every token."""

    def __init__(self, stop: torch.Tensor, stepped: Callable[[int], object]):
        self.stop, self.stepped, self.ended = stop, stepped, False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        self.stepped(len(input_ids))
        self.ended = torch.isin(input_ids[:, -1], self.stop) | self.ended
        return (self.ended.float().mean() >= 0.5).expand(len(input_ids))


def decode(
    model,
    prompts: list[list[int]],
    keys: np.ndarray,
    *,
    temperature: float,
    top_p: float = 1.0,
    max_new_tokens: int,
    stop: tuple[int, ...],
    greedy: np.ndarray,
    done: Callable[[float], object] = lambda n: None,
) -> list[list[int]]:
    """The new tokens of each row, up to and including the first one of `stop`.

    `prompts`: token ids, all of one length: nothing is padded. `keys`: (rows,) keys of the randomness. `greedy`:
    (rows,), which rows take the most probable token instead; all of them at temperature 0. `done` is called for every
    token, with the responses that it is, in fractions of the longest.

    A row that has ended is carried along by `generate` until the last one ends, and attention and its cache are most of
    the work. So half ended is a stop: the others go on from their part of the cache.
    """
    length = len(prompts[0])
    ids = torch.tensor(prompts, device=model.device)  # (rows, length), of the rows that have not ended
    stops = torch.tensor(stop, device=model.device)
    found: list[list[int]] = [[] for _ in prompts]
    rows, cache = np.arange(len(prompts)), {}
    while len(rows):
        processors = LogitsProcessorList()
        if temperature > 0:
            processors.append(TemperatureLogitsWarper(float(temperature)))
            if top_p < 1:
                processors.append(TopPLogitsWarper(top_p))
            processors.append(KeyedSampler(keys[rows], length, greedy[rows]))
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=1,
            **cache,
            max_new_tokens=length + max_new_tokens - ids.shape[1],
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([_HalfEnded(stops, lambda k: done(k / max_new_tokens))]),
            eos_token_id=list(stop),
            pad_token_id=stop[0],
            return_dict_in_generate=True,
        )
        ids = out.sequences
        ends = torch.isin(ids[:, length:], stops)  # (rows, new tokens)
        ended = ends.any(1) if ids.shape[1] < length + max_new_tokens else torch.ones_like(ends[:, 0])
        for row in ended.nonzero().flatten().tolist():
            last = int(ends[row].int().argmax()) + 1 if ends[row].any() else max_new_tokens
            found[rows[row]] = ids[row, length : length + last].tolist()
        left = (~ended).nonzero().flatten()
        rows, ids = rows[left.cpu().numpy()], ids[left]
        cache = _of_rows(out.get("past_key_values"), left) if len(rows) else {}
    return found


def _of_rows(cache, rows: torch.Tensor) -> dict:
    """What `generate` is told of the past of these rows: nothing, so that it reads their tokens again, for a model whose
    past is more than keys and values (a state space model's)."""
    layers = getattr(cache, "layers", [])
    if not layers or not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return {}
    cache.batch_select_indices(rows.cpu())  # the layers may lie on several devices
    return {"past_key_values": cache}


def batches(items: list, size: int, length: Callable) -> list[list]:
    """The items in groups of at most `size`, all of one `length`, the shortest first; else in their order."""
    groups = [[*group] for _, group in groupby(sorted(items, key=length), key=length)]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def decode_all(
    model, prompts: list[list[int]], keys: np.ndarray, *, greedy: np.ndarray, batch_size: int, **settings
) -> list[list[int]]:
    """`decode` for prompts sorted by length: at most `batch_size` at a time, and only of one length."""
    found: list[list[int]] = []
    for same in batches(prompts, batch_size, len):
        rows = slice(len(found), len(found) + len(same))
        found += decode(model, same, keys[rows], greedy=greedy[rows], **settings)
    return found


def read(tokenizer, ids: list[int], stop: tuple[int, ...]) -> tuple[str, bool]:
    """(text before the first stop token, whether there was none)."""
    end = next((i for i, token in enumerate(ids) if token in stop), None)
    return tokenizer.decode(ids[:end], skip_special_tokens=True), end is None


def check_sampling(
    prompts: list[dict], m: int, temperature: float, top_p: float, max_new_tokens: int, batch_size: int | None
) -> None:
    """ValueError for settings that make no sense."""
    for name, value in (("m", m), ("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if not 0 <= temperature < math.inf or (temperature == 0 and m > 1):
        raise ValueError(
            f"temperature={temperature} with m={m}: use a positive temperature, or m=1 for greedy decoding"
        )
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} is outside (0, 1]")
    if not prompts:
        raise ValueError("no prompts to sample for")


@torch.inference_mode()
def sample_responses(
    model,
    tokenizer,
    prompts: list[dict],
    *,
    m: int,
    temperature: float,
    seed: int,
    max_new_tokens: int,
    top_p: float = 1.0,
    batch_size: int = 1024,
    template: str = STUDENT_TEMPLATE,
    greedy: bool = False,
) -> list[dict]:
    """`m` responses for each prompt, as texts without special tokens.

    Parameters
    ----------
    prompts : rows with `id` and `question` (other keys are kept).
    temperature : 0 decodes greedily (m must then be 1: all samples would be equal).
    batch_size : sequences decoded together; it changes speed and memory, not the responses.
    greedy : also decode every prompt greedily, in the same batches: cheaper than a second call.

    Returns
    -------
    The prompt rows in the given order, each with `responses` (list of m texts) and `n_truncated` (how many of them ran
    into max_new_tokens without ending), and `greedy` (a text) if asked for.

    Raises
    ------
    ValueError
        m, max_new_tokens or batch_size < 1, a negative temperature, temperature 0 with m > 1, top_p outside (0, 1], no
        prompts, a tokenizer without EOS.
    """
    check_sampling(prompts, m, temperature, top_p, max_new_tokens, batch_size)
    stop = (end_token(tokenizer, Policy(template)),)
    encoded = encode_questions(tokenizer, [row["question"] for row in prompts], Policy(template))
    jobs = [(i, k) for i in range(len(prompts)) for k in range(m + greedy)]  # sample m is the greedy one
    # Prompts of one length share a batch: nothing is padded, so no attention mask is needed.
    jobs.sort(key=lambda job: len(encoded[job[0]]))
    model.eval()
    own_config, model.generation_config = model.generation_config, GenerationConfig()  # no penalty we did not ask for
    try:
        found = decode_all(
            model,
            [encoded[i] for i, _ in jobs],
            row_keys(seed, [prompts[i]["id"] for i, _ in jobs], [k for _, k in jobs]),
            greedy=np.array([k == m for _, k in jobs]),
            batch_size=batch_size,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            stop=stop,
        )
    finally:
        model.generation_config = own_config
    texts = {job: read(tokenizer, ids, stop) for job, ids in zip(jobs, found, strict=True)}
    return [
        {
            **row,
            "responses": [texts[i, k][0] for k in range(m)],
            "n_truncated": sum(texts[i, k][1] for k in range(m)),
            **({"greedy": texts[i, m][0]} if greedy else {}),
        }
        for i, row in enumerate(prompts)
    ]


class TransformersEngine:
    """The engine that needs nothing but torch: a model in this process, on any device.

    Prompts of the built-in world get the very texts that `sample_responses` gives them. What is added are prompts that
    are encoded already (chat templates) and several tokens that end a response (real chat models have an end of turn
    beside EOS).
    """

    def __init__(self, model: str, dtype: str, device: str):
        self.done: Callable[[float], object] = lambda n: None  # told of prompts, in fractions, while they are sampled
        self.model, _ = load_student(model, dtype, device)
        self.model.generation_config = GenerationConfig()  # no penalty we did not ask for

    @torch.inference_mode()
    def tokens(self, requests, settings: dict) -> list[list[list[int]]]:
        """The new tokens of the samples of each request (`settings`: as `sampling.sample` writes them down), up to and including the first stop token. The requests'
        prompts must be of one length: nothing is padded."""
        rows = [(request, k) for request in requests for k in range(settings["m"])]
        found = decode_all(
            self.model,
            [request.ids for request, _ in rows],
            row_keys(settings["seed"], [request.id for request, _ in rows], [k for _, k in rows]),
            greedy=np.zeros(len(rows), dtype=bool),
            batch_size=settings["batch_size"],
            temperature=settings["temperature"],
            top_p=settings["top_p"],
            max_new_tokens=requests[0].room,
            stop=settings["stop_tokens"],
            done=lambda n: self.done(n / settings["m"]),
        )
        return [found[i : i + settings["m"]] for i in range(0, len(found), settings["m"])]
