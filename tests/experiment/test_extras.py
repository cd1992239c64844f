"""The extra students change one thing each: what is not changed has the key of the grid's own job, so it costs nothing and
is compared with the very same students; and the teachers are chosen before any result. Filtering drops what is wrong
and nothing else: the number of responses stays, each right one is as likely as another, and what a prompt is given
depends on its id alone.
"""

import json
from collections import Counter
from dataclasses import replace

import pytest

from gracelib.experiment import extras
from gracelib.experiment.extras import filtered_cells, filtered_responses, strongest, tersest, training_axes, weakest
from gracelib.experiment.objectives import FURTHER, OBJECTIVES, TAUGHT, objective_jobs
from gracelib.experiment.plan import plans_of
from gracelib.experiment.scales import SCALES, get_scale
from gracelib.text.responses import read_responses, write_jsonl
from gracelib.world.models import build_tokenizer

ROWS = [
    {"id": "a", "question": "q", "answer": "1", "responses": ["", "one two three"]},
    {"id": "b", "question": "r", "answer": "2", "responses": ["four", "five six"]},
]


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path))
    monkeypatch.setenv("GRACELIB_DEVICE", "cpu")


@pytest.mark.parametrize("name", ["nano", "smoke", "mini", "lab"])
def test_what_is_not_changed_is_the_cells_own_student(name):
    plans = plans_of(get_scale(name))
    plan, own = plans[0], {job.key for job in plans[0].student_accuracy.values()}
    usual = {"epochs": plan.scale.epochs, "generations": plan.scale.M}
    for (*_, axis, value), (test, train) in extras.training_jobs(plans).items():
        assert (test.key in own) == (value == usual[axis]), (axis, value)
        changed = {"epochs": "epochs", "generations": "M"}[axis]
        distil = test.inputs["model"]
        default = next(iter(plan.distilled.values())).params
        assert distil.params == default | {changed: value}
        assert train.inputs["model"].key == distil.key
        assert train.inputs["prompts"].key == plan.train_prompts.key != plan.test_prompts.key


@pytest.mark.parametrize("name", ["nano", "mini", "lab"])
def test_students_of_another_objective_differ_in_the_loss_and_the_seed_only(name):
    plan = plans_of(get_scale(name))[0]
    found = objective_jobs([plan]) | objective_jobs([plan], FURTHER)
    teachers = min(len(plan.teachers), extras.COMPLETED)
    assert {key[-1] for key in found} == {0, 1, 2} and len(found) == teachers * len(OBJECTIVES) * 3
    for (_, *cell, objective, seed), (test,) in found.items():
        distil, usual = test.inputs["model"], plan.distilled[tuple(cell)]
        own = {"seed": usual.params["seed"] + 1000 * seed} | OBJECTIVES[objective]
        fewer = {"M": 2} if name == "lab" else {k: distil.params[k] for k in ("M", "epochs", "batch_size")}
        assert distil.params == usual.params | own | fewer
        inputs = {name: job.key for name, job in distil.inputs.items()}
        from_student = inputs.pop("rejected", None)
        teacher = {"teacher": plan.teachers[cell[1]].key} if objective not in ("sequence", "PLaD") else {}
        assert distil.stage is (usual.stage if objective == "sequence" else TAUGHT)
        assert inputs == {name: job.key for name, job in usual.inputs.items()} | teacher
        if objective == "PLaD":
            before, like = distil.inputs["rejected"], plan.responses[cell[1], cell[2]]
            assert before.inputs["teacher"].key == plan.students[cell[0]].key and before.key == from_student
            assert before.inputs["prompts"].key == like.inputs["prompts"].key
            assert before.params == like.params | {"m": distil.params["M"]}


@pytest.mark.parametrize("name", ["nano", "lab", "lab-world1"])
def test_further_students_change_one_thing_each(name):
    """More epochs, another seed, more prompts; the usual epochs are the cell's own student."""
    plan = plans_of(get_scale(name))[0]
    scale = plan.scale
    changes = {
        extras.to_the_end_jobs: {n: {"epochs": n} for n in (scale.epochs * k for k in (1, 2, 4, 8))},
        extras.repeat_jobs: {f"again {k}": {"seed": scale.seed + 20 + k} for k in (1, 2)},
        extras.more_prompts_jobs: None,
    }
    for jobs, expected in changes.items():
        found = jobs([plan])
        assert {key[2] for key in found} == {*[*plan.teachers][:15]}
        for key, (test, *features) in found.items():
            cell, distil = key[1:4], test.inputs["model"]
            usual, like = plan.distilled[cell], plan.features[cell]
            assert test.params == plan.student_accuracy[cell].params
            assert test.inputs["prompts"].key == plan.test_prompts.key
            assert distil.inputs["student"].key == usual.inputs["student"].key
            if expected:
                assert len(found) == len({key[2] for key in found}) * len(expected)
                assert distil.params == usual.params | expected[key[-1]]
                assert distil.inputs["responses"].key == plan.responses[cell[1:]].key
                assert (test.key == plan.student_accuracy[cell].key) == (distil.params == usual.params)
            else:
                responses, (features,) = distil.inputs["responses"], features
                assert responses.key == features.inputs["responses"].key and distil.params == usual.params
                assert responses.inputs["prompts"].params == plan.train_prompts.params | {"n": 8 * scale.n_train}
                assert features.params == like.params | {"m": scale.m, "d": scale.d}


