"""Prompts and responses at rest: JSONL, one prompt a line, checked before any compute is spent on them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from gracelib.text.rows import check_unicode, read_records, short

_FIELDS = ("id", "question", "answer", "responses")


def question_id(question: str) -> str:
    """A stable id for a question that came without one."""
    return hashlib.blake2b(question.encode(), digest_size=8).hexdigest()


def write_jsonl(path: Path, rows: list[dict]) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path, required: tuple[str, ...] = ("question",)) -> list[dict]:
    """Rows of a JSONL file; `id` is filled in by hashing the question where it is missing.

    Raises
    ------
    FileNotFoundError
        no such file.
    ValueError
        naming file and line: what `rows.read_records` refuses; not an object; a required field missing; a question
        that is not text, an answer that is neither text nor a number, an id that is neither text nor a whole number or
        that stands twice.
    """
    return [row for _, row in _placed_rows(path, required)]


def _placed_rows(path: Path, required: tuple[str, ...]) -> list[tuple[str, dict]]:
    """The rows of a file, each with its place."""
    path, rows, seen = Path(path), [], {}
    if path.is_file() and path.suffix.lower() != ".jsonl":
        raise ValueError(f"{path}: suffix {path.suffix!r}; this is read from a .jsonl file, one object a line")
    for where, row in read_records(path, _FIELDS):
        if not isinstance(row, dict):
            raise ValueError(
                f"{where}: holds {short(row)}, not an object with {list(required)}; write one object a line"
            )
        for field in required:
            if field not in row:
                raise ValueError(f"{where}: field {field!r} is missing; it has {short(sorted(row), items=True)}")
        question, answer = row["question"], row.get("answer")
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"{where}: question {short(question)} is not text; write the question, or drop the line")
        check_unicode(question, "question", where)
        if (
            isinstance(answer, bool)
            or not isinstance(answer, str | int | float | None)
            or (isinstance(answer, float) and not math.isfinite(answer))
        ):
            raise ValueError(f"{where}: answer {short(answer)} is neither text nor a number; correct it, or drop it")
        check_unicode(answer, "answer", where)
        name = row.setdefault("id", question_id(question))
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(f"{where}: id {short(name)} is neither text nor a whole number; correct it, or drop it")
        check_unicode(name, "id", where)
        if name in seen:
            raise ValueError(
                f"{where}: id {short(name)} stands already on {seen[name]}; put all responses of a prompt on one line"
            )
        seen[name] = where.rpartition(", ")[2]
        rows.append((where, row))
    return rows


def read_responses(
    path: Path, n_prompts: int | None = None, m: int | None = None, allow_empty: bool = False
) -> list[dict]:
    """The first `n_prompts` prompts of a responses file with the first `m` responses of each.

    Raises ValueError naming file, line, prompt and remedy where fewer prompts or responses are there, or where a
    response is empty. (`allow_empty`: a teacher that we sampled ourselves may have ended at once; that is a response of
    one token, EOS, and stays in.)
    """
    rows = _placed_rows(path, ("question", "responses"))
    if n_prompts is not None and len(rows) < n_prompts:
        raise ValueError(
            f"{path}: {len(rows)} prompts, but n_prompts={n_prompts} were asked for; use n_prompts <= "
            f"{len(rows)}, or sample more"
        )
    rows = rows[:n_prompts]
    for where, row in rows:
        responses, prompt = row["responses"], f"{where}: prompt {short(row['id'])}"
        if not isinstance(responses, list):
            raise ValueError(f"{prompt}: responses must be a list of texts, not {short(responses)}")
        for k, response in enumerate(responses, 1):
            if not isinstance(response, str):
                raise ValueError(f"{prompt}: responses must be a list of texts; response {k} is {short(response)}")
            check_unicode(response, f"response {k}", where)
        if len(responses) < (m or 1):
            raise ValueError(
                f"{prompt} has {len(responses)} responses, m={m or 1} were asked for; drop the prompt, sample "
                "more, or ask for fewer"
            )
        row["responses"] = responses[:m]
        for k, response in enumerate(row["responses"], 1):
            if not response.strip() and not allow_empty:
                raise ValueError(f"{prompt}: response {k} is empty; drop it or sample it again")
    return [row for _, row in rows]
