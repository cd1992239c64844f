"""A figure at rest must be redrawable to the byte and must prove where it comes from: otherwise a committed
picture is only an assertion. So: the same table gives the same bytes in another process too, and a sidecar names
everything and its hashes are those of the files.
"""

import importlib
import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from gracelib.drawing import bound, correlations, saving
from gracelib.drawing.saving import Drawn, picture_writers
from gracelib.evidence import ranks, summaries
from gracelib.jobs import paths
from gracelib.jobs.store import file_hash
from gracelib.paper.figures import FIGURES
from sidecars import assert_sidecars
from synthetic import synthetic_cells


def cmi_terms(cells, student, scale):
    """The figure of the CMI bound is drawn from a table of its own."""
    rows = [
        {
            "student": student,
            "teacher": teacher,
            "temperature": 0.6,
            "space": "h",
            "n": 256,
            "nu": nu,
            "preconditioner": "smoothed",
            "log_n": np.log(256),
            **dict.fromkeys(summaries.CMI_TERMS, 0.5 + i),
            "stability": 0.1 * (1 + i),
            "cross": 1e-9,
        }
        for i, teacher in enumerate(dict.fromkeys(cells["teacher"]))
        for nu in (1e-3, 1e-2)
    ]
    manner = dict(zip(cells["teacher"], cells["manner"], strict=True))
    table = summaries.with_noise(pd.DataFrame(rows), 0.003, 0.001)
    return bound.cmi_terms(table, manner, student, scale, 0.6, 256, 1e-3)


