"""The book: Sphinx and myst-nb put the committed notebooks and pages together (`make book`); nothing is executed."""

import html
import inspect
import json
from importlib import import_module
from pathlib import Path

import pandas as pd

from gracelib.jobs import paths
from gracelib.paper.figures import FIGURES

project, author = "gracelib", "the gracelib authors"
extensions = ["myst_nb"]
myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"
exclude_patterns = ["generated/claims_by_topic.md", "**.ipynb_checkpoints"]
html_theme, html_show_copyright = "furo", False
html_title = "gracelib: choose the teacher before you train the student"
suppress_warnings = ["myst.header"]  # a notebook's sections begin below its title

GENERATED = Path(__file__).parent / "generated"  # by git ignored
SCALES = ("lab", "mini")
MODULES = "scores baselines cmi intervals variants grid moments projection features.gradients evidence.ranks".split()


def gallery() -> None:
    """A page per figure: drawn from the lab's runs and from mini's, the paper's number beside ours."""
    for name, item in FIGURES.items():
        headline = item.title if item.paper_item.startswith("(") else f"{item.paper_item}: {item.title}"
        lines = [f"# {headline[0].upper()}{headline[1:]}", ""]
        for scale in SCALES:
            about = json.loads((paths.published(scale) / f"{name}.json").read_text(encoding="utf-8"))
            lines += [f"## At scale {scale}", ""]
            if item.picture:
                lines += [
                    f"```{{image}} ../../figures/published/{scale}/{name}.png",
                    f":alt: {about['alt']}",
                    "```",
                    "",
                ]
            lines += [about["caption"], "", f"Draw it again: `make figures SCALE={scale} FIG={name}`", ""]
            table = pd.read_csv(paths.published(scale) / f"{name}.csv")
            lines += [as_html(table), ""]
        lines += [f"Drawn by `gracelib.{item.drawn_by}` in [{item.notebook}](../{item.notebook}.ipynb)."]
        write(f"{name}.md", lines)
    write("index.md", ["# Gallery", "", "```{toctree}", ":maxdepth: 1", "", *FIGURES, "```"])


def as_html(table: pd.DataFrame) -> str:
    rounded = table.map(
        lambda x: f"{x:.4g}" if isinstance(x, float) and x == x else "" if x != x else html.escape(str(x))
    )
    shown = rounded.to_html(index=False, escape=False, border=0, classes="numbers")
    return (
        f"<details><summary>{len(table)} rows of numbers</summary><div style='overflow-x: auto'>{shown}</div></details>"
    )


#: The claims by topic: the first of each, in the order of `claims.statements`.
TOPICS = {
    "grace_first": "Does GRACE order the students?",
    "strongest": "What does a pick cost?",
    "within_teacher": "Which temperature?",
    "folds": "Settings, and filtered responses",
    "bias": "Parts of the score, the bound, other accuracies, other casts",
}


def claims() -> None:
    """The claims of the lab by topic, each with its verdicts, and in how many ways they came out."""
    table = pd.read_csv(paths.published("lab") / "claims.csv", keep_default_na=False)
    counts = pd.DataFrame({what: table[what].value_counts() for what in ("direction", "size")}).drop(
        "", errors="ignore"
    )
    lines = ["| verdict | direction | size |", "|---|---|---|"]
    lines += [f"| {verdict} | {row.direction:.0f} | {row['size']:.0f} |" for verdict, row in counts.iterrows()]
    for row in table.to_dict("records"):
        if row["name"] in TOPICS:
            lines += ["", f"## {TOPICS[row['name']]}", ""]
        verdict = f"*{row['direction']}* ({row['rule']})"
        if row["size"]:
            verdict = f"in direction *{row['direction']}* ({row['sign']}), in size *{row['size']}* ({row['rule']})"
        worlds = f" Over all worlds: {row['all worlds']}." if row["all worlds"] else ""
        why = f" {row['why'][0].upper()}{row['why'][1:]}." if row["why"] else ""
        said = f"**{row['claim']}** ({row['paper']}): {verdict}. Here: {row['this world']}.{worlds}"
        lines += [f"* {said}{why}"]
    write("claims_by_topic.md", lines)


def reference() -> None:
    """The docstrings as they stand: they are plain text, with |y| and X_i, which markup would take for its own."""
    lines = ["# Reference", ""]
    for name in MODULES:
        module = import_module(f"gracelib.{name}")
        lines += [f"## gracelib.{name}", "", "```text", inspect.getdoc(module), "```", ""]
        for word, thing in vars(module).items():
            own = getattr(thing, "__module__", "") == module.__name__ and not word.startswith("_")
            if own and inspect.getdoc(thing):
                call = "" if isinstance(thing, type) and issubclass(thing, Exception) else inspect.signature(thing)
                about = f"{word}{call}\n\n{inspect.getdoc(thing)}"
                lines += [f"### {word}", "", "```text", about, "```", ""]
    write("reference.md", lines)


def write(name: str, lines: list[str]) -> None:
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


#: What a page needs for somebody who hears it or has no mouse: levels of the contents' headings, code that can be scrolled by
#: keys, and folded cells that are called what is written on them.
ALOUD = {
    'role="heading"': 'role="heading" aria-level="2"',
    "<pre>": '<pre tabindex="0">',
    ' aria-label="Toggle hidden content"': "",
}


def setup(app) -> None:
    def mend(app, page, template, context, doctree) -> None:
        for part in {"furo_navigation_tree", "body"} & set(context):
            for old, new in ALOUD.items():
                context[part] = context[part].replace(old, new)

    app.connect("html-page-context", mend, priority=900)


gallery()
claims()
reference()
