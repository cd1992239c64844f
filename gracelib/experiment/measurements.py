"""What is measured on the features of a cell, once they are finished, and for which cells.

Why jobs at all: a grid of 160 settings or 30 variants takes seconds per cell, and cells are independent, so they run in
the worker processes and are kept like any other result. Each writes `rows.json`, a list of records.

Two of these stages measure seconds, and seconds differ between machines and runs: finished jobs keep theirs, so that
the same runs give the same table. `ESTIMATORS` are measured and not argued: gradients of fewer parameters, and cheaper
projections, are in use under the same name; whether they rank teachers as the exact features do can only be seen where
both are there. In a world of small students "last-layer" and "lora-b" save little: their gain is at large D.
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from gracelib.checks import check_column, check_prompt_ids
from gracelib.cmi import cmi_bound
from gracelib.evidence.until_clear import race, rounds
from gracelib.experiment.plan import Plan, compared_at
from gracelib.features.files import load_features
from gracelib.grid import score_grid
from gracelib.intervals import grace_influence
from gracelib.jobs.store import Job, Stage
from gracelib.models.checkpoints import load_student
from gracelib.models.further import MORE, mean_losses
from gracelib.models.prompting import encode, encode_examples
from gracelib.scale import Scale
from gracelib.scores import grace, recalibrate
from gracelib.text.responses import read_responses
from gracelib.variants import few_prompts, variant_values

ROWS, LOSSES = "rows.json", "losses.safetensors"
BINS_AN_OCTAVE = 4  #: bin k holds the lengths in [2^(k/4), 2^((k+1)/4)): 19% wide, whatever the scale
#: name -> the choice of `features.estimators`; the first is the paper's and the pipeline's
ESTIMATORS = {
    "exact": {},
    "last-layer": {"params": "last-layer"},
    "lora-b": {"params": "lora-b"},
    "sjlt": {"projection": "sjlt"},
}
DRAWS = 8  #: orders of the prompts that a race is run in
_TIMES = 3  #: GRACE is timed this often a cell; the median counts


def rows_of(job: Job, root: Path) -> list[dict]:
    """The records that a finished job of these stages wrote."""
    return json.loads((job.folder(root) / ROWS).read_text(encoding="utf-8"))


def _write(out: Path, rows: list[dict]) -> None:
    (out / ROWS).write_text(json.dumps(rows), encoding="utf-8")


def _features(inputs: dict[str, Path], params: dict) -> dict:
    """The features at the m and d that the parameters name; as many as are kept where they name none."""
    return load_features(inputs["features"], params.get("m"), params.get("d"))


def _settings(params: dict) -> dict:
    return {"n_folds": params["n_folds"], "nu": params["nu"], "zero_rows": "keep"}


# --- the stages ---------------------------------------------------------------------------------------------


def run_variants(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    _write(out, [variant_values(_features(inputs, params), params["n_folds"], params["nu"])])


def run_few_prompts(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    _write(out, [few_prompts(_features(inputs, params), params["n_kept"])])


def run_contributions(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    f = _features(inputs, params)
    h = recalibrate(f["g"], f["length"])
    result = grace(h, f["prompt_id"], **_settings(params))
    moved = grace_influence(h, f["prompt_id"], **_settings(params))
    columns = {"prompt": result.prompt_ids, "contribution": result.per_prompt, "count": result.count}
    rows = pd.DataFrame(columns).assign(influence=moved, nu_share=result.nu_share)
    _write(out, rows.to_dict("records"))


def run_grid(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    features, rows = _features(inputs, {}), {}
    for block in params["blocks"]:  # blocks overlap (each goes through the default setting): one row per setting
        for row in score_grid(features, **block):
            rows.setdefault(tuple(row[k] for k in ("n", "m", "d", "n_folds", "nu", "power")), row)
    _write(out, list(rows.values()))


def run_cmi(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    f, rows = _features(inputs, params), []
    prompt_ids, code = check_prompt_ids(f["prompt_id"], len(f["g"]))
    taken_as = np.argsort(np.random.default_rng(0).permutation(len(prompt_ids)))[code]  # nested subsets, as in the grid
    for setting in params["settings"]:
        x = recalibrate(f["g"], f["length"], 1.0 if setting["space"] == "h" else 0.0)
        kept = taken_as < setting["n"]
        keys = {k: setting[k] for k in ("preconditioner", "nu")}
        bound = cmi_bound(x[kept], code[kept], eta=1.0, sigma=1.0, zero_rows="keep", **keys)
        terms = ("gradient", "stability", "stability_proof", "cross", "lemma", "proof", "tight")
        rows.append({**setting, **{t: getattr(bound, t) for t in terms}, "log_n": bound.log_n})
    _write(out, rows)


def run_timing(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Seconds of GRACE on one cell's features: from `g` as it was loaded to the score, the median of three."""
    f, seconds = _features(inputs, params), []
    for _ in range(_TIMES):
        started = time.perf_counter()
        grace(recalibrate(f["g"], f["length"]), f["prompt_id"], **_settings(params))
        seconds.append(time.perf_counter() - started)
    _write(out, [{"score_seconds": round(statistics.median(seconds), 4), "feature_bytes": f["g"].nbytes}])


