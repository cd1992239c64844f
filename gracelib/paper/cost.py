"""What the paper's experiment takes: cells, prompts, tokens, GPU hours and disk, before any of it is spent.

Why a table of assumptions: the counts of prompts and cells are exact, the rest rests on how long responses are and
how fast GPUs work, which nobody knows before the run. So every such number stands here with where it comes from, is
printed with the plan, and can be replaced by one's own measurement. Hours are GPU hours of one kind of GPU: whoever
has eight divides by eight.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import pandas as pd

from gracelib.paper.settings import changes
from gracelib.scale import Model, PaperScale, PaperTask


def _known(default: float, unit: str, source: str):
    return field(default=default, metadata={"unit": unit, "source": source})


_ESTIMATE = "our estimate"


@dataclass(frozen=True)
class Assumptions:
    """Everything a plan assumes. Each field's metadata holds its unit and where it comes from."""

    gsm8k_response: float = _known(
        250,
        "tokens a response, GSM8K",
        f"{_ESTIMATE}: ten open models' greedy answers have "
        "360 to 710 characters; step-by-step prompts and temperature lengthen them",
    )
    math_response: float = _known(550, "tokens a response, MATH", _ESTIMATE)
    gsm8k_prompt: float = _known(70, "tokens a prompt, GSM8K", "its questions have 235 characters; and the template")
    math_prompt: float = _known(100, "tokens a prompt, MATH", _ESTIMATE)
    peak_tflops: float = _known(989, "TFLOP/s of a GPU", "data sheet of an H100 SXM, bfloat16, dense")
    train_use: float = _known(
        0.3, "share of the peak in training", f"{_ESTIMATE}: micro-batches of uneven length, checkpointing"
    )
    train_flops: float = _known(
        8, "FLOP a parameter and token in training", "forward 2, backward 4, activations again 2"
    )
    sample_use: float = _known(
        0.15, "share of the peak in sampling", f"{_ESTIMATE}: vllm with large batches of one model"
    )
    sample_most: float = _known(
        20_000, "tokens a second a GPU samples at most", f"{_ESTIMATE}: small models wait for the scheduler"
    )
    sample_flops: float = _known(2, "FLOP a parameter and token in sampling", "forward")
    score_minutes: float = _known(
        10, "minutes for 2,048 gradients, D = 1.24e9, 320 tokens, d = 512", "the paper's table 1: one H100"
    )
    score_fixed: float = _known(20, "seconds to load a student or teacher", _ESTIMATE)
    characters: float = _known(4, "bytes of text a token", _ESTIMATE)
    learning_rates: float = _known(1, "learning rates tried a student", "the paper tried 3 and settled on 1e-5")

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"assumption {f.name} = {value!r}: expected a number > 0 ({f.metadata['unit']})")

    def with_values(self, given: dict[str, float]) -> Assumptions:
        """Some of them replaced. ValueError naming what there is for a name that is not there."""
        known = [f.name for f in fields(self)]
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"assumption {unknown[0]!r} is not known; choose among {', '.join(known)}")
        return replace(self, **given)

    def table(self) -> pd.DataFrame:
        """name, value, unit, source."""
        return pd.DataFrame([{"name": f.name, "value": getattr(self, f.name), **f.metadata} for f in fields(self)])

    def response(self, task: PaperTask) -> float:
        return getattr(self, f"{task.dataset}_response")

    def prompt(self, task: PaperTask) -> float:
        return getattr(self, f"{task.dataset}_prompt")


def tokens_sampled(n_prompts: int, samples: int, task: PaperTask, a: Assumptions) -> float:
    return n_prompts * samples * a.response(task)


def tokens_trained(scale: PaperScale, task: PaperTask, a: Assumptions) -> float:
    """Of one student: prompts and responses, every epoch."""
    return task.n_train * scale.M * (a.prompt(task) + a.response(task)) * scale.epochs * a.learning_rates


def tokens_scored(scale: PaperScale, task: PaperTask, a: Assumptions) -> float:
    return scale.n_prompts * scale.m * (a.prompt(task) + a.response(task))


