"""Cells and students beyond the grid of a scale; each changes one thing about a cell of the first task and student and
keeps all else, seeds included.

Filtered: what a student would be taught if somebody checked the answers first (the paper's figures 15 to 17). The
paper resamples: of a prompt's M responses the wrong ones go, and the right ones are drawn again with replacement until
there are M. That leaves open what becomes of a prompt without any right response. Here it drops out, and the prompts
that are left share its responses as evenly as whole numbers allow, so that filtered and unfiltered students see the
same number N x M of responses in the same number of steps: what differs between them is which responses, not how many.

Training: other numbers of epochs, other numbers of responses (figure 18). The runs that change nothing (the usual
epochs, the usual M) are the cell's own and cost nothing. Which teachers: the paper argues about its strongest one and
about one that is very terse, so the strongest and the tersest of the cast, chosen by how they were made and not by how
they turned out; filtering adds the weakest, where there is most to drop, and then one of every family.

Absurd: three teachers that nobody should choose, made on purpose: does a score see that something is wrong? They pass
through the same features, scores and training as everybody else, but stay out of the table of cells that correlations
are computed on: three planted outliers would make any score look good or bad.

Smoke test: the comparator that is no score, a short distillation of every teacher.

Completing: what the grid alone leaves open. Students that are trained to their end, several times the usual epochs: a score may
tell how fast a student learns, or what it knows in the end. Students of many more prompts than a score reads. Students of
other training seeds, which differ from the cell's by chance alone.

Protocol: what the released scripts do differently in training and evaluation. It changes a student's accuracy and no
score: the training settings (3 epochs of batch 256 with 6% warm-up against the paper's 4 epochs of batch 64 with 5%),
an instruction that stands before the question at evaluation only, and a BOS token that is there at evaluation only.
"""

import json
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from pathlib import Path
from random import Random

from gracelib.experiment import stages
from gracelib.experiment.plan import Plan, compared_at
from gracelib.jobs import paths
from gracelib.jobs.store import Job, Stage
from gracelib.models.prompting import STUDENT_TEMPLATE
from gracelib.scale import Scale
from gracelib.text.answers import grade
from gracelib.text.responses import read_responses, write_jsonl
from gracelib.world import stories

#: Filtered students: number of teachers and their temperatures (the paper's where the scale is large enough).
FEW, MANY = (3, (0.6, 1.0)), (8, (0.4, 0.6, 0.8, 1.0))
SMALL_CAST = 6  #: scales of at most this many teachers get FEW
TRAIN_K = 4  #: samples a training prompt: there are several times as many as held-out problems
KEPT = "kept.json"
#: Absurd teachers. Random words have the lengths of a real teacher's responses.
KINDS = {"self": "the student itself, T = 1", "random": "random words", "repeated": "one response for everything"}
#: Completing: the first so many teachers where teachers are compared; epochs from the usual to what changes little; how many times
#: the usual prompts; and further seeds.
COMPLETED, TO_THE_END, MORE_PROMPTS, SEEDS = 15, (1, 2, 4, 8), 8, 2
RELEASED_TRAINING = {"epochs": 3, "batch_size": 256, "warmup": 0.06}
# Words of the world in place of "Please reason step by step"; its tokenizer has no BOS, so EOS stands in for it.
TEMPLATES = {
    "the paper's": STUDENT_TEMPLATE,
    "an instruction at evaluation only": STUDENT_TEMPLATE.replace(
        "{question}", "let this story step by line . {question}"
    ),
    "a BOS token at evaluation only": "<eos> " + STUDENT_TEMPLATE,
}


# --- responses that are changed -----------------------------------------------------------------------------


