"""Figures 19, 20 and 23 and the settings nobody plotted: how much of GRACE's correlation is the choice of n, m, d, C, nu,
or of the cells.

All from one pass of gradients: the table `grid` holds the score at every setting, the students are the same throughout.
So differences between two settings of one figure are exact for these cells; their intervals ask what other teachers
would have shown. Where the smoothing decides the score (fewer gradients than dimensions) a setting is drawn hollow.

Figure 23 asks whether a correlation is carried by a few cells. The paper's text draws 60% of the teachers, the caption of
its figure 60% of the combinations of teacher and temperature. The second keeps every teacher in nearly every subset, so it
looks more stable than a different choice of teachers would be: both are drawn side by side.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch, Rectangle

from gracelib.baselines import SCORES
from gracelib.drawing import captions, findings, marks
from gracelib.drawing.correlations import all_scores
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, SINGLE, SMALL, entry, frame, styled
from gracelib.evidence.ablations import READINGS, grid_correlations, setting_change, subset_correlations, subset_summary
from gracelib.evidence.cells import default_setting, select
from gracelib.paper.reported import paper_values
from gracelib.scale import Scale

PAPER_N, PAPER_D = 512, (512, 1024)
FLAT_FROM = 6  #: the number of folds from which on the paper finds no change
HOLLOW = "ν decides the score"
#: From -1 to 1 in colours that black text and frames stand out from.
PALE = ListedColormap(1 - 0.5 * (1 - colormaps["PuOr"](np.linspace(0, 1, 256))[:, :3]))


@styled()
def figure19(cells: pd.DataFrame, grid: pd.DataFrame, config: Scale) -> Drawn:
    """Figure 19: GRACE's correlation against d, against n, and for every n with every d. Two columns wide.

    `cells` from `tables.cells` (first task), `grid` from the table `grid`.
    """
    base, rows = default_setting(config), select(cells, config.student, ())
    table = grid_correlations(grid, cells, config.student, base, ("n", "d"))
    reported = {f"d = {d}": paper_values("figure 19", "spearman_abs", case=f"d = {d}")["grace"] for d in PAPER_D}
    known = {d: reported[f"d = {d}"] for d in PAPER_D if base["n"] == PAPER_N and d in set(table["d"])}
    first = [entry("this run, 95% interval", **marks.line_look(marks.LOOKS[0])), *marks.paper_handles(known.values())]
    second = [
        Patch(facecolor="none", edgecolor="black", linewidth=1.4, label="n = d/2"),
        entry("best n of a d", marker="_", markeredgecolor="black", markersize=9, markeredgewidth=1.6),
    ]
    if table["nu_decides"].any():
        first.insert(1, entry(HOLLOW, **(marks.line_look(marks.LOOKS[0]) | {"markerfacecolor": "white"})))
        second.append(
            Patch(facecolor="none", hatch="////", edgecolor="#808080", linewidth=0, label=f"{HOLLOW} (right)")
        )
    fig, (left, middle, right) = frame(DOUBLE, 2.15, [first, second], captions.note(config.name, rows), (1, 1, 1.15))
    middle.sharey(left)
    for ax, axis, other in ((left, "d", "n"), (middle, "n", "d")):
        own = table[table[other] == base[other]]
        _curve(ax, own, axis)
        marks.log_ticks(ax, own[axis])
        ax.margins(x=0.1)
        ax.set(xlabel={"d": "Projection rows d", "n": "Prompts n"}[axis], title=f"{other} = {base[other]}")
    for d, value in known.items():
        marks.paper_mark(left, value, d, f"d = {d}", upright=True)
    left.set_ylabel("Signed Spearman of GRACE")
    _heat(right, table)
    other = {"larger_d": {"d": 2 * base["d"]}, "half_n": {"n": base["d"] // 2}}
    return Drawn(
        fig,
        table,
        caption=(
            f"{findings.over_settings(table, 'n and d')}{findings.dip(table)} "
            f"Signed Spearman correlation of GRACE with the students' accuracy. Left: against d, all n = {base['n']} prompts. "
            f"Middle: against n at d = {base['d']}. Right: every n and d (frame: n = d/2, where the paper finds the best; "
            f"line: the best n of a d). Hollow or hatched: the smoothing ν decides the score. The paper's values are those of "
            f"n = {PAPER_N}. {captions.cells_sentence(config.name, rows)}"
        ),
        alt="Two lines with intervals over d and over n, and a table of correlations in colours.",
        ours=_changes(grid, cells, config, other),
        paper=captions.papers(reported | {"best_n_over_d": paper_values("figure 19", "best_n_over_d")["grace"]}),
    )


@styled()
def figure20(cells: Mapping[str, pd.DataFrame], grid: pd.DataFrame, config: Scale) -> Drawn:
    """Figure 20: GRACE's correlation against the number of folds C, for each task (name -> its cells). One column wide."""
    base, parts = default_setting(config), [select(own, config.student, ()) for own in cells.values()]
    table = pd.concat(
        [
            grid_correlations(grid, own, config.student, base, ("n_folds",)).assign(task=task)
            for task, own in cells.items()
        ],
        ignore_index=True,
    )
    looks, top = dict(zip(cells, marks.LOOKS, strict=False)), max(table["n_folds"])
    fig, (ax,) = frame(
        SINGLE,
        2.1,
        [
            [entry(f"{task} task", **marks.line_look(look)) for task, look in looks.items()],
            [
                Patch(facecolor=marks.SHADE, label=f"flat in the paper (C ≥ {FLAT_FROM})"),
                entry(f"default: {base['n_folds']}", **marks.DASHED),
            ],
        ],
        captions.note(config.name, *parts),
    )
    ax.axvspan(FLAT_FROM - 0.5, top + 1, color=marks.SHADE, zorder=0)
    ax.axvline(base["n_folds"], **marks.DASHED, zorder=1.5)
    for i, (task, look) in enumerate(looks.items()):
        _curve(ax, table[table["task"] == task], "n_folds", look, shift=0.18 * (i - (len(cells) - 1) / 2))
    flat = [
        findings.over_settings(
            table[table["task"].eq(task) & table["n_folds"].ge(FLAT_FROM)], f"C ≥ {FLAT_FROM}", f" ({task} task)"
        )
        for task in cells
    ]
    ax.set(
        xlim=(1, top + 1),
        xticks=[c for c in (2, 4, 6, 8, 10, 12, 16, 20) if c <= top],
        xlabel="Folds C",
        ylabel="Signed Spearman of GRACE",
    )
    return Drawn(
        fig,
        table,
        caption=(
            f"{' '.join(flat)} Signed Spearman correlation of GRACE with the students' accuracy against the number of folds C, all else "
            f"at the scale's setting. The paper finds it flat from C = {FLAT_FROM} on, for both of its tasks. "
            f"{captions.cells_sentence(config.name, *parts)}"
        ),
        alt="A line with intervals over the number of folds for each task.",
        ours={},
        paper=captions.papers({"flat_from_folds": paper_values("figure 20", "flat_from_folds")["grace"]}),
    )