def run_estimator(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Features of one cell by one estimator, timed, and GRACE from them."""
    from gracelib.features.batches import give_back
    from gracelib.features.estimators import estimator, n_parameters
    from gracelib.features.gradients import response_features
    from gracelib.features.memory import peak_memory, reset_peak

    model, tokenizer = load_student(inputs["student"])
    rows = read_responses(inputs["responses"] / "responses.jsonl", params["n_prompts"], params["m"], allow_empty=True)
    pairs = [(row["question"], response) for row in rows for response in row["responses"]]
    examples = encode_examples(tokenizer, pairs)
    own, seed = ESTIMATORS[params["estimator"]], params["projection_seed"]
    how = {k: params[k] for k in ("d", "device", "dtype")} | {"seed": seed, "progress": False}
    how |= estimator(**own, seed=seed)
    response_features(model, examples[:2], **how)  # what is loaded and chosen once is not the estimator's
    give_back()
    fresh, before, started = reset_peak(how["device"]), peak_memory(how["device"]), time.perf_counter()
    f = response_features(model, examples, **how)
    seconds, peak = time.perf_counter() - started, peak_memory(how["device"]) - before
    prompt_id = np.repeat(np.array([str(row["id"]) for row in rows]), params["m"])
    found = grace(recalibrate(f["g"], f["length"]), prompt_id, **_settings(params))
    _write(
        out,
        [
            {
                "estimator": params["estimator"],
                "parameters": n_parameters(model, own.get("params", "all")),
                "responses": len(examples),
                "seconds": round(seconds, 3),
                "peak_mib": round(peak / 2**20, 1) if fresh else None,
                "grace": found.total,
                "device": how["device"],
                "volatile": True,
            }
        ],
    )


def run_further(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """The losses of further passes (`further.MORE`) over the first response to each prompt, in LOSSES (NaN of the others), and
    the seconds of these and of a pass without gradients (but those of the output projection to one number, as `gracelib mix`
    takes them)."""
    from safetensors.numpy import save_file

    from gracelib.features.estimators import estimator
    from gracelib.features.gradients import response_features

    model, tokenizer = load_student(inputs["student"])
    rows = read_responses(inputs["responses"] / "responses.jsonl", params["n_prompts"], params["m"], allow_empty=True)
    encoded = encode(tokenizer, [(row["question"], text) for row in rows for text in row["responses"]], steps=True)
    how = {"d": 1, "device": params["device"], "dtype": params["dtype"], "progress": False} | estimator("last-layer")
    losses, row = {}, {"responses": len(rows), "device": params["device"], "volatile": True}
    for name, given in {"forward": lambda e: [e], **MORE}.items():
        made = [[] if i % params["m"] else given(e) for i, e in enumerate(encoded)]
        examples, started = [(e.prompt_ids, e.response_ids) for own in made for e in own], time.perf_counter()
        losses[name] = mean_losses(response_features(model, examples, **how)["loss"], made)
        row[f"{name}_seconds"] = round(time.perf_counter() - started, 3)
    save_file(losses, out / LOSSES)
    _write(out, [row])


def run_race(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """`until_clear.race` of the teachers in `inputs`, in `params["draws"]` orders of the prompts, a row each: first (on all prompts),
    stayed (did it?), prompts (when it ended), left (how many left early), saved (share of the gradients)."""
    features, rows = {name: _features({"features": folder}, params) for name, folder in inputs.items()}, []
    n, folds = params["n_prompts"], _settings(params)

    def look(name: str, stop: int):
        f, kept = features[name], np.isin(features[name]["prompt"], order[:stop])
        h = recalibrate(f["g"][kept, : min(params["d"], stop)], f["length"][kept])
        return [one(h, f["prompt_id"][kept], **folds) for one in (grace, grace_influence)]

    order = np.arange(n)
    total = {name: look(name, n)[0].total for name in features}
    first = min(total, key=total.get)
    for draw in range(params["draws"]):
        order = np.random.default_rng(draw).permutation(n)
        stayed, taken, left, saved = race([*features], rounds(n, folds["n_folds"]), lambda *_: None, look)
        rows.append({"first": first, "stayed": first in stayed, "prompts": taken, "left": len(left), "saved": saved})
    _write(out, rows)


VARIANTS = Stage("variants", run_variants)
FEW_PROMPTS = Stage("few_prompts", run_few_prompts)
CONTRIBUTIONS = Stage("contributions", run_contributions)
GRID = Stage("grid", run_grid)
CMI = Stage("cmi", run_cmi)
TIMING = Stage("timing", run_timing)
ESTIMATOR = Stage("estimator", run_estimator)
FURTHER = Stage("further", run_further)
RACE = Stage("race", run_race)
STAGES = (VARIANTS, FEW_PROMPTS, CONTRIBUTIONS, GRID, CMI, TIMING, ESTIMATOR, FURTHER, RACE)


# --- which cells: jobs by `KEY` ---------------------------------------------------------------------------------


def _each(
    plans: list[Plan],
    stage: Stage,
    params: Callable[[Scale, tuple], dict],
    cost: float = 1.0,
    everywhere: bool = False,
    at: Callable[[Scale], float] | None = None,
) -> dict[tuple, tuple[Job]]:
    """A job of a stage for the cells of the first task and student (or `everywhere`), or those at one temperature.

    `params(scale, key)` are its parameters; the scale's m and d are added to them.
    """
    found = {}
    for plan in plans:
        for cell, features in plan.features.items():
            key, scale = (plan.task.name, *cell), plan.scale
            wanted = everywhere or (plan.first_task and cell[0] == scale.student)
            if wanted and (at is None or at(scale) == cell[2]):
                own = {"m": scale.m, "d": scale.d} | params(scale, key)
                found[key] = (Job(stage, own, {"features": features}, features.label, cost),)
    return found


def _usual(scale: Scale, key: tuple) -> dict:
    return {"n_folds": scale.n_folds, "nu": scale.nu}


def _grid_blocks(scale: Scale, key: tuple) -> dict:
    """First task and student: n x d (the kept d halved down to an eighth), C, m, and nu x length power, each with all
    else at the scale's setting. Other students of the first task: the kept d. Other tasks: C."""
    full = {"n": [scale.n_prompts], "m": [scale.m], "d": [scale.d], "n_folds": [scale.n_folds], "nu": [scale.nu]}
    folds = full | {"n_folds": [c for c in (2, 4, 5, 6, 8, 10, 12, 16, 20) if c <= scale.n_prompts]}
    if key[0] != scale.tasks[0].name:
        return {"blocks": [folds]}
    if key[1] != scale.student:
        return {"blocks": [full, full | {"d": [scale.d_kept]}]}
    sizes = full | {"n": [n for n in halves(scale.n_prompts, 4) if n >= scale.n_folds], "d": halves(scale.d_kept, 4)}
    responses = full | {"m": halves(scale.m_kept, 4)}
    smoothing = full | {"nu": sorted({1e-4, scale.nu, 1e-2, 1e-1}), "power": [0.0, 1.0, 2.0]}
    return {"blocks": [sizes, folds, responses, smoothing]}


def halves(size: int, n: int) -> list[int]:
    """`size` and what halving it n - 1 times gives, smallest first (whole numbers of at least 1)."""
    return sorted({max(1, size >> k) for k in range(n)})


def _cmi_settings(scale: Scale, key: tuple) -> dict:
    """Other nu and n than the scale's only at the temperature where teachers are compared."""
    base = {"space": "h", "preconditioner": "smoothed", "nu": scale.nu, "n": scale.n_prompts}
    settings = [base, base | {"preconditioner": "identity"}, base | {"space": "g"}]
    if key[3] == compared_at(scale):
        settings += [base | {"nu": nu} for nu in (1e-4, 1e-2, 1e-1)]
        settings += [base | {"n": scale.n_prompts // k} for k in (2, 4)]
    return {"settings": settings}


variant_jobs = partial(_each, stage=VARIANTS, params=_usual)
few_prompts_jobs = partial(_each, stage=FEW_PROMPTS, params=lambda scale, key: {"n_kept": 4}, at=compared_at)
contribution_jobs = partial(_each, stage=CONTRIBUTIONS, params=_usual)
grid_jobs = partial(_each, stage=GRID, params=_grid_blocks, cost=3.0, everywhere=True)
cmi_jobs = partial(_each, stage=CMI, params=_cmi_settings)
timing_jobs = partial(_each, stage=TIMING, params=_usual, everywhere=True)


def estimator_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job]]:
    """One job an estimator and a cell of the first student at the temperature where teachers are compared: `KEY` and
    the estimator's name."""
    plan, scale, found = plans[0], plans[0].scale, {}
    for (student, teacher, t), features in plan.features.items():
        if student == scale.student and t == compared_at(scale):
            shared = {k: features.params[k] for k in ("n_prompts", "device", "dtype", "projection_seed")}
            shared |= {"m": scale.m, "d": scale.d, "n_folds": scale.n_folds, "nu": scale.nu}
            for name in ESTIMATORS:
                params, label = shared | {"estimator": name}, f"{name}: {features.label}"
                job = Job(ESTIMATOR, params, features.inputs, label, features.cost)
                found[plan.task.name, student, teacher, t, name] = (job,)
    return found


def further_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job]]:
    """Further passes over the responses of every cell of the first task and student."""
    plan, scale, found = plans[0], plans[0].scale, {}
    for cell, features in plan.features.items():
        if cell[0] == scale.student:
            params = {k: features.params[k] for k in ("n_prompts", "device", "dtype")} | {"m": scale.m}
            found[plan.task.name, *cell] = (Job(FURTHER, params, features.inputs, features.label, features.cost),)
    return found


