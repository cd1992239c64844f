"""Result tables as files that a reader may have edited, cut or merged badly: whole, or one error with file and line.

Why not `pandas.read_csv` alone: it takes a line that was cut for one with missing values, and a word in a column of
numbers for a column of words, so that a figure shows something else or fails far from the fault.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

_KEY = ("task", "student", "teacher", "temperature")
#: Columns that everything drawn from a table needs, by its name; NUMBERS of these must be numbers in every row.
NEEDED = {
    "teachers": ("task", "teacher", "manner", "width", "temperature", "accuracy"),
    "base_students": ("task", "student", "average", "greedy"),
    "features": (*_KEY, "n_prompts", "m", "d", "length", "loss", "mean_prob", "grad_norm"),
    "scores": (*_KEY, "grace", "grace_variance", "grace_bias", "g_norm", "g_var", "g_vendi", "student_loss"),
    "students": (*_KEY, "average", "average_se", "best_of", "greedy", "truncated"),
}
MAY_BE_EMPTY = ("neighbours",)  # of one teacher there are none
_WORDS = ("task", "student", "teacher", "manner")


def read_table(path: Path, command: str) -> pd.DataFrame:
    """A result table. `command` is said to make it anew.

    Raises ValueError naming file, line and `command`: not UTF-8; empty; a line with more or fewer entries than the
    head, or a last line without an end (cut); a column of `NEEDED` missing, or something else than numbers in it.
    """
    remedy = f"`{command}` makes it again, or take the committed file back"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (byte {error.object[error.start]:#04x}); {remedy}") from error
    if not text.strip():
        raise ValueError(f"{path}, line 1: the file is empty; {remedy}")
    rows = csv.reader(text.splitlines(keepends=True))
    try:
        head, n_rows = next(rows), 0
        for row in rows:
            n_rows += bool(row)
            if row and len(row) != len(head):
                raise ValueError(
                    f"{path}, line {rows.line_num}: {len(row)} entries under {len(head)} columns: the table "
                    f"was cut or merged; {remedy}"
                )
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: not CSV ({error}); {remedy}") from error
    if not text.endswith("\n"):
        raise ValueError(f"{path}, line {rows.line_num}: the last line has no end: the table was cut; {remedy}")
    if not n_rows and path.stem not in MAY_BE_EMPTY:
        raise ValueError(f"{path}: it has a head and no rows; {remedy}")
    needed = NEEDED.get(path.stem, ())
    if lost := [name for name in needed if name not in head]:
        raise ValueError(f"{path}, line 1: column {lost[0]!r} is missing; {remedy}")
    table = pd.read_csv(path)
    for name in needed:
        if name not in _WORDS and not pd.api.types.is_numeric_dtype(table[name]):
            at = pd.to_numeric(table[name], errors="coerce").isna().to_numpy().argmax()
            raise ValueError(
                f"{path}, line {at + 2}: column {name!r} holds {table[name][at]!r}, not a number; {remedy}"
            )
    return table
