"""Rows of JSON Lines, JSON and Parquet files that others wrote, each with its place in the file.

Why not `pandas.read_json`: it says neither which line is broken nor that a field stands there twice, and it turns whole
numbers in a column with gaps into fractions. Here whatever bytes a file holds, it gives rows or one ValueError with
file and line.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SUFFIXES = (".jsonl", ".json", ".parquet")
_BLANK = re.compile(r"[ \t\r\n]*")


def read_records(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Pairs (place, row): "gen.jsonl, line 3", "gen.json, line 9 (item 2)", "gen.parquet, row 7"; all count from 1.

    A .jsonl file holds one JSON value a line, blank lines are passed over; a .json file one list, or one object a
    line, as some libraries write it. UTF-8, with or without byte order mark, any line ends, lines of any length. A row
    is whatever stands there, a dict if the file is right; of Parquet, and for repeated names, only `fields` count.

    Raises
    ------
    FileNotFoundError
        no such file.
    ValueError
        naming file and place: a folder, another suffix, an unreadable or empty file, not UTF-8, broken JSON, one of
        `fields` twice in an object, broken Parquet.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; name a file in it")
    if not os.path.exists(path):  # unlike Path.exists, no error for a name that cannot be one
        raise FileNotFoundError(f"{path}: no such file; check the spelling and the folder you are in")
    reader = {".jsonl": _lines, ".json": _list, ".parquet": _parquet}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: suffix {path.suffix!r}; it must be one of {', '.join(SUFFIXES)}")
    count = 0
    try:
        if path.stat().st_size == 0:
            raise ValueError(f"{path}, line 1: the file is empty; expected one row a prompt")
        for count, pair in enumerate(reader(path, frozenset(fields)), 1):
            yield pair
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not count:
        place = "row" if path.suffix.lower() == ".parquet" else "line"
        raise ValueError(f"{path}, {place} 1: the file is empty: no rows in it; expected one row a prompt")


def short(value: object, width: int = 80, items: bool = False) -> str:
    """A value for a message: lists and objects by their kind (unless `items`), the rest as it is written, cut."""
    if isinstance(value, list | dict) and not items:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = repr(value[: width + 1] if isinstance(value, str | bytes | list) else value)
    return text if len(text) <= width else f"{text[:width]}..."


def check_unicode(text: object, what: str, where: str) -> None:
    """ValueError for half a surrogate pair in a text: "\\ud800" is valid JSON, but no tokenizer takes it."""
    try:
        text.encode() if isinstance(text, str) else None
    except UnicodeEncodeError as error:
        half = text[error.start].encode("unicode-escape").decode()
        raise ValueError(f"{where}: {what} holds half a character ({half}); write the file as UTF-8 again") from error


def _lines(path: Path, fields: frozenset[str]) -> Iterator[tuple[str, object]]:
    loads = json.JSONDecoder(object_pairs_hook=_object(fields)).decode
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            where = f"{path}, line {number}"
            text = _utf8(line, path, number)
            if text.strip(" \t\r\n"):
                try:
                    row = _json(where, loads, text)
                except json.JSONDecodeError as error:
                    raise _broken(where, error) from error
                yield where, row


def _list(path: Path, fields: frozenset[str]) -> Iterator[tuple[str, object]]:
    """The items of one JSON list, one after the other, because only then is the line of each known."""
    text = _utf8(path.read_bytes(), path, 1)
    at = _BLANK.match(text).end()
    if not text.startswith("[", at):
        yield from _lines(path, fields)
        return
    parse, line, counted, number = json.JSONDecoder(object_pairs_hook=_object(fields)).raw_decode, 1, 0, 0
    at = _BLANK.match(text, at + 1).end()
    closed = text.startswith("]", at)
    while not closed:
        number += 1
        line, counted = line + text.count("\n", counted, at), at
        where = f"{path}, line {line} (item {number})"
        try:
            row, at = _json(where, parse, text, at)
        except json.JSONDecodeError as error:  # it was given the whole file: the line it names is that of the fault
            raise _broken(f"{path}, line {error.lineno} (item {number})", error) from error
        yield where, row
        at = _BLANK.match(text, at).end()
        closed = text.startswith("]", at)
        if not closed and not text.startswith(",", at):
            line += text.count("\n", counted, at)
            raise ValueError(f"{path}, line {line}: not valid JSON: no ',' or ']' after item {number}; write it again")
        at = at if closed else _BLANK.match(text, at + 1).end()
    rest = _BLANK.match(text, at + 1).end()
    if rest < len(text):
        line += text.count("\n", counted, rest)
        raise ValueError(f"{path}, line {line}: not valid JSON: something follows the end of the list; write one list")


def _parquet(path: Path, fields: frozenset[str]) -> Iterator[tuple[str, object]]:
    import pyarrow  # here: it takes a second to load, and most files are JSON
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in fields:
                if names.count(name) > 1:
                    raise ValueError(f"{path}, row 1: column {name!r} is there {names.count(name)} times; keep one")
            wanted = [name for name in names if name in fields]
            for batch in file.iter_batches(batch_size=256, columns=wanted):  # others may be large: log probabilities
                others = dict.fromkeys(names)  # so that a message can name them; None is passed over
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", {**others, **row}
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = short(str(error).split("\n")[0])
        raise ValueError(f"{path}, row {number + 1}: not a readable Parquet file ({reason}); write it again") from error


def _utf8(data: bytes, path: Path, line: int) -> str:
    if line == 1:
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        where, byte = f"{path}, line {line}", f"{data[error.start]:#04x}"
        raise ValueError(f"{where}: not UTF-8 (byte {byte}); save the file as UTF-8") from error


def _json(where: str, parse: Callable, *given: object) -> object:
    try:
        return parse(*given)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError(f"{where}: not valid JSON for this reader: nested too deeply; write plain texts") from None
    except ValueError as error:  # a field twice; a number of thousands of digits
        raise ValueError(f"{where}: not usable JSON: {str(error).split(';')[0]}; correct it") from error


def _broken(where: str, error: json.JSONDecodeError) -> ValueError:
    return ValueError(
        f"{where}: not valid JSON ({error.msg} at column {error.colno}); "
        "a .jsonl file holds one object a line, a .json file one list of objects"
    )


def _object(fields: frozenset[str]) -> Callable[[list[tuple[str, object]]], dict]:
    def build(pairs: list[tuple[str, object]]) -> dict:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            twice = [name for name in row if name in fields and names.count(name) > 1]
            if twice:
                raise ValueError(f"field {twice[0]!r} stands twice in one object")
        return row

    return build
