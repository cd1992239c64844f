"""Figures 19 and 20 and the settings nobody plotted: how much of GRACE's correlation is the choice of n, m, d, C, nu.

All from one pass of gradients: `measures.grid` holds the score at every setting, the students are the same throughout.
So differences between two settings of one figure are exact for these cells; their intervals ask what other teachers
would have shown, and captions compare settings on the same resamples. Where the smoothing decides the score (fewer
gradients than dimensions) a setting is drawn hollow.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from gracelib.drawing import captions
from gracelib.drawing import marks as plots
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, GREY, SINGLE, SMALL, frame, styled
from gracelib.evidence.ablations import few, grid_correlations, setting_change
from gracelib.evidence.cells import select
from gracelib.paper.reported import paper_values

PAPER_N, PAPER_D = 512, (512, 1024)
FLAT_FROM = 6
# Greys, and marks that no family has: the first is the default's.
LOOKS = (("H", "#222222", "-"), ("8", "#a0a0a0", (0, (4, 1.5))), ("h", "#e0e0e0", (0, (1, 1.2))))
PALE_LINE = "#707070"  #: the line of a mark too pale to draw one with
HOLLOW = "ν decides the score"
#: From -1 to 1 in colours that black text and frames stand out from.
PALE = ListedColormap(1 - 0.5 * (1 - colormaps["PuOr"](np.linspace(0, 1, 256))[:, :3]))


def defaults(config) -> dict[str, float]:
    """The scale's own setting of everything that the grid varies."""
    return {
        "n": config.n_prompts,
        "m": config.m,
        "d": config.d,
        "n_folds": config.n_folds,
        "nu": config.nu,
        "power": 1.0,
    }


def figure19(cells: pd.DataFrame, grid: pd.DataFrame, config) -> Drawn:
    """Figure 19: GRACE's correlation against d, against n, and for every n with every d. Two columns wide.

    `cells` from `tables.cells` (first task), `grid` from `measures.grid`.
    """
    base, rows = defaults(config), select(cells, config.student, ())
    table = grid_correlations(grid, cells, config.student, base, ("n", "d"))
    reported = {d: paper_values("figure 19", "spearman_abs", case=f"d = {d}")["grace"] for d in PAPER_D}
    marks = {d: v for d, v in reported.items() if base["n"] == PAPER_N and d in set(table["d"])}
    hatched = Patch(facecolor="none", hatch="////", edgecolor="#808080", linewidth=0, label=f"{HOLLOW} (right)")
    decided = [_handle(("H", "white", "-"), HOLLOW)], [hatched]
    curves, cells_ = decided if table["nu_decides"].any() else ([], [])
    legend = [
        [_handle(LOOKS[0], "this run, 95% interval"), *curves, *plots.paper_handles(marks.values())],
        [
            Patch(facecolor="none", edgecolor="black", linewidth=1.4, label="n = d/2"),
            Line2D(
                [],
                [],
                linestyle="none",
                marker="_",
                color="black",
                markersize=9,
                markeredgewidth=1.6,
                label="best n of a d",
            ),
            *cells_,
        ],
    ]
    with styled():
        fig, (left, middle, right) = frame(DOUBLE, 2.15, legend, captions.note(config.name, rows), (1, 1, 1.15))
        by_d, by_n = table[table["n"] == base["n"]], table[table["d"] == base["d"]]
        for ax, own, axis, other in ((left, by_d, "d", "n"), (middle, by_n, "n", "d")):
            curve(ax, own, axis)
            _doubling(ax, own[axis])
            ax.set_xlabel({"d": "Projection rows d", "n": "Prompts n"}[axis])
            ax.set_title(f"{other} = {base[other]}", fontsize=SMALL, pad=4)
        for d, value in marks.items():
            _paper_mark(left, d, value)
        left.set_ylabel("Signed Spearman of GRACE")
        _same_limits(left, middle)
        _heat(right, table)
    said, ours = _sizes_sentence(table, grid, cells, config)
    best = paper_values("figure 19", "best_n_over_d")["grace"]
    caption = (
        f"Signed Spearman correlation of GRACE with the students' accuracy. Left: against d, all n = {base['n']} prompts. "
        f"Middle: against n at d = {base['d']}. Right: every n and d (frame: n = d/2, where the paper finds the best; "
        f"line: the best n of a d). Hollow or hatched: the smoothing ν decides the score. {said} The paper "
        f"(n = {PAPER_N}): {', '.join(f'{v.text} at d = {d}' for d, v in reported.items())}. "
        f"{captions.cells_sentence(config.name, rows)}{few(rows)}"
    )
    paper = {f"d = {d}": {"value": v.text, "source": v.source} for d, v in reported.items()}
    return Drawn(
        fig,
        table,
        caption,
        f"Two lines with intervals and a table of numbers in colours. {said}",
        ours,
        paper | {"best_n_over_d": {"value": best.text, "source": best.source}},
    )


