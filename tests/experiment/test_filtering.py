"""Filtering drops what is wrong and nothing else: the number of responses stays, each right one is as likely as another,
and what a prompt is given depends on its id alone.
"""

import json
from collections import Counter

import pytest

from gracelib.experiment.filtering import filtered_responses, run_filtered
from gracelib.text.tasks import read_responses, write_jsonl


def prompts(grades: list[str]) -> list[dict]:
    """One prompt a string of grades, "1" for a right response; a response says which prompt and sample it is."""
    return [
        {
            "id": f"p{i}",
            "question": f"q{i} ?",
            "answer": "1",
            "responses": [f"{i}.{k}" for k in range(len(own))],
            "correct": [g == "1" for g in own],
            "n_truncated": 3,
        }
        for i, own in enumerate(grades)
    ]


def test_only_right_responses_of_the_first_M_are_left_and_their_number_stays():
    rows = prompts(["1011", "0101", "0000", "1111", "0001"])
    made, kept = filtered_responses(rows, 3, seed=1)
    assert kept == {"kept_share": (2 + 1 + 3) / 15, "prompts": 5, "prompts_kept": 3}
    assert [row["id"] for row in made] == ["p0", "p1", "p3"]
    assert sum(len(row["responses"]) for row in made) == 5 * 3
    for row in made:
        i = int(row["id"][1:])
        right = {f"{i}.{k}" for k in range(3) if rows[i]["correct"][k]}  # the fourth is beyond M
        assert set(row["responses"]) <= right and all(row["correct"]) and row["n_truncated"] == 0
        assert len(row["correct"]) == len(row["responses"]) == 5
    assert (
        rows[0]["responses"] == ["0.0", "0.1", "0.2", "0.3"] and rows[0]["n_truncated"] == 3
    )  # the source is untouched


def test_what_does_not_divide_is_given_out_one_by_one():
    made, _ = filtered_responses(prompts(["11", "00", "01", "10"]), 2, seed=0)
    sizes = sorted(len(row["responses"]) for row in made)
    assert sizes == [2, 3, 3]


def test_row_order_never_matters_and_the_seed_does():
    rows = prompts(["1101", "0110", "0000", "1011", "1111", "0011"])
    made, kept = filtered_responses(rows, 4, seed=7)
    again, kept_again = filtered_responses(rows[::-1], 4, seed=7)
    assert again[::-1] == made and kept_again == kept
    other, _ = filtered_responses(rows, 4, seed=8)
    assert [r["responses"] for r in other] != [r["responses"] for r in made]


def test_every_right_response_is_as_likely_and_wrong_ones_never_come():
    """Over many prompts with two right responses of four, each place is drawn half of the time, with repetition."""
    made, _ = filtered_responses(prompts(["0110"] * 2000), 4, seed=3)
    places = Counter(text.split(".")[1] for row in made for text in row["responses"])
    assert set(places) == {"1", "2"} and places["1"] / 8000 == pytest.approx(0.5, abs=0.02)
    alike = sum(len(set(row["responses"])) == 1 for row in made) / 2000
    assert alike == pytest.approx(2 * 0.5**4, abs=0.03)  # with replacement


def test_a_teacher_that_is_never_wrong_or_never_right():
    made, kept = filtered_responses(prompts(["11", "11"]), 2, seed=0)
    assert kept["kept_share"] == 1 and [len(row["responses"]) for row in made] == [2, 2]
    assert filtered_responses(prompts(["00", "00"]), 2, seed=0) == (
        [],
        {"kept_share": 0.0, "prompts": 2, "prompts_kept": 0},
    )


@pytest.mark.parametrize("change", [{"responses": ["a"]}, {"correct": [True]}])
def test_too_few_responses_or_grades_are_refused(change):
    rows = prompts(["11", "11"])
    rows[1] |= change
    with pytest.raises(ValueError, match="prompt 'p1' has 1 graded responses, fewer than M = 2"):
        filtered_responses(rows, 2, seed=0)
    del rows[1]["correct"]
    with pytest.raises(ValueError, match="prompt 'p1' has 0 graded responses"):
        filtered_responses(rows, 2, seed=0)


def test_the_stage_reads_the_first_prompts_and_writes_responses_that_can_be_read(tmp_path):
    rows = prompts(["10", "01", "11", "00"])
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write_jsonl(tmp_path / "in" / "responses.jsonl", rows)
    run_filtered(tmp_path / "out", {"M": 2, "seed": 5, "n_prompts": 2}, {"responses": tmp_path / "in"})
    assert read_responses(tmp_path / "out" / "responses.jsonl") == filtered_responses(rows[:2], 2, 5)[0]
    assert json.loads((tmp_path / "out" / "kept.json").read_text()) == {
        "kept_share": 0.5,
        "prompts": 2,
        "prompts_kept": 2,
    }
