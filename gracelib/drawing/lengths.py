"""Figures 21 and 22: how fast gradients shrink as responses grow, and which power of log|y| makes them alike.

Why two panels: the left one is the paper's (all responses, whoever wrote them), the right one holds the teacher fixed.
Whether the two agree is the question, and `evidence.lengths` is where it is answered in numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, SMALL, family, family_handles, frame, scale_note, styled
from gracelib.evidence.lengths import LEAST, POWERS, curves, length_relation, pooled, profiles, teacher_bins

#: What the paper finds: (power of log|y|, where).
PAPER = {"figure 21": (1, "Llama-3.2-1B on GSM8K"), "figure 22": (2, "Llama-3.2-3B on MATH")}
#: GRACE's |Spearman| by the power of log|y| in h, as the submission reports it for Llama-3.2-3B on MATH (figure 22).
PAPER_GRACE = {1: 0.89, 2: 0.84}
DASHED, DASH_DOT, DOTTED = (0, (4, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (1, 1))
#: A power has one line style in both panels; no family is grey or black.
LOOKS = {0: ("#777777", "-"), 1: ("#000000", DASHED), 2: ("#000000", DASH_DOT), "free": ("#777777", DOTTED)}


def figure21(
    lengths: pd.DataFrame, student: str, task: str, scale: str, manner: Mapping[str, str], *, item: str = "figure 21"
) -> Drawn:
    """Figures 21 and 22: norm against length with reference curves; norm x (log|y|)^p within teachers. Two columns wide.

    `lengths` as `feature_measures.lengths`; `manner` the family of each teacher.
    """
    bins = teacher_bins(lengths, student, task)
    pool, flat, levels = pooled(bins), profiles(bins), length_relation(bins)
    fits, within, teachers = curves(pool), levels.iloc[0], bins["teacher"].nunique()
    own = lengths[(lengths["task"] == task) & (lengths["student"] == student)]
    cells = len(own[["teacher", "temperature"]].drop_duplicates())
    legend = [family_handles(manner[t] for t in bins["teacher"]), _left_handles(fits, teachers), _right_handles(within)]
    with styled():
        fig, (left, right) = frame(DOUBLE, 2.6, legend, scale_note(scale, cells, teachers, f", {task} task"), (1, 1))
        _norms(left, bins, pool, fits, manner)
        _products(right, flat)
        right.set_title(f"Within teachers: |g| ∝ (log|y|)$^{{-q}}$, {_exponent(within)}", fontsize=SMALL, pad=4)
    sentence = verdict(levels, item)
    of = f"{cells} cell{'s' * (cells > 1)} of {teachers} teacher{'s' * (teachers > 1)}"
    caption = (
        f"Norm of the unprojected gradient of single responses against their length |y| in tokens (EOS counted), in "
        f"bins of fixed width. Left: thin, each teacher, all temperatures together (bins with at least {LEAST:.0%} of "
        f"its responses); bold, all responses, with a 95% band from resampling teachers; curves fitted to the bold "
        f"line: {_fits_text(fits)}. Right: the norm times (log|y|)^p against length, both over the "
        f"teacher's own means, averaged over teachers, which weigh alike. {sentence} {split_sentence(levels)} "
        f"Scale {scale}, task {task}, student {student}: {of}."
    )
    parts = [
        bins.assign(panel="left", series="teacher"),
        pool.assign(panel="left", series="pooled"),
        fits.assign(panel="left", series="curve"),
        flat.assign(panel="right", series="within teachers"),
        levels.assign(panel="right", series="relation"),
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table[["panel", "series", *table.columns.drop(["panel", "series"])]]
    power, where = PAPER[item]
    ours = {"levels": levels.to_dict("records"), "curves": fits.to_dict("records")}
    alt = f"Two line plots over response length on logarithmic axes. {sentence}"
    return Drawn(
        fig, table, caption, alt, ours, {"power": {"value": str(power), "source": f"submission, {item}, {where}"}}
    )


def _norms(ax: Axes, bins: pd.DataFrame, pool: pd.DataFrame, fits: pd.DataFrame, manner: Mapping[str, str]) -> None:
    ax.fill_between(pool["mean_length"], pool["low"], pool["high"], color=EDGE, alpha=0.13, linewidth=0, zorder=1)
    ax.plot(pool["mean_length"], pool["mean_norm"], color=EDGE, linewidth=2.6, alpha=0.75, zorder=2)
    x = np.geomspace(pool["mean_length"].min(), pool["mean_length"].max(), 100)
    for key, fit in zip((1, 2, "free"), fits.itertuples(), strict=True):
        if np.isfinite(fit.factor):
            colour, style = LOOKS[key]
            shape = x**-fit.exponent if key == "free" else np.log(x) ** -fit.exponent
            ax.plot(x, fit.factor * shape, color=colour, linestyle=style, linewidth=1.1, zorder=2.5)
    for teacher, rows in bins.groupby("teacher", sort=True):
        look = family(manner[teacher])
        ax.plot(
            rows["mean_length"],
            rows["mean_norm"],
            color=look.color,
            marker=look.marker,
            markersize=3.6 * look.area**0.5,
            markeredgecolor=EDGE,
            markeredgewidth=0.3,
            linewidth=0.9,
            zorder=3,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    _plain(ax.xaxis, *ax.get_xlim())
    _plain(ax.yaxis, *ax.get_ylim())
    ax.set_xlabel("Response length |y| (tokens)")
    ax.set_ylabel("Gradient norm |g|")
    ax.set_title("Over all responses", fontsize=SMALL, pad=4)


def _products(ax: Axes, flat: pd.DataFrame) -> None:
    ax.axhline(1, color=EDGE, linewidth=0.6, zorder=2)
    if flat.groupby("power").size().max() < 2:
        ax.text(
            0.5,
            0.5,
            "all lengths lie in one bin\naround the teacher's mean",
            transform=ax.transAxes,
            ha="center",
            va="center",
            fontsize=SMALL,
        )
    for p, rows in flat.groupby("power"):
        colour, style = LOOKS[p]
        x = rows["relative_length"] * 1.008 ** (p - 1)  # side by side, so that intervals can be told apart
        ax.plot(x, rows["relative"], color=colour, linestyle=style, linewidth=1.6, zorder=3)
        ax.vlines(x, rows["low"], rows["high"], color=colour, linewidth=0.9, zorder=2.5)
    ax.set_xscale("log")
    _plain(ax.xaxis, *ax.get_xlim())
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("Response length |y| / teacher's mean")
    ax.set_ylabel("|g| (log|y|)$^p$ / teacher's mean")


def _plain(axis: Axis, low: float, high: float) -> None:
    """Plain labels on a logarithmic axis, fewer where the values span decades."""
    decades = np.log10(high / low)
    steps = (
        (2, (1.0, 3.0)),
        (1.1, (1.0, 2.0, 5.0)),
        (0.5, (1, 1.5, 2, 3, 5, 7)),
        (0, (1, 1.25, 1.5, 2, 3, 4, 5, 6, 8)),
    )
    subs = next(subs for least, subs in steps if decades >= least)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(NullLocator())


def _left_handles(fits: pd.DataFrame, teachers: int) -> list:
    rows = [Line2D([], [], color=EDGE, linewidth=2.6, alpha=0.75, label="mean")]
    if teachers > 1:
        rows.append(Patch(facecolor=EDGE, alpha=0.13, label="95% over teachers"))
    for key, fit in zip((1, 2, "free"), fits.itertuples(), strict=True):
        colour, style = LOOKS[key]
        label = {1: "a / log|y|", 2: "a / (log|y|)²", "free": f"a |y|$^{{-{fit.exponent:.2f}}}$"}[key]
        if np.isfinite(fit.r_squared):
            label = f"{label}, R² {_signed(fit.r_squared)}"
            rows.append(Line2D([], [], color=colour, linestyle=style, linewidth=1.1, label=label))
    return rows


def _right_handles(within: pd.Series) -> list:
    rows = []
    for p in POWERS:
        colour, style = LOOKS[p]
        rows.append(
            Line2D(
                [],
                [],
                color=colour,
                linestyle=style,
                linewidth=1.6,
                label=f"p = {p}: spread {within[f'spread_{p}']:.3f}",
            )
        )
    return rows


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _exponent(row: pd.Series) -> str:
    if not np.isfinite(row["exponent"]):
        return "q undefined: lengths do not vary"
    text = f"q = {_signed(row['exponent'])}"
    return text if np.isnan(row["low"]) else f"{text} [{_signed(row['low'])}, {_signed(row['high'])}]"


def _fits_text(fits: pd.DataFrame) -> str:
    if fits["r_squared"].isna().all():
        return "none, fewer than three bins"
    names = [r.curve.replace("^-b", f"^-{r.exponent:.2f}").replace("^1", "") for r in fits.itertuples()]
    return ", ".join(f"{name} (R² {r2:.2f})" for name, r2 in zip(names, fits["r_squared"], strict=True))


def verdict(levels: pd.DataFrame, item: str) -> str:
    """Which power of log|y| flattens most within teachers, how sure that is, and whether it is the paper's."""
    power, where = PAPER[item]
    row = levels.set_index("level").loc["within"]
    if row["flattest"] < 0:
        return "Within teachers lengths do not vary here, so that no power can be compared."
    spreads = ", ".join(f"{row[f'spread_{p}']:.3f} for p = {p}" for p in POWERS)
    agree = row["flattest_share"]
    sure = (
        ""
        if np.isnan(agree)
        else f" (in {agree:.0%} of resamples of teachers"
        + (")" if agree >= 0.95 else ": these teachers cannot tell it from another)")
    )
    if agree < 0.95:
        same = f"the paper reports {power} for {where}, which is not decided here."
    else:
        same = f"that is {'the same as' if row['flattest'] == power else 'not'} the power {power} that the paper reports for {where}."
    inside = (
        ""
        if np.isnan(row["low"])
        else (
            f" The interval of the exponent q {'holds' if row['low'] <= power <= row['high'] else 'does not hold'} {power}."
        )
    )
    return (
        f"Within teachers p = {row['flattest']:.0f} flattens most{sure}: spread of log(|g| (log|y|)^p) {spreads}; "
        f"{same}{inside}"
    )


def split_sentence(levels: pd.DataFrame) -> str:
    """How much of the spread of norms lies between teachers, and whether the law is alike there, in a sentence."""
    rows = levels.set_index("level")
    if rows["teachers"].iloc[0] < 2:
        return "One teacher: nothing to compare between teachers."
    whole = rows.loc["all", "spread_0"] ** 2
    share = rows.loc["between", "spread_0"] ** 2 / whole if whole > 0 else np.nan
    between, within = (_exponent(rows.loc[level]) for level in ("between", "within"))
    return (
        f"Between teachers lies {share:.0%} of the variance of log|g| over bins; there |g| ~ (log|y|)^-q with {between}, "
        f"within them with {within}."
    )
