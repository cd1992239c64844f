"""The README is short, its findings are computed from the published tables, and its links lead somewhere."""

import json
import re

import nbformat
import pandas as pd
import pytest

from gracelib.claims.rules import FAILS, HOLDS, LACKS, OPEN
from gracelib.evidence.reasons import between_and_within, with_parts
from gracelib.experiment.reference import over_seeds
from gracelib.jobs import paths
from lab_for_tests import LONG, SECOND, SHORT, WORDS, main_table, picks_better, settings

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [paths.ROOT / "README.md", *sorted(paths.NOTEBOOKS.glob("*.md"))]


def findings() -> str:
    """What the lab's tables say, as the README says it."""
    main, without = main_table(), main_table("without terse and reversed").spearman[SHORT]
    rho, points = main.spearman.map("{:.2f}".format), main.regret_points.map("{:.1f}".format)
    low, high = (f"{main[end][SHORT, 'grace']:.2f}" for end in ("low", "high"))
    sidecar = json.loads((paths.published("lab") / "fig06_temperature.json").read_text(encoding="utf-8"))
    lost = {name: f"{row['mean']:.1f}" for name, row in sidecar["ours"]["regret_points"].items()}
    table = pd.read_csv(paths.published("lab") / "claims.csv")
    n, m = ([(table[what] == v).sum() for v in (HOLDS, FAILS, OPEN, LACKS)] for what in ("direction", "size"))
    split = pd.concat(between_and_within(with_parts(own)) for own in settings().values()).query("part == 'inflation'")
    spans = split.groupby("level").spearman.agg(["min", "max"])
    assert spans["max"]["between"] < 0 < spans["min"]["within"]
    between, within = (f"{spans['min'][level]:+.2f} to {spans['max'][level]:+.2f}" for level in ("between", "within"))
    seeds = over_seeds("mini").set_index("score")
    ends = {
        score: " to ".join(f"{seeds[f'spearman {end}'][score]:.2f}" for end in ("least", "most"))
        for score in ("grace", "g_norm", "student_loss")
    }
    return f"""\
* GRACE orders the 120 students (15 teachers, 8 temperatures) with a Spearman correlation of {rho[SHORT, "grace"]} ({low} to {high}; the
  paper: .86). The norm alone does as well ({rho[SHORT, "g_norm"]}; better on a second
  student, {rho[SECOND, "g_norm"]} to {rho[SECOND, "grace"]}, and a longer task, {rho[LONG, "g_norm"]} to {rho[LONG, "grace"]}), so does the student's loss on the text ({rho[SHORT, "student_loss"]}); G-Vendi does not
  ({rho[SHORT, "g_vendi"]}). The teacher's accuracy is at {rho[SHORT, "teacher_accuracy"]}, but far ahead without four teachers (terse, reversed) who teach
  next to nothing: {without["teacher_accuracy"]:.2f}, the loss {without["student_loss"]:.2f}, the norm {without["g_norm"]:.2f}, GRACE {without["grace"]:.2f}.
* For a given teacher it picks a better temperature than chance: {lost["grace"]} points lost against {lost["random"]} (the norm: {lost["g_norm"]}), but over {WORDS[len(settings())]} settings
  the norm picks better in {WORDS[picks_better("g_norm")]}, the loss in {WORDS[picks_better("student_loss")]}.
* Its pick among all is {points[SHORT, "grace"]} points behind the best student, the loss's {points[SHORT, "student_loss"]}, the strongest teacher's {points[SHORT, "teacher_accuracy"]}; on the long task {points[LONG, "grace"]}, {points[LONG, "student_loss"]} and {points[LONG, "teacher_accuracy"]}.
* Why: GRACE is the norm times an *inflation*, which orders teachers the wrong way in all {WORDS[len(settings())]} settings ({between}) and
  temperatures the right way ({within}). It cannot see whether the text is right (notebook 05b).
* Of {sum(m)} statements of the paper with a size {m[0]} hold here, {m[1]} do not, {m[2]} have too few data. By weaker rules for direction, written after the
  numbers were seen, {n[0]} of {sum(n)} hold and {n[1]} do not.
* `mini` says less: over eight seeds GRACE lies at {ends["grace"]}, the norm at {ends["g_norm"]}, the loss at {ends["student_loss"]}.
"""


def test_the_findings_are_what_the_published_tables_say():
    begin, end = "<!-- findings:begin -->\n", "<!-- findings:end -->"
    assert README.split(begin)[1].split(end)[0] == findings()


def test_the_ranking_shown_is_the_one_of_notebook_20():
    book = nbformat.read(paths.NOTEBOOKS / "20_score_your_own.ipynb", as_version=4)
    said = "".join(o.text for cell in book.cells for o in cell.get("outputs", ()) if o.output_type == "stream")
    shown = re.search(r"it says:\n\n```\n(.+?)\n```", README, re.DOTALL)[1].split("\n")
    assert len(shown) == 5 and [line for line in shown if line != " ..." and line not in said] == []


def test_it_takes_minutes_to_read():
    assert len(README.encode()) <= 8000


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_within_the_project_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
