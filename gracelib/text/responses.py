"""One file of generations, one teacher: every row is understood without a doubt or refused with its place.

Why so strict: a reader that guesses (which of two fields is meant, which of two answers holds) gives a ranking of
something else without a word. So what is not clear is refused before a model is loaded, in one sentence with file, line
and remedy.

The form is that of the paper's released code: the fields of the data set with a list `responses` added to each prompt.
One response a row is read too; the rows of one question are then merged. Field names are in `QUESTION`, `RESPONSES`,
`RESPONSE` and `ANSWER`; every other field is ignored. Two questions are the same if they are the same text.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from gracelib.text.rows import check_unicode, read_records, short
from gracelib.text.tasks import question_id

QUESTION = ("question", "problem", "prompt")  #: one text; two of them in a row must agree
RESPONSES = ("responses", "generations", "completions", "outputs")  #: a list of texts
RESPONSE = ("response", "generation", "completion", "output")  #: one text; rows of one question are merged
ANSWER = ("answer", "solution")  #: the first that is there: MATH has both, and its `solution` is never a response
FIELDS = ("id", *QUESTION, *RESPONSES, *RESPONSE, *ANSWER)


@dataclass(frozen=True)
class Prompt:
    """A question with the responses of one teacher. `id`: as in the file, as text, else the hash of the question."""

    id: str
    question: str
    answer: str | None
    responses: tuple[str, ...]
    where: str  #: "gen.jsonl, line 12": of merged rows the first


@dataclass(frozen=True)
class Generations:
    """All that one file holds: one teacher. `name`: the stem of the file."""

    name: str
    path: Path
    prompts: tuple[Prompt, ...]


@dataclass
class _Row:
    """What a row says; the first row of a question gathers what later ones add."""

    question: str
    responses: list[str]
    listed: bool  # held a list: nothing to merge
    where: str
    known: dict[str, tuple[str, str]] = field(default_factory=dict)  # id and answer, each with the place that says so


def read_generations(path: str | Path, *, allow_empty: bool = False) -> Generations:
    """The prompts of one file, in the order of the file, checked.

    `allow_empty`: let a response without text pass (a teacher that ended at once, in files that this package sampled).

    Raises
    ------
    FileNotFoundError
        no such file.
    ValueError
        naming file and line (row, for Parquet): an empty file; not UTF-8, not JSON, not Parquet; a row that is not an
        object; a missing or doubtful field; responses that are not a list of texts; an empty response; a question
        twice where a row holds a list; rows of a question with different ids or answers; one id for two questions.
    """
    path, first_of = Path(path), {}
    for where, record in read_records(path, FIELDS):
        row = _row(record, where, allow_empty)
        first = first_of.setdefault(row.question, row)
        if first is not row:
            _join(first, row)
    prompts, seen = [], {}
    for row in first_of.values():
        ids, answer = row.known.get("id", (question_id(row.question), row.where)), row.known.get("answer", (None, ""))
        prompt = Prompt(ids[0], row.question, answer[0], tuple(row.responses), row.where)
        if (first := seen.setdefault(prompt.id, prompt)) is not prompt:
            raise ValueError(
                f"{ids[1]}: one id for two questions: {short(prompt.id)} stands already at {first.where};"
                " give each question its own id, or drop the ids"
            )
        prompts.append(prompt)
    return Generations(Path(os.path.abspath(path)).stem, path, tuple(prompts))


def _join(first: _Row, row: _Row) -> None:
    """Adds a later row of the same question to the first."""
    if row.listed or first.listed:
        raise ValueError(
            f"{row.where}: the same question twice: {short(row.question)} stands already at {first.where};"
            " put all its responses into one list"
        )
    for what, (new, _) in row.known.items():
        old, there = first.known.setdefault(what, (new, row.where))
        if old != new:
            raise ValueError(
                f"{row.where}: conflicting {what}s for one question: {short(new)} here, {short(old)} at "
                f"{there}; make them agree, or drop the field"
            )
    first.responses += row.responses


# --- one row ------------------------------------------------------------------------------------------------


def _row(record: object, where: str, allow_empty: bool) -> _Row:
    if not isinstance(record, dict):
        raise ValueError(
            f"{where}: holds {short(record)}, not an object with a question and its responses; "
            "write one object a row (a file that is one JSON list is named .json)"
        )
    name = _the_one(record, QUESTION, where, "question")
    question = _text(record[name], f"field {name!r}", where)
    name = _the_one(record, RESPONSES + RESPONSE, where, "response")
    listed, value = name in RESPONSES, record[name]
    if listed and not isinstance(value, list):
        raise ValueError(
            f"{where}: field {name!r} must be a list of texts, it is {short(value)}; "
            f"one response a row goes into {RESPONSE[RESPONSES.index(name)]!r}"
        )
    if not listed and isinstance(value, list):
        raise ValueError(f"{where}: field {name!r} holds a list; call it {RESPONSES[RESPONSE.index(name)]!r}")
    if value == []:
        raise ValueError(f"{where}: field {name!r} is an empty list; drop the prompt or sample it again")
    texts = (
        [(v, f"response {k} of {len(value)}") for k, v in enumerate(value, 1)]
        if listed
        else [(value, f"field {name!r}")]
    )
    responses = [_text(v, what, where, allow_empty, "; drop it or sample it again") for v, what in texts]
    said = {"id": _id(record, where), "answer": _answer(record, where)}
    known = {what: (v, where) for what, v in said.items() if v is not None}
    return _Row(question, responses, listed, where, known)


def _absent(record: dict, name: str) -> bool:
    """Tables write a missing value as null or NaN."""
    value = record.get(name)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _the_one(record: dict, names: tuple[str, ...], where: str, kind: str) -> str:
    """The field among `names` that the row has. Several that say different things are no choice of ours."""
    there = [name for name in names if not _absent(record, name)]
    if not there:
        null = [name for name in names if name in record]
        has = f"{null[0]!r} is null" if null else f"it has {short(', '.join(record) or 'none')}"
        raise ValueError(f"{where}: no {kind} field; expected one of {', '.join(names)}; {has}")
    for other in there[1:]:
        if not (isinstance(record[other], str) and record[other] == record[there[0]]):
            raise ValueError(f"{where}: fields {there[0]!r} and {other!r} could both be the {kind}; drop or rename one")
    return there[0]


def _text(value: object, what: str, where: str, allow_empty: bool = False, remedy: str = "; drop the row") -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {what} must be text, it is {short(value)}; write the text alone")
    if not value.strip() and not allow_empty:
        raise ValueError(f"{where}: {what} is empty{remedy}")
    check_unicode(value, what, where)
    return value


def _whole(value: object) -> object:
    """2.0 is what a table makes of 2 in a column with gaps."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _id(record: dict, where: str) -> str | None:
    if _absent(record, "id"):
        return None
    value = _whole(record["id"])
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{where}: field 'id' must be text or a whole number, it is {short(value)}; or drop it")
    return _text(str(value), "field 'id'", where)


def _answer(record: dict, where: str) -> str | None:
    name = next((name for name in ANSWER if not _absent(record, name)), None)
    if name is None:
        return None
    value = _whole(record[name])
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: field {name!r} must be text or a number, it is {short(value)}; or drop it")
    return _text(str(value), f"field {name!r}", where, allow_empty=True).strip() or None
