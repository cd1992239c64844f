"""Several teachers for one student, beside each teacher alone, at the same number of training tokens.

Of each prompt the responses of one teacher, chosen by what the student's features and the verdicts say (GRAPE, RSR, Dynamic
KD, a router); or models one after the other (a chain through an assistant, regeneration of what the student got wrong). All
take the prompts whose features GRACE has, so no choice costs a further pass, and are trained as students of other objectives.

Teachers write texts of different lengths, so the same number of responses is another number of tokens: a student passes over
its responses as often as it takes to see the tokens of the strongest teacher's student. Who is strongest and who is small is
said by how they were made and not by how they turned out.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from gracelib.experiment import stages
from gracelib.experiment.extras import COMPLETED, strongest
from gracelib.experiment.objectives import FIRST, settings, tested
from gracelib.experiment.plan import Plan, compared_at
from gracelib.features.files import load_features
from gracelib.jobs.store import Job, Stage
from gracelib.models.checkpoints import load_student
from gracelib.models.prompting import encode_examples
from gracelib.scale import Scale
from gracelib.since import COSTS, assigned, tokens
from gracelib.text.answers import grade
from gracelib.text.responses import read_jsonl, read_responses, write_jsonl

#: Choices of a teacher for each prompt, as the table `mixtures` names them, with the parameters of their jobs.
CHOICES = {
    "GRAPE": {"by": "grape"},
    "RSR": {"by": "rsr"},
    "GRAPE, equal shares": {"by": "grape", "shared": True},
    "student's uncertainty": {"by": "uncertainty"},
    "router": {"by": "router"},
}
CHAIN, REGENERATION = "assistant", "regeneration"
FOLDS, RIDGE = 5, 1.0  #: of the router
OF = "features of "  #: with a teacher's name, a job's input: the student's features of its responses


def run_mixed(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Of each prompt the M responses of the teacher chosen `by`; each row says whose they are.

    A name of `since.COSTS`: who costs the student least on average, under equal shares of the prompts if `shared`.
    "uncertainty": the `small` teacher for the half of the prompts where the student is least certain (its mean entropy over
    both teachers' responses), the `large` one for the others (Dynamic KD, Li et al. 2021, hard selection). "router": `routed`.
    """
    M, names = params["M"], sorted(name for name in inputs if not name.startswith(OF))
    rows = {
        name: read_responses(inputs[name] / "responses.jsonl", params["n_prompts"], M, allow_empty=True)
        for name in names
    }
    read = {name: load_features(inputs[OF + name], M) for name in names if OF + name in inputs}
    if params["by"] == "router":
        right = np.array([[np.mean(row["correct"][:M]) for row in rows[name]] for name in names]).T
        chosen = routed([row["question"] for row in rows[names[0]]], right)
    elif params["by"] == "uncertainty":
        texts = (np.split(tokens(f, "token_entropy"), np.cumsum(f["length"])[:-1]) for f in read.values())
        unsure = np.mean([[text.mean() for text in own] for own in texts], 0).reshape(-1, M).mean(1)
        chosen = np.where(unsure > np.median(unsure), names.index(params["small"]), names.index(params["large"]))
    else:
        cost = np.stack([COSTS[params["by"]](read[name]).reshape(-1, M).mean(1) for name in names], 1)
        chosen = assigned(cost, [1 / len(names)] * len(names) if "shared" in params else None)
    write_jsonl(out / "responses.jsonl", [rows[names[k]][i] | {"teacher": names[k]} for i, k in enumerate(chosen)])


def routed(questions: list[str], right: np.ndarray) -> np.ndarray:
    """The teacher (n,) that is most likely right on each question, by its words: the share of right responses (n, teachers),
    regressed on the words of the questions in other folds (ridge), so that no prompt's own verdict decides. After knowledge
    purification (arXiv 2602.01064), which keeps one rationale per prompt and whose routers are language models."""
    words = sorted({word for question in questions for word in question.split()})
    x = np.array([[1.0, *map(question.split().count, words)] for question in questions])
    fold, found = np.arange(len(x)) % FOLDS, np.zeros(right.shape)
    for k in range(FOLDS):
        a, b = x[fold != k], right[fold != k]
        found[fold == k] = x[fold == k] @ np.linalg.solve(a.T @ a + RIDGE * np.eye(a.shape[1]), a.T @ b)
    return found.argmax(1)


