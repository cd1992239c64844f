r"""Reading the final answer off a real model's response, and off a reference solution. Text in, text out: nothing
here computes what a text says, and everything is linear in its length, so that no response can hang it.

The released code of the paper looks for `\boxed{}`, then "answer is", then the last number; GSM8K ends its solutions
with `#### 18`, so that form stands second here. The order of preference is

1. the last complete `\boxed{...}` (or `\fbox{...}`);
2. `#### ...`, the last whose line is a number, or the last line whatever it holds (elsewhere `####` is a heading);
3. the last "answer is ...", "answer: ..." or `"answer": ...`, up to the end of its sentence;
4. the last number of the text.

The built-in world needs less (`is_correct`): its answers are whole numbers and every manner of its teachers ends with one,
so the last number of the text is the answer. A response that was cut off before its end therefore fails unless it happens
to stop on the right number.
"""

import re
import unicodedata
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

LONGEST = 1000  # characters: the longest reference answer of MATH has under 200; what is longer is no final answer

_BRACES = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed(?:\s{1,9}([^\s${}\\]{1,99})|\s{0,9}(\\[A-Za-z]{1,20}(?:\{[^{}]{0,99}\}){0,2}))")
_HASHES = re.compile(r"####[ \t#]{0,9}([^\n]*)")
_ANSWER_IS = re.compile(r"answer[\"'*_`]{0,3}(?:\s{1,9}is|\s{0,9}[:=])[\s\"'*_`:]{0,9}", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
_MATH = re.compile(r"\$([^$]+)\$(?![0-9])|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_KEEP = {"Cc": " ", "Cf": "", "Cs": ""}  # control characters; direction marks, joiners and the like; half characters
_LAST_FEW = 50  # places looked at from the end, so that a text of nothing but "####" costs no more than another
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER_IN_TEXT = re.compile(rf"(?:(?<![\w.)])[-\u2212])?\$?(?:{_DIGITS})")
_WORDS_OF_SCALE = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_WORLD_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_NUMBER = re.compile(rf"(-?)(?:US|USD ?)?(?:\\?\$|[€£¥₹] ?)?(-?)({_DIGITS})\.?")
_TEXT_COMMAND = re.compile(r"\\(?:text|textrm|textbf|mathrm|mbox)\s?\{([^{}]*)\}")
_UNIT_COMMAND = re.compile(_TEXT_COMMAND.pattern + r"\s?(?:\^\{?[23]\}?)?")
_SHORT_UNITS = set("m g s h l cm mm km kg mg ml ft in lb lbs oz mph kph am pm hr hrs".split())
_NOT_UNITS = set("and or to plus minus times over point half".split())  # "5 and a half" is not 5


@dataclass(frozen=True)
class FinalAnswer:
    """`text`: what was found, as written. `form`: "boxed", "hashes", "answer is", "last number"; a reference: "all"."""

    text: str
    form: str


def _last_box(text: str) -> str | None:
    """What the complete box that opens last holds; one pass, whatever is left open."""
    if "box" not in text:
        return None
    opened, best = [], (-1, None)
    for token in _BRACES.finditer(text):
        if token[0] == "}":
            if opened:
                is_box, start = opened.pop()
                if is_box and start > best[0]:
                    best = (start, text[start : token.start()])
        elif token[0].endswith("{") and token[0] != "\\{":
            opened.append((token[0] != "{", token.end()))
    for bare in _BARE_BOX.finditer(text):
        if bare.start() > best[0]:
            best = (bare.start(), bare[1] or bare[2])
    return best[1]


def _last_hashes(text: str) -> str | None:
    end = len(text.rstrip())
    for line in reversed(list(_HASHES.finditer(text))[-_LAST_FEW:]):
        said = line[1].strip()
        if said and (line.end() >= end or as_number(said) is not None):
            return said
    return None


def _last_answer_is(text: str) -> str | None:
    for start in reversed(list(_ANSWER_IS.finditer(text))[-_LAST_FEW:]):
        rest = text[start.end() : start.end() + LONGEST + 1]
        end = _SENTENCE_END.search(rest)
        math = _MATH.match(rest)
        said = next(group for group in math.groups() if group) if math else rest[: end.start()] if end else rest
        said = said if math else re.sub(r"[\"'`]\s?\}$", "", said.strip()).strip(" \t\"'*_`,")
        if said.strip(" }"):
            return said
    return None


def final_answer(response: str) -> FinalAnswer | None:
    """The final answer of a response in the first of the four forms (see above) that it holds; None without any."""
    for form, read in (("boxed", _last_box), ("hashes", _last_hashes), ("answer is", _last_answer_is)):
        said = read(response)
        if said is not None and said.strip():
            return FinalAnswer(said, form)
    last = deque(_NUMBER_IN_TEXT.finditer(response), maxlen=1)
    return FinalAnswer(last[0][0], "last number") if last else None


def reference_answer(answer: str) -> FinalAnswer:
    r"""The answer of a reference: after the last `####`, else in the last `\boxed{}`, else all. ValueError if empty."""
    said = answer.rsplit("####", 1)[1] if "####" in answer else _last_box(answer) or answer
    if not said.strip():
        raise ValueError(
            f"the reference answer {answer[:80]!r} is empty; give the answer itself, '#### 18' or '\\boxed{{18}}'"
        )
    return FinalAnswer(said, "all")


def tidy(text: str) -> str:
    r"""A final answer without what does not change it: control and direction marks, emphasis, quotes, `$..$`, `\left`.

    Texts longer than LONGEST come back empty.
    """
    return _tidy(text) if len(text) <= LONGEST else ""


@lru_cache(2048)
def _tidy(text: str) -> str:
    if text.isalnum() and text.isascii():
        return text
    if not (text.isascii() and text.isprintable()):
        text = "".join(_KEEP.get(unicodedata.category(c), c) for c in text)
    text = text.replace("\u2212", "-").replace("\u00a0", " ").replace("{,}", ",")
    text = re.sub(r"(?<!\\)\\!\s*", "", text)  # not after another backslash: two of them end a row of a matrix
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])", "", re.sub(r"\\[dt]frac", r"\\frac", text))
    text = re.sub(r"(?<!\\)\\[,;: ]", " ", re.sub(r"(?<=[0-9])\\[,;: ](?=[0-9]{3})", "", text)).strip(" \"'`*_")
    for opening, closing in (("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]"), ("$", "$")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing):
            text = text[len(opening) : -len(closing)]
    return re.sub(r"\s+", " ", text).strip(" *_").removesuffix(".").strip()


