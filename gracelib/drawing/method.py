"""The method on one page, from a teacher's responses to a choice: `python -m gracelib.drawing.method` draws it into
figures/published/method.svg. It shows no result: arrows and bars are there to be understood, not measured."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from gracelib.drawing.saving import picture_writers
from gracelib.drawing.style import DOUBLE, EDGE, GREY, SMALL, TEXT, styled
from gracelib.jobs import paths

BLUE, RED = "#0173b2", "#d55e00"
STEPS = (
    ("1  The teacher answers", "n prompts,\nm responses to each"),
    ("2  One gradient each", "of the student as it is,\nbefore any training"),
    ("3  Shrink and rescale", "random signs: D numbers\nto d; times log |y|"),
    ("4  Ask the others", "how far do the other\nfolds' gradients reach?"),
    ("5  Compare teachers", "GRACE: mean of\nh' (S + ν/d I)⁻¹ h"),
)


@styled()
def method() -> Figure:
    """Five panels in a row. No randomness without a seed, so that the same code draws the same bytes."""
    fig = Figure(figsize=(DOUBLE, 1.75))
    axes = fig.subplots(
        1, len(STEPS), gridspec_kw={"wspace": 0.12, "left": 0.01, "right": 0.99, "top": 0.86, "bottom": 0.27}
    )
    for ax, (title, below) in zip(axes, STEPS, strict=True):
        ax.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[], title=title)
        ax.title.set(fontsize=TEXT - 0.5, fontweight="bold")
        ax.grid(visible=False)
        ax.spines[:].set(visible=True, color="#cccccc")
        ax.text(0, -1.12, below, ha="center", va="top", fontsize=SMALL, color=GREY)
    answers, gradients, shrunk, others, compared = axes
    for row, text in enumerate(("9 + 1 = 10 .", "10 - 5 = 5 .", "the answer is 5")):
        answers.text(-0.85, 0.45 - 0.45 * row, text, fontsize=SMALL, family="DejaVu Sans Mono")
    spread = np.random.default_rng(3).normal(size=(14, 2)) * (0.55, 0.16)
    turned = spread @ np.array([[0.87, 0.5], [-0.5, 0.87]])
    for x, y in turned:
        _arrow(gradients, x, y, BLUE)
    _arrow(gradients, -0.42, 0.72, RED)
    signs = np.random.default_rng(5).choice(["+", "−"], size=(3, 9))
    for i, row in enumerate(signs):
        shrunk.text(-0.9, 0.45 - 0.42 * i, "".join(row), fontsize=SMALL, family="DejaVu Sans Mono", color=GREY)
        _arrow(shrunk, 0.22, 0, EDGE, (0.28, 0.5 - 0.42 * i))
        shrunk.text(0.6, 0.45 - 0.42 * i, f"h{'₁₂₃'[i]}", fontsize=SMALL)
    others.add_patch(Ellipse((0, 0), 1.75, 0.62, angle=30, facecolor="#0173b222", edgecolor=BLUE, linewidth=1))
    for x, y in turned:
        _arrow(others, x, y, BLUE, alpha=0.35)
    _arrow(others, -0.42, 0.72, RED)
    others.text(-0.22, 0.62, "no support:\ncosts much", fontsize=SMALL - 1, color=RED)
    for row, (name, value) in enumerate((("A", 0.75), ("B", 0.35), ("C", 1.25))):
        y = 0.5 - 0.5 * row
        compared.barh(y, value, left=-0.6, height=0.28, color=BLUE if name == "B" else "#c8c8c8")
        compared.text(-0.7, y, name, ha="right", va="center", fontsize=SMALL)
    compared.text(-0.2, 0, "lowest: choose B", va="center", fontsize=SMALL - 1, color=BLUE)
    return fig


def _arrow(ax, x, y, color, start=(0, 0), alpha=1.0) -> None:
    ax.annotate(
        "",
        (start[0] + x, start[1] + y),
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": color,
            "lw": 0.9,
            "mutation_scale": 6,
            "shrinkA": 0,
            "shrinkB": 0,
            "alpha": alpha,
        },
    )


if __name__ == "__main__":
    picture_writers(method(), "method", "The method", [".svg"])[".svg"](paths.published("method.svg"))
