"""Every knob of a run in one place. `SCALE` picks one of these; nothing else does.

n = d and C = 10 follow the paper (n_folds = 4 or 5 only where a scale has too few prompts). `smoke` and `nano` are
smaller worlds for tests: every stage is real, their numbers mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gracelib.text.rows import short
from gracelib.world.cast import ModelSpec, PretrainSpec, TeacherSpec
from gracelib.world.stories import MANNERS

# World 3 of the design: a base student has seen every manner, in graded shares (percent). The second student has seen
# them in another order, so that the two are not at home with the same teachers.
GRADED = (30, 20, 14, 10, 7, 5, 4, 3, 3, 2, 2)
EVEN = tuple((manner, 1.0) for manner in MANNERS)
FIRST_STUDENT = tuple(zip(MANNERS, map(float, GRADED), strict=True))
SECOND_STUDENT = tuple(
    zip(
        (
            "table",
            "narration",
            "reversed",
            "equations",
            "digressing",
            "algebra",
            "terse",
            "check",
            "polish",
            "gains_first",
            "counting",
        ),
        map(float, GRADED),
        strict=True,
    )
)
EVERY_TENTH = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Task:
    """Problems of one difficulty, and which students are taught to solve them from teachers at which temperatures.

    `short` stands in the place of GSM8K, `long` (longer chains, the same words) in the place of MATH.
    """

    name: str
    min_steps: int
    max_steps: int
    max_new_tokens: int
    temperatures: tuple[tuple[str, tuple[float, ...]], ...]  # (student, its teachers' temperatures) pairs

    def sampled(self) -> tuple[float, ...]:
        """Every temperature at which some student needs the teachers' responses, coldest first."""
        return tuple(sorted({t for _, own in self.temperatures for t in own}))


