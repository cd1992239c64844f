"""Files that others wrote either become exactly the prompts they hold, or one ValueError with file, line and remedy:
whatever the bytes, never another exception and never a guess (`test_fuzz_readers`). Our own are read back as they stand.
"""

import errno
import gzip
import json
import math
import re
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gracelib.jobs.paths import ROOT
from gracelib.text.responses import (
    Generations,
    Prompt,
    question_id,
    read_generations,
    read_jsonl,
    read_requests,
    read_responses,
    write_jsonl,
)
from gracelib.text.selection import expand, read_teachers, reasoning_sentence, select_common
from gracelib.text.shapes import LISTS, RESPONSE, SHAPES, shape_of

BAD = Path(__file__).parents[1] / "bad_inputs" / "ingest"
FORMATS = (ROOT / "notebooks" / "formats.md").read_text("utf-8")
GOOD = {"question": "ann has 9 books . finds 1 . how many ?", "answer": "10"}
ROW = {"id": "a", "question": "What is 1 + 1?", "answer": "2", "responses": ["1 + 1 = 2.", "Two."]}
OTHER = {"id": "b", "question": "What is 2 + 3?", "answer": "5", "responses": ["2 + 3 = 5.", "Five."]}


def write(path, *lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def told(generations):
    """What a file says, without the places."""
    return [(p.id, p.question, p.answer, p.responses) for p in generations.prompts]


def words(text):
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower()).split())


# --- files of this package ----------------------------------------------------------------------------------


def test_missing_ids_are_filled_in_from_the_question_alone(tmp_path):
    other = {"question": "bob has 3 cups . how many ?"}
    first = read_jsonl(write(tmp_path / "a.jsonl", GOOD, other))
    second = read_jsonl(write(tmp_path / "b.jsonl", other, "\n", {**GOOD, "answer": "11"}))
    assert first[0]["id"] == second[1]["id"] == question_id(GOOD["question"]) != first[1]["id"]
    assert read_jsonl(write(tmp_path / "c.jsonl", {**GOOD, "id": "mine"}))[0]["id"] == "mine"


def test_responses_are_cut_to_the_first_n_and_m(tmp_path):
    rows = [
        {"id": i, "question": f"wie viele\nBücher {i} ?", "responses": [f"{i} {k}" for k in range(3)]} for i in range(4)
    ]
    path = tmp_path / "r.jsonl"
    write_jsonl(path, rows)
    assert read_responses(path) == rows
    cut = read_responses(path, n_prompts=2, m=1)
    assert [(row["id"], row["responses"]) for row in cut] == [(0, ["0 0"]), (1, ["1 0"])]


TWO = {"id": "p1", "question": "q ?", "responses": ["a", "b"]}


@pytest.mark.parametrize(
    "row, asked, message",
    [
        (TWO, {"n_prompts": 5}, r": 1 prompts, but n_prompts=5 were asked for"),
        (TWO, {"m": 3}, r", line 1: prompt 'p1' has 2 responses, m=3 were asked for"),
        (GOOD, {}, r", line 1: field 'responses' is missing"),
        (
            TWO | {"responses": "one text"},
            {},
            r", line 1: prompt 'p1': responses must be a list of texts, not 'one text'",
        ),
        (TWO | {"responses": None}, {}, r", line 1: prompt 'p1': responses must be a list of texts, not None"),
        (
            TWO | {"responses": {"0": "a"}},
            {},
            r", line 1: prompt 'p1': responses must be a list of texts, not an object",
        ),
        (TWO | {"responses": ["a", 5]}, {"m": 1}, r", line 1: prompt 'p1': response 2 of 2 must be text, it is 5"),
        (TWO | {"responses": ["a", " "]}, {}, r", line 1: prompt 'p1': response 2 of 2 is empty; drop it or sample it"),
    ],
)
def test_bad_responses_are_refused(tmp_path, row, asked, message):
    with pytest.raises(ValueError, match=r"r\.jsonl" + message):
        read_responses(write(tmp_path / "r.jsonl", row), **asked)