def filtered_responses(rows: list[dict], M: int, seed: int) -> tuple[list[dict], dict[str, float]]:
    """Right responses only, resampled with replacement so that there are len(rows) x M of them again.

    `rows` are prompts with `id`, `responses` and `correct` (booleans, beside the responses); the first M of each count.
    Every right response of the M is drawn from with equal probability. Each prompt that has one is given M or more: of
    the N x M responses, an equal share to each, and what does not divide goes one each to prompts in an order drawn from
    the seed and their ids, so that the order of rows never matters. The rows returned are in the given order, with
    `responses` and `correct` (all true).

    Returns the rows and what was kept: `kept_share` (of the N x M responses), `prompts`, `prompts_kept`. No prompt with
    a right response: no rows. ValueError if a row has fewer than M responses or grades.
    """
    right = {}
    for row in rows:
        short = min(len(row["responses"]), len(row.get("correct", ())))
        if short < M:
            raise ValueError(
                f"prompt {row['id']!r} has {short} graded responses, fewer than M = {M}: sample and grade more"
            )
        texts = [text for text, good in zip(row["responses"][:M], row["correct"][:M], strict=True) if good]
        if texts:
            right[row["id"]] = texts
    kept_share = sum(map(len, right.values())) / (len(rows) * M)
    kept = {"kept_share": kept_share, "prompts": len(rows), "prompts_kept": len(right)}
    if not right:
        return [], kept
    each, more = divmod(len(rows) * M, len(right))
    first = set(sorted(right, key=lambda name: Random(f"{seed}/order/{name}").random())[:more])
    made = []
    for row in rows:
        if row["id"] in right:
            n = each + (row["id"] in first)
            texts = Random(f"{seed}/{row['id']}").choices(right[row["id"]], k=n)
            made.append({**row, "responses": texts, "correct": [True] * n, "n_truncated": 0})
    return made, kept


def random_responses(rows: list[dict], words: list[str], seed: int) -> list[dict]:
    """The rows with every response replaced by as many random words (at least one), uniform over `words`.

    What a prompt gets depends on the seed, its id and the sample alone.
    """
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