@pytest.mark.parametrize("name", ["nano", "smoke", "mini", "lab"])
def test_filtered_students_differ_from_the_cells_in_their_responses_only(name):
    plans = plans_of(get_scale(name))
    plan, scale, filters = plans[0], plans[0].scale, extras.filter_jobs(plans)
    students = extras.filtered_students(plans)
    assert [key[2:] for key in students] == filtered_cells(scale) and list(filters) == list(students)
    for key, (accuracy, features) in students.items():
        cell, (taught, read) = key[1:], filters[key]
        like, distil = plan.distilled[cell], accuracy.inputs["model"]
        assert distil.params == like.params | {"M": None} and distil.inputs["student"].key == like.inputs["student"].key
        assert distil.inputs["responses"].key == taught.key
        assert taught.inputs["responses"].key == plan.responses[cell[1:]].key
        assert taught.params | {"seed": 0} == {"M": scale.M, "seed": 0, "n_prompts": scale.n_train}
        assert accuracy.params == plan.student_accuracy[cell].params
        assert features.params == plan.features[cell].params | {"n_prompts": None, "m": scale.m, "d": scale.d}
        assert features.inputs["responses"].key == read.key and read.params["n_prompts"] == scale.n_prompts


def test_the_budget_and_the_choice_of_teachers():
    """At most three teachers x two temperatures at mini, 26 filtered and 16 longer or shorter ones at lab."""
    for name, most_filtered, most_trained in (("mini", 6, 10), ("lab", 26, 16)):
        plans = plans_of(get_scale(name))
        own = {job.key for job in plans[0].distilled.values()}
        trained = {test.inputs["model"].key for test, _ in extras.training_jobs(plans).values()} - own
        assert len(extras.filter_jobs(plans)) == most_filtered and len(trained) <= most_trained
    lab = get_scale("lab")
    assert (strongest(lab), tersest(lab), weakest(lab)) == ("algebra-96", "terse-96", "equations-40")
    teachers = dict.fromkeys(t for t, _ in filtered_cells(lab))
    specs = {t.name: t for t in lab.teachers}
    assert len({specs[t].manner for t in teachers}) == 7 and len(teachers) == 8
    mini = get_scale("mini")
    assert [t for t, _ in filtered_cells(mini)][::2] == ["algebra-64", "terse-64", "equations-40"]
    for scale in SCALES.values():
        assert all(t in scale.temperatures for _, t in filtered_cells(scale))


def test_the_axes_double_and_hold_the_usual_setting():
    assert training_axes(get_scale("lab")) == {"epochs": [1, 2, 4, 8], "generations": [1, 2, 4, 8]}
    assert training_axes(get_scale("mini")) == {"epochs": [1, 2, 4, 8], "generations": [1, 2, 4]}
    odd = replace(get_scale("mini"), epochs=3, M=4, M_kept=6)
    assert training_axes(odd) == {"epochs": [3, 6], "generations": [1, 2, 4, 6]}


# --- responses that are changed ---


def prompts(grades: list[str]) -> list[dict]:
    """One prompt a string of grades, "1" for a right response; a response says which prompt and sample it is."""
    return [
        {
            "id": f"p{i}",
            "question": f"q{i} ?",
            "answer": "1",
            "responses": [f"{i}.{k}" for k in range(len(own))],
            "correct": [g == "1" for g in own],
            "n_truncated": 3,
        }
        for i, own in enumerate(grades)
    ]


def test_only_right_responses_of_the_first_M_are_left_and_their_number_stays():
    rows = prompts(["1011", "0101", "0000", "1111", "0001"])
    made, kept = filtered_responses(rows, 3, seed=1)
    assert kept == {"kept_share": (2 + 1 + 3) / 15, "prompts": 5, "prompts_kept": 3}
    assert [row["id"] for row in made] == ["p0", "p1", "p3"]
    assert sum(len(row["responses"]) for row in made) == 5 * 3
    for row in made:
        i = int(row["id"][1:])
        right = {f"{i}.{k}" for k in range(3) if rows[i]["correct"][k]}  # the fourth is beyond M
        assert set(row["responses"]) <= right and all(row["correct"]) and row["n_truncated"] == 0
        assert len(row["correct"]) == len(row["responses"]) == 5
    assert (
        rows[0]["responses"] == ["0.0", "0.1", "0.2", "0.3"] and rows[0]["n_truncated"] == 3
    )  # the source is untouched


