"""Your teachers' generations from many files, and the prompts that the teachers can be compared on.

Why a selection: a score depends on the questions as much as on the teacher, so a ranking is one only if every teacher
answered the same prompts. Those that all answered are found by the text of the question, some of them are drawn, and
what was left out is said. Which are drawn must not hang on the order of files or lines, or the same data would give two
rankings; so each prompt has a place that its id and the seed decide, and nothing else.

What a file may hold is in `gracelib.text.responses`; `Prompt`, `Generations` and `read_generations` can be had from here.
"""

import hashlib
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gracelib.jobs.progress import Bar
from gracelib.text.formats import SUFFIXES, is_saved, reader_of, short, stem_of, suffix_of, whole_sets
from gracelib.text.responses import Generations, Prompt, check_ids, question_id, read_generations


@dataclass(frozen=True)
class Selection:
    """The prompts that the teachers are compared on."""

    prompts: dict[str, tuple[Prompt, ...]]  #: by teacher: the same n prompts in the same order, m responses each
    ids: tuple[str, ...]  #: of these prompts; the same for every teacher
    sentence: str  #: how many all answered, what of each teacher is left out and why, and what was drawn

    @property
    def answers(self) -> list[str | None]:
        """The answer to each prompt, from whichever file has it."""
        return [next((p.answer for p in own if p.answer), None) for own in zip(*self.prompts.values(), strict=True)]


# --- which files --------------------------------------------------------------------------------------------


def expand(paths: Iterable[str | Path] | str | Path) -> list[Path]:
    """The files that are meant, in the order given; a folder stands for the files of `formats.SUFFIXES` directly inside
    it, sorted by name (hidden ones left out), unless `datasets` saved it; the first shard of a data set for all.

    Raises
    ------
    FileNotFoundError
        naming a path that is not there.
    ValueError
        no path at all; a folder without such a file; another suffix.
    """
    files = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if os.path.isdir(path) and not is_saved(path):
            inside = [p for p in path.iterdir() if suffix_of(p) in SUFFIXES and p.name[0] != "." and p.is_file()]
            if not inside:
                raise ValueError(
                    f"{path}: no .jsonl, .json or .parquet file in this folder; name the folder with the generations"
                )
            files += sorted(inside)
        else:
            reader_of(path)  # refuses now what would not be found before the files in front of it are read
            files.append(path)
    if not files:
        raise ValueError("no file with generations was given; name one file per teacher, or a folder of them")
    return whole_sets(files)


def teacher_names(files: Sequence[str | Path]) -> list[str]:
    """A name a file: its stem, or `parent/stem` where several have that stem.

    ValueError for the same file given twice (also by way of a link), or two files of one name.
    """
    whole = [Path(os.path.abspath(file)) for file in files]
    stems = [stem_of(path) for path in whole]
    names = [s if stems.count(s) == 1 else f"{p.parent.name}/{s}" for s, p in zip(stems, whole, strict=True)]
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


def read_teachers(paths: Iterable[str | Path] | str | Path, **how) -> list[Generations]:
    """`expand`, then `read_generations` of every file, told `how`, with the names of `teacher_names`. Errors as of these."""
    files = expand(paths)
    bar = Bar(files, desc="reading", unit="file", disable=None)  # None: silent where stderr is no terminal
    names = teacher_names(files)
    return [replace(read_generations(file, **how), name=name) for file, name in zip(bar, names, strict=True)]


def reasoning_sentence(teachers: Sequence[Generations], thinking: str) -> str:
    """In how many responses of each teacher reasoning was kept or dropped, if in any."""
    count = {t.name: (sum(p.n_thought for p in t.prompts), sum(p.n_unfinished for p in t.prompts)) for t in teachers}
    found = ", ".join(
        f"{thought:,} of {name}" + (f" ({lost:,} of them left out: nothing else is in them)" if lost else "")
        for name, (thought, lost) in count.items()
        if thought
    )
    return f"Responses whose reasoning was {'kept' if thinking == 'keep' else 'dropped'}: {found}." if found else ""


# --- the prompts that all answered --------------------------------------------------------------------------


