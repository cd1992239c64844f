"""Prompts and responses at rest, ours and other people's: every row is understood without a doubt or refused with its place.

Why so strict: a reader that guesses (which of two fields is meant, which of two answers holds) gives a ranking of
something else without a word. So what is not clear is refused before a model is loaded, in one sentence with file, line
and remedy.

The form is that of the paper's released code: the fields of the data set with a list `responses` added to each prompt.
Our own files (`read_jsonl`, `read_responses`) hold one prompt per line under fixed names, and rows come back as they
stand. Other people's (`read_generations`) have one of the shapes in `gracelib.text.shapes`. Rows of one response are
merged by their question. Every other field is ignored. Two questions are the same if they are the same text.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gracelib.checks import check_choice
from gracelib.text.formats import read_records, short, stem_of, text_of
from gracelib.text.shapes import LISTS, SHAPES, Shape, is_chat, question_in, responses_in, shape_of, without_thought

ANSWER = ("answer", "solution")  #: the first that is there: MATH has both, and its `solution` is never a response
#: Why each response ended, in a list beside a list of responses, or of the one response; it was cut if one of CUT.
REASONS, CUT = ("finish_reasons", "finish_reason"), ("length", "max_tokens")
THOUGHTS = ("reasoning_content", "deepseek_reasoning")  #: what was thought before it, likewise
FIELDS = ("id", *ANSWER, *REASONS, "n_truncated", *THOUGHTS, "error", "filter")
FIELDS = tuple(dict.fromkeys([*FIELDS, *(name for shape in SHAPES for name in shape.question + shape.response)]))
_AGAIN = "drop it or sample it again"


@dataclass(frozen=True)
class Prompt:
    """A question with the responses of one teacher. `id`: as in the file, as text, else the hash of the question."""

    id: str
    question: str
    answer: str | None
    responses: tuple[str, ...]
    where: str  #: "gen.jsonl, line 12": of merged rows the first
    listed: bool = True  #: whether the responses stood in a list, to which no other row may add
    cut: frozenset[int] = frozenset()  #: the responses, counted from 0, that a limit of tokens cut
    n_thought: int = 0  #: responses with reasoning, kept or dropped
    n_unfinished: int = 0  #: responses left out, because without their reasoning nothing is left


@dataclass(frozen=True)
class Generations:
    """All that one file holds: one teacher. `name`: the stem of the file."""

    name: str
    path: Path
    prompts: tuple[Prompt, ...]


def question_id(question: str) -> str:
    """A stable id for a question that came without one."""
    return hashlib.blake2b(question.encode(), digest_size=8).hexdigest()


# --- files of this package ----------------------------------------------------------------------------------


def write_jsonl(path: Path, rows: list[dict]) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path, required: tuple[str, ...] = ("question",)) -> list[dict]:
    """Rows of a JSONL file as they stand; `id` is filled in by hashing the question where it is missing.

    Raises
    ------
    FileNotFoundError
        no such file.
    ValueError
        naming file and line: what `formats.read_records` refuses; a required field missing; a question that is not text,
        an answer that is neither text nor a number, an id that is neither text nor a whole number or that stands twice.
    """
    return list(_placed(path, required).values())


def _placed(path: Path, required: tuple[str, ...]) -> dict[str, dict]:
    """The rows of a file by their places."""
    rows, first = {}, {}
    for where, row in read_records(path, FIELDS):
        for name in required:
            if name not in row:
                raise ValueError(f"{where}: field {name!r} is missing; it has {short(sorted(row), items=True)}")
        row.setdefault("id", question_id(text_of(row["question"], "field 'question'", where)))
        plain_of(row["id"], "id", where)
        if row.get("answer") is not None:
            plain_of(row["answer"], "answer", where)
        if first.setdefault(row["id"], where) != where:
            there = first[row["id"]].rpartition(", ")[2]
            raise ValueError(
                f"{where}: id {short(row['id'])} stands already on {there}; put all responses of a prompt on one line"
            )
        rows[where] = row
    return rows


def read_responses(
    path: Path, n_prompts: int | None = None, m: int | None = None, allow_empty: bool = False, cut: bool = False
) -> list[dict]:
    """The first `n_prompts` prompts of a responses file with the first `m` responses of each; with `cut` each row's
    `cut` says which of them a limit of tokens cut (`cut_of`).

    Raises ValueError naming file, line, prompt and remedy where fewer prompts or responses are there, or where a
    response is empty. (`allow_empty`: a teacher that we sampled ourselves may have ended at once; that is a response of
    one token, EOS, and stays in.)
    """
    rows = _placed(path, ("question", "responses"))
    if n_prompts is not None and len(rows) < n_prompts:
        raise ValueError(
            f"{path}: {len(rows)} prompts, but n_prompts={n_prompts} were asked for; use n_prompts <= "
            f"{len(rows)}, or sample more"
        )
    for where, row in list(rows.items())[:n_prompts]:
        prompt, there = f"{where}: prompt {short(row['id'])}", row["responses"]
        if not isinstance(there, list):
            raise ValueError(f"{prompt}: responses must be a list of texts, not {short(there)}")
        if len(there) < (m or 1):
            raise ValueError(
                f"{prompt} has {len(there)} responses, m={m or 1} were asked for; drop the prompt, sample "
                "more, or ask for fewer"
            )
        row["responses"] = _texts(there, prompt, allow_empty=True)[:m]
        if cut:
            row["cut"] = cut_of(row, len(there), prompt)
        _texts(row["responses"], prompt, allow_empty)  # an empty one is no harm where it is not used
    return list(rows.values())[:n_prompts]


# --- files of others ----------------------------------------------------------------------------------------


def read_generations(
    path: str | Path,
    *,
    allow_empty: bool = False,
    thinking: str = "keep",
    requests: dict[str, str] | None = None,
    drop_text: Sequence[str] = (),
) -> Generations:
    """The prompts of one file (or data set: `formats.read_records`), in the order of the file, checked.

    allow_empty: let a response without text pass (a teacher that ended at once, in files that this package sampled).
    thinking: "keep" reasoning, between <think> and </think> before the response where it was in a field of its own, or
        "drop" it. requests: questions by `custom_id` (`read_requests`), for the output of a batch.
    drop_text: texts that are taken out of every question; white space in them stands for any.

    Raises
    ------
    FileNotFoundError
        no such file.
    ValueError
        naming file and line (row, for Parquet): what `formats.read_records` refuses; a missing or doubtful field; a chat
        of several turns; a request that failed; responses that are not a list of texts; an empty response; a question
        twice where a row holds a list; rows of a question with different ids or answers; one id for two questions.
    """
    check_choice("thinking", thinking, ("keep", "drop"))
    path, found = Path(path), {}
    for where, record in read_records(path, FIELDS):
        row = _prompt(record, where, allow_empty, thinking, requests or {}, drop_text)
        first = found.get(row.question)
        if first and "filter" in record and first.responses == row.responses:
            continue  # lm-evaluation-harness writes a row for each filter of the answers
        found[row.question] = _joined(first, row) if first else row
    prompts = tuple(replace(row, id=row.id or question_id(row.question)) for row in found.values())
    check_ids(prompts)
    return Generations(stem_of(Path(os.path.abspath(path))), path, prompts)


def read_requests(paths: Iterable[str | Path]) -> dict[str, str]:
    """The question of each `custom_id` in the request files of batches. ValueError as `read_generations`; also for one
    `custom_id` with two questions."""
    found = {}
    for path in paths:
        for where, row in read_records(path, ("custom_id", "body")):
            body = row.get("body")
            if not isinstance(body, dict) or not isinstance(row.get("custom_id"), str):
                raise ValueError(f"{where}: no request of a batch; expected fields 'custom_id' and 'body'")
            name = next((name for name in ("messages", "prompt", "input") if name in body), "messages")
            question = text_of(question_in(body.get(name), name, where), f"field {name!r}", where)
            if found.setdefault(row["custom_id"], question) != question:
                raise ValueError(
                    f"{where}: one custom_id for two questions: {short(row['custom_id'])} is {short(question)} here, "
                    f"but {short(found[row['custom_id']])} before; score the teachers of each batch apart"
                )
    return found


def check_ids(prompts: Iterable[Prompt]) -> None:
    """ValueError for one id with two questions: rows counted from 0 in every file would otherwise pass for a match."""
    seen = {}
    for p in prompts:
        if (first := seen.setdefault(p.id, p)).question != p.question:
            raise ValueError(
                f"{p.where}: one id for two questions: {short(p.id)} is {short(p.question)} here, but "
                f"{short(first.question)} at {first.where}; make ids and questions agree, or drop the ids"
            )


def _joined(first: Prompt, row: Prompt) -> Prompt:
    """A question with what a later row of it adds."""
    if row.listed or first.listed:
        raise ValueError(
            f"{row.where}: the same question twice: {short(row.question)} stands already at {first.where};"
            " put all its responses into one list"
        )
    for what, old, new in (("id", first.id, row.id), ("answer", first.answer, row.answer)):
        if old and new and old != new:
            raise ValueError(
                f"{row.where}: conflicting {what}s for one question: {short(new)} here, {short(old)} at "
                f"{first.where} or after it; make them agree, or drop the field"
            )
    return replace(
        first,
        id=first.id or row.id,
        answer=first.answer or row.answer,
        responses=first.responses + row.responses,
        cut=first.cut | {len(first.responses) + k for k in row.cut},
        n_thought=first.n_thought + row.n_thought,
        n_unfinished=first.n_unfinished + row.n_unfinished,
    )


def _prompt(
    record: dict, where: str, allow_empty: bool, thinking: str, requests: dict[str, str], drop_text: Sequence[str]
) -> Prompt:
    """What one row says; `id` is empty where it has none."""
    there = known(record)
    answered = there.get("response")
    if "custom_id" in there and (
        "error" in there or (isinstance(answered, dict) and (answered.get("status_code") or 200) != 200)
    ):
        said = short(there.get("error", answered), items=True)
        raise ValueError(f"{where}: this request of the batch failed ({said}); drop the line, or send it again")
    shape = shape_of(there, record)
    question = question_of(there, record, shape, where, requests)
    for text in filter(str.split, drop_text):
        rest = re.sub(r"\s+".join(map(re.escape, text.split())), " ", question)
        question = question if rest == question else text_of(rest.strip(), "the question without --drop-text", where)
    name = _the_one(there, record, shape.response, where, "response")
    said = responses_in(there[name], name, where, whole=name in shape.question)
    if not said:
        raise ValueError(f"{where}: field {name!r} is an empty list; drop the prompt or sample it again")
    listed = isinstance(there[name], list) and not is_chat(there[name])
    if name in LISTS and not listed and re.fullmatch(r"\[['\"].*['\"]\]", str(said[0].text), re.DOTALL):
        raise ValueError(
            f"{where}: field {name!r} is a list that was saved as text, {short(said[0].text)}; save the list"
        )
    was_cut = cut_of(there, len(said), where) | {k for k, one in enumerate(said) if str(one.reason).lower() in CUT}
    kept, n_thought = [], 0
    for k, (one, thought) in enumerate(zip(said, _beside(there, THOUGHTS, len(said), where), strict=True)):
        what = f"response {k + 1} of {len(said)}" if listed or len(said) > 1 else f"field {name!r}"
        thought = text_of(one.thought or thought or "", f"the reasoning of {what}", where, allow_empty=True).strip()
        text = text_of((one.text or "") if thought else one.text, what, where, allow_empty or bool(thought), _AGAIN)
        alone = text if thought else without_thought(text)
        if thought:  # without an answer it was cut while it thought
            text = f"<think>\n{thought}\n</think>\n\n{text}" if text else f"<think>\n{thought}"
        n_thought += text != alone
        if thinking == "keep" or alone or text == alone:
            kept.append((text if thinking == "keep" else alone, k in was_cut))
    cut = frozenset(k for k, (_, was) in enumerate(kept) if was)
    own = plain_of(there["id"], "id", where) if "id" in there and shape is SHAPES[0] else ""  # others number their rows
    answer, responses = answer_of(there, where)[1] or None, tuple(text for text, _ in kept)
    return Prompt(own, question, answer, responses, where, listed, cut, n_thought, len(said) - len(kept))


def question_of(there: dict, record: dict, shape: Shape, where: str, requests: dict[str, str] = {}) -> str:
    """What a row asks; where that is the `custom_id` of a batch, the question of this request."""
    name = _the_one(there, record, shape.question, where, "question")
    question = text_of(question_in(there[name], name, where, whole=name in shape.response), f"field {name!r}", where)
    if name != "custom_id":
        return question
    if question not in requests:
        which = "none of the request files has it" if requests else "no prompts stand in the output of a batch"
        raise ValueError(
            f"{where}: custom_id {short(question)}: {which}; give the file of its requests: --requests FILE"
        )
    return requests[question]


# --- one field ----------------------------------------------------------------------------------------------


def known(record: dict) -> dict:
    """What a row says, without what a table makes of gaps in a column: null and NaN, and 2.0 of a 2."""
    blank = {"input": "", "context": ""}  # beside an instruction that says it all
    there = {k: v for k, v in record.items() if not (v is None or v != v or v == blank.get(k))}
    return {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in there.items()}


def answer_of(there: dict, where: str) -> tuple[str, str]:
    """The field that counts as the answer, and the answer as text; two empty texts if there is none."""
    name = next((name for name in ANSWER if name in there), "")
    return name, plain_of(there[name], name, where).strip() if name else ""


def cut_of(there: dict, n: int, where: str) -> frozenset[int]:
    """Which of a row's `n` responses, counted from 0, a limit of tokens cut: `finish_reasons` or `finish_reason` says it,
    else `n_truncated` where it is 0 or n. ValueError naming the place for a doubt."""
    if any(there.get(name) is not None for name in REASONS):
        return frozenset(k for k, one in enumerate(_beside(there, REASONS, n, where)) if str(one).lower() in CUT)
    if (n_cut := there.get("n_truncated") or 0) not in (0, n):
        raise ValueError(
            f"{where}: n_truncated is {short(n_cut)}: some of {n} responses were cut, but not which; add finish_reasons, "
            "a list with 'stop' or 'length' for each, or sample them again"
        )
    return frozenset(range(n_cut))


def _beside(there: dict, names: tuple[str, ...], n: int, where: str) -> list:
    """What one of `names` says of each of a row's `n` responses: a list beside a list, one value beside one."""
    name = next((name for name in names if there.get(name) is not None), "")
    said = there.get(name, [None] * n)
    said = said if isinstance(said, list) else [said]
    if len(said) != n:
        raise ValueError(f"{where}: field {name!r} speaks of {len(said)} of {n} responses; write one for each")
    return said