def test_an_empty_response_passes_where_it_is_allowed_or_not_used(tmp_path):
    """A user's empty response is a mistake; a teacher's that ended at once is a response of one token."""
    path = write(tmp_path / "r.jsonl", TWO | {"responses": ["a", " "]})
    assert read_responses(path, m=1)[0]["responses"] == ["a"]  # the empty one is not among the first m
    assert read_responses(path, allow_empty=True)[0]["responses"] == ["a", " "]
    assert read_generations(path, allow_empty=True).prompts[0].responses == ("a", " ")


# --- the corpus of bad inputs -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(p.name for p in BAD.iterdir()))
def test_each_bad_input_is_refused_with_its_place(name):
    """The name of a sample says where and what: see tests/bad_inputs/README.md."""
    path = BAD / name
    place, _, what = (name if path.is_dir() else path.stem).partition("__")
    with pytest.raises(ValueError) as caught:
        if path.is_dir():
            select_common(read_teachers(path), n=2, m=2, seed=0)
        else:
            read_generations(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 1000, message
    assert what and words(what.replace("_", " ")) in words(message), message
    if place != "file":
        assert re.match(r".*, " + place.replace("_", " ") + r"( \(item \d+\))?[:)]", message), message
    assert re.search(r"; \w+|\bexpected\b", message), f"no remedy: {message}"


@pytest.mark.parametrize("read", [expand, read_generations, read_teachers])
@pytest.mark.parametrize(
    "name, message",
    [
        ("gone.jsonl", r"gone\.jsonl: no such file; check the spelling"),
        ("x" * 5000 + "gone.jsonl", r"gone\.jsonl: no such file; check the spelling"),
        ("gen.txt", r"gen\.txt: suffix '\.txt'; it must be one of \.jsonl, \.json, "),
        ("", r"(is a folder; name a file in it|no \.jsonl, \.json or \.parquet file in this folder)"),
    ],
)
def test_paths_that_are_no_generations(tmp_path, read, name, message):
    (tmp_path / "gen.txt").write_text("hello")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read(tmp_path / name)


def test_no_path_at_all():
    with pytest.raises(ValueError, match="no file with generations was given; name one file per teacher"):
        expand([])


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "gen.jsonl", ROW)

    refusal = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr("builtins.open", Mock(side_effect=refusal))  # chmod would not stop the superuser
    with pytest.raises(ValueError, match=r"gen\.jsonl: cannot be read \(Permission denied\)"):
        read_generations(path)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("gen.jsonl", "[" * 200_000, r"gen\.jsonl, line 1: not valid JSON for this reader: nested too deeply"),
        ("gen.json", "[" * 200_000, r"gen\.json, line 1 \(item 1\): not valid JSON for this reader: nested too deeply"),
        (
            "gen.jsonl",
            json.dumps({**ROW, "responses": f"['{'x' * 100_000}']"}),
            r"gen\.jsonl, line 1: .* saved as text, .*xxx",
        ),
        ("gen.jsonl", json.dumps({f"k{i}": i for i in range(10_000)}), r"gen\.jsonl, line 1: no question field"),
    ],
)
def test_what_has_no_end_is_refused_in_a_short_message(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_generations(tmp_path / name)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


# --- what a file may look like ------------------------------------------------------------------------------


def test_the_form_of_the_papers_code_is_read(tmp_path):
    """Fields of the data set with `responses` added: JSON Lines, or one indented list; unknown fields are ignored."""
    rows = [
        {"problem": "Find $x$.", "solution": "$\\boxed{3}$", "level": "Level 1", "responses": ["x is 3", "3"]},
        {"problem": "Find $y$.", "solution": "$\\boxed{4}$", "answer": "4", "unique_id": 7, "responses": ["y is 4"]},
    ]
    path = tmp_path / "gen.json"
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    expected = [
        Prompt(question_id("Find $x$."), "Find $x$.", "$\\boxed{3}$", ("x is 3", "3"), f"{path}, line 2 (item 1)"),
        Prompt(question_id("Find $y$."), "Find $y$.", "4", ("y is 4",), f"{path}, line 11 (item 2)"),
    ]
    assert read_generations(path) == Generations("gen", path, tuple(expected))
    assert told(read_generations(write(tmp_path / "gen.jsonl", *rows))) == told(read_generations(path))


TWO_PROMPTS = [(row["question"], row["responses"]) for row in (ROW, OTHER)]
EACH = [(q, r) for q, responses in TWO_PROMPTS for r in responses]


def chat(question, response=None, **more):
    turns = [("system", "Solve it."), ("user", question), ("assistant", response)]
    return [{"role": role, "content": text} | (more if role == "assistant" else {}) for role, text in turns if text]


def choice(text):
    return {"index": 0, "message": chat("", text)[-1], "finish_reason": "stop"}


def batch(k, body, **more):
    return {"id": f"r{k}", "custom_id": f"c{k}", "response": body, "error": None} | more


#: Two prompts with two responses each as each program writes them, by the name of the shape.
FORMS = {
    SHAPES[0].name: [
        [{"prompt": q, "outputs": [{"index": 0, "text": r} for r in rs]} for q, rs in TWO_PROMPTS],
        [{"prompt": chat(q), "completion": chat("", r)[1:]} for q, r in EACH],
        [
            {"problem": q, "generations": rs, "messages": chat(q, rs[0]), "finish_reasons": None}
            for q, rs in TWO_PROMPTS
        ],
        [{"problem": q, "expected_answer": "2", "generation": r} for q, r in EACH],
    ],
    SHAPES[1].name: [
        [{"instruction": q, "generations": rs, "model_name": ["t"] * 2} for q, rs in TWO_PROMPTS],
        [{"instruction": q, "input": "", "output": r} for q, r in EACH],
        [{"instruction": q, "context": "", "response": r} for q, r in EACH],
        [{"instruction": q, "response": r, "conversations": chat(q, r)} for q, r in EACH],
    ],
    SHAPES[2].name: [[{"input": q, "output": r} for q, r in EACH]],
    SHAPES[3].name: [[{"question": q, "reasoning_content": None, "content": r} for q, r in EACH]],
    SHAPES[4].name: [
        [{"problem": q, "generated_solution": r, "expected_answer": "2"} for q, r in EACH],
        [{"problem": q, "deepseek_solution": r, "ground_truth_solution": "$2$"} for q, r in EACH],
    ],
    SHAPES[5].name: [[{"idx": 0, "question": q, "gt": "2", "code": rs, "pred": ["2", "2"]} for q, rs in TWO_PROMPTS]],
    SHAPES[6].name: [
        [
            {
                "doc_id": 0,
                "doc": {"question": q, "answer": "#### 2"},
                "arguments": {"gen_args_0": {"arg_0": q}},
                "filter": f,
            }
            | {"resps": [rs], "filtered_resps": ["2"], "target": "#### 2"}
            for f in ("strict-match", "flexible-extract")
            for q, rs in TWO_PROMPTS
        ]
    ],
    SHAPES[7].name: [
        [{"id": k, "messages": chat(q, r)} for k, (q, r) in enumerate(EACH)],
        [{"messages": chat([{"type": "text", "text": q}], [{"type": "text", "text": r}])[1:]} for q, r in EACH],
    ],
    SHAPES[8].name: [
        [
            {"id": f"{k}", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": r}]}
            for k, (q, r) in enumerate(EACH)
        ]
    ],
    SHAPES[9].name: [
        [batch(k, {"status_code": 200, "body": {"choices": [choice(r)]}}) for k, (_, r) in enumerate(EACH)],
        [batch(k, {"choices": [{"text": r, "index": 0}]}) for k, (_, r) in enumerate(EACH)],
        [
            batch(2 * k, {"status_code": 200, "body": {"choices": [choice(r) for r in rs]}})
            for k, (_, rs) in enumerate(TWO_PROMPTS)
        ],
    ],
}


@pytest.mark.parametrize("shape, rows", [(name, rows) for name, several in FORMS.items() for rows in several])
def test_each_shape_is_read_as_it_is(tmp_path, shape, rows):
    """Every line of the table in notebooks/formats.md; as JSON Lines and as Parquet, with the requests of a batch beside it."""
    assert {shape_of(row, row).name for row in rows} == {shape}
    asked = [{"custom_id": f"c{k}", "method": "POST", "body": {"messages": chat(q)}} for k, (q, _) in enumerate(EACH)]
    requests = read_requests([write(tmp_path / "requests.jsonl", *asked)])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "gen.parquet")
    for path in (write(tmp_path / "gen.jsonl", *rows), tmp_path / "gen.parquet"):
        found = read_generations(path, requests=requests)
        assert [(p.question, list(p.responses)) for p in found.prompts] == TWO_PROMPTS
        assert {p.id for p in found.prompts} == {question_id(q) for q, _ in TWO_PROMPTS}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_readme_lists_each_shape(shape):
    fields = (", ".join(f"`{name}`" for name in names) for names in (shape.question, shape.response, shape.also))
    assert f"\n| {' | '.join([shape.name, *fields])} |\n" in FORMATS and shape.name in FORMS


@pytest.mark.parametrize(
    "row, keep, drop",
    [
        ({"content": "Two.", "reasoning_content": " hm\n"}, ["<think>\nhm\n</think>\n\nTwo."], ["Two."]),
        ({"response": "<think>\nhm\n</think>\n\nTwo."}, ["<think>\nhm\n</think>\n\nTwo."], ["Two."]),
        ({"response": "hm</think>Two."}, ["hm</think>Two."], ["Two."]),  # its template opened the thought
        ({"deepseek_solution": "Two.", "deepseek_reasoning": "hm"}, ["<think>\nhm\n</think>\n\nTwo."], ["Two."]),
        (
            {"responses": ["Two.", "2"], "reasoning_content": ["hm", None]},
            ["<think>\nhm\n</think>\n\nTwo.", "2"],
            ["Two.", "2"],
        ),
        (
            {"response": "<|begin_of_thought|>hm<|end_of_thought|>\n<|begin_of_solution|>\nTwo.\n<|end_of_solution|>"},
            ["<|begin_of_thought|>hm<|end_of_thought|>\n<|begin_of_solution|>\nTwo.\n<|end_of_solution|>"],
            ["Two."],
        ),
        ({"completion": chat("", "Two.", reasoning_content="hm")[1:]}, ["<think>\nhm\n</think>\n\nTwo."], ["Two."]),
        (
            {"responses": ["<think>hm", {"content": None, "reasoning_content": "hm"}, "Two."]},
            ["<think>hm", "<think>\nhm", "Two."],
            ["Two."],
        ),
    ],
)
def test_reasoning_is_kept_or_dropped_and_counted(tmp_path, row, keep, drop):
    path = write(tmp_path / "gen.jsonl", {"question": "What is 1 + 1?", **row})
    for thinking, expected in (("keep", keep), ("drop", drop)):
        found = read_generations(path, thinking=thinking)
        (prompt,) = found.prompts
        assert list(prompt.responses) == expected
        n, lost = sum(a not in drop for a in keep), len(keep) - len(expected)
        said = f"Responses whose reasoning was {'kept' if thinking == 'keep' else 'dropped'}: {n} of gen"
        said += f" ({lost} of them left out: nothing else is in them)" if lost else ""
        assert (prompt.n_thought, reasoning_sentence([found], thinking)) == (n, f"{said}.")
    assert reasoning_sentence([read_generations(write(path, ROW))], "drop") == ""


def test_cut_responses_of_servers_are_known_by_their_reason(tmp_path):
    """Also where one that was cut while it thought is left out before it."""
    several = [
        {"text": "<think>hm", "finish_reason": "length"},
        {"text": "2", "finish_reason": "stop"},
        {"text": "It is", "finish_reason": "length"},
    ]
    path = write(tmp_path / "gen.jsonl", {"prompt": "What is 1 + 1?", "outputs": several})
    assert [read_generations(path, thinking=how).prompts[0].cut for how in ("keep", "drop")] == [{0, 2}, {1}]


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"instruction": "Add them.", "input": "2 and 3", "output": "5"},
            "fields 'instruction' and 'input' could both be the question; drop or rename one",
        ),
        (
            {"question": "q ?", "content": "a document", "answer": "5"},
            "no response field; .*'question, content, answer'",
        ),
        ({"messages": chat("q ?")}, r"field 'messages' is a chat of 1 turns \('user'\); only one question"),
        ({"messages": "q ?"}, r"field 'messages' is a chat of 0 turns \(''\)"),
        ({"messages": [{"text": "q ?"}]}, r"field 'messages' is a chat of 0 turns \(''\)"),
        (
            {"messages": [*chat("q ?", "a"), {"role": "tool", "content": "b"}]},
            r"a chat of 3 turns \('user, assistant, tool",
        ),
        (
            {"prompt": chat("q ?", "a"), "completion": chat("", "b")[1:]},
            r"'prompt' is a chat of 2 turns \('user, assis",
        ),
        (
            {"prompt": chat("q ?"), "completion": chat("r ?", "b")},
            r"'completion' is a chat of 2 turns \('user, assistant'\)",
        ),
        ({"messages": chat([{"type": "image_url"}], "a")}, "field 'messages' must be text, it is a list of 1"),
        (
            {"doc": {"Problem": "q ?"}, "resps": [["a"]]},
            "no question in 'doc'; expected one of question, .*; it has 'Problem'",
        ),
        ({"question": "q ?", "responses": [["a", "b"]]}, "response 1 of 1 must be text, it is a list of 2"),
        ({"question": "q ?", "response": "a", "reasoning_content": ["b", "c"]}, "'reasoning_content' speaks of 2 of 1"),
    ],
)
def test_rows_that_are_no_question_with_its_answer(tmp_path, row, message):
    with pytest.raises(ValueError, match=f"gen.jsonl, line 1: .*{message}"):
        read_generations(write(tmp_path / "gen.jsonl", row))