def _sampling_hours(tokens: float, model: Model, a: Assumptions) -> float:
    speed = min(a.sample_most, a.sample_use * a.peak_tflops * 1e12 / (a.sample_flops * model.parameters))
    return (tokens / speed + a.score_fixed * model.gpus) / 3600


def hours_sample(scale: PaperScale, task: PaperTask, model: Model, a: Assumptions) -> float:
    """GPU hours in which a teacher answers the training prompts at one temperature."""
    return _sampling_hours(tokens_sampled(task.n_train, scale.M, task, a), model, a)


def hours_measure(scale: PaperScale, task: PaperTask, model: Model, a: Assumptions) -> float:
    """GPU hours of one model's Average@k and greedy accuracy."""
    return _sampling_hours(tokens_sampled(task.n_test, scale.k + 1, task, a), model, a)


def hours_train(scale: PaperScale, task: PaperTask, model: Model, a: Assumptions) -> float:
    """GPU hours of one student's fine-tuning."""
    flops = a.train_flops * model.parameters * tokens_trained(scale, task, a)
    return flops / (a.train_use * a.peak_tflops * 1e12) / 3600


def hours_score(scale: PaperScale, task: PaperTask, model: Model, a: Assumptions) -> float:
    """GPU hours of one cell's gradients: the paper's ten minutes, in proportion to parameters, tokens and rows
    kept.
    """
    share = tokens_scored(scale, task, a) / (2048 * 320) * model.parameters / 1.24e9 * task.d_kept / 512
    return (a.score_minutes * share + a.score_fixed / 60) / 60


def plan(scale: PaperScale, a: Assumptions = Assumptions()) -> pd.DataFrame:
    """One row a stage and task (and student): task, stage, who, cells, prompts, responses, tokens, gpu_hours,
    disk_gb.

    `cells` counts runs of the stage; `prompts` and `responses` are of one run; tokens, gpu_hours and disk_gb of all.
    The last row is the total. Weights that are downloaded have rows of their own.
    """
    rows = []
    for task in scale.tasks:
        n_t, title = len(task.sampled()), task.title
        text = scale.M * task.n_train * (a.response(task) * a.characters) / 1e9
        cells = len(scale.teachers) * n_t

        def row(stage: str, who: str, cells: int, prompts: int, samples: int, tokens: float, hours: float, disk: float):
            rows.append(
                {
                    "task": title,
                    "stage": stage,
                    "who": who,
                    "cells": cells,
                    "prompts": prompts,
                    "responses": prompts * samples,
                    "tokens": tokens,
                    "gpu_hours": hours,
                    "disk_gb": disk,
                }
            )

        sampled = tokens_sampled(task.n_train, scale.M, task, a)
        tested = tokens_sampled(task.n_test, scale.k + 1, task, a)
        test_gb = tested * a.characters / 1e9
        row(
            "sample",
            "teachers",
            cells,
            task.n_train,
            scale.M,
            cells * sampled,
            n_t * sum(hours_sample(scale, task, m, a) for m in scale.teachers),
            cells * text,
        )
        row(
            "measure",
            "teachers",
            cells,
            task.n_test,
            scale.k + 1,
            cells * tested,
            n_t * sum(hours_measure(scale, task, m, a) for m in scale.teachers),
            cells * test_gb,
        )
        for role, name in task.casting:
            base = scale.model(task, role)
            row(
                "score",
                name,
                cells,
                scale.n_prompts,
                scale.m,
                cells * tokens_scored(scale, task, a),
                cells * hours_score(scale, task, base, a),
                cells * scale.n_prompts * scale.m * task.d_kept * 4 / 1e9,
            )
            row(
                "train",
                name,
                cells,
                task.n_train,
                scale.M,
                cells * tokens_trained(scale, task, a),
                cells * hours_train(scale, task, base, a),
                cells * 4 * base.parameters / 1e9,
            )
            row(
                "measure",
                name,
                cells + 1,
                task.n_test,
                scale.k + 1,
                (cells + 1) * tested,
                (cells + 1) * hours_measure(scale, task, base, a),
                (cells + 1) * test_gb,
            )
    weights = sum(m.parameters for m in dict.fromkeys(scale.models())) * 2 / 1e9
    rows.append(
        {
            "task": "",
            "stage": "download",
            "who": f"{len(scale.models())} models",
            "cells": len(scale.models()),
            "disk_gb": weights,
        }
    )
    table = pd.DataFrame(rows)
    total = {
        "task": "",
        "stage": "total",
        "who": "",
        "gpu_hours": table["gpu_hours"].sum(),
        "disk_gb": table["disk_gb"].sum(),
    }
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True)