@dataclass(frozen=True)
class Scale:
    """A complete run: who is in it, how much is sampled, scored, trained and tested. All draws derive from `seed`."""

    name: str
    students: dict[str, tuple[ModelSpec, PretrainSpec]]
    teacher_bases: dict[str, tuple[ModelSpec, PretrainSpec]]
    teachers: tuple[TeacherSpec, ...]
    tasks: tuple[Task, ...]  # the first task and its first student are what ablations are run on
    n_train: int  # N: prompts a student is trained on
    M: int  # responses a prompt it is trained on
    n_prompts: int  # n: prompts GRACE looks at (the first n of the N)
    m: int  # responses a prompt GRACE looks at (the first m of the M)
    d: int  # projection rows
    n_folds: int  # C
    n_test: int  # held-out problems
    M_kept: int = 0  # responses a prompt sampled for the first task (figure 18 trains on more than M); 0: M
    m_kept: int = 0  # responses a prompt whose gradients are kept for the first student's ablations; 0: m
    d_kept: int = 0  # projection rows kept on the first task, for the ablations; 0: d
    k: int = 16  # samples a problem for Average@k
    epochs: float = 4  # the paper's SFT: 4 epochs, batch 64, cosine, 5% warm-up
    batch_size: int = 64
    warmup: float = 0.05
    lr: float = 3e-3
    nu: float = 1e-3
    seed: int = 0

    def __post_init__(self):
        for kept, used in (("M_kept", "M"), ("m_kept", "m"), ("d_kept", "d")):
            if not getattr(self, kept):
                object.__setattr__(self, kept, getattr(self, used))
            if getattr(self, kept) < getattr(self, used):
                raise ValueError(
                    f"scale {self.name}: {kept}={getattr(self, kept)} is less than {used}={getattr(self, used)}"
                )
        if self.n_prompts > self.n_train or self.m > self.M or self.m_kept > self.M_kept:
            raise ValueError(
                f"scale {self.name}: n_prompts={self.n_prompts}, m={self.m} and m_kept={self.m_kept} must not "
                f"exceed n_train={self.n_train}, M={self.M} and M_kept={self.M_kept}"
            )
        unknown = {spec.base for spec in self.teachers} - set(self.teacher_bases)
        if unknown:
            raise ValueError(f"scale {self.name}: teachers name bases {sorted(unknown)} that are not defined")
        unknown = {student for task in self.tasks for student, _ in task.temperatures} - set(self.students)
        if unknown:
            raise ValueError(f"scale {self.name}: tasks name students {sorted(unknown)} that are not defined")

    def task(self, name: str | None = None) -> Task:
        """The task of that name; the first if None. ValueError for an unknown one."""
        found = [task for task in self.tasks if name in (None, task.name)]
        if not found:
            raise ValueError(f"task {name!r} is not one of scale {self.name}'s: {[task.name for task in self.tasks]}")
        return found[0]

    @property
    def student(self) -> str:
        """The first student: the one whose figures carry the argument."""
        return self.tasks[0].temperatures[0][0]

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Those of the first task and the first student."""
        return self.tasks[0].temperatures[0][1]


def _tasks(first: tuple[float, ...], others: tuple[float, ...]) -> tuple[Task, ...]:
    return (
        Task("short", 3, 5, 110, (("first", first), ("second", others))),
        Task("long", 6, 7, 140, (("first", others),)),
    )


def _base(width: int, lr: float, matrix_lr: float = 0.0, epochs: int = 6) -> tuple[ModelSpec, PretrainSpec]:
    return ModelSpec(width), PretrainSpec(13000, epochs, lr, 0.0, EVEN, matrix_lr=matrix_lr)


def _teacher(name: str, base: str, manner: str, n_texts: int, epochs: int = 1, lr: float = 1.4e-2) -> TeacherSpec:
    return TeacherSpec(name, base, manner, n_texts, epochs, lr, matrix_lr=lr)


# The laptop's scale trains its cast with Muon, in a third to a half of the lab's passes: the loss of the bases on held-out
# texts is the same, what they are then taught is less, and so are most accuracies.
MINI = Scale(
    name="mini",
    students={
        "first": (ModelSpec(64), PretrainSpec(12000, 2, 2e-2, 0.25, FIRST_STUDENT, matrix_lr=1.6e-2)),
        "second": (ModelSpec(64), PretrainSpec(12000, 2, 2e-2, 0.25, SECOND_STUDENT, matrix_lr=1.6e-2)),
    },
    teacher_bases={"40": _base(40, 1e-2, 2e-2, epochs=3), "64": _base(64, 1.5e-2, 1.2e-2, epochs=3)},
    teachers=(
        _teacher("equations-40", "40", "equations", 1600, lr=1e-2),
        _teacher("narration-40", "40", "narration", 5000, lr=1e-2),
        _teacher("terse-64", "64", "terse", 12000, lr=1.2e-2),
        _teacher("algebra-64", "64", "algebra", 4000),
        _teacher("table-64", "64", "table", 4000),
        _teacher("reversed-64", "64", "reversed", 4000, epochs=2),
    ),
    tasks=_tasks((0.4, 0.6, 0.8, 1.0), (0.6,)),
    n_train=320,
    M=4,
    n_prompts=256,
    m=4,
    d=256,
    n_folds=10,
    n_test=96,
    k=8,
    d_kept=512,
)

LAB = replace(
    MINI,
    name="lab",
    students={
        "first": (ModelSpec(64), PretrainSpec(12000, 6, 5e-3, 0.25, FIRST_STUDENT)),
        "second": (ModelSpec(64), PretrainSpec(12000, 6, 5e-3, 0.25, SECOND_STUDENT)),
    },
    teacher_bases={"40": _base(40, 6e-3), "64": _base(64, 4e-3), "96": _base(96, 3e-3)},
    # Three sizes a family where the paper has three; the small ones are only just competent, so that temperature matters.
    teachers=(
        TeacherSpec("equations-40", "40", "equations", 5000),
        TeacherSpec("narration-40", "40", "narration", 5000),
        TeacherSpec("terse-64", "64", "terse", 12000),
        TeacherSpec("algebra-64", "64", "algebra", 4000),
        TeacherSpec("table-64", "64", "table", 4000),
        TeacherSpec("reversed-64", "64", "reversed", 4000),
        TeacherSpec("equations-64", "64", "equations", 2000),
        TeacherSpec("equations-96", "96", "equations", 4000),
        TeacherSpec("narration-64", "64", "narration", 3000),
        TeacherSpec("narration-96", "96", "narration", 4000),
        TeacherSpec("algebra-40", "40", "algebra", 8000),
        TeacherSpec("algebra-96", "96", "algebra", 4000),
        TeacherSpec("table-96", "96", "table", 4000),
        TeacherSpec("reversed-96", "96", "reversed", 4000),
        TeacherSpec("terse-96", "96", "terse", 8000),
    ),
    tasks=_tasks(EVERY_TENTH, EVERY_TENTH),
    n_train=512,
    n_prompts=512,
    d=512,
    n_test=192,
    k=16,
    M_kept=8,
    m_kept=8,
    d_kept=1024,
)


def _other_world(seed: int) -> Scale:
    """The lab's cast grown from other seeds: the main table of the first student, at every second temperature."""
    short = replace(LAB.tasks[0], temperatures=(("first", EVERY_TENTH[1::2]),))
    return replace(
        LAB,
        name=f"lab-world{seed}",
        seed=100 * seed,
        students={"first": LAB.students["first"]},
        tasks=(short,),
        M_kept=0,
        m_kept=0,
        d_kept=0,
    )


