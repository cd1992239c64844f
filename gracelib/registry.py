"""Which figures and tables of the paper there are, and which notebook makes each: one producer, no more.

Why a list of its own: the README's table (between its markers; a test compares), the test that nothing is missing
and the check of the sidecars are all made from it, so a figure that is dropped or renamed cannot go unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A figure or table: its notebook, its place in the paper, a one-line title, the function that draws it, whether
    it has a picture."""

    notebook: str
    paper_item: str
    title: str
    drawn_by: str  #: module.function under gracelib
    picture: bool = True

    @property
    def endings(self) -> tuple[str, ...]:
        """Files beside the sidecar."""
        return (".svg", ".png", ".csv") if self.picture else (".csv",)


_05 = "05_which_teacher"
FIGURES: dict[str, Item] = {
    "fig01_correlations": Item(
        _05, "figure 1", "Which scores foretell a student's accuracy", "paper_figures.figure1"
    ),
    "fig02_scatter": Item(
        _05, "figure 2", "Three scores against the accuracy of the student", "paper_figures.figure2"
    ),
    "fig04_all_scores": Item(
        _05, "figure 4", "Signed Spearman correlation of every score", "paper_figures.figure4"
    ),
    "fig05_one_temperature": Item(
        _05, "figure 5", "The teacher each score selects at one temperature", "paper_figures.figure5"
    ),
    "table_main": Item(
        _05, "main table", "Signed Spearman correlation and regret of each score", "paper_figures.table_main", picture=False
    ),
    "cmi_terms": Item(
        "09_cmi", "(none: lemma B.1, measured)", "The terms of the CMI bound, and their claimed ratio",
        "cmi_figures.cmi_terms",
    ),
}
README_MARKS = ("<!-- figures:begin -->", "<!-- figures:end -->")  #: around `readme_table` in README.md


def registered(name: str) -> Item:
    """The registry's entry. ValueError for a name it does not have."""
    if name not in FIGURES:
        raise ValueError(
            f"figure {name!r} is not registered: choose one of {', '.join(FIGURES)}, or add it to FIGURES in "
            "gracelib/registry.py"
        )
    return FIGURES[name]


def readme_table(scale: str) -> str:
    """Markdown for README.md: every registered figure, the notebook that makes it, the function, a link to the file."""
    lines = ["| figure or table | notebook | drawn by | file |", "|---|---|---|---|"]
    for name, item in FIGURES.items():
        file = f"figures/{scale}/{name}{'.png' if item.picture else '.csv'}"
        what = item.title if item.paper_item.startswith("(") else f"{item.paper_item}: {item.title}"
        notebook = f"[{item.notebook}](notebooks/{item.notebook}.ipynb)"
        lines.append(f"| {what} | {notebook} | `gracelib.{item.drawn_by}` | [{name}]({file}) |")
    return "\n".join(lines) + "\n"