def plain_of(value: object, name: str, where: str) -> str:
    """An id, or an answer, as text."""
    kinds, said = (str | int, "a whole number") if name == "id" else (str | int | float, "a number")
    no_number = isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))
    if no_number or not isinstance(value, kinds):
        raise ValueError(f"{where}: field {name!r} must be text or {said}, it is {short(value)}; correct or drop it")
    return text_of(str(value), f"field {name!r}", where, allow_empty=name != "id")


def _texts(texts: list, where: str, allow_empty: bool) -> list[str]:
    return [
        text_of(text, f"response {k} of {len(texts)}", where, allow_empty, _AGAIN) for k, text in enumerate(texts, 1)
    ]


def _the_one(there: dict, record: dict, names: tuple[str, ...], where: str, kind: str) -> str:
    """The field among `names` that the row has. Several that say different things are no choice of ours."""
    found = [name for name in names if name in there]
    if not found:
        null = [name for name in names if name in record]
        has = f"{null[0]!r} is null" if null else f"it has {short(', '.join(record) or 'none')}"
        raise ValueError(f"{where}: no {kind} field; expected one of {', '.join(names)}; {has}")
    for other in found[1:]:
        if not (isinstance(there[other], str) and there[other] == there[found[0]]):
            raise ValueError(f"{where}: fields {found[0]!r} and {other!r} could both be the {kind}; drop or rename one")
    return found[0]
