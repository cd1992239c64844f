"""The scale `paper`: the paper's own experiment, number by number (its section 3 and appendix B).

Where its two versions and its released scripts differ, the paper's text is followed: 4 epochs, batch 64, 5% warm-up.
A `PaperScale` has the fields of `scales.Scale` that the tables, notebooks and figures ask for; what the built-in
world has and real models have not (bases, pretraining) is missing. In the result tables the settings keep the names
of the world's that stand for them, so that every figure finds its place: task "short" is GSM8K, "long" is MATH;
student "first" is Llama-3.2-1B on GSM8K and Llama-3.2-3B on MATH, "second" is OLMo-2-1B, "third" Gemma-2B.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from gracelib.paper.cast import SECTIONS, STUDENTS, TASKS, TEACHERS, out_of_range, read_overrides
from gracelib.scale import EVERY_TENTH, Model, PaperScale, PaperTask

#: What the command line asks for, for notebooks and workers too: the file that `with_file` reads, and `only`'s lists
#: (JSON).
FILE_VARIABLE, ONLY_VARIABLE = "GRACELIB_PAPER", "GRACELIB_PAPER_ONLY"


PAPER = PaperScale(
    tasks=(
        PaperTask(
            "short",
            "gsm8k",
            "GSM8K",
            7473,
            1319,
            (("first", "Llama-3.2-1B"), ("second", "OLMo-2-1B"), ("third", "Gemma-2B")),
            d_kept=1024,
        ),
        PaperTask("long", "math", "MATH", 7500, 5000, (("first", "Llama-3.2-3B"),)),
    ),
    students=STUDENTS,
    teachers=TEACHERS,
)
# What a file may change: plain numbers and words, not the cast.
SETTINGS = tuple(f.name for f in fields(PaperScale) if f.name not in ("tasks", "students", "teachers", "name"))
_PARTS = ("task", "student", "teacher", "temperature")
TASK_SETTINGS = ("n_train", "n_test", "max_new_tokens", "d_kept")


def only(
    scale: PaperScale,
    *,
    task: Sequence[str] = (),
    student: Sequence[str] = (),
    teacher: Sequence[str] = (),
    temperature: Sequence[float] = (),
) -> PaperScale:
    """A part of the experiment: empty sequences keep everything. Names are the models' and data sets' ("MATH").

    A student keeps the tasks it is trained on. ValueError listing what there is for a name that is not there, or when
    nothing is left.
    """
    tasks = {t.title: t for t in scale.tasks}
    names = {
        "task": tasks,
        "student": {n: n for t in scale.tasks for _, n in t.casting},
        "teacher": {m.name: m for m in scale.teachers},
        "temperature": {t: t for t in EVERY_TENTH},
    }
    given = {
        "task": [*task],
        "student": [*student],
        "teacher": [*teacher],
        "temperature": [float(t) if str(t).replace(".", "", 1).isdecimal() else t for t in temperature],
    }
    for kind, asked in given.items():
        lower = {str(name).lower(): name for name in names[kind]}
        for i, name in enumerate(asked):
            if str(name).lower() not in lower:
                raise ValueError(
                    f"{kind} {name!r} is not in the experiment; choose among {', '.join(map(str, names[kind]))}"
                )
            given[kind][i] = lower[str(name).lower()]
    kept = []
    for t in scale.tasks:
        casting = tuple(pair for pair in t.casting if not student or pair[1] in given["student"])
        if casting and (not task or t.title in given["task"]):
            temperatures = tuple(x for x in t.teacher_temperatures if not temperature or x in given["temperature"])
            kept.append(replace(t, casting=casting, teacher_temperatures=temperatures))
    if not kept:
        raise ValueError(
            f"nothing is left: no student of {', '.join(given['student'])} is trained on "
            f"{', '.join(given['task'])}; trained are "
            + "; ".join(f"{', '.join(n for _, n in t.casting)} on {t.title}" for t in scale.tasks)
        )
    teachers = tuple(m for m in scale.teachers if not teacher or m.name in given["teacher"])
    return replace(scale, tasks=tuple(kept), teachers=teachers)


def with_file(scale: PaperScale, path: Path | str) -> PaperScale:
    """The scale changed by a TOML or JSON file: local models and data, other settings, a part of the cells.

    Sections: [students], [teachers], [tasks] (see `cast.read_overrides`), [settings] (fields of
    `PaperScale`), [gsm8k] and [math] (TASK_SETTINGS), [only] (lists task, student, teacher, temperature, as `only`).
    ValueError naming file and key for anything else.
    """
    data = read_overrides(path)
    sections = (*SECTIONS, "settings", "only", *TASKS)
    if unknown := set(data) - set(sections):
        raise ValueError(f"{path}: unknown section(s) {', '.join(sorted(unknown))}; there are {', '.join(sections)}")
    _check_keys(path, "settings", data.get("settings", {}), {name: getattr(scale, name) for name in SETTINGS})
    tasks = []
    for task in scale.tasks:
        own = data.get(task.dataset, {})
        _check_keys(path, task.dataset, own, {name: getattr(task, name) for name in TASK_SETTINGS})
        tasks.append(replace(task, **own, source=data.get("tasks", {}).get(task.dataset, task.source)))
    changed = replace(
        scale,
        tasks=tuple(tasks),
        **data.get("settings", {}),
        students=_placed(scale.students, data.get("students", {})),
        teachers=_placed(scale.teachers, data.get("teachers", {})),
    )
    part = data.get("only", {})
    _check_keys(path, "only", part, dict.fromkeys(_PARTS, []))
    return only(changed, **part)


def changes(scale: PaperScale) -> list[str]:
    """What is not as in the paper, in words: settings, data and models of a settings file, and a part of the cells.

    Where this is not empty, a number is not the paper's experiment; figures carry it in their sidecars.
    """
    said = [
        f"{name} = {getattr(scale, name)} (paper: {getattr(PAPER, name)})"
        for name in SETTINGS
        if getattr(scale, name) != getattr(PAPER, name) and name not in ("backend", "gpus", "seed")
    ]
    for task in scale.tasks:
        usual = next(t for t in PAPER.tasks if t.name == task.name)
        said += [
            f"{task.title}: {name} = {getattr(task, name)} (paper: {getattr(usual, name)})"
            for name in TASK_SETTINGS
            if getattr(task, name) != getattr(usual, name)
        ]
        if task.source:
            said.append(f"{task.title} from {Path(task.source).name}")
    said += [f"{m.name} from {Path(m.path).name}" for m in dict.fromkeys(scale.models()) if m.path]
    cells, whole = (
        sum(len(s.teachers) * len(task.sampled()) * len(task.casting) for task in s.tasks) for s in (scale, PAPER)
    )
    return said + ([f"{cells} of {whole} cells"] if cells != whole else [])


def _placed(models: tuple[Model, ...], places: dict[str, str]) -> tuple[Model, ...]:
    return tuple(replace(m, path=places.get(m.name, m.path)) for m in models)


def _check_keys(path, section: str, given: dict, known: dict) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{path}: {section} is {given!r}, not a section; write [{section}] and lines NAME = VALUE")
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{path}: [{section}] has no setting {key!r}; it has {', '.join(known)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number if isinstance(known[key], float) else type(value) is type(known[key])
        if not fits:
            raise ValueError(
                f"{path}: [{section}] {key} = {value!r}; expected a {type(known[key]).__name__}, such as {known[key]!r}"
            )
        if wrong := out_of_range(key, value):
            raise ValueError(f"{path}: [{section}] {key} = {value!r}: {wrong}")


def paper_scale() -> PaperScale:
    """The paper's scale, as changed by the file that GRACELIB_PAPER names and restricted by GRACELIB_PAPER_ONLY."""
    path, part = (os.environ.get(name, "").strip() for name in (FILE_VARIABLE, ONLY_VARIABLE))
    scale = with_file(PAPER, path) if path else PAPER
    try:
        chosen = json.loads(part or "{}")
    except ValueError as error:
        raise ValueError(f"{ONLY_VARIABLE}={part!r} is not JSON ({error}); unset it, the options set it") from error
    _check_keys(ONLY_VARIABLE, "only", chosen, dict.fromkeys(_PARTS, []))
    return only(scale, **chosen)
