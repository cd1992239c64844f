r"""A final answer is read in a stated order of preference and compared by what it says, not by how it is written; no text,
however long or hostile, breaks or delays the reading, which happens in the main process and has no time limit.

The built-in world's rule, the last number of a text, decides every accuracy of its scales: too lenient or too strict, it
moves all of them.
"""

import json
import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gracelib.models.accuracy import accuracy
from gracelib.text.answers import (
    LONGEST,
    Number,
    as_number,
    final_answers,
    first_number,
    grade,
    is_correct,
    is_prose,
    last_number,
    plain,
    reference_answer,
    tidy,
)
from gracelib.text.grading import compare
from hostile_for_tests import FIXED, HOSTILE, PIECES, TEXTS, said_in

# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "form", "text"),
    [
        (r"First \boxed{3}, no: \boxed{\frac{1}{2}}. #### 7 and the answer is 8", "boxed", r"\frac{1}{2}"),
        (r"\boxed{\text{a {nested} brace}}", "boxed", r"\text{a {nested} brace}"),
        (r"the innermost: \boxed{\boxed{5}}", "boxed", "5"),
        (r"\fbox{5}", "boxed", "5"),
        (r"\boxed 5", "boxed", "5"),
        (r"\boxed{} is empty. #### 4", "hashes", "4"),
        (r"\boxed{5 is never closed. #### 4", "hashes", "4"),
        (r"\boxed{42} is wrong, so \boxed{4", "last number", "4"),
        (r"I will answer in \boxed{your answer}. The answer is 42", "answer is", "42"),
        (r"\boxed{\text{The answer is } 42}", "boxed", "42"),
        (r"<think>\boxed{41}</think> It is 42.", "last number", "42"),
        (r"<|begin_of_thought|>\boxed{1}<|end_of_thought|>It is 42.<|end_of_solution|>", "last number", "42"),
        (r"<think>Perhaps \boxed{42}? Let me check", None, None),
        ("9 * 2 = 18\n#### 18", "hashes", "18"),
        ("#### Step 3: add\nthe sum is 8.\nThe answer is 8.", "answer is", "8"),
        ("#### 18\nI hope this helps with question 2", "hashes", "18"),
        ("#### 18\n####\n", "hashes", "18"),
        ("Answer: 3\nNo. The final answer is: **12**.", "answer is", "12"),
        ("The answer is $x = 5$ because 3 + 2.", "answer is", "x = 5"),
        ('{"reasoning": "2 + 2", "answer": "4"}', "answer is", "4"),
        ("**Answer:** 4", "answer is", "4"),
        ("The answer to this is 2.50, not 3 - 4", "last number", "4"),
        ("from -7 to -8", "last number", "-8"),
        ("3-4", "last number", "4"),
        ("it costs $1,250.50.", "last number", "$1,250.50"),
        ("I do not know.", None, None),
        ("", None, None),
    ],
)
def test_the_answer_is_read_in_the_stated_order_of_preference(response, form, text):
    found = next(final_answers(response), None)
    assert (found and found.form, found and found.text) == (form, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("1,234", 1234),
        ("1,234,567.5", "1234567.5"),
        ("$18.50", "18.5"),
        (r"\$18.50", "18.5"),
        ("-$5", -5),
        ("$-5", -5),
        ("18 dollars", 18),
        ("18 dollars per hour", 18),
        ("$9/year", 9),
        ("5 cm", 5),
        ("5cm", 5),
        ("5 pm", 5),
        (r"15\mbox{ cm}^2", 15),
        (r"90^\circ", 90),
        (r"90^{\circ}", 90),
        ("90°", 90),
        ("x = 5", 5),
        ("**18**", 18),
        (r"$18$", 18),
        (r"\(18\)", 18),
        (r"10,\!080", 10080),
        (r"11,\! 111,\! 111,\! 100", 11111111100),
        ("1{,}000", 1000),
        (r"1\,000", 1000),
        (".35625", "0.35625"),
        ("18.", 18),
        ("3 million", 3 * 10**6),
        (r"3 \text{ million}", 3 * 10**6),
        ("\u22125", -5),
        ("5 euros", 5),
        ("€5", 5),
        ("5€", 5),
        ("005", 5),
        ("6 car washes/month", 6),
        ('"42"', 42),
        ("\u20137", -7),
        ("42\\\\", 42),
        ("$5M", 5 * 10**6),
        (r"42^\text{nd}", 42),
        (r"\text{\$}42", 42),
        ("1.5e3", 1500),
        ("-2.5E-3", "-0.0025"),
        ("3 1/2", "3.5"),
        ("5 and 1/2 cups", "5.5"),
        ("5 and a half", "5.5"),
        ("two and a half", "2.5"),
        (r"\text{seven}", 7),
        ("7 thousand five hundred", 7500),
        ("2 hundred thousand", 200000),
        (r"0.1\overline{6}", "1/6"),
        (r"0.666\ldots", "2/3"),
        ("0.1212...", "4/33"),
        (r"\text{sixty-one}", 61),
        ("12 500", 12500),
        ("1\u202f250\u202f000", 1250000),
        ("1~250", 1250),
        ("1,23,456", 123456),
    ],
)
def test_numbers_are_read_exactly_whatever_dresses_them(text, value):
    assert as_number(text) == Number(Fraction(value))


