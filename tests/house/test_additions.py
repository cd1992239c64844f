"""Adding a score is one function and one line of `SCORES`; adding a figure is one function and one line of `FIGURES`: both are
added in a copy of the library, and are then in the table of scores, in a figure of all scores, and in the index."""

import os
import shutil
import subprocess
import sys

from gracelib.jobs.paths import PACKAGE, ROOT

SCORE = '''

def longest(length) -> float:
    """The longest response, in tokens."""
    return float(np.max(length))
'''
SCORE_LINE = (
    '    Score("longest", "Longest response", "higher", ("length",), "a test", lambda t: longest(t["length"])),\n)\n'
)
FIGURE = '''

def dots(cells):
    """Every accuracy, as a dot."""
    fig, ax = plt.subplots()
    ax.plot(cells.average_at_k, "o")
    return Drawn(fig, cells[["teacher", "average_at_k"]], "Every accuracy.", "Dots.")
'''
FIGURE_LINE = '    "dots": Item("05_which_teacher", "(none: a test)", "Every accuracy", "drawing.bound.dots"),\n}\n'
USE = """
import numpy as np
from gracelib.baselines import compute_scores
from gracelib.drawing.bound import dots
from gracelib.drawing.correlations import figure4
from gracelib.jobs import paths
from gracelib.paper.figures import registered
from synthetic import synthetic_cells

draw = np.random.default_rng(0)
features = {"g": draw.normal(size=(40, 4)), "length": draw.integers(2, 9, 40), "prompt_id": np.repeat(np.arange(20), 2)}
print(compute_scores(features).values["longest"] == features["length"].max())
cells = synthetic_cells().assign(longest=range(24))
print("longest" in set(figure4(cells, "first", "mini", k=8).table.score))
paths.results("mini").mkdir(parents=True)
(paths.results("mini") / "scores.csv").write_text("a\\n1\\n")
print(sorted(p.name for p in dots(cells).save("mini", "dots", inputs=["scores"], parameters={}, seed=0)))
print(registered("dots").drawn_by == "drawing.bound.dots")
"""


def change(path, *pairs: tuple[str, str]) -> None:
    text = path.read_text("utf-8")
    for old, new in pairs:
        assert text.count(old) == 1, f"{path.name} has {text.count(old)} of {old!r}"
        text = text.replace(old, new)
    path.write_text(text, "utf-8")


def test_a_score_and_a_figure_are_a_function_and_a_line_each(tmp_path):
    copy = tmp_path / "gracelib"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    change(
        copy / "baselines.py",
        ("\n)\n# Published since", "\n" + SCORE_LINE + "# Published since"),
        ("\n# fmt: off\n_LIST", SCORE + "\n# fmt: off\n_LIST"),
    )
    registry = copy / "paper" / "figures.py"
    change(registry, ("\n}\n\n\ndef registered", "\n" + FIGURE_LINE + "\n\ndef registered"))
    with open(copy / "drawing" / "bound.py", "a", encoding="utf-8") as file:
        file.write("\nimport matplotlib.pyplot as plt\n" + FIGURE)
    path = os.pathsep.join(map(str, (tmp_path, ROOT / "tests" / "helpers")))
    env = os.environ | {"PYTHONPATH": path, "GRACELIB_FIGURES": str(tmp_path / "figures"), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    files = "['dots.csv', 'dots.json', 'dots.png', 'dots.svg']"
    assert done.stdout.splitlines() == ["True", "True", files, "True"]
