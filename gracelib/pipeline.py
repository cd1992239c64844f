"""From a scale to its result tables: which jobs there are, and what is read off them.

A notebook calls one function here for its stage (`teacher_data`, `student_features`, `score_table`,
`distilled_students`); each finishes its jobs in worker processes, writes a result table under figures/<scale>/results
and returns it. With `recompute=False` it returns the committed table instead, so that a reader of a notebook need
not train anything. Figures are drawn from those tables alone.
"""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path

import pandas as pd

from gracelib import paths, stages
from gracelib.baselines import compute_scores
from gracelib.scales import Scale, get_scale
from gracelib.store import Job, write_atomically
from gracelib.tasks import read_jsonl, read_responses
from gracelib.workers import run_jobs
from gracelib.world_models import spec_record


class Plan:
    """All jobs of a scale, as attributes and dictionaries keyed by (student, teacher, temperature).

    Where and in which precision gradients are taken is a setting of the whole run, not of one notebook, because every
    later one must find the same features: GRACELIB_DEVICE (auto: CUDA when present) and GRACELIB_DTYPE (float32).
    """

    def __init__(self, scale: Scale):
        self.scale = scale
        seed = scale.seed
        device, dtype = resolve_device(os.environ.get("GRACELIB_DEVICE", "auto")), os.environ.get("GRACELIB_DTYPE", "float32")
        self.students = {
            name: Job(stages.PRETRAIN, {"model": spec_record(model), "data": spec_record(data), "seed": seed + 1},
                      label=f"base student {name}", cost=data.n_texts * data.epochs * model.width / 9e4)
            for name, (model, data) in scale.students.items()}
        self.bases = {
            name: Job(stages.PRETRAIN, {"model": spec_record(model), "data": spec_record(data), "seed": seed + 2},
                      label=f"teacher base {name}", cost=data.n_texts * data.epochs * model.width / 6e4)
            for name, (model, data) in scale.teacher_bases.items()}
        self.teachers = {
            spec.name: Job(stages.TEACHER, {"teacher": spec_record(spec), "seed": seed + 3}, {"base": self.bases[spec.base]},
                           label=f"teacher {spec.name}", cost=spec.n_texts * spec.epochs / 1e3)
            for spec in scale.teachers}
        steps = {"min_steps": scale.min_steps, "max_steps": scale.max_steps}
        self.train_prompts = Job(stages.PROMPTS, {"split": "distill", "n": scale.n_train, "seed": seed + 4, **steps})
        self.test_prompts = Job(stages.PROMPTS, {"split": "test", "n": scale.n_test, "seed": seed + 5, **steps})
        self.responses, self.teacher_accuracy, self.features = {}, {}, {}
        self.distilled, self.student_accuracy, self.base_accuracy = {}, {}, {}
        test = {"k": scale.k, "seed": seed + 7, "max_new_tokens": scale.max_new_tokens}
        for teacher, t in product(self.teachers, scale.temperatures):
            name = f"{teacher} at T={t}"
            self.responses[teacher, t] = Job(
                stages.RESPONSES, {"m": scale.M, "temperature": t, "seed": seed + 6, "max_new_tokens": scale.max_new_tokens},
                {"teacher": self.teachers[teacher], "prompts": self.train_prompts}, name, scale.n_train * scale.M / 400)
            self.teacher_accuracy[teacher, t] = Job(
                stages.EVALUATE, test | {"temperature": t},
                {"model": self.teachers[teacher], "prompts": self.test_prompts}, name, scale.n_test * scale.k / 400)
        for student, base in self.students.items():
            self.base_accuracy[student] = Job(stages.EVALUATE, test | {"temperature": 1.0},
                                              {"model": base, "prompts": self.test_prompts}, f"base student {student}")
            for (teacher, t), responses in self.responses.items():
                name = f"{student} taught by {teacher} at T={t}"
                self.features[student, teacher, t] = Job(
                    stages.FEATURES, {"n_prompts": scale.n_prompts, "m": scale.m, "d": scale.d, "device": device,
                                      "dtype": dtype, "projection_seed": seed + 8},
                    {"student": base, "responses": responses}, name, scale.n_prompts * scale.m / 300)
                self.distilled[student, teacher, t] = Job(
                    stages.DISTILL, {"epochs": scale.epochs, "lr": scale.lr, "batch_size": scale.batch_size,
                                     "seed": seed + 9}, {"student": base, "responses": responses},
                    name, scale.n_train * scale.M * scale.epochs / 1e3)
                self.student_accuracy[student, teacher, t] = Job(
                    stages.EVALUATE, test | {"temperature": 1.0},
                    {"model": self.distilled[student, teacher, t], "prompts": self.test_prompts},
                    name, scale.n_test * scale.k / 400)