def run_filtered(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """`filtered_responses` of the first `n_prompts` prompts; beside them `kept.json`."""
    rows = read_responses(inputs["responses"] / "responses.jsonl", params["n_prompts"], allow_empty=True)
    made, kept = filtered_responses(rows, params["M"], params["seed"])
    write_jsonl(out / "responses.jsonl", made)
    (out / KEPT).write_text(json.dumps(kept), encoding="utf-8")


def run_made(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """The responses of an absurd teacher, `random` or `repeated`, in place of a real one's."""
    rows = read_responses(inputs["responses"] / "responses.jsonl", allow_empty=True)
    if params["kind"] == "repeated":
        made = repeated_response(rows)
    else:
        made = random_responses(rows, stories.vocabulary(), params["seed"])
    write_jsonl(out / "responses.jsonl", grade(made))


FILTERED = Stage("filtered_responses", run_filtered)
MADE = Stage("made_responses", run_made)


# --- which teachers -----------------------------------------------------------------------------------------


def strongest(scale: Scale) -> str:
    """The teacher built to be strong: plain equations or algebra, the widest such, the last listed of several."""
    plain = [t for t in scale.teachers if t.manner in ("equations", "algebra")] or list(scale.teachers)
    return max(enumerate(plain), key=lambda it: (scale.width(it[1]), it[0]))[1].name


def tersest(scale: Scale) -> str:
    """The widest teacher of the terse manner, the last listed of several; of a cast without one, the last listed."""
    terse = [t for t in scale.teachers if t.manner == "terse"] or [scale.teachers[-1]]
    return max(enumerate(terse), key=lambda it: (scale.width(it[1]), it[0]))[1].name


def weakest(scale: Scale) -> str:
    """The narrowest teacher, of several the one trained on the fewest texts: only just competent."""
    return min(scale.teachers, key=lambda t: (scale.width(t), t.n_texts)).name


def filtered_cells(scale: Scale) -> list[tuple[str, float]]:
    """(teacher, temperature) of the filtered students: strongest, tersest, weakest, the widest of every other family,
    then the weakest of the rest, as many as `FEW` or `MANY` say."""
    number, temperatures = FEW if len(scale.teachers) <= SMALL_CAST else MANY
    weakest_first = sorted(scale.teachers, key=lambda t: (scale.width(t), t.n_texts))
    widest = {t.manner: t.name for t in weakest_first}  # the last of a family stays
    rest = [widest[t.manner] for t in scale.teachers] + [t.name for t in weakest_first]
    teachers = list(dict.fromkeys([strongest(scale), tersest(scale), weakest(scale), *rest]))[:number]
    there = [t for t in temperatures if t in scale.temperatures]
    return [(teacher, t) for teacher in teachers for t in there if scale.task().takes(teacher, t)]


def training_axes(scale: Scale) -> dict[str, list]:
    """Values of the two axes: epochs from a quarter of the usual to twice it, responses per prompt from 1 to all kept."""
    epochs = {scale.epochs * factor for factor in (0.25, 0.5, 1, 2)}
    generations = {*(2**k for k in range(scale.M_kept.bit_length()) if 2**k <= scale.M_kept), scale.M, scale.M_kept}
    # Whole numbers as integers: 4 and 4.0 would be two keys for the same student.
    return {"epochs": sorted(int(e) for e in epochs if e >= 1 and e == int(e)), "generations": sorted(generations)}


# --- jobs, by the key of their row --------------------------------------------------------------------------


def filter_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job, Job]]:
    """The filters of each cell: of all prompts, for training, and of those that GRACE reads, for the features.

    They say which filtered students there can be, so they are run first.
    """
    plan, scale, found = plans[0], plans[0].scale, {}
    for teacher, t in filtered_cells(scale):
        label, inputs = f"{teacher} at T={t}, filtered", {"responses": plan.responses[teacher, t]}
        found[plan.task.name, scale.student, teacher, t] = tuple(
            Job(FILTERED, {"M": scale.M, "seed": scale.seed + 11, "n_prompts": n}, inputs, label)
            for n in (scale.n_train, scale.n_prompts)
        )
    return found


def filtered_students(plans: list[Plan]) -> dict[tuple, tuple[Job, Job]]:
    """Accuracy and features of the student of each filtered cell, whether there can be one or not."""
    plan, scale, found = plans[0], plans[0].scale, {}
    for key, (taught, read) in filter_jobs(plans).items():
        like, usual = plan.features[key[1:]], plan.student(scale.student, taught, taught.label)
        # All prompts that are left: how many is not known before the run.
        params, inputs = (
            like.params | {"n_prompts": None, "m": scale.m, "d": scale.d},
            like.inputs | {"responses": read},
        )
        features = Job(like.stage, params, inputs, taught.label, scale.n_prompts * scale.m / 300)
        # M = None: all of the N x M responses, also where a prompt has more than M because another has none.
        cost = plan.distilled[key[1:]].cost
        student = Job(usual.stage, usual.params | {"M": None}, usual.inputs, taught.label, cost)
        found[key] = plan.accuracy(student, taught.label), features
    return found


def possible_students(plans: list[Plan]) -> dict[tuple, tuple[Job, ...]]:
    """Of each cell whose filters are finished: its filter, then as many of `filtered_students` as can be.

    No student where the filter left nothing to teach it with, no features where it left fewer prompts than there are
    folds.
    """
    root, found = paths.runs(), {}
    for key, (accuracy, features) in filtered_students(plans).items():
        taught, read = accuracy.inputs["model"].inputs["responses"], features.inputs["responses"]
        if not taught.fault(root) and not read.fault(root):
            found[key] = (taught,)
            if kept(taught, root)["prompts_kept"]:
                found[key] += (accuracy,)
                if kept(read, root)["prompts_kept"] >= plans[0].scale.n_folds:
                    found[key] += (features,)
    return found


