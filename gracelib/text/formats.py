"""Rows of JSON Lines, JSON and Parquet files and of `datasets`' folders that others wrote, each with its place.

Why not `pandas.read_json`: it says neither which line is broken nor that a field stands there twice, and it turns whole
numbers in a column with gaps into fractions. Here whatever bytes a file holds, it gives rows or one ValueError with
file and line.
"""

import codecs
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

SUFFIXES = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz")
HUB = "hf:/"  #: begins hf://owner/name, hf://owner/name:split and hf://owner/name:config:split, as `Path` writes them
_OPENING = re.compile(r"[ \t\r\n]*(\[?)[ \t\r\n]*(\]?)[ \t\r\n]*")
_SEPARATOR = re.compile(r"[ \t\r\n]*([,\]]?)[ \t\r\n]*")
_SHARD = re.compile(r"(?<=.)-(\d{1,6})-of-(\d{1,6})$")


def suffix_of(path: Path) -> str:
    """Of the `SUFFIXES` the one that a name ends in, else its last."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), path.suffix.lower())


def stem_of(path: Path) -> str:
    """The name without its suffix, and without the number of a shard: "train" of train-00000-of-00002.parquet."""
    stem = path.name[: -len(suffix_of(path))] if suffix_of(path) in SUFFIXES else path.name
    return _SHARD.sub("", stem)


def shards(path: Path) -> list[Path]:
    """The files that make up a data set of which `path` is one: train-00000-of-00002.parquet and so on, or `path` alone.

    ValueError: a shard is not there.
    """
    shard = _SHARD.search(path.name[: -len(suffix_of(path))])
    if not shard or suffix_of(path) not in SUFFIXES:
        return [path]
    before, behind, parts = path.name[: shard.start(1)], path.name[shard.end(1) :], []
    for k in range(int(shard[2])):
        parts.append(path.with_name(f"{before}{k:0{len(shard[1])}}{behind}"))
        if not os.path.exists(parts[-1]):
            raise ValueError(
                f"{parts[-1]}: no such file, but {path.name} is one of {int(shard[2])} parts; fetch it, or rename what "
                "you have"
            )
    return parts


def whole_sets(files: Iterable[Path]) -> list[Path]:
    """The files in their order, with the shards of one data set replaced by its first, which stands for all."""
    sets = [shards(file) for file in files]
    return [parts[0] for k, parts in enumerate(sets) if len(parts) == 1 or parts not in sets[:k]]


def is_saved(path: Path) -> bool:
    """Whether a folder is what `datasets` writes with `save_to_disk`."""
    return any(os.path.exists(path / name) for name in ("state.json", "dataset_dict.json"))


def reader_of(path: Path, split: str | None = None) -> Callable[[Path, Sequence[str]], Iterator[tuple[str, object]]]:
    """What reads a path. ValueError: another folder, another suffix. FileNotFoundError: no such file."""
    if str(path).startswith(HUB) or is_saved(path):
        return partial(_datasets, split=split)
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; name a file in it")
    if not os.path.exists(path):  # unlike Path.exists, no error for a name that cannot be one
        raise FileNotFoundError(f"{path}: no such file; check the spelling and the folder you are in")
    if suffix_of(path) not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r}; it must be one of {', '.join(SUFFIXES)}")
    return {".jsonl": _lines, ".json": _list, ".parquet": _parquet}[suffix_of(path).removesuffix(".gz")]


def read_records(path: Path, fields: Sequence[str], split: str | None = None) -> Iterator[tuple[str, dict]]:
    """Pairs (place, row): "gen.jsonl, line 3", "gen.json, line 9 (item 2)", "gen.parquet, row 7"; all count from 1.

    A .jsonl file holds one JSON object a line, blank lines are passed over; a .json file one list of objects, objects
    one after the other (a line each, or indented), or one object of objects, whose names are then their `id`. UTF-8,
    with or without byte order mark, any line ends, lines of any length; .gz of either. The first shard of a data set
    stands for all. A folder that `datasets` saved, or hf://owner/name, has one split, or `split` says which. Of Parquet
    and `datasets`, and for repeated names, only `fields` count.

    Raises
    ------
    FileNotFoundError
        no such file.
    ValueError
        naming file and place: a folder, another suffix, a Git LFS pointer, an unreadable or empty file, not UTF-8,
        broken JSON, a row that is no object, one of `fields` twice in an object, broken Parquet, a split or a data set
        that is not there.
    """
    path, row = Path(path), None
    reader = reader_of(path, split)
    try:
        for part in shards(path):
            if os.path.isfile(part) and is_pointer(part):
                raise ValueError(f"{part}: this is a Git LFS pointer, not the file; run `git lfs pull` where it lies")
            for where, row in reader(part, fields):
                if not isinstance(row, dict):
                    raise ValueError(
                        f"{where}: holds {short(row)}, not an object; write one object a line "
                        "(a file that is one JSON list is named .json)"
                    )
                yield where, row
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    if row is None:
        place = "line" if reader in (_lines, _list) else "row"
        raise ValueError(f"{path}, {place} 1: the file is empty: no rows in it; expected one row per prompt")


def is_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer, the few lines that stand for a file which was not fetched."""
    with open(path, "rb") as f:
        return f.read(64).startswith(b"version https://git-lfs")


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
        raise ValueError(
            f"{where}: {what} must be text, it is {short(value)}; {remedy if value is None else 'write the text alone'}"
        )
    if not value.strip() and not allow_empty:
        raise ValueError(f"{where}: {what} is empty; {remedy}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start].encode("unicode-escape").decode()
        raise ValueError(f"{where}: {what} holds half a character ({half}); write the file as UTF-8 again") from error
    return value


def _open(path: Path):
    return gzip.open(path) if suffix_of(path).endswith(".gz") else open(path, "rb")


def _lines(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, object]]:
    decoder = json.JSONDecoder(object_pairs_hook=partial(_object, fields))
    with _open(path) as f:
        for number, line in enumerate(f, 1):
            text = _utf8(line, path, number)
            if text.strip(" \t\r\n"):
                yield f"{path}, line {number}", _json(path, number, "", decoder.decode, text)


