"""What the notebooks that show `lab` say in their first paragraph is what its published tables say, to the digit."""

import json

import nbformat
import pandas as pd
import pytest

from gracelib.evidence.cells import KEY, UNTRAINED, difference, score_rows, select
from gracelib.evidence.objectives import by_objective, orders_agree, over_best, over_seeds
from gracelib.evidence.summaries import cmi_at, with_noise
from gracelib.experiment import tables
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths
from lab_for_tests import (
    LIMIT,
    LONG,
    SECOND,
    SHORT,
    WITH_ENDS,
    WORDS,
    ahead,
    main_table,
    second_world,
    told_apart,
    unsaid,
)

LAB = paths.published("lab")


def ours(figure: str):
    return json.loads((LAB / f"{figure}.json").read_text(encoding="utf-8"))["ours"]


def teacher_data() -> str:
    teachers = pd.read_csv(paths.published("mini") / "results" / "teachers.csv").query("task == 'short'")
    right = teachers.pivot(index="teacher", columns="temperature", values="accuracy")
    assert (right[1.0] < right[0.4]).all() and len(right) == 6
    return f"""\
Six teachers solve little arithmetic stories in six manners. At $T=0.6$ they are right between {right[0.6].min():.0%} and {right[0.6].max():.0%} of the time on short stories. Remember `terse-64`: it is right {right.loc["terse-64", 0.6]:.0%} of the time,
writes bare totals, and will make one of the worst students. Sampling hotter costs every teacher accuracy."""


def inflation() -> str:
    """What notebook 03 says of the inflation, between and within teachers, over the five settings."""
    found, within, norm, columns = {"inner_product": [], "accuracy": []}, [], [], ["grace", "g_norm", "inflation"]
    for world in ("lab", "lab-world1", "lab-world2"):
        scores = tables.table(world, "scores", recompute=False).assign(inflation=lambda t: t.grace / t.g_norm)
        right = tables.table(world, "teachers", recompute=False)[["task", "teacher", "temperature", "accuracy"]]
        for _, own in scores.merge(right, on=["task", "teacher", "temperature"]).groupby(
            ["task", "student"], sort=False
        ):
            means = own.groupby("teacher")[[*columns, *found]].mean()
            for name, rows in found.items():
                rows.append(difference((means[name], means.inflation, "higher"), None, means.index))
            norm.append(means.grace.corr(means.g_norm, "spearman"))
            within.append(sum(t.inflation.corr(t.inner_product, "spearman") < 0 for _, t in own.groupby("teacher")))
    cosine, accuracy = (sorted(row["spearman"] for row in rows) for rows in found.values())
    assert sum(n > len(means) / 2 for n in within) == 4 and len(within) == 5
    copies, clear = (sum(row["low"] > 0 for row in found[name]) for name in ("inner_product", "accuracy"))
    return f"""\
so GRACE orders the teachers much as G-Norm does (rank correlation {min(norm):.2f} to {max(norm):.2f} in the second table).

**What raises the inflation?** Near-copies count as little more than one row when the matrix is estimated, so the other prompts cover fewer directions, and every prompt looks unsupported: copies made by hand show that below.
Between the {len(means)} teachers, too, the inflation goes with the cosine: at {cosine[0]:.2f} to {cosine[-1]:.2f} in the {WORDS[len(within)]} settings, clear in {WORDS[copies]}. It also goes with the teacher's accuracy, at {accuracy[0]:.2f} to {accuracy[-1]:.2f}, clear in
{WORDS[clear]}. Within a teacher it goes the other way for most in four of the five: heat lowers the cosine and raises the inflation ({", ".join(map(str, within))} of {len(means)} teachers)."""


