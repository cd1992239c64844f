"""Students of several teachers differ from those of one in who taught them: the same prompts, settings and number of training
tokens; and who teaches a prompt is who the rule says.
"""

import numpy as np
import pytest

from gracelib.experiment import mixtures
from gracelib.experiment.extras import COMPLETED
from gracelib.experiment.mixtures import CHAIN, CHOICES, OF, REGENERATION, mixture_jobs, routed
from gracelib.experiment.objectives import FURTHER, SHORT
from gracelib.experiment.plan import plans_of
from gracelib.experiment.scales import get_scale
from gracelib.models import decoding, training
from gracelib.models.checkpoints import load_student
from gracelib.scale import ModelSpec
from gracelib.since import grape, rsr
from gracelib.text.responses import read_responses, write_jsonl
from gracelib.world.models import build_model, build_tokenizer


@pytest.mark.parametrize("name", ["nano", "mini", "lab"])
def test_the_students_differ_in_who_taught_them_only(name):
    plan = plans_of(get_scale(name))[0]
    scale, found = plan.scale, mixture_jobs([plan]) | mixture_jobs([plan], FURTHER)
    large = mixtures.strongest(scale)
    assert len(found) == 3 * (min(len(plan.teachers), COMPLETED) + len(CHOICES) + 2)
    short = SHORT if name != "lab" else {"M": 2}
    for (task, student, t, mixture, seed), (responses, test) in found.items():
        taught, usual = test.inputs["model"], plan.distilled[student, large, t]
        half = {"epochs": usual.params["epochs"] / 2 if name == "lab" else 0.5} if mixture == REGENERATION else {}
        own = {"n_prompts": scale.n_prompts, "seed": usual.params["seed"] + 1000 * seed}
        assert taught.params == usual.params | short | own | half
        assert (task, student) == (plan.task.name, scale.student) and taught.inputs["responses"] is responses
        assert taught.inputs["like"].key == plan.responses[large, t].key
        if mixture in plan.teachers:
            assert responses.key == plan.responses[mixture, t].key
        if mixture == CHAIN:
            assistant = responses.inputs["teacher"]
            assert assistant.key in {job.key for (_, *of), job in plan.distilled.items() if of == [large, t]}
        if mixture == REGENERATION:
            before = taught.inputs["student"]
            assert responses.inputs["student"].key == before.key and before.params == taught.params
            assert before.inputs["student"].key == plan.students[student].key
            assert responses.inputs["teacher"].key == plan.teachers[large].key
            assert responses.params["seed"] != plan.responses[large, t].params["seed"]  # else the very same responses
        else:
            assert taught.inputs["student"].key == plan.students[student].key
    if name == "mini":
        assert (large, mixtures.small(scale), assistant.inputs["student"].label) == (
            "algebra-64",
            "narration-40",
            "base student second",
        )


def features(rng, n, m):
    """Of n prompts with m responses each, of one to four tokens."""
    length = rng.integers(1, 5, n * m)
    token = {name: rng.random(length.sum()) for name in ("token_entropy", "token_rank")}
    token["token_logprob"] = -rng.random(length.sum())
    return token | {"length": length, "loss": rng.random(n * m)}


def chosen(tmp_path, monkeypatch, given, **params):
    """What `run_mixed` writes for features and right responses by teacher."""
    n, m = 6, 2
    rows = {
        name: [
            {
                "id": f"p{i}",
                "question": f"word{i % 2}",
                "responses": [f"{name} {i} {k}" for k in range(3)],
                "correct": right[i],
            }
            for i in range(n)
        ]
        for name, (_, right) in given.items()
    }
    inputs = {OF + name: name for name in given if params["by"] != "router"}
    for name, own in rows.items():
        (tmp_path / name).mkdir(exist_ok=True)
        write_jsonl(tmp_path / name / "responses.jsonl", own)
        inputs[name] = tmp_path / name
    monkeypatch.setattr(mixtures, "load_features", lambda name, m: given[name][0])
    mixtures.run_mixed(tmp_path, {"M": m, "n_prompts": n, **params}, inputs)
    made = read_responses(tmp_path / "responses.jsonl", n, m)
    assert all(row["responses"] == rows[row["teacher"]][i]["responses"][:m] for i, row in enumerate(made))
    return [row["teacher"] for row in made]


