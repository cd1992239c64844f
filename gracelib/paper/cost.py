"""What the paper's experiment takes: cells, prompts, tokens, GPU hours and disk, before any of it is spent.

Why a table of assumptions: the counts of prompts and cells are exact, the rest rests on how long responses are and
how fast GPUs work, which nobody knows before the run. So every such number stands here with where it comes from, is
printed with the plan, and can be replaced by one's own measurement. Hours are GPU hours of one kind of GPU: whoever
has eight divides by eight.
"""

from dataclasses import dataclass, field, fields, replace

import pandas as pd

from gracelib.checks import check_choice
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
        "tokens per response, GSM8K",
        f"{_ESTIMATE}: ten open models' greedy answers have "
        "360 to 710 characters; step-by-step prompts and temperature lengthen them",
    )
    math_response: float = _known(550, "tokens per response, MATH", _ESTIMATE)
    gsm8k_prompt: float = _known(70, "tokens per prompt, GSM8K", "its questions have 235 characters; and the template")
    math_prompt: float = _known(100, "tokens per prompt, MATH", _ESTIMATE)
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

    def with_values(self, given: dict[str, float]) -> "Assumptions":
        """Some of them replaced. ValueError naming what there is for a name that is not there."""
        for name in given:
            check_choice("assumption", name, [f.name for f in fields(self)])
        return replace(self, **given)

    def table(self) -> pd.DataFrame:
        """name, value, unit, source."""
        return pd.DataFrame([{"name": f.name, "value": getattr(self, f.name), **f.metadata} for f in fields(self)])


def run_size(stage: str, scale: PaperScale, task: PaperTask, a: Assumptions) -> tuple[int, int, float]:
    """Prompts of one run of a stage ("sample", "measure", "score", "train"), responses to each, and tokens.

    Tokens are those that are sampled, or prompts and responses that are read: in training, in every epoch.
    """
    prompts, responses = {
        "sample": (task.n_train, scale.M),
        "measure": (task.n_test, scale.k + 1),  # and once greedily
        "score": (scale.n_prompts, scale.m),
        "train": (task.n_train, scale.M),
    }[stage]
    prompt, response = (getattr(a, f"{task.dataset}_{what}") for what in ("prompt", "response"))
    length = response if stage in ("sample", "measure") else prompt + response
    passes = scale.epochs * a.learning_rates if stage == "train" else 1
    return prompts, responses, prompts * responses * length * passes


def hours(stage: str, scale: PaperScale, task: PaperTask, model: Model, a: Assumptions) -> float:
    """GPU hours of one run of a stage: one model, and one teacher's responses where it is a student."""
    *_, tokens = run_size(stage, scale, task, a)
    peak = a.peak_tflops * 1e12
    if stage == "train":
        return a.train_flops * model.parameters * tokens / (a.train_use * peak) / 3600
    if stage == "score":  # the paper's ten minutes, in proportion to parameters, tokens and rows kept
        share = tokens / (2048 * 320) * model.parameters / 1.24e9 * task.d_kept / 512
        return (a.score_minutes * share + a.score_fixed / 60) / 60
    speed = min(a.sample_most, a.sample_use * peak / (a.sample_flops * model.parameters))
    return (tokens / speed + a.score_fixed * model.gpus) / 3600


def disk_gb(stage: str, scale: PaperScale, task: PaperTask, model: Model, a: Assumptions) -> float:
    """What one run of a stage leaves: a student's weights, a cell's features, or text."""
    if stage == "train":
        return 4 * model.parameters / 1e9
    if stage == "score":
        return scale.n_prompts * scale.m * task.d_kept * 4 / 1e9
    return run_size(stage, scale, task, a)[2] * a.characters / 1e9


