r"""Whatever a model writes, it gets a verdict in bounded time, and the answer after it gets the right one.

Texts are put together from what breaks readers and parsers: towers of powers, factorials, braces and boxes without end,
control characters, marks of direction, half characters. The corpus of known ones is tests/bad_inputs/grading.
"""

import time
import warnings

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gracelib.text import answers as final_answers
from gracelib.text import is_correct
from gracelib.text.grading import Grader, compare, grade_rows
from gracelib.text.tasks import read_responses, write_jsonl

PIECES = st.sampled_from(
    [
        "9^",
        "^{9",
        "9!",
        "!!",
        "{",
        "}",
        "{" * 500,
        "}" * 500,
        r"\boxed{",
        r"\boxed",
        r"\frac{",
        r"\sqrt[",
        r"\binom{9",
        r"\int_0^",
        r"\sum_{i=1}^{",
        r"\begin{matrix}",
        "&",
        "\\\\",
        r"\text{",
        "####",
        "answer is",
        "$",
        r"\(",
        r"\[",
        "(" * 50,
        "|",
        "=",
        "<",
        ",",
        "1e999",
        "9" * 400,
        "0.",
        ".",
        "-",
        "%",
        "1/0",
        "\0",
        "\x1b[2J",
        "\u202e",
        "\u200f",
        "\ufeff",
        "\ud800",
        "٣",
        "²",
        "∞",
        "\n",
        " ",
        "x",
        "import os",
        "__class__",
        "lambda: 1",
        r"\def\a{\a\a}\a",
        r"\input{/etc/passwd}",
        "7",
        "42",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)
FIXED = {"derandomize": True, "database": None, "deadline": None}


@settings(max_examples=300, **FIXED)
@given(text=TEXTS, reference=TEXTS | st.sampled_from(["7", r"\frac{1}{2}", "x+1"]))
def test_reading_a_final_answer(text, reference):
    found = final_answers.final_answer(text)
    assert found is None or found.text in text
    for function in (
        final_answers.tidy,
        final_answers.plain,
        final_answers.as_number,
        final_answers.first_number,
        final_answers.is_prose,
        is_correct.final_answer,
    ):
        function(text)
    assert is_correct.is_correct(text, "7") in (True, False)
    try:
        verdict = compare(text, reference)
    except ValueError as error:
        assert "reference answer" in str(error) or "empty" in str(error), error
        return
    assert isinstance(verdict, bool) or all(len(one) <= final_answers.LONGEST + 1 for one in verdict)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], **FIXED)
@given(piece=PIECES, close=PIECES)
def test_a_megabyte_is_read_in_seconds(piece, close):
    text = piece * (2**20 // len(piece)) + close
    began = time.process_time()
    final_answers.final_answer(text)
    is_correct.final_answer(text)
    compare(text, "7")
    assert time.process_time() - began < 10  # quiet: under one


def test_hostile_formulas_cost_their_own_verdict_alone():
    """Forty formulas in one run of the grader with short limits; between any two an answer that is right."""
    made = []

    @settings(max_examples=40, **FIXED)
    @given(
        st.lists(PIECES.filter(lambda piece: len(piece) < 60 and "\ud800" not in piece), min_size=1, max_size=6).map(
            "".join
        )
    )
    def collect(text):
        made.append(text)

    collect()
    pairs = []
    for i, text in enumerate(made):
        pairs += [
            (rf"So it is \boxed{{{text}}}", r"\frac{1}{2}"),
            (rf"\boxed{{\frac{{{i + 1}}}{{{2 * i + 2}}}}}", r"\frac12"),
        ]
    pairs += [(r"\boxed{9^{9^{9^{9}}}}", "x+1"), (r"\boxed{\frac{2}{4}}", r"\frac{1}{2}")]
    began = time.monotonic()
    with Grader(timeout_s=0.5, memory_mb=256, workers=1) as grader:
        verdicts = grader.grade(pairs)
    assert verdicts[1::2] == [True] * (len(made) + 1), "an answer after a hostile one was not graded"
    assert verdicts[-2] is False and all(isinstance(verdict, bool) for verdict in verdicts)
    assert grader.n_timed_out <= len(pairs) // 4 and time.monotonic() - began < 400


def test_a_killed_worker_costs_one_verdict_and_the_file_is_graded(tmp_path):
    rows = [
        {"id": str(i), "question": f"q{i}?", "answer": r"\frac{1}{2}", "responses": [text, r"\boxed{\frac{3}{6}}"]}
        for i, text in enumerate([r"\boxed{9^{9^{9^{9^{9}}}}}", r"\boxed{10000000!!}", r"\boxed{\frac{1}{2}}"])
    ]
    write_jsonl(tmp_path / "out.jsonl", rows)
    read = read_responses(tmp_path / "out.jsonl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that answers were stopped is said; it may be the time or the memory
        found = grade_rows(read, timeout_s=0.5, workers=1)
    assert [row["correct"][1] for row in found] == [True] * 3 and [row["correct"][0] for row in found] == [
        False,
        False,
        True,
    ]
