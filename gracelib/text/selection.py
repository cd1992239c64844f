"""Your teachers' generations from many files, and the prompts that the teachers can be compared on.

Why a selection: a score depends on the questions as much as on the teacher, so a ranking is one only if every teacher
answered the same prompts. Those that all answered are found by the text of the question, some of them are drawn, and
what was left out is said. Which are drawn must not hang on the order of files or lines, or the same data would give two
rankings; so each prompt has a place that its id and the seed decide, and nothing else.

What a file may hold is in `gracelib.text.responses`; `Prompt`, `Generations` and `read_generations` can be had from here.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from gracelib.text.formats import SUFFIXES, reader_of, short
from gracelib.text.responses import Generations, Prompt, check_ids, question_id, read_generations


@dataclass(frozen=True)
class Selection:
    """The prompts that the teachers are compared on."""

    prompts: dict[str, tuple[Prompt, ...]]  #: by teacher: the same n prompts in the same order, m responses each
    ids: tuple[str, ...]  #: of these prompts; the same for every teacher
    n_common: int  #: prompts that all teachers answered
    n_left_out: dict[str, int]  #: by teacher: its prompts that some other teacher did not answer
    sentence: str  #: all this for a reader


# --- which files --------------------------------------------------------------------------------------------


def expand(paths: Iterable[str | Path] | str | Path) -> list[Path]:
    """The files that are meant, in the order given; a folder stands for the .jsonl, .json and .parquet files directly
    inside it, sorted by name (hidden ones left out).

    Raises
    ------
    FileNotFoundError
        naming a path that is not there.
    ValueError
        no path at all; a folder without such a file; another suffix; the same file twice; two files of one name.
    """
    files = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if os.path.isdir(path):
            inside = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()]
            if not inside:
                raise ValueError(
                    f"{path}: no .jsonl, .json or .parquet file in this folder; name the folder with the generations"
                )
            files += sorted(inside)
        else:
            reader_of(path)  # refuses now what would not be found before the files in front of it are read
            files.append(path)
    if not files:
        raise ValueError("no file with generations was given; name one file a teacher, or a folder of them")
    teacher_names(files)
    return files


def teacher_names(files: Sequence[str | Path]) -> list[str]:
    """A name a file: its stem, or `parent/stem` where several have that stem.

    ValueError for the same file given twice (also by way of a link), or two files of one name.
    """
    whole = [Path(os.path.abspath(file)) for file in files]
    stems = Counter(path.stem for path in whole)
    names = [path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}" for path in whole]
    first_at, first_with = {}, {}
    for k, file in enumerate(files):
        if (first := first_at.setdefault(whole[k].resolve(), k)) != k:
            raise ValueError(f"{file}: the same file is given twice (before as {files[first]}); name each file once")
        if (first := first_with.setdefault(names[k], k)) != k:
            raise ValueError(
                f"{file}: two files of one name: its teacher and that of {files[first]} would both be "
                f"{names[k]!r}; rename one of them"
            )
    return names


def read_teachers(paths: Iterable[str | Path] | str | Path) -> list[Generations]:
    """`expand`, then `read_generations` of every file, with the names of `teacher_names`. Errors as of these three."""
    files = expand(paths)
    bar = tqdm(files, desc="reading", unit="file", disable=None)  # None: silent where stderr is no terminal
    return [replace(read_generations(file), name=name) for file, name in zip(bar, teacher_names(files), strict=True)]


# --- the prompts that all answered --------------------------------------------------------------------------


def select_common(teachers: Sequence[Generations], n: int, m: int, seed: int) -> Selection:
    """`n` of the prompts that every teacher answered, with the first `m` responses to each.

    Two prompts are the same if their questions are the same text; where ids are the same, the questions must be.
    A common prompt is called by its id if the files that give one agree on it, else by the hash of its question.
    Which n are used, and their order, depends on `seed` and these ids alone: the place of a prompt is a hash of
    (seed, id), and the first n are taken. The order of files and lines does not matter, a smaller n takes a part of a
    larger one's, and one more teacher removes prompts but does not shuffle the others.
    The first m responses as the file has them, not m at random: samples of one prompt are exchangeable, and m = 2 is
    then a part of m = 4. (Lists that were sorted, by quality say, are to be shuffled before.)

    Raises
    ------
    ValueError
        no teacher; n, m or seed out of range; the same file twice or two files of one name; one id with two questions
        (names both places); no common prompt; n larger than what is there (says what is); a common prompt with fewer
        than m responses (names it).
    """
    for what, value, least in (("n", n, 1), ("m", m, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{what}={value!r}: expected a whole number >= {least}")
    if not teachers:
        raise ValueError("no teacher to compare; read at least one file of generations")
    names = teacher_names([teacher.path for teacher in teachers])
    by_question = {name: {p.question: p for p in t.prompts} for name, t in zip(names, teachers, strict=True)}
    check_ids(p for t in teachers for p in t.prompts)
    common = set(by_question[names[0]])
    for k, found in enumerate(by_question.values()):
        if common.isdisjoint(found):
            example = next(p for p in teachers[0].prompts if p.question in common)
            others = f"{teachers[0].path}" + (f" and {k - 1} more" if k > 1 else "")
            loose = len({" ".join(q.split()) for q in common} & {" ".join(q.split()) for q in found})
            hint = f" ({loose} would agree if white space did not count)" if loose else ""
            raise ValueError(
                f"{teachers[k].path}: no prompts in common with {others}: {short(example.question)} "
                f"({example.where}) is not there; name files that answer the same questions{hint}"
            )
        common &= found.keys()
    few = [p for t in teachers for p in t.prompts if p.question in common and len(p.responses) < m]
    if few:
        more = f" ({len(few) - 1} more prompts have too few)" if len(few) > 1 else ""
        raise ValueError(
            f"{few[0].where}: prompt {short(few[0].id)} has {len(few[0].responses)} response(s), m={m} "
            f"were asked for{more}; use m <= {min(len(p.responses) for p in few)}, or sample more"
        )
    by = "the one teacher" if len(teachers) == 1 else f"all {len(teachers)} teachers"
    answered = f"{len(common)} prompt{' was' if len(common) == 1 else 's were'} answered by {by}"
    left_out = {name: len(found) - len(common) for name, found in by_question.items()}
    if n > len(common):
        smallest = min(teachers, key=lambda t: len(t.prompts))
        raise ValueError(
            f"{smallest.path}: n={n} prompts were asked for, but {answered} (this, the smallest file, has "
            f"{len(smallest.prompts)}); use n <= {len(common)}"
        )
    id_of = {q: _common_id([found[q] for found in by_question.values()]) for q in common}
    chosen = sorted(common, key=lambda q: (hashlib.blake2b(f"{seed}\n{id_of[q]}".encode()).digest(), id_of[q]))[:n]
    prompts = {
        name: tuple(replace(found[q], id=id_of[q], responses=found[q].responses[:m]) for q in chosen)
        for name, found in by_question.items()
    }
    lost = ", ".join(f"{count} of {name}" for name, count in left_out.items() if count)
    sentence = (
        f"{answered} (left out: {lost or 'none'}); "
        f"{'all are used' if n == len(common) else f'{n} of them, drawn with seed {seed}, are used'}, "
        f"with the first {'response' if m == 1 else f'{m} responses'} to each."
    )
    return Selection(prompts, tuple(id_of[q] for q in chosen), len(common), left_out, sentence)


def _common_id(prompts: list[Prompt]) -> str:
    """The id that the files agree on; a file without ids has the hash of the question and does not object."""
    default = question_id(prompts[0].question)
    given = {p.id for p in prompts} - {default}
    return given.pop() if len(given) == 1 else default
