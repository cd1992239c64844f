"""Result tables of a made-up world with the columns of the real ones, for any scale: GRACE falls with accuracy, with
noise; everything else is drawn at random. No run is behind them."""

from functools import partial

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES, SINCE
from gracelib.experiment import extras
from gracelib.experiment.plan import KEY, compared_at
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths


def write_tables(scale: str, seed: int = 0, noise: float = 0.3) -> None:
    """All tables that the claims of a scale are measured on, under `paths.results(scale)`."""
    config, rng = get_scale(scale), np.random.default_rng(seed)
    scores, students, teachers, grid, lengths, cmi = [], [], [], [], [], []
    for task in config.tasks:
        for i, spec in enumerate(config.teachers):
            width = config.teacher_bases[spec.base][0].width
            for t in filter(partial(task.takes, spec.name), task.sampled()):
                teachers.append(
                    {
                        "task": task.name,
                        "teacher": spec.name,
                        "manner": spec.manner,
                        "width": width,
                        "temperature": t,
                        "accuracy": rng.uniform(0.6, 1),
                        "best_of": 1.0,
                        "greedy": 1.0,
                        "train_accuracy": 0.9,
                        "mean_length": 30.0,
                        "truncated": 0.0,
                        "distinct": 0.8,
                    }
                )
            for student, temperatures in task.temperatures:
                for t in filter(partial(task.takes, spec.name), temperatures):
                    key = dict(zip(KEY, (task.name, student, spec.name, t), strict=True))
                    accuracy = float(np.clip(0.08 + 0.5 * ((i * 5) % 7) / 7 + rng.normal(0, 0.03), 0.01, 0.99))
                    grace = float(np.exp(5 * (0.6 - accuracy) + rng.normal(0, noise)))
                    row = (
                        key
                        | {"grace_cross": 0.0}
                        | {s: rng.uniform(0.1, 1) for s in SCORES if s not in ("teacher_accuracy", *SINCE)}
                    )
                    row |= {
                        "grace": grace,
                        "grace_variance": 0.9 * grace,
                        "grace_bias": 0.1 * grace * rng.uniform(0.5, 2),
                        "g_norm": grace * rng.uniform(0.5, 2),
                        "g_vendi": 4 + 0.5 * t + rng.normal(0, 0.1),
                    }
                    scores.append(row)
                    students.append(
                        key
                        | {
                            "average": accuracy,
                            "average_se": 0.013,
                            "best_of": min(1, accuracy + 0.3),
                            "greedy": min(1, accuracy + 0.1),
                            "truncated": 0.0,
                        }
                    )
                    grid += [
                        key
                        | setting
                        | {
                            "grace": grace * np.exp(rng.normal(0, 0.1)),
                            "nu_decides": (1 - 1 / setting["n_folds"]) * setting["n"] * setting["m"] <= setting["d"],
                        }
                        | dict.fromkeys(("variance", "bias", "cross", "g_vendi", "g_norm", "g_var"), 0.0)
                        for setting in _settings(config)
                    ]
                    for length in (8.0, 12.0, 20.0):
                        lengths.append(
                            key
                            | {
                                "bin_low": length,
                                "bin_high": length * 1.19,
                                "count": 10,
                                "mean_length": length,
                                "mean_norm": 3 / np.log(length),
                                "mean_norm_log": 3.0,
                                "mean_norm_log2": 3 * np.log(length),
                            }
                        )
                    cmi.append(
                        key
                        | {
                            "space": "h",
                            "preconditioner": "smoothed",
                            "nu": config.nu,
                            "n": config.n_prompts,
                            "gradient": 1.0,
                            "stability": 1 / rng.uniform(5, 10),
                        }
                    )
    first = [s for s in scores if (s["task"], s["student"]) == (config.tasks[0].name, config.student)]
    tables = {
        "scores": scores,
        "students": students,
        "base_students": [
            {"task": task, "student": student, "average": 0.08, "best_of": 0.4, "greedy": 0.3}
            for task, student in dict.fromkeys((s["task"], s["student"]) for s in students)
        ],
        "teachers": teachers,
        "grid": grid,
        "lengths": lengths,
        "cmi": [r for r in cmi if (r["task"], r["student"]) == (config.tasks[0].name, config.student)],
        "pathological": [
            first[0]
            | {"student": config.student, "teacher": kind, "grace_bias": 0.9 * first[0]["grace"], "average_at_k": 0.05}
            for kind in ("self", "random", "repeated")
        ],
    }
    there = pd.DataFrame(students).merge(pd.DataFrame(scores), on=KEY)
    there = there[(there.task == config.tasks[0].name) & (there.student == config.student)]
    chosen = set(extras.filtered_cells(config))
    kept = there[[cell in chosen for cell in zip(there.teacher, there.temperature, strict=True)]]
    tables["filtered"] = kept.assign(average=kept.average - 0.02, kept_share=0.9, prompts=9, prompts_kept=8)
    runs = [
        (t, axis, v)
        for t in dict.fromkeys((extras.strongest(config), extras.tersest(config)))
        for axis, values in extras.training_axes(config).items()
        for v in values
    ]
    key = {"task": config.tasks[0].name, "student": config.student, "temperature": compared_at(config)}
    tables["training_runs"] = [
        key
        | {
            "teacher": t,
            "axis": axis,
            "value": v,
            "usual": v == {"epochs": config.epochs, "generations": config.M}[axis],
            "test": 0.3 + 0.02 * i,
            "test_se": 0.01,
        }
        for i, (t, axis, v) in enumerate(runs)
    ]
    paths.results(scale).mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pd.DataFrame(table).to_csv(paths.results(scale) / f"{name}.csv", index=False)


def _settings(config) -> list[dict]:
    """The lines of the ablation grid that the claims read."""
    usual = {
        "n": config.n_prompts,
        "m": config.m,
        "d": config.d,
        "n_folds": config.n_folds,
        "nu": config.nu,
        "power": 1.0,
    }
    lines = {
        "n": [n for n in (config.n_prompts >> k for k in range(4)) if n >= config.n_folds],
        "d": [config.d, config.d_kept],
        "n_folds": [c for c in (2, 4, 5, 6, 8, 10, 12, 16, 20) if c <= config.n_prompts],
        "m": [max(1, config.m_kept >> k) for k in range(4)],
    }
    rows = [usual | {name: value} for name, values in lines.items() for value in values]
    return [dict(row) for row in dict.fromkeys(tuple(row.items()) for row in rows)]