# Enough of them to try what holds for every figure: pictures, a table, one drawn from a table of its own. That all that
# are registered can be drawn is seen where they are: in their modules' tests, at smoke, and among the committed ones.
DRAW = {
    "cmi_terms": cmi_terms,
    "fig01_correlations": correlations.figure1,
    "fig02_scatter": correlations.figure2,
    "fig04_all_scores": correlations.figure4,
    "fig05_one_temperature": correlations.figure5,
    "table_main": correlations.table_main,
}
SAVE = {"inputs": ["scores", "students"], "parameters": {"scale": "mini", "recompute": False}, "seed": 0}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty figures folder of scale mini, with two result tables; a fast bootstrap."""
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(paths, "published", lambda scale: tmp_path / "published" / scale)
    monkeypatch.setattr(ranks, "N_BOOT", 40)
    results = paths.results("mini")
    results.mkdir(parents=True)
    for name in SAVE["inputs"]:
        (results / f"{name}.csv").write_text(f"{name}\n1\n", encoding="utf-8")
    return paths.figures("mini")


@cache
def drawn_once(name):
    return DRAW[name](synthetic_cells(), "first", "mini")


def everything(names=tuple(DRAW), draw=drawn_once) -> None:
    for name in names:
        draw(name).save("mini", name, **SAVE)


def contents(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*")) if p.is_file()}


def test_figures_that_were_all_drawn_are_whole_and_a_changed_input_is_noticed(folder):
    everything()
    own = {name: FIGURES[name] for name in DRAW}
    assert_sidecars("mini", own)
    (folder / "results" / "scores.csv").write_text("scores\n2\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="stale"):
        assert_sidecars("mini", own)
    (folder / "table_main.json").write_text("<<<<<<< a merge gone wrong", encoding="utf-8")
    everything()
    assert_sidecars("mini", own)


def test_no_figure_or_table_of_the_paper_is_missing_from_the_registry():
    """Figures 1 to 25 and Table 1 of the submission, the main table and the regret bars of the final version: one entry
    each, whose name carries its number.
    """
    items = [item.paper_item for item in FIGURES.values()]
    for n in range(1, 26):
        assert items.count(f"figure {n}") == 1, n
        (name,) = (name for name, item in FIGURES.items() if item.paper_item == f"figure {n}")
        assert name.startswith(f"fig{n:02d}_")
    assert FIGURES["table01_cost"].paper_item == "table 1" and not FIGURES["table01_cost"].picture
    assert FIGURES["table_main"].paper_item == "main table" and FIGURES["regret_bars"].paper_item.startswith(
        "final version"
    )
    assert len({item.title for item in FIGURES.values()}) == len(FIGURES)
    for item in FIGURES.values():
        module, _, function = item.drawn_by.rpartition(".")
        assert callable(getattr(importlib.import_module(f"gracelib.{module}"), function)), item.drawn_by


@pytest.mark.parametrize("scale", ["mini", "lab"])
def test_the_committed_figures_are_complete_and_belong_to_their_tables(scale, monkeypatch):
    monkeypatch.setenv("GRACELIB_FIGURES", str(paths.ROOT / "figures/published"))
    assert_sidecars(scale)


def test_a_notebook_shows_the_picture_the_finding_and_the_command(folder, monkeypatch):
    shown, drawn = [], drawn_once("fig02_scatter")
    monkeypatch.setattr("IPython.display.display", shown.append)
    drawn.show("mini", "fig02_scatter", **SAVE)
    picture, said = shown
    assert picture is drawn.fig and said.data.startswith("GRACE orders the students with a correlation of ")
    assert (
        said.data.endswith("`make figures SCALE=mini FIG=fig02_scatter`") and (folder / "fig02_scatter.json").is_file()
    )


def test_a_mark_of_a_scatter_says_which_teacher_it_is(folder):
    everything(["fig02_scatter"])
    svg, own = (folder / "fig02_scatter.svg").read_text(encoding="utf-8"), synthetic_cells().query("student == 'first'")
    for row in own.itertuples():  # once in each of three panels
        said = f"{row.teacher}, T = {row.temperature:g}: student {100 * row.average_at_k:.1f}%"
        assert svg.count(f"<g><title>{said}</title>") == 3, said
    assert "<a " not in svg and svg.count("<g><title>") == 3 * len(own)


def test_drawing_again_gives_the_same_bytes(folder):
    """In this process, and in a new one with another hash seed, which also shows that no figure needs
    torch.
    """
    everything(draw=drawn_once.__wrapped__)
    first = contents(folder)
    everything(("fig01_correlations", "fig05_one_temperature"), draw=drawn_once.__wrapped__)
    assert contents(folder) == first
    assert b"<dc:date>" not in first["fig02_scatter.svg"] and b"Software" not in first["fig02_scatter.png"]
    code = (
        "import sys, test_saving as t; t.ranks.N_BOOT = 40; t.everything(); "
        "assert 'torch' not in sys.modules, 'a figure imports torch'"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join([str(paths.ROOT), "tests/helpers", "tests/drawing"]),
    }
    environment |= {"GRACELIB_FIGURES": str(folder.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT, env=environment)
    assert contents(folder) == first


def test_a_sidecar_says_everything(folder):
    cells = synthetic_cells()
    drawn = correlations.figure5(cells, "first", "mini")
    written = drawn.save("mini", "fig05_one_temperature", **SAVE)
    assert [p.suffix for p in written] == [".svg", ".png", ".csv", ".json"]
    side = json.loads(written[-1].read_text(encoding="utf-8"))
    assert side["files"] == {p.name: file_hash(p) for p in written[:3]}
    assert side["inputs"] == {f"results/{n}.csv": file_hash(folder / "results" / f"{n}.csv") for n in SAVE["inputs"]}
    assert (side["notebook"], side["scale"], side["paper_item"], side["seed"]) == (
        "05_which_teacher",
        "mini",
        "figure 5",
        0,
    )
    assert side["parameters"] == SAVE["parameters"] and side["title"] == FIGURES["fig05_one_temperature"].title
    assert side["caption"] == drawn.caption and side["alt"] == drawn.alt
    assert side["ours"]["grace"]["spearman"] == pytest.approx(drawn.ours["grace"]["spearman"], rel=1e-9)
    assert side["paper"]["spearman"]["grace"]["value"] == "0.92"
    assert {"gracelib", "matplotlib", "seaborn", "numpy", "pandas", "python"} <= set(side["versions"])
    assert side["git"] == saving.git_state()
    assert str(folder) not in written[-1].read_text(encoding="utf-8")  # nothing of this machine
    read = pd.read_csv(written[2])
    assert read.average_at_k.to_numpy() == pytest.approx(
        cells[cells.temperature == 0.6].sort_values("teacher").average_at_k
    )


def test_tables_have_a_fixed_number_format_and_line_end(folder):
    table = pd.DataFrame({"x": [1 / 3, np.nan], "what": ["a, b", "c"]})
    ours = {"rho": np.float64(1 / 3), "none": np.nan, "n": np.int64(3), "list": (np.inf, 1)}
    written = Drawn(None, table, "c", "", ours).save("mini", "table_main", **SAVE)
    assert written[0].read_bytes() == b'x,what\n0.3333333333,"a, b"\n,c\n'
    side = json.loads(written[-1].read_text(encoding="utf-8"))
    assert side["ours"] == {"rho": 0.3333333333, "none": None, "n": 3, "list": [None, 1]}
    assert side["alt"] is None and [p.suffix for p in written] == [".csv", ".json"]


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"name": "fig77_new"}, ValueError, "figure = 'fig77_new': choose one of fig01_correlations"),
        ({"name": "table_main"}, ValueError, "table_main is registered as a table without picture: pass fig=None"),
        ({"fig": None}, ValueError, "fig02_scatter is registered as a figure: it needs a picture"),
        ({"inputs": ["scores", "luck"]}, FileNotFoundError, "results/luck.csv"),
        ({"parameters": {"x": object()}}, TypeError, "not JSON serializable"),
    ],
)
def test_bad_calls_are_refused_and_leave_no_sidecar(folder, change, error, message):
    given = {"scale": "mini", "name": "fig02_scatter", **SAVE}
    drawn = Drawn(Figure(), pd.DataFrame({"x": [1]}), "c", "a")
    for name, value in change.items():
        if name in given:
            given[name] = value
        else:
            setattr(drawn, name, value)
    with pytest.raises(error, match=message):
        drawn.save(**given)
    assert not list(folder.glob("*.json")) and not list(folder.glob(".*"))


def test_the_commit_is_that_of_the_first_clean_drawing(tmp_path, monkeypatch):
    """Redrawing unchanged figures after a commit must not change the sidecars: they are committed too."""
    root = tmp_path / "checkout"
    (root / "gracelib").mkdir(parents=True)
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert saving.git_state() is None  # an unpacked archive
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]

    def commit() -> str:
        subprocess.run([*git, "add", "-A"], cwd=root, check=True)
        subprocess.run([*git, "commit", "-q", "-m", "x"], cwd=root, check=True)
        return saving.git_state()["commit"]

    def drawn_at(value: int) -> dict:
        written = Drawn(None, pd.DataFrame({"x": [value]}), "c", "").save("mini", "table_main", **SAVE)
        return json.loads(written[-1].read_text(encoding="utf-8"))["git"]

    subprocess.run([*git, "init", "-q"], cwd=root, check=True)
    assert saving.git_state() is None  # no commit yet
    (root / "gracelib" / "a.py").write_text("1\n", encoding="utf-8")
    first = commit()
    (root / "README.md").write_text("not code\n", encoding="utf-8")
    assert drawn_at(1) == {"commit": first, "dirty": False}
    second = commit()
    assert second != first and drawn_at(1) == {"commit": first, "dirty": False}
    (root / "gracelib" / "a.py").write_text("2\n", encoding="utf-8")
    assert drawn_at(2) == {"commit": second, "dirty": True}
    third = commit()
    assert drawn_at(2) == {"commit": third, "dirty": False}


def test_svg_bytes_do_not_depend_on_the_last_bits_of_the_layout(tmp_path):
    """The layout solver's corners differ by 1e-16 between runs; nothing printed does."""
    written = []
    for left in (0.1, float(np.nextafter(0.1, 1))):
        fig = Figure(figsize=(2, 2))
        ax = fig.add_axes((left, 0.2, 0.7, 0.7))
        ax.axhspan(0, 1)
        path = tmp_path / f"{left!r}.svg"
        picture_writers(fig, "same", "same")[".svg"](path)
        written.append(path.read_bytes())
    assert written[0] == written[1] and b"clip-path" in written[0]
