"""Cells made up for tests of the reading floor: the columns of `tables.cells`, no run behind them."""

import numpy as np
import pandas as pd

MINI = (
    ("equations-48", "equations"),
    ("narration-48", "narration"),
    ("terse-96", "terse"),
    ("algebra-96", "algebra"),
    ("table-96", "table"),
    ("reversed-96", "reversed"),
)


def synthetic_cells(
    teachers=MINI, temperatures=(0.4, 0.6, 0.8, 1.0), students=("first",), seed=0, task="short"
) -> pd.DataFrame:
    """One row a (student, teacher, temperature) of one task; GRACE falls with accuracy over more than a decade, with
    noise.
    """
    rng, rows = np.random.default_rng(seed), []
    for student in students:
        for i, (teacher, manner) in enumerate(teachers):
            for t in temperatures:
                accuracy = float(np.clip(0.08 + 0.5 * ((i * 5) % 7) / 7 + rng.normal(0, 0.02), 0.01, 0.99))
                grace = float(np.exp(5 * (0.6 - accuracy) + rng.normal(0, 0.3)))
                rows.append(
                    {
                        "task": task,
                        "student": student,
                        "teacher": teacher,
                        "manner": manner,
                        "temperature": t,
                        "width": 64,
                        "grace": grace,
                        "grace_variance": 0.9 * grace,
                        "grace_bias": 0.1 * grace * rng.uniform(0.5, 2),
                        "grace_cross": 0.0,
                        "g_norm": grace * rng.uniform(0.5, 2),
                        "g_var": grace * rng.uniform(0.5, 2),
                        "g_vendi": rng.normal(4, 0.3),
                        "student_loss": rng.uniform(0.3, 0.8),
                        "average_at_k": accuracy,
                        "average_se": 0.01 + 0.002 * i,
                        "best_of": min(1.0, accuracy + 0.3),
                        "greedy": accuracy,
                        "teacher_accuracy": rng.uniform(0.8, 1.0),
                        "mean_length": rng.uniform(20, 60),
                        "distinct": 0.9,
                    }
                )
    return pd.DataFrame(rows)
