"""Rows of JSON Lines, JSON and Parquet files that others wrote, each with its place in the file.

Why not `pandas.read_json`: it says neither which line is broken nor that a field stands there twice, and it turns whole
numbers in a column with gaps into fractions. Here whatever bytes a file holds, it gives rows or one ValueError with
file and line.
"""

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

SUFFIXES = (".jsonl", ".json", ".parquet")
_OPENING = re.compile(r"[ \t\r\n]*\[[ \t\r\n]*(\]?)[ \t\r\n]*")
_SEPARATOR = re.compile(r"[ \t\r\n]*([,\]]?)[ \t\r\n]*")


def reader_of(path: Path) -> Callable[[Path, Sequence[str]], Iterator[tuple[str, object]]]:
    """What reads a file of this suffix. ValueError: a folder, another suffix. FileNotFoundError: no such file."""
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; name a file in it")
    if not os.path.exists(path):  # unlike Path.exists, no error for a name that cannot be one
        raise FileNotFoundError(f"{path}: no such file; check the spelling and the folder you are in")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r}; it must be one of {', '.join(SUFFIXES)}")
    return {".jsonl": _lines, ".json": _list, ".parquet": _parquet}[path.suffix.lower()]


def read_records(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Pairs (place, row): "gen.jsonl, line 3", "gen.json, line 9 (item 2)", "gen.parquet, row 7"; all count from 1.

    A .jsonl file holds one JSON object a line, blank lines are passed over; a .json file one list of objects, or one
    object a line, as some libraries write it. UTF-8, with or without byte order mark, any line ends, lines of any
    length. Of Parquet, and for repeated names, only `fields` count.

    Raises
    ------
    FileNotFoundError
        no such file.
    ValueError
        naming file and place: a folder, another suffix, an unreadable or empty file, not UTF-8, broken JSON, a row that
        is no object, one of `fields` twice in an object, broken Parquet.
    """
    path, row = Path(path), None
    reader = reader_of(path)
    try:
        for where, row in reader(path, fields):
            if not isinstance(row, dict):
                raise ValueError(
                    f"{where}: holds {short(row)}, not an object; write one object a line "
                    "(a file that is one JSON list is named .json)"
                )
            yield where, row
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    if row is None:
        place = "row" if reader is _parquet else "line"
        raise ValueError(f"{path}, {place} 1: the file is empty: no rows in it; expected one row a prompt")


def short(value: object, width: int = 80, items: bool = False) -> str:
    """A value for a message: lists and objects by their kind (unless `items`), the rest as it is written, cut."""
    if isinstance(value, list | dict) and not items:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = repr(value[: width + 1] if isinstance(value, str | bytes | list) else value)
    return text if len(text) <= width else f"{text[:width]}..."


def text_of(value: object, what: str, where: str, allow_empty: bool = False, remedy: str = "drop the row") -> str:
    """A text of a row, checked. ValueError naming the place: no text, an empty one, or one that holds half a surrogate
    pair ("\\ud800" is valid JSON, but no tokenizer takes it)."""
    if not isinstance(value, str):
        raise ValueError(f"{where}: {what} must be text, it is {short(value)}; write the text alone")
    if not value.strip() and not allow_empty:
        raise ValueError(f"{where}: {what} is empty; {remedy}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start].encode("unicode-escape").decode()
        raise ValueError(f"{where}: {what} holds half a character ({half}); write the file as UTF-8 again") from error
    return value


def _lines(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, object]]:
    decoder = json.JSONDecoder(object_pairs_hook=partial(_object, fields))
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            text = _utf8(line, path, number)
            if text.strip(" \t\r\n"):
                yield f"{path}, line {number}", _json(path, number, "", decoder.decode, text)


def _list(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, object]]:
    """The items of one JSON list, one after the other, because only then is the line of each known."""
    text = _utf8(path.read_bytes(), path, 1)
    opening = _OPENING.match(text)
    if not opening:
        yield from _lines(path, fields)
        return
    decoder = json.JSONDecoder(object_pairs_hook=partial(_object, fields))
    at, closed, line, counted, number = opening.end(), bool(opening[1]), 1, 0, 0
    while not closed:
        line, counted, number = line + text.count("\n", counted, at), at, number + 1
        item = f" (item {number})"
        row, at = _json(path, line, item, decoder.raw_decode, text, at)
        yield f"{path}, line {line}{item}", row
        separator = _SEPARATOR.match(text, at)
        at, closed = separator.end(), separator[1] == "]"
        if not separator[1]:
            line += text.count("\n", counted, at)
            raise ValueError(f"{path}, line {line}: not valid JSON: no ',' or ']' after item {number}; write it again")
    if at < len(text):
        line += text.count("\n", counted, at)
        raise ValueError(f"{path}, line {line}: not valid JSON: something follows the end of the list; write one list")


def _parquet(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, object]]:
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
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", dict.fromkeys(names) | row  # so that a message can name the others
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = short(str(error).split("\n")[0])
        raise ValueError(f"{path}, row {number + 1}: not a readable Parquet file ({reason}); write it again") from error


def _utf8(data: bytes, path: Path, line: int) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8 if line == 1 else b"").decode("utf-8")
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        byte = f"{error.object[error.start]:#04x}"
        raise ValueError(f"{path}, line {line}: not UTF-8 (byte {byte}); save the file as UTF-8") from error


def _json(path: Path, line: int, item: str, parse: Callable, *text: object) -> object:
    """What `parse` makes of a text: of one line, or, for an item of a list, of the whole file."""
    try:
        return parse(*text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno if item else line}{item}: not valid JSON ({error.msg} at column {error.colno}); "
            "a .jsonl file holds one object a line, a .json file one list of objects"
        ) from error
    except RecursionError:
        reason = "valid JSON for this reader: nested too deeply; write plain texts"
    except ValueError as error:  # a field twice; a number of thousands of digits
        reason = f"usable JSON: {str(error).split(';')[0]}; correct it"
    raise ValueError(f"{path}, line {line}{item}: not {reason}")


def _object(fields: Sequence[str], pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        for name in fields:
            if names.count(name) > 1:
                raise ValueError(f"field {name!r} stands twice in one object")
    return row