def which_teacher() -> str:
    main, without = main_table(), main_table("without terse and reversed").spearman.map("{:.2f}".format)
    three = {
        score: "{}, {} and {}".format(*(without[one, score] for one in (SHORT, SECOND, LONG)))
        for score in ("grace", "g_norm", "student_loss", "teacher_accuracy")
    }
    rho, points = main.spearman.map("{:.2f}".format), main.regret_points.map("{:.1f}".format)
    low, high = (f"{main[end][SHORT, 'grace']:.2f}" for end in ("low", "high"))
    ends = " to ".join(f"{main[f'regret_{end}'][SHORT, 'grace']:.1f}" for end in ("low", "high"))
    second = ("lab", "short", "second")
    by = {
        score: "{:.2f} ({:.2f} to {:.2f})".format(
            *(abs(ahead(score)[second][end]) for end in ("spearman", "high", "low"))
        )
        for score in ("g_norm", "student_loss")
    }
    behind = {score: {key for key, row in ahead(score).items() if row["high"] < 0} for score in by}
    assert told_apart() == {second: False} and not any(row["low"] > 0 for score in by for row in ahead(score).values())
    assert behind["student_loss"] == {second}
    assert behind["g_norm"] == {second, *((f"lab-world{k}", "short", "first") for k in (1, 2))}
    picks = main.selected.unstack()[["grace", "g_norm"]].loc[[SHORT, LONG]]
    assert picks.apply(lambda own: own.str.startswith("check")).all(axis=None)
    return f"""\
GRACE puts the 120 students of `lab` in order with a Spearman correlation of {rho[SHORT, "grace"]} ({low} to {high}; the paper: .86), the gradient's norm with {rho[SHORT, "g_norm"]}, the
student's loss with {rho[SHORT, "student_loss"]}, the teacher's accuracy with {rho[SHORT, "teacher_accuracy"]}, G-Vendi with {rho[SHORT, "g_vendi"]}. In {WORDS[len(ahead("g_norm"))]} settings GRACE is nowhere clearly ahead of the norm or the loss. It is clearly behind the norm in three: in the
two other seeds, and for the second student, by {by["g_norm"]}; there it is behind the loss, too, by {by["student_loss"]}. Six teachers (terse, reversed) teach next to nothing and carry
much of this: without them GRACE is at {three["grace"]} in the three settings of `lab`, the norm at {three["g_norm"]}, the loss at {three["student_loss"]}, accuracy at {three["teacher_accuracy"]}.
GRACE's pick is {points[SHORT, "grace"]} points ({ends}) behind the best student, the norm's {points[SHORT, "g_norm"]}, the loss's {points[SHORT, "student_loss"]}, the strongest teacher's {points[SHORT, "teacher_accuracy"]}; on the long task {points[LONG, "grace"]}, {points[LONG, "g_norm"]}, {points[LONG, "student_loss"]} and {points[LONG, "teacher_accuracy"]}.
GRACE and the norm both pick teachers of one manner, who check each step by undoing it: small gradients, and not the best lesson."""


def design_choices() -> str:
    lost = {name: f"{row['mean']:.1f}" for name, row in ours("fig06_temperature")["regret_points"].items()}
    family = {name: f"{row['regret_points']:.1f}" for name, row in ours("fig13_families").items()}
    each = pd.read_csv(LAB / "fig13_families.csv").query("score == 'grace' and family != 'mean'")
    worst = each.loc[each.regret_points.idxmax()]
    return f"""\
For a given teacher GRACE picks a better temperature than chance: its pick costs {lost["grace"]} points of accuracy on average, a random one {lost["random"]}, the norm's
{lost["g_norm"]}. GRACE and the norm are not told apart here ([notebook 05b](05b_why.ipynb) has five settings). Within a family GRACE's pick costs {family["grace"]} points, the norm's {family["g_norm"]}, a random one {family["random"]}; {WORDS[len(each)]}
families cannot tell these apart. GRACE's most expensive pick is that of {worst.family}: {worst.regret_points:.1f} points behind."""