def test_requests_that_do_not_fit_are_named(tmp_path):
    def request(k, question):
        return {"custom_id": k, "body": {"model": "m", "messages": chat(question)}}

    with pytest.raises(ValueError, match=r"b\.jsonl, line 1: one custom_id for two questions: 'k' is 'r \?' here, but"):
        read_requests([write(tmp_path / f"{q}.jsonl", request("k", f"{r} ?")) for q, r in ("aq", "br")])
    with pytest.raises(ValueError, match=r"c\.jsonl, line 1: no request of a batch; expected fields 'custom_id' and"):
        read_requests([write(tmp_path / "c.jsonl", ROW)])
    output = write(tmp_path / "out.jsonl", batch(7, {"status_code": 200, "body": {"choices": [choice("Two.")]}}))
    with pytest.raises(ValueError, match=r"line 1: custom_id 'c7': none of the request files has it; give the file"):
        read_generations(output, requests={"k": "q ?"})


@pytest.mark.parametrize("listed, single", list(zip(LISTS, RESPONSE[4:], strict=True)))
def test_rows_of_one_question_are_merged_in_their_order(tmp_path, listed, single):
    """Interleaved, with id and answer on some rows only: the same as the lists."""
    rows = [
        {"prompt": "q1 ?", single: "a"},
        {"prompt": "q2 ?", single: "x", "id": 5, "answer": " "},
        {"prompt": "q1 ?", single: "b", "answer": 2.0},
        {"prompt": "q1 ?", single: "a", "answer": " 2\n"},
    ]
    merged = read_generations(write(tmp_path / "rows.jsonl", *rows))
    assert merged.prompts[0].where == f"{tmp_path / 'rows.jsonl'}, line 1"
    lists = [{"question": "q1 ?", listed: ["a", "b", "a"], "answer": 2}, {"question": "q2 ?", listed: ["x"], "id": "5"}]
    assert told(merged) == told(read_generations(write(tmp_path / "lists.jsonl", *lists)))
    assert told(merged) == [(question_id("q1 ?"), "q1 ?", "2", ("a", "b", "a")), ("5", "q2 ?", None, ("x",))]


