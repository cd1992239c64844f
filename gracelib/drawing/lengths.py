"""Figures 21 and 22: how fast gradients shrink as responses grow, and which power of log|y| makes them alike.

Why two panels: the left one is the paper's (all responses, whoever wrote them), the right one holds the teacher fixed.
Whether the two agree is the question, and `evidence.lengths` is where it is answered in numbers.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from gracelib.drawing import captions, findings, marks
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, entry, family_handles, frame, styled
from gracelib.evidence.lengths import LEAST, POWERS, curves, length_relation, pooled, profiles, teacher_bins

#: What the paper finds: (power of log|y|, where).
PAPER = {"figure 21": (1, "Llama-3.2-1B on GSM8K"), "figure 22": (2, "Llama-3.2-3B on MATH")}
#: GRACE's |Spearman| by the power of log|y| in h, as the submission reports it for Llama-3.2-3B on MATH (figure 22).
PAPER_GRACE = {1: 0.89, 2: 0.84}
#: A power has one line style in both panels; no family is grey or black.
LOOKS = {
    0: {"color": "#777777", "linestyle": "-"},
    1: {"color": "#000000", "linestyle": (0, (4, 1.5))},
    2: {"color": "#000000", "linestyle": (0, (4, 1.5, 1, 1.5))},
    "free": {"color": "#777777", "linestyle": (0, (1, 1))},
}
_MEAN = {"color": EDGE, "linewidth": 2.6, "alpha": 0.75}
_BAND = {"color": EDGE, "alpha": 0.13, "linewidth": 0}


@styled()
def figure21(
    lengths: pd.DataFrame, student: str, task: str, scale: str, manner: Mapping[str, str], *, item: str = "figure 21"
) -> Drawn:
    """Figures 21 and 22: norm against length with reference curves; norm x (log|y|)^p within teachers. Two columns wide.

    `lengths` as the table `lengths`; `manner` the family of each teacher.
    """
    bins = teacher_bins(lengths, student, task)
    pool, flat, levels = pooled(bins), profiles(bins), length_relation(bins)
    fits, within, teachers = curves(pool), levels.iloc[0], bins["teacher"].nunique()
    own = lengths[(lengths["task"] == task) & (lengths["student"] == student)]
    cells = len(own[["teacher", "temperature"]].drop_duplicates())
    fig, (left, right) = frame(
        DOUBLE,
        2.6,
        [
            family_handles(manner[t] for t in bins["teacher"]),
            _left_handles(fits),
            [entry(f"p = {p}: spread {within[f'spread_{p}']:.3f}", **LOOKS[p], linewidth=1.6) for p in POWERS],
        ],
        captions.scale_note(scale, cells, teachers, f", {task} task"),
        (1, 1),
    )
    _norms(left, bins, pool, fits, manner)
    _products(right, flat)
    q = "undefined: lengths do not vary"
    if np.isfinite(within["exponent"]):
        q = marks.with_interval(within["exponent"], within["low"], within["high"], ".2f")
    right.set_title(f"Within teachers: |g| ∝ (log|y|)$^{{-q}}$, q = {q}")
    table = pd.concat(
        [
            bins.assign(panel="left", series="teacher"),
            pool.assign(panel="left", series="pooled"),
            fits.assign(panel="left", series="curve"),
            flat.assign(panel="right", series="within teachers"),
            levels.assign(panel="right", series="relation"),
        ],
        ignore_index=True,
    )
    table = table[["panel", "series", *table.columns.drop(["panel", "series"])]]
    power, where = PAPER[item]
    return Drawn(
        fig,
        table,
        caption=(
            f"{findings.length(within)} Norm of the unprojected gradient of single responses against their length |y| in tokens (EOS counted), in "
            f"bins of fixed width. Left: thin, each teacher, all temperatures together (bins with at least {LEAST:.0%} of "
            f"its responses); bold, all responses, with a 95% band from resampling teachers; curves fitted to the bold "
            f"line. Right: the norm times (log|y|)^p against length, both over the teacher's own means, averaged over "
            f"teachers, which weigh alike. Scale {scale}, task {task}, student {student}: {captions.counted(cells, 'cell')} of "
            f"{captions.counted(teachers, 'teacher')}."
        ),
        alt="Two line plots over response length on logarithmic axes: norms, and norms times powers of log length.",
        ours={"levels": levels.to_dict("records"), "curves": fits.to_dict("records")},
        paper={"power": {"value": str(power), "source": f"submission, {item}, {where}"}},
    )


def _norms(ax: Axes, bins: pd.DataFrame, pool: pd.DataFrame, fits: pd.DataFrame, manner: Mapping[str, str]) -> None:
    ax.fill_between(pool["mean_length"], pool["low"], pool["high"], **_BAND, zorder=1)
    ax.plot(pool["mean_length"], pool["mean_norm"], **_MEAN, zorder=2)
    x = np.geomspace(pool["mean_length"].min(), pool["mean_length"].max(), 100)
    for key, fit in zip((1, 2, "free"), fits.itertuples(), strict=True):
        if np.isfinite(fit.factor):
            shape = x**-fit.exponent if key == "free" else np.log(x) ** -fit.exponent
            ax.plot(x, fit.factor * shape, **LOOKS[key], linewidth=1.1, zorder=2.5)
    for teacher, rows in bins.groupby("teacher", sort=True):
        marks.family_line(
            ax,
            rows["mean_length"],
            rows["mean_norm"],
            manner[teacher],
            markersize=4.2,
            markeredgewidth=0.3,
            linewidth=0.9,
            zorder=3,
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="Response length |y| (tokens)",
        ylabel="Gradient norm |g|",
        title="Over all responses",
    )
    marks.plain_log(ax.xaxis, *ax.get_xlim())
    marks.plain_log(ax.yaxis, *ax.get_ylim())


def _products(ax: Axes, flat: pd.DataFrame) -> None:
    ax.axhline(1, color=EDGE, linewidth=0.6, zorder=2)
    if flat.groupby("power").size().max() < 2:
        marks.say(ax, "all lengths lie in one bin\naround the teacher's mean")
    for p, rows in flat.groupby("power"):
        x = rows["relative_length"] * 1.008 ** (p - 1)  # side by side, so that intervals can be told apart
        ax.plot(x, rows["relative"], **LOOKS[p], linewidth=1.6, zorder=3)
        ax.vlines(x, rows["low"], rows["high"], color=LOOKS[p]["color"], linewidth=0.9, zorder=2.5)
    ax.set(xscale="log", xlabel="Response length |y| / teacher's mean", ylabel="|g| (log|y|)$^p$ / teacher's mean")
    marks.plain_log(ax.xaxis, *ax.get_xlim())


def _left_handles(fits: pd.DataFrame) -> list:
    """The pooled line, its band, and the curves that could be fitted with how well they fit."""
    names = ("a / log|y|", "a / (log|y|)²", f"a |y|$^{{-{fits['exponent'].iloc[2]:.2f}}}$")
    curves_ = [
        entry(f"{name}, R² {marks.number(fit.r_squared, '.2f')}", **LOOKS[key], linewidth=1.1)
        for key, name, fit in zip((1, 2, "free"), names, fits.itertuples(), strict=True)
        if np.isfinite(fit.r_squared)
    ]
    return [entry("mean", linestyle="-", **_MEAN), Patch(**_BAND, label="95% over teachers"), *curves_]
