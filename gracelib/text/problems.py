r"""The paper's two tasks, GSM8K and MATH, as prompts of this house: `{"id", "question", "answer"}`, the answer bare.

From the Hugging Face hub, or from a local file or folder, because a cluster without network is
common and a pinned copy is better science. Both take the same adapters and the same checks, so it does not matter to
anything downstream where problems came from. Ids are hashes of the questions unless the data have ids, hence equal for
every copy.

Sampling n problems depends on the seed and the ids alone, never on the order of a file, and is nested: the first k of a
sample of n are the sample of k.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

from gracelib.checks import check_choice
from gracelib.text.answers import LONGEST, reference_answer
from gracelib.text.formats import HUB, SUFFIXES, is_saved, read_records, short, suffix_of, whole_sets
from gracelib.text.responses import ANSWER, answer_of, known, plain_of, question_id, question_of
from gracelib.text.shapes import QUESTION, SHAPES

# Where a task lives on the hub, to the best of our knowledge; `source=` overrides it with another id or a local file or
# folder. The MATH of the paper's time has left the hub; this mirror has its 7,500 + 5,000 problems.
TASKS = {"gsm8k": "openai/gsm8k", "math": "EleutherAI/hendrycks_math"}
# The parts that make up a data set, where the hub has it in parts (it calls them configs); others have one.
CONFIGS = {
    "openai/gsm8k": ("main",),  # its other part, socratic, holds the same problems
    "EleutherAI/hendrycks_math": (
        "algebra",
        "counting_and_probability",
        "geometry",
        "intermediate_algebra",
        "number_theory",
        "prealgebra",
        "precalculus",
    ),
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_problems(
    task: str, source: str | Path | None = None, split: str = "test", n: int | None = None, seed: int = 0
) -> list[dict]:
    """The problems of a task as `{"id", "question", "answer"}`, all in their order or `n` drawn with `seed`.

    Parameters
    ----------
    task : "gsm8k" (fields `question`, `answer` ending in `#### 18`) or "math" (`problem`, `solution` with a box, or a
        bare `answer`). Rows are read as those of `gracelib.text.responses`, so either form will do for both.
    source : hub id, file (`gracelib.text.formats.SUFFIXES`), folder (files that have `split` in their name or path, one
        object a file too, or what `datasets` saved with `save_to_disk`), or None for the task's own hub id.
    split : "train" or "test" (default); a single file is the split, whatever its name.

    A question that stands twice is kept once, with a warning. Raises ValueError naming file and line for a row that
    does not fit, or when the source is not there or the hub not reachable, with what to do.
    """
    check_choice("task", task, TASKS)  # your own questions need none: they are prompts
    if n is not None and (not isinstance(n, int) or n < 1):
        raise ValueError(f"n={n!r}: the number of problems must be a positive whole number, or None for all")
    problems, again = {}, 0
    for where, row in _rows(TASKS[task], source, split):
        problem = _problem(row, where)
        again += problem["id"] in problems
        if problems.setdefault(problem["id"], problem)["question"] != problem["question"]:
            raise ValueError(f"{where}: id {problem['id']!r} belongs to another question already; ids must be unique")
    if again:
        warnings.warn(f"{task}: {again} problems stand in the data more than once; each was kept once", stacklevel=2)
    if n is None:
        return list(problems.values())
    if n > len(problems):
        raise ValueError(
            f"n={n} problems were asked for, but {source or TASKS[task]} (split {split}) has {len(problems)}"
        )
    drawn = sorted(problems, key=lambda name: (Random(f"{seed}/{name}").random(), str(name)))
    return [problems[name] for name in drawn[:n]]


def _problem(record: dict, where: str) -> dict:
    there = known(record)
    question, (name, said) = question_of(there, record, SHAPES[0], where), answer_of(there, where)
    if not name:
        raise ValueError(
            f"{where}: no answer field; expected one of {', '.join(ANSWER)}; it has {short(', '.join(record))}"
        )
    try:
        answer = reference_answer(said).strip()
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if len(answer) > LONGEST or (answer == said and (name == "solution" or "\n" in answer)):
        raise ValueError(
            f"{where}: {name} {short(said, 40)} holds neither '#### 18' nor '\\boxed{{18}}', and is "
            "too long to be the answer itself"
        )
    own = there.get("id", question_id(question))
    plain_of(own, "id", where)
    return {"id": own, "question": question, "answer": " ".join(answer.split())}


def _rows(hub_id: str, source: str | Path | None, split: str) -> Iterator[tuple[str, dict]]:
    """Each row with where it stands."""
    path = Path(source or hub_id)
    is_id = isinstance(source, str) and _HUB_ID.fullmatch(source) and not source.endswith(SUFFIXES)
    if source is None or (is_id and not path.exists()):
        parts = [f":{config}:{split}" for config in CONFIGS.get(source or hub_id, ())] or [f":{split}"]
        files = [Path(f"{HUB}{source or hub_id}{part}") for part in parts]
    elif str(path).startswith(HUB) or path.is_file() or is_saved(path):
        files = [path]
    elif path.is_dir():
        files = _files_of(path, split)
    else:
        raise ValueError(f"{path}: no such file or folder, and not the id of a data set (owner/name)")
    for file in files:
        yield from read_records(file, ("id", *QUESTION, *ANSWER), split)


def _files_of(folder: Path, split: str) -> list[Path]:
    """The files that have the split's name in their path; of a copy of the hub's GSM8K, those of its part "main"."""
    folder = folder / "main" if (folder / "main").is_dir() else folder
    files = sorted(path for path in folder.rglob("*") if path.is_file() and suffix_of(path) in SUFFIXES)
    mine = [path for path in files if split in re.split(r"[^a-z0-9]+", path.relative_to(folder).as_posix().lower())]
    if not mine:
        there = (
            ", ".join(path.relative_to(folder).as_posix() for path in files[:5])
            or f"no {', '.join(SUFFIXES)} file in it"
        )
        raise ValueError(
            f"{folder}: no file of split {split!r} ({there}); name it {split}.jsonl or pass the file itself"
        )
    return whole_sets(mine)
