"""The book: Sphinx and myst-nb put the committed notebooks and pages together (`make book`); nothing is executed."""

import html
import inspect
import json
import re
from importlib import import_module
from pathlib import Path

import pandas as pd
from docutils import nodes
from latex2mathml.converter import convert

from gracelib.jobs import paths
from gracelib.paper.figures import FIGURES

project, author = "gracelib", "the gracelib authors"
extensions = ["myst_nb"]
myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"
exclude_patterns = ["generated/claims_by_topic.md", "**.ipynb_checkpoints"]
html_theme, html_show_copyright = "furo", False
html_static_path, html_css_files = ["_static", "generated/pictures"], ["book.css"]
html_math_renderer = "mathml"  # browsers show it by themselves, and with a network MathJax shows it better
MATHJAX = "https://cdn.jsdelivr.net/npm/mathjax@4/mml-chtml.js"
html_title = "gracelib: choose the teacher before you train the student"
suppress_warnings = ["myst.header"]  # a notebook's sections begin below its title

GENERATED = Path(__file__).parent / "generated"  # by git ignored
SCALES = ("lab", "mini")
MODULES = "scores baselines cmi intervals variants grid moments projection features.gradients evidence.ranks".split()


def gallery() -> None:
    """A page per figure: drawn from the lab's runs and from mini's, the paper's number beside ours. And one with all of them."""
    index = [
        "# Gallery",
        "",
        "Every figure of the paper, drawn from the runs of `lab`. Choose one for the numbers, `mini` and the command.",
        "",
    ]
    index += ["````{container} thumbs"]
    for name, item in FIGURES.items():
        headline = item.title if item.paper_item.startswith("(") else f"{item.paper_item}: {item.title}"
        lines = [f"# {headline[0].upper()}{headline[1:]}", ""]
        for scale in SCALES:
            about = json.loads((paths.published(scale) / f"{name}.json").read_text(encoding="utf-8"))
            picture = f"../../figures/published/{scale}/{name}.png"
            lines += [f"## At scale {scale}", ""]
            if with_examples(scale, name, "long" if "Scale " + scale + ", long" in about["caption"] else "short"):
                said = html.escape(about["alt"], quote=True)
                data = f"../_static/{scale}-{name}.svg"
                lines += [
                    f'<object class="picture" type="image/svg+xml" data="{data}" aria-label="{said}"></object>',
                    "",
                ]
                lines += [
                    "*Rest the pointer on a mark: it says which teacher, at which temperature, and how it writes.*",
                    "",
                ]
            elif item.picture and about["alt"].startswith("No picture"):
                lines += ["*Not drawn: so few students show no order.*", ""]
            elif item.picture:
                lines += [f"```{{image}} {picture}", f":alt: {about['alt']}", "```", ""]
            lines += [about["caption"], "", f"Draw it again: `make figures SCALE={scale} FIG={name}`", ""]
            table = pd.read_csv(paths.published(scale) / f"{name}.csv")
            lines += [as_html(table), ""]
        lines += [f"Drawn by `gracelib.{item.drawn_by}` in [{item.notebook}](../{item.notebook}.ipynb)."]
        write(f"{name}.md", lines)
        if item.picture:
            index += [
                f"```{{figure}} {picture.replace('mini', 'lab')}",
                f":target: {name}.html",
                f":alt: {headline}",
                "",
                headline,
                "```",
            ]
    write("index.md", [*index, "````", "", "```{toctree}", ":hidden:", ":maxdepth: 1", "", *FIGURES, "```"])


