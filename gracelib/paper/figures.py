"""Which figures and tables of the paper there are, and which notebook makes each: one producer, no more.

Why a list of its own: the book's gallery, the test that nothing is missing and the check of the sidecars are all made
from it, so a figure that is dropped or renamed cannot go unnoticed.
"""

import re
from dataclasses import dataclass

from gracelib.checks import check_choice


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


_02, _05, _06 = "02_student_gradients", "05_which_teacher", "06_design_choices"
_07, _08 = "07_ablations", "08_length"
FIGURES: dict[str, Item] = {
    "fig01_correlations": Item(
        _05, "figure 1", "Which scores predict a student's accuracy", "drawing.correlations.figure1"
    ),
    "fig02_scatter": Item(
        _05, "figure 2", "Three scores against the accuracy of the first student", "drawing.correlations.figure2"
    ),
    "fig03_second_student": Item(_05, "figure 3", "The same for the second student", "drawing.correlations.figure2"),
    "fig04_all_scores": Item(
        _05, "figure 4", "Signed Spearman correlation of every score, two tasks", "drawing.correlations.figure4"
    ),
    "fig05_one_temperature": Item(
        _05, "figure 5", "The teacher each score selects at one temperature", "drawing.correlations.figure5"
    ),
    "fig06_temperature": Item(
        _06, "figure 6", "Scores and accuracy against the temperature of two teachers", "drawing.choices.figure6"
    ),
    "fig07_within_and_budgets": Item(
        _06, "figure 7", "Correlation within a teacher, and under size budgets", "drawing.choices.figure7"
    ),
    "fig08_long_task": Item(
        _05, "figure 8", "Three scores against accuracy on the longer task", "drawing.correlations.figure2"
    ),
    "fig09_larger_d": Item(
        _05, "figure 9", "Three scores at twice the projection dimension, first student", "drawing.correlations.figure2"
    ),
    "fig10_larger_d_second": Item(
        _05,
        "figure 10",
        "Three scores at twice the projection dimension, second student",
        "drawing.correlations.figure2",
    ),
    "fig11_greedy": Item(_05, "figure 11", "Three scores against greedy accuracy", "drawing.correlations.figure2"),
    "fig12_best_of_k": Item(_05, "figure 12", "Three scores against best-of-k", "drawing.correlations.figure2"),
    "fig13_families": Item(_06, "figure 13", "Regret of each score within a family", "drawing.choices.figure13"),
    "fig14_budgets": Item(_06, "figure 14", "Regret of each score under size budgets", "drawing.choices.figure14"),
    "fig15_filtered_accuracy": Item(
        _07, "figure 15", "Students of filtered and unfiltered responses", "drawing.training.figure15"
    ),
    "fig16_filtered_correlation": Item(
        _07, "figure 16", "Correlations with students of filtered responses", "drawing.training.figure16"
    ),
    "fig17_epochs": Item(_07, "figure 17", "Accuracy against epochs of training", "drawing.training.figure17"),
    "fig18_generations": Item(_07, "figure 18", "Accuracy against responses per prompt", "drawing.training.figure17"),
    "fig19_n_and_d": Item(_07, "figure 19", "GRACE's correlation against n and d", "drawing.ablations.figure19"),
    "fig20_folds": Item(
        _07, "figure 20", "GRACE's correlation against the number of folds", "drawing.ablations.figure20"
    ),
    "fig21_length_short": Item(
        _08, "figure 21", "Gradient norm against response length, first task", "drawing.lengths.figure21"
    ),
    "fig22_length_long": Item(
        _08, "figure 22", "Gradient norm against response length, longer task", "drawing.lengths.figure21"
    ),
    "fig23_subsets": Item(_07, "figure 23", "Correlations over 100 random subsets", "drawing.ablations.figure23"),
    "fig24_without_one": Item(
        _06, "figure 24", "Figure 2 without the most familiar teacher", "drawing.correlations.figure2"
    ),
    "fig25_families_without_one": Item(
        _06, "figure 25", "Figure 13 without the most familiar teacher", "drawing.choices.figure13"
    ),
    "regret_bars": Item(
        _05, "final version: regret bars", "Regret of each score on both tasks", "drawing.correlations.regret_bars"
    ),
    "settings": Item(
        _07,
        "(none: nu, length power and m)",
        "GRACE's correlation against nu, the length power and m",
        "drawing.ablations.settings",
    ),
    "table_main": Item(
        _05,
        "main table",
        "Signed Spearman correlation and regret of each score",
        "drawing.correlations.table_main",
        picture=False,
    ),
    "table01_cost": Item(
        _02, "table 1", "What the features and the scores of a teacher cost", "drawing.costs.table1", picture=False
    ),
    "claims": Item(
        _05,
        "(none: the paper's claims)",
        "Each claim of the paper, and what this world shows",
        "claims.verdicts.claims",
        picture=False,
    ),
    "cmi_terms": Item(
        "09_cmi",
        "(none: lemma B.1, measured)",
        "The terms of the CMI bound, and their claimed ratio",
        "drawing.bound.cmi_terms",
    ),
}


def registered(name: str) -> Item:
    """The registry's entry. ValueError for a name it does not have."""
    check_choice("figure", name, FIGURES)
    return FIGURES[name]


def figures_named(text: str) -> list[str]:
    """Registered names for what a reader types, comma-separated: "19", "fig19", "fig19_n_and_d", "table1", "main".

    ValueError for a name that fits none, listing those there are.
    """
    found = []
    for word in (part.strip().lower() for part in text.split(",")):
        number = re.fullmatch(r"(fig(?:ure)?|table)?[ _]*0*(\d+)", word)
        start = f"{'table' if number[1] == 'table' else 'fig'}{int(number[2]):02d}_" if number else None
        short = [name for name in FIGURES if word and word == name.partition("_")[2]]
        names = [word] if word in FIGURES else [n for n in FIGURES if start and n.startswith(start)] or short
        if len(names) != 1:
            raise ValueError(
                f"figure {word[:80]!r} is {'ambiguous' if names else 'not known'}; choose among "
                f"{', '.join(names or FIGURES)}, or a number such as 19"
            )
        found += names
    return list(dict.fromkeys(found))