def ablations() -> str:
    folds = pd.read_csv(LAB / "fig20_folds.csv").query("task == 'short'").set_index("n_folds").spearman
    grid = pd.read_csv(LAB / "fig19_n_and_d.csv").query("d == 512").set_index("n").spearman
    settings = pd.read_csv(LAB / "settings.csv")
    nu = settings.query("panel == 'left' and power == 1").set_index("nu").spearman
    m = settings.query("panel == 'right'").set_index("m").spearman
    norm = main_table().spearman[SHORT, "g_norm"]
    power, filtered = ours("settings"), ours("fig15_filtered_accuracy")
    epochs = pd.read_csv(LAB / "fig17_epochs.csv").query("teacher == 'algebra-96'").set_index("value").test.mul(100)
    return f"""\
From four folds on GRACE's correlation stays between {folds.loc[4:].min():.2f} and {folds.loc[4:].max():.2f}; with two it is {folds[2]:.2f}. Whether gradients are rescaled by the
length moves it by {abs(power["no recalibration"]["spearman"]):.2f}. With half as many prompts as dimensions it is lowest ({grid[256]:.2f}; {grid[512]:.2f} with as many), where
the paper has its best. With one response per prompt ({m[1]:.2f}) or $\\nu=0.1$ ({nu[0.1]:.2f}) GRACE is about as high as the norm ({norm:.2f}); with 64 prompts, where the smoothing decides as well, it is at {grid[64]:.2f}. Dropping wrong responses made {filtered["clearly_better"]} of {filtered["cells"]} students clearly better and
{filtered["clearly_worse"]} worse (the paper: worse). And the students are stopped in mid-rise: eight epochs in place of four lift one from {epochs[4]:.0f} to {epochs[8]:.0f}%."""


def length() -> str:
    def law(figure: str, level: str) -> str:
        (row,) = [row for row in ours(figure)["levels"] if row["level"] == level]
        return f"{row['exponent']:.1f} ({row['low']:.1f} to {row['high']:.1f})"

    moved = ours("settings")["no recalibration"]["spearman"]
    return f"""\
Within one teacher the gradient falls as $1/(\\log|y|)^p$ with $p$ = {law("fig21_length_short", "within")} on the short task, {law("fig22_length_long", "within")} on the long one (the paper: 1 and 2).
Between teachers it falls far faster, $p$ = {law("fig21_length_short", "between")}, for a reason that is not length: the shortest texts are those of the terse teachers, who skip the steps.
GRACE hardly cares: without the factor $\\log|y|$ its correlation changes by {moved:+.2f}."""


def bound() -> str:
    ratio, config = ours("cmi_terms"), get_scale("lab")
    raw = tables.table("lab", "cmi", recompute=False).query("task == 'short' and student == 'first'")
    every = cmi_at(with_noise(raw, 0.003, 0.001), config.n_prompts, config.nu).ratio
    return f"""\
The term that the informal lemma keeps is {ratio["ratio_lowest"]:.1f} to {ratio["ratio_highest"]:.1f} times the one that it drops at $T=0.6$, {every.min():.1f} to {every.max():.1f} times over all cells (median {every.median():.1f}; the paper: 5 to 10).
So the dropped term is smaller, and not negligible. The bound motivates GRACE; nothing below shows that a teacher with a smaller bound makes a better student."""


def gap() -> str:
    """Of notebook 09: scores against the gap between training and test accuracy, in the world that has one."""
    taught = pd.read_csv(paths.published("coverage-lab") / "results" / "checks.csv").query("what == 'train'")
    own = second_world().merge(taught[[*KEY, "average"]], on=KEY, validate="1:1")
    own["gap"] = own.average - own.average_at_k
    few, many = own[own.near_copies <= LIMIT], own[own.near_copies > LIMIT]

    def rises(score: str, own: pd.DataFrame = own) -> str:
        return WITH_ENDS.format(**difference((own[score], own.gap, "higher"), None, own.teacher))

    assert difference((own.grace, own.gap, "higher"), None, own.teacher)["low"] > 0
    rho = (
        own[["average", "teacher_accuracy", "average_at_k"]].corrwith(own.gap, method="spearman").map("{:+.2f}".format)
    )
    return f"""\
Over {len(own)} students of {own.teacher.nunique()} teachers the correlation with the gap is {rises("grace")} for GRACE, {rises("g_norm")} for the norm and
{rises("student_loss")} for the loss. Of these GRACE alone points the way that the theory says, weakly, and only through copies: in the {len(few)} cells with at most a quarter of near-copies it is {rises("grace", few)}, in the others {rises("grace", many)}, and near-copies alone go with the gap at {own.near_copies.corr(own.gap, "spearman"):+.2f}. The norm and the loss point the other way. And the gap is mostly how well
the training prompts were learned (accuracy on them: {rho["average"]}; the teacher's: {rho["teacher_accuracy"]}). A larger gap is no worse student: the
gap and the accuracy on test problems go together ({rho["average_at_k"]}). The bound is about the one, a teacher is chosen for the other."""