def kept(job: Job, root: Path) -> dict[str, float]:
    """What a finished filter kept, see `filtered_responses`."""
    return json.loads((job.folder(root) / KEPT).read_text(encoding="utf-8"))


def training_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job, Job]]:
    """Accuracy on held-out problems and on the training prompts, by cell, axis and value of `training_axes`."""
    plan, scale, found = plans[0], plans[0].scale, {}
    t, k = compared_at(scale), min(TRAIN_K, scale.k)
    for teacher in dict.fromkeys((strongest(scale), tersest(scale))):
        for axis, values in training_axes(scale).items():
            for value in values:
                label, changes = f"{teacher}, {value:g} {axis}", {{"epochs": "epochs", "generations": "M"}[axis]: value}
                model = plan.student(scale.student, plan.responses[teacher, t], label, **changes)
                test = plan.accuracy(model, label)
                train = plan.accuracy(model, f"{label}, training prompts", prompts=plan.train_prompts)
                cost = scale.n_train * k / 400
                train = Job(train.stage, train.params | {"k": k}, train.inputs, train.label, cost)
                found[plan.task.name, scale.student, teacher, t, axis, value] = test, train
    return found


def _again(scale: Scale, n: int) -> dict[str, dict]:
    """Further seeds of training, by name, as changes of a student."""
    return {f"again {k}": {"seed": scale.seed + 20 + k} for k in range(1, n + 1)}


def check_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job]]:
    """Other accuracies of the first student's cells, by cell and what they are of.

    "train": the student on its training prompts. "again 1", ...: students of other training seeds (`Scale.n_again`).
    "twice": a student trained twice as long, of the first `Scale.n_doubled` teachers where teachers are compared.
    """
    plan, scale, found = plans[0], plans[0].scale, {}
    doubled = [spec.name for spec in scale.teachers[: scale.n_doubled]]
    for (student, teacher, t), usual in plan.distilled.items():
        if student == scale.student:
            changes = _again(scale, scale.n_again)
            if teacher in doubled and t == compared_at(scale):
                changes["twice"] = {"epochs": 2 * scale.epochs}
            key, label = (plan.task.name, student, teacher, t), f"{teacher} at T={t}"
            found[*key, "train"] = (plan.accuracy(usual, f"{label}, training prompts", prompts=plan.train_prompts),)
            for what, change in changes.items():
                model = plan.student(student, plan.responses[teacher, t], f"{label}, {what}", **change)
                found[*key, what] = (plan.accuracy(model, f"{label}, {what}"),)
    return found


def absurd_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job, Job, Job]]:
    """Responses, features and the student's accuracy, by (first student, one of `KINDS`).

    Random words and the repeated response are made from the scale's first teacher at its lowest temperature.
    """
    plan, scale = plans[0], plans[0].scale
    example, source = next(iter(plan.responses.items()))  # of a (teacher, temperature)
    made, itself = {"kind": "random", "seed": scale.seed + 10}, source.params | {"temperature": 1.0}
    cast = {"teacher": plan.students[scale.student], "prompts": plan.train_prompts}
    responses = {
        "self": Job(stages.RESPONSES, itself, cast, f"{scale.student} itself", source.cost),
        "random": Job(MADE, made, {"responses": source}, "random words"),
        "repeated": Job(MADE, made | {"kind": "repeated"}, {"responses": source}, "one response"),
    }
    cell, found = (scale.student, *example), {}
    for kind, what in KINDS.items():
        label = f"{scale.student} taught by {what}"
        inputs = {"student": plan.students[scale.student], "responses": responses[kind]}
        features, student = (
            Job(like.stage, like.params, inputs, label, like.cost)
            for like in (plan.features[cell], plan.distilled[cell])
        )
        found[scale.student, kind] = responses[kind], features, plan.accuracy(student, label)
    return found


