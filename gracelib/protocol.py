"""What the released scripts do differently in training and evaluation, measured on a few cells.

Three differences change a student's accuracy and no score: the training settings (3 epochs of batch 256 with 6% warm-up
against the paper's 4 epochs of batch 64 with 5%), an instruction that stands before the question at evaluation only,
and a BOS token that is there at evaluation only. Each is run for the first and the last teacher of the scale at the
temperature at which teachers are compared, with everything else, seeds included, as in notebook 04.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from gracelib import paths
from gracelib.encoding import STUDENT_TEMPLATE, encode_example
from gracelib.measures import compared_at
from gracelib.pipeline import Plan, _table
from gracelib.scales import get_scale
from gracelib.store import Job, Stage
from gracelib.tasks import read_jsonl
from gracelib.workers import run_jobs

RELEASED_TRAINING = {"epochs": 3, "batch_size": 256, "warmup": 0.06}
# Words of the world in the place of "Please reason step by step"; its tokenizer has no BOS, so EOS stands in for it.
TEMPLATES = {
    "the paper's": STUDENT_TEMPLATE,
    "an instruction at evaluation only": STUDENT_TEMPLATE.replace("{question}", "let this story step by line . {question}"),
    "a BOS token at evaluation only": "<eos> " + STUDENT_TEMPLATE,
}


def run_evaluate_as(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Average@k of a student under a template of its own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gracelib.evaluate import accuracy, grade
    from gracelib.generate import sample_responses

    model = AutoModelForCausalLM.from_pretrained(inputs["model"], dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(inputs["model"])
    prompts = read_jsonl(inputs["prompts"] / "prompts.jsonl", required=("question", "answer"))
    rows = sample_responses(model, tokenizer, prompts, m=params["k"], temperature=params["temperature"],
                            seed=params["seed"], max_new_tokens=params["max_new_tokens"], template=params["template"])
    (out / "accuracy.json").write_text(json.dumps(accuracy(grade(rows))), encoding="utf-8")


def run_distill_as_released(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """A student trained with the released script's settings."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gracelib.tasks import read_responses
    from gracelib.training import train_causal_lm

    model = AutoModelForCausalLM.from_pretrained(inputs["student"], dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(inputs["student"])
    rows = read_responses(inputs["responses"] / "responses.jsonl", allow_empty=True)
    examples = [encode_example(tokenizer, row["question"], response) for row in rows for response in row["responses"]]
    train_causal_lm(model, examples, epochs=params["epochs"], lr=params["lr"], batch_size=params["batch_size"],
                    seed=params["seed"], warmup=params["warmup"])
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


EVALUATE_AS = Stage("evaluate_as", run_evaluate_as, ("gracelib.generate", "gracelib.evaluate", "gracelib.answers",
                                                     "gracelib.encoding"))
DISTILL_AS = Stage("distill_as", run_distill_as_released, ("gracelib.training", "gracelib.encoding"))


def protocol(scale: str, recompute: bool = True) -> pd.DataFrame:
    """One row a (teacher, setting): average (Average@k), average_se, points (difference from the paper's setting)."""
    config, root = get_scale(scale), paths.runs()

    def make():
        plan, t = Plan(config), compared_at(config)
        student, base = next(iter(plan.students.items()))
        jobs = {}
        for teacher in dict.fromkeys((config.teachers[0].name, config.teachers[-1].name)):
            cell = student, teacher, t
            usual, test = plan.distilled[cell], plan.student_accuracy[cell].params
            released = Job(DISTILL_AS, usual.params | RELEASED_TRAINING,
                           {"student": base, "responses": plan.responses[teacher, t]}, f"{teacher}, released settings", usual.cost)
            made = {name: (usual, template) for name, template in TEMPLATES.items()}
            made["the released script's training"] = (released, STUDENT_TEMPLATE)
            for setting, (model, template) in made.items():
                jobs[teacher, setting] = Job(EVALUATE_AS, test | {"template": template},
                                             {"model": model, "prompts": plan.test_prompts}, f"{teacher}, {setting}",
                                             plan.student_accuracy[cell].cost)
        run_jobs([*jobs.values()], root, "protocol")
        rows = [{"student": student, "teacher": teacher, "temperature": t, "setting": setting,
                 **json.loads((job.folder(root) / "accuracy.json").read_text(encoding="utf-8"))}
                for (teacher, setting), job in jobs.items()]
        table = pd.DataFrame(rows)[["student", "teacher", "temperature", "setting", "average", "average_se"]]
        usual = table[table.setting == "the paper's"].set_index("teacher").average
        return table.assign(points=100 * (table.average - table.teacher.map(usual)))

    return _table(scale, "protocol", recompute, make)
