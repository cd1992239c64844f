"""Fine-tuning of a real student on a teacher's responses: bfloat16 on CUDA, one GPU or several, resumable.

`gracelib.models.training` trains the built-in world's small models in seconds and frozen settings. A student of a billion
parameters takes hours on a GPU, so here are gradient checkpointing, micro-batches, checkpoints that a killed run goes
on from, and several GPUs through `accelerate launch` (whose configuration decides between plain data parallelism and
FSDP). What is optimised is the same: the cross-entropy averaged over all supervised tokens of the global batch,
however it is cut into micro-batches and devices, so a response weighs as |y|. Weights stay float32 while bfloat16
computes: updates of 1e-5 would vanish in bfloat16 weights.
"""

import contextlib
import functools
import json
import math
import os
import shutil
import sys
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from transformers import PrinterCallback, ProgressCallback
from transformers.trainer_callback import TrainerCallback

from gracelib.checks import positions, rope_switch
from gracelib.jobs.progress import Bar
from gracelib.jobs.store import digest, write_atomically
from gracelib.models.checkpoints import load_student
from gracelib.models.objectives import SEQUENCE, FromTeacher, TokenMean, collate_pairs, find_objective, load_teacher
from gracelib.models.prompting import CHAT, Encoded, Policy, encode, encoding_notes, end_token, policy_notes
from gracelib.models.sampled_file import GO_ON, check_same_settings
from gracelib.models.training import collate, first_responses, trainer_arguments
from gracelib.text.formats import short

PRECISIONS = ("auto", "float32", "bfloat16")
_RECORD, _LOCK = "settings.json", ".lock"  # in a folder of checkpoints


