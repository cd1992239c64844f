"""The picture of the method is the one that the code draws; cheat sheet and lecture say what the code and the README say."""

import re

import matplotlib
import nbformat
import pytest

from gracelib.baselines import SCORES
from gracelib.drawing.method import method
from gracelib.drawing.saving import picture_writers
from gracelib.jobs import paths


def test_the_committed_picture_is_the_one_the_code_draws(tmp_path):
    pinned = re.search(r"^matplotlib==(.+)$", (paths.ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    if matplotlib.__version__ != pinned:
        pytest.skip(f"matplotlib {matplotlib.__version__} may draw other bytes than {pinned}")
    picture_writers(method(), "method", "The method", [".svg"])[".svg"](tmp_path / "method.svg")
    assert (tmp_path / "method.svg").read_bytes() == paths.published("method.svg").read_bytes()


def test_the_cheat_sheet_has_every_score_with_its_direction():
    rows = re.findall(
        r"^\| (.+?) \| .+ \| (lower|higher) \| .+ \|$", (paths.NOTEBOOKS / "cheat_sheet.md").read_text("utf-8"), re.M
    )
    said = {label: direction for labels, direction in rows for label in re.split("; |, (?=GRACE-)", labels)}
    assert said == {score.label: score.direction for score in SCORES.values()}


def test_the_lecture_is_fifteen_slides_and_says_what_the_readme_says():
    slides = [cell.source for cell in nbformat.read(paths.NOTEBOOKS / "lecture.ipynb", as_version=4).cells]
    found = (
        (paths.ROOT / "README.md")
        .read_text("utf-8")
        .split("<!-- findings:begin -->\n")[1]
        .split("\n<!-- findings:end -->")[0]
    )
    assert len(slides) == 15
    assert found == "\n\n".join(slide.split("\n\n", 1)[1] for slide in slides if slide.startswith("## What came out"))
