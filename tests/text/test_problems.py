"""The same problems come out wherever they lie: hub rows, a file, a folder, a saved dataset (forms of files: test_responses).

A sample depends on the seed and the ids alone, so that two copies of GSM8K give the same 512 prompts; and what cannot
be read is refused with its place, because a task that silently loses rows is another task.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gracelib.jobs.paths import ROOT
from gracelib.text import problems
from gracelib.text.problems import load_problems
from gracelib.text.responses import question_id, write_jsonl

SHARED = Path(os.environ.get("GRACELIB_SHARED") or ROOT.parent / "shared") / "data"
with_shared = pytest.mark.skipif(not (SHARED / "gsm8k").is_dir(), reason="the real data are not beside the repository")
GSM8K = [
    {"question": f"What is {k} + {k}?", "answer": f"{k} + {k} = <<{k}+{k}={2 * k}>>{2 * k}\n#### {2 * k:,}"}
    for k in range(490, 520)
]
MATH = [
    {
        "problem": f"Halve {k}.",
        "level": "Level 1",
        "type": "Algebra",
        "solution": f"Half of {k} is\n\\[\\boxed{{\\frac{{{k}}}{{2}}}}.\\]",
    }
    for k in range(1, 20)
]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)
    return path


def sources(folder, rows):
    """A file, a folder of splits, a copy of the hub's with its parts and shards, and what `datasets` saved."""
    import datasets

    write(folder / "d" / "train.jsonl", rows[:3])
    write(folder / "d" / "test.jsonl", rows)
    write(folder / "e" / "main" / "test-00000-of-00002.jsonl", rows[:9])
    write(folder / "e" / "main" / "test-00001-of-00002.jsonl", rows[9:])
    write(folder / "e" / "socratic" / "test.jsonl", [{"question": "another", "answer": "1"}])
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(str(folder / "f"))
    return [folder / name for name in ("d/test.jsonl", "d", "e", "f")]


# --- the adapters -------------------------------------------------------------------------------------------


def test_a_task_is_the_same_in_every_form(tmp_path):
    expected = [
        {"id": question_id(row["question"]), "question": row["question"], "answer": f"{2 * k:,}"}
        for k, row in enumerate(GSM8K, 490)
    ]
    for source in sources(tmp_path / "gsm8k", GSM8K):
        assert load_problems("gsm8k", source) == load_problems("gsm8k", str(source)) == expected, source
    for source in sources(tmp_path / "math", MATH):
        found = [(row["question"], row["answer"]) for row in load_problems("math", source)]
        assert found == [(row["problem"], rf"\frac{{{k}}}{{2}}") for k, row in enumerate(MATH, 1)], source
    with pytest.raises(ValueError, match=r"f: no split 'train'; it has \['test'\]"):
        load_problems("math", source, "train")
    (source / "test" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="f: datasets cannot load it .*; save it again"):
        load_problems("math", source)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"problem": "p", "solution": r"so \fbox{7}"}, "7"),
        ({"problem": "p", "solution": r"so $\boxed 7$"}, "7"),
        ({"problem": "p", "solution": r"so $\boxed\frac{1}{2}$"}, r"\frac{1}{2}"),
        (
            {"problem": "p", "solution": "so\n\\boxed{\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}}"},
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        ),
        ({"problem": "p", "solution": "long\ntext", "answer": r"\frac{1}{2}"}, r"\frac{1}{2}"),
        ({"question": "p", "answer": "7"}, "7"),
        ({"question": "p", "answer": 7}, "7"),
    ],
)
def test_the_answer_is_bare(tmp_path, row, answer):
    (problem,) = load_problems("math", write(tmp_path / "m.jsonl", [row]))
    assert problem == {"id": question_id("p"), "question": "p", "answer": answer}


def test_ids_in_the_data_are_kept_and_repeated_problems_are_kept_once(tmp_path):
    rows = [{"id": 3, "question": "a", "answer": "1"}, {"id": "x", "question": "b", "answer": "2"}]
    assert [row["id"] for row in load_problems("gsm8k", write(tmp_path / "a.jsonl", rows))] == [3, "x"]
    with pytest.warns(UserWarning, match="gsm8k: 2 problems stand in the data more than once"):
        assert len(load_problems("gsm8k", write(tmp_path / "b.jsonl", rows * 2))) == 2


# --- sampling -----------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 29), order=st.integers(0, 10**6))
def test_a_sample_depends_on_seed_and_ids_only_and_is_nested(tmp_path_factory, seed, n, order):
    folder = tmp_path_factory.mktemp("gsm8k")
    shuffled = random.Random(order).sample(GSM8K, len(GSM8K))
    drawn = load_problems("gsm8k", write(folder / "test.jsonl", GSM8K), n=n, seed=seed)
    assert len({row["id"] for row in drawn}) == n
    assert load_problems("gsm8k", write(folder / "other.jsonl", shuffled), n=n, seed=seed) == drawn
    assert load_problems("gsm8k", folder / "other.jsonl", n=n + 1, seed=seed)[:n] == drawn


# --- the hub ------------------------------------------------------------------------------------------------