def plan(scale: PaperScale, a: Assumptions = Assumptions()) -> pd.DataFrame:
    """One row per stage and task (and student): task, stage, who, cells, prompts, responses, tokens, gpu_hours,
    disk_gb.

    `cells` counts runs of the stage; `prompts` and `responses` are of one run; tokens, gpu_hours and disk_gb of all.
    The last row is the total. Weights that are downloaded have rows of their own.
    """
    rows = []
    for task in scale.tasks:
        n_t = len(task.sampled())
        cells = len(scale.teachers) * n_t
        work = [(stage, "teachers", scale.teachers, n_t) for stage in ("sample", "measure")]
        for role, name in task.casting:
            base = [scale.model(task, role)]
            work += [("score", name, base, cells), ("train", name, base, cells), ("measure", name, base, cells + 1)]
        for stage, who, models, runs in work:
            prompts, responses, tokens = run_size(stage, scale, task, a)
            rows.append(
                {
                    "task": task.title,
                    "stage": stage,
                    "who": who,
                    "cells": runs * len(models),
                    "prompts": prompts,
                    "responses": prompts * responses,
                    "tokens": runs * len(models) * tokens,
                    "gpu_hours": runs * sum(hours(stage, scale, task, model, a) for model in models),
                    "disk_gb": runs * sum(disk_gb(stage, scale, task, model, a) for model in models),
                }
            )
    models = dict.fromkeys(scale.models())
    weights = sum(m.parameters for m in models) * 2 / 1e9
    rows.append(
        {"task": "", "stage": "download", "who": f"{len(models)} models", "cells": len(models), "disk_gb": weights}
    )
    table = pd.DataFrame(rows)
    total = {"task": "", "stage": "total", "who": ""} | table[["gpu_hours", "disk_gb"]].sum().to_dict()
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True)


def plan_text(scale: PaperScale, a: Assumptions = Assumptions()) -> str:
    """The plan as it is printed: who takes part, the table, the sums, and every assumption with its source."""
    table = plan(scale, a)
    numbers = {
        "cells": "{:.0f}",
        "prompts": "{:,.0f}",
        "responses": "{:,.0f}",
        "tokens (1e9)": "{:,.2f}",
        "gpu_hours": "{:,.1f}",
        "disk_gb": "{:,.1f}",
    }
    shown = table.assign(tokens=table["tokens"] / 1e9).rename(columns={"tokens": "tokens (1e9)"}).astype(object)
    for column, form in numbers.items():
        shown[column] = ["" if pd.isna(x) else form.format(x) for x in shown[column]]
    trained = table[table["stage"] == "train"]
    n_hours, disk = table["gpu_hours"].iloc[-1], table["disk_gb"].iloc[-1]
    largest = max(scale.model(task, role).parameters for task in scale.tasks for role, _ in task.casting)
    lines = [
        f"scale {scale.name}: n = {scale.n_prompts}, m = {scale.m}, d = {scale.d}, C = {scale.n_folds}, "
        f"M = {scale.M}; {scale.epochs:g} epochs, batch {scale.batch_size}, "
        f"lr {scale.lr:g}, warm-up {scale.warmup:.0%}; Average@{scale.k} at T = {scale.test_temperature:g}",
        "",
        *(
            f"{task.title}: {task.n_train:,} + {task.n_test:,} problems, {task.d_kept} projection rows kept; students "
            f"{', '.join(name for _, name in task.casting)}; teachers at T = "
            + ", ".join(f"{t:g}" for t in task.sampled())
            for task in scale.tasks
        ),
        "teachers: " + ", ".join(m.name for m in scale.teachers),
        "",
        shown.to_string(index=False),
        "",
        f"In all {int(trained['cells'].sum())} students, about {n_hours:,.0f} GPU hours "
        f"({n_hours / 24:,.1f} days of one GPU) and {disk:,.0f} GB; {disk - trained['disk_gb'].sum():,.0f} GB if trained "
        f"students are removed once measured (--drop-weights). While one trains, {4 * 4 * largest / 1e9:,.0f} GB of GPU "
        "memory hold weights, gradients and AdamW's moments.",
    ]
    wide = ", ".join(f"{m.name} ({min(m.gpus, scale.gpus)})" for m in scale.teachers if m.gpus > 1)
    gated = ", ".join(m.source for m in dict.fromkeys(scale.models()) if m.terms and not m.path)
    for said, what in (
        ("Sampled on several GPUs of 80 GB at once", wide),
        ("Not the paper's", "; ".join(changes(scale))),
        ("Gated on the hub, access is needed for", gated),
    ):
        if what:
            lines += ["", f"{said}: {what}"]
    lines += ["", "Assumptions (change any with --assume NAME=VALUE):"]
    lines += [
        f"  {r.name} = {r.value:g} {r.unit}. {r.source[0].upper()}{r.source[1:]}." for r in a.table().itertuples()
    ]
    return "\n".join(lines)
