"""Result table `estimators`: the cheaper estimators of GRACE beside the exact one, on the same responses.

Why measured and not argued: gradients of fewer parameters, and cheaper projections, are in use under the same name. What
they save depends on the student, and whether they rank teachers as the exact features do can only be seen where both
are there. Seconds and memory are of this run and machine (`volatile`); finished jobs keep theirs, so that the same runs
give the same table. In a world of small students "last-layer" and "lora-b" save little: their gain is at large D.
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import pandas as pd

from gracelib.evidence.ranks import DegenerateError, spearman
from gracelib.experiment import scoring
from gracelib.experiment.plan import KEY, Plan, compared_at
from gracelib.experiment.scales import get_scale
from gracelib.experiment.tables import _finish, _table
from gracelib.jobs import paths
from gracelib.jobs.store import Job, Stage
from gracelib.scale import Scale

#: name -> what is changed of `gradients.response_features`; the first is the paper's and the pipeline's
ESTIMATORS = {
    "exact": {},
    "last-layer": {"params": "last-layer"},
    "lora-b": {"params": "lora-b"},
    "sjlt": {"projection": "sjlt"},
    "two-sided": {"projection": "two-sided"},
}
#: Scales at which this is not measured: hours of gradients beyond those of the pipeline, to see the same ranks again.
NOT_AT = ("lab",)


def run_estimator(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Features of one cell by one estimator, timed, and GRACE from them; `rows.json` has one record."""
    import numpy as np

    from gracelib.experiment.stages import _load
    from gracelib.features.estimators import n_parameters
    from gracelib.features.gradients import response_features
    from gracelib.features.heap import give_back
    from gracelib.features.memory import peak_memory, reset_peak
    from gracelib.models.prompting import encode_examples
    from gracelib.scores import grace, recalibrate
    from gracelib.text.tasks import read_responses

    model, tokenizer = _load(inputs["student"])
    rows = read_responses(inputs["responses"] / "responses.jsonl", params["n_prompts"], params["m"], allow_empty=True)
    examples = encode_examples(
        tokenizer, [(row["question"], response) for row in rows for response in row["responses"]]
    )
    own, how = ESTIMATORS[params["estimator"]], {k: params[k] for k in ("d", "device", "dtype")}
    how |= {"seed": params["projection_seed"], "progress": False}
    response_features(model, examples[:2], **how, **own)  # what is loaded and chosen once is not the estimator's
    give_back()
    fresh, before, started = reset_peak(how["device"]), peak_memory(how["device"]), time.perf_counter()
    f = response_features(model, examples, **how, **own)
    seconds, peak = time.perf_counter() - started, peak_memory(how["device"]) - before
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="nu = ")  # a column of other tables
        found = grace(
            recalibrate(f["g"], f["length"]),
            np.repeat(np.array([str(r["id"]) for r in rows]), params["m"]),
            n_folds=params["n_folds"],
            nu=params["nu"],
            zero_rows="keep",
        )
    row = {
        "estimator": params["estimator"],
        "parameters": n_parameters(model, own.get("params", "all")),
        "responses": len(examples),
        "seconds": round(seconds, 3),
        "peak_mib": round(peak / 2**20, 1) if fresh else None,
        "grace": found.total,
        "device": how["device"],
    }
    (out / scoring.ROWS).write_text(json.dumps([row]), encoding="utf-8")


ESTIMATOR = Stage("estimator", run_estimator)


def jobs(config: Scale) -> dict[tuple, Job]:
    """One job an estimator and a cell of the first student at the temperature where teachers are compared: `KEY` and
    the estimator's name."""
    plan, found = Plan(config), {}
    for (student, teacher, t), features in plan.features.items():
        if student == config.student and t == compared_at(config):
            params = {k: features.params[k] for k in ("n_prompts", "device", "dtype", "projection_seed")}
            params |= {"m": config.m, "d": config.d, "n_folds": config.n_folds, "nu": config.nu}
            found |= {
                (plan.task.name, student, teacher, t, name): Job(
                    ESTIMATOR, params | {"estimator": name}, features.inputs, f"{name}: {features.label}", features.cost
                )
                for name in ESTIMATORS
            }
    return found


def estimators(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Every estimator of ESTIMATORS for every teacher (first task and student, one temperature) at the scale's n, m, d.

    Columns: task, student, teacher, temperature, estimator, parameters (D of its gradients), responses, seconds and
    peak_mib (of the features, beyond the student; empty where the system does not tell), grace, device, volatile.
    """

    def make():
        made, rows = jobs(get_scale(scale)), []
        _finish([made], "estimators")
        for key, job in made.items():
            (row,) = json.loads((job.folder(paths.runs()) / scoring.ROWS).read_text(encoding="utf-8"))
            rows.append(dict(zip(KEY, key[:-1], strict=True)) | row | {"volatile": True})
        return pd.DataFrame(rows)

    return _table(scale, "estimators", recompute, make)


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """What each estimator costs and keeps, a row each in the order of ESTIMATORS, from the table `estimators`.

    Columns: parameters, seconds and peak_mib (medians over cells), times_exact (of seconds), agreement (Spearman rank
    correlation of GRACE with the exact estimator's over the teachers), cells, volatile. NaN where fewer than three
    cells, or equal scores, leave no ranks.
    """
    rows, wide = [], table.pivot(index=KEY, columns="estimator", values="grace")
    for name in ESTIMATORS:
        own = table[table["estimator"] == name]
        rows.append(
            {
                "estimator": name,
                "parameters": own["parameters"].iloc[0],
                "seconds": own["seconds"].median(),
                "peak_mib": own["peak_mib"].median(),
                "agreement": _agreement(wide, name),
                "cells": len(own),
                "volatile": True,
            }
        )
    made = pd.DataFrame(rows).set_index("estimator")
    made.insert(2, "times_exact", made["seconds"] / made["seconds"]["exact"])
    return made


def _agreement(wide: pd.DataFrame, name: str) -> float:
    try:
        return -spearman(wide[name], wide["exact"], "lower")  # "lower" turns the sign round
    except DegenerateError:
        return float("nan")
