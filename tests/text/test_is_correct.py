"""The grader reads the last number of a text and compares numbers, not spellings. It decides every accuracy
in the project: too lenient or too strict, it moves all of them.
"""

import pytest

from gracelib.models.accuracy import accuracy, grade
from gracelib.text.is_correct import final_answer, is_correct


@pytest.mark.parametrize(
    "text, expected",
    [
        ("9 + 1 = 10 ; the answer is 10", "10"),
        ("that makes 7 .", "7"),
        ("row | 9 | - 2 | 7 | answer : 7", "7"),
        ("-3", "-3"),
        ("about 2.50 in all", "2.50"),
        ("no number here", None),
        ("", None),
    ],
)
def test_the_last_number_is_the_answer(text, expected):
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    "response, answer, right",
    [
        ("the answer is 12", "12", True),
        ("the answer is 12", 12, True),
        ("12.0", "12", True),
        ("012", "12", True),
        ("the answer is 1", "12", False),
        ("12 ; the answer is", "12", True),  # stopped early, on the right number
        ("9 + 3 = 12 ; so 12 - 5 =", "12", False),
        ("", "12", False),
        ("twelve", "12", False),
        ("-12", "12", False),
    ],
)
def test_answers_are_compared_as_numbers(response, answer, right):
    assert is_correct(response, answer) is right


@pytest.mark.parametrize("answer", ["", "none", None])
def test_a_reference_without_a_number_is_an_error(answer):
    """Silently grading everything wrong would look like an incompetent teacher."""
    with pytest.raises(ValueError, match="the reference answer .* holds no number"):
        is_correct("12", answer)


def test_average_and_best_of():
    rows = grade(
        [{"answer": "3", "responses": ["3", "4", "3", "5"]}, {"answer": "1", "responses": ["2", "2", "2", "2"]}]
    )
    assert rows[0]["correct"] == [True, False, True, False] and rows[1]["correct"] == [False] * 4
    # The prompts' shares are 1/2 and 0: variance 1/8, so the mean of two has a standard error of sqrt(1/16).
    assert accuracy(rows) == {"average": 0.25, "average_se": 0.25, "best_of": 0.5}
    assert accuracy(rows[:1])["average_se"] == 0  # one prompt shows no spread
