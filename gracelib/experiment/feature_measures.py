"""Result tables read off the features: gradient norm against response length, and what a cell costs.

Why apart from `measures`: these two need every response that was kept, and nothing of the scores but their running
time. The first stays small because single responses are binned by length, in bins that do not depend on the data, so
that cells, teachers and scales can be put together afterwards. The second is made of seconds: it is the one table that
another machine will not repeat, and each row says so.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd

from gracelib.experiment import scoring
from gracelib.experiment.plan import KEY, Plan, compared_at, plans_of
from gracelib.experiment.scales import get_scale
from gracelib.experiment.tables import _finish, _table
from gracelib.features.files import load_features
from gracelib.jobs import paths
from gracelib.jobs.store import META, Job, Stage
from gracelib.scale import Scale

BINS_AN_OCTAVE = 4  #: bin k holds the lengths in [2^(k/4), 2^((k+1)/4)): 19% wide, whatever the scale
_TIMES = 3  #: GRACE is timed this often a cell; the median counts


def length_bins(length: np.ndarray, norm: np.ndarray) -> pd.DataFrame:
    """Gradient norms of single responses, binned by |y|; only bins that hold a response.

    `length` (N,) tokens >= 1, `norm` (N,) the unprojected |g|. Columns: bin_low, bin_high (the bin is [low, high)),
    count, mean_length, mean_norm, mean_norm_log (of norm x log|y|), mean_norm_log2 (of norm x (log|y|)^2). ValueError
    for a length below one, a norm that is not finite and > 0, or arrays of different lengths.
    """
    length, norm = np.asarray(length, float), np.asarray(norm, float)
    if length.ndim != 1 or length.shape != norm.shape or not len(length):
        raise ValueError(f"length has shape {length.shape}, norm {norm.shape}: expected one of each a response")
    for name, values, fine in (("length", length, length >= 1), ("norm", norm, np.isfinite(norm) & (norm > 0))):
        if not fine.all():
            at = int(np.flatnonzero(~fine)[0])
            raise ValueError(f"{name}[{at}] = {values[at]:g}: look at how the features were made")
    bins = np.floor(BINS_AN_OCTAVE * np.log2(length) + 1e-9).astype(int)  # the margin keeps powers of two in their bin
    log = np.log(length)
    rows = pd.DataFrame(
        {
            "bin": bins,
            "mean_length": length,
            "mean_norm": norm,
            "mean_norm_log": norm * log,
            "mean_norm_log2": norm * log**2,
        }
    )
    found = rows.groupby("bin").mean()
    edges = {"bin_low": 2 ** (found.index / BINS_AN_OCTAVE), "bin_high": 2 ** ((found.index + 1) / BINS_AN_OCTAVE)}
    counts = {"count": rows.groupby("bin").size()}
    return pd.DataFrame({**edges, **counts}, index=found.index).join(found).reset_index(drop=True)


def lengths(scale: str, recompute: bool = True) -> pd.DataFrame:
    """`length_bins` of every cell of every task and student, over all responses that were kept; six significant digits.

    Columns: task, student, teacher, temperature, then those of `length_bins`.
    """

    def make():
        plans = plans_of(get_scale(scale))
        _finish([plan.features for plan in plans], "features")
        found = []
        for plan in plans:
            for (student, teacher, t), job in plan.features.items():
                f = load_features(job.folder(paths.runs()))
                key = dict(zip(KEY, (plan.task.name, student, teacher, t), strict=True))
                found.append(length_bins(f["length"], f["grad_norm"]).assign(**key))
        table = pd.concat(found, ignore_index=True)
        table = table[[*KEY, *table.columns.drop(KEY)]]
        numbers = table.columns.drop([*KEY, "count"])
        return table.assign(**{c: table[c].map(lambda x: float(f"{x:.6g}")) for c in numbers})

    return _table(scale, "lengths", recompute, make)


def run_timing(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Seconds of GRACE on one cell's features: from `g` as it was loaded to the score, the median of three."""
    import warnings

    from gracelib.scores import grace, recalibrate

    f, seconds = load_features(inputs["features"], params["m"], params["d"]), []
    settings = {"n_folds": params["n_folds"], "nu": params["nu"], "zero_rows": "keep"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="nu = ")  # a column of other tables
        for _ in range(_TIMES):
            started = time.perf_counter()
            grace(recalibrate(f["g"], f["length"]), f["prompt_id"], **settings)
            seconds.append(time.perf_counter() - started)
    row = {"score_seconds": round(statistics.median(seconds), 4), "feature_bytes": f["g"].nbytes}
    (out / scoring.ROWS).write_text(json.dumps([row]), encoding="utf-8")


TIMING = Stage("timing", run_timing)


def cost(scale: str, recompute: bool = True) -> pd.DataFrame:
    """What each cell took and takes, one row a cell: seconds as measured when its jobs ran, in the worker processes.

    Columns: task, student, teacher, temperature, parameters (D of the student), responses (whose gradients were taken),
    feature_seconds (for these), needed (n m, what a score is computed from), score_seconds (GRACE from features in
    memory), feature_bytes (of n m x d numbers), train_seconds and test_seconds (of the cell's student, at the
    temperature at which teachers are compared, empty elsewhere), device, volatile (always True: seconds differ between
    machines, and between two runs on one). Students of that one temperature are trained if they are not there yet.
    Finished jobs keep their seconds, so that the same runs give the same table.
    """
    config = get_scale(scale)

    def make():
        plans = plans_of(config)
        timing = timings(config, plans)
        trained = {
            (plan.task.name, *cell): job
            for plan in plans
            for cell, job in plan.student_accuracy.items()
            if cell[2] == compared_at(config)
        }
        _finish([*(plan.students for plan in plans), timing, trained], "costs")
        return pd.DataFrame([row for plan in plans for row in _cost_rows(config, plan, timing)])

    return _table(scale, "cost", recompute, make)


def timings(config: Scale, plans: list[Plan]) -> dict[tuple, Job]:
    """The job that times GRACE on each cell, by `KEY`."""
    params = {"m": config.m, "d": config.d, "n_folds": config.n_folds, "nu": config.nu}
    return {
        (plan.task.name, *cell): Job(TIMING, params, {"features": features}, features.label)
        for plan in plans
        for cell, features in plan.features.items()
    }


def _cost_rows(config: Scale, plan: Plan, timing: dict) -> list[dict]:
    root, rows = paths.runs(), []
    sizes = {student: _parameters(plan.students[student].folder(root)) for student, _ in plan.task.temperatures}
    for cell, features in plan.features.items():
        key = (plan.task.name, *cell)
        score = json.loads((timing[key].folder(root) / scoring.ROWS).read_text(encoding="utf-8"))[0]
        row = dict(zip(KEY, key, strict=True)) | {
            "parameters": sizes[cell[0]],
            "responses": features.params["n_prompts"] * features.params["m"],
            "feature_seconds": _seconds(features),
            "needed": config.n_prompts * config.m,
            **score,
        }
        if cell[2] == compared_at(config):
            row["train_seconds"] = _seconds(plan.distilled[cell])
            row["test_seconds"] = _seconds(plan.student_accuracy[cell])
        rows.append(row | {"device": features.params["device"], "volatile": True})
    return rows


def _seconds(job: Job) -> float:
    """What a finished job took; NaN if its folder was removed to save space (what needed it is finished)."""
    path = job.folder(paths.runs()) / META
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.is_file() else float("nan")


def _parameters(folder: Path) -> int:
    """The numbers in a model's file; tied weights are in it once."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="numpy") as f:
        return sum(int(np.prod(f.get_slice(name).get_shape())) for name in f.keys())
