"""Responses of one model to one list of prompts: one function, two engines, one file.

`transformers` runs anywhere and draws each token from a number keyed by (seed, prompt, sample, step), as
`gracelib.models.decoding` does; `vllm` is what makes thousands of long answers of a large teacher affordable. Prompts
are encoded, answers are ended and read here, so both engines see the same tokens and stop at the same ones;
they differ in their random numbers and in rounding, not in what they sample from. Nothing that a checkpoint
recommends (penalties, top-k, a temperature) is applied unless asked for. All that the tokenizer and the configuration
can tell is checked before a model is loaded: a mistake costs no hour on a GPU.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock
from tqdm import tqdm
from transformers import GenerationConfig

from gracelib.jobs.store import digest, versions
from gracelib.models.checkpoints import DTYPES, check_student, resolve_device
from gracelib.models.decoding import TransformersEngine
from gracelib.models.prompting import TEACHER_INSTRUCTION, Policy, chat_ids, encode_question
from gracelib.models.sampled_file import GenerationFile

BACKENDS = ("transformers", "vllm")
STYLES = ("chat", "student")
#: Sequences decoded together: what fits beside a model of a few billion parameters. vllm schedules for itself:
#: there it says how often finished prompts are written.
BATCH_SIZE = {"transformers": 64, "vllm": 4096}


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


class Engine(Protocol):
    """A loaded model."""

    def tokens(self, requests: list[Request], sampling: Sampling) -> list[list[list[int]]]:
        """The new tokens of `m` samples of each request; what follows the first stop token does not count."""


def sample(
    model: str | Path,
    prompts: list[dict],
    *,
    out: Path,
    m: int,
    temperature: float,
    max_new_tokens: int,
    backend: str = "transformers",
    top_p: float = 1.0,
    seed: int = 0,
    style: str = "chat",
    policy: Policy = Policy(),
    instruction: str = TEACHER_INSTRUCTION,
    system: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    tensor_parallel_size: int = 1,
    batch_size: int | None = None,
    progress: bool = True,
    loaded: dict | None = None,
) -> Path:
    """Sample `m` responses to each prompt into the JSONL file `out`: finished work is reused, a killed run
    continued.

    Parameters
    ----------
    model : folder of a checkpoint, or hub id.
    prompts : rows with `id` and `question`; `answer` is kept.
    temperature : 0 decodes greedily (m must then be 1). The paper: 0.3 to 1.0 for teachers, 1.0 to evaluate.
    max_new_tokens : a response is cut there, or where the model reads no further; `n_truncated` counts it.
    backend : "transformers" or "vllm" (imported only then).
    style : "chat": `instruction`, blank line, question in the chat template (teachers); "student": template and
        BOS of `policy` (students; the same as in training and for gradients).
    dtype : "float32", "bfloat16", "float64" (transformers only); "auto": float32 for a checkpoint of it, else
        bfloat16.
    device : of the transformers backend; "auto": CUDA where present.
    tensor_parallel_size : GPUs that share the model (vllm only).
    batch_size : sequences decoded together; None: `BATCH_SIZE`. Changes speed, memory and rounding.
    loaded : give the same dict to several calls and they share the loaded model.

    Returns
    -------
    `out`. One row a prompt, in the given order: `id`, `question`, `answer` (None if not given), `responses` (m
    texts without special tokens), `n_truncated`. The sidecar `.NAME.settings.json` beside it holds settings,
    versions and a checksum.

    Raises
    ------
    ValueError
        before a model is loaded: settings that make no sense, prompts without id or question or with one id
        twice, a prompt longer than the model reads, no chat template, vllm not installed, `out` or its .part
        made with other settings.
    """
    check_settings(
        prompts, m, temperature, top_p, max_new_tokens, backend, style, dtype, tensor_parallel_size, batch_size, seed
    )
    if backend == "vllm":
        from gracelib.models import vllm_engine

        engine_version = {"vllm": vllm_engine.version()}
    else:
        engine_version = {}
    place = os.path.expanduser(model)
    model = place if os.path.isdir(place) else str(model)
    config, tokenizer = check_student(model)
    dtype = own_dtype(config) if dtype == "auto" else dtype
    if backend == "transformers":  # vllm asks for itself, in its own processes
        device = resolve_device(device)
    requests = [
        Request(row["id"], ids, room)
        for row, (ids, room) in zip(
            prompts,
            encode_prompts(tokenizer, config, prompts, style, policy, instruction, system, max_new_tokens),
            strict=True,
        )
    ]
    sampling = Sampling(
        m, float(temperature), float(top_p), int(seed), stop_tokens(model, tokenizer), batch_size or BATCH_SIZE[backend]
    )
    settings = {
        "model": model,
        "model_digest": model_digest(model, config),
        "backend": backend,
        "dtype": dtype,
        "m": m,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": max_new_tokens,
        "seed": sampling.seed,
        "style": style,
        "batch_size": sampling.batch_size,
        "stop_tokens": sampling.stop,
        **(
            {"instruction": instruction, "system": system}
            if style == "chat"
            else {"template": policy.template, "bos": policy.bos}
        ),
        **({"tensor_parallel_size": tensor_parallel_size} if backend == "vllm" else {"device": device}),
        # The prompts' tokens, not only their texts: a changed template is another setting.
        "prompts_digest": digest(
            [
                [r.id, row["question"], row.get("answer"), r.ids, r.room]
                for r, row in zip(requests, prompts, strict=True)
            ]
        ),
        "versions": {name: versions()[name] for name in ("gracelib", "torch", "transformers", "tokenizers")}
        | engine_version,
    }
    file = GenerationFile(Path(out), settings)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    # A second run of the same command waits, and finds the file.
    with FileLock(file.path.with_name(f".{file.path.name}.lock")):
        if file.finished():
            return file.path
        done = file.resume()
        loaded = {} if loaded is None else loaded

        def engine() -> Engine:
            key = (backend, settings["model_digest"], dtype, device, tensor_parallel_size)
            longest = max(len(r.ids) + r.room for r in requests)
            if key not in loaded or loaded[key][1] < longest:
                loaded.clear()  # one model at a time: two may not fit
                loaded[key] = (
                    (
                        TransformersEngine(model, dtype, device)
                        if backend == "transformers"
                        else vllm_engine.VllmEngine(model, dtype, longest, tensor_parallel_size)
                    ),
                    longest,
                )
            return loaded[key][0]

        _fill(file, done, requests, prompts, sampling, engine, tokenizer, backend, progress)
        rows = [done[request.id] for request in requests]
        n_truncated = sum(row["n_truncated"] for row in rows)
        n_empty = sum(not text.strip() for row in rows for text in row["responses"])
        for count, what in ((n_truncated, "were cut off before they ended"), (n_empty, "are empty")):
            if count:
                print(f"{file.path.name}: {count} of {m * len(rows)} responses {what}", file=sys.stderr)
        return file.finish(rows, {"n_truncated": n_truncated, "n_empty": n_empty})


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


def _fill(file, done, requests, prompts, sampling, engine, tokenizer, backend, progress) -> None:
    """Sample what `done` lacks, batch by batch. Batches are cut from all prompts, finished or not: a continued
    run computes the same batches, and so the same rounding, as one that was never stopped."""
    row_of = {row["id"]: row for row in prompts}
    with tqdm(
        total=len(requests), initial=len(done), desc=f"responses ({backend})", unit="prompt", disable=not progress
    ) as bar:
        for batch in _batches(requests, max(1, sampling.batch_size // sampling.m), backend == "transformers"):
            missing = [r for r in batch if r.id not in done]
            if not missing:
                continue
            rows = {}
            for request, samples in zip(batch, engine().tokens(batch, sampling), strict=True):
                read = [_read(tokenizer, ids, sampling.stop) for ids in samples]
                row = row_of[request.id]
                rows[request.id] = {
                    "id": request.id,
                    "question": row["question"],
                    "answer": row.get("answer"),
                    "responses": [text for text, _ in read],
                    "n_truncated": sum(cut for _, cut in read),
                }
            new = {r.id: rows[r.id] for r in missing}
            file.append([*new.values()])
            done.update(new)
            bar.update(len(new))


def _batches(requests: list[Request], size: int, same_length: bool) -> list[list[Request]]:
    """At most `size` prompts each; if asked for, of one length, the shortest prompts first."""
    ordered = sorted(requests, key=lambda r: len(r.ids)) if same_length else requests
    batches: list[list[Request]] = []
    for request in ordered:
        last = batches[-1] if batches else []
        if last and len(last) < size and not (same_length and len(last[0].ids) != len(request.ids)):
            last.append(request)
        else:
            batches.append([request])
    return batches


def _read(tokenizer, ids: list[int], stop: tuple[int, ...]) -> tuple[str, bool]:
    """(text before the first stop token, whether there was none)."""
    end = next((i for i, token in enumerate(ids) if token in stop), None)
    return tokenizer.decode(ids[:end], skip_special_tokens=True), end is None
