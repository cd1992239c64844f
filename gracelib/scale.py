"""Every knob of a run, as types: who takes part, how much is sampled, scored, trained and tested.

Two kinds of run, one reading of them. A `Scale` is a run of the built-in world, whose models are trained here from
nothing (specs); a `PaperScale` is the paper's own experiment, whose models are somebody's (`Model`). Tables, notebooks
and figures ask either for the same things: its tasks, its first student, its temperatures. The runs themselves have
names: `experiment.scales` (nano to lab) and `paper.settings` (paper).
"""

from dataclasses import dataclass

EVERY_TENTH = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  #: the paper's temperatures


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every scale has, and what it answers from it. All draws derive from `seed`."""

    name: str
    tasks: tuple  # the first task and its first student are what ablations are run on
    students: object  # who is taught, `teachers` by whom: as the two kinds of scale say
    teachers: tuple
    M: int  # responses per prompt a student is trained on
    n_prompts: int  # n: prompts GRACE looks at (the first n of the N)
    m: int  # responses per prompt GRACE looks at (the first m of the M)
    d: int  # projection rows
    n_folds: int  # C
    lr: float
    k: int = 16  # samples per problem for Average@k
    epochs: float = 4  # the paper's SFT: 4 epochs, batch 64, cosine, 5% warm-up
    batch_size: int = 64
    warmup: float = 0.05
    nu: float = 1e-3
    seed: int = 0

    def task(self, name: str | None = None):
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


# --- the built-in world ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelSpec:
    """A Llama: hidden width, layers, heads (head size width/heads), MLP of 2 x width, tied embedding."""

    width: int = 64
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class PretrainSpec:
    """Texts of a manner mixture, and the training on them (whole-sequence loss; `matrix_lr` as in `train_causal_lm`)."""

    n_texts: int
    epochs: int
    lr: float
    noise: float
    shares: tuple[tuple[str, float], ...]
    min_steps: int = 1
    max_steps: int = 7
    batch_size: int = 64
    matrix_lr: float = 0.0
    any_order: bool = False  # problems of which any step may come first, see `stories.draw_problem`
    turn: float = 0.0  # as in `stories.solve`
    believed: float = 0.0


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher: the pretrained base it starts from, its manner, and how much of that manner it is trained on."""

    name: str
    base: str
    manner: str
    n_texts: int
    epochs: int = 3
    lr: float = 4e-3
    min_steps: int = 3
    max_steps: int = 7
    batch_size: int = 64
    matrix_lr: float = 0.0
    any_order: bool = False
    noise: float = 0.0  # as in `stories.solve`
    turn: float = 0.0
    skip: float = 0.0
    skew: float = 1.0  # of its favourite words, see `stories.Habits`


@dataclass(frozen=True)
class Task:
    """Problems of one difficulty, and which students are taught to solve them from teachers at which temperatures.

    `short` stands for GSM8K, `long` (longer chains, the same words) for MATH.
    """

    name: str
    min_steps: int
    max_steps: int
    max_new_tokens: int
    temperatures: tuple[tuple[str, tuple[float, ...]], ...]  # (student, its teachers' temperatures) pairs
    any_order: bool = False
    curves: tuple[str, ...] = ()  # the teachers that take every temperature, where the others take `few`
    few: tuple[float, ...] = ()

    def sampled(self) -> tuple[float, ...]:
        """Every temperature at which some student needs the teachers' responses, coldest first."""
        return tuple(sorted({t for _, own in self.temperatures for t in own}))

    def takes(self, teacher: str, temperature: float) -> bool:
        """Whether this teacher is sampled at this temperature."""
        return not self.few or teacher in self.curves or temperature in self.few


@dataclass(frozen=True, kw_only=True)
class Scale(Run):
    """A complete run of the built-in world: who is in it, how much is sampled, scored, trained and tested.

    students: name -> (model, what it is pretrained on); teachers: `TeacherSpec`s; tasks: `Task`s.
    """

    teacher_bases: dict[str, tuple[ModelSpec, PretrainSpec]]
    n_train: int  # N: prompts a student is trained on
    n_test: int  # held-out problems
    M_kept: int = 0  # responses per prompt sampled for the first task (figure 18 trains on more than M); 0: M
    m_kept: int = 0  # responses per prompt whose gradients are kept for the first student's ablations; 0: m
    d_kept: int = 0  # projection rows kept on the first task, for the ablations; 0: d
    n_doubled: int = 0  # teachers whose students are also trained twice as long (table `checks`)
    n_again: int = 0  # further training seeds of every student (table `checks`)

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

    def width(self, teacher: TeacherSpec) -> int:
        """The size of a teacher, as the tables have it."""
        return self.teacher_bases[teacher.base][0].width