def fine_tune(
    student: str | Path,
    rows: list[dict],
    out: Path,
    *,
    scratch: Path | None = None,
    M: int | None = None,
    epochs: float = 4,
    lr: float = 1e-5,
    batch_size: int = 64,
    micro_batch: int = 4,
    warmup: float = 0.05,
    seed: int = 0,
    policy: Policy = Policy(),
    objective: str = SEQUENCE,
    beta: float | None = None,
    teacher: str | Path | None = None,
    rejected: list[dict] | None = None,
    precision: str = "auto",
    device: str = "auto",
    gradient_checkpointing: bool = True,
    save_every: int = 500,
    progress: bool = True,
    callbacks: list[TrainerCallback] | None = None,
) -> dict:
    """Fine-tune the base student on the first `M` responses (None: all) of every row; the trained checkpoint in
    `out`.

    Parameters
    ----------
    student : folder or hub id of the base model, with its tokenizer.
    rows : `question` and `responses` (texts); right and wrong ones alike, as in the paper. Optionally `cut`: which of
        the responses, counted from 0, a limit of tokens cut; these get no EOS (`text.responses.read_responses`).
    scratch : where checkpoints lie, a folder of its own, which stays; None: `out` with `.scratch` appended, removed at the end.
        A run that was killed goes on from the last complete one, and ends with the same weights.
    epochs, lr, batch_size, warmup : the paper's, with AdamW (0.9, 0.999), cosine, no weight decay, gradient norm at
        most 1. `batch_size` is global: micro_batch x devices x accumulation steps.
    policy : template, BOS and the longest example; the same as for gradients and evaluation.
    objective, beta, teacher : "sequence" is the paper's: from the responses alone. Another of `objectives.OBJECTIVES` (with
        a beta where it has one) learns from the distributions of a teacher (folder or hub id, of the student's
        vocabulary except for "uld") on the responses, or on samples of the student.
    rejected : of "plad" alone, as `rows`: to each question as many responses of the student before training, the k-th of
        which is rejected for the k-th of the teacher's.
    precision : of the computation; "auto" is bfloat16 on CUDA and float32 elsewhere.
    device : "auto" is CUDA where there is one; "cpu" trains the same student everywhere.

    Returns
    -------
    What `out`/training.json says: student, n_examples, n_tokens (supervised, a pass), n_cut (examples that were cut
    to fit or came cut: they have no EOS), tokens_cut, steps, loss (of the last step), precision, settings.

    Raises
    ------
    ValueError
        before training: no rows, fewer than M responses, a batch that devices and micro-batches do not divide,
        several GPUs in one process, checkpoints made with other settings, a scratch folder that holds something else or that
        another run trains in, a text longer than student or teacher reads, a teacher of another vocabulary, a question
        without rejected responses; during it: a loss that is not finite.
    """
    if not rows:
        raise ValueError("no rows to train on; the responses file may be empty")
    texts = _texts(rows, M)
    devices, main = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0")) == 0
    cuda = device == "auto" and torch.cuda.is_available()
    _check_settings(epochs, lr, warmup, seed, save_every, precision, batch_size, micro_batch, devices, cuda)
    aim = find_objective(objective, beta)
    for what, given, needed in (
        ("the teacher model (--teacher-model)", teacher, aim and not aim.pairs),
        ("the student's own responses (--rejected)", rejected, aim and aim.pairs),
    ):
        if (given is not None) != bool(needed):
            raise ValueError(
                f"objective {objective}: {'give' if needed else 'leave out'} {what}, or choose another objective"
            )
    if aim and aim.on_policy and devices > 1:
        raise ValueError(f"objective {objective} samples from the student, on one device: start it on one GPU")
    others = None if rejected is None else _texts(_beside(rows, rejected, M), None)
    out = Path(out)
    stays, scratch = scratch is not None, Path(scratch or out.with_name(out.name + ".scratch"))
    if main:
        _check_scratch(scratch, out)
    model, tokenizer = load_student(student, dtype="float32")
    encoded = encode(tokenizer, **texts, policy=policy)
    for said in [*policy_notes(tokenizer, policy), *encoding_notes(encoded, policy)] if main else ():
        print(said, file=sys.stderr)
    _check_length(encoded, model, "student")
    switch, lengths = rope_switch(model.config), [*map(len, encoded)]
    if switch and micro_batch > 1 and min(lengths) <= switch < max(lengths):
        raise ValueError(
            f"the student reads texts of more than {switch} tokens with other rotary frequencies, and with them what shares "
            f"their micro-batch: choose max_tokens={switch}, or micro_batch=1"
        )
    if policy.template == CHAT:  # so that whoever samples the trained student stops there
        model.generation_config.eos_token_id = end_token(tokenizer, policy)
    data = [*map(_example, encoded)]
    settings = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "warmup": warmup,
        "seed": seed,
        "bf16": cuda if precision == "auto" else precision == "bfloat16",
        "micro_batch": micro_batch,
        "devices": devices,
        "student": str(student),
        "examples": digest([[e["input_ids"], e["n_masked"]] for e in data]),
    }
    kind = TokenMean
    if others:
        own = encode(tokenizer, **others, policy=policy)
        _check_length(own, model, "student")
        data = [e | {"rejected": _example(other)} for e, other in zip(data, own, strict=True)]
        settings["rejected"] = digest([e["rejected"] for e in data])
    if aim:
        precise = "bfloat16" if settings["bf16"] else "float32"
        its, theirs = load_teacher(teacher or student, tokenizer, precise, common=not aim.words)
        told = encode(theirs, **texts, policy=policy) if aim.words else encoded
        _check_length(told, its, "teacher")
        both = zip(data, told, strict=True) if aim.words else ()
        read = {tuple(e["input_ids"]): (t.prompt_ids, t.response_ids) for e, t in both}
        stop = end_token(tokenizer, policy)
        if main and not aim.words and policy.template != CHAT and theirs.eos_token_id != stop:
            ends = tokenizer.convert_ids_to_tokens([stop, theirs.eos_token_id])
            print(
                "a response ends with {0}, and the teacher (a chat model?) ends its own with {1}: the student may learn to write "
                "{1}, at which nobody stops it; --template chat ends responses as chat models do".format(*ends),
                file=sys.stderr,
            )
        own = {"objective": aim, "teacher": its, "tokenizers": (tokenizer, theirs), "read": read, "seed": seed}
        kind = functools.partial(FromTeacher, **own, stop=stop)
        settings |= {"objective": objective, "number": aim.number, "teacher": str(teacher or "")}
    if gradient_checkpointing:
        _checkpoint_activations(model)
    with _locked(scratch) if main else contextlib.nullcontext():
        resume = _resumable(scratch, settings, main)
        trainer = _trainer(kind, model, data, scratch, settings, cuda, save_every, progress, callbacks or [])
        trainer.train(resume_from_checkpoint=resume)
        whole = scratch / "trained"  # no half of a model in `out`, where the next run would not go on
        trainer.save_model(str(whole))
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        about = {
            "n_examples": len(encoded),
            "n_tokens": sum(len(e.response_ids) for e in encoded),
            "n_cut": sum(e.cut or e.n_cut > 0 for e in encoded),
            "tokens_cut": sum(e.n_cut for e in encoded),
            "steps": trainer.state.global_step,
            "loss": losses[-1] if losses else None,
            "precision": "bfloat16" if settings["bf16"] else "float32",
            "settings": settings,
        }
        trainer.accelerator.wait_for_everyone()
        if main:
            _finish(whole, tokenizer, about)
            shutil.copytree(whole, out, copy_function=shutil.move, dirs_exist_ok=True)
            if not stays:
                shutil.rmtree(scratch, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
    return about


def _texts(rows: list[dict], M: int | None) -> dict:
    """The first `M` responses of every row with their questions, and which were cut, as `encode` takes them."""
    cut = [k in row.get("cut", ()) for row in rows for k in range(len(row["responses"][:M]))]
    return {"pairs": first_responses(rows, M), "cut": cut}


def _example(e: Encoded) -> dict:
    return {"input_ids": [*e.prompt_ids, *e.response_ids], "n_masked": len(e.prompt_ids)}


def _beside(rows: list[dict], rejected: list[dict], M: int | None) -> list[dict]:
    """To each question as many rejected responses as the first `M` of its row; ValueError where there are fewer."""
    found = {row["question"]: row for row in rejected}
    if lost := [row for row in rows if row["question"] not in found]:
        raise ValueError(
            f"{len(lost)} of {len(rows)} prompts have no rejected responses, the first is {short(lost[0]['question'])}: sample the "
            "student's to the same prompts, in the same words"
        )
    others = [(found[row["question"]], len(row["responses"][:M])) for row in rows]
    return [other | {"responses": [text for _, text in first_responses([other], n)]} for other, n in others]


def _check_length(encoded: list[Encoded], model, who: str) -> None:
    """ValueError for a text of more tokens than the model reads: at best it would fail in the middle of the training."""
    longest, reads = max(map(len, encoded)), positions(model.config)
    if longest > reads:
        raise ValueError(
            f"a response has {longest} tokens with its prompt, and the {who} reads {reads}: --max-tokens {reads} (max_tokens) "
            "cuts such texts and says how many"
        )


def _check_scratch(scratch: Path, out: Path) -> None:
    """ValueError where checkpoints would lie among other files, or these among checkpoints."""
    a, b = scratch.resolve(), out.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise ValueError(
            f"--scratch {scratch} and --out {out}: one lies in the other; choose another folder for checkpoints"
        )
    if any(path.name != _LOCK for path in scratch.glob("*")) and not (scratch / _RECORD).is_file():
        raise ValueError(f"--scratch {scratch}: it holds something else; name a folder of its own")


def _locked(scratch: Path) -> contextlib.AbstractContextManager:
    """The folder for this run alone. ValueError where another is at work: to wait would be to train the same again."""
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(scratch / _LOCK).acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"{scratch}: another run trains there; wait for it, or stop it and go on here") from error


