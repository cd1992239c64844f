"""Students of the first task and student taught by each teacher with other objectives (`models.objectives`), at the
temperature where teachers are compared: the same responses, order of them, steps and schedule, another loss.
"""

from pathlib import Path

from gracelib.experiment import stages
from gracelib.experiment.extras import SMALL_CAST
from gracelib.experiment.plan import Plan, compared_at
from gracelib.jobs.store import Job, Stage
from gracelib.scale import Scale
from gracelib.text.responses import read_responses

#: As the table `objectives` names them, with the parameters of their students' jobs; the first is the paper's.
OBJECTIVES = {
    "sequence": {},
    "forward KL": {"objective": "gkd", "beta": 0.0},
    "JSD": {"objective": "gkd", "beta": 0.5},
    "reverse KL": {"objective": "gkd", "beta": 1.0},
    "on-policy reverse KL": {"objective": "on-policy", "beta": None},
    "skew KL": {"objective": "skew", "beta": None},
    "skew reverse KL": {"objective": "skew-reverse", "beta": None},
    "TAID": {"objective": "taid", "beta": None},
    "PLaD": {"objective": "plad", "beta": None},
}
#: Seeds of training, counted from 0: of the tables `objectives` and `mixtures`, and of those made on request.
FIRST, FURTHER = range(1), range(1, 3)
#: A laptop's cast sees one response per prompt once, in batches so small that
#: it takes as many steps as the scale's own students. Samples of the student are what takes time, so there are fewer of those.
SHORT, SHORT_ON_POLICY, SHORT_K = {"M": 1, "epochs": 1, "batch_size": 4}, {"batch_size": 16}, 4


def run_taught(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """A student as `stages.run_distill` makes one, but from its teacher's distributions, or also from rejected responses."""
    from gracelib.models.finetuning import fine_tune

    rows, others = (
        read_responses(inputs[name] / "responses.jsonl", allow_empty=True) if name in inputs else None
        for name in ("responses", "rejected")
    )
    how = {"scratch": out.with_suffix(".scratch"), "teacher": inputs.get("teacher"), "rejected": others}
    how |= {"micro_batch": params["batch_size"], "device": "cpu", "gradient_checkpointing": False, "progress": False}
    fine_tune(inputs["student"], rows, out, **how, **params)
    (out / "training.json").unlink()  # it names folders of this machine


TAUGHT = Stage("taught", run_taught)


def is_short(scale: Scale) -> bool:
    """Whether students are trained by SHORT."""
    return len(scale.teachers) <= SMALL_CAST


def tested(plan: Plan, student: Job, label: str) -> Job:
    """The accuracy of a student, from SHORT_K samples per problem and no greedy one where it was trained by SHORT."""
    test, fewer = plan.accuracy(student, label), {"k": min(SHORT_K, plan.scale.k), "greedy": False}
    own = fewer if is_short(plan.scale) else {}
    return Job(test.stage, test.params | own, test.inputs, label, test.cost)


def objective_jobs(plans: list[Plan], seeds: range = FIRST) -> dict[tuple, tuple[Job]]:
    """Accuracy of each student, by cell, objective and seed."""
    plan, scale, t, found = plans[0], plans[0].scale, compared_at(plans[0].scale), {}
    M = SHORT["M"] if is_short(scale) else scale.M
    for teacher, job in plan.teachers.items():
        like = plan.responses[teacher, t]
        rejected = {"teacher": plan.students[scale.student], "prompts": plan.train_prompts}
        before = Job(stages.RESPONSES, like.params | {"m": M}, rejected, "the student's own", like.cost)
        for name, own in OBJECTIVES.items():
            for seed in seeds:
                label, changes = f"{teacher}, {name}, seed {seed}", {"seed": scale.seed + 9 + 1000 * seed}
                if is_short(scale):
                    changes |= SHORT | (SHORT_ON_POLICY if own.get("objective") == "on-policy" else {})
                usual = plan.student(scale.student, like, label, **changes)
                inputs = usual.inputs | ({"rejected": before} if name == "PLaD" else {"teacher": job})
                taught = Job(TAUGHT, usual.params | own, inputs, label, 1.5 * usual.cost)
                test = tested(plan, taught if own else usual, label)
                found[plan.task.name, scale.student, teacher, t, name, seed] = (test,)
    return found