def _sizes_sentence(table: pd.DataFrame, grid: pd.DataFrame, cells: pd.DataFrame, config) -> tuple[str, dict]:
    base, parts, ours = defaults(config), [], {}
    wide = table.pivot(index="n", columns="d", values="spearman")
    if wide.isna().all(axis=None):
        return f"No correlation is defined: {table['note'].iloc[0]}.", {}
    best = {int(d): int(wide[d].idxmax()) for d in wide if wide[d].notna().any() and d // 2 in wide.index}
    half = [d for d, n in best.items() if 2 * n == d]
    if best:
        parts.append(f"The best n is d/2 for {len(half)} of {len(best)} values of d")
    for name, new in (("larger_d", base | {"d": 2 * base["d"]}), ("half_n", base | {"n": base["d"] // 2})):
        found = setting_change(grid, cells, config.student, base, new)
        if found is not None and np.isfinite(found["spearman"]):
            axis = "d" if name == "larger_d" else "n"
            what = f"{axis} = {new[axis]} instead of {base[axis]}"
            parts.append(f"{what} changes it by {_signed(found)}")
            ours[name] = {k: found[k] for k in ("spearman", "low", "high")}
    ours |= {"best_n": {str(d): n for d, n in best.items()}, "at_default": float(wide.loc[base["n"], base["d"]])}
    return "; ".join(parts) + ".", ours


def figure20(cells: Mapping[str, pd.DataFrame], grid: pd.DataFrame, config) -> Drawn:
    """Figure 20: GRACE's correlation against the number of folds C, for each task (name -> its cells). One column wide."""
    base, tables, parts = defaults(config), [], []
    for task, own in cells.items():
        rows = select(own, config.student, ())
        tables.append(grid_correlations(grid, own, config.student, base, ("n_folds",)).assign(task=task))
        parts.append(rows)
    table = pd.concat(tables, ignore_index=True)
    flat = paper_values("figure 20", "flat_from_folds")["grace"]
    legend = [
        [_handle(look, f"{task} task") for task, look in zip(cells, LOOKS, strict=False)],
        [
            Patch(facecolor="#ececec", label=f"flat in the paper (C ≥ {FLAT_FROM})"),
            Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), label=f"default: {base['n_folds']}"),
        ],
    ]
    note = captions.note_two(config.name, parts[0], parts[1] if len(parts) > 1 else None)
    with styled():
        fig, (ax,) = frame(SINGLE, 2.1, legend, note)
        top = max(table["n_folds"])
        ax.axvspan(FLAT_FROM - 0.5, top + 1, color="#ececec", zorder=0)
        ax.axvline(base["n_folds"], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)
        for i, (task, look) in enumerate(zip(cells, LOOKS, strict=False)):
            curve(ax, table[table["task"] == task], "n_folds", look, shift=0.18 * (i - (len(cells) - 1) / 2))
        ax.set_xlim(1, top + 1)
        ax.set_xticks([c for c in (2, 4, 6, 8, 10, 12, 16, 20) if c <= top])
        ax.set_xlabel("Folds C")
        ax.set_ylabel("Signed Spearman of GRACE")
    said, ours = [], {}
    for task, own in table.groupby("task", sort=False):
        known = own.dropna(subset=["spearman"])
        late, early = (known[known["n_folds"].ge(FLAT_FROM) == side]["spearman"] for side in (True, False))
        if late.empty:
            said.append(f"{task} task: undefined ({own['note'].iloc[0].removeprefix('undefined: ')})")
            continue
        moved = f" (below {FLAT_FROM}: {_range(early)})" if len(early) else ""
        said.append(f"{task} task: {_range(late)} from C = {FLAT_FROM} on{moved}")
        ours[task] = {"lowest_from_6": late.min(), "highest_from_6": late.max()}
    said = "; ".join(said) + "."
    caption = (
        f"Signed Spearman correlation of GRACE with the students' accuracy against the number of folds C, all else "
        f"at the scale's setting. {said} The paper finds it flat from C = {FLAT_FROM} on, for both of its tasks. "
        f"{captions.cells_sentence(config.name, *parts)}{few(parts[0])}"
    )
    return Drawn(
        fig,
        table,
        caption,
        f"A line with intervals for each task. {said}",
        ours,
        {"flat_from_folds": {"value": flat.text, "source": flat.source}},
    )


def settings(cells: pd.DataFrame, grid: pd.DataFrame, config) -> Drawn:
    """GRACE's correlation against the smoothing nu for three length powers, and against m. Two columns wide."""
    base, rows = defaults(config), select(cells, config.student, ())
    smoothed = grid_correlations(grid, cells, config.student, base, ("nu", "power"))
    by_m = grid_correlations(grid, cells, config.student, base, ("m",))
    paper = {m: paper_values("settings", "spearman_abs", case=f"m = {m}")["grace"] for m in (2, 4, 8)}
    drawn = {m: v for m, v in paper.items() if m in set(by_m["m"])}
    powers = sorted(set(smoothed["power"]), key=lambda p: (p != 1, p))
    named = {0.0: "no recalibration", 1.0: "log |y| (default)", 2.0: "(log |y|)²"}
    looks = dict(zip(powers, LOOKS, strict=True))
    legend = [[_handle(looks[p], named[p]) for p in powers] + plots.paper_handles(drawn.values())]
    with styled():
        fig, (left, right) = frame(DOUBLE, 2.0, legend, captions.note(config.name, rows), (1.35, 1))
        for i, power in enumerate(powers):
            curve(left, smoothed[smoothed["power"] == power], "nu", looks[power], factor=1.12 ** (i - 1))
        left.set_xscale("log")
        left.set_xticks(sorted(set(smoothed["nu"])), [f"{v:g}" for v in sorted(set(smoothed["nu"]))])
        left.xaxis.set_minor_locator(NullLocator())
        left.axvline(base["nu"], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)
        left.set_xlabel("Smoothing ν (dashed: default)")
        left.set_ylabel("Signed Spearman of GRACE")
        curve(right, by_m, "m")
        _doubling(right, by_m["m"])
        for m, value in drawn.items():
            _paper_mark(right, m, value)
        right.set_xlabel("Responses a prompt m")
        _same_limits(left, right)
    said, ours = [], {}
    if smoothed["spearman"].notna().any():
        own = smoothed[smoothed["power"] == 1]["spearman"].dropna()
        said.append(f"over ν the correlation is {_range(own)}")
        for power in powers[1:]:
            found = setting_change(grid, cells, config.student, base, base | {"power": power})
            if found is not None and np.isfinite(found["spearman"]):
                said.append(f"{named[power]} changes it by {_signed(found)}")
                ours[named[power]] = {k: found[k] for k in ("spearman", "low", "high")}
        values = {int(r.m): r.spearman for r in by_m.itertuples()}
        said.append("m = " + ", ".join(f"{m}: {plots.number(v)}" for m, v in values.items()))
        ours["m"] = {str(m): v for m, v in values.items()}
    else:
        said.append(f"no correlation is defined ({by_m['note'].iloc[0].removeprefix('undefined: ')})")
    said = f"{'; '.join(said)}."
    said = said[0].upper() + said[1:]
    caption = (
        f"Signed Spearman correlation of GRACE with the students' accuracy. Left: against the smoothing ν, for three powers "
        f"of the length factor. Right: against the responses a prompt that GRACE reads; the paper has "
        f"{', '.join(f'{v.text} (m = {m})' for m, v in paper.items())}. {said} {captions.cells_sentence(config.name, rows)}"
        f"{few(rows)}"
    )
    table = pd.concat([smoothed.assign(panel="left"), by_m.assign(panel="right")], ignore_index=True)
    return Drawn(
        fig,
        table,
        caption,
        f"Lines with intervals. {said}",
        ours,
        {f"m = {m}": {"value": v.text, "source": v.source} for m, v in paper.items()},
    )


# --- panels --------------------------------------------------------------------------------------------------


def curve(
    ax: Axes, rows: pd.DataFrame, axis: str, look: tuple = LOOKS[0], shift: float = 0.0, factor: float = 1.0
) -> None:
    """A correlation with intervals along one setting; hollow where the smoothing decides; `shift`, `factor` move it."""
    mark, face, dash = look
    x = rows[axis].to_numpy(float) * factor + shift
    y, hollow = rows["spearman"].to_numpy(float), rows["nu_decides"].to_numpy(bool)
    if np.isnan(y).all():
        text = rows["note"].iloc[0].removeprefix("undefined: ").replace(": ", ":\n")
        ax.text(
            0.5, 0.5, f"undefined\n{text}", ha="center", va="center", fontsize=SMALL, color=GREY, transform=ax.transAxes
        )
        ax.set_ylim(-1, 1)
        ax.plot(x, np.zeros(len(x)), alpha=0)
        return
    color = PALE_LINE if face == LOOKS[2][1] else face
    ax.plot(x, y, color=color, linestyle=dash, linewidth=1.1, zorder=2)
    ax.vlines(x, rows["low"], rows["high"], color=color, linewidth=0.9, zorder=2)
    faces = ["white" if h else face for h in hollow]
    ax.scatter(x, y, s=26, marker=mark, c=faces, edgecolors=EDGE, linewidths=0.7, zorder=3)
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _paper_mark(ax: Axes, x: float, value) -> None:
    """A value of the paper, drawn as everywhere."""
    ax.plot(
        x,
        value.low,
        marker="D",
        markersize=4.6,
        color=plots.PAPER_MARK,
        markerfacecolor="white",
        markeredgewidth=1.1,
        linestyle="none",
        zorder=4,
        gid="paper",
    )


def _heat(ax: Axes, table: pd.DataFrame) -> None:
    """The table over n (rows, largest on top) and d, as numbers on colours from -1 to 1."""
    wide = table.pivot(index="n", columns="d", values="spearman").sort_index(ascending=False)
    decided = table.pivot(index="n", columns="d", values="nu_decides").sort_index(ascending=False)
    ax.imshow(wide.to_numpy(float), cmap=PALE, vmin=-1, vmax=1, aspect="auto")
    best = wide.idxmax() if wide.notna().any().all() else {}
    for i, n in enumerate(wide.index):
        for j, d in enumerate(wide):
            value = wide.loc[n, d]
            text = "–" if np.isnan(value) else plots.number(value)
            ax.text(j, i, text, ha="center", va="center", fontsize=SMALL)
            if decided.loc[n, d]:
                hatch = {"fill": False, "hatch": "////", "edgecolor": "#00000038", "linewidth": 0}
                ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **hatch))
            if 2 * n == d:
                ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.4))
            if len(best) and best[d] == n:
                ax.plot([j - 0.28, j + 0.28], [i + 0.3, i + 0.3], linewidth=1.6, solid_capstyle="butt", color="black")
    ax.set_xticks(range(wide.shape[1]), wide.columns)
    ax.set_yticks(range(len(wide)), wide.index)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set_xlabel("Projection rows d")
    ax.set_ylabel("Prompts n", labelpad=1)


def _handle(look: tuple, label: str) -> Line2D:
    mark, face, dash = look
    color = {LOOKS[2][1]: PALE_LINE, "white": EDGE}.get(face, face)
    return Line2D(
        [],
        [],
        color=color,
        linestyle=dash,
        linewidth=1.1,
        marker=mark,
        markersize=5,
        markerfacecolor=face,
        markeredgecolor=EDGE,
        markeredgewidth=0.6,
        label=label,
    )


def _doubling(ax: Axes, values: pd.Series) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(set(values)), [f"{v:g}" for v in sorted(set(values))])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.1)


def _same_limits(*axes: Axes) -> None:
    low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set_ylim(min(low), max(high))


def _signed(found: Mapping) -> str:
    text = plots.number(found["spearman"])
    return text if np.isnan(found["low"]) else f"{text} [{plots.number(found['low'])}, {plots.number(found['high'])}]"


def _range(values: pd.Series) -> str:
    low, high = plots.number(values.min()), plots.number(values.max())
    return low if low == high else f"{low} to {high}"
