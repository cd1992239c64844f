"""What the released scripts do differently in training and evaluation, measured on a few cells.

Three differences change a student's accuracy and no score: the training settings (3 epochs of batch 256 with 6% warm-up
against the paper's 4 epochs of batch 64 with 5%), an instruction that stands before the question at evaluation only,
and a BOS token that is there at evaluation only. Each is run for the first and the last teacher of the scale at the
temperature at which teachers are compared, with everything else, seeds included, as in notebook 04.
"""

from __future__ import annotations

import pandas as pd

from gracelib.experiment import stages
from gracelib.experiment.plan import Plan, accuracy_of, compared_at
from gracelib.experiment.scales import get_scale
from gracelib.experiment.tables import _table
from gracelib.jobs import paths
from gracelib.jobs.store import Job
from gracelib.jobs.workers import run_jobs
from gracelib.models.prompting import STUDENT_TEMPLATE
from gracelib.scale import Scale

RELEASED_TRAINING = {"epochs": 3, "batch_size": 256, "warmup": 0.06}
# Words of the world in the place of "Please reason step by step"; its tokenizer has no BOS, so EOS stands in for it.
TEMPLATES = {
    "the paper's": STUDENT_TEMPLATE,
    "an instruction at evaluation only": STUDENT_TEMPLATE.replace(
        "{question}", "let this story step by line . {question}"
    ),
    "a BOS token at evaluation only": "<eos> " + STUDENT_TEMPLATE,
}


def jobs(config: Scale) -> dict[tuple[str, str], Job]:
    """The evaluations by (teacher, setting): the first and the last teacher of the cast at the usual temperature."""
    plan, t, student = Plan(config), compared_at(config), config.student
    found = {}
    for teacher in dict.fromkeys((config.teachers[0].name, config.teachers[-1].name)):
        cell = student, teacher, t
        usual, test = plan.distilled[cell], plan.student_accuracy[cell].params
        released = plan.student(
            student, plan.responses[teacher, t], f"{teacher}, released settings", **RELEASED_TRAINING
        )
        made = {name: (usual, template) for name, template in TEMPLATES.items()}
        made["the released script's training"] = (released, STUDENT_TEMPLATE)
        for setting, (model, template) in made.items():
            found[teacher, setting] = Job(
                stages.EVALUATE_AS,
                test | {"template": template},
                {"model": model, "prompts": plan.test_prompts},
                f"{teacher}, {setting}",
                plan.student_accuracy[cell].cost,
            )
    return found


def protocol(scale: str, recompute: bool = True) -> pd.DataFrame:
    """One row a (teacher, setting): average (Average@k), average_se, points (difference from the paper's setting)."""
    config, root = get_scale(scale), paths.runs()

    def make():
        made = jobs(config)
        run_jobs([*made.values()], root, "protocol")
        rows = [
            {
                "student": config.student,
                "teacher": teacher,
                "temperature": compared_at(config),
                "setting": setting,
                **accuracy_of(job, root),
            }
            for (teacher, setting), job in made.items()
        ]
        table = pd.DataFrame(rows)[["student", "teacher", "temperature", "setting", "average", "average_se"]]
        usual = table[table.setting == "the paper's"].set_index("teacher").average
        return table.assign(points=100 * (table.average - table.teacher.map(usual)))

    return _table(scale, "protocol", recompute, make)
