"""The jobs of the scale `paper`, with the attributes of `tables.Plan`, so that tables and ablations find them.

One job is one model on one cell. They run one after the other, each in a process of its own: what vllm or CUDA took
is given back only when a process ends. A machine with more GPUs runs the same command several times, each with other
CUDA_VISIBLE_DEVICES and another part of the cells; two that want the same job wait for each other.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from itertools import product
from pathlib import Path

from tqdm import tqdm

from gracelib.experiment import stages
from gracelib.jobs.store import Job, compute, with_upstream
from gracelib.jobs.workers import prepare_worker
from gracelib.models.checkpoints import files_digest
from gracelib.paper.cost import Assumptions, hours
from gracelib.scale import Model, PaperScale

_content = cache(files_digest)


class PaperPlan:
    """All jobs of one task, as dictionaries keyed by (teacher, temperature), (student, teacher, temperature) or
    student.

    responses, correct (their grading), teacher_accuracy; features, distilled, student_accuracy; base_accuracy.
    """

    def __init__(self, scale: PaperScale, task: str | None = None, assumptions: Assumptions = Assumptions()):
        self.scale, self.task, self.costs = scale, scale.task(task), assumptions
        self.first_task = self.task is scale.tasks[0]
        data = {"task": self.task.dataset, "source": self.task.source, "seed": scale.seed + 1}
        if self.task.source:
            data["content"] = _content(self.task.source)
        self.train_prompts = Job(
            stages.PROBLEMS, data | {"split": "train", "n": self.task.n_train}, {}, f"{self.task.title} train"
        )
        self.test_prompts = Job(
            stages.PROBLEMS, data | {"split": "test", "n": self.task.n_test}, {}, f"{self.task.title} test"
        )
        self.responses, self.correct, self.teacher_accuracy = {}, {}, {}
        self.features, self.distilled, self.student_accuracy, self.base_accuracy = {}, {}, {}, {}
        for teacher, t in product(scale.teachers, self.task.sampled()):
            self._add_teacher(teacher, t)
        for role, temperatures in self.task.temperatures:
            base = scale.model(self.task, role)
            self.base_accuracy[role] = self._accuracy(
                self._loads(base), {}, f"base {base.name}", base, scale.test_temperature
            )
            for teacher, t in product(scale.teachers, temperatures):
                self._add_student(role, base, teacher.name, t)

    def _loads(self, model: Model) -> dict:
        return {"model": model.source, "content": _content(model.source)}

    def _sampling(self, model: Model) -> dict:
        return {
            "max_new_tokens": self.task.max_new_tokens,
            "top_p": self.scale.top_p,
            "backend": self.scale.backend,
            "gpus": min(model.gpus, self.scale.gpus) if self.scale.backend == "vllm" else 1,
        }

    def _add_teacher(self, teacher: Model, t: float) -> None:
        scale, label = self.scale, f"{teacher.name} at T={t}, {self.task.title}"
        self.responses[teacher.name, t] = Job(
            stages.SAMPLE,
            self._loads(teacher) | self._sampling(teacher) | {"m": scale.M, "temperature": t, "seed": scale.seed + 2},
            {"prompts": self.train_prompts},
            label,
            3600 * hours("sample", scale, self.task, teacher, self.costs),
        )
        self.correct[teacher.name, t] = Job(stages.GRADE, {}, {"responses": self.responses[teacher.name, t]}, label)
        self.teacher_accuracy[teacher.name, t] = self._accuracy(
            self._loads(teacher), {}, label, teacher, t, style="chat"
        )

    def _add_student(self, role: str, base: Model, teacher: str, t: float) -> None:
        scale, cell = self.scale, (role, teacher, t)
        label = f"{base.name} taught by {teacher} at T={t}, {self.task.title}"
        responses = self.responses[teacher, t]
        self.features[cell] = Job(
            stages.FEATURES,
            self._loads(base)
            | {
                "n_prompts": scale.n_prompts,
                "m": scale.m,
                "d": self.task.d_kept,
                "device": "auto",
                "dtype": scale.feature_dtype,
                "max_tokens": scale.max_tokens,
                "projection_seed": scale.seed + 3,
            },
            {"responses": responses, "correct": self.correct[teacher, t]},
            label,
            3600 * hours("score", scale, self.task, base, self.costs),
        )
        settings = {key: getattr(scale, key) for key in ("M", "epochs", "lr", "batch_size", "warmup", "max_tokens")}
        self.distilled[cell] = Job(
            stages.FINE_TUNE,
            self._loads(base) | settings | {"seed": scale.seed + 4},
            {"responses": responses},
            label,
            3600 * hours("train", scale, self.task, base, self.costs),
        )
        self.student_accuracy[cell] = self._accuracy(
            {}, {"model": self.distilled[cell]}, label, base, scale.test_temperature
        )

    def _accuracy(self, loads: dict, inputs: dict, label: str, model: Model, t: float, style: str = "student") -> Job:
        params = (
            loads
            | self._sampling(model)
            | {
                "k": self.scale.k,
                "temperature": t,
                "style": style,
                "seed": self.scale.seed + 5,
                "max_tokens": self.scale.max_tokens,
            }
        )
        return Job(
            stages.MEASURE,
            params,
            inputs | {"prompts": self.test_prompts},
            label,
            3600 * hours("measure", self.scale, self.task, model, self.costs),
        )

    def jobs(self) -> list[Job]:
        """What the result tables need, one cell after the other: the first finished cells can be looked at early."""
        ordered = [*self.base_accuracy.values(), *self.teacher_accuracy.values()]
        return ordered + [jobs[cell] for cell in self.features for jobs in (self.features, self.student_accuracy)]


def run_in_turn(jobs: Iterable[Job], root: Path, drop: Iterable[Job] = (), isolated: bool = True) -> None:
    """Finish the jobs and all they depend on, one at a time; finished ones cost a file look-up.

    A job in `drop` (a trained student) is removed from `root` as soon as no unfinished job needs it: its accuracy is
    kept. `isolated` False runs them in this process (for tests; a model that ran out of memory then takes the caller
    with it). Raises RuntimeError naming the job that failed; what was finished stays finished, and what it had begun
    is continued.
    """
    jobs, droppable = list(jobs), {job.key for job in drop}
    todo = with_upstream(jobs, unfinished_in=root)
    bar = tqdm(
        total=sum(job.cost for job in todo),
        desc="paper",
        smoothing=0,
        bar_format="{desc}: {percentage:3.0f}%|{bar:30}| {elapsed} so far, about {remaining} left{postfix}",
    )
    with bar:
        for i, job in enumerate(todo):
            name = f"{job.stage.name} {job.label}"
            print(f"\n{i + 1} of {len(todo)}: {name}", file=sys.stderr)
            try:
                _compute_apart(job, root) if isolated else compute(job, root)
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"the process of {name} died (out of memory?); run the same command again to go on"
                ) from error
            except Exception as error:
                raise RuntimeError(f"{name} failed: {error}") from error
            for upstream in job.inputs.values():
                if upstream.key in droppable and not any(upstream in later.inputs.values() for later in todo[i + 1 :]):
                    shutil.rmtree(upstream.folder(root), ignore_errors=True)
            bar.update(job.cost)


def _compute_apart(job: Job, root: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=prepare_worker) as pool:
        pool.submit(compute, job, root).result()
