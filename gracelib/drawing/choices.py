"""Figures 6, 7, 13, 14 and 25: what a score is worth to somebody who cannot choose freely.

Which temperature for this teacher, which teacher of this family, which teacher under this size: each figure restricts
the candidates as `evidence.choices` does and draws the numbers of that table. Random choice is drawn beside the scores,
and a grey band shows how far two equally good students may measure apart, because a small regret needs both to be read.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gracelib.drawing import captions, findings, marks
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, FAMILIES, entry, family, family_handles, frame, styled
from gracelib.evidence.choices import (
    RANDOM,
    budget_rows,
    choice_cells,
    family_rows,
    label,
    noise_points,
    over_teachers,
    scaled_up,
    temperature_choices,
    two_teachers,
)
from gracelib.paper.reported import STUDENT, TASK, PaperValue, paper_values, setting_name, setting_values

THREE = ("grace", "g_norm", "g_vendi")
FIVE = (*THREE, "student_loss", "teacher_accuracy")
ENOUGH_FOR_A_VIOLIN = 10  #: below, a smooth outline would claim more than the marks show
_BUDGETS = (
    "the paper's budgets in parentheses are those in whose place they stand (its last leaves out its 70B teacher, "
    "ours leaves out none)"
)


@styled()
def figure6(cells: pd.DataFrame, student: str, scale: str, *, k: int = 16, scores: Sequence[str] = THREE) -> Drawn:
    """Figure 6: scaled scores and accuracy against temperature for two teachers; the choice for every teacher below.

    The two are `choices.two_teachers`: decided by the teachers' accuracies, not the students'.
    """
    rows = choice_cells(cells, student, scores)
    two, choices = two_teachers(cells, student), temperature_choices(rows, scores)
    looks, noise = dict(zip(scores, marks.LOOKS, strict=False)), noise_points(rows)
    by_family = rows.assign(rank=rows["manner"].map(list(FAMILIES).index)).sort_values(["rank", "width", "teacher"])
    teachers = by_family["teacher"].drop_duplicates().tolist()
    low = 0.55 + 0.22 * len(teachers)
    fig, (ax,) = frame(
        DOUBLE,
        1.8 + low,
        [
            [
                *(entry(label(s), **marks.line_look(look)) for s, look in looks.items()),
                *marks.chosen_handles("picked by the score", "best temperature"),
            ],
            [*family_handles(rows["manner"]), _band_handle()],
        ],
        captions.note(scale, rows),
    )
    ax.remove()
    fig.get_layout_engine().set(wspace=0.06, hspace=0.05)
    (top, bottom) = fig.subfigs[0].subplots(2, 2, height_ratios=[1.8, low])
    lines = [
        _curves(ax, rows[rows["teacher"] == name], choices[choices["teacher"] == name], looks, k)
        for ax, name in zip(top, two, strict=False)
    ]
    top[0].set_ylabel("Score (scaled, 0 to 1)")
    for ax in top[len(two) :]:
        ax.set_axis_off()
        marks.say(ax, "one teacher only")
    _picks(bottom[0], choices, teachers, looks, "picked", "Temperature picked ($T$)")
    _picks(bottom[1], choices, teachers, looks, "regret_points", "Regret of that pick (points)")
    _band(bottom[1], noise)
    bottom[1].set_xlim(left=-0.04 * max(bottom[1].get_xlim()[1], 1))
    bottom[1].tick_params(labelleft=False)
    named = choices[choices["teacher"].isin(two)]
    return Drawn(
        fig,
        pd.concat([*(c.assign(panel="top") for c in lines), choices.assign(panel="bottom")], ignore_index=True),
        caption=(
            f"{findings.picks(over_teachers(choices, 'regret_points'), 'mean', ' of a temperature for a given teacher')} Top: scores scaled to 0..1 over the temperatures of one teacher, up is good, and {captions.accuracy_words(k=k)} "
            f"with one standard error. The two teachers are chosen by their own accuracy among those with the most temperatures: the least accurate one that has a "
            f"relative, and the most accurate of its family (where no family has two, the least and the most accurate). "
            f"Triangles: the temperature a score picks; dashed: the best one. Bottom: the pick for every teacher and what it "
            f"costs against that teacher's best temperature; filled family marks are the best temperatures. {_band_words(rows)} "
            f"{captions.cells_sentence(scale, rows)}"
        ),
        alt="Two panels of lines over temperature, and two of marks, one row per teacher.",
        ours={
            "regret_points": _records(over_teachers(choices, "regret_points")),
            "picked": {f"{r.teacher}, {r.score}": r.picked for r in named.itertuples() if r.score != RANDOM},
            "best": dict(zip(named["teacher"], named["best"], strict=True)),
        },
        paper=_paper_temperatures(rows),
    )


def _curves(ax: Axes, rows: pd.DataFrame, choices: pd.DataFrame, looks: Mapping[str, tuple], k: int) -> pd.DataFrame:
    """One teacher's scaled scores (left scale) and accuracy (right scale) against temperature; the numbers drawn.

    `rows` and `choices`: the teacher's cells and its rows of `temperature_choices`.
    """
    own, choices = rows.sort_values("temperature"), choices.set_index("score")
    teacher, manner = own["teacher"].iloc[0], own["manner"].iloc[0]
    t, made = own["temperature"].to_numpy(float), own[["teacher", "temperature"]].copy()
    for score, look in looks.items():
        made[f"{score}_scaled"] = scaled = scaled_up(own[score].to_numpy(float), score)
        ax.plot(t, scaled, **marks.line_look(look), zorder=3)
        at = (t == choices.loc[score, "picked"]) & np.isfinite(scaled)
        marks.chosen_mark(ax, t[at], scaled[at], f"picked-{score}")
    twin = ax.twinx()
    marks.family_line(twin, t, 100 * own["average_at_k"], manner, 100 * own["average_se"], linewidth=1.8)
    ax.grid(visible=False)  # it would lie upon the accuracy's line
    twin.grid(visible=True, axis="x")
    twin.grid(visible=False, axis="y")
    twin.spines["right"].set_visible(True)
    twin.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    twin.margins(0.06, 0.12)
    if ax.get_subplotspec().is_last_col() or len(t) == 1:
        twin.set_ylabel(marks.accuracy_label("average_at_k", k).removeprefix("Student "))
    ax.set_zorder(twin.get_zorder() + 1)  # the scores' marks lie upon the accuracy's line
    ax.patch.set_visible(False)
    ax.set(
        ylim=(-0.12, 1.22),
        yticks=[0, 0.5, 1],
        xlabel="Temperature ($T$)",
        title=f"{teacher} (coloured: accuracy ± one SE)",
    )
    if len(t) == 1:
        marks.say(ax, "one temperature", 0.25, 0.92)
        ax.set_xticks(t)
    else:
        ax.axvline(choices["best"].iloc[0], **(marks.DASHED | {"color": family(manner).color}), zorder=1.5, gid="best")
    return made.assign(average_at_k=own["average_at_k"], average_se=own["average_se"])


def _picks(
    ax: Axes, choices: pd.DataFrame, teachers: Sequence[str], looks: Mapping[str, tuple], column: str, name: str
) -> None:
    """A column of `temperature_choices`, one row per teacher, one lane per score; with "picked", the best ones behind."""
    marks.rows_axis(ax, teachers, striped=True)
    wide = choices.pivot(index="teacher", columns="score", values=column).loc[list(teachers)]
    y = np.arange(len(teachers))
    if column == "picked":
        best = choices.drop_duplicates("teacher").set_index("teacher").loc[list(teachers)]
        marks.family_marks(ax, best["best"], y, best["manner"], 60, zorder=2)
    for i, (score, (mark, face, _)) in enumerate(looks.items()):
        ax.scatter(
            wide[score],
            y + 0.84 * ((i + 0.5) / len(looks) - 0.5),
            s=22,
            marker=mark,
            c=face,
            edgecolors=EDGE,
            linewidths=0.6,
            zorder=4,
            clip_on=False,
        )
    ax.set_xlabel(name)


@styled()
def figure7(cells: pd.DataFrame, student: str, scale: str, *, scores: Sequence[str] = THREE) -> Drawn:
    """Figure 7: left, each teacher's Spearman over its temperatures; right, Spearman over all cells of a size budget."""
    rows = choice_cells(cells, student, scores)
    choices, budgets = temperature_choices(rows, scores), budget_rows(rows, scores)
    choices, budgets = choices[choices["score"] != RANDOM], budgets[budgets["score"] != RANDOM]
    within, looks = over_teachers(choices, "spearman"), dict(zip(scores, marks.LOOKS, strict=False))
    paper = {q: _paper(rows, "figure 7", q) for q in ("spearman_within_abs", "spearman_budget_abs")}
    own = [entry(label(s), **marks.line_look(look, line=False)) for s, look in looks.items()]
    own.append(entry("95% interval", linestyle="-", color=EDGE, linewidth=1.1))
    known = marks.paper_handles(
        [v for values in paper.values() for v in values.values()], f"paper, {_setting(rows)}, |ρ|", upright=True
    )
    fig, (left, right) = frame(
        DOUBLE, 2.6, [own, known, family_handles(rows["manner"])], captions.note(scale, rows), (1, 1.15), sharey=True
    )
    _violins(left, choices, within, looks, paper["spearman_within_abs"])
    widths = sorted(set(budgets["budget"]))
    for i, (score, look) in enumerate(looks.items()):
        mine = budgets[budgets["score"] == score]
        x = np.arange(len(widths)) + 0.24 * (i - (len(scores) - 1) / 2)
        marks.points(right, x, mine["spearman"], mine["low"], mine["high"], look, gid=f"ours-{score}")
        for at in x if score in paper["spearman_budget_abs"] else ():
            marks.paper_mark(right, paper["spearman_budget_abs"][score], at + 0.09, score, upright=True)
    pad = 0.6 + 0.5 * max(0, 3 - len(widths))  # few budgets do not stand farther apart
    right.set(
        xticks=range(len(widths)),
        xticklabels=[_budget_name(budgets, w) for w in widths],
        xlim=(-pad, len(widths) - 1 + pad),
        xlabel="Size budget (width)",
    )
    if budgets["spearman"].isna().all():
        marks.say(right, "undefined")
    for ax in (right, left):
        marks.correlation_axis(ax, "y")
        ax.grid(visible=False, axis="x")
    right.set_ylabel("")
    right.tick_params(labelleft=False)
    known = {q: captions.papers(v) for q, v in paper.items()}
    return Drawn(
        fig,
        pd.concat(
            [choices.assign(panel="left"), within.assign(panel="left, mean"), budgets.assign(panel="right")],
            ignore_index=True,
        ),
        caption=(
            f"{findings.within(within)} Left: signed Spearman of score and accuracy over one teacher's temperatures, a mark per teacher (so few "
            f"temperatures allow few values), a violin where {ENOUGH_FOR_A_VIOLIN} or more are defined, and their mean. Right: "
            f"over all cells of the teachers up to a width; {_BUDGETS}. {captions.cells_sentence(scale, rows)}"
        ),
        alt="Violins with one mark per teacher, and correlations with intervals for each size budget.",
        ours={"within": _records(within), "budgets": {str(w): _records(b) for w, b in budgets.groupby("budget")}},
        paper=known,
    )