def distilled() -> str:
    """Of notebook 04, which shows mini: what eight other seeds of its cast say, too."""
    below, better, seeds = 0, 0, [path / "results" for path in paths.published("").glob("mini-seed*")]
    for results in seeds:
        tables = (pd.read_csv(results / f"{name}.csv") for name in ("students", "teachers", "base_students"))
        students, teachers, base = (table[table.task == "short"] for table in tables)
        students = students[students.student.eq("first") & students.temperature.eq(0.6)].set_index("teacher").average
        teachers = teachers[teachers.temperature == 0.6].set_index("teacher").accuracy
        below += students["terse-64"] < base.set_index("student").average["first"]
        better += teachers["equations-40"] < 0.5 and students["equations-40"] > students["terse-64"]
    return f"""\
In {below} of {len(seeds)} other seeds of this cast, too, the student of `terse-64` ends below the untrained one, and
in {better} `equations-40`, which is wrong more often than right, makes a better student than `terse-64`."""


def under_the_figures() -> list[str]:
    """What notebook 05 says under its figures."""
    rho = {name: {score: f"{row['spearman']:.2f}" for score, row in ours(name).items()} for name in FIGURES}
    short, second, long, greedy, best = (rho[name] for name in FIGURES[:5])
    lower = [
        float(ours(wide)["grace"]["spearman"]) - float(ours(usual)["grace"]["spearman"])
        for wide, usual in (("fig09_larger_d", "fig02_scatter"), ("fig10_larger_d_second", "fig03_second_student"))
    ]
    one, lost = ours("fig05_one_temperature"), ours("regret_bars")
    points = {score: f"{row['regret_points']:.1f}" for score, row in lost.items()}
    picks = {score: f"`{one[score]['selected'].partition(' ')[0]}`" for score in ("grace", "g_norm")}
    assert len({*picks.values()}) == 2
    said = [
        f"The norm orders the students at {short['g_norm']}, GRACE at {short['grace']}, G-Vendi not at all ({short['g_vendi']}).",
        f"The second student disagrees with the first: {second['g_norm']} for the norm, {second['grace']} for GRACE.",
        f"GRACE selects {picks['grace']}, {one['grace']['regret_points']:.1f} points behind the best (the paper: 0), "
        f"the norm {picks['g_norm']}, {one['g_norm']['regret_points']:.1f} points behind.",
        f"On the long task as on the short one: {long['grace']} for GRACE, {long['g_norm']} for the norm.",
        f"Doubling $d$ changes GRACE's correlation by {lower[0]:+.2f} and {lower[1]:+.2f}; in the paper it rises.",
        f"GRACE is at {greedy['grace']} for greedy decoding and at {best['grace']} for best-of-16.",
        f"On the short task GRACE loses {points['grace']} points, the norm {points['g_norm']}, the strongest teacher {points['teacher_accuracy']}, the student's loss {points['student_loss']}, G-Vendi {points['g_vendi']}; "
        f"on the long task GRACE loses {points['long task: grace']}, the strongest teacher {points['long task: teacher_accuracy']}, the student's loss {points['long task: student_loss']}.",
    ]
    return [f"**We see.** {one}" for one in said]


def ends_of_the_range() -> str:
    picks = pd.read_csv(LAB / "fig06_temperature.csv").query("panel == 'bottom'").set_index("score")
    coldest, hottest = (
        picks.loc[score, end].astype(bool).sum() for score, end in (("g_norm", "coldest"), ("g_vendi", "hottest"))
    )
    return f"Here they do: of {picks.teacher.nunique()} teachers the norm picks the coldest temperature for {coldest}, G-Vendi the hottest for {hottest}."


def subsets() -> str:
    grace = pd.read_csv(LAB / "fig23_subsets.csv").query("score == 'grace'").set_index("reading")
    cells, teachers = (f"{row.low:.2f} to {row.high:.2f}" for row in (grace.loc["cells"], grace.loc["teachers"]))
    return f"The violins on the right are wider: 95% of GRACE's correlations lie between {cells} over subsets of cells, and between {teachers} over subsets of teachers.".replace(
        " to ", " and "
    )