def _check_settings(epochs, lr, warmup, seed, save_every, precision, batch_size, micro_batch, devices, cuda) -> None:
    for name, value, fits, said in (
        ("epochs", epochs, 0 < epochs < math.inf, "must be a finite number above 0"),
        ("lr", lr, 0 < lr < math.inf, "must be a finite number above 0"),
        ("warmup", warmup, 0 <= warmup < 1, "a share of the steps, in [0, 1)"),
        ("seed", seed, 0 <= seed < 2**32, "must be at least 0 and less than 2**32"),
        ("save_every", save_every, save_every >= 1, "must be at least 1 step"),
    ):
        if not fits:
            raise ValueError(f"{name}={value}: {said}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not known; choose one of {', '.join(PRECISIONS)}")
    if min(batch_size, micro_batch) < 1 or batch_size % (micro_batch * devices):
        raise ValueError(
            f"batch_size={batch_size} is not a multiple of micro_batch={micro_batch} x {devices} device(s); "
            "choose a micro-batch that divides it"
        )
    if cuda and devices == 1 and torch.cuda.device_count() > 1:
        raise ValueError(
            f"{torch.cuda.device_count()} GPUs are visible to one process; start it with `accelerate launch "
            "--num_processes N -m gracelib.cli distill ...` to use them, or set CUDA_VISIBLE_DEVICES=0"
        )