@pytest.mark.parametrize(
    "fields, cut",
    [
        ({}, set()),
        ({"finish_reasons": ["stop", "length", None], "n_truncated": 1}, {1}),
        ({"finish_reason": ["MAX_TOKENS", "stop", "eos"]}, {0}),
        ({"n_truncated": 3}, {0, 1, 2}),
        ({"n_truncated": 1}, r"line 1: n_truncated is 1: some of 3 responses were cut, but not which"),
        ({"finish_reason": "length"}, r"line 1: field 'finish_reason' speaks of 1 of 3 responses; write one for each"),
    ],
)
def test_which_responses_were_cut_is_carried_on(tmp_path, fields, cut):
    """From a row with a list, and from rows of one response each; a doubt has its place."""
    path = write(tmp_path / "a.jsonl", {"question": "Q", "responses": ["a", "b", "c"], **fields})
    if isinstance(cut, str):
        for read, said in (
            (read_generations, cut),
            (partial(read_responses, cut=True), cut.replace("1:", "1: prompt .*:", 1)),
        ):
            with pytest.raises(ValueError, match=said):
                read(path)
        return
    assert read_generations(path).prompts[0].cut == read_responses(path, m=2, cut=True)[0]["cut"] == cut
    rows = [{"question": "Q", "response": f"{k}", "finish_reason": "length" if k in cut else "stop"} for k in range(3)]
    assert read_generations(write(path, *rows)).prompts[0].cut == cut