@styled()
def settings(cells: pd.DataFrame, grid: pd.DataFrame, config: Scale) -> Drawn:
    """GRACE's correlation against the smoothing nu for three length powers, and against m. Two columns wide."""
    base, rows = default_setting(config), select(cells, config.student, ())
    smoothed = grid_correlations(grid, cells, config.student, base, ("nu", "power"))
    by_m = grid_correlations(grid, cells, config.student, base, ("m",))
    paper = {m: paper_values("settings", "spearman_abs", case=f"m = {m}")["grace"] for m in (2, 4, 8)}
    drawn = {m: v for m, v in paper.items() if m in set(by_m["m"])}
    names = {1.0: "log |y| (default)", 0.0: "no recalibration", 2.0: "(log |y|)²"}
    looks = dict(zip(names, marks.LOOKS, strict=False))
    legend = [entry(names[p], **marks.line_look(look)) for p, look in looks.items()]
    legend += marks.paper_handles(drawn.values())
    fig, (left, right) = frame(DOUBLE, 2.0, [legend], captions.note(config.name, rows), (1.35, 1))
    right.sharey(left)
    for i, (power, look) in enumerate(looks.items()):
        _curve(left, smoothed[smoothed["power"] == power], "nu", look, factor=1.12 ** (i - 1))
    marks.log_ticks(left, smoothed["nu"], base=10)
    left.axvline(base["nu"], **marks.DASHED, zorder=1.5)
    left.set(xlabel="Smoothing ν (dashed: default)", ylabel="Signed Spearman of GRACE")
    _curve(right, by_m, "m")
    marks.log_ticks(right, by_m["m"])
    right.margins(x=0.1)
    for m, value in drawn.items():
        marks.paper_mark(right, value, m, f"m = {m}", upright=True)
    right.set_xlabel("Responses per prompt m")
    return Drawn(
        fig,
        pd.concat([smoothed.assign(panel="left"), by_m.assign(panel="right")], ignore_index=True),
        caption=(
            f"{findings.over_settings(smoothed, 'the smoothing and the power of the length')} {findings.over_settings(by_m, 'm')} "
            f"Signed Spearman correlation of GRACE with the students' accuracy. Left: against the smoothing ν, for three powers "
            f"of the length factor. Right: against the responses per prompt that GRACE reads. "
            f"{captions.cells_sentence(config.name, rows)}"
        ),
        alt="Lines with intervals over ν on the left and over m on the right.",
        ours=_changes(grid, cells, config, {names[p]: {"power": p} for p in (0.0, 2.0)}),
        paper=captions.papers({f"m = {m}": value for m, value in paper.items()}),
    )


