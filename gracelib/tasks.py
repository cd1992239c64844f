"""Prompts and responses at rest: JSONL, one prompt a line, checked before any compute is spent on them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


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
    ValueError
        naming file and line: not JSON, not an object, a required field missing, a question that is not text, or an
        id that stands twice.
    """
    path, rows, seen = Path(path), [], {}
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not valid JSON ({error}); write one object a line") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where}: holds a {type(row).__name__}, not an object with {list(required)}")
            for field in required:
                if field not in row:
                    raise ValueError(f"{where}: field {field!r} is missing; it has {sorted(row)}")
            if not isinstance(row["question"], str) or not row["question"].strip():
                raise ValueError(f"{where}: question {row['question']!r} is not text")
            row.setdefault("id", question_id(row["question"]))
            if not isinstance(row["id"], str | int):
                raise ValueError(f"{where}: id {row['id']!r} is neither text nor a whole number")
            if row["id"] in seen:
                raise ValueError(f"{where}: id {row['id']!r} stands already on line {seen[row['id']]}; "
                                 "put all responses of a prompt on one line")
            seen[row["id"]] = number
            rows.append(row)
    if not rows:
        raise ValueError(f"{path}: no prompts in it; expected one JSON object a line")
    return rows


def read_responses(path: Path, n_prompts: int | None = None, m: int | None = None,
                   allow_empty: bool = False) -> list[dict]:
    """The first `n_prompts` prompts of a responses file with the first `m` responses of each.

    Raises ValueError naming file, prompt and remedy where fewer prompts or responses are there, or where a response
    is empty. (`allow_empty`: a teacher that we sampled ourselves may have ended at once; that is a response of one
    token, EOS, and stays in.)
    """
    rows = read_jsonl(path, required=("question", "responses"))
    if n_prompts is not None and len(rows) < n_prompts:
        raise ValueError(f"{path}: {len(rows)} prompts, but n_prompts={n_prompts} were asked for")
    rows = rows[:n_prompts]
    for row in rows:
        responses = row["responses"]
        if not isinstance(responses, list) or not all(isinstance(r, str) for r in responses):
            raise ValueError(f"{path}: prompt {row['id']!r}: responses must be a list of texts")
        if m is not None and len(responses) < m:
            raise ValueError(f"{path}: prompt {row['id']!r} has {len(responses)} responses, m={m} were asked for")
        row["responses"] = responses[:m]
        for k, response in enumerate(row["responses"]):
            if not response.strip() and not allow_empty:
                raise ValueError(f"{path}: prompt {row['id']!r}: response {k} is empty; drop it or sample it again")
    return rows
