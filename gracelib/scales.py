"""Every knob of a run in one place. `SCALE` picks one of these; nothing else does.

n = d and C = 10 follow the paper (n_folds = 4 or 5 only where a scale has too few prompts). `smoke` and `nano` are
smaller worlds for tests: every stage is real, their numbers mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gracelib.world import MANNERS
from gracelib.world_models import ModelSpec, PretrainSpec, TeacherSpec

# World 3 of the design: a base student has seen every manner, in graded shares (percent).
GRADED = (30, 20, 14, 10, 7, 5, 4, 3, 3, 2, 2)
EVEN = tuple((manner, 1.0) for manner in MANNERS)
FIRST_STUDENT = tuple(zip(MANNERS, map(float, GRADED), strict=True))


@dataclass(frozen=True)
class Scale:
    """A complete run: who is in it, how much is sampled, scored, trained and tested. All draws derive from `seed`."""

    name: str
    students: dict[str, tuple[ModelSpec, PretrainSpec]]
    teacher_bases: dict[str, tuple[ModelSpec, PretrainSpec]]
    teachers: tuple[TeacherSpec, ...]
    temperatures: tuple[float, ...]
    n_train: int  # N: prompts a student is trained on
    M: int  # responses a prompt it is trained on
    n_prompts: int  # n: prompts GRACE looks at (the first n of the N)
    m: int  # responses a prompt GRACE looks at (the first m of the M)
    d: int  # projection rows
    n_folds: int  # C
    n_test: int  # held-out problems
    k: int = 16  # samples a problem for Average@k
    epochs: float = 4  # the paper's SFT: 4 epochs, batch 64, cosine, 5% warm-up
    batch_size: int = 64
    lr: float = 3e-3
    nu: float = 1e-3
    min_steps: int = 3
    max_steps: int = 5
    max_new_tokens: int = 110
    seed: int = 0

    def __post_init__(self):
        if self.n_prompts > self.n_train or self.m > self.M:
            raise ValueError(f"scale {self.name}: n_prompts={self.n_prompts} and m={self.m} must not exceed "
                             f"n_train={self.n_train} and M={self.M}")
        unknown = {spec.base for spec in self.teachers} - set(self.teacher_bases)
        if unknown:
            raise ValueError(f"scale {self.name}: teachers name bases {sorted(unknown)} that are not defined")


MINI = Scale(
    name="mini",
    students={"first": (ModelSpec(64), PretrainSpec(14000, 6, 5e-3, 0.25, FIRST_STUDENT))},
    teacher_bases={"40": (ModelSpec(40), PretrainSpec(16000, 6, 6e-3, 0.0, EVEN)),
                   "64": (ModelSpec(64), PretrainSpec(16000, 6, 4e-3, 0.0, EVEN))},
    teachers=(TeacherSpec("equations-40", "40", "equations", 1000),
              TeacherSpec("narration-40", "40", "narration", 1500),
              TeacherSpec("terse-64", "64", "terse", 14000),
              TeacherSpec("algebra-64", "64", "algebra", 4000),
              TeacherSpec("table-64", "64", "table", 4000),
              TeacherSpec("reversed-64", "64", "reversed", 4000)),
    temperatures=(0.4, 0.6, 0.8, 1.0),
    n_train=384, M=6, n_prompts=256, m=4, d=256, n_folds=10, n_test=192)


def _shrunk(scale: Scale, texts: int, pretrain_epochs: int, teachers: int, **changes) -> Scale:
    """A smaller scale: same cast and code, fewer teachers, less text, less of everything."""
    def less(spec: PretrainSpec) -> PretrainSpec:
        return replace(spec, n_texts=texts, epochs=pretrain_epochs)

    kept = tuple(replace(t, n_texts=texts // 2) for t in scale.teachers[-teachers:])
    return replace(scale, teachers=kept, students={k: (m, less(p)) for k, (m, p) in scale.students.items()},
                   teacher_bases={k: (m, less(p)) for k, (m, p) in scale.teacher_bases.items()
                                  if k in {t.base for t in kept}}, **changes)


SMOKE = _shrunk(MINI, 2000, 2, 3, name="smoke", temperatures=(0.6, 1.0), n_train=64, M=4, n_prompts=64, m=4, d=64,
                n_folds=5, n_test=32, k=4, epochs=2)
NANO = replace(
    _shrunk(SMOKE, 256, 1, 1, name="nano", temperatures=(0.6,), n_train=16, M=2, n_prompts=16, m=2, d=16, n_folds=4,
            n_test=8, k=2, epochs=1, max_new_tokens=40),
    students={"first": (ModelSpec(16), PretrainSpec(256, 1, 5e-3, 0.25, FIRST_STUDENT))})

SCALES = {scale.name: scale for scale in (NANO, SMOKE, MINI)}


def get_scale(name: str) -> Scale:
    """The scale of that name. Raises ValueError listing the known ones."""
    if name in ("lab", "paper"):
        raise ValueError(f"scale {name!r} is planned and not there yet; choose one of {list(SCALES)}")
    if name not in SCALES:
        raise ValueError(f"scale {name!r} is not known; choose one of {list(SCALES)} (SCALE=... of make)")
    return SCALES[name]