def test_each_prompt_gets_the_teacher_that_its_rule_says(tmp_path, monkeypatch):
    """By cost: the least mean over the first M; under equal shares each as often. By uncertainty: the small one for the half
    with the highest entropies of both. By the router: who is right on such questions."""
    rng = np.random.default_rng(3)
    right = {"a": [[i % 2, i % 2, 0] for i in range(6)], "b": [[1 - i % 2, 1 - i % 2, 1] for i in range(6)]}
    given = {name: (features(rng, 6, 2), own) for name, own in right.items()}
    of = {"grape": lambda f: -grape(f).above, "rsr": lambda f: rsr(f).above / rsr(f).below}
    for by, cost in of.items():
        each = np.array([cost(f).reshape(6, 2).mean(1) for f, _ in given.values()])
        assert chosen(tmp_path, monkeypatch, given, by=by) == [("a", "b")[k] for k in each.argmin(0)]
    shared = chosen(tmp_path, monkeypatch, given, by="grape", shared=True)
    assert sorted(shared) == ["a"] * 3 + ["b"] * 3
    entropy = np.zeros(6)
    for f, _ in given.values():
        texts = np.split(f["token_entropy"], np.cumsum(f["length"])[:-1])
        entropy += np.reshape([text.mean() for text in texts], (6, 2)).sum(1)
    unsure = set(np.argsort(entropy)[3:])
    expected = ["b" if i in unsure else "a" for i in range(6)]
    assert chosen(tmp_path, monkeypatch, given, by="uncertainty", small="b", large="a") == expected
    monkeypatch.setattr(mixtures, "FOLDS", 3)
    assert chosen(tmp_path, monkeypatch, given, by="router") == ["b", "a"] * 3


def test_the_router_never_looks_at_a_prompts_own_verdict():
    rng = np.random.default_rng(0)
    questions = [" ".join(rng.choice(["gains", "loses", "doubles", "halves"], 3)) for _ in range(60)]
    right = np.array([["gains" in q, "loses" in q, rng.random() < 0.3] for q in questions], float)
    found = routed(questions, right)
    only = [("gains" in q) != ("loses" in q) for q in questions]
    assert np.mean([right[i, k] for i, k in enumerate(found) if only[i]]) > 0.9
    for i in range(60):
        other = right.copy()
        other[i] = 1 - other[i]
        assert routed(questions, other)[i] == found[i]


@pytest.fixture
def student(tmp_path):
    tokenizer = build_tokenizer()
    for part in (build_model(ModelSpec(16, 1, 2), len(tokenizer), 0), tokenizer):
        part.save_pretrained(tmp_path / "student")
    return tmp_path / "student"


def test_all_students_see_the_same_number_of_tokens(student, tmp_path, monkeypatch):
    inputs, seen = {"student": student}, []
    for name, length in (("like", 5), ("responses", 2)):
        rows = [{"id": i, "question": "9 + 1", "responses": ["1 " * length] * 2} for i in range(8)]
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "responses.jsonl", rows[: 8 if name == "like" else 6])
        inputs[name] = tmp_path / name
    monkeypatch.setattr(training, "train_causal_lm", lambda model, examples, **how: seen.append((examples, how)))
    params = {"M": 1, "n_prompts": 7, "epochs": 2, "lr": 1e-3, "batch_size": 4, "seed": 0, "warmup": 0.05}
    (tmp_path / "out").mkdir()
    mixtures.run_budgeted(tmp_path / "out", params, inputs)
    ((examples, how),) = seen
    tokens = sum(len(response) for _, response in examples)
    assert (len(examples), tokens) == (6, 6 * 3) and how["epochs"] * tokens == pytest.approx(2 * 7 * 6)  # EOS counts
    assert load_student(tmp_path / "out")


def test_only_what_the_student_gets_wrong_is_asked_again(student, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "prompts.jsonl", [{"id": i, "question": f"q{i}", "answer": str(i)} for i in range(5)])
    asked = []

    def fake(model, tokenizer, prompts, **how):
        asked.append(([row["id"] for row in prompts], how["m"], how["temperature"]))
        return [row | {"responses": [f"so {row['id'] % 3} ."] * how["m"], "n_truncated": 0} for row in prompts]

    monkeypatch.setattr(decoding, "sample_responses", fake)
    params = {"n_prompts": 4, "M": 2, "temperature": 0.6, "seed": 1, "max_new_tokens": 9}
    inputs = {"student": student, "teacher": student, "prompts": tmp_path}
    for n, wrong in ((5, [3, 4]), (2, [0, 1])):  # none wrong: all again
        asked.clear()
        mixtures.run_regenerated(tmp_path, params | {"n_prompts": n}, inputs)
        assert asked == [([*range(n)], 1, 0.0), (wrong, 2, 0.6)]
        assert [row["id"] for row in read_responses(tmp_path / "responses.jsonl", None, 2)] == wrong