# --- the paper's own experiment -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A model of the paper.

    `manner` (its family) and `budget` are the columns `manner` and `width` of the result tables; `budget` is the smallest of the
    paper's size budgets (3, 10, 30 billion) that holds it by its nominal size, 70 for the one above all of them.
    `parameters` is the real number. `terms`: the licence to accept on its hub page before it can be downloaded, ""
    where anybody can. `gpus`: GPUs of 80 GB that its bfloat16 weights need while it samples. `path`: a local folder
    or other hub id.
    """

    name: str
    hub_id: str
    manner: str
    budget: int
    parameters: float
    terms: str = ""
    gpus: int = 1
    path: str = ""

    @property
    def source(self) -> str:
        """What is loaded: the override where there is one, else the hub id."""
        return self.path or self.hub_id


@dataclass(frozen=True)
class PaperTask:
    """One data set. `name` is its name in tables, `dataset` that of `problems.load_problems`.

    `casting`: (student in tables, name of its model) pairs. `n_train`, `n_test`: None would be all there are; they
    are numbers, so that a plan can be printed without the data and a data set of another size is noticed. `d_kept`:
    projection rows that are kept; figures 9 and 10 use 1,024 on GSM8K, of which the first 512 are those of all other
    figures.
    """

    name: str
    dataset: str
    title: str
    n_train: int
    n_test: int
    casting: tuple[tuple[str, str], ...]
    teacher_temperatures: tuple[float, ...] = EVERY_TENTH
    max_new_tokens: int = 4096
    d_kept: int = 512
    source: str = ""

    @property
    def temperatures(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """(student, its teachers' temperatures) pairs, as in `Task`."""
        return tuple((role, self.teacher_temperatures) for role, _ in self.casting)

    def sampled(self) -> tuple[float, ...]:
        """Every temperature at which teachers are sampled, coldest first."""
        return self.teacher_temperatures

    def takes(self, teacher: str, temperature: float) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class PaperScale(Run):
    """The paper's settings; students and teachers are `Model`s, tasks `PaperTask`s.

    `max_tokens`: prompt and response of a training example, as in the released script. `gpus`: the most a model may be
    spread over while it samples.
    """

    max_tokens: int = 4096
    test_temperature: float = 1.0
    top_p: float = 1.0
    feature_dtype: str = "float32"
    backend: str = "vllm"
    gpus: int = 4

    def __post_init__(self):
        for task in self.tasks:
            if not (self.n_prompts <= task.n_train and self.m <= self.M and self.n_folds <= self.n_prompts):
                raise ValueError(
                    f"scale paper, task {task.title}: n_prompts={self.n_prompts}, m={self.m} and n_folds="
                    f"{self.n_folds} must not exceed n_train={task.n_train}, M={self.M} and n_prompts"
                )
            if self.d > task.d_kept:
                raise ValueError(
                    f"scale paper, task {task.title}: d={self.d} exceeds d_kept={task.d_kept}; keep at least as "
                    "many rows as are used"
                )

    @property
    def m_kept(self) -> int:
        return self.m

    @property
    def d_kept(self) -> int:
        return self.tasks[0].d_kept

    @property
    def M_kept(self) -> int:
        return self.M

    def width(self, teacher: Model) -> int:
        """The size budget of a teacher, as the tables have it."""
        return teacher.budget

    def model(self, task: PaperTask, role: str) -> Model:
        """The base student that stands behind a name in the tables."""
        return next(m for m in self.students if m.name == dict(task.casting)[role])

    def models(self) -> tuple[Model, ...]:
        """Everybody who takes part, students of the chosen tasks first."""
        cast = {name for task in self.tasks for _, name in task.casting}
        return (*(m for m in self.students if m.name in cast), *self.teachers)
