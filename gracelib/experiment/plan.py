"""All jobs of a task of a scale, and how they are named: what every table, ablation and check is read off.

A cell is a student taught by a teacher at a temperature; `KEY` are its columns in every result table.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

from gracelib.experiment import stages
from gracelib.experiment.scales import command_for
from gracelib.jobs.store import Job
from gracelib.models import checkpoints
from gracelib.scale import Scale

KEY = ["task", "student", "teacher", "temperature"]
COMPARED_AT = 0.6  #: the temperature at which teachers are compared (the paper's figure 5)


def compared_at(scale: Scale) -> float:
    """The scale's temperature closest to the one at which teachers are compared."""
    return min(scale.temperatures, key=lambda t: abs(t - COMPARED_AT))


class Plan:
    """All jobs of one task of a scale, as attributes and dictionaries keyed by (student, teacher, temperature).

    Where and in which precision gradients are taken is a setting of the whole run, not of one notebook, because every
    later one must find the same features: GRACELIB_DEVICE (auto: CUDA when present) and GRACELIB_DTYPE (float32).
    """

    def __init__(self, scale: Scale, task: str | None = None):
        if not isinstance(scale, Scale):
            raise ValueError(
                f"scale {scale.name!r} has a plan of its own: `{command_for(scale.name)}` makes its "
                "tables; set recompute = False to read them"
            )
        self.scale, self.task = scale, scale.task(task)
        self.first_task = self.task is scale.tasks[0]
        self.students = {
            name: _pretrained(model, data, scale.seed + 1, f"base student {name}")
            for name, (model, data) in scale.students.items()
            if name in dict(self.task.temperatures)
        }
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
        steps = {"min_steps": self.task.min_steps, "max_steps": self.task.max_steps}
        self.train_prompts = Job(
            stages.PROMPTS, {"split": "distill", "n": scale.n_train, "seed": scale.seed + 4, **steps}
        )
        self.test_prompts = Job(stages.PROMPTS, {"split": "test", "n": scale.n_test, "seed": scale.seed + 5, **steps})
        self._add_teachers(M=scale.M_kept if self.first_task else scale.M)
        self._add_students()

    def _add_teachers(self, M: int) -> None:
        scale, longest = self.scale, self.task.max_new_tokens
        self.responses, self.teacher_accuracy = {}, {}
        self.test = {"k": scale.k, "seed": scale.seed + 7, "max_new_tokens": longest}
        for teacher, t in product(self.teachers, self.task.sampled()):
            name = self._name(f"{teacher} at T={t}")
            self.responses[teacher, t] = Job(
                stages.RESPONSES,
                {"m": M, "temperature": t, "seed": scale.seed + 6, "max_new_tokens": longest},
                {"teacher": self.teachers[teacher], "prompts": self.train_prompts},
                name,
                scale.n_train * M / 400,
            )
            self.teacher_accuracy[teacher, t] = self.accuracy(self.teachers[teacher], name, t)

    def _add_students(self) -> None:
        scale = self.scale
        device, dtype = checkpoints.device_of_run()
        self.features, self.distilled, self.student_accuracy, self.base_accuracy = {}, {}, {}, {}
        d = scale.d_kept if self.first_task else scale.d
        for student, temperatures in self.task.temperatures:
            base = self.students[student]
            m = scale.m_kept if self.first_task and student == scale.student else scale.m
            self.base_accuracy[student] = self.accuracy(base, self._name(f"base student {student}"))
            for teacher, t in product(self.teachers, temperatures):
                name, cell = self._name(f"{student} taught by {teacher} at T={t}"), (student, teacher, t)
                self.features[cell] = Job(
                    stages.FEATURES,
                    {
                        "n_prompts": scale.n_prompts,
                        "m": m,
                        "d": d,
                        "device": device,
                        "dtype": dtype,
                        "projection_seed": scale.seed + 8,
                    },
                    {"student": base, "responses": self.responses[teacher, t]},
                    name,
                    scale.n_prompts * m / 300,
                )
                self.distilled[cell] = self.student(student, self.responses[teacher, t], name)
                self.student_accuracy[cell] = self.accuracy(self.distilled[cell], name)

    def student(self, base: str, responses: Job, label: str, **changes) -> Job:
        """A student distilled from `responses` with the scale's training settings, or with some of them changed."""
        settings = {key: getattr(self.scale, key) for key in ("M", "epochs", "lr", "batch_size", "warmup")}
        settings |= {"seed": self.scale.seed + 9} | changes
        return Job(
            stages.DISTILL,
            settings,
            {"student": self.students[base], "responses": responses},
            label,
            self.scale.n_train * settings["M"] * settings["epochs"] * self.task.max_steps / 5e3,
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