def with_examples(scale: str, name: str, task: str) -> bool:
    """Copy a picture whose marks have names, with a response of the teacher beside each; False where none has."""
    picture = paths.published(scale) / f"{name}.svg"
    svg = picture.read_text(encoding="utf-8") if picture.is_file() else ""
    examples = pd.read_csv(paths.tables(scale) / "examples.csv").query("task == @task")
    cold = {row.teacher: row for row in examples.sort_values("temperature", ascending=False).itertuples()}

    def more(found: re.Match) -> str:
        row = cold[found[2]]
        return f"{found[1]}&#10;at T = {row.temperature:g} it writes: {html.escape(row.response)}</title>"

    named, count = re.subn(r"(<g><title>([^,<]+), T = [^<]*)</title>", more, svg)
    if count:
        write(f"pictures/{scale}-{name}.svg", [named])
    return count > 0


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
    """The claims of the lab by topic: two verdicts as chips and a sentence, the evidence folded; and how many came out how."""
    table = pd.read_csv(paths.published("lab") / "claims.csv", keep_default_na=False)
    counts = pd.DataFrame({what: table[what].value_counts() for what in ("direction", "size")}).drop(
        "", errors="ignore"
    )
    lines = ["| verdict | direction | size |", "|---|---|---|"]
    lines += [f"| {verdict} | {row.direction:.0f} | {row['size']:.0f} |" for verdict, row in counts.iterrows()]
    choices = "".join(
        f'<label><input type="radio" name="only" id="only-{slug(verdict)}"{" checked" * (verdict == "all")}> {verdict}</label>'
        for verdict in ("all", *counts.index)
    )
    lines += ["", f'<fieldset class="filter"><legend>Show, by direction</legend>{choices}</fieldset>', ""]
    for row in table.to_dict("records"):
        if row["name"] in TOPICS:
            lines += ["", f"## {TOPICS[row['name']]}", ""]
        lines += [as_claim({key: html.escape(str(value)) for key, value in row.items()}), ""]
    write("claims_by_topic.md", lines)


def as_claim(row: dict[str, str]) -> str:
    size = chip(f"size: {row['size']}", row["size"]) if row["size"] else ""
    evidence = {
        "Size": row["size"] and f"{row['size']} ({row['rule']})",
        "Direction": f"{row['direction']} ({row['sign'] or row['rule']})",
        "Over all worlds": row["all worlds"],
        "What it needs": row["ingredient"],
        "Why": row["why"],
    }
    folded = "".join(f"<li><em>{what}</em>: {said}.</li>" for what, said in evidence.items() if said)
    return (
        f'<div class="claim {slug(row["direction"])}"><p>{chip(row["direction"], row["direction"])} {size} <strong>{row["claim"]}</strong> '
        f"({row['paper']}).</p><p>Here: {row['this world']}.</p><details><summary>Evidence</summary><ul>{folded}</ul></details></div>"
    )


def chip(said: str, verdict: str) -> str:
    return f'<span class="chip {slug(verdict)}">{said}</span>'


def slug(verdict: str) -> str:
    return verdict.replace(" ", "-")


def dials() -> None:
    """The published numbers that the page of dials shows, put into its page."""
    grid, folds = (pd.read_csv(paths.published("lab") / f"{name}.csv") for name in ("fig19_n_and_d", "fig20_folds"))
    shown = ["n", "m", "d", "n_folds", "spearman", "low", "high", "nu_decides"]
    known = {"n": sorted(set(grid.n)), "d": sorted(set(grid.d))}
    known |= {"grid": grid[shown].to_dict("records"), "folds": folds.query("task == 'short'")[shown].to_dict("records")}
    page = (Path(__file__).parent / "_static" / "dials.html").read_text(encoding="utf-8")
    write("dials.html", [page.replace("DATA", json.dumps(known))])


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
    (GENERATED / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


#: What a page needs for somebody who hears it or has no mouse: levels of the contents' headings, code that can be scrolled by
#: keys, and folded cells that are called what is written on them.
ALOUD = {
    'role="heading"': 'role="heading" aria-level="2"',
    "<pre>": '<pre tabindex="0">',
    "<img ": '<img loading="lazy" ',
    ' aria-label="Toggle hidden content"': "",
}


def formula(page, node) -> None:
    block = isinstance(node, nodes.math_block)
    tex = node.astext().replace("'", r"^{\prime}")
    page.body.append(convert(tex, display="block" if block else "inline"))
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))

    def mend(app, page, template, context, doctree) -> None:
        for part in {"furo_navigation_tree", "body"} & set(context):
            for old, new in ALOUD.items():
                context[part] = context[part].replace(old, new)
        if "<math" in context.get("body", ""):
            app.add_js_file(MATHJAX, defer="defer")
        if "body" in context:  # a picture of a notebook is called by its file
            said = 'alt="The picture that this cell draws; the text around it says what it shows"'
            context["body"] = re.sub(r'alt="(?:\.\./)*_images/[^"]*"', said, context["body"])

    app.connect("html-page-context", mend, priority=900)


(GENERATED / "pictures").mkdir(parents=True, exist_ok=True)
gallery()
claims()
dials()
reference()