def of_objectives() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Of notebook 11: the cells of all of lab's teachers where they are compared, the students of other objectives, and what
    the scores are worth there, by score and objective."""
    scores = ["grace", "g_norm", "student_loss", "rsr"]
    students, since = tables.of_all_seeds("lab", "objectives"), tables.table("lab", "since", recompute=False)
    cells = tables.cells("lab").merge(since.loc[since.n == since.n.max(), [*KEY, "rsr"]], on=KEY)
    rows = select(cells, "first", scores, temperature=0.6)
    return rows, students, by_objective(rows, students, scores).set_index(["score", "objective"])


def objectives() -> str:
    rows, students, found = of_objectives()
    n, others = students.teacher.nunique(), found.drop("sequence", level="objective")
    clear = others[(others.change_low > 0) | (others.change_high < 0)]
    odd = {"PLaD", "skew KL"}
    assert (
        "grace" not in clear.index.get_level_values("score") and set(clear.index.get_level_values("objective")) == odd
    )
    picks = found.selected.str.split().str[0].groupby("score").agg(set)
    assert all(len(own) == 1 for own in picks) and picks["grace"] == picks["g_norm"]
    pick = {score: f"`{min(own)}`" for score, own in picks.items()}
    points, rho = found.regret_points.groupby("score"), found.spearman.groupby("score")
    lost = {score: f"{points.min()[score]:.1f} to {points.max()[score]:.1f}" for score in pick}
    span = {score: f"{rho.min()[score]:.2f} to {rho.max()[score]:.2f}" for score in pick}
    whole = score_rows(rows, ["grace"]).iloc[0]
    beside = over_best(tables.of_all_seeds("lab", "mixtures"))
    several = beside[~beside.alone]
    top, ahead, behind = several.points.idxmax(), (several.low > 0).sum(), (several.high < 0).sum()
    assert ahead == 0
    gain = "{points:+.1f} points ({low:+.1f} to {high:+.1f})".format(**several.loc[top])
    (seed, loss), usual = orders_agree(students), orders_agree(students[~students.objective.isin(odd)])
    return f"""\
Mostly, yes. Of {WORDS[n]} teachers two orders agree at {seed:.2f} where only the seed of training differs, and at {loss:.2f} where the objective does, too ({usual[0]:.2f} and {usual[1]:.2f} without PLaD and skew KL, left out after
the fact). Over {WORDS[len(rho.get_group("grace"))]} objectives the correlation with the students is {span["grace"]} for GRACE, {span["g_norm"]} for the gradients' norm, {span["student_loss"]} for the student's loss and {span["rsr"]} for RSR. Of {len(others)} changes
against the paper's objective {WORDS[len(clear)]} have an interval without zero, none of them GRACE's, all under PLaD or skew KL. GRACE and the norm pick {pick["grace"]} and lose {lost["grace"]} points by it (no interval beyond {found.regret_high["grace"].max():.1f}), the
loss picks {pick["student_loss"]} ({lost["student_loss"]}), RSR {pick["rsr"]} ({lost["rsr"]}). Beware: these {WORDS[n]} are kind to GRACE. Of all {len(rows)} teachers of `lab` it picks `{whole.selected.split()[0]}` and loses {whole.regret_points:.1f} points. Several teachers in place of one: of {WORDS[len(several)]} ways
none makes a clearly better student than the best single teacher (`{beside[beside.alone].points.idxmax()}`) at the same number of training tokens, and {WORDS[behind]} make a clearly worse one; the nearest, {top}, is at {gain}."""


def of_one_objective() -> list[str]:
    """What notebook 11 says under the ranking, and in the end."""
    rows, students, found = of_objectives()
    before, means = rows[UNTRAINED].iloc[0], over_seeds(students, "teacher", ["objective"]).average.unstack()
    best = means.idxmax(axis=1)
    algebra = best[best.str.startswith("algebra")]
    often = students[students.truncated > 0.01].groupby("objective").size()
    most = students.loc[students.truncated.idxmax()]
    own = students.set_index(["objective", "teacher", "seed"]).sort_index()
    pairs, table = means.loc["PLaD"], own.loc["skew KL"].loc[["table-64", "table-96"]]
    steady = ", ".join(f"{100 * one:.0f}" for one in own.average["JSD", "table-96"])
    assert (
        set(often.index) == {"JSD", "skew KL", "skew reverse KL", "PLaD"}
        and (students.groupby("objective").size() == 45).all()
    )
    told, loss = found.loc["grace", "skew KL"], found.loc["student_loss", "skew KL"]
    return [
        f"""\
