"""Result tables beyond the scores themselves: variants, intervals, the ablation grid, the CMI bound, odd teachers.

Each function is one table of a scale, as in `pipeline`: it finishes its jobs, writes `results/<name>.csv` and returns
what the file says; with `recompute=False` it reads the committed file. None of them runs a model except the two of the
pathological teachers.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from gracelib.evidence.coverage import DESIGNS
from gracelib.experiment import scoring
from gracelib.experiment.pathological import KINDS, PathologicalPlan
from gracelib.experiment.plan import KEY, Plan, accuracy_of, compared_at, plans_of
from gracelib.experiment.scales import get_scale
from gracelib.experiment.tables import _table, cell_scores, load_features
from gracelib.intervals import grace_difference, grace_interval
from gracelib.jobs import paths
from gracelib.jobs.store import Job
from gracelib.jobs.workers import run_jobs
from gracelib.scale import Scale
from gracelib.scores import Grace, recalibrate
from gracelib.text.tasks import read_responses


def _per_cell(
    plans: list[Plan], stage, params, at: float | None = None, cost: float = 1.0, everywhere: bool = False
) -> dict[tuple, Job]:
    """A job of a stage for the cells of the first task and student (or all), or those at one temperature, by `KEY`.

    `params` is a dict or a function of the cell's key. The scale's m and d are added to it.
    """
    found = {}
    for plan in plans:
        for cell, features in plan.features.items():
            key = (plan.task.name, *cell)
            first = plan.first_task and cell[0] == plan.scale.student
            if (everywhere or first) and at in (None, cell[2]):
                own = {"m": plan.scale.m, "d": plan.scale.d} | (params(key) if callable(params) else params)
                found[key] = Job(stage, own, {"features": features}, features.label, cost)
    return found


def jobs(config: Scale) -> dict[str, dict[tuple, Job]]:
    """What the tables of this module are read off, finished features aside: jobs by `KEY` (or name), by what they do."""
    plans, both = plans_of(config), {"n_folds": config.n_folds, "nu": config.nu}
    n_sets = 20 if config.name in ("nano", "smoke") else 200
    return {
        "variants": _per_cell(plans, scoring.VARIANTS, both),
        "few prompts": _per_cell(plans, scoring.FEW_PROMPTS, {"n_kept": 4}, compared_at(config)),
        "intervals": _per_cell(plans, scoring.CONTRIBUTIONS, both),
        "ablation grid": _per_cell(plans, scoring.GRID, _grid_params(config), cost=3.0, everywhere=True),
        "CMI bound": _per_cell(plans, scoring.CMI, _cmi_params(config)),
        "coverage": {
            (name,): Job(scoring.COVERAGE, {"design": name, "n_sets": n_sets}, {}, name, 5.0) for name in DESIGNS
        },
    }


def _rows(config: Scale, what: str) -> dict[tuple, list[dict]]:
    """The rows that the jobs of one kind write, once they are finished."""
    root, own = paths.runs(), jobs(config)[what]
    run_jobs([*own.values()], root, what)
    return {key: json.loads((job.folder(root) / scoring.ROWS).read_text(encoding="utf-8")) for key, job in own.items()}


def _frame(rows: dict) -> pd.DataFrame:
    return pd.DataFrame([dict(zip(KEY, key, strict=True)) | row for key, own in rows.items() for row in own])


def variants(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Every variant of `variants.VARIANTS` (and what it is compared with) in every cell, one column each."""
    return _table(scale, "variants", recompute, lambda: _frame(_rows(get_scale(scale), "variants")))


def few_prompts(scale: str, recompute: bool = True) -> pd.DataFrame:
    """The released code on all prompts and on 4, per teacher at one temperature: see `variants.few_prompts`."""
    return _table(scale, "few_prompts", recompute, lambda: _frame(_rows(get_scale(scale), "few prompts")))


def _contributions(config: Scale) -> dict[tuple, tuple[Grace, np.ndarray]]:
    """GRACE's per-prompt contributions and influences of every cell."""
    found = {}
    for key, rows in _rows(config, "intervals").items():
        prompt, value, count, moved = (
            np.array([row[k] for row in rows]) for k in ("prompt", "contribution", "count", "influence")
        )
        total, nan = float((count * value).sum() / count.sum()), float("nan")
        found[key] = Grace(total, nan, nan, nan, rows[0]["nu_share"], prompt, value, count, np.zeros(0), 0), moved
    return found