@styled()
def figure23(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    scores: Sequence[str] | None = None,
    n_sets: int = 100,
    share: float = 0.6,
    seed: int = 0,
) -> Drawn:
    """Figure 23: violins of each score's correlation over random subsets, of cells and of teachers. Two columns wide.

    `scores` None: `correlations.all_scores`.
    """
    names = all_scores(cells) if scores is None else list(scores)
    rows = select(cells, student, names)
    subsets = subset_correlations(rows, names, share=share, n_sets=n_sets, seed=seed)
    table = subset_summary(subsets, rows, names)
    fig, axes = frame(
        DOUBLE,
        0.75 + 0.2 * len(names),
        [
            [
                Patch(facecolor=marks.BAR, edgecolor=EDGE, linewidth=0.5, label=f"{n_sets} random subsets"),
                entry("median", marker="|", markeredgecolor="black", markersize=6, markeredgewidth=1.2),
                entry("all cells", marker="H", color="white"),
            ]
        ],
        captions.note(scale, rows),
        (1, 1),
        sharey=True,
    )
    order = table[table["reading"] == "cells"]["score"].tolist()
    for ax, (reading, what) in zip(axes, READINGS.items(), strict=True):
        own = subsets[subsets["reading"] == reading]
        _violins(ax, own, table[table["reading"] == reading].set_index("score").loc[order])
        sizes = " to ".join(map(str, sorted({own["cells"].min(), own["cells"].max()})))
        distinct = own["distinct"].iloc[0]
        few = f"; {captions.counted(distinct, 'different subset')}" if distinct < n_sets else ""
        ax.set_title(f"{what} (cells: {sizes}{few})")
        marks.correlation_axis(ax)
        marks.rows_axis(ax, [SCORES[s].label for s in order])
    return Drawn(
        fig,
        table,
        caption=(
            f"{findings.subsets(table)} Signed Spearman correlation of {len(order)} scores with the students' accuracy over {n_sets} random subsets drawn "
            f"without replacement: {share:.0%} of the cells (the caption of the paper's figure) and {share:.0%} of the teachers "
            f"with all their temperatures (its text). The spread over subsets is no confidence interval: subsets overlap. "
            f"{captions.cells_sentence(scale, rows)}"
        ),
        alt="Two panels of horizontal violins, one row per score.",
        ours={
            reading: captions.records(own, ("median", "low", "high", "best_share"))
            for reading, own in table.groupby("reading", sort=False)
        },
        paper={"direction": {"value": "GRACE consistently strong", "source": "submission, figure 23"}},
    )


# --- panels --------------------------------------------------------------------------------------------------