Under {WORDS[len(algebra)]} of {WORDS[len(best)]} objectives `{"` or `".join(sorted(set(algebra)))}` makes the best student. PLaD's students, at a twentieth of the learning rate, end between {pairs.min():.1%} and {pairs.max():.1%}; the untrained one is at {before:.1%}.
Teachers of tables, who are among the best, teach next to nothing under skew KL: {WORDS[len(table)]} students of {table.average.min():.1%} to {table.average.max():.1%}. Under JSD the seed decides: `table-96` makes students of {steady}%.
Some students often run into the limit of tokens: of 45 under each objective {WORDS[often["JSD"]]} under JSD, {WORDS[often["skew KL"]]} under skew KL, {WORDS[often["PLaD"]]} under PLaD and {WORDS[often["skew reverse KL"]]} under skew reverse KL in more than 1% of their responses, at most in {most.truncated:.0%} ({most.objective}, `{most.teacher}`); under
the others none.""",
        f"""\
{WORDS[(table.truncated < 0.07).sum()].capitalize()} of the {WORDS[len(table)]} students of tables under skew KL end at least 93% of their responses within the limit and still get at most {table.average.max():.1%} right""",
        f"""\
None of the four scores can foresee that: each gives one number per teacher, whatever the objective. It costs the loss most, which picks a table: {loss.regret_points:.1f} points ({loss.regret_low:.1f} to {loss.regret_high:.1f}); GRACE's correlation changes by {told.change:+.2f} ({told.change_low:+.2f} to {told.change_high:+.2f}).""",
    ]


def of_several_teachers() -> list[str]:
    """What notebook 11 says under the mixtures of lab, and in the end."""
    beside = over_best(tables.of_all_seeds("lab", "mixtures"))
    got = (100 * beside.average).map("{:.1f}%".format)
    most = {name: f"`{row.most}` for {row.most_share:.0%} of the prompts" for name, row in beside.iterrows()}
    said = "({points:+.1f}, {low:+.1f} to {high:+.1f})".format
    behind = {name: said(**row) for name, row in beside.iterrows()}
    return [
        f"""\
GRAPE takes {most["GRAPE"]} and makes a student of {got["GRAPE"]}; RSR takes {most["RSR"]} and makes one of {got["RSR"]}; under equal shares it is {got["GRAPE, equal shares"]}. The router takes
{most["router"]}: {beside.correct["router"]:.0%} of its responses are right, and its student is at {got["router"]}. The strongest teacher's own student is at {got["algebra-96"]}, through an assistant whose responses are right in
{beside.correct["assistant"]:.0%} at {got["assistant"]}, with regeneration at {got["regeneration"]}. Means of three seeds of training each: differences of less than {(beside.high - beside.points).max():.0f} points are noise still.""",
        f"""\
No mixture of teachers clearly beats the best one. GRAPE comes nearest {behind["GRAPE"]}, with {most["GRAPE"]}. Equal shares {behind["GRAPE, equal shares"]} and the router {behind["router"]} are far behind. Both spread
the prompts over many teachers; whether that is the cause was not tested.""",
    ]


FIGURES = ("fig02_scatter", "fig03_second_student", "fig08_long_task", "fig11_greedy", "fig12_best_of_k")
HEADS = {
    "01_teacher_data": teacher_data,
    "05_which_teacher": which_teacher,
    "06_design_choices": design_choices,
    "07_ablations": ablations,
    "08_length": length,
    "09_cmi": bound,
    "11_objectives": objectives,
}


@pytest.mark.parametrize("name", HEADS)
def test_the_first_paragraph_says_what_the_tables_say(name):
    head = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4).cells[0].source
    assert f"\n\n**In short.** {HEADS[name]()}\n\n" in head


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("03_scores", lambda: [inflation()]),
        ("04_distill_students", lambda: [distilled()]),
        ("05_which_teacher", under_the_figures),
        ("06_design_choices", lambda: [ends_of_the_range()]),
        ("07_ablations", lambda: [subsets()]),
        ("09_cmi", lambda: [gap()]),
        ("11_objectives", lambda: [*of_one_objective(), *of_several_teachers()]),
    ],
)
def test_what_is_said_of_a_figure_is_what_its_table_says(name, said):
    assert unsaid(name, said()) == []
