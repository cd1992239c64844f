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
from collections.abc import Iterable, Iterator
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

QUANTITIES = {"spearman_abs": "|Spearman|", "spearman": "Spearman", "regret_points": "regret, points"}
#: Ends of intervals, shown in the column of what they belong to.
INTERVALS = {"spearman": ("low", "high"), "regret_points": ("regret_low", "regret_high")}
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
SCROLL = Template('<div class="scroll$more" tabindex="0" role="region" aria-label="$label">$content</div>')


def write(config: Scale, out: Path | None = None) -> Path:
    """Write the page of a scale (`scales.get_scale`) to `out` (build/gallery-<scale>.html, git-ignored); the path.

    Figures that are not drawn yet are listed on the page and on stderr. FileNotFoundError where no figure of it is drawn.
    """
    scale = config.name
    out = Path(out or paths.ROOT / "build" / f"gallery-{scale}.html")
    text, missing = page(config, out.resolve().parent)
    if len(missing) == len(FIGURES):
        raise FileNotFoundError(
            f"no figure of scale {scale!r} is drawn ({paths.figures(scale)}): run `make figures SCALE={scale}` first"
        )
    if missing:
        print(
            f"{len(missing)} of {len(FIGURES)} figures are not drawn at scale {scale}: {', '.join(missing)}",
            file=sys.stderr,
        )
    write_atomically(out, lambda part: part.write_text(text, encoding="utf-8"))
    return out


def page(config: Scale, base: Path) -> tuple[str, list[str]]:
    """The page as HTML, its links relative to the folder `base`; and the figures that are missing on it."""
    scale = config.name
    problems, missing, sections = check_sidecars(scale), [], []
    for name, item in FIGURES.items():
        sidecar = _sidecar(scale, name)
        if sidecar is None:
            missing.append(name)
        wrong = [line for line in problems if line.startswith(f"{name}: ")]
        sections.append(_section(scale, name, item, sidecar, wrong, base))
    badge = (
        f"scale {scale}: {len(config.teachers)} teachers, {len(config.students)} students, "
        f"tasks {', '.join(task.name for task in config.tasks)}, seed {config.seed}"
    )
    contents = "\n".join(f'<li><a href="#{name}">{escape(_headline(item))}</a></li>' for name, item in FIGURES.items())
    note = f" {len(missing)} of {len(FIGURES)} are not drawn at this scale." if missing else ""
    return PAGE.substitute(
        title=escape(f"GRACE: the figures at scale {scale}"),
        badge=escape(badge),
        missing=note,
        contents=contents,
        sections="\n".join(sections),
    ), missing


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


def _section(scale: str, name: str, item: Item, sidecar: dict | None, wrong: list[str], base: Path) -> str:
    body = [f'<p class="warning">{escape(line)}</p>' for line in wrong]
    if sidecar is None:
        body.insert(0, '<p class="warning">Not drawn at this scale.</p>')
    else:
        source = paths.figures(scale) / name
        body.append(_picture(source, item, sidecar) if item.picture else _table_file(source, item, sidecar))
        body.append(_numbers(scale, item, sidecar))
    shown = "" if item.paper_item.startswith("(") else item.paper_item
    return SECTION.substitute(
        name=escape(name),
        item=escape(shown),
        title=escape(item.title),
        scale=escape(scale),
        links=_links(scale, name, item, base),
        body="\n".join(part for part in body if part),
    )


def _links(scale: str, name: str, item: Item, base: Path) -> str:
    """Notebook and files, relative to where the page lies; what is not there is named without a link."""

    def link(path: Path, text: str) -> str:
        if not path.is_file():
            return escape(text)
        return f'<a href="{escape(quote(Path(os.path.relpath(path.resolve(), base)).as_posix()))}">{escape(text)}</a>'

    files = [link(paths.figures(scale) / f"{name}{ending}", ending[1:]) for ending in (*item.endings, ".json")]
    notebook = link(paths.NOTEBOOKS / f"{item.notebook}.ipynb", f"{item.notebook}.ipynb")
    return f"drawn in notebook {notebook} by <code>gracelib.{escape(item.drawn_by)}</code> · {', '.join(files)}"


def _picture(source: Path, item: Item, sidecar: dict) -> str:
    data = base64.b64encode(source.with_suffix(".svg").read_bytes()).decode("ascii")
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(sidecar["alt"] or "")}">'
    shown = SCROLL.substitute(more=" picture", label=escape(f"Picture: {_headline(item)}"), content=image)
    return (
        f"<figure>\n{shown}\n<figcaption>{escape(sidecar['caption'])}</figcaption>\n</figure>\n"
        f"<details><summary>The picture in words</summary><p>{escape(sidecar['alt'] or '')}</p></details>"
    )