def run_regenerated(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """M new responses of the teacher to each prompt that the student, decoding greedily, gets wrong; to all if to none. After
    UNDO, whose teacher is shown the wrong answer: those of the built-in world read questions only."""
    from gracelib.models.decoding import sample_responses

    prompts = read_jsonl(inputs["prompts"] / "prompts.jsonl", required=("question", "answer"))[: params["n_prompts"]]
    how = {"seed": params["seed"], "max_new_tokens": params["max_new_tokens"]}
    tried = grade(sample_responses(*load_student(inputs["student"]), prompts, m=1, temperature=0.0, **how))
    wrong = [prompt for prompt, row in zip(prompts, tried, strict=True) if not row["correct"][0]]
    how |= {"m": params["M"], "temperature": params["temperature"]}
    made = sample_responses(*load_student(inputs["teacher"]), wrong or prompts, **how)
    write_jsonl(out / "responses.jsonl", grade(made))


def run_budgeted(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """A student as `stages.run_distill` makes one, of the first prompts, that sees as many supervised tokens as one of `like`
    would in `epochs` passes (to a step)."""
    from gracelib.models.training import first_responses, train_causal_lm

    model, tokenizer = load_student(inputs["student"])
    examples, size = {}, {}
    for name in ("responses", "like"):
        rows = read_responses(inputs[name] / "responses.jsonl", allow_empty=True)[: params["n_prompts"]]
        examples[name] = encode_examples(tokenizer, first_responses(rows, params["M"]))
        size[name] = sum(len(response) for _, response in examples[name])
    how = {name: params[name] for name in ("lr", "batch_size", "seed", "warmup")}
    train_causal_lm(model, examples["responses"], epochs=params["epochs"] * size["like"] / size["responses"], **how)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


MIXED = Stage("mixed_responses", run_mixed)
REGENERATED = Stage("regenerated", run_regenerated)
BUDGETED = Stage("budgeted", run_budgeted)


def small(scale: Scale) -> str:
    """The narrowest teacher, of several the one trained on the most texts: small, but competent."""
    return min(scale.teachers, key=lambda t: (scale.width(t), -t.n_texts)).name


def mixture_jobs(plans: list[Plan], seeds: range = FIRST) -> dict[tuple, tuple[Job, Job]]:
    """The responses that a student is taught with (at last) and its accuracy, by task, student, temperature, mixture (one of
    the first `COMPLETED` teachers alone; one of CHOICES; CHAIN; REGENERATION) and seed, counted from 0."""
    plan, t, found = plans[0], compared_at(plans[0].scale), {}
    scale = replace(plan.scale, teachers=plan.scale.teachers[:COMPLETED])
    usual = {"epochs": scale.epochs} | settings(scale)
    M, first, large = usual["M"], {"n_prompts": scale.n_prompts}, strongest(scale)
    alone, like = (
        {teacher.name: plan.responses[teacher.name, t] for teacher in scale.teachers},
        plan.responses[large, t],
    )

    def taught(responses: Job, label: str, seed: int, passes: float, base: Job) -> Job:
        changes = usual | {"epochs": passes, "seed": scale.seed + 9 + 1000 * seed}
        job = plan.student(scale.student, responses, label, **changes)
        inputs = {"student": base, "responses": responses, "like": like}
        return Job(BUDGETED, job.params | first, inputs, label, job.cost)

    made = {}
    for name, how in CHOICES.items():
        params, inputs = {"M": M} | first | how, alone
        if how["by"] == "uncertainty":
            params |= {"small": small(scale), "large": large}
            inputs = {name: alone[name] for name in (params["small"], large)}
        if how["by"] != "router":
            inputs = inputs | {OF + teacher: plan.features[scale.student, teacher, t] for teacher in inputs}
        made[name] = Job(MIXED, params, inputs, name)
    # The last student of the scale that this teacher has taught: at mini and lab another one than the first.
    assistant = [job for (_, *cell), job in plan.distilled.items() if cell == [large, t]][-1]
    inputs = {"teacher": assistant, "prompts": plan.train_prompts}
    made[CHAIN] = Job(stages.RESPONSES, like.params | {"m": M}, inputs, CHAIN, like.cost)
    for seed in seeds:
        base, key = plan.students[scale.student], (plan.task.name, scale.student, t)
        for name, responses in (alone | made).items():
            label = f"{name}, mixtures, seed {seed}"
            student = taught(responses, label, seed, usual["epochs"], base)
            found[*key, name, seed] = responses, tested(plan, student, label)
        label = f"{REGENERATION}, seed {seed}"
        half = taught(like, f"{label}, first half", seed, usual["epochs"] / 2, base)
        params = first | {"M": M, "temperature": t, "seed": scale.seed + 12, "max_new_tokens": plan.task.max_new_tokens}
        inputs = {"student": half, "teacher": plan.teachers[large], "prompts": plan.train_prompts}
        again = Job(REGENERATED, params, inputs, label, like.cost)
        student = taught(again, f"{label}, second half", seed, usual["epochs"] / 2, half)
        found[*key, REGENERATION, seed] = again, tested(plan, student, label)
    return found