def resolve_device(name: str) -> str:
    """"auto" as the device it stands for. Loads torch only where an NVIDIA driver suggests that there is a GPU."""
    if name != "auto":
        return name
    if not (Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _table(scale: str, name: str, recompute: bool, make) -> pd.DataFrame:
    """The result table `name` of a scale: made and written, or read where it was committed."""
    path = paths.results(scale) / f"{name}.csv"
    if recompute:
        table = make()
        write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.10g", lineterminator="\n"))
    elif not path.is_file():
        raise FileNotFoundError(f"{path.relative_to(paths.figures(scale).parent.parent)} is not there: run "
                                f"`make figures SCALE={scale}`, or set recompute = True")
    return pd.read_csv(path)  # what a figure sees is what a fresh clone sees: the file


def _accuracy(job: Job, root: Path) -> dict[str, float]:
    return json.loads((job.folder(root) / "accuracy.json").read_text(encoding="utf-8"))


def teacher_data(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Train the cast and sample every teacher at every temperature; one row a (teacher, temperature).

    Columns: teacher, manner, width, temperature, accuracy (Average@k on held-out problems), best_of, greedy,
    train_accuracy (of the responses students learn from), mean_length (words), truncated (share), distinct (share of a
    prompt's responses that differ). Base students' accuracies go to the table `base_students`.
    """
    config, root = get_scale(scale), paths.runs()

    def make():
        plan = Plan(config)
        # The base students and their evaluation join in: three long pretrainings fill two cores better than two.
        run_jobs([*plan.responses.values(), *plan.teacher_accuracy.values(), *plan.base_accuracy.values()], root, "teachers")
        rows, specs = [], {spec.name: spec for spec in config.teachers}
        for (teacher, t), job in plan.responses.items():
            data = read_responses(job.folder(root) / "responses.jsonl", allow_empty=True)
            texts = [r for row in data for r in row["responses"]]
            result = _accuracy(plan.teacher_accuracy[teacher, t], root)
            rows.append({
                "teacher": teacher, "manner": specs[teacher].manner,
                "width": config.teacher_bases[specs[teacher].base][0].width, "temperature": t,
                "accuracy": result["average"], "best_of": result["best_of"], "greedy": result["greedy"],
                "train_accuracy": sum(sum(row["correct"]) for row in data) / len(texts),
                "mean_length": sum(len(r.split()) for r in texts) / len(texts),
                "truncated": sum(row["n_truncated"] for row in data) / len(texts),
                "distinct": sum(len(set(row["responses"])) for row in data) / len(texts)})
        return pd.DataFrame(rows)

    return _table(scale, "teachers", recompute, make)


def base_students(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Accuracy of each base student before any distillation: student, average, best_of, greedy, truncated."""
    config, root = get_scale(scale), paths.runs()

    def make():
        plan = Plan(config)
        run_jobs([*plan.base_accuracy.values()], root, "base students")
        return pd.DataFrame([{"student": name, **_accuracy(job, root)} for name, job in plan.base_accuracy.items()])

    return _table(scale, "base_students", recompute, make)


def examples(scale: str, recompute: bool = True) -> pd.DataFrame:
    """One question and each teacher's first response to it, coldest temperature first: what the data look like."""
    config, root = get_scale(scale), paths.runs()

    def make():
        plan, rows = Plan(config), []
        run_jobs([*plan.responses.values()], root, "teachers")
        for (teacher, t), job in plan.responses.items():
            if t in (config.temperatures[0], config.temperatures[-1]):
                row = read_jsonl(job.folder(root) / "responses.jsonl")[0]
                rows.append({"teacher": teacher, "temperature": t, "question": row["question"], "answer": row["answer"],
                             "response": row["responses"][0], "correct": row["correct"][0]})
        return pd.DataFrame(rows)

    return _table(scale, "examples", recompute, make)


def load_features(folder: Path) -> dict:
    """Features of one (student, teacher, temperature): arrays by name, and `prompt_id` (n m,) of strings.

    `g` (n m, d) is before length recalibration; see `gradients.response_features` for the others.
    """
    from safetensors import safe_open

    with safe_open(folder / "features.safetensors", framework="numpy") as f:
        features = {name: f.get_tensor(name) for name in f.keys()}
        ids = json.loads(f.metadata()["about"])["prompt_ids"]
    features["prompt_id"] = pd.Series(ids).to_numpy(dtype=str)[features["prompt"]]
    if "correct" in features:
        features["correct"] = features["correct"].astype(bool)
    return features


def student_features(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Project every response's gradient; one row a cell with what needs no score: lengths, losses, norms.

    Columns: student, teacher, temperature, n_prompts, m, d, length, loss, mean_prob, grad_norm (means over responses).
    """
    config, root = get_scale(scale), paths.runs()

    def make():
        plan = Plan(config)
        run_jobs([*plan.features.values()], root, "features")
        rows = []
        for (student, teacher, t), job in plan.features.items():
            f = load_features(job.folder(root))
            rows.append({"student": student, "teacher": teacher, "temperature": t, "n_prompts": config.n_prompts,
                         "m": config.m, "d": config.d, **{k: float(f[k].mean()) for k in ("length", "loss", "mean_prob",
                                                                                          "grad_norm")}})
        return pd.DataFrame(rows)

    return _table(scale, "features", recompute, make)


def cell_scores(features: dict, n_folds: int, nu: float) -> dict[str, float]:
    """Every score of `baselines.SCORES` that features allow, after length recalibration, and GRACE's cross term.

    A score that no prompt of a teacher allows (the probability of wrong responses of a teacher that is never wrong)
    is NaN: an empty cell of the table.
    """
    scored = compute_scores(features, n_folds=n_folds, nu=nu)
    return {"grace_cross": scored.grace.cross, **scored.values, **dict.fromkeys(scored.undefined, float("nan"))}


def score_table(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Every score of every cell, from the features of `student_features`."""
    config, root = get_scale(scale), paths.runs()

    def make():
        plan, rows = Plan(config), []
        run_jobs([*plan.features.values()], root, "features")
        for (student, teacher, t), job in plan.features.items():
            features = load_features(job.folder(root))
            rows.append({"student": student, "teacher": teacher, "temperature": t,
                         **cell_scores(features, config.n_folds, config.nu)})
        return pd.DataFrame(rows)

    return _table(scale, "scores", recompute, make)


def distilled_students(scale: str, recompute: bool = True) -> pd.DataFrame:
    """Distil the base student on every cell's responses and measure it; columns as `base_students`, per cell."""
    config, root = get_scale(scale), paths.runs()

    def make():
        plan = Plan(config)
        run_jobs([*plan.student_accuracy.values()], root, "students")
        return pd.DataFrame([{"student": s, "teacher": teacher, "temperature": t, **_accuracy(job, root)}
                             for (s, teacher, t), job in plan.student_accuracy.items()])

    return _table(scale, "students", recompute, make)


def cells(scale: str) -> pd.DataFrame:
    """The table all figures are drawn from: scores, student and teacher accuracies of every cell, read from results."""
    key = ["student", "teacher", "temperature"]
    students = distilled_students(scale, recompute=False).rename(columns={"average": "average_at_k"})
    teachers = teacher_data(scale, recompute=False).rename(
        columns={"accuracy": "teacher_accuracy", "truncated": "teacher_truncated", "best_of": "teacher_best_of",
                 "greedy": "teacher_greedy", "mean_length": "mean_words"})
    return score_table(scale, recompute=False).merge(students, on=key, validate="1:1").merge(
        teachers, on=["teacher", "temperature"], validate="m:1")