def _violins(
    ax: Axes, choices: pd.DataFrame, means: pd.DataFrame, looks: Mapping[str, tuple], paper: Mapping[str, PaperValue]
) -> None:
    """Per score a violin of its teachers' correlations, their family marks, the mean, the paper's value."""
    known = choices.dropna(subset=["spearman"]).sort_values(["spearman", "teacher"])
    enough = known.groupby("score")["spearman"].transform(lambda v: len(v) >= ENOUGH_FOR_A_VIOLIN and np.ptp(v) > 0)
    if enough.any():
        sns.violinplot(
            known[enough],
            x="score",
            y="spearman",
            order=list(looks),
            ax=ax,
            cut=0,
            density_norm="width",
            inner=None,
            width=0.72,
            saturation=1,
            zorder=1.5,
            color=marks.PALE_BAR,
            linecolor=EDGE,
            linewidth=0.5,
        )
    for x, row in enumerate(means.to_dict("records")):
        own = known[known["score"] == row["score"]]
        if own.empty:
            marks.say(ax, "undefined", x, 0.06, ax.transData)
            continue
        marks.family_marks(ax, x + _beside(own["spearman"].to_numpy(float)), own["spearman"], own["manner"])
        marks.points(ax, x + 0.37, row["mean"], row["low"], row["high"], looks[row["score"]])
        if row["score"] in paper:
            marks.paper_mark(ax, paper[row["score"]], x + 0.47, row["score"], upright=True)
    ax.set(
        xticks=range(len(means)),
        xticklabels=means["label"],
        xlim=(-0.5, len(means) - 0.4),
        xlabel="Score (correlation over one teacher's temperatures)",
    )


