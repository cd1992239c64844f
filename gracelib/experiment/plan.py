"""All jobs of a task of a scale, and how they are named: what every table, ablation and check is read off.

A cell is a student taught by a teacher at a temperature; `KEY` are its columns in every result table. One chain for both
kinds of run: the models of the built-in world are trained here (jobs), those of the paper are somebody's (they have a
source), and `PaperPlan` says which jobs that changes.
"""

import json
import os
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path

from gracelib.experiment import stages
from gracelib.experiment.scales import command_for
from gracelib.jobs.store import Job, Needs
from gracelib.models import checkpoints
from gracelib.paper import settings
from gracelib.paper.cost import Assumptions, hours
from gracelib.scale import Model, PaperScale, Scale

KEY = ["task", "student", "teacher", "temperature"]
COMPARED_AT = 0.6  #: the temperature at which teachers are compared (the paper's figure 5)
_digest = cache(checkpoints.files_digest)


def compared_at(scale: Scale | PaperScale) -> float:
    """The scale's temperature closest to the one at which teachers are compared."""
    return min(scale.temperatures, key=lambda t: abs(t - COMPARED_AT))


class Plan:
    """All jobs of one task of a scale, as attributes and dictionaries keyed by (student, teacher, temperature).

    train_prompts, test_prompts; students, bases, teachers by name; responses and teacher_accuracy by (teacher,
    temperature); base_accuracy by student; features, distilled, student_accuracy by cell.

    Where and in which precision gradients are taken is a setting of the whole run, not of one notebook, because every
    later one must find the same features: GRACELIB_DEVICE (cpu) and GRACELIB_DTYPE (float32).
    """

    def __init__(self, scale: Scale, task: str | None = None):
        if isinstance(scale, PaperScale) and not isinstance(self, PaperPlan):
            raise ValueError(
                f"scale {scale.name!r} has a plan of its own: `{command_for(scale.name)}` makes its "
                "tables; set recompute = False to read them"
            )
        self.scale, self.task = scale, scale.task(task)
        self.first_task = self.task is scale.tasks[0]
        self._add_cast()
        self.responses, self.correct, self.teacher_accuracy, self.base_accuracy = {}, {}, {}, {}
        self.features, self.distilled, self.student_accuracy = {}, {}, {}
        for teacher, t in self._sampled_at(self.task.sampled()):
            name = self._name(f"{teacher} at T={t}")
            self.responses[teacher, t] = self._sampled(teacher, t, name)
            self.teacher_accuracy[teacher, t] = self.accuracy(self.teachers[teacher], name, t)
        for student, temperatures in self.task.temperatures:
            self.base_accuracy[student] = self.accuracy(
                self.students[student], self._name(f"base student {self.shown[student]}")
            )
            for teacher, t in self._sampled_at(temperatures):
                name = self._name(f"{self.shown[student]} taught by {teacher} at T={t}")
                cell = student, teacher, t
                self.features[cell] = self._gradients(*cell, name)
                self.distilled[cell] = self.student(student, self.responses[teacher, t], name)
                self.student_accuracy[cell] = self.accuracy(self.distilled[cell], name)

    def _sampled_at(self, temperatures: tuple[float, ...]) -> list[tuple[str, float]]:
        return [pair for pair in product(self.teachers, temperatures) if self.task.takes(*pair)]

    def _add_cast(self) -> None:
        """Models and prompts."""
        scale = self.scale
        self.students = {
            name: _pretrained(model, data, scale.seed + 1, f"base student {name}")
            for name, (model, data) in scale.students.items()
            if name in dict(self.task.temperatures)
        }
        self.shown = {name: name for name in self.students}
        self.bases = {
            name: _pretrained(model, data, scale.seed + 2, f"teacher base {name}")
            for name, (model, data) in scale.teacher_bases.items()
        }
        self.teachers = {
            spec.name: Job(
                stages.TEACHER,
                {"teacher": asdict(spec), "seed": scale.seed + 3},
                {"base": self.bases[spec.base]},
                label=f"teacher {spec.name}",
                cost=spec.n_texts * spec.epochs / 500,
            )
            for spec in scale.teachers
        }
        steps = {name: getattr(self.task, name) for name in ("min_steps", "max_steps", "any_order")}
        self.train_prompts = Job(
            stages.PROMPTS, {"split": "distill", "n": scale.n_train, "seed": scale.seed + 4, **steps}
        )
        self.test_prompts = Job(stages.PROMPTS, {"split": "test", "n": scale.n_test, "seed": scale.seed + 5, **steps})
        self.test = {"k": scale.k, "seed": scale.seed + 7, "max_new_tokens": self.task.max_new_tokens}

    def _sampled(self, teacher: str, t: float, label: str) -> Job:
        scale = self.scale
        M = scale.M_kept if self.first_task else scale.M
        return Job(
            stages.RESPONSES,
            {"m": M, "temperature": t, "seed": scale.seed + 6, "max_new_tokens": self.task.max_new_tokens},
            {"teacher": self.teachers[teacher], "prompts": self.train_prompts},
            label,
            scale.n_train * M / 400,
        )

    def _gradients(self, student: str, teacher: str, t: float, label: str) -> Job:
        scale, (device, dtype) = self.scale, checkpoints.device_of_run()
        m = scale.m_kept if self.first_task and student == scale.student else scale.m
        return Job(
            stages.FEATURES,
            {
                "n_prompts": scale.n_prompts,
                "m": m,
                "d": scale.d_kept if self.first_task else scale.d,
                "device": device,
                "dtype": dtype,
                "projection_seed": scale.seed + 8,
            },
            {"student": self.students[student], "responses": self.responses[teacher, t]},
            label,
            scale.n_prompts * m / 300,
            Needs(gpus=device.startswith("cuda")),
        )

    def student(self, base: str, responses: Job, label: str, **changes) -> Job:
        """A student distilled from `responses` with the scale's training settings, or with some of them changed."""
        settings = {key: getattr(self.scale, key) for key in ("M", "epochs", "lr", "batch_size", "warmup")}
        settings |= {"seed": self.scale.seed + 9} | changes
        return Job(
            stages.DISTILL,
            settings,
            {"student": self.students[base], "responses": responses},
            label,
            self.scale.n_train * settings["M"] * settings["epochs"] * self.task.max_steps / 2e3,
        )

    def accuracy(self, model: Job, label: str, temperature: float = 1.0, prompts: Job | None = None) -> Job:
        """The accuracy of a model on the held-out problems (or on other `prompts`)."""
        return Job(
            stages.EVALUATE,
            self.test | {"temperature": temperature},
            {"model": model, "prompts": prompts or self.test_prompts},
            label,
            self.scale.n_test * self.scale.k / 400,
        )

    def _name(self, label: str) -> str:
        return label if self.first_task else f"{label}, {self.task.name} task"