def test_the_hub_is_asked_for_all_parts_of_a_task(monkeypatch):
    import datasets

    asked = []

    def load_dataset(hub_id, config):
        asked.append((hub_id, config))
        rows = [{**row, "problem": f"{config}: {row['problem']}"} for row in MATH[:2]]
        return datasets.DatasetDict(dict.fromkeys(("test", "train"), datasets.Dataset.from_list(rows)))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    parts = problems.CONFIGS[problems.TASKS["math"]]
    assert len(load_problems("math", split="train")) == 2 * len(parts)
    assert asked == [(problems.TASKS["math"], part) for part in parts]
    assert len(load_problems("math", "someone/other-math")) == 2
    assert asked[-1] == ("someone/other-math", None)
    with pytest.raises(ValueError, match=r"openai/gsm8k \(main\), split test, row 1: solution 'Half.*holds neither"):
        unboxed = datasets.Dataset.from_list([{**MATH[0], "solution": "Half of it."}])
        monkeypatch.setattr(datasets, "load_dataset", lambda *_: {"test": unboxed})
        load_problems("gsm8k")


def test_without_network_the_message_says_how_to_pass_a_local_file(tmp_path):
    """In a process of its own, with the libraries' own way of being offline: the real error, not one made up here."""
    code = "from gracelib.text.problems import load_problems; load_problems('gsm8k', n=5)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: openai/gsm8k (main): datasets cannot load it (")
    assert last.endswith(
        "name config and split (hf://owner/name:CONFIG:SPLIT) or give a local copy, a file or a folder"
    )


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "a", "answer": "1"}\n{"question": "b"', "test.jsonl, line 2: not valid JSON"),
        (
            '{"question": "a", "answer": "1"}\n\n{"question": "b"}',
            r"line 3: no answer field; expected one of answer, solution; it has 'question",
        ),
        ('{"answer": "1"}', "line 1: no question field; expected one of question, problem, prompt; it has 'answer'"),
        ('["a", "b"]', "line 1: holds a list of 2, not an object"),
        ('{"question": " ", "answer": "1"}', "line 1: field 'question' is empty; drop the row"),
        ('{"question": "a", "answer": ["1"]}', "line 1: field 'answer' must be text or a number, it is a list of 1"),
        ('{"question": "a", "answer": "2 + 2 = 4\\n#### "}', "line 1: the reference answer .* is empty"),
        ('{"question": "a", "answer": "2 + 2\\nis 4"}', "line 1: answer .* holds neither '#### 18' nor"),
        ('{"problem": "a", "solution": "It is 4."}', "line 1: solution 'It is 4.' holds neither"),
        ('{"question": "a", "answer": "1", "id": 1.5}', "line 1: field 'id' must be text or a whole number, it is 1.5"),
        (
            '{"id": 1, "question": "a", "answer": "1"}\n{"id": 1, "question": "b", "answer": "1"}',
            "line 2: id 1 belongs to another question already",
        ),
        ("", "line 1: the file is empty"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, text, message):
    (tmp_path / "test.jsonl").write_text(text, "utf-8")
    for source in (tmp_path / "test.jsonl", tmp_path):
        with pytest.raises(ValueError, match=message):
            load_problems("gsm8k", source)


ABSENT = "no such file or folder, and not the id of a data set"


@pytest.mark.parametrize(
    ("there", "arguments", "message"),
    [
        ("train.jsonl", {"source": "{}/no.jsonl"}, ABSENT),
        ("train.jsonl", {"source": "data/no.jsonl"}, ABSENT),
        ("train.jsonl", {"source": "./owner/name"}, ABSENT),
        ("train.jsonl", {"source": "{}/folder"}, ABSENT),
        ("a.txt", {"source": "{}"}, r"no file of split 'test' \(no .jsonl, .json, .parquet, .* file in it\)"),
        (
            "train.jsonl",
            {"source": "{}"},
            r"no file of split 'test' \(train.jsonl\); name it test.jsonl or pass the file",
        ),
        ("a.txt", {"source": "{}/a.txt"}, r"a.txt: .*must be one of .jsonl"),
        ("test.jsonl", {"task": "gsm"}, "task = 'gsm': choose one of gsm8k, math"),
        ("test.jsonl", {"n": 0}, "n=0: the number of problems must be a positive whole number"),
        ("test.jsonl", {"n": 2.5}, "n=2.5: the number"),
        ("test.jsonl", {"n": 31}, r"n=31 problems were asked for, but .*test.jsonl \(split test\) has 30"),
    ],
)
def test_a_source_without_the_split_and_wrong_arguments_are_named(tmp_path, there, arguments, message):
    given = {"task": "gsm8k", "source": "{}/test.jsonl", **arguments}
    given["source"] = given["source"].format(write(tmp_path / there, GSM8K).parent)
    with pytest.raises(ValueError, match=message):
        load_problems(**given)


# --- real data ----------------------------------------------------------------------------------------------


@with_shared
@pytest.mark.parametrize(
    ("task", "folder", "split", "n"),
    [("gsm8k", "gsm8k", "train", 7473), ("gsm8k", "gsm8k", "test", 1319), ("math", "math", "test", 500)],
)
def test_the_real_tasks_load_whole_and_their_answers_are_short(task, folder, split, n):
    found = load_problems(task, SHARED / folder, split)
    assert len(found) == n and max(len(row["answer"]) for row in found) < 100
    assert len(load_problems(task, SHARED / folder, split, n=n // 2, seed=1)) == n // 2