def _beside(values: np.ndarray, near: float = 0.07, step: float = 0.085) -> np.ndarray:
    """Offsets that lay marks of nearly equal values (sorted) side by side."""
    group = np.cumsum(np.diff(values, prepend=values[0]) > near)
    place = np.arange(len(values)) - np.searchsorted(group, group)
    size = np.bincount(group)[group]
    return np.minimum(step, 0.62 / size) * (place - (size - 1) / 2)


@styled()
def figure13(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    k: int = 16,
    scores: Sequence[str] = FIVE,
    item: str = "figure 13",
    extra: str = "",
) -> Drawn:
    """Figure 13: the regret of each score when the candidates are one family; mean over families.

    Also figure 25, with the cells and the sentence (`extra`) of `cells.leave_out_teacher`. `item` is where the paper's
    numbers are filed.
    """
    rows = choice_cells(cells, student, scores)
    table, paper = family_rows(rows, scores), _paper(rows, item, "regret_family_points")
    mean, each = table[table["family"] == "mean"].reset_index(drop=True), table[table["family"] != "mean"]
    families = [name for name in FAMILIES if name in set(rows["manner"])]
    fig, (ax,) = frame(
        DOUBLE,
        0.5 + len(mean) * max(0.26, 0.09 * len(families)),
        [
            family_handles(families),
            [*marks.bar_handles("mean over families"), _band_handle()],
            marks.paper_handles(paper.values(), f"paper's mean, {_setting(rows)}"),
        ],
        captions.note(scale, rows),
    )
    _band(ax, noise_points(rows))
    marks.regret_bars(
        ax,
        mean,
        paper,
        at_most=np.nanmax([*table["regret_points"], *mean["regret_high"], *(v.high for v in paper.values())]),
    )
    lane = 0.8 * (each["family"].map(families.index) + 0.5) / len(families)
    y = each["score"].map(list(mean["score"]).index) - 0.4 + lane
    marks.family_marks(ax, each["regret_points"], y, each["family"], 22, zorder=3.5, clip_on=False)
    ax.set_xlabel("Regret within a family (points)")
    sizes = rows.drop_duplicates("teacher")["manner"].value_counts()
    return Drawn(
        fig,
        table,
        caption=(
            f"{findings.picks(mean, where=' within a family, on average,')} Regret of each score, in points of {captions.accuracy_words(k=k)}, when the candidates are the teachers of one "
            f"family at all their temperatures; bars and the numbers at the right are means over families. {extra + ' ' * bool(extra)}"
            f"Teachers per family: {', '.join(f'{f} {sizes[f]}' for f in families)} (with one, only its temperature is chosen). "
            f"{_band_words(rows)} {captions.regret_ends(rows)} {captions.cells_sentence(scale, rows)}"
        ),
        alt="Horizontal bars with intervals, one per score, with a mark for each family.",
        ours=_records(mean),
        paper=captions.papers(paper),
    )


