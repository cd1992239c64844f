"""What sampling needs before a model is loaded: settings that make sense, prompts as tokens, what ends a response.

Apart from `backends`, because all of it is checked and computed in seconds, from the tokenizer and the configuration
alone: a mistake costs no hour on a GPU.
"""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig

from gracelib.jobs.store import digest
from gracelib.models.devices import DTYPES
from gracelib.models.prompting import chat_ids, encode_question

BACKENDS = ("transformers", "vllm")
STYLES = ("chat", "student")


@dataclass(frozen=True)
class Request:
    """One prompt as an engine sees it: its tokens, and how many new ones may follow."""

    id: str | int
    ids: list[int]
    room: int


@dataclass(frozen=True)
class Sampling:
    """How to sample; `stop`: the tokens that end a response."""

    m: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[int, ...]
    batch_size: int


def check_settings(
    prompts, m, temperature, top_p, max_new_tokens, backend, style, dtype, tensor_parallel_size, batch_size, seed
) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not known; choose one of {list(BACKENDS)}")
    if style not in STYLES:
        raise ValueError(f"style {style!r} is not known; choose one of {list(STYLES)}")
    for name, value in (
        ("m", m),
        ("max_new_tokens", max_new_tokens),
        ("tensor_parallel_size", tensor_parallel_size),
        ("batch_size", batch_size),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed}: must be at least 0 and less than 2**63")
    if not 0 <= temperature < math.inf or (temperature == 0 and m > 1):
        raise ValueError(
            f"temperature={temperature} with m={m}: use a positive temperature, or m=1 for greedy decoding"
        )
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} is outside (0, 1]")
    if backend == "transformers" and tensor_parallel_size > 1:
        raise ValueError(
            f"tensor_parallel_size={tensor_parallel_size}: only the vllm backend shares a model between GPUs"
        )
    if dtype not in ("auto", *DTYPES) or (backend == "vllm" and dtype == "float64"):
        raise ValueError(f"dtype {dtype!r} is not one of {['auto', *DTYPES[: 2 if backend == 'vllm' else None]]}")
    if not prompts:
        raise ValueError("no prompts to sample for")
    seen = {}
    for number, row in enumerate(prompts, 1):
        for field in ("id", "question"):
            if field not in row:
                raise ValueError(f"prompt {number}: field {field!r} is missing; it has {sorted(row)}")
        if not isinstance(row["question"], str) or not row["question"].strip():
            raise ValueError(f"prompt {row['id']!r}: question {row['question']!r} is not text")
        if str(row["id"]) in seen:
            raise ValueError(f"prompt {number}: id {row['id']!r} is prompt {seen[str(row['id'])]}'s already")
        seen[str(row["id"])] = number


def encode_prompts(tokenizer, config, prompts, style, policy, instruction, system, max_new_tokens):
    """(ids, room) of each prompt; ValueError if one leaves no room for an answer."""
    text = config.get_text_config()
    reads = getattr(text, "max_position_embeddings", None) or sys.maxsize
    shortened = 0
    for row in prompts:
        ids = (
            chat_ids(tokenizer, row["question"], instruction, system)
            if style == "chat"
            else encode_question(tokenizer, row["question"], policy)
        )
        if not len(ids) < reads:
            raise ValueError(
                f"prompt {row['id']!r} has {len(ids)} tokens, but the model reads {reads} with its answer; drop it"
            )
        shortened += reads - len(ids) < max_new_tokens
        yield ids, min(max_new_tokens, reads - len(ids))
    if shortened:
        print(
            f"{shortened} of {len(prompts)} prompts leave room for fewer than max_new_tokens={max_new_tokens} "
            f"tokens, because the model reads {reads} in all",
            file=sys.stderr,
        )


def stop_tokens(model: str, tokenizer) -> tuple[int, ...]:
    """What ends a response: the tokenizer's EOS, and what the checkpoint declares beside it (end of turn)."""
    try:
        declared = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError as error:  # a checkpoint without generation_config.json
        if (Path(model) / "generation_config.json").is_file():
            raise ValueError(
                f"model {model!r}: its generation_config.json cannot be read "
                f"({' '.join(str(error).split())}); correct it or remove it"
            ) from error
        declared = None
    declared = declared if isinstance(declared, list) else [declared]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *(token for token in declared if token is not None)]))


def own_dtype(config) -> str:
    """float32 for a checkpoint of it, bfloat16 for one of half precision."""
    return "float32" if getattr(config.get_text_config(), "dtype", None) in (None, torch.float32) else "bfloat16"


def model_digest(model: str, config) -> str:
    """What tells one checkpoint from another: of a hub id its commit; of a folder its files' sizes and both their
    ends (hashing 140 GB would take longer than loading them)."""
    if not Path(model).is_dir():
        return f"{model}@{getattr(config, '_commit_hash', None)}"
    parts = []
    for path in sorted(
        p for p in Path(model).iterdir() if p.suffix in (".json", ".safetensors", ".bin", ".model", ".jinja")
    ):
        with open(path, "rb") as f:
            size = path.stat().st_size
            head = f.read(1 << 20)
            f.seek(max(0, size - (1 << 20)))
            parts.append([path.name, size, hashlib.sha256(head + f.read()).hexdigest()])
    return digest(parts)
