"""A file of responses that is written prompt by prompt and survives being killed.

Finished prompts are appended to `NAME.jsonl.part`, whose first line says with which settings they were sampled; a
line that was torn by a kill is dropped. Only a complete file gets its name, in the order of the prompts, with a
sidecar of settings and versions beside it: a half-written file is never mistaken for a finished one, and one made
with other settings is neither continued nor taken for the result. The sidecar's name begins with a dot: whoever
reads a folder of generations shall not take it for one.
"""

import json
import os
from pathlib import Path

from gracelib.jobs.store import file_hash, write_atomically
from gracelib.text.formats import short

#: Said in the sidecar and not compared: where the model lay (its digest is compared), and how many sequences were
#: decoded together (after running out of memory one continues with fewer; at most rounding differs).
UNCOMPARED = ("model", "batch_size")
GO_ON = "remove it to start again, or go on with its settings"


def sidecar(path: Path) -> Path:
    """The settings file beside a generation file: `a/b.jsonl` -> `a/.b.settings.json`."""
    return Path(path).with_name(f".{Path(path).stem}.settings.json")


class GenerationFile:
    """One generation file: rows of one setting, keyed by their `id`.

    Parameters
    ----------
    path : where the finished file shall stand; `.part` and the sidecar stand beside it.
    settings : JSON-ready; everything that decides the rows.
    """

    def __init__(self, path: Path, settings: dict):
        self.path, self.settings = Path(path), json.loads(json.dumps(settings))
        self.part = self.path.with_name(self.path.name + ".part")
        if self.path.suffix != ".jsonl":
            raise ValueError(f"{self.path}: the responses are JSONL; choose a name that ends in .jsonl")
        if self.path.is_dir():
            raise ValueError(f"{self.path} is a folder; name a file in it that ends in .jsonl")

    def finished(self) -> bool:
        """Whether the whole file is there. ValueError if what stands there was made otherwise or changed since."""
        if not self.path.exists():
            return False
        try:
            record = json.loads(sidecar(self.path).read_text("utf-8"))
            there, checksum = record["settings"], record["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is there, but not the settings it was made with ({sidecar(self.path).name}); "
                "move it away or choose another file"
            ) from error
        check_same_settings(self.path, there, self.settings, "move it away or choose another file", UNCOMPARED)
        if file_hash(self.path) != checksum:
            raise ValueError(f"{self.path} was changed after it was written; move it away to sample it again")
        self.part.unlink(missing_ok=True)  # a run killed between its last two steps left it
        return True

    def resume(self) -> dict[str | int, dict]:
        """The rows finished so far, by id; afterwards `append` continues behind them.

        Raises ValueError if the .part was made with other settings, or if a line before the last is damaged.
        """
        lines = self.part.read_bytes().splitlines(keepends=True) if self.part.exists() else []
        if lines and not lines[-1].endswith(b"\n"):  # torn by a kill
            lines.pop()
        if not lines:
            self.part.write_bytes(_line({"settings": self.settings}))
            return {}
        settings, rows = {}, {}
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if number == 1:
                    settings = dict(row["settings"])
                elif isinstance(row["id"], str | int):
                    rows[row["id"]] = row
                else:
                    raise ValueError(f"id {row['id']!r}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{self.part}, line {number}: damaged ({type(error).__name__}: {error}); remove the file to start again"
                ) from error
        check_same_settings(self.part, settings, self.settings, GO_ON, UNCOMPARED)
        with open(self.part, "r+b") as f:
            f.truncate(sum(map(len, lines)))
        return rows

    def append(self, rows: list[dict]) -> None:
        """Add finished rows; they are on disk when this returns."""
        with open(self.part, "ab") as f:
            f.write(b"".join(map(_line, rows)))
            f.flush()
            os.fsync(f.fileno())

    def finish(self, rows: list[dict], notes: dict) -> Path:
        """Write all rows under the file's name, and the sidecar with `notes` beside the settings; remove the .part."""

        def write_rows(part: Path) -> None:
            part.write_bytes(b"".join(map(_line, rows)))
            record = {"settings": self.settings, **notes, "n_prompts": len(rows), "sha256": file_hash(part)}
            # The sidecar stands first: a file under its final name always has one.
            text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
            write_atomically(sidecar(self.path), lambda side: side.write_text(text, encoding="utf-8"))

        write_atomically(self.path, write_rows)
        self.part.unlink()
        return self.path


def check_same_settings(
    where: str | Path, there: dict, asked: dict, remedy: str, uncompared: tuple[str, ...] = ()
) -> None:
    """ValueError that names each setting in which unfinished or finished work differs from what is asked for."""
    other = [
        f"{name} {short(there.get(name))} there, {short(asked.get(name))} asked for"
        for name in dict.fromkeys([*asked, *there])
        if name not in uncompared and there.get(name) != asked.get(name)
    ]
    if other:
        raise ValueError(f"{where} was made with other settings ({'; '.join(other)}); {remedy}")


def _line(row: dict) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")