@styled()
def figure14(cells: pd.DataFrame, student: str, scale: str, *, k: int = 16, scores: Sequence[str] = FIVE) -> Drawn:
    """Figure 14: the regret of each score when only teachers up to a width are candidates, one panel per budget."""
    rows = choice_cells(cells, student, scores)
    table, paper = budget_rows(rows, scores), _paper(rows, "figure 14", "regret_budget_points")
    budgets = dict(list(table.groupby("budget", sort=True)))
    widest = np.nanmax([*table["regret_points"], *table["regret_high"], *(v.high for v in paper.values())])
    fig, axes = frame(
        DOUBLE,
        0.75 + 0.22 * (len(scores) + 1),
        [
            [*marks.bar_handles("this run"), _band_handle()],
            marks.paper_handles(paper.values(), f"paper, {_setting(rows)}"),
        ],
        captions.note(scale, rows),
        [1] * len(budgets),
    )
    for ax, (width, own) in zip(axes, budgets.items(), strict=True):
        _band(ax, noise_points(rows))
        marks.regret_bars(ax, own, paper, at_most=widest, labels=ax is axes[0])
        ax.set_title(_budget_name(table, width).replace("\n", ", "))
    return Drawn(
        fig,
        table,
        caption=(
            f"{findings.picks(budgets[min(budgets)], where=' under the smallest budget')} "
            f"Regret of each score, in points of {captions.accuracy_words(k=k)}, among the teachers up to a width at all "
            f"temperatures; {_BUDGETS}. {_band_words(rows)} {captions.regret_ends(rows)} {captions.cells_sentence(scale, rows)}"
        ),
        alt="Horizontal bars with intervals, one per score, one panel per size budget.",
        ours={str(w): _records(own) for w, own in budgets.items()},
        paper=captions.papers(paper),
    )