def _list(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, object]]:
    """The items of one JSON list, or objects in a row, one after the other: only then is the line of each known."""
    with _open(path) as f:
        text = _utf8(f.read(), path, 1)
    decoder = json.JSONDecoder(object_pairs_hook=partial(_object, fields))
    opening = _OPENING.match(text)
    listed, at, line, counted, number = bool(opening[1]), opening.end(), 1, 0, 0
    closed = bool(opening[2]) if listed else at == len(text)
    while not closed:
        line, counted, number = line + text.count("\n", counted, at), at, number + 1
        item = f" (item {number})"
        row, at = _json(path, line, item, decoder.raw_decode, text, at)
        separator = _SEPARATOR.match(text, at)
        if listed != bool(separator[1]):
            line += text.count("\n", counted, separator.end())
            wrong = f"{'no' if listed else 'no list, but'} ',' or ']' after item {number}"
            raise ValueError(f"{path}, line {line}: not valid JSON: {wrong}; write it again")
        at, closed = separator.end(), separator[1] == "]" if listed else separator.end() == len(text)
        alone = closed and not listed and number == 1 and isinstance(row, dict) and bool(row)
        if not (alone and all(isinstance(one, dict) for one in row.values())):
            yield f"{path}, line {line}{item}", row
        elif row.keys().isdisjoint(fields):
            yield from ((f"{path}, id {short(name)}", {"id": name} | one) for name, one in row.items())
        else:
            raise ValueError(f"{path}, line {line}: a table by columns; write it by rows (pandas: orient='records')")
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


def _datasets(path: Path, fields: Sequence[str], split: str | None) -> Iterator[tuple[str, object]]:
    """Rows of a folder that `datasets` saved, or of hf://owner/name:config:split: of the split that the name has, else of
    `split`, else of the only one."""
    import datasets  # here: slow to import, and not needed for files

    hub = str(path).startswith(HUB)
    name, *parts = str(path).removeprefix(HUB).split(":") if hub else [str(path)]
    config, split = parts[0] if len(parts) > 1 else None, parts[-1] if parts else split
    called = f"{name} ({config})" if config else name
    try:
        data = datasets.load_dataset(name, config) if hub else datasets.load_from_disk(name)
    except Exception as error:  # offline, gated, misspelt, damaged: each library beneath raises its own
        said = f"{type(error).__name__}: {short(' '.join(str(error).split()), 200)}"
        remedy = "name config and split (hf://owner/name:CONFIG:SPLIT) or give a local copy, a file or a folder"
        raise ValueError(f"{called}: datasets cannot load it ({said}); {remedy if hub else 'save it again'}") from error
    if isinstance(data, dict):
        split = split or (next(iter(data)) if len(data) == 1 else None)
        if split not in data:
            wrong = f"no split {split!r}" if split else "several splits"
            remedy = f"hf://{name}{f':{config}' if config else ''}:SPLIT" if hub else path / "SPLIT"
            raise ValueError(f"{called}: {wrong}; it has {sorted(data)}; name one: {remedy}")
        data, called = data[split], f"{called}, split {split}"
    names, number = data.column_names, 0
    wanted = data.select_columns([name for name in names if name in fields])
    for batch in wanted.with_format("arrow").iter(256):  # as stored: nothing of it is decoded or fetched, images say
        for row in batch.to_pylist():
            number += 1
            yield f"{called}, row {number}", dict.fromkeys(names) | row


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
        seen = set()
        for name, value in pairs:
            if name in seen and (name in fields or isinstance(value, dict)):
                raise ValueError(f"field {short(name)} stands twice in one object")
            seen.add(name)
    return row
