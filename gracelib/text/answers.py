r"""Reading the final answer off a real model's response, and off a reference solution. Text in, text out: nothing
here computes what a text says, and everything is linear in its length, so that no response can hang it.

Only what follows the thinking (`</think>`) is read: a response that ends while it thinks has no answer.

The released code of the paper looks for `\boxed{}`, then "answer is", then the last number; GSM8K ends its solutions
with `#### 18`, so that form stands second here. The order of preference is

1. the last `\boxed{...}` (or `\fbox{...}`), unless one more is left open, or it only says where the answer goes;
2. `#### ...`, the last whose line is a number, or the last line whatever it holds (elsewhere `####` is a heading);
3. the last "answer is ...", "answer: ...", "correct option is ..." or `"answer": ...`, up to the end of its sentence;
4. the last number of the text.

Where the reference is the letter of a choice, the first of these that is one, too; where it is a list, the boxes of one
sentence together.

What is known to be graded against the intent: a sentence counts for its first number ("unknown as of 2023" for 2023, "not
41 but 42" for 41); units are dropped, so "3 quarters" is right for 3 as for 0.75; a decimal comma is read as a list;
three letters or more in a row are a word, so `abc` is not `bca`; a list of numbers below a millionth is compared to six
decimals; a number without its base counts for one with it (52 for `52_8`).

The built-in world needs less (`is_correct`): its answers are whole numbers and every manner of its teachers ends with one,
so the last number of the text is the answer. A response that was cut off before its end therefore fails unless it happens
to stop on the right number.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from gracelib.text.shapes import without_thought

LONGEST = 1000  # characters: the longest reference answer of MATH has under 200; what is longer is no final answer

_BRACES = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed(?:\s{1,9}([^\s${}\\]{1,99})|\s{0,9}(\\[A-Za-z]{1,20}(?:\{[^{}]{0,99}\}){0,2}))")
_HASHES = re.compile(r"####[ \t#]{0,9}([^\n]*)")
_ANSWER_IS = re.compile(
    r"(?:answer|correct (?:option|choice))[\"'*_`]{0,3}(?:\s{1,9}is|\s{0,9}[:=])[\s\"'*_`:}]{0,9}", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
_MATH = re.compile(r"\$([^$]+)\$(?![0-9])|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_KEEP = {"Cc": " ", "Cf": "", "Cs": "", "Zs": " "}  # control characters; direction marks and the like; halves; spaces
_LAST_FEW = 50  # places looked at from the end, so that a text of nothing but "####" costs no more than another
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER_IN_TEXT = re.compile(rf"(?:(?<![\w.)])[-\u2212])?\$?(?:{_DIGITS})")
_WORLD_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_NUMBER = re.compile(
    r"(-?)(?:US|USD ?)?(\\?\$ ?|[€£¥₹] ?)?(-?)"
    r"((?:[0-9]{1,18} (?:and )?)?[0-9]{1,40}/[1-9][0-9]{0,40}(?![0-9/])"  # 3 1/2
    r"|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?![0-9,])"  # 1,23,456, as grouped in India
    rf"|(?:{_DIGITS})(?:[eE][-+]?[0-9]{{1,2}}(?![0-9]))?)\.?"
)
_GROUPED_BY_SPACES = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:(?:\\[,;: ]|[ ~])[0-9]{3})+(?![0-9])")
_REPEATING = re.compile(  # 0.1\overline{6}, or 0.1666...: what stands twice before the dots
    r"(?<![0-9])([0-9]{1,20}\.[0-9]{0,20}?)(?:\\overline\{([0-9]{1,15})\}|([0-9]{1,9}?)\3{1,15}(?:\\l?dots|\.{2,3}|…))"
)
_TEXT_COMMAND = re.compile(r"\\(?:text|textrm|textbf|mathrm|mbox)\s?\{([^{}]*)\}")
_UNIT_COMMAND = re.compile(_TEXT_COMMAND.pattern + r"\s?(?:\^\{?[23]\}?)?")
_ORDINAL = re.compile(r"(?<=[0-9])\s?(?:\^\s?\{?\s?)?(?:st|nd|rd|th)\b\s?\}?")
_SHORT_UNITS = set("m g s h l cm mm km kg mg ml ft in lb lbs oz mph kph am pm hr hrs".split())
_NOT_UNITS = set(  # "5 and x" is not 5, "one third" is not 1
    "and or to plus minus times over point half halves third thirds fourth fourths fifth fifths tenth tenths".split()
)
#: Units that may be meant as what they count: 5% is 5 or 0.05, 3 dozen eggs are 3 or 36.
_COUNTING_UNITS = {"dozen": 12, "dozens": 12, "quarter": Fraction(1, 4), "quarters": Fraction(1, 4)}
_SCALES_OF_MONEY = {"k": 10**3, "m": 10**6, "b": 10**9, "bn": 10**9}  # $5M
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_COUNTS = _TENS | {
    word: n
    for n, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_COUNT = rf"(?:(?:(?:{'|'.join(_TENS)})[ -])?(?:{'|'.join(_COUNTS)})\b)"
_SPELLED = re.compile(
    rf"(?<![\w\\.,])(?:{_COUNT}|(?:{_DIGITS})(?= (?:{'|'.join(_SCALES)}|and a half)\b))"
    rf"(?:(?: (?:{'|'.join(_SCALES)})\b)+(?: (?:and )?{_COUNT})?){{0,9}}(?: and a half\b)?",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"(?i:option |choice )?(?:\(([A-J])\)|([A-J])(?=$|[).:]))(?!.*(?<![A-Za-z\\])[A-J](?![A-Za-z]))")


@dataclass(frozen=True)
class FinalAnswer:
    """`text`: what was found, as written. `form`: "boxed", "boxes", "hashes", "answer is", "last number"."""

    text: str
    form: str


def _boxes(text: str) -> list[tuple[int, str]]:
    """(start, content) of each complete box in order, of nested ones the innermost; none where a later one is left open.

    One pass. A box that only says where the answer goes, `\\boxed{your answer}`, is none.
    """
    opened, boxes = [], []
    for token in _BRACES.finditer(text) if "box" in text else ():
        if token[0] == "}":
            is_box, start = opened.pop() if opened else (False, 0)
            if is_box and start > (boxes[-1][0] if boxes else -1):
                boxes.append((start, text[start : token.start()]))
        elif token[0].endswith("{") and token[0] != "\\{":
            opened.append((token[0] != "{", token.end()))
    boxes = sorted(boxes + [(bare.start(), bare[1] or bare[2]) for bare in _BARE_BOX.finditer(text)])
    if boxes and any(is_box and start > boxes[-1][0] for is_box, start in opened):
        return []  # that text was cut
    nothing = re.compile(r"\s*(?:(?:\\text\s?\{)?(?:(?:your|the|final)\s)*answer(?:\s(?:goes\s)?here)?\}?\s*)?", re.I)
    return [box for box in boxes if not nothing.fullmatch(box[1])]


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


def final_answers(response: str) -> Iterator[FinalAnswer]:
    """The final answer in each form (see above) that the response holds, in order of preference."""
    text = without_thought(response)
    if boxes := _boxes(text):
        yield FinalAnswer(_last_answer_is(boxes[-1][1]) or boxes[-1][1], "boxed")
        begin = max((end.end() for end in _SENTENCE_END.finditer(text, 0, boxes[-1][0])), default=0)
        yield FinalAnswer(", ".join(said for start, said in boxes if start >= begin), "boxes")
    for form, read in (("hashes", _last_hashes), ("answer is", _last_answer_is)):
        said = read(text)
        if said is not None:
            yield FinalAnswer(said, form)
    for last in deque(_NUMBER_IN_TEXT.finditer(text), maxlen=1):
        yield FinalAnswer(last[0], "last number")


def reference_answer(answer: str) -> str:
    r"""The answer of a reference: after the last `####`, else in the last `\boxed{}`, else all. ValueError if empty."""
    boxes = _boxes(answer)
    said = answer.rsplit("####", 1)[1] if "####" in answer else boxes[-1][1] if boxes else answer
    if not said.strip():
        raise ValueError(
            f"the reference answer {answer[:80]!r} is empty; give the answer itself, '#### 18' or '\\boxed{{18}}'"
        )
    return said


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
    text = re.sub(r"^\s?[\u2010-\u2013]\s?(?=[0-9.$])", "-", text.replace("\u2212", "-")).replace("{,}", ",")
    text = re.sub(r"(?<!\\)\\!\s*", "", text)  # not after another backslash: two of them end a row of a matrix
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])", "", re.sub(r"\\[dt]frac", r"\\frac", text))
    text = re.sub(r"\\langle(?![A-Za-z])", "(", re.sub(r"\\rangle(?![A-Za-z])", ")", text))
    text = _GROUPED_BY_SPACES.sub(lambda found: re.sub(r"[^0-9]", "", found[0]), text)
    text = re.sub(r"(?<!\\)\\[,;: ]", " ", text).strip(" \"'`*_").rstrip("\\ ")
    for opening, closing in (("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]"), ("$", "$")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing):
            text = text[len(opening) : -len(closing)]
    if re.fullmatch(r"\][^][]+,[^][]+[][]|\[[^][]+,[^][]+\[", text):  # ]2, 5[ is the open interval, (2, 5)
        text = text[0].replace("]", "(") + text[1:-1] + text[-1].replace("[", ")")
    return re.sub(r"\s+", " ", text).strip(" *_").removesuffix(".").strip()


@dataclass(frozen=True)
class Number:
    """`value` and what its unit counts for where that may be meant, too (1/100 for a percent sign, 12 for a dozen)."""

    value: Fraction
    unit: Fraction = Fraction(1)

    def equals(self, reference: "Number") -> bool:
        """Equal to six decimals and to a part in 2,000. A unit that one of the two lacks is read either way: 5% is 5 or
        0.05."""
        readings = [(self.value, reference.value)]
        if self.unit != reference.unit:
            readings.append((self.value * self.unit, reference.value * reference.unit))
        return any(abs(a - b) <= min(Fraction(1, 2 * 10**6), abs(b) / 2000) for a, b in readings)


def _in_digits(spelled: re.Match[str]) -> str:
    """7500 for "7 thousand five hundred", 5/2 for "two and a half"."""
    values, done, value = {**_COUNTS, "and": 0, "a": 0, "half": Fraction(1, 2)}, Fraction(0), Fraction(0)
    for word in re.findall(r"[0-9.,]+|[a-z]+", spelled[0].lower()):
        if word in _SCALES:
            value *= _SCALES[word]
            done, value = (done, value) if word == "hundred" else (done + value, Fraction(0))
        else:
            value += values[word] if word in values else Fraction(word.replace(",", ""))
    return str(done + value)


def _as_fraction(repeating: re.Match[str]) -> str:
    start, period = repeating[1], repeating[2] or repeating[3]
    places = len(start) - start.index(".") - 1
    return str(Fraction(start + "0") + Fraction(int(period), (10 ** len(period) - 1) * 10**places))


def as_number(text: str) -> Number | None:
    r"""The number that a final answer is, exactly; None if it is more than a number.

    1,234 / $18.50 / 18 dollars / 18\text{ cm}^2 / 90^\circ / 5% / x = 5 / 3 million / 3 1/2 / 1.5e3 / 0.\overline{3} /
    two and a half / 42nd. Units are dropped, not compared.
    """
    text = re.sub(r"^[A-Za-z](?:_\w)?\s?=\s?", "", tidy(text))
    text = re.sub(r"\s?\\(?:text|mathrm)\s?\{\s?([A-Za-z\\$ -]+)\}\s?(?!\^)", r" \1 ", text)
    text = _SPELLED.sub(_in_digits, _REPEATING.sub(_as_fraction, _ORDINAL.sub("", text.strip())), 1)
    found = _NUMBER.match(text)
    if not found or len(found[4]) > 60 or (found[1] and found[3]):
        return None
    unit = _UNIT_COMMAND.sub(r" \1 ", text[found.end() :])
    unit, degrees = re.subn(r"^\s?(?:°|\^\s?(?:\{\s?\\circ\s?\}|\\circ))", " ", unit)
    unit, percent = re.subn(r"^\s?(?:\\?%|percent\b)", " ", unit, flags=re.IGNORECASE)
    unit = unit if percent or degrees else re.sub(r"^\s?(?:\\?\$|[€£¥₹¢])", " ", unit)
    attached, per = unit[:1].isalpha(), re.match(r"\s?/\s?(?=[A-Za-z]{3})", unit)
    unit = unit[per.end() if per else 0 :].strip(" .,;()").lower()
    words = re.split(r"[\s/,()-]+", unit) if unit else []
    value = sum(Fraction(part.replace(",", "")) for part in re.split(r" (?:and )?", found[4]))
    if found[2] and words and words[0] in _SCALES_OF_MONEY:
        value *= _SCALES_OF_MONEY[words.pop(0)]
    elif attached and words[0] not in _SHORT_UNITS:
        return None  # 5x, 5k
    for word in words:
        known = word.rstrip(".") in _SHORT_UNITS or word in ("a", "an", "of")
        if word in _NOT_UNITS or word in _COUNTS or word in _SCALES:
            return None
        if not (known or re.fullmatch(r"[a-z][a-z'’.]{2,}", word)):
            return None
    counts = Fraction(1, 100) if percent else _COUNTING_UNITS.get(words[0], 1) if words else 1
    return Number(-value if found[1] or found[3] else value, Fraction(counts))


def first_number(text: str) -> Number | None:
    """The first number of a sentence ("36 hours"), after its last equals sign if it has one ("12 + 5 = 17 apples")."""
    said = re.split(r"=|≈", tidy(text))[-1]
    found = _NUMBER_IN_TEXT.search(said)
    return as_number(said) or (as_number(found[0]) if found else None)


def is_prose(text: str) -> bool:
    r"""Whether an answer is a sentence rather than a formula: words outside `\commands` and `\text{}`."""
    return bool(re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+\{?", r"\\", tidy(text))))


def choice(text: str) -> str | None:
    r"""The letter, A to J, of the one choice that an answer names: C, (C), option C, `\textbf{(C)}\ 15`; None for more."""
    found = _CHOICE.match(_TEXT_COMMAND.sub(r"\1", tidy(text)))
    return found and (found[1] or found[2])


def plain(text: str) -> str:
    r"""A form in which equal spellings are equal texts: no `\text{}`, spaces between digits only, lower case."""
    text = _ORDINAL.sub("", _TEXT_COMMAND.sub(r"\1", tidy(text)).replace("\\$", "$"))
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", re.sub(r",?\sand\s", ",", text))
    text = re.sub(r"^\(([A-Za-z])\)$", r"\1", text)  # of several choices
    text = re.sub(r"(?<=[0-9])_\{?(\w+)\}?$", lambda base: f"_{_COUNTS.get(base[1].lower(), base[1])}", text)
    if re.fullmatch(r"\\emptyset|\\varnothing|∅|\\\{\\\}|none|no(?:real)?solutions?", text, re.IGNORECASE):
        return "∅"
    return text.casefold() if re.fullmatch(r"[A-Za-z]{2,}", text) else text


def are_other_texts(a: str, b: str) -> bool:
    r"""Whether two answers, not equal as `plain` texts, differ in what no formula holds: words of three letters or more,
    the base of a number (`101_2`), AM and PM."""
    texts = [_TEXT_COMMAND.sub(r"\1", tidy(one)).strip() for one in (a, b)]
    halves = [set(re.findall(r"(?<![a-z])([ap])\.?m\b", text.lower())) for text in texts]
    return (
        all(re.fullmatch(r"[A-Za-z]{3,}(?:[ -][A-Za-z]+)*", text) for text in texts)
        or all(re.fullmatch(r"[0-9A-F.]+_[0-9]+", plain(text)) for text in texts)
        or (all(halves) and halves[0] != halves[1])
    )


def as_tuples(a: str, b: str) -> tuple[str, str]:
    r"""Two answers, a column `\begin{pmatrix} 1 \\ 2 \end{pmatrix}` written as (1, 2) where the other is such a tuple."""
    if not (a.startswith("(") or b.startswith("(")):
        return a, b
    column = re.compile(r"\\begin\{[bp]?matrix\}([^&]*)\\end\{[bp]?matrix\}")
    first, second = (column.sub(lambda found: "(" + found[1].replace("\\\\", ",") + ")", one) for one in (a, b))
    return first, second


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