# --- shared by the figures -----------------------------------------------------------------------------------


def _band(ax: Axes, noise: float) -> None:
    """The grey band of regrets that noise alone can make."""
    if np.isfinite(noise):
        ax.axvspan(0, noise, color=marks.SHADE, zorder=0)


def _band_words(rows: pd.DataFrame) -> str:
    return f"Grey: one standard error of the difference of two students, from {captions.noise(rows)} alone."


def _band_handle() -> Artist:
    return Patch(facecolor=marks.SHADE, label="one SE of a difference")


def _budget_name(table: pd.DataFrame, width: int) -> str:
    """A budget with what it stands for and how many teachers it has, on two lines."""
    row = table[table["budget"] == width].iloc[0]
    paper = f" ({row['paper_budget']})" if row["paper_budget"] else ""
    return f"≤ {width}{paper}\n{captions.counted(row['teachers'], 'teacher')}"


def _setting(rows: pd.DataFrame) -> str:
    return setting_name(rows["task"].iloc[0], rows["student"].iloc[0]).replace(", ", "/")


def _paper(rows: pd.DataFrame, item: str, quantity: str) -> dict[str, PaperValue]:
    return setting_values(item, quantity, rows["task"].iloc[0], rows["student"].iloc[0])


def _paper_temperatures(rows: pd.DataFrame) -> dict:
    """The paper's two teachers: the best temperature and the one GRACE picks; empty for a setting without figure 6."""
    if _setting(rows) != f"{STUDENT}/{TASK}":
        return {}
    return {
        f"{q}, {case}": captions.papers(paper_values("figure 6", q, case=case))
        for case in ("Qwen2.5-1.5B", "Qwen2.5-3B")
        for q in ("temperature_best", "temperature_picked")
    }


def _records(table: pd.DataFrame) -> dict:
    """One entry a score, without the columns that say nothing of it."""
    return captions.records(table, table.columns.drop(["score", "label", "family"], errors="ignore"))
