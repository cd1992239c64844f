"""The gallery is one file that says what the figures say: every registered figure is on it, nothing is fetched from
anywhere, and what a caption or a table holds is shown as text, whatever it looks like.
"""

import base64
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from gracelib.drawing import gallery
from gracelib.drawing.saving import Drawn
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths
from gracelib.paper.figures import FIGURES

EVIL = (
    '<script>alert("x")</script> & <b>bold</b> \'quoted\' <img src=x onerror=alert(2)> "><svg onload=alert(3)> '
    "</td></table><iframe src=//x> --><b> $\\frac{1}{ a$b$_^{"
)
VOID = {"meta", "link", "img", "br", "hr", "input"}


def draw(name: str, scale: str = "mini") -> None:
    """A small stand-in for a registered figure, with numbers in the shapes that sidecars have."""
    fig = None
    if FIGURES[name].picture:
        fig = Figure(figsize=(6.75, 1))
        fig.subplots().plot([1, 2, 3])
    table = pd.DataFrame({"label": ["GRACE", EVIL], "value": [1 / 3, np.nan], "paper value": ["0.86", ""], EVIL: EVIL})
    ours = {"grace": {"spearman": 0.828, "low": 0.17, "high": 0.96, "cells": 24, "selected": EVIL, "note": EVIL}}
    if name == "fig02_scatter":
        ours = {"all": ours, "without": {"g_norm": {"spearman": None, "regret_points": 1.0}}}
    if name == "fig05_one_temperature":
        ours = {EVIL: {"picked": EVIL, "teacher": {EVIL: 1.0}}}
    papers = {"spearman_abs": {"grace": {"value": "0.86", "source": EVIL}}}
    if name == "cmi_terms":
        ours, papers = {"ratio_highest": 4.7175, "teachers": 6}, {}
    drawn = Drawn(fig, table, f"Caption of {name}. {EVIL}", f"Alt of {name}. {EVIL}", ours, papers)
    drawn.save(scale, name, inputs=["scores"], parameters={}, seed=0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A figures folder with every registered figure, and the page made of it."""
    root = tmp_path_factory.mktemp("gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACELIB_FIGURES", str(root / "figures"))
        (paths.results("mini")).mkdir(parents=True)
        (paths.results("mini") / "scores.csv").write_text("x\n1\n")
        for name in FIGURES:
            draw(name)
        yield root, gallery.write(get_scale("mini"), root / "out" / "page.html")


class Page(HTMLParser):
    """Collects elements; fails on a tag that is not closed in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts, self.style = [], [], {}, ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        sections = [a["id"] for tag, a in self.open if tag == "section"]
        if self.open and self.open[-1][0] == "style":
            self.style += data
        if sections:
            inner = self.open[-1][0]
            self.texts.setdefault((sections[-1], inner), []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def parsed(place):
    return Page(place[1].read_text(encoding="utf-8"))


def test_every_registered_figure_is_there_once_in_order_and_in_the_contents(parsed):
    sections = [a["id"] for a in parsed.all("section")]
    assert sections == list(FIGURES)
    assert [a["href"] for a in parsed.all("a") if a["href"].startswith("#")] == [f"#{name}" for name in FIGURES]
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {a["aria-labelledby"] for a in parsed.all("section")} <= set(ids)
    for name, item in FIGURES.items():
        assert item.title in "".join(parsed.texts[name, "h2"])
        assert "".join(parsed.texts[name, "figcaption"]) == f"Caption of {name}. {EVIL}"
        assert "scale mini" in parsed.texts[name, "span"]


def test_every_picture_is_inlined_with_its_alternative_text(parsed, place):
    pictures = [name for name, item in FIGURES.items() if item.picture]
    assert [image["alt"] for image in parsed.all("img")] == [f"Alt of {name}. {EVIL}" for name in pictures]
    for name, image in zip(pictures, parsed.all("img"), strict=True):
        kind, data = image["src"].split(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data, validate=True) == (place[0] / "figures" / "mini" / f"{name}.svg").read_bytes()


def test_nothing_is_fetched_and_nothing_runs(parsed):
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form", "svg", "b"}  # `EVIL` has some
    for tag, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "poster", "data", "background"):
            assert attributes.get(name, "data:").startswith("data:"), tag
        assert not (attributes.get("href") or "").startswith(("http", "//", "javascript"))
    policy = [a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "prefers-color-scheme" in parsed.style and not any(word in parsed.style for word in ("@import", "url("))


def test_links_are_relative_and_lead_to_notebooks_and_files(parsed, place):
    links = [a["href"] for a in parsed.all("a") if not a["href"].startswith("#")]
    assert all((place[1].parent / link).resolve().is_file() for link in links)
    notebooks = {(place[1].parent / link).resolve() for link in links if link.endswith(".ipynb")}
    there = {paths.NOTEBOOKS / f"{item.notebook}.ipynb" for item in FIGURES.values()}
    assert notebooks == {path for path in there if path.is_file()} and notebooks
    assert sum(link.endswith(".json") for link in links) == len(FIGURES)


def test_our_numbers_and_the_papers_stand_in_tables_of_their_own(parsed):
    cells = parsed.texts["fig01_correlations", "td"]
    assert cells[:4] == ["0.828", "0.17", "0.96", "24"] and "0.86" in cells and EVIL in cells
    assert parsed.texts["fig01_correlations", "h3"] == ["Measured here, scale mini", "Reported by the paper"]
    rows = parsed.texts["fig02_scatter", "th"]
    assert [row for row in rows if ": " in row] == ["all: GRACE", "without: G-Norm", "|Spearman|: GRACE"]
    assert "undefined" in parsed.texts["fig02_scatter", "td"]  # not 0, not an empty cell
    assert parsed.texts["cmi_terms", "h3"] == ["Measured here, scale mini"]
    assert [t for t in parsed.texts["cmi_terms", "td"] if t in ("4.72", "6")] == ["4.72", "6"]
    assert "Numbers: ours; the paper prints none for this" in parsed.texts["cmi_terms", "summary"]


def test_tables_are_shown_as_tables(parsed):
    heads = ["label", "value", "paper value", EVIL.replace("_", " "), "GRACE"]
    assert [t for t in parsed.texts["table_main", "th"] if t != "\n"][:5] == heads
    assert parsed.texts["table_main", "td"][:2] == ["0.3333", "0.86"]  # rounded; the paper's text as it is
    assert EVIL in parsed.texts["table_main", "th"]
    assert not [n for n, item in FIGURES.items() if not item.picture and "paper value" not in parsed.texts[n, "th"]]


def test_what_is_missing_or_stale_is_marked(place, tmp_path, monkeypatch, capsys):
    shutil.copytree(place[0] / "figures", tmp_path / "figures")
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    folder = paths.figures("mini")
    (folder / "fig19_n_and_d.json").unlink()
    (folder / "fig20_folds.svg").unlink()
    (folder / "claims.json").write_text("[]")
    with open(folder / "fig01_correlations.csv", "a") as f:
        f.write("1\n")
    page = Page(gallery.write(get_scale("mini"), tmp_path / "page.html").read_text(encoding="utf-8"))
    for name in ("fig19_n_and_d", "fig20_folds", "claims"):
        assert "Not drawn at this scale." in page.texts[name, "p"]
    assert any("is not the one its sidecar was written for" in t for t in page.texts["fig01_correlations", "p"])
    left = "figures are not drawn at scale mini: fig19_n_and_d, fig20_folds, claims\n"
    assert capsys.readouterr().err == f"3 of {len(FIGURES)} {left}"


def test_a_scale_without_figures_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    with pytest.raises(
        FileNotFoundError, match="no figure of scale 'smoke' is drawn .*`make figures SCALE=smoke` first"
    ):
        gallery.write(get_scale("smoke"), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
