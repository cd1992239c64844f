"""Teachers that nobody should choose, made on purpose: does a score see that something is wrong?

Three cells beside the cast of every scale: the base student as its own teacher (sampled at T = 1), random words in
lengths of a real teacher, and one real response given to every prompt. They pass through the same features, scores and
training as everybody else, but stay out of the table of cells that correlations are computed on: three planted
outliers would make any score look good or bad.
"""

from __future__ import annotations

from random import Random

from gracelib.experiment import scoring, stages
from gracelib.experiment.plan import Plan
from gracelib.jobs.store import Job

KINDS = {"self": "the student itself, T = 1", "random": "random words", "repeated": "one response for everything"}


def random_responses(rows: list[dict], words: list[str], seed: int) -> list[dict]:
    """The rows with every response replaced by as many random words (at least one), uniform over `words`.

    What a prompt gets depends on the seed, its id and the sample alone. ValueError if there are no words.
    """
    if not words:
        raise ValueError("no words to draw from")
    made = []
    for row in rows:
        texts = []
        for k, response in enumerate(row["responses"]):
            rng = Random(f"{seed}/{row['id']}/{k}")
            texts.append(" ".join(rng.choices(words, k=max(1, len(response.split())))))
        made.append({**row, "responses": texts, "n_truncated": 0})
    return made


def repeated_response(rows: list[dict]) -> list[dict]:
    """The rows with every response replaced by the first one that is not empty. ValueError if all are empty."""
    texts = [r for row in rows for r in row["responses"] if r.strip()]
    if not texts:
        raise ValueError("every response is empty: there is none to repeat")
    return [{**row, "responses": [texts[0]] * len(row["responses"]), "n_truncated": 0} for row in rows]


class PathologicalPlan:
    """Jobs of the three cells of the first student, as dictionaries keyed by (student, kind), on top of a scale's `Plan`.

    Random words and the repeated response are made from the scale's first teacher at its lowest temperature.
    """

    def __init__(self, plan: Plan):
        scale = plan.scale
        self.responses, self.features, self.distilled, self.student_accuracy = {}, {}, {}, {}
        source = next(iter(plan.responses.values()))
        example = next(iter(plan.responses))  # (teacher, temperature)
        for student, base in ((scale.student, plan.students[scale.student]),):
            made = {"kind": "random", "seed": scale.seed + 10}
            self.responses |= {
                (student, "self"): Job(
                    stages.RESPONSES,
                    source.params | {"temperature": 1.0},
                    {"teacher": base, "prompts": plan.train_prompts},
                    f"{student} itself",
                    source.cost,
                ),
                (student, "random"): Job(scoring.MADE, made, {"responses": source}, "random words"),
                (student, "repeated"): Job(
                    scoring.MADE, made | {"kind": "repeated"}, {"responses": source}, "one response"
                ),
            }
            for kind in KINDS:
                like, key, name = (student, *example), (student, kind), f"{student} taught by {KINDS[kind]}"
                inputs = {"student": base, "responses": self.responses[key]}
                for jobs, template in ((self.features, plan.features[like]), (self.distilled, plan.distilled[like])):
                    jobs[key] = Job(template.stage, template.params, inputs, name, template.cost)
                template = plan.student_accuracy[like]
                self.student_accuracy[key] = Job(
                    template.stage,
                    template.params,
                    {"model": self.distilled[key], "prompts": plan.test_prompts},
                    name,
                    template.cost,
                )