def intervals(scale: str, recompute: bool = True) -> pd.DataFrame:
    """GRACE of every cell with 95% intervals: low, high; low_fixed, high_fixed with the fold matrices held fixed."""

    def make():
        rows = []
        for key, (result, moved) in _contributions(get_scale(scale)).items():
            full, fixed = grace_interval(result, influence=moved), grace_interval(result)
            rows.append(
                dict(zip(KEY, key, strict=True))
                | {
                    "grace": result.total,
                    "low": full.low,
                    "high": full.high,
                    "low_fixed": fixed.low,
                    "high_fixed": fixed.high,
                }
            )
        return pd.DataFrame(rows)

    return _table(scale, "intervals", recompute, make)


def concentration(scale: str, recompute: bool = True) -> pd.DataFrame:
    """How few prompts carry GRACE, and how much of it the smoothing decides: one row a cell.

    Columns: grace, grace_low, grace_high (as `intervals`), top3_share (of the sum over prompts, the part of the three
    with the largest contributions), grace_without_top3 (the mean over the other prompts, matrices as fitted on all),
    nu_share (`Grace.nu_share`), largest_response (to the prompt with the largest contribution, the text with the
    longest gradient).
    """
    config, root = get_scale(scale), paths.runs()

    def make():
        rows, plan = [], Plan(config)
        run_jobs([*plan.features.values()], root, "features")
        for key, (result, moved) in _contributions(config).items():
            f = load_features(plan.features[key[1:]].folder(root), config.m, config.d)
            h, bounds = recalibrate(f["g"], f["length"]), grace_interval(result, influence=moved)
            top = result.prompt_ids[np.argmax(result.count * result.per_prompt)]
            number = np.argmax((h[f["prompt_id"] == top] ** 2).sum(1))  # features keep a prompt's responses in order
            texts = read_responses(plan.responses[key[2:]].folder(root) / "responses.jsonl", allow_empty=True)
            text = next(row["responses"][number] for row in texts if str(row["id"]) == str(top))
            share, rest = top_share(result)
            rows.append(
                dict(zip(KEY, key, strict=True))
                | {
                    "grace": result.total,
                    "grace_low": bounds.low,
                    "grace_high": bounds.high,
                    "top3_share": share,
                    "grace_without_top3": rest,
                    "nu_share": result.nu_share,
                    "largest_response": text,
                }
            )
        return pd.DataFrame(rows)

    return _table(scale, "concentration", recompute, make)


def top_share(result: Grace, k: int = 3) -> tuple[float, float]:
    """The share of GRACE's sum over prompts that the k largest contributions make, and the mean over the other prompts.

    The matrices stay as fitted on all prompts. ValueError if no prompt would be left.
    """
    if not 0 < k < len(result.per_prompt):
        raise ValueError(f"k = {k}: expected 1 to {len(result.per_prompt) - 1}, with {len(result.per_prompt)} prompts")
    part = result.count * result.per_prompt
    top, rest = np.split(np.argsort(-part, kind="stable"), [k])
    return float(part[top].sum() / part.sum()), float(part[rest].sum() / result.count[rest].sum())