def test_objects_by_id_and_objects_one_after_the_other(tmp_path):
    """A .json file may be an object by id, indented objects put together, or one object."""
    bare = [{k: v for k, v in row.items() if k != "id"} for row in (ROW, OTHER)]
    texts = {
        "id": json.dumps(dict(zip("ab", bare, strict=True)), indent=1),
        "joined": "\n".join(json.dumps(row, indent=2) for row in (ROW, OTHER)),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
        found = read_generations(tmp_path / f"{name}.json")
        assert told(found) == told(read_generations(write(tmp_path / "plain.jsonl", ROW, OTHER)))
    assert found.prompts[1].where == f"{tmp_path / 'joined.json'}, line 10 (item 2)"
    (tmp_path / "one.json").write_text(json.dumps(ROW, indent=2))
    assert [p.id for p in read_generations(tmp_path / "one.json").prompts] == ["a"]
    (tmp_path / "twice.json").write_text('{"a": {"question": "q"}, "a": {"question": "r"}}')
    with pytest.raises(ValueError, match="twice.json, line 1 .*field 'a' stands twice in one object"):
        read_generations(tmp_path / "twice.json")


def test_shards_packed_files_and_saved_datasets_are_one_teacher(tmp_path, monkeypatch):
    import datasets

    expected = told(read_generations(write(tmp_path / "plain.jsonl", ROW, OTHER)))
    for k, row in enumerate((ROW, OTHER)):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"train-0000{k}-of-00002.parquet")
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress((tmp_path / "plain.jsonl").read_bytes()))
    data = datasets.Dataset.from_list([ROW, OTHER])
    data.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": data}).save_to_disk(str(tmp_path / "dict"))
    datasets.DatasetDict({"a": data, "b": data}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "owner" / "repo").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([ROW, OTHER]), tmp_path / "owner" / "repo" / "test.parquet")
    monkeypatch.chdir(tmp_path)  # a folder where the hub's data set would be: the same call of datasets reads it
    names = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "packed.jsonl.gz", "saved", "dict")
    teachers = read_teachers([*names, "splits/a", "hf://owner/repo", "hf://owner/repo:test"])
    assert [t.name for t in teachers] == ["train", "packed", "saved", "dict", "a", "repo", "repo:test"]
    assert [told(t) for t in teachers] == [expected] * 7
    assert teachers[0].prompts[1].where == "train-00001-of-00002.parquet, row 1"
    assert teachers[-1].prompts[1].where == "owner/repo, split test, row 2"
    (tmp_path / "packed.jsonl.gz").write_bytes((tmp_path / "packed.jsonl.gz").read_bytes()[:-9])
    for path, message in (
        ("splits", r"splits: several splits; it has \['a', 'b'\]; name one: splits/SPLIT"),
        ("hf://owner/repo:train", r"owner/repo: no split 'train'; it has \['test'\]; name one: hf://owner/repo:SPLIT"),
        ("packed.jsonl.gz", r"packed.jsonl.gz: not a whole gzip file \(.*\); fetch it again"),
    ):
        with pytest.raises(ValueError, match=message):
            read_teachers(path)


