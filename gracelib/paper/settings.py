"""The scale `paper`: the paper's own experiment, number by number (its section 3 and appendix B), and what may be changed.

Where its two versions and its released scripts differ, the paper's text is followed: 4 epochs, batch 64, 5% warm-up.
A `PaperScale` has the fields of `Scale` that the tables, notebooks and figures ask for; what the built-in world has and
real models have not (bases, pretraining) is missing. In the result tables the settings keep the names of the world's
that stand for them, so that every figure finds its place: task "short" is GSM8K, "long" is MATH; student "first" is
Llama-3.2-1B on GSM8K and Llama-3.2-3B on MATH, "second" is OLMo-2-1B, "third" Gemma-2B.

A settings file (TOML, or JSON if its name says so) names other models, data and numbers; `SECTIONS` says what it may hold.
"""

import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, create_model

from gracelib.paper.models import STUDENTS, TEACHERS
from gracelib.scale import EVERY_TENTH, Model, PaperScale, PaperTask
from gracelib.text.problems import TASKS

#: What the command line asks for, for notebooks and workers too: the file that `with_file` reads, and `only`'s lists
#: (JSON).
FILE_VARIABLE, ONLY_VARIABLE = "GRACELIB_PAPER", "GRACELIB_PAPER_ONLY"

PAPER = PaperScale(
    name="paper",
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
    M=16,
    n_prompts=512,
    m=4,
    d=512,
    n_folds=10,
    lr=1e-5,  # what the paper settled on: the best of 5e-5, 1e-5, 5e-6
)

_PLACE = Annotated[str, Field(min_length=1)]
_OF_A_TASK = dict.fromkeys(("n_train", "n_test", "max_new_tokens", "d_kept"), PositiveInt)
_OF_A_JOB = {"cpus": PositiveInt, "gpus": NonNegativeInt, "memory_gb": PositiveFloat}
#: What a settings file may hold: section -> key -> type and range. A place is a folder (relative to the file) or a hub id.
#: [needs.STAGE] is what its jobs take of a machine where an executor shares machines out, [needs.STAGE.MODEL] of one model.
SECTIONS = {
    "students": dict.fromkeys((m.name for m in STUDENTS), _PLACE),
    "teachers": dict.fromkeys((m.name for m in TEACHERS), _PLACE),
    "tasks": dict.fromkeys(TASKS, _PLACE),
    "settings": {
        **dict.fromkeys(("M", "n_prompts", "m", "d", "k", "gpus"), PositiveInt),
        **dict.fromkeys(("n_folds", "max_tokens"), Annotated[int, Field(ge=2)]),
        **dict.fromkeys(("nu", "epochs", "lr", "test_temperature"), PositiveFloat),
        "batch_size": Annotated[int, Field(gt=0, multiple_of=4)],  # micro-batches of `fine_tune`
        "warmup": Annotated[float, Field(ge=0, lt=1)],
        "top_p": Annotated[float, Field(gt=0, le=1)],
        "feature_dtype": Literal["float32", "bfloat16", "float64"],
        "backend": Literal["vllm", "transformers"],
        "seed": Annotated[int, Field(ge=0, lt=2**31)],
    },
    "only": {"task": list[str], "student": list[str], "teacher": list[str], "temperature": list[float]},
    "needs": dict.fromkeys(
        ("problems", "sample", "grade", "features", "fine_tune", "measure"),
        _OF_A_JOB | dict.fromkeys((m.name for m in (*STUDENTS, *TEACHERS)), _OF_A_JOB),
    ),
    **dict.fromkeys(TASKS, _OF_A_TASK),
}


def _model(name: str, kinds: dict):
    """A model whose fields may all be left out, and which has no others."""
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    types = {key: _model(key, kind) if isinstance(kind, dict) else kind for key, kind in kinds.items()}
    return create_model(name, __config__=config, **{key: (kind, None) for key, kind in types.items()})


_FILE = _model("file", SECTIONS)


def _checked(where: Path | str, data: dict) -> dict:
    """Sections as they are, an empty one for each that is left out. ValueError naming place, section, key and value."""
    try:
        _FILE.model_validate(data)
    except ValidationError as error:
        fault = error.errors()[0]
        path, kind = [], SECTIONS
        for key in fault["loc"]:
            if isinstance(kind, dict):  # beyond is an entry of a list
                path, among, kind = [*path, key], kind, kind.get(key)
        *sections, key = path
        place = ".".join(sections)
        if fault["type"] == "extra_forbidden":
            said = f"[{place}] has no {key!r}; it has" if sections else f"unknown section {key!r}; there are"
            raise ValueError(f"{where}: {said} {', '.join(among)}") from error
        if isinstance(kind, dict):
            said = f"{'.'.join(path)} is {fault['input']!r}; write [{'.'.join(path)}] and lines NAME = VALUE"
            raise ValueError(f"{where}: {said}") from error
        raise ValueError(f"{where}: [{place}] {key} = {fault['input']!r}: {fault['msg']}") from error
    return {section: data.get(section, {}) for section in SECTIONS}


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
    chosen = {
        "task": _among("task", task, [t.title for t in scale.tasks]),
        "student": _among("student", student, [name for t in scale.tasks for _, name in t.casting]),
        "teacher": _among("teacher", teacher, [m.name for m in scale.teachers]),
        "temperature": _among("temperature", [*map(float, temperature)], EVERY_TENTH),  # 1 is 1.0
    }
    kept = []
    for t in scale.tasks:
        casting = tuple(pair for pair in t.casting if pair[1] in chosen["student"])
        if casting and t.title in chosen["task"]:
            temperatures = tuple(x for x in t.teacher_temperatures if x in chosen["temperature"])
            kept.append(replace(t, casting=casting, teacher_temperatures=temperatures))
    if not kept:
        raise ValueError(
            f"nothing is left: no student of {', '.join(chosen['student'])} is trained on "
            f"{', '.join(chosen['task'])}; trained are "
            + "; ".join(f"{', '.join(n for _, n in t.casting)} on {t.title}" for t in scale.tasks)
        )
    teachers = tuple(m for m in scale.teachers if m.name in chosen["teacher"])
    return replace(scale, tasks=tuple(kept), teachers=teachers)


