"""Stages that need no model: what is measured on finished features, one folder of rows a cell, and made-up responses.

Why jobs at all: a grid of 160 settings or 30 variants takes seconds a cell, and cells are independent, so they run in
the worker processes and are kept like any other result. Each writes `rows.json`, a list of records.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from gracelib.jobs.store import Stage

ROWS = "rows.json"


def _write(out: Path, rows: list[dict]) -> None:
    (out / ROWS).write_text(json.dumps(rows), encoding="utf-8")


def _features(inputs: dict[str, Path], params: dict) -> dict:
    """The features at the m and d that the parameters name; as many as are kept where they name none."""
    from gracelib.features.files import load_features

    return load_features(inputs["features"], params.get("m"), params.get("d"))


def _quiet():
    """That nu decides is a column (or a row) of the table where it matters, not a line per setting on stderr."""
    warnings.filterwarnings("ignore", message="nu = ")


def run_variants(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.variants import variant_values

    with warnings.catch_warnings():
        _quiet()
        _write(out, [variant_values(_features(inputs, params), params["n_folds"], params["nu"])])


def run_few_prompts(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.variants import few_prompts

    _write(out, [few_prompts(_features(inputs, params), params["n_kept"])])


def run_contributions(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.intervals import grace_influence
    from gracelib.scores import grace, recalibrate

    f = _features(inputs, params)
    h = recalibrate(f["g"], f["length"])
    keys = {"n_folds": params["n_folds"], "nu": params["nu"], "zero_rows": "keep"}
    with warnings.catch_warnings():
        _quiet()
        result = grace(h, f["prompt_id"], **keys)
    moved = grace_influence(h, f["prompt_id"], **keys)
    columns = (result.prompt_ids.tolist(), result.per_prompt.tolist(), result.count.tolist(), moved.tolist())
    _write(
        out,
        [
            dict(zip(("prompt", "contribution", "count", "influence"), row, strict=True))
            | {"nu_share": result.nu_share}
            for row in zip(*columns, strict=True)
        ],
    )


def run_grid(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.grid import score_grid

    features, rows = _features(inputs, {}), {}
    for block in params["blocks"]:  # blocks overlap (each goes through the default setting): one row a setting
        for row in score_grid(features, **block):
            rows.setdefault(tuple(row[k] for k in ("n", "m", "d", "n_folds", "nu", "power")), row)
    _write(out, list(rows.values()))


def run_cmi(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    import numpy as np

    from gracelib.checks import check_prompt_ids
    from gracelib.cmi import cmi_bound
    from gracelib.scores import recalibrate

    f, rows = _features(inputs, params), []
    prompt_ids, code = check_prompt_ids(f["prompt_id"], len(f["g"]))
    taken_as = np.argsort(np.random.default_rng(0).permutation(len(prompt_ids)))[code]  # nested subsets, as in the grid
    for setting in params["settings"]:
        x = recalibrate(f["g"], f["length"], 1.0 if setting["space"] == "h" else 0.0)
        kept = taken_as < setting["n"]
        keys = {k: setting[k] for k in ("space", "preconditioner", "nu")}
        bound = cmi_bound(x[kept], code[kept], eta=1.0, sigma=1.0, zero_rows="keep", **keys)
        terms = ("gradient", "stability", "stability_proof", "cross", "lemma", "proof", "tight")
        rows.append({**setting, **{t: getattr(bound, t) for t in terms}, "log_n": bound.log_n})
    _write(out, rows)


def run_coverage(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.evidence.coverage import DESIGNS, coverage

    _write(out, [{"design": params["design"], **coverage(DESIGNS[params["design"]], params["n_sets"])}])


def run_made(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.experiment.pathological import random_responses, repeated_response
    from gracelib.models.accuracy import grade
    from gracelib.text.tasks import read_responses, write_jsonl
    from gracelib.world import stories

    rows = read_responses(inputs["responses"] / "responses.jsonl", allow_empty=True)
    made = (
        repeated_response(rows)
        if params["kind"] == "repeated"
        else random_responses(rows, stories.vocabulary(), params["seed"])
    )
    write_jsonl(out / "responses.jsonl", grade(made))


VARIANTS = Stage("variants", run_variants)
FEW_PROMPTS = Stage("few_prompts", run_few_prompts)
CONTRIBUTIONS = Stage("contributions", run_contributions)
GRID = Stage("grid", run_grid)
CMI = Stage("cmi", run_cmi)
COVERAGE = Stage("coverage", run_coverage)
MADE = Stage("made_responses", run_made)