def race_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job]]:
    """A race of all teachers of the first task and student, by task, student and temperature."""
    plan, scale = plans[0], plans[0].scale
    params = {
        "n_prompts": scale.n_prompts,
        "m": scale.m,
        "d": scale.d,
        "n_folds": scale.n_folds,
        "nu": scale.nu,
        "draws": DRAWS,
    }
    found = {}
    for t in scale.temperatures:
        racing = {name: plan.features[scale.student, name, t] for name in plan.teachers if plan.task.takes(name, t)}
        found[plan.task.name, scale.student, t] = (Job(RACE, params, racing, f"T={t}", 10.0),)
    return found


# --- read off them ------------------------------------------------------------------------------------------


def length_bins(length: np.ndarray, norm: np.ndarray) -> pd.DataFrame:
    """Gradient norms of single responses, binned by |y|; only bins that hold a response.

    The bins do not depend on the data, so that cells, teachers and scales can be put together afterwards. `length`
    (N,) tokens >= 1, `norm` (N,) the unprojected |g|. Columns: bin_low, bin_high (the bin is [low, high)), count,
    mean_length, mean_norm, mean_norm_log (of norm x log|y|), mean_norm_log2 (of norm x (log|y|)^2). ValueError for a
    length below one, or a norm that is negative or not finite.
    """
    length, norm = check_column("length", length, 1), check_column("norm", norm, 0)
    bins = np.floor(BINS_AN_OCTAVE * np.log2(length) + 1e-9).astype(int)  # the margin keeps powers of two in their bin
    means = {"mean_length": length, "mean_norm": norm}
    means |= {"mean_norm_log": norm * np.log(length), "mean_norm_log2": norm * np.log(length) ** 2}
    in_bins = pd.DataFrame(means).groupby(bins)
    number = np.unique(bins)
    edges = {"bin_low": 2 ** (number / BINS_AN_OCTAVE), "bin_high": 2 ** ((number + 1) / BINS_AN_OCTAVE)}
    found = pd.DataFrame({**edges, "count": in_bins.size().to_numpy()}, index=number)
    return found.join(in_bins.mean()).reset_index(drop=True)
