"""Students of the first task and student taught by each teacher with other objectives (`models.objectives`), at the
temperature where teachers are compared: the same responses, order of them, steps and schedule, another loss.
"""

from pathlib import Path

from gracelib.experiment import stages
from gracelib.experiment.extras import COMPLETED, SMALL_CAST
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
    "PLaD": {"objective": "plad", "beta": None, "lr": 1.5e-4},  # a twentieth, as TRL has it for DPO
}
#: Seeds of training, counted from 0: of the tables `objectives` and `mixtures`, and of those made on request.
FIRST, FURTHER = range(1), range(1, 3)
#: A laptop's cast sees one response per prompt once, in batches so small that it takes as many steps as the scale's own students.
#: Samples of the student are what takes time, so there are fewer of those.
SHORT, SHORT_ON_POLICY = {"M": 1, "epochs": 1, "batch_size": 4}, {"batch_size": 16}
SAMPLES = 4  #: per problem, for an accuracy
#: Times the cost of a student by the paper's objective.
COST = {"PLaD": 3.0, "on-policy reverse KL": 4.5}


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


def settings(scale: Scale, on_policy: bool = False) -> dict:
    """Of training, where they are not the scale's. A large cast gets half of its responses: by the jobs' costs those teachers,
    objectives and seeds then take less than an hour and a half on two cores, and no teacher had to be chosen."""
    if len(scale.teachers) > SMALL_CAST:
        return {"M": scale.M // 2}
    return SHORT | SHORT_ON_POLICY if on_policy else SHORT


def tested(plan: Plan, student: Job, label: str) -> Job:
    """The accuracy of a student, from SAMPLES per problem and no greedy one."""
    test, k = plan.accuracy(student, label), min(SAMPLES, plan.scale.k)
    return Job(test.stage, test.params | {"k": k, "greedy": False}, test.inputs, label, test.cost * k / plan.scale.k)


def objective_jobs(plans: list[Plan], seeds: range = FIRST) -> dict[tuple, tuple[Job]]:
    """Accuracy of each student of the first `COMPLETED` teachers, by cell, objective and seed."""
    plan, scale, t, found = plans[0], plans[0].scale, compared_at(plans[0].scale), {}
    for teacher, job in [*plan.teachers.items()][:COMPLETED]:
        like = plan.responses[teacher, t]
        rejected = {"teacher": plan.students[scale.student], "prompts": plan.train_prompts}
        before = Job(
            stages.RESPONSES, like.params | {"m": settings(scale)["M"]}, rejected, "the student's own", like.cost
        )
        for name, own in OBJECTIVES.items():
            for seed in seeds:
                label, changes = f"{teacher}, {name}, seed {seed}", {"seed": scale.seed + 9 + 1000 * seed}
                changes |= settings(scale, own.get("objective") == "on-policy")
                usual = plan.student(scale.student, like, label, **changes)
                inputs = usual.inputs | ({"rejected": before} if name == "PLaD" else {"teacher": job})
                taught = Job(TAUGHT, usual.params | own, inputs, label, COST.get(name, 1.5) * usual.cost)
                test = tested(plan, taught if own else usual, label)
                found[plan.task.name, scale.student, teacher, t, name, seed] = (test,)
    return found