@pytest.mark.parametrize(
    "grades, sizes", [(["11", "00", "01", "10"], [2, 3, 3]), (["11", "11"], [2, 2]), (["00", "00"], [])]
)
def test_what_does_not_divide_is_given_out_one_by_one(grades, sizes):
    """Also for a teacher that is never wrong, or never right."""
    made, kept = filtered_responses(prompts(grades), 2, seed=0)
    assert sorted(len(row["responses"]) for row in made) == sizes
    right = "".join(grades).count("1") / (2 * len(grades))
    assert kept == {"kept_share": right, "prompts": len(grades), "prompts_kept": len(sizes)}


def test_row_order_never_matters_and_the_seed_does():
    rows = prompts(["1101", "0110", "0000", "1011", "1111", "0011"])
    made, kept = filtered_responses(rows, 4, seed=7)
    again, kept_again = filtered_responses(rows[::-1], 4, seed=7)
    assert again[::-1] == made and kept_again == kept
    other, _ = filtered_responses(rows, 4, seed=8)
    assert [r["responses"] for r in other] != [r["responses"] for r in made]


def test_every_right_response_is_as_likely_and_wrong_ones_never_come():
    """Over many prompts with two right responses of four, each place is drawn half of the time, with repetition."""
    made, _ = filtered_responses(prompts(["0110"] * 2000), 4, seed=3)
    places = Counter(text.split(".")[1] for row in made for text in row["responses"])
    assert set(places) == {"1", "2"} and places["1"] / 8000 == pytest.approx(0.5, abs=0.02)
    alike = sum(len(set(row["responses"])) == 1 for row in made) / 2000
    assert alike == pytest.approx(2 * 0.5**4, abs=0.03)  # with replacement


@pytest.mark.parametrize(
    "wrong, said",
    [
        *(
            (
                lambda row=row: filtered_responses([*prompts(["11"]), row], 2, seed=0),
                f"prompt 'p1' has {n} graded responses, fewer than M = 2",
            )
            for row, n in (
                ({"id": "p1", "responses": ["a"], "correct": [True, True]}, 1),
                ({"id": "p1", "responses": ["a", "b"], "correct": [True]}, 1),
                ({"id": "p1", "responses": ["a", "b"]}, 0),
            )
        ),
        (
            lambda: extras.repeated_response([{"id": "a", "question": "q", "responses": [" "]}]),
            "every response is empty",
        ),
    ],
)
def test_too_few_responses_grades_or_words_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


def test_the_stage_reads_the_first_prompts_and_writes_responses_that_can_be_read(tmp_path):
    rows = prompts(["10", "01", "11", "00"])
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write_jsonl(tmp_path / "in" / "responses.jsonl", rows)
    extras.run_filtered(tmp_path / "out", {"M": 2, "seed": 5, "n_prompts": 2}, {"responses": tmp_path / "in"})
    assert read_responses(tmp_path / "out" / "responses.jsonl") == filtered_responses(rows[:2], 2, 5)[0]
    assert json.loads((tmp_path / "out" / "kept.json").read_text()) == {
        "kept_share": 0.5,
        "prompts": 2,
        "prompts_kept": 2,
    }


def test_random_words_have_real_lengths_and_are_keyed_by_prompt_and_sample():
    words = ["x", "y", "z"]
    made = extras.random_responses(ROWS, words, 0)
    assert [[len(r.split()) for r in row["responses"]] for row in made] == [[1, 3], [1, 2]]
    assert all(word in words for row in made for r in row["responses"] for word in r.split())
    assert extras.random_responses(ROWS[1:], words, 0) == made[1:] and extras.random_responses(ROWS, words, 1) != made
    assert ROWS[0]["responses"] == ["", "one two three"]  # the source is not touched


def test_the_repeated_response_is_the_first_real_one():
    assert [row["responses"] for row in extras.repeated_response(ROWS)] == [["one two three"] * 2] * 2


def test_every_template_is_made_of_words_that_the_student_knows():
    tokenizer = build_tokenizer()
    for name, template in extras.TEMPLATES.items():
        ids = tokenizer(template.format(question="ann has 9 books . how many ?"), add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids, name
    assert tokenizer("<eos> ### Problem:")["input_ids"][0] == tokenizer.eos_token_id