class PaperPlan(Plan):
    """All jobs of one task of the paper's experiment: one job is one model on one cell.

    students and teachers are `Model`s, which are loaded and not trained; `correct`, by (teacher, temperature), holds the
    grading of responses. Costs are seconds of a GPU by `assumptions`.
    """

    def __init__(self, scale: PaperScale, task: str | None = None, assumptions: Assumptions = Assumptions()):
        self.assumptions, self._untaught, self._asked = assumptions, {}, settings.asked_needs()
        super().__init__(scale, task)

    def _add_cast(self) -> None:
        scale, task = self.scale, self.task
        self.students = {role: scale.model(task, role) for role, _ in task.casting}
        self.shown = {role: model.name for role, model in self.students.items()}
        self.teachers = {model.name: model for model in scale.teachers}
        data = {"task": task.dataset, "source": task.source, "seed": scale.seed + 1}
        if task.source:
            data["content"] = _digest(task.source)
        self.train_prompts, self.test_prompts = (
            self._job(stages.PROBLEMS, None, {"split": split, "n": n} | data, {}, f"{task.title} {split}")
            for split, n in (("train", task.n_train), ("test", task.n_test))
        )

    def _sampled(self, teacher: str, t: float, label: str) -> Job:
        model, scale = self.teachers[teacher], self.scale
        own = _source(model) | self._engine(model) | {"m": scale.M, "temperature": t, "seed": scale.seed + 2}
        job = self._job(
            stages.SAMPLE, model, own, {"prompts": self.train_prompts}, label, self._seconds("sample", model)
        )
        self.correct[teacher, t] = self._job(stages.GRADE, None, {}, {"responses": job}, label)
        return job

    def _gradients(self, student: str, teacher: str, t: float, label: str) -> Job:
        model, scale = self.students[student], self.scale
        own = _source(model) | {
            "n_prompts": scale.n_prompts,
            "m": scale.m,
            "d": self.task.d_kept,
            "device": "auto",
            "dtype": scale.feature_dtype,
            "max_tokens": scale.max_tokens,
            "projection_seed": scale.seed + 3,
        }
        inputs = {"responses": self.responses[teacher, t], "correct": self.correct[teacher, t]}
        return self._job(stages.SPREAD_FEATURES, model, own, inputs, label, self._seconds("score", model))

    def student(self, base: str, responses: Job, label: str, **changes) -> Job:
        model, scale = self.students[base], self.scale
        own = {key: getattr(scale, key) for key in ("M", "epochs", "lr", "batch_size", "warmup", "max_tokens")}
        own |= {"seed": scale.seed + 4} | changes
        params, inputs = _source(model) | own, {"responses": responses}
        job = self._job(stages.FINE_TUNE, model, params, inputs, label, self._seconds("train", model))
        self._untaught[job] = model
        return job

    def accuracy(
        self, model: Job | Model, label: str, temperature: float | None = None, prompts: Job | None = None
    ) -> Job:
        """The accuracy of a model on the test problems: a teacher's in its chat template, a student's in its own."""
        scale, like = self.scale, self._untaught.get(model, model)
        loads, inputs = ({}, {"model": model}) if isinstance(model, Job) else (_source(model), {})
        own = {
            "k": scale.k,
            "temperature": scale.test_temperature if temperature is None else temperature,
            "style": "chat" if model in self.teachers.values() else "student",
            "seed": scale.seed + 5,
            "max_tokens": scale.max_tokens,
        }
        inputs |= {"prompts": prompts or self.test_prompts}
        params = loads | self._engine(like) | own
        return self._job(stages.MEASURE, like, params, inputs, label, self._seconds("measure", like))

    def _job(self, stage, model: Model | None, params: dict, inputs: dict, label: str, cost: float = 1.0) -> Job:
        """A job with what it needs where machines are shared out: a GPU for each model (as many as it is spread over while
        it samples), 4 CPUs for each GPU and for grading; the settings file may say otherwise."""
        own = settings.needs(stage.name, model.name if model else "", self._asked)
        gpus = own.get("gpus", params.get("gpus", 1) if model else 0)
        usual = {"cpus": 4 * max(1, gpus) if stage is not stages.PROBLEMS else 1, "gpus": gpus}
        if stage is stages.FINE_TUNE and gpus > 1 and not os.environ.get(stages.ACCELERATE_VARIABLE):
            raise ValueError(
                f"[needs.fine_tune] asks for {gpus} GPUs: name an `accelerate launch` configuration (FSDP, say) that "
                f"trains on several in {stages.ACCELERATE_VARIABLE}, or ask for one"
            )
        return Job(stage, params, inputs, label, cost, Needs(**usual | own))

    def _engine(self, model: Model) -> dict:
        scale = self.scale
        gpus = min(model.gpus, scale.gpus) if scale.backend == "vllm" else 1
        own = {"max_new_tokens": self.task.max_new_tokens, "top_p": scale.top_p}
        return own | {"backend": scale.backend, "gpus": gpus}

    def _seconds(self, stage: str, model: Model) -> float:
        return 3600 * hours(stage, self.scale, self.task, model, self.assumptions)

    def _name(self, label: str) -> str:
        return f"{label}, {self.task.title}"

    def jobs(self) -> list[Job]:
        """What the result tables need, one cell after the other: the first finished cells can be looked at early."""
        ordered = [*self.base_accuracy.values(), *self.teacher_accuracy.values()]
        return ordered + [jobs[cell] for cell in self.features for jobs in (self.features, self.student_accuracy)]


def _source(model: Model) -> dict:
    return {"model": model.source, "content": _digest(model.source)}


def _pretrained(model, data, seed: int, label: str) -> Job:
    return Job(
        stages.PRETRAIN,
        {"model": asdict(model), "data": asdict(data), "seed": seed},
        label=label,
        cost=data.n_texts * data.epochs * model.width / 4e4,
    )


def accuracy_of(job: Job, root: Path) -> dict[str, float]:
    """What a job that measured a model found: average, average_se, best_of, greedy, truncated."""
    return json.loads((job.folder(root) / "accuracy.json").read_text(encoding="utf-8"))


def plans_of(config: Scale) -> list[Plan]:
    """One plan a task of the scale."""
    return [Plan(config, task.name) for task in config.tasks]