@dataclass(frozen=True)
class Number:
    value: Fraction
    percent: bool = False

    def equals(self, other: "Number") -> bool:
        """Equal to six decimals. A percent sign that only one of the two has is read either way: 5% is 5 or 0.05."""
        mine, other_value = self.value, other.value
        readings = [(mine, other_value)]
        if self.percent != other.percent:
            readings.append((mine / 100, other_value) if self.percent else (mine, other_value / 100))
        return any(abs(a - b) <= Fraction(1, 2 * 10**6) for a, b in readings)


def as_number(text: str) -> Number | None:
    r"""The number that a final answer is, exactly; None if it is more than a number.

    1,234 / $18.50 / 18 dollars / 18\text{ cm}^2 / 90^\circ / 5% / x = 5 / 3 million. Units are dropped, not compared.
    """
    text = re.sub(r"^[A-Za-z](?:_\w)?\s?=\s?", "", tidy(text))
    found = _NUMBER.match(text)
    if not found or len(found[3]) > 60 or (found[1] and found[2]):
        return None
    unit = _UNIT_COMMAND.sub(r" \1 ", text[found.end() :])
    unit, degrees = re.subn(r"^\s?(?:°|\^\s?(?:\{\s?\\circ\s?\}|\\circ))", " ", unit)
    unit, percent = re.subn(r"^\s?(?:\\?%|percent\b)", " ", unit, flags=re.IGNORECASE)
    unit = unit if percent or degrees else re.sub(r"^\s?(?:\\?\$|[€£¥₹¢])", " ", unit)
    attached, per = unit[:1].isalpha(), re.match(r"\s?/\s?(?=[A-Za-z]{3})", unit)
    unit = unit[per.end() if per else 0 :].strip(" .,;()").lower()
    words = re.split(r"[\s/,()-]+", unit) if unit else []
    if attached and words[0] not in _SHORT_UNITS:
        return None  # 5x, 5k
    for word in words:
        known = word.rstrip(".") in _SHORT_UNITS or word in ("a", "an", "of")
        if word in _NOT_UNITS or not (known or re.fullmatch(r"[a-z][a-z'’.]{2,}", word)):
            return None
    value = Fraction(found[3].replace(",", "")) * (_WORDS_OF_SCALE.get(words[0], 1) if words else 1)
    return Number(-value if found[1] or found[2] else value, bool(percent))


def first_number(text: str) -> Number | None:
    """The first number of a sentence ("36 hours"), after its last equals sign if it has one ("12 + 5 = 17 apples")."""
    said = re.split(r"=|≈", tidy(text))[-1]
    found = _NUMBER_IN_TEXT.search(said)
    return as_number(said) or (as_number(found[0]) if found else None)


def is_prose(text: str) -> bool:
    r"""Whether an answer is a sentence rather than a formula: words outside `\commands` and `\text{}`."""
    return bool(re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+\{?", r"\\", tidy(text))))


def plain(text: str) -> str:
    r"""A form in which equal spellings are equal texts: no `\text{}`, spaces between digits only, lower case."""
    text = _TEXT_COMMAND.sub(r"\1", tidy(text)).replace("\\$", "$")
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)
    text = re.sub(r"^\(([A-Za-z])\)$", r"\1", text)  # of several choices
    return text.casefold() if re.fullmatch(r"[A-Za-z]{2,}", text) else text


# --- the built-in world -------------------------------------------------------------------------------------


def last_number(text: str) -> str | None:
    """The last number written in a text of the built-in world, or None if there is none."""
    found = _WORLD_NUMBER.findall(text)
    return found[-1] if found else None


def is_correct(response: str, answer: str) -> bool:
    """Whether the last number of a response equals that of the reference. ValueError: the reference holds none."""
    said, truth = last_number(response), last_number(str(answer))
    if truth is None:
        raise ValueError(f"the reference answer {answer!r} holds no number")
    return said is not None and float(said) == float(truth)


def grade(rows: list[dict]) -> list[dict]:
    """The rows with `correct`, a list of booleans (`is_correct`) beside `responses`; rows need `answer`."""
    return [{**row, "correct": [is_correct(r, row["answer"]) for r in row["responses"]]} for row in rows]