def _table_file(source: Path, item: Item, sidecar: dict) -> str:
    with open(source.with_suffix(".csv"), encoding="utf-8", newline="") as f:
        head, *rows = csv.reader(f)
    head, rows = [name.replace("_", " ") for name in head], [[_rounded(cell) for cell in row] for row in rows]
    shown = _table(head, rows, item.title)
    return f"<figure>\n{shown}\n<figcaption>{escape(sidecar['caption'])}</figcaption>\n</figure>"


def _table(head: list[str], rows: list[list[str]], label: str, paper: bool = False) -> str:
    """A table that scrolls sideways; columns named after the paper (or all) on a tinted ground."""

    def cell(tag: str, text: str, column: str) -> str:
        kinds = ["paper"] * (paper or column.startswith("paper")) + ["long"] * (len(text) > LONG)
        marked = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{marked}>{escape(text)}</{tag.split()[0]}>"

    tags = ['th scope="row"', *["td"] * (len(head) - 1)]
    top = "".join(cell('th scope="col"', name, name) for name in head)
    lines = ["".join(cell(*one) for one in zip(tags, row, head, strict=True)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return SCROLL.substitute(
        more="",
        label=escape(f"Table: {label}"),
        content=f"<table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>",
    )


def _rounded(text: str) -> str:
    """A number of a CSV at four digits; anything else as it is."""
    try:
        return text if text.lstrip("-").isdecimal() else f"{float(text):.4g}"
    except ValueError:
        return text


def _numbers(scale: str, item: Item, sidecar: dict) -> str:
    """Our numbers and the paper's, each in a table of its own: which stands for which is said, not suggested."""
    ours, papers = _ours(sidecar["ours"] or {}), list(_paper(sidecar["paper"] or {}))
    blocks = []
    if ours[1]:
        blocks.append(f"<div><h3>Measured here, scale {escape(scale)}</h3>{_table(*ours, f'ours, {item.title}')}</div>")
    if papers:
        about = _table(["", "reported", "source"], papers, f"the paper's, {item.title}", paper=True)
        blocks.append(f"<div><h3>Reported by the paper</h3>{about}</div>")
    if not blocks:
        return ""
    unfolded = " open" if len(ours[1]) + len(papers) <= OPEN_ROWS else ""
    what = " and the paper's" if papers else "; the paper prints none for this"
    return (
        f"<details{unfolded}><summary>Numbers: ours{what}</summary>\n"
        f'<div class="beside">{"".join(blocks)}</div></details>'
    )


def _ours(ours: dict) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a sidecar's numbers: a row for each innermost record, an interval beside what it is of."""
    records = list(_records(ours, ()))
    hidden = {end for key, ends in INTERVALS.items() for end in ends if any(key in r and end in r for _, r in records)}
    columns = list(dict.fromkeys(key for _, record in records for key in record if key not in hidden))
    first = list(INTERVALS)  # the numbers that carry the argument; the remark comes last
    columns.sort(key=lambda key: (first.index(key) if key in first else len(first), key == "note"))
    rows = [[_path(path), *(_value(record, key) for key in columns)] for path, record in records]
    return ["", *(QUANTITIES.get(key, key.replace("_", " ")) for key in columns)], rows


def _records(value: dict, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict]]:
    own = {key: inner for key, inner in value.items() if not isinstance(inner, dict)}
    if own and not path:  # single numbers: one a row
        yield from (((key,), {"value": inner}) for key, inner in own.items())
    elif own:
        yield path, own
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _records(inner, (*path, key))


def _value(record: dict, key: str) -> str:
    """The record's entry under a column, with its interval; correlations with their sign."""
    if key not in record:
        return ""
    form = {"spearman": "+.2f", "regret_points": ".2f"}.get(key, ".3g")
    low, high = (record.get(end) for end in INTERVALS.get(key, ("", "")))
    interval = "" if low is None or high is None else f" [{_text(low, form)}, {_text(high, form)}]"
    return _text(record[key], form) + interval


def _text(value, form: str = ".3g") -> str:
    if isinstance(value, list):
        return ", ".join(_text(one, form) for one in value)
    if value is None:
        return "undefined"
    return f"{value:{form}}" if isinstance(value, float) else str(value)


def _paper(value: dict, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Rows of what the paper reports: what, the number as printed there, where."""
    if "value" in value:
        yield [_path(path), str(value["value"]), str(value.get("source", ""))]
        return
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _paper(inner, (*path, key))


def _path(path: Iterable[str]) -> str:
    """("regret_points", "g_norm") -> "regret, points: G-Norm"."""
    return ": ".join(SCORES[key].label if key in SCORES else QUANTITIES.get(key, key.replace("_", " ")) for key in path)
