"""Responses of one model to one list of prompts: one function, two engines, one file.

`transformers` runs anywhere and draws each token from a number keyed by (seed, prompt, sample, step), as
`gracelib.models.decoding` does; `vllm` is what makes thousands of long answers of a large teacher affordable. Prompts
are encoded, answers are ended and read here, so both engines see the same tokens and stop at the same ones;
they differ in their random numbers and in rounding, not in what they sample from. Nothing that a checkpoint
recommends (penalties, top-k, a temperature) is applied unless asked for. All that the tokenizer and the configuration
can tell is checked before a model is loaded: a mistake costs no hour on a GPU.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig

from gracelib.checks import positions
from gracelib.jobs.disk import alone
from gracelib.jobs.progress import Bar
from gracelib.jobs.store import digest, versions
from gracelib.models import vllm_engine
from gracelib.models.checkpoints import DTYPES, check_student, files_digest, place_of, resolve_device
from gracelib.models.decoding import TransformersEngine, batches, check_sampling, read
from gracelib.models.prompting import CHAT, STUDENT_TEMPLATE, TEACHER_INSTRUCTION, Policy, encode_questions, end_token
from gracelib.models.sampled_file import GenerationFile

STYLES = ("chat", "student")
#: Sequences decoded together: what fits beside a model of a few billion parameters. vllm schedules for itself:
#: there it says how often finished prompts are written.
BATCH_SIZE = {"transformers": 64, "vllm": 4096}
MODEL_FILES = (".json", ".safetensors", ".bin", ".model", ".jinja")  #: what of a folder decides its responses


@dataclass(frozen=True)
class Request:
    """One prompt as an engine sees it: its tokens, and how many new ones may follow."""

    id: str | int
    ids: list[int]
    room: int


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
        BOS of `policy` (students; the same as in training and for gradients; its chat template if that is "chat").
        What belongs to the other style is refused.
    dtype : "float32", "bfloat16", "float64" (transformers only); "auto": float32 for a checkpoint of it, else
        bfloat16.
    device : of the transformers backend; "auto": CUDA where present.
    tensor_parallel_size : GPUs that share the model (vllm only).
    batch_size : sequences decoded together; None: `BATCH_SIZE`. Changes speed, memory and rounding.
    loaded : give the same dict to several calls and they share the loaded model.

    Returns
    -------
    `out`. One row per prompt, in the given order: `id`, `question`, `answer` (None if not given), `responses` (m
    texts without special tokens), `finish_reasons` (m of "stop" and "length", which is a cut), `n_truncated`. The sidecar `.NAME.settings.json` beside it holds settings,
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
    for name, given, belongs in (
        ("template", policy.template not in (STUDENT_TEMPLATE, CHAT), "student"),
        ("bos", policy.bos, "student"),
        ("instruction", instruction not in ("", TEACHER_INSTRUCTION), "chat"),
    ):
        if given and style != belongs:
            raise ValueError(
                f"{name} is of style {belongs}, not of style {style}: leave it out, or choose --style {belongs}"
            )
    engine_version = {"vllm": vllm_engine.version()} if backend == "vllm" else {}
    model = place_of(model)
    config, tokenizer = check_student(model, quantised=backend == "vllm")
    shown = Policy(CHAT) if style == "chat" else policy
    if dtype == "auto":  # of a checkpoint of half precision bfloat16
        whole = getattr(config.get_text_config(), "dtype", None) in (None, torch.float32)
        dtype = "float32" if whole else "bfloat16"
    if backend == "transformers":  # vllm asks for itself, in its own processes
        device = resolve_device(device)
    requests = _requests(tokenizer, config, prompts, shown, instruction * (style == "chat"), max_new_tokens)
    settings = {
        "model": model,
        "model_digest": files_digest(model, MODEL_FILES, getattr(config, "_commit_hash", None)),
        "backend": backend,
        "dtype": dtype,
        "m": m,
        "temperature": float(temperature),
        "top_p": float(top_p),
        "max_new_tokens": max_new_tokens,
        "seed": int(seed),
        "style": style,
        "batch_size": batch_size or BATCH_SIZE[backend],
        "stop_tokens": stop_tokens(model, tokenizer, shown),
        **({"instruction": instruction} if style == "chat" else {"template": policy.template, "bos": policy.bos}),
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
    loaded = {} if loaded is None else loaded
    file = GenerationFile(Path(out), settings)
    # A second run of the same command waits, and finds the file.
    with alone(file.path.with_name(f".{file.path.name}.lock"), f"{file.path}: another run samples it"):
        if file.finished():
            return file.path
        done = file.resume()
        if any(request.id not in done for request in requests):
            engine = _engine(loaded, settings, device, tensor_parallel_size, requests)
            _fill(file, done, requests, prompts, settings, engine, tokenizer, progress)
        return _finish(file, [done[request.id] for request in requests])


def check_settings(
    prompts, m, temperature, top_p, max_new_tokens, backend, style, dtype, tensor_parallel_size, batch_size, seed
) -> None:
    """ValueError for settings and prompts that make no sense."""
    for name, value, known in (("backend", backend, BATCH_SIZE), ("style", style, STYLES)):
        if value not in known:
            raise ValueError(f"{name} {value!r} is not known; choose one of {list(known)}")
    check_sampling(prompts, m, temperature, top_p, max_new_tokens, batch_size)
    one_gpu = backend == "transformers" and tensor_parallel_size > 1
    for name, value, fits, said in (
        ("seed", seed, 0 <= seed < 2**63, "must be at least 0 and less than 2**63"),
        ("tensor_parallel_size", tensor_parallel_size, tensor_parallel_size >= 1, "must be at least 1"),
        (
            "tensor_parallel_size",
            tensor_parallel_size,
            not one_gpu,
            "only the vllm backend shares a model between GPUs",
        ),
    ):
        if not fits:
            raise ValueError(f"{name}={value}: {said}")
    if dtype not in ("auto", *DTYPES) or (backend == "vllm" and dtype == "float64"):
        raise ValueError(f"dtype {dtype!r} is not one of {['auto', *DTYPES[: 2 if backend == 'vllm' else None]]}")
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


def stop_tokens(model: str, tokenizer, policy: Policy = Policy()) -> tuple[int, ...]:
    """What ends a response: the tokenizer's EOS, what the checkpoint declares beside it, and in a chat template the token
    that it writes after an answer, whether a file declares it or not."""
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
    ends = [tokenizer.eos_token_id, *(token for token in declared if token is not None), end_token(tokenizer, policy)]
    return tuple(dict.fromkeys(ends))


def _requests(tokenizer, config, prompts, policy, instruction, max_new_tokens) -> list[Request]:
    """Every prompt as an engine sees it; ValueError if one leaves no room for an answer."""
    encoded = encode_questions(tokenizer, [row["question"] for row in prompts], policy, instruction)
    reads = positions(config)
    for row, ids in zip(prompts, encoded, strict=True):
        if len(ids) >= reads:
            raise ValueError(
                f"prompt {row['id']!r} has {len(ids)} tokens, but the model reads {reads} with its answer; drop it"
            )
    requests = [
        Request(row["id"], ids, min(max_new_tokens, reads - len(ids)))
        for row, ids in zip(prompts, encoded, strict=True)
    ]
    if shortened := sum(request.room < max_new_tokens for request in requests):
        print(
            f"{shortened} of {len(prompts)} prompts leave room for fewer than max_new_tokens={max_new_tokens} "
            f"tokens, because the model reads {reads} in all",
            file=sys.stderr,
        )
    return requests


def _engine(loaded: dict, settings: dict, device: str, tensor_parallel_size: int, requests: list[Request]):
    """The engine of these settings, from `loaded` if it is there and long enough."""
    backend, model, dtype = settings["backend"], settings["model"], settings["dtype"]
    key = (backend, settings["model_digest"], dtype, device, tensor_parallel_size)
    longest = max(len(r.ids) + r.room for r in requests)
    if key not in loaded or loaded[key][1] < longest:
        loaded.clear()  # one model at a time: two may not fit
        if backend == "transformers":
            engine = TransformersEngine(model, dtype, device)
        else:
            engine = vllm_engine.VllmEngine(model, dtype, longest, tensor_parallel_size)
        loaded[key] = (engine, longest)
    return loaded[key][0]


def _fill(file, done, requests, prompts, settings, engine, tokenizer, progress) -> None:
    """Sample what `done` lacks, batch by batch. Batches are cut from all prompts, finished or not: a continued
    run computes the same batches, and so the same rounding, as one that was never stopped."""
    row_of, backend = {row["id"]: row for row in prompts}, settings["backend"]
    size, of_one_length = max(1, settings["batch_size"] // settings["m"]), backend == "transformers"
    with Bar(
        total=len(requests), initial=len(done), desc=f"responses ({backend})", unit="prompt", disable=not progress
    ) as bar:
        for batch in batches(requests, size, lambda request: len(request.ids) * of_one_length):
            if all(request.id in done for request in batch):
                continue
            new, before, engine.done = {}, bar.n, bar.update
            for request, samples in zip(batch, engine.tokens(batch, settings), strict=True):
                if request.id not in done:
                    texts = [read(tokenizer, ids, settings["stop_tokens"]) for ids in samples]
                    new[request.id] = {
                        "id": request.id,
                        "question": row_of[request.id]["question"],
                        "answer": row_of[request.id].get("answer"),
                        "responses": [text for text, _ in texts],
                        "finish_reasons": ["length" if cut else "stop" for _, cut in texts],
                        "n_truncated": sum(cut for _, cut in texts),
                    }
            file.append([*new.values()])
            done.update(new)
            bar.update(before + len(new) - bar.n)


def _finish(file: GenerationFile, rows: list[dict]) -> Path:
    """Give the file its name, and say how many responses were cut off or are empty."""
    n_responses = sum(len(row["responses"]) for row in rows)
    notes = {
        "n_truncated": sum(row["n_truncated"] for row in rows),
        "n_empty": sum(not text.strip() for row in rows for text in row["responses"]),
    }
    for name, what in (("n_truncated", "were cut off before they ended"), ("n_empty", "are empty")):
        if notes[name]:
            print(f"{file.path.name}: {notes[name]} of {n_responses} responses {what}", file=sys.stderr)
    return file.finish(rows, notes)
