"""One page with every figure of a scale, to look through them all or to send to somebody.

Why one file: a page that needs its folder breaks when it is mailed. So pictures are inlined, nothing is fetched (the
page forbids it to itself), there is no script, and only the links to notebooks and files leave it. What is written in a
caption or a table is text, never markup. The page is made from the sidecars, so it says what the figures say: our
numbers and the paper's stand side by side, each under its own heading, and a figure that is missing or was drawn from
other tables than those beside it is marked.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from gracelib.baselines import SCORES
from gracelib.drawing.saving import check_sidecars
from gracelib.jobs import paths
from gracelib.jobs.store import write_atomically
from gracelib.paper.items import FIGURES, Item
from gracelib.scale import Scale

NAMES = {"spearman_abs": "|Spearman|", "spearman": "Spearman", "regret_points": "regret, points"}
#: The numbers that carry the argument stand first, an interval behind what it is of.
FIRST = ("value", "spearman", "low", "high", "regret_points", "regret_low", "regret_high")
OPEN_ROWS = 8  #: longer tables of numbers start folded
LONG = 30  #: characters; longer cells are wrapped

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #ffffff; --text: #1c1c1c; --soft: #595959; --line: #d5d5d5; --card: #f6f6f4;
  --link: #0b57a4; --paper: #fbf1dc; --warn: #a02b00; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --text: #e6e6e6; --soft: #a8a8a8; --line: #3d4045;
  --card: #202327; --link: #8ab8f0; --paper: #3a3222; --warn: #ffab85; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; line-height: 1.3; margin: 0 0 .3rem; }
h3 { font-size: .9rem; margin: .8rem 0 .3rem; }
a { color: var(--link); }
nav ol { columns: 20rem; column-gap: 3rem; padding-left: 1.6rem; margin: 0 0 1.5rem; }
nav li { break-inside: avoid; }
section { border-top: 1px solid var(--line); padding: 1.5rem 0; }
.item, .meta { color: var(--soft); } .item { font-weight: normal; } .meta { margin: 0 0 .8rem; font-size: .9rem; }
.badge { border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .6rem; background: var(--card);
  color: var(--text); }
figure { margin: 0; } figcaption { margin-top: .6rem; }
.scroll { overflow-x: auto; max-width: 100%; } .scroll:focus-visible { outline: 2px solid var(--link); }
.picture { background: #ffffff; border: 1px solid var(--line); border-radius: 4px; padding: .3rem; }
img { display: block; margin: 0 auto; max-width: none; height: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .6rem .2rem 0; text-align: left; vertical-align: top;
  white-space: nowrap; }
.long { white-space: normal; min-width: 14rem; } th[scope=row] { font-weight: normal; }
.paper { background: var(--paper); padding-left: .4rem; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; } .beside > div { max-width: 100%; }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.warning { color: var(--warn); font-weight: bold; }
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p><span class="badge">$badge</span></p>
<p>Every figure and table of the paper as drawn here. A wide picture scrolls sideways on a narrow screen. The paper's
own numbers, on a tinted ground, are of other models and other data; all else was measured here.$missing</p>
</header>
<nav aria-label="Contents">
<ol>
$contents
</ol>
</nav>
<main>
$sections
</main>
</body>
</html>
""")
SECTION = Template("""<section id="$name" aria-labelledby="$name-title">
<h2 id="$name-title"><span class="item">$item</span> $title</h2>
<p class="meta"><span class="badge">scale $scale</span> $links</p>
$body
</section>""")
FIGURE = Template("""<figure>
$shown
<figcaption>$caption</figcaption>
</figure>
<details><summary>The picture in words</summary><p>$alt</p></details>""")
TABLE = Template("""<figure>
$shown
<figcaption>$caption</figcaption>
</figure>""")
SCROLL = Template('<div class="scroll$more" tabindex="0" role="region" aria-label="$label">$content</div>')


def write(config: Scale, out: Path | None = None) -> Path:
    """Write the page of a scale (`scales.get_scale`) to `out` (build/gallery-<scale>.html, git-ignored); the path.

    Figures that are not drawn yet are listed on the page and on stderr. FileNotFoundError where no figure of it is drawn.
    """
    scale, problems = config.name, check_sidecars(config.name)
    out = Path(out or paths.ROOT / "build" / f"gallery-{scale}.html")
    sidecars = {name: _sidecar(scale, name) for name in FIGURES}
    missing = [name for name, sidecar in sidecars.items() if sidecar is None]
    if len(missing) == len(FIGURES):
        raise FileNotFoundError(
            f"no figure of scale {scale!r} is drawn ({paths.figures(scale)}): run `make figures SCALE={scale}` first"
        )
    said = f"{len(missing)} of {len(FIGURES)} {{}} not drawn at {{}}scale"
    if missing:
        print(f"{said.format('figures are', '')} {scale}: {', '.join(missing)}", file=sys.stderr)
    sections = []
    for name, sidecar in sidecars.items():
        wrong = [line for line in problems if line.startswith(f"{name}: ")]
        sections.append(_section(scale, name, sidecar, wrong, out.resolve().parent))
    badge = (
        f"scale {scale}: {len(config.teachers)} teachers, {len(config.students)} students, "
        f"tasks {', '.join(task.name for task in config.tasks)}, seed {config.seed}"
    )
    contents = [f'<li><a href="#{name}">{escape(_headline(item))}</a></li>' for name, item in FIGURES.items()]
    text = PAGE.substitute(
        title=escape(f"GRACE: the figures at scale {scale}"),
        badge=escape(badge),
        missing=f" {said.format('are', 'this ')}." if missing else "",
        contents="\n".join(contents),
        sections="\n".join(sections),
    )
    write_atomically(out, lambda part: part.write_text(text, encoding="utf-8"))
    return out