@pytest.mark.parametrize(
    ("text", "number"),
    [(text, Number(Fraction(5), Fraction(1, 100))) for text in ("5%", r"5\%", "5 percent", "$5\\%$", r"5 \%")]
    + [
        (text, None)
        for text in (
            "5x",
            "5 x",
            "5k",
            "5!",
            "--5",
            "-$-5",
            "1,2",
            "12,34",
            "1,-2",
            "3, 5, 7",
            "(1,2)",
            "52_8",
            "one third",
            "two three",
            "5 thousand and x",
            "3 1/0",
            "9/11/2001",
            "5 or 6",
            "5 to 1",
            r"5\pi",
            r"\frac{1}{2}",
            "5-3",
            "5 + 3",
            "5 - m",
            "2^3",
            "2e^3",
            "0.5(3)",
            "",
            "x",
            "٣",
            "9" * 61,
            "1.2.3",
        )
    ],
)
def test_a_percent_sign_is_remembered_and_what_is_more_than_a_number_is_none(text, number):
    assert as_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("36 hours and 12 minutes", Number(Fraction(36))),
        ("12 + 5 = 17 apples on 3 trees", Number(Fraction(17))),
        ("cannot be determined", None),
    ],
)
def test_a_sentence_counts_for_its_first_number_after_the_last_equals_sign(text, number):
    assert first_number(text) == number


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{even}", "Even"),
        (r"\text{(C)}", "C"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"\dfrac12", r"\frac12"),
        (r"\text{A and B}", "A, B"),
        (r"\text{June 5th}", "June 5"),
        (r"\emptyset", r"\text{no solution}"),
        (r"204_{\text{five}}", "204_5"),
        ("]2, 5]", "(2,5]"),
        (r"\langle 1, 2 \rangle", "(1,2)"),
    ],
)
def test_equal_spellings_are_equal_texts(a, b):
    assert plain(a) == plain(b)
    assert plain("3 5") != plain("35")  # a space between digits stays
    assert tidy(r"\begin{pmatrix} 1 \\ 2 \\! \end{pmatrix}") == r"\begin{pmatrix} 1 \\ 2 \\! \end{pmatrix}"  # rows too


def test_references_may_be_solutions_or_bare():
    given = ("2 + 2 = 4\n#### 4", r"so it is $\boxed{\frac{1}{2}}$", "p - q")
    assert [reference_answer(text).strip() for text in given] == ["4", r"\frac{1}{2}", "p - q"]
    for empty in ("", "  ", "2 + 2 = 4\n#### "):
        with pytest.raises(ValueError, match="is empty; give the answer itself"):
            reference_answer(empty)


# --- whatever a model writes --------------------------------------------------------------------------------

REFERENCES = TEXTS | st.sampled_from(["7", r"\frac{1}{2}", "x+1"])


@settings(max_examples=400, **FIXED)
@given(
    text=TEXTS | st.text(max_size=300) | st.text("\\{}$#()[]0123456789.,-=%^_ \nboxedanswris:", max_size=300),
    reference=REFERENCES,
)
def test_any_text_is_read_and_compared_or_its_reference_refused(text, reference):
    found = next(final_answers(text), None)
    assert found is None or (found.text.strip() and found.text in text)
    assert len(tidy(text)) <= LONGEST and is_correct(text, "7") in (True, False)
    for function in (plain, as_number, first_number, is_prose, last_number):
        function(text)
    try:
        verdict = compare(text, reference)
    except ValueError as error:
        assert "reference answer" in str(error) or "empty" in str(error), error
        return
    assert isinstance(verdict, bool) or all(len(one) <= LONGEST + 1 for one in verdict)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], **FIXED)
@given(piece=PIECES, close=PIECES)
def test_a_megabyte_is_read_in_seconds(piece, close):
    text = piece * (2**20 // len(piece)) + close
    began = time.process_time()
    [*final_answers(text)], last_number(text), compare(text, "7")
    assert time.process_time() - began < 10  # quiet: under one


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_reading_a_hostile_answer_takes_time_linear_in_its_length(path):
    case = json.loads(path.read_text("utf-8"))
    response = said_in(case)
    began = time.process_time()
    compare(response, case["answer"])
    assert time.process_time() - began < 0.5 + 3e-6 * len(response)


# --- the built-in world -------------------------------------------------------------------------------------


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
    assert last_number(text) == expected


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