def protocol_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job, Job]]:
    """An evaluation and the one with the paper's settings, by (student, teacher, temperature, setting): the first and
    the last teacher of the cast at the temperature at which teachers are compared."""
    plan, student, t, found = plans[0], plans[0].scale.student, compared_at(plans[0].scale), {}
    for teacher in dict.fromkeys((plan.scale.teachers[0].name, plan.scale.teachers[-1].name)):
        usual, test = plan.distilled[student, teacher, t], plan.student_accuracy[student, teacher, t]
        label = f"{teacher}, released settings"
        released = plan.student(student, plan.responses[teacher, t], label, **RELEASED_TRAINING)
        models = {name: (usual, template) for name, template in TEMPLATES.items()}
        models["the released script's training"] = released, STUDENT_TEMPLATE
        made = {
            setting: Job(
                stages.EVALUATE,
                test.params | {"template": template, "greedy": False},
                {"model": model, "prompts": plan.test_prompts},
                f"{teacher}, {setting}",
                test.cost,
            )
            for setting, (model, template) in models.items()
        }
        found |= {(student, teacher, t, setting): (job, made["the paper's"]) for setting, job in made.items()}
    return found


def _changed(
    plans: list[Plan], changes: Callable[[Scale], dict[Hashable, dict]], said: str = "{}"
) -> dict[tuple, tuple[Job]]:
    """Accuracy of the first students of the first `COMPLETED` teachers, where teachers are compared, with each of `changes` in
    their training, by cell and the change's name."""
    plan, scale, t, found = plans[0], plans[0].scale, compared_at(plans[0].scale), {}
    for teacher in [*plan.teachers][:COMPLETED]:
        for name, change in changes(scale).items():
            label = f"{teacher}, {said.format(name)}"
            model = plan.student(scale.student, plan.responses[teacher, t], label, **change)
            found[plan.task.name, scale.student, teacher, t, name] = (plan.accuracy(model, label),)
    return found


def _after(epochs: Iterable[int]) -> dict[int, dict]:
    return {n: {"epochs": n} for n in epochs}


#: After a part of the usual epochs, and all: a "smoke test"; after all, and several times as many; and of other training
#: seeds, as in `check_jobs`.
smoke_jobs = partial(
    _changed,
    changes=lambda scale: _after(n for n in training_axes(scale)["epochs"] if n <= scale.epochs),
    said="{} epochs",
)
to_the_end_jobs = partial(
    _changed, changes=lambda scale: _after(factor * scale.epochs for factor in TO_THE_END), said="{} epochs"
)
repeat_jobs = partial(_changed, changes=lambda scale: _again(scale, SEEDS))


def more_prompts_jobs(plans: list[Plan]) -> dict[tuple, tuple[Job, Job]]:
    """Accuracy of a student of `MORE_PROMPTS` times the usual prompts, and features of the first n of them, by cell."""
    plan, scale, t, found = plans[0], plans[0].scale, compared_at(plans[0].scale), {}
    n_train = MORE_PROMPTS * scale.n_train
    prompts = Job(stages.PROMPTS, plan.train_prompts.params | {"n": n_train})
    for teacher in [*plan.teachers][:COMPLETED]:
        cell, label = (scale.student, teacher, t), f"{teacher}, {n_train} prompts"
        like, usual, read = plan.responses[teacher, t], plan.distilled[cell], plan.features[cell]
        responses = Job(
            like.stage, like.params | {"m": scale.M}, like.inputs | {"prompts": prompts}, label, n_train * scale.M / 400
        )
        inputs = {"student": usual.inputs["student"], "responses": responses}
        student = Job(usual.stage, usual.params, inputs, label, MORE_PROMPTS * usual.cost)
        params = read.params | {"m": scale.m, "d": scale.d}
        features = Job(read.stage, params, inputs, label, scale.n_prompts * scale.m / 300)
        found[plan.task.name, *cell] = plan.accuracy(student, label), features
    return found