def _sidecar(scale: str, name: str) -> dict | None:
    """What is known of a figure; None where it, or a file that the page shows, is not there."""
    folder = paths.figures(scale)
    try:
        sidecar = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        shown = folder / f"{name}{'.svg' if FIGURES[name].picture else '.csv'}"
        return sidecar if shown.is_file() and {"caption", "alt", "ours", "paper"} <= set(sidecar) else None
    except (OSError, ValueError, TypeError):
        return None  # the section says so, with what `check_sidecars` found


def _headline(item: Item) -> str:
    return item.title if item.paper_item.startswith("(") else f"{item.paper_item}: {item.title}"


def _section(scale: str, name: str, sidecar: dict | None, wrong: list[str], base: Path) -> str:
    item, source = FIGURES[name], paths.figures(scale) / name
    body = [f'<p class="warning">{escape(line)}</p>' for line in wrong]
    if sidecar is None:
        body.insert(0, '<p class="warning">Not drawn at this scale.</p>')
    else:
        shown = _picture(source, item, sidecar) if item.picture else _table_file(source, item)
        said = {key: escape(sidecar[key] or "") for key in ("caption", "alt")}
        body.append((FIGURE if item.picture else TABLE).substitute(shown=shown, **said))
        body.append(_numbers(scale, item, sidecar))
    shown = "" if item.paper_item.startswith("(") else item.paper_item
    return SECTION.substitute(
        name=escape(name),
        item=escape(shown),
        title=escape(item.title),
        scale=escape(scale),
        links=_links(source, item, base),
        body="\n".join(body),
    )


def _links(source: Path, item: Item, base: Path) -> str:
    """Notebook and files, relative to where the page lies; what is not there is named without a link."""

    def link(path: Path, text: str) -> str:
        if not path.is_file():
            return escape(text)
        return f'<a href="{escape(quote(Path(os.path.relpath(path.resolve(), base)).as_posix()))}">{escape(text)}</a>'

    files = [link(source.with_name(f"{source.name}{ending}"), ending[1:]) for ending in (*item.endings, ".json")]
    notebook = link(paths.NOTEBOOKS / f"{item.notebook}.ipynb", f"{item.notebook}.ipynb")
    return f"drawn in notebook {notebook} by <code>gracelib.{escape(item.drawn_by)}</code> · {', '.join(files)}"


def _picture(source: Path, item: Item, sidecar: dict) -> str:
    data = base64.b64encode(source.with_suffix(".svg").read_bytes()).decode("ascii")
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(sidecar["alt"] or "")}">'
    return SCROLL.substitute(more=" picture", label=escape(f"Picture: {_headline(item)}"), content=image)


def _table_file(source: Path, item: Item) -> str:
    with open(source.with_suffix(".csv"), encoding="utf-8", newline="") as f:
        head, *rows = csv.reader(f)
    return _table([name.replace("_", " ") for name in head], [list(map(_rounded, row)) for row in rows], item.title)


def _table(head: list[str], rows: list[list[str]], label: str, paper: bool = False) -> str:
    """A table that scrolls sideways; columns named after the paper (or all) on a tinted ground."""

    def cell(tag: str, text: str, column: str) -> str:
        kinds = ["paper"] * (paper or column.startswith("paper")) + ["long"] * (len(text) > LONG)
        marked = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{marked}>{escape(text)}</{tag.split()[0]}>"

    tags = ['th scope="row"', *["td"] * (len(head) - 1)]
    top = "".join(cell('th scope="col"', name, name) for name in head)
    lines = ["".join(map(cell, tags, row, head)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    content = f"<table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return SCROLL.substitute(more="", label=escape(f"Table: {label}"), content=content)


def _rounded(text: str) -> str:
    """A number of a CSV at four digits; anything else as it is."""
    try:
        return text if text.lstrip("-").isdecimal() else f"{float(text):.4g}"
    except ValueError:
        return text


def _numbers(scale: str, item: Item, sidecar: dict) -> str:
    """Our numbers and the paper's, each in a table of its own: which stands for which is said, not suggested."""
    blocks, n_rows = [], 0
    for key, title in (("ours", f"Measured here, scale {scale}"), ("paper", "Reported by the paper")):
        records = list(_records(sidecar[key] or {}))
        columns = list(dict.fromkeys(column for _, record in records for column in record))
        columns.sort(key=lambda column: FIRST.index(column) if column in FIRST else len(FIRST))
        rows = [[path, *(_text(record[c]) if c in record else "" for c in columns)] for path, record in records]
        if rows:
            table = _table(["", *map(_name, columns)], rows, f"{key}, {item.title}", key == "paper")
            blocks.append(f"<div><h3>{escape(title)}</h3>{table}</div>")
            n_rows += len(rows)
    what = " and the paper's" if sidecar["paper"] else "; the paper prints none for this"
    return (
        f"<details{' open' * (n_rows <= OPEN_ROWS)}><summary>Numbers: ours{what}</summary>\n"
        f'<div class="beside">{"".join(blocks)}</div></details>'
    )


def _records(value: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    """("regret, points: G-Norm", {"value": ...}) for each innermost record of nested ones."""
    own = {key: inner for key, inner in value.items() if not isinstance(inner, dict)}
    if own and path:
        yield ": ".join(map(_name, path)), own
    elif own:  # single numbers: one a row
        yield from ((_name(key), {"value": inner}) for key, inner in own.items())
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _records(inner, (*path, key))


def _name(key: str) -> str:
    return SCORES[key].label if key in SCORES else NAMES.get(key, key.replace("_", " "))


def _text(value) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if value is None:
        return "undefined"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
