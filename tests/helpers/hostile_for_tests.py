"""Texts that break readers and parsers: the corpus of tests/bad_inputs/grading, and pieces to put such texts together."""

from pathlib import Path

from hypothesis import strategies as st

HOSTILE = sorted((Path(__file__).parents[1] / "bad_inputs" / "grading").glob("*.json"))  #: files that say what they are
FIXED = {"derandomize": True, "database": None, "deadline": None}  #: the same examples in every run
BITS = (
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
)
PIECES = st.sampled_from(BITS)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)


def said_in(case: dict) -> str:
    """The response of a file of the corpus, whose long texts are written as [piece, times]."""
    return "".join(piece * times for piece, times in case["response"])