def _shrunk(scale: Scale, texts: int, pretrain_epochs: int, teachers: int, **changes) -> Scale:
    """A smaller scale: same cast and code, fewer teachers, less text, less of everything."""

    def less(spec: PretrainSpec) -> PretrainSpec:
        return replace(spec, n_texts=texts, epochs=pretrain_epochs)

    kept = tuple(replace(t, n_texts=texts // 2) for t in scale.teachers[-teachers:])
    return replace(
        scale,
        teachers=kept,
        students={k: (m, less(p)) for k, (m, p) in scale.students.items()},
        teacher_bases={k: (m, less(p)) for k, (m, p) in scale.teacher_bases.items() if k in {t.base for t in kept}},
        **changes,
    )


SMOKE = _shrunk(
    MINI,
    1200,
    2,
    3,
    name="smoke",
    tasks=_tasks((0.6, 1.0), (0.6,)),
    n_train=48,
    M=2,
    n_prompts=48,
    m=2,
    d=48,
    d_kept=96,
    M_kept=0,
    m_kept=0,
    n_folds=5,
    n_test=32,
    k=4,
    epochs=2,
)
NANO = replace(
    _shrunk(
        SMOKE,
        256,
        1,
        1,
        name="nano",
        tasks=_tasks((0.6,), (0.6,)),
        n_train=16,
        M=2,
        n_prompts=16,
        m=2,
        d=16,
        d_kept=32,
        M_kept=0,
        m_kept=0,
        n_folds=4,
        n_test=8,
        k=2,
        epochs=1,
    ),
    students={
        name: (ModelSpec(16), PretrainSpec(256, 1, 5e-3, 0.25, shares))
        for name, shares in (("first", FIRST_STUDENT), ("second", SECOND_STUDENT))
    },
)

SCALES = {scale.name: scale for scale in (NANO, SMOKE, MINI, LAB, _other_world(1), _other_world(2))}


#: Scales whose full run takes hours: `make figures` redraws them from committed tables and trains nothing.
REDRAWN = ("lab",)
#: Scales that only repeat the main table in another world: no notebook is run at them.
TABLES_ONLY = ("lab-world1", "lab-world2")


def command_for(scale: str) -> str:
    """What makes the result tables of a scale."""
    if scale == "paper":
        return "make figures SCALE=paper CONFIRM=1"
    return f"make {'recompute' if scale in (*REDRAWN, *TABLES_ONLY) else 'figures'} SCALE={scale}"


def get_scale(name: str) -> Scale:
    """The scale of that name; "paper" is a `settings.PaperScale`. Raises ValueError listing the known ones."""
    if name == "paper":
        from gracelib.paper.settings import paper_scale  # real models: settings of another kind, perhaps from a file

        return paper_scale()
    if name not in SCALES:
        raise ValueError(f"scale {short(name)} is not known; choose one of {[*SCALES, 'paper']} (SCALE=... of make)")
    return SCALES[name]