def _among(kind: str, asked: Sequence, there: Sequence) -> list:
    """Those of `there` that are asked for, in any case of letters; all of them if none is."""
    known = {str(name).lower(): name for name in there}
    for name in asked:
        if str(name).lower() not in known:
            raise ValueError(f"{kind} {name!r} is not in the experiment; choose among {', '.join(map(str, there))}")
    return [known[str(name).lower()] for name in asked] or list(there)


def _read(path: Path) -> dict:
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except OSError as error:
        said = f"cannot be read ({error.strerror}); it should name models and local folders"
        raise ValueError(f"{path}: {said}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not valid {kind} ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds a {type(data).__name__}, not sections such as [students], [teachers], [tasks]")
    return _checked(path, data)


def needs(stage: str, model: str, asked: dict) -> dict[str, float]:
    """What [needs] of a settings file (`asked_needs`) says of a stage's jobs, and more particularly of a model's."""
    own = asked.get(stage, {})
    return {name: value for name, value in (own | own.get(model, {})).items() if name in _OF_A_JOB}


def asked_needs() -> dict:
    """[needs] of the file that GRACELIB_PAPER names. No part of the experiment: it decides where jobs run."""
    path = os.environ.get(FILE_VARIABLE, "").strip()
    return _read(Path(path))["needs"] if path else {}


def with_file(scale: PaperScale, path: Path | str) -> PaperScale:
    """The scale changed by a TOML or JSON file: local models and data, other settings, a part of the cells.

    `SECTIONS` says what it may hold; [teachers] "Phi-4" = "models/phi-4" loads that folder for the teacher Phi-4.
    ValueError naming file and key for anything else.
    """
    path = Path(path)
    data = _read(path)

    def placed(section: str, name: str, usual: str) -> str:
        place = data[section].get(name, usual)
        local = (path.parent / os.path.expanduser(place)).resolve()
        return str(local) if place and local.exists() else place

    def models(section: str, usual: tuple[Model, ...]) -> tuple[Model, ...]:
        return tuple(replace(m, path=placed(section, m.name, m.path)) for m in usual)

    changed = replace(
        scale,
        tasks=tuple(replace(t, **data[t.dataset], source=placed("tasks", t.dataset, t.source)) for t in scale.tasks),
        students=models("students", scale.students),
        teachers=models("teachers", scale.teachers),
        **data["settings"],
    )
    return only(changed, **data["only"])


def changes(scale: PaperScale) -> list[str]:
    """What is not as in the paper, in words: settings, data and models of a settings file, and a part of the cells.

    Where this is not empty, a number is not the paper's experiment; figures carry it in their sidecars.
    """

    def other(ours, usual, names, before: str = "") -> list[str]:
        pairs = {name: (getattr(ours, name), getattr(usual, name)) for name in names}
        return [f"{before}{name} = {here} (paper: {there})" for name, (here, there) in pairs.items() if here != there]

    said = other(scale, PAPER, (name for name in SECTIONS["settings"] if name not in ("backend", "gpus", "seed")))
    for task in scale.tasks:
        said += other(task, PAPER.task(task.name), _OF_A_TASK, f"{task.title}: ")
        if task.source:
            said.append(f"{task.title} from {Path(task.source).name}")
    said += [f"{m.name} from {Path(m.path).name}" for m in dict.fromkeys(scale.models()) if m.path]
    cells, whole = (
        sum(len(s.teachers) * len(task.sampled()) * len(task.casting) for task in s.tasks) for s in (scale, PAPER)
    )
    return said + ([f"{cells} of {whole} cells"] if cells != whole else [])


def paper_scale() -> PaperScale:
    """The paper's scale, as changed by the file that GRACELIB_PAPER names and restricted by GRACELIB_PAPER_ONLY."""
    path, part = (os.environ.get(name, "").strip() for name in (FILE_VARIABLE, ONLY_VARIABLE))
    scale = with_file(PAPER, path) if path else PAPER
    try:
        chosen = json.loads(part or "{}")
    except ValueError as error:
        raise ValueError(f"{ONLY_VARIABLE}={part!r} is not JSON ({error}); unset it, the options set it") from error
    return only(scale, **_checked(ONLY_VARIABLE, {"only": chosen})["only"])