def _trainer(
    kind, model, data: list[dict], scratch: Path, settings: dict, cuda: bool, save_every: int, progress: bool, callbacks
):
    """A Trainer whose checkpoints lie in `scratch`: a step is `batch_size` examples, however they are spread."""
    micro_batch, devices = settings["micro_batch"], settings["devices"]
    args = trainer_arguments(
        scratch,
        settings["epochs"],
        settings["lr"],
        micro_batch,
        settings["warmup"],
        settings["seed"],
        cuda,
        gradient_accumulation_steps=settings["batch_size"] // (micro_batch * devices),
        bf16=settings["bf16"],
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=2,
        logging_steps=1,
        disable_tqdm=not progress,
        average_tokens_across_devices=True,
    )
    collator = collate_pairs if "rejected" in settings else collate
    trainer = kind(
        model=model, args=args, train_dataset=data, data_collator=collator, callbacks=[_StopAtNonsense(), *callbacks]
    )
    trainer.remove_callback(PrinterCallback)  # no log lines on stdout, which is for results
    trainer.remove_callback(ProgressCallback)
    if progress:
        trainer.add_callback(_Bar())
    return trainer


def _finish(out: Path, tokenizer, about: dict) -> None:
    """Make the saved weights an ordinary checkpoint. ValueError if one is not finite (the last step's gradient is in
    no log)."""
    for path in sorted(out.glob("*.safetensors")):
        with safe_open(path, framework="pt") as f:
            bad = [name for name in f.keys() if not torch.isfinite(f.get_tensor(name)).all()]
        if bad:
            raise ValueError(
                f"training left values that are not finite in {', '.join(bad[:3])}; lower the learning rate"
            )
    tokenizer.save_pretrained(out)
    (out / "training_args.bin").unlink(missing_ok=True)  # a pickle nobody needs
    (out / "training.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _checkpoint_activations(model) -> None:
    keys = {"use_reentrant": False}
    try:
        if hasattr(model, "activation_checkpointing_enable"):  # its name from transformers 5.23 on
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=keys)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=keys)
    except ValueError as error:  # some architectures cannot; it saves memory, and nothing else
        print(f"activations are kept, which takes more memory: {error}", file=sys.stderr)


class _Bar(TrainerCallback):
    """Steps, a micro-batch at a time, and the loss beside them instead of a line per step."""

    def on_train_begin(self, args, state, control, **kwargs):
        shown = state.is_world_process_zero
        self.bar = Bar(
            total=state.max_steps, initial=state.global_step, desc="training", unit="step", disable=not shown
        )

    def on_substep_end(self, args, state, control, **kwargs):
        self.bar.update(1 / args.gradient_accumulation_steps)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.4g}", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class _StopAtNonsense(TrainerCallback):
    """A loss that is not finite ends the run; hours of training on it would be lost anyway."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        values = [logs[name] for name in ("loss", "grad_norm") if name in (logs or {})]
        if any(not torch.isfinite(torch.as_tensor(float(v))) for v in values):
            raise ValueError(
                f"training loss or gradient is not finite at step {state.global_step} ({logs}); lower the "
                "learning rate, and remove the checkpoints beside the output before starting again"
            )


def _resumable(scratch: Path, settings: dict, main: bool) -> str | None:
    """The last complete checkpoint, or None. Remembers the settings there; ValueError if they were others."""
    record = scratch / _RECORD
    if record.is_file():
        check_same_settings(scratch, json.loads(record.read_text(encoding="utf-8")), settings, GO_ON)
    elif main:
        write_atomically(record, lambda part: part.write_text(json.dumps(settings, indent=1), encoding="utf-8"))
    # The Trainer writes a checkpoint's state last: a folder without it was being written when the run was killed.
    states = scratch.glob("checkpoint-*/trainer_state.json")
    for state in sorted(states, key=lambda path: int(path.parent.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads(state.read_text(encoding="utf-8"))
            return str(state.parent)
        except ValueError:
            continue  # torn: the one before is whole
    return None