def neighbours(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Teachers next to each other in GRACE's ranking of one student and temperature: paired differences with intervals.

    Columns: student, temperature, rank (of the better), better, worse, ratio (worse / better), difference, low, high,
    p_better (share of resamples that keep the order), apart (the 95% interval excludes zero). Empty with one teacher.
    """
    columns = [
        "student",
        "temperature",
        "rank",
        "better",
        "worse",
        "ratio",
        "difference",
        "low",
        "high",
        "p_better",
        "apart",
    ]

    def make():
        found, rows = _contributions(get_scale(scale)), []
        for student, t in sorted({(s, t) for _, s, _, t in found}):
            ranked = sorted(
                (key for key in found if key[1] == student and key[3] == t), key=lambda k: found[k][0].total
            )
            for rank, (a, b) in enumerate(zip(ranked, ranked[1:], strict=False), 1):
                pair = grace_difference(found[b][0], found[a][0], influence=(found[b][1], found[a][1]))
                d = pair.difference
                rows.append(
                    (
                        student,
                        t,
                        rank,
                        a[2],
                        b[2],
                        found[b][0].total / found[a][0].total,
                        d.value,
                        d.low,
                        d.high,
                        1 - pair.p_a_lower,
                        bool(d.low > 0),
                    )
                )
        return pd.DataFrame(rows, columns=columns)

    return _table(scale, "neighbours", recompute, make)


def coverage(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Coverage of the intervals on synthetic data, one row a design; 20 data sets at nano, 200 elsewhere."""
    return _table(
        scale,
        "coverage",
        recompute,
        lambda: pd.DataFrame([row for rows in _rows(get_scale(scale), "coverage").values() for row in rows]),
    )


def grid(scale: str, recompute: bool = True) -> pd.DataFrame:
    """`score_grid` along the lines the ablations need, from one pass of gradients; six significant digits.

    First task and student: n x d (the kept d halved down to an eighth), C, m, and nu x length power, each with all else
    at the scale's setting. Other students of the first task: the kept d. Other tasks: C.
    """

    def make():
        table = _frame(_rows(get_scale(scale), "ablation grid"))
        numbers = [*table.columns[table.columns.get_loc("power") + 1 :].drop("nu_decides")]
        return table.assign(**{c: table[c].map(lambda x: float(f"{x:.6g}")) for c in numbers})

    return _table(scale, "grid", recompute, make)


def _grid_params(config: Scale):
    full = {"n": [config.n_prompts], "m": [config.m], "d": [config.d], "n_folds": [config.n_folds], "nu": [config.nu]}
    sizes = {"n": [n for n in _halves(config.n_prompts, 4) if n >= config.n_folds], "d": _halves(config.d_kept, 4)}
    folds = full | {"n_folds": [c for c in (2, 4, 5, 6, 8, 10, 12, 16, 20) if c <= config.n_prompts]}
    blocks = [
        full | sizes,
        folds,
        full | {"m": _halves(config.m_kept, 4)},
        full | {"nu": sorted({1e-4, config.nu, 1e-2, 1e-1}), "power": [0.0, 1.0, 2.0]},
    ]

    def params(key: tuple) -> dict:
        if key[0] != config.tasks[0].name:
            return {"blocks": [folds]}
        return {"blocks": blocks if key[1] == config.student else [full, full | {"d": [config.d_kept]}]}

    return params


def _halves(size: int, n: int) -> list[int]:
    """`size` and what halving it n - 1 times gives, smallest first (whole numbers of at least 1)."""
    return sorted({max(1, size >> k) for k in range(n)})


def cmi(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Terms of the CMI bound of every cell with eta = sigma = 1 (multiply by eta^2/sigma^2), one row a setting.

    Columns: space ("g", "h"), preconditioner, nu, n, then the terms of `cmi.CmiBound`. Other nu and n than the scale's
    only at the temperature where teachers are compared.
    """
    return _table(scale, "cmi", recompute, lambda: _frame(_rows(get_scale(scale), "CMI bound")))


def _cmi_params(config: Scale):
    base = {"space": "h", "preconditioner": "smoothed", "nu": config.nu, "n": config.n_prompts}

    def params(key: tuple) -> dict:
        settings = [base, base | {"preconditioner": "identity"}, base | {"space": "g"}]
        if key[3] == compared_at(config):
            settings += [base | {"nu": nu} for nu in (1e-4, 1e-2, 1e-1)]
            settings += [base | {"n": config.n_prompts // k} for k in (2, 4)]
        return {"settings": settings}

    return params


def pathological_scores(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Every score of the three pathological teachers; columns student, teacher (the kind), correct (share), scores."""
    config, root = get_scale(scale), paths.runs()

    def make():
        odd, rows = PathologicalPlan(Plan(config)), []
        run_jobs([*odd.features.values()], root, "odd teachers")
        for (student, kind), job in odd.features.items():
            data = read_responses(odd.responses[student, kind].folder(root) / "responses.jsonl", allow_empty=True)
            right = [c for row in data for c in row["correct"]]
            rows.append(
                {
                    "student": student,
                    "teacher": kind,
                    "what": KINDS[kind],
                    "correct": sum(right) / len(right),
                    **cell_scores(load_features(job.folder(root), config.m, config.d), config.n_folds, config.nu),
                }
            )
        return pd.DataFrame(rows)

    return _table(scale, "pathological_scores", recompute, make)


def pathological(scale: str, recompute: bool = True) -> pd.DataFrame:
    """`pathological_scores` with the accuracy of the students that these teachers make."""
    config, root = get_scale(scale), paths.runs()

    def make():
        odd = PathologicalPlan(Plan(config))
        run_jobs([*odd.student_accuracy.values()], root, "odd students")
        trained = pd.DataFrame(
            [
                {"student": s, "teacher": kind, **accuracy_of(job, root)}
                for (s, kind), job in odd.student_accuracy.items()
            ]
        )
        return pathological_scores(scale, recompute=False).merge(
            trained.rename(columns={"average": "average_at_k"}), on=["student", "teacher"], validate="1:1"
        )

    return _table(scale, "pathological", recompute, make)