def test_bytes_around_the_rows_do_not_matter(tmp_path):
    """Byte order mark, CRLF, blank lines, no line end at the end, capitals in the suffix, .json with rows as lines."""
    row = {**ROW, "question": "What is 1 + 1 \u2028 caf\u00e9 \N{OWL}?"}
    lines = [json.dumps(r, ensure_ascii=False).encode() for r in (row, OTHER)]
    expected = told(read_generations(write(tmp_path / "plain.jsonl", row, OTHER)))
    for name, data in {
        "bom.jsonl": b"\xef\xbb\xbf" + b"\n".join(lines),
        "crlf.JSONL": b"\r\n".join([b"", lines[0], b"  ", lines[1], b""]),
        "lines.json": b"\n".join(lines) + b"\n",
        "bom.json": b"\xef\xbb\xbf\r\n[\r\n" + b",\r\n".join(lines) + b"\r\n]\r\n",
        "dense.json": b"[" + b",".join(lines) + b"]",
    }.items():
        (tmp_path / name).write_bytes(data)
        assert told(read_generations(tmp_path / name)) == expected, name
    assert [p.where for p in read_generations(tmp_path / "crlf.JSONL").prompts] == [
        f"{tmp_path / 'crlf.JSONL'}, line {k}" for k in (2, 4)
    ]
    assert [p.where for p in read_generations(tmp_path / "bom.json").prompts] == [
        f"{tmp_path / 'bom.json'}, line {k} (item {k - 2})" for k in (3, 4)
    ]


