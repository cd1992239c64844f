"""One page with every figure of a scale, to look through them all or to send to somebody.

Why one file: a page that needs its folder breaks when it is mailed. So pictures are inlined, nothing is fetched (the
page forbids it to itself), there is no script, and only the links to notebooks and files leave it. What is written in a
caption or a table is text, never markup. The page is made from the sidecars, so it says what the figures say: our
numbers and the paper's stand side by side, each under its own heading, and a figure that is missing or was drawn from
other tables than those beside it is marked.
"""

import base64
import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from gracelib.baselines import SCORES
from gracelib.drawing.saving import check_sidecars
from gracelib.jobs import paths
from gracelib.jobs.store import write_atomically
from gracelib.paper.figures import FIGURES
from gracelib.scale import Scale

NAMES = {"spearman_abs": "|Spearman|", "spearman": "Spearman", "regret_points": "regret, points"}
#: The numbers that carry the argument stand first, an interval behind what it is of.
FIRST = ("value", "spearman", "low", "high", "regret_points", "regret_low", "regret_high")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
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
{%- macro table(head, rows, label, paper=false) %}
<div class="scroll" tabindex="0" role="region" aria-label="Table: {{ label }}"><table>
<thead><tr>{% for name in head %}<th scope="col"{{ kind(name, name, paper) }}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in rows %}
<tr>
{%- for text in row -%}
{% if loop.first %}<th scope="row"{{ kind(text, head[0], paper) }}>{{ text }}</th>
{%- else %}<td{{ kind(text, head[loop.index0], paper) }}>{{ text }}</td>{% endif %}
{%- endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- endmacro %}
{%- macro anchor(text, link) %}{% if link %}<a href="{{ link }}">{{ text }}</a>{% else %}{{ text }}{% endif %}{% endmacro %}
{%- macro kind(text, column, paper) %}
{%- if paper or column.startswith("paper") %} class="paper{{ " long" if text|length > long }}"
{%- elif text|length > long %} class="long"{% endif %}
{%- endmacro %}
<header>
<h1>{{ title }}</h1>
<p><span class="badge">{{ badge }}</span></p>
<p>Every figure and table of the paper as drawn here. A wide picture scrolls sideways on a narrow screen. The paper's
own numbers, on a tinted ground, are of other models and other data; all else was measured here.
{{- " " ~ missing|length ~ " of " ~ figures|length ~ " are not drawn at this scale." if missing }}</p>
</header>
<nav aria-label="Contents">
<ol>
{%- for one in figures %}
<li><a href="#{{ one.name }}">{{ one.headline }}</a></li>
{%- endfor %}
</ol>
</nav>
<main>
{%- for one in figures %}
<section id="{{ one.name }}" aria-labelledby="{{ one.name }}-title">
<h2 id="{{ one.name }}-title"><span class="item">{{ one.number }}</span> {{ one.item.title }}</h2>
<p class="meta"><span class="badge">scale {{ scale }}</span> drawn in notebook {{ anchor(*one.links[0]) }}
by <code>gracelib.{{ one.item.drawn_by }}</code> ·
{%- for link in one.links[1:] %} {{ anchor(*link) }}{{ "," if not loop.last }}{% endfor %}</p>
{%- for line in one.wrong %}
<p class="warning">{{ line }}</p>
{%- endfor %}
{%- if one.sidecar %}
<figure>
{%- if one.item.picture %}
<div class="scroll picture" tabindex="0" role="region" aria-label="Picture: {{ one.headline }}">
<img src="data:image/svg+xml;base64,{{ one.svg }}" alt="{{ one.sidecar.alt or "" }}"></div>
{%- else %}{{ table(one.rows[0], one.rows[1:], one.item.title) }}{% endif %}
<figcaption>{{ one.sidecar.caption }}</figcaption>
</figure>
{%- if one.item.picture %}
<details><summary>The picture in words</summary><p>{{ one.sidecar.alt or "" }}</p></details>
{%- endif %}
{%- set length = one.ours|length + one.paper|length - 2 %}
<details{{ " open" if length <= open_rows }}><summary>Numbers: ours
{{- " and the paper's" if one.paper|length > 1 else "; the paper prints none for this" }}</summary>
<div class="beside">
{%- if one.ours|length > 1 %}
<div><h3>Measured here, scale {{ scale }}</h3>{{ table(one.ours[0], one.ours[1:], "ours, " ~ one.item.title) }}</div>
{%- endif %}
{%- if one.paper|length > 1 %}
<div><h3>Reported by the paper</h3>{{ table(one.paper[0], one.paper[1:], "the paper's, " ~ one.item.title, true) }}</div>
{%- endif %}
</div></details>
{%- endif %}
</section>
{%- endfor %}
</main>
</body>
</html>
"""


def write(config: Scale, out: Path | None = None) -> Path:
    """Write the page of a scale (`scales.get_scale`) to `out` (build/gallery-<scale>.html, git-ignored); the path.

    Figures that are not drawn yet are listed on the page and on stderr. FileNotFoundError where no figure of it is drawn.
    """
    scale, problems = config.name, check_sidecars(config.name)
    out = Path(out or paths.ROOT / "build" / f"gallery-{scale}.html")
    figures = [_figure(scale, name, problems, out.resolve().parent) for name in FIGURES]
    missing = [one["name"] for one in figures if one["sidecar"] is None]
    if len(missing) == len(FIGURES):
        raise FileNotFoundError(
            f"no figure of scale {scale!r} is drawn ({paths.drawn(scale)}): run `make figures SCALE={scale}` first"
        )
    if missing:
        print(
            f"{len(missing)} of {len(FIGURES)} figures are not drawn at scale {scale}: {', '.join(missing)}",
            file=sys.stderr,
        )
    text = (
        Environment(autoescape=True, undefined=StrictUndefined)
        .from_string(PAGE)
        .render(
            title=f"GRACE: the figures at scale {scale}",
            badge=f"scale {scale}: {len(config.teachers)} teachers, {len(config.students)} students, "
            f"tasks {', '.join(task.name for task in config.tasks)}, seed {config.seed}",
            long=30,  # characters; longer cells are wrapped
            open_rows=8,  # longer tables of numbers start folded
            figures=figures,
            missing=missing,
            scale=scale,
        )
    )
    write_atomically(out, lambda part: part.write_text(text, encoding="utf-8"))
    return out


def _figure(scale: str, name: str, problems: list[str], base: Path) -> dict:
    """What the page says of a figure; `sidecar` None where it, or a file that the page shows, is not there."""
    item, source = FIGURES[name], paths.drawn(scale) / name
    number = "" if item.paper_item.startswith("(") else item.paper_item
    wrong = [line for line in problems if line.startswith(f"{name}: ")]
    files = [paths.NOTEBOOKS / f"{item.notebook}.ipynb"]
    files += [source.with_suffix(ending) for ending in (*item.endings, ".json")]
    links = [(file.name if file == files[0] else file.suffix[1:], _link(file, base)) for file in files]
    headline = f"{number}: {item.title}" if number else item.title
    about = {"name": name, "item": item, "number": number, "headline": headline, "links": links}
    try:
        sidecar = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
        drawn = {"caption": sidecar["caption"], "alt": sidecar["alt"]}
        numbers = {key: _numbers(sidecar[key] or {}) for key in ("ours", "paper")}
        svg = base64.b64encode(source.with_suffix(".svg").read_bytes()).decode("ascii") if item.picture else ""
        with open(source.with_suffix(".csv"), encoding="utf-8", newline="") as f:
            head, *rows = csv.reader(f)
    except (OSError, ValueError, TypeError, KeyError):
        return about | {"sidecar": None, "wrong": ["Not drawn at this scale.", *wrong]}
    rows = [[name.replace("_", " ") for name in head], *(list(map(_rounded, row)) for row in rows)]
    return about | {"sidecar": drawn, "wrong": wrong, "svg": svg, "rows": rows} | numbers


def _link(file: Path, base: Path) -> str:
    """Where a file lies, relative to the page; "" for one that is not there."""
    return quote(Path(os.path.relpath(file.resolve(), base)).as_posix()) if file.is_file() else ""


def _rounded(text: str) -> str:
    """A number of a CSV at four digits; anything else as it is."""
    try:
        return text if text.lstrip("-").isdecimal() else f"{float(text):.4g}"
    except ValueError:
        return text


def _numbers(nested: dict) -> list[list[str]]:
    """Head and rows of a sidecar's numbers: a row for each innermost record."""
    records = list(_records(nested))
    columns = list(dict.fromkeys(column for _, record in records for column in record))
    columns.sort(key=lambda column: FIRST.index(column) if column in FIRST else len(FIRST))
    return [
        ["", *map(_name, columns)],
        *([path, *(_text(record[c]) if c in record else "" for c in columns)] for path, record in records),
    ]


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