def plan_text(scale: PaperScale, a: Assumptions = Assumptions()) -> str:
    """The plan as it is printed: who takes part, the table, the sums, and every assumption with its source."""
    table = plan(scale, a)
    trained = table[table["stage"] == "train"]
    shown = table.assign(tokens=table["tokens"] / 1e9).rename(columns={"tokens": "tokens (1e9)"})
    numbers = {
        "cells": "{:.0f}",
        "prompts": "{:,.0f}",
        "responses": "{:,.0f}",
        "tokens (1e9)": "{:,.2f}",
        "gpu_hours": "{:,.1f}",
        "disk_gb": "{:,.1f}",
    }
    body = shown.assign(
        **{c: shown[c].map(lambda x, f=f: "" if pd.isna(x) else f.format(x)) for c, f in numbers.items()}
    )
    hours, disk = table["gpu_hours"].iloc[-1], table["disk_gb"].iloc[-1]
    kept = disk - trained["disk_gb"].sum()
    lines = [
        f"scale {scale.name}: n = {scale.n_prompts}, m = {scale.m}, d = {scale.d}, C = {scale.n_folds}, "
        f"M = {scale.M}; {scale.epochs:g} epochs, batch {scale.batch_size}, "
        f"lr {scale.lr:g}, warm-up {scale.warmup:.0%}; Average@{scale.k} at T = {scale.test_temperature:g}",
        "",
    ]
    for task in scale.tasks:
        students = ", ".join(name for _, name in task.casting)
        lines.append(
            f"{task.title}: {task.n_train:,} + {task.n_test:,} problems, {task.d_kept} projection rows kept; students "
            f"{students}; teachers at T = " + ", ".join(f"{t:g}" for t in task.sampled())
        )
    lines += [
        "teachers: " + ", ".join(m.name for m in scale.teachers),
        "",
        body.to_string(index=False),
        "",
        f"In all {int(trained['cells'].sum())} students, about {hours:,.0f} GPU hours "
        f"({hours / 24:,.1f} days of one GPU) "
        f"and {disk:,.0f} GB; {kept:,.0f} GB if trained students are removed once measured (--drop-weights). While one "
        f"trains, {4 * _training_gb(scale):,.0f} GB of GPU memory hold weights, gradients and AdamW's moments.",
    ]
    wide = [f"{m.name} ({min(m.gpus, scale.gpus)})" for m in scale.teachers if m.gpus > 1]
    if wide:
        lines += ["", f"Sampled on several GPUs of 80 GB at once: {', '.join(wide)}"]
    if changed := changes(scale):
        lines += ["", f"Not the paper's: {'; '.join(changed)}"]
    gated = [m for m in dict.fromkeys(scale.models()) if m.terms and not m.path]
    if gated:
        lines += ["", f"Gated on the hub, access is needed for: {', '.join(m.source for m in gated)}"]
    lines += ["", "Assumptions (change any with --assume NAME=VALUE):"]
    lines += [
        f"  {r.name} = {r.value:g} {r.unit}. {r.source[0].upper()}{r.source[1:]}." for r in a.table().itertuples()
    ]
    return "\n".join(lines)


def _training_gb(scale: PaperScale) -> float:
    return max(scale.model(task, role).parameters for task in scale.tasks for role, _ in task.casting) * 4 / 1e9