def select_common(teachers: Sequence[Generations], n: int | None, m: int, seed: int, min_m: bool = False) -> Selection:
    """`n` (None: all) of the prompts that every teacher answered, with the first `m` responses to each.

    Two prompts are the same if their questions are the same text, in Unicode's form NFC and with any white space as one
    blank (questions that one file tells apart stay apart); where ids are the same, the questions must be. Where texts
    differ so, the student reads one of them for all teachers. `min_m`: a prompt with fewer than m responses is left out
    instead of refused.
    A common prompt is called by the id that most of the files that give one give it; by the hash of its question where
    two ids are given equally often, or none. Which n are used, and their order, depends on `seed` and these ids alone:
    the place of a prompt is a hash of (seed, id), and the first n are taken. The order of files and lines does not
    matter, a smaller n takes a part of a larger one's, and one more teacher removes prompts but does not shuffle the
    others, unless what most files call the prompts changes with it (as when the second of two files has other ids).
    The first m responses as the file has them, not m at random: samples of one prompt are exchangeable, and m = 2 is
    then a part of m = 4. (Lists that were sorted, by quality say, are to be shuffled before.)

    Raises
    ------
    ValueError
        no teacher; n, m or seed out of range; the same file twice or two files of one name; one id with two questions
        (names both places); no common prompt (names a text that keeps questions apart); n larger than what is there
        (says what is); a common prompt with fewer than m responses (names it), unless `min_m`.
    """
    for what, value, least in (("n", 1 if n is None else n, 1), ("m", m, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{what}={value!r}: expected a whole number >= {least}")
    if not teachers:
        raise ValueError("no teacher to compare; read at least one file of generations")
    names = teacher_names([teacher.path for teacher in teachers])
    by_question = dict(zip(names, _matched(teachers), strict=True))
    check_ids(replace(p, question=q) for found in by_question.values() for q, p in found.items())
    common = set(by_question[names[0]])
    for k, found in enumerate(by_question.values()):
        if common.isdisjoint(found):
            example = next(p for q, p in by_question[names[0]].items() if q in common)
            others = f"{teachers[0].path}" + (f" and {k - 1} more" if k > 1 else "")
            hint = _near_miss([teachers[0], teachers[k]], [by_question[names[0]], found])
            if not hint and all(len(t.prompts) == 1 for t in teachers):
                hint = "; each file holds one prompt: if they are of one teacher, join them: cat FOLDER/*.json > TEACHER.json"
            raise ValueError(
                f"{teachers[k].path}: no prompts in common with {others}: {short(example.question)} "
                f"({example.where}) is not there; name files that answer the same questions{hint}"
            )
        common &= found.keys()
    left_out = {name: len(found) - len(common) for name, found in by_question.items()}
    few = [(q, p) for found in by_question.values() for q, p in found.items() if q in common and len(p.responses) < m]
    if few and not min_m:
        first, *more = [p for _, p in few]
        least = min(len(p.responses) for _, p in few)
        raise ValueError(
            f"{first.where}: prompt {short(first.id)} has {len(first.responses)} response(s), m={m} were asked for"
            f"{f' ({len(more)} more prompts have too few)' if more else ''}; {f'use m <= {least}, ' if least else ''}"
            "sample more, or leave such prompts out (--min-m)"
        )
    n_few = len(common & {q for q, _ in few})
    common -= {q for q, _ in few}
    by = "the one teacher" if len(teachers) == 1 else f"all {len(teachers)} teachers"
    answered = f"{len(common)} prompt{' was' if len(common) == 1 else 's were'} answered by {by}"
    if few:
        answered += f" at least {m} times"
    hint, n = _near_miss(teachers, list(by_question.values())), len(common) or 1 if n is None else n
    if n > len(common):
        smallest = min(teachers, key=lambda t: len(t.prompts))
        raise ValueError(
            f"{smallest.path}: n={n} prompts were asked for, but {answered} (this, the smallest file, has "
            f"{len(smallest.prompts)}); use {f'n <= {len(common)}' if common else 'a smaller m'}{hint}"
        )
    question = {
        q: min({found[q].question for found in by_question.values()}, key=lambda t: (t != q, t)) for q in common
    }
    id_of = {q: _common_id([found[q] for found in by_question.values()], question[q]) for q in common}
    chosen = sorted(common, key=lambda q: (hashlib.blake2b(f"{seed}\n{id_of[q]}".encode()).digest(), id_of[q]))[:n]
    prompts = {
        name: tuple(
            replace(found[q], id=id_of[q], question=question[q], responses=found[q].responses[:m]) for q in chosen
        )
        for name, found in by_question.items()
    }
    lost = [f"{count} of {name}" for name, count in left_out.items() if count]
    lost += [f"{n_few} with fewer responses"] if few else []
    sentence = (
        f"{answered} (left out: {', '.join(lost) or 'none'}); "
        f"{'all are used' if n == len(common) else f'{n} of them, drawn with seed {seed}, are used'}, "
        f"with the first {'response' if m == 1 else f'{m} responses'} to each{hint}."
    )
    return Selection(prompts, tuple(id_of[q] for q in chosen), sentence)


def _common_id(prompts: list[Prompt], question: str) -> str:
    """The id that most files give; a file without ids has the hash of the question and does not object."""
    given = Counter(p.id for p in prompts if p.id != question_id(p.question)).most_common(2)
    is_clear = len(given) == 1 or (given and given[0][1] > given[1][1])
    return given[0][0] if is_clear else question_id(question)


def _matched(teachers: Sequence[Generations]) -> list[dict[str, Prompt]]:
    """Of each teacher its prompts by what they are matched by: see `select_common`."""
    form = {p.question: " ".join(unicodedata.normalize("NFC", p.question).split()) for t in teachers for p in t.prompts}
    counts = [Counter(form[p.question] for p in t.prompts) for t in teachers]
    apart = {q for count in counts for q in count if count[q] > 1}
    return [{p.question if form[p.question] in apart else form[p.question]: p for p in t.prompts} for t in teachers]


def _near_miss(teachers: Sequence[Generations], found: Sequence[dict[str, Prompt]]) -> str:
    """What to drop if one text around the questions of a file, an instruction say, keeps most of them from matching."""
    for k in range(1, len(found)):
        for short_at, long_at in ((0, k), (k, 0)):
            alone = sorted(found[short_at].keys() - found[long_at].keys())
            longer = dict.fromkeys(sorted(found[long_at].keys() - found[short_at].keys()))
            for q in alone[:20]:
                around = next((one.split(q, 1) for one in longer if q in one), ("", ""))
                n_same = sum(q.join(around) in longer for q in alone)
                if any(around) and 2 * n_same > min(len(alone), len(longer)):
                    drop = " ".join(f"--drop-text {shlex.quote(text.strip())}" for text in around if text)
                    return (
                        f"; {n_same} of {len(alone)} questions would agree without the text that {drop[:400]} "
                        f"takes out of {teachers[long_at].path}"
                    )
    return ""