@pytest.mark.parametrize(
    "row, id, answer",
    [
        ({**ROW, "id": None, "answer": math.nan, "response": None}, question_id(ROW["question"]), None),
        ({**ROW, "id": 3.0, "answer": 5.0}, "3", "5"),
        ({**ROW, "prompt": ROW["question"], "logits": [0.5] * 100_000}, "a", "2"),
    ],
)
def test_gaps_of_tables_two_fields_that_agree_and_long_lines(tmp_path, row, id, answer):
    """Null and NaN are what a table makes of a gap; 3.0 of a 3 beside one."""
    row = {**row, "responses": ["x" * 5_000_000]}
    found = told(read_generations(write(tmp_path / "gen.jsonl", row)))
    assert found == [(id, ROW["question"], answer, ("x" * 5_000_000,))]


def test_parquet_columns(tmp_path):
    """Large and coded texts, unknown columns of any kind, many row groups; a column twice is a doubt."""
    n = 700
    table = pa.table(
        {
            "id": pa.array([None, *range(1, n)]),
            "logits": pa.array([[0.5]] * n),
            "problem": pa.array([f"q{i} ?" for i in range(n)], pa.large_string()),
            "response": pa.array([f"a{i % 3}" for i in range(n)]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "gen.parquet", row_group_size=97)
    prompts = read_generations(tmp_path / "gen.parquet").prompts
    assert [p.question for p in prompts] == [f"q{i} ?" for i in range(n)]
    assert prompts[0].id == question_id("q0 ?") and prompts[699].id == "699"
    assert prompts[699].responses == ("a0",) and prompts[699].where == f"{tmp_path / 'gen.parquet'}, row 700"
    for name, table, message in (
        (
            "twice",
            pa.Table.from_arrays([pa.array(["q ?"]), pa.array(["r ?"])], names=["question", "question"]),
            r"twice\.parquet, row 1: column 'question' is there 2 times; keep one",
        ),
        (
            "bytes",
            pa.table({"question": pa.array([b"q \xff ?"]).view(pa.string()), "response": ["a"]}),
            r"bytes\.parquet, row 1: not a readable Parquet file \(.*utf-8",
        ),
    ):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        with pytest.raises(ValueError, match=message):
            read_generations(tmp_path / f"{name}.parquet")
