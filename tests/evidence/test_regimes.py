"""What the second world must have, on planted tables: each demand is met by what was planted for it and missed without."""

import numpy as np
import pandas as pd
import pytest

from gracelib.evidence.cells import KEY
from gracelib.evidence.regimes import MET, MISSED, OPEN, demands, near_copies


def planted(teachers=12, again=1, u=0.2, gap=0.3, twice=0.0, distinct=0.6, spread=0.05):
    """Cells and checks: four curves with five temperatures, the rest with two."""
    cells, checks = [], []
    for i in range(teachers):
        for t in (0.3, 0.6, 0.8, 0.9, 1.0) if i < 4 else (0.3, 0.6):
            key = dict(zip(KEY, ("short", "first", f"t{i}", t), strict=True))
            accuracy = 0.3 + spread * i / teachers * 10 + (u if t == 0.6 else 0)
            cells.append(
                key | {"average_at_k": accuracy, "average_se": 0.02, "distinct": distinct, "teacher_accuracy": 0.97}
            )
            kinds = {"train": gap, "twice": twice} | {f"again {k}": 0.01 for k in range(again)}
            checks += [
                key | {"what": what, "average": accuracy + more, "average_se": 0.02} for what, more in kinds.items()
            ]
    return pd.DataFrame(cells), pd.DataFrame(checks)


ORDER = ["saturation", "a gap", "near-copies", "an inverted U", "strong teachers differ"]


@pytest.mark.parametrize(
    "changes, verdicts",
    [
        ({}, [MET] * 5),
        ({"twice": 0.1}, [MISSED, MET, MET, MET, MET]),
        ({"gap": 0.14}, [MET, MISSED, MET, MET, MET]),
        ({"distinct": 0.71}, [MET, MET, MISSED, MET, MET]),
        ({"u": 0.01}, [MET, MET, MET, MISSED, MET]),
        ({"again": 0}, [MET, MET, MET, OPEN, MET]),
        ({"spread": 0.0, "u": 0.1}, [MET, MET, MET, MET, MISSED]),
        ({"teachers": 3}, [MET, MET, MET, OPEN, OPEN]),
    ],
)
def test_each_demand_is_judged_by_what_was_planted(changes, verdicts):
    table = demands(*planted(**changes))
    assert dict(zip(table.demand, table.verdict, strict=True)) == dict(zip(ORDER, verdicts, strict=True))


def test_near_copies_are_counted_as_they_were_planted():
    """Of 40 prompts with 4 responses: two of a response and its copies (at a cosine of .97) in a quarter of them."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal((40, 4, 64))
    g[:10, 1] = 3 * g[:10, 0] + 0.7 * rng.standard_normal((10, 64))
    g[10, 2:] = 0  # without direction: no copies of each other
    assert near_copies(g.reshape(160, 64), 4) == 20 / 160
    assert near_copies(g[:, :1].reshape(40, 64), 1) == 0
    assert near_copies(np.repeat(g[:, :1], 4, 1).reshape(160, 64), 4) == 1
