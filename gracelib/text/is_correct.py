"""Final answers: how one is read off a response, and whether it is right.

The world's answers are whole numbers and every manner ends with one, so the last number of the text is the answer; a
response that was cut off before its end therefore fails unless it happens to stop on the right number.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def final_answer(text: str) -> str | None:
    """The last number written in a text, or None if there is none."""
    found = _NUMBER.findall(text)
    return found[-1] if found else None


def is_correct(response: str, answer: str) -> bool:
    """Whether the response's final answer equals the reference answer as a number."""
    said, truth = final_answer(response), final_answer(str(answer))
    if truth is None:
        raise ValueError(f"the reference answer {answer!r} holds no number")
    return said is not None and float(said) == float(truth)
