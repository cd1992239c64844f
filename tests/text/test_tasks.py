"""Prompts and responses are refused with file, line and reason before any compute is spent, and ids are stable."""

import json

import pytest

from gracelib.text.tasks import question_id, read_jsonl, read_responses, write_jsonl

GOOD = {"question": "ann has 9 books . finds 1 . how many ?", "answer": "10"}


def write(path, *lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def test_rows_survive_writing_and_reading(tmp_path):
    rows = [{"id": "a", "question": "wie viele Bücher ?", "extra": [1, 2]}, {"id": 7, "question": "line\nbreak"}]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert read_jsonl(tmp_path / "x.jsonl") == rows


def test_missing_ids_are_filled_in_from_the_question_alone(tmp_path):
    other = {"question": "bob has 3 cups . how many ?"}
    first = read_jsonl(write(tmp_path / "a.jsonl", GOOD, other))
    second = read_jsonl(write(tmp_path / "b.jsonl", other, "\n", {**GOOD, "answer": "11"}))
    assert first[0]["id"] == second[1]["id"] == question_id(GOOD["question"]) != first[1]["id"]
    assert read_jsonl(write(tmp_path / "c.jsonl", {**GOOD, "id": "mine"}))[0]["id"] == "mine"


@pytest.mark.parametrize(
    "lines, message",
    [
        ([GOOD, "{broken\n"], r"x\.jsonl, line 2: not valid JSON .* a \.jsonl file holds one object a line"),
        ([GOOD, "\n", "[1, 2]\n"], r"x\.jsonl, line 3: holds a list of 2, not an object with \['question'\]"),
        ([{"answer": "3"}], r"x\.jsonl, line 1: field 'question' is missing; it has \['answer'\]"),
        ([GOOD, {"question": "  "}], r"x\.jsonl, line 2: question '  ' is not text"),
        ([{"question": 5}], r"x\.jsonl, line 1: question 5 is not text"),
        (
            [{**GOOD, "id": "a"}, {"question": "another ?", "id": "a"}],
            r"line 2: id 'a' stands already on line 1; put all",
        ),
        ([GOOD, {**GOOD, "answer": "9"}], r"line 2: id '\w+' stands already on line 1"),  # the same question twice
        ([], r"x\.jsonl, line 1: the file is empty; expected one row a prompt"),
        (["\n", "  \n"], r"x\.jsonl, line 1: the file is empty: no rows in it"),
        (
            [GOOD, {"question": "another ?", "id": ["a"]}],
            r"x\.jsonl, line 2: id a list of 1 is neither text nor a whole number",
        ),
    ],
)
def test_bad_prompts_are_refused_with_file_and_line(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_jsonl(write(tmp_path / "x.jsonl", *lines))


def test_responses_are_cut_to_the_first_n_and_m(tmp_path):
    rows = [{"id": i, "question": f"question {i} ?", "responses": [f"{i} {k}" for k in range(3)]} for i in range(4)]
    path = write(tmp_path / "r.jsonl", *rows)
    assert read_responses(path) == rows
    cut = read_responses(path, n_prompts=2, m=1)
    assert [(row["id"], row["responses"]) for row in cut] == [(0, ["0 0"]), (1, ["1 0"])]


def test_bad_responses_are_refused(tmp_path):
    row = {"id": "p1", "question": "q ?", "responses": ["a", "b"]}
    path = write(tmp_path / "r.jsonl", row)
    with pytest.raises(ValueError, match=r"r\.jsonl: 1 prompts, but n_prompts=5 were asked for"):
        read_responses(path, n_prompts=5)
    with pytest.raises(ValueError, match=r"r\.jsonl, line 1: prompt 'p1' has 2 responses, m=3 were asked for"):
        read_responses(path, m=3)
    with pytest.raises(ValueError, match=r"r\.jsonl, line 1: field 'responses' is missing"):
        read_responses(write(tmp_path / "r.jsonl", GOOD))
    for responses in ("one text", ["a", 5], None, {"0": "a"}):
        with pytest.raises(ValueError, match=r"prompt 'p1': responses must be a list of texts"):
            read_responses(write(tmp_path / "r.jsonl", {**row, "responses": responses}))


def test_an_empty_response_is_refused_unless_allowed(tmp_path):
    """A user's empty response is a mistake; a teacher's that ended at once is a response of one token."""
    path = write(tmp_path / "r.jsonl", {"id": "p1", "question": "q ?", "responses": ["a", " "]})
    with pytest.raises(ValueError, match=r"prompt 'p1': response 2 is empty; drop it or sample it again"):
        read_responses(path)
    assert read_responses(path, m=1)[0]["responses"] == ["a"]  # the empty one is not among the first m
    assert read_responses(path, allow_empty=True)[0]["responses"] == ["a", " "]


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"question": "caf\xe9 ?"}\n')
    with pytest.raises(ValueError, match=r"latin\.jsonl, line 2: not UTF-8"):
        read_jsonl(path)