def _curve(
    ax: Axes, rows: pd.DataFrame, axis: str, look: tuple = marks.LOOKS[0], shift: float = 0.0, factor: float = 1.0
) -> None:
    """A correlation with intervals along one setting; hollow where the smoothing decides; `shift`, `factor` move it."""
    x = rows[axis] * factor + shift
    if rows["spearman"].isna().all():
        if not ax.texts:  # several curves of one panel are undefined for one reason
            marks.say(ax, "undefined\n" + rows["note"].iloc[0].removeprefix("undefined: ").replace(": ", ":\n"))
        ax.plot(x, np.zeros(len(x)), alpha=0)
        ax.set_ylim(-1, 1)
        return
    ax.plot(x, rows["spearman"], color=marks.line_look(look)["color"], linestyle=look[2], linewidth=1.1, zorder=2)
    marks.points(
        ax,
        x,
        rows["spearman"],
        rows["low"],
        rows["high"],
        look,
        c=["white" if hollow else look[1] for hollow in rows["nu_decides"]],
    )


def _heat(ax: Axes, table: pd.DataFrame) -> None:
    """The table over n (rows, largest on top) and d, as numbers on colours from -1 to 1."""
    wide, decided = (
        table.pivot(index="n", columns="d", values=c).sort_index(ascending=False) for c in ("spearman", "nu_decides")
    )
    sns.heatmap(
        wide.fillna(0),
        cmap=PALE,
        vmin=-1,
        vmax=1,
        annot=wide.map(lambda rho: "–" if np.isnan(rho) else marks.number(rho)),
        fmt="",
        annot_kws={"fontsize": SMALL, "color": "black"},
        cbar=False,
        ax=ax,
    )
    best = wide.idxmax() if wide.notna().any().all() else {}
    for i, n in enumerate(wide.index):
        for j, d in enumerate(wide):
            if decided.loc[n, d]:
                ax.add_patch(Rectangle((j, i), 1, 1, fill=False, hatch="////", edgecolor="#00000038", linewidth=0))
            if 2 * n == d:
                ax.add_patch(Rectangle((j + 0.04, i + 0.04), 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.4))
            if len(best) and best[d] == n:
                ax.hlines(i + 0.8, j + 0.22, j + 0.78, linewidth=1.6, color="black")
    ax.tick_params(length=0, rotation=0)
    ax.set_xlabel("Projection rows d")
    ax.set_ylabel("Prompts n", labelpad=1)


def _violins(ax: Axes, subsets: pd.DataFrame, found: pd.DataFrame) -> None:
    """One row per score: a violin of its values over subsets (dots where there are but a few), median, value on all cells."""
    known = subsets.dropna(subset=["spearman"])
    many = known.groupby("score")["spearman"].transform(lambda values: values.round(9).nunique()) > 3
    drawn = {"x": "spearman", "y": "score", "order": list(found.index), "color": marks.BAR, "ax": ax}
    if many.any():
        sns.violinplot(
            known[many],
            **drawn,
            cut=0,
            density_norm="width",
            inner=None,
            width=0.85,
            saturation=1,
            linecolor=EDGE,
            linewidth=0.5,
        )
    if not many.all():
        sns.stripplot(known[~many], **drawn, jitter=False, size=3, edgecolor=EDGE, linewidth=0.4)
    at = np.arange(len(found))
    ax.scatter(found["median"], at, s=45, marker="|", c="black", linewidths=1.2, zorder=3)
    ax.scatter(found["spearman"], at, s=16, marker="H", c="white", edgecolors=EDGE, linewidths=0.7, zorder=4)
    for y in np.flatnonzero(found["median"].isna()):
        marks.say(ax, "undefined", 0, y, ax.transData)


def _changes(grid: pd.DataFrame, cells: pd.DataFrame, config: Scale, others: Mapping[str, Mapping]) -> dict:
    """How another setting changes the correlation, on the same resamples; those that the grid does not have are absent."""
    base = default_setting(config)
    found = {name: setting_change(grid, cells, config.student, base, base | new) for name, new in others.items()}
    return {name: change for name, change in found.items() if change is not None}
