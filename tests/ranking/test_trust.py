"""The signs of a ranking that is not to be believed: a planted case for each, and the page that lists them."""

import pandas as pd

from gracelib.jobs.paths import NOTEBOOKS
from gracelib.ranking import trust

PAPER = (512, 4, 512, 10)


def test_each_sign_of_a_ranking_that_is_not_to_be_believed_is_said_with_its_number_and_what_to_do():
    """A planted case for each of `SIGNS`; the paper's setting, with nothing wrong in it, says nothing."""
    fine = {"near_copies": 0.25, "nu_share": 0.5, "one_token": 0, "grace_low": 0.1}
    told = set()
    assert trust.notes_on(pd.DataFrame([fine | {"teacher": "a"}]), *PAPER) == []
    for column, bad, shown in (
        ("near_copies", 0.42, "42%"),
        ("nu_share", 0.51, "51%"),
        ("one_token", 3, "3"),
        ("grace_low", -0.2, "-0.2"),
    ):
        rows = [fine | {"teacher": "a"}, fine | {"teacher": "b", column: bad}]
        (said,) = trust.notes_on(pd.DataFrame(rows), *PAPER)
        (sign,) = [sign for sign in trust.SIGNS if sign.column == column]
        assert said == f"{sign.said}: b {shown}; {sign.remedy}"
        (said,) = trust.notes_on(pd.DataFrame(4 * rows[1:]), *PAPER)
        assert f": 4 teachers, {shown} to {shown}; " in said
        told.add(column)
    for setting, shown in (((10, 8, 30, 10), "2.4"), ((16, 1, 32, 4), "0.4")):
        (said,) = trust.notes_on(pd.DataFrame([fine | {"teacher": "a"}]), *setting)
        assert f"outside a fold{' (near' * (shown == '2.4')}" in said and f": {shown}; use more prompts" in said
    assert told | {"rows_over_d"} == {sign.column for sign in trust.SIGNS}


def test_the_page_lists_every_sign_as_it_is_defined():
    page = (NOTEBOOKS / "rank_your_own.md").read_text("utf-8").replace("\\|", "|")
    for sign in trust.SIGNS:
        assert f"| {sign.said} | " in page and f" | {sign.remedy} |\n" in page
