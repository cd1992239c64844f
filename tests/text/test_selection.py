"""Files that others wrote either become exactly the prompts they hold, or one ValueError with file, line and remedy:
whatever the bytes, never another exception and never a guess. And the prompts that teachers are compared on hang on ids
and seed alone, because a ranking that changes with the order of its files is none.
"""

import errno
import json
import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gracelib.text.responses import FIELDS, RESPONSE, RESPONSES
from gracelib.text.selection import (
    Generations,
    Prompt,
    expand,
    read_generations,
    read_teachers,
    select_common,
    teacher_names,
)
from gracelib.text.tasks import question_id, read_responses

BAD = Path(__file__).parents[1] / "bad_inputs" / "ingest"
EXCERPT = Path(__file__).parents[1] / "data" / "gsm8k_excerpt"
ROW = {"id": "a", "question": "What is 1 + 1?", "answer": "2", "responses": ["1 + 1 = 2.", "Two."]}
OTHER = {"id": "b", "question": "What is 2 + 3?", "answer": "5", "responses": ["2 + 3 = 5.", "Five."]}
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def jsonl(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def told(generations):
    """What a file says, without the places."""
    return [(p.id, p.question, p.answer, p.responses) for p in generations.prompts]


def words(text):
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower()).split())


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


def test_the_corpus_covers_what_the_reader_refuses():
    assert len(list(BAD.iterdir())) >= 60


def test_paths_that_are_no_generations(tmp_path):
    for read in (expand, read_generations, read_teachers):
        for name in ("gone.jsonl", "x" * 5000 + "gone.jsonl"):
            with pytest.raises(FileNotFoundError, match=r"gone\.jsonl: no such file.*; check the spelling"):
                read(tmp_path / name)
    with pytest.raises(ValueError, match=r"is a folder; name a file in it"):
        read_generations(tmp_path)
    with pytest.raises(ValueError, match=r"no \.jsonl, \.json or \.parquet file in this folder"):
        expand([tmp_path])
    with pytest.raises(ValueError, match="no file with generations was given; name one file a teacher"):
        expand([])
    text = tmp_path / "gen.txt"
    text.write_text("hello")
    with pytest.raises(ValueError, match=r"gen\.txt: suffix '\.txt'; generations are read from \.jsonl, \.json or"):
        expand([text])


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = jsonl(tmp_path / "gen.jsonl", ROW)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # chmod would not stop the superuser
    with pytest.raises(ValueError, match=r"gen\.jsonl: cannot be read \(Permission denied\)"):
        read_generations(path)


def test_nesting_without_end_is_refused(tmp_path):
    for name in ("gen.jsonl", "gen.json"):
        path = tmp_path / name
        path.write_text("[" * 200_000)
        with pytest.raises(ValueError, match=rf"{name}, line 1.*: not valid JSON"):
            read_generations(path)


def test_a_message_quotes_no_page(tmp_path):
    """A value or a set of names without end is cut."""
    with pytest.raises(ValueError, match="it is 'xxx") as caught:
        read_generations(jsonl(tmp_path / "gen.jsonl", {**ROW, "responses": "x" * 100_000}))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    with pytest.raises(ValueError, match="no question field") as caught:
        read_generations(jsonl(tmp_path / "gen.jsonl", {f"k{i}": i for i in range(10_000)}))
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
    assert told(read_generations(jsonl(tmp_path / "gen.jsonl", *rows))) == told(read_generations(path))


@pytest.mark.parametrize("listed, single", list(zip(RESPONSES, RESPONSE, strict=True)))
def test_rows_of_one_question_are_merged_in_their_order(tmp_path, listed, single):
    """Interleaved, with id and answer on some rows only: the same as the lists."""
    rows = [
        {"prompt": "q1 ?", single: "a"},
        {"prompt": "q2 ?", single: "x", "id": 5, "answer": " "},
        {"prompt": "q1 ?", single: "b", "answer": 2.0},
        {"prompt": "q1 ?", single: "a", "answer": " 2\n"},
    ]
    merged = read_generations(jsonl(tmp_path / "rows.jsonl", *rows))
    assert merged.prompts[0].where == f"{tmp_path / 'rows.jsonl'}, line 1"
    lists = [{"question": "q1 ?", listed: ["a", "b", "a"], "answer": 2}, {"question": "q2 ?", listed: ["x"], "id": "5"}]
    assert told(merged) == told(read_generations(jsonl(tmp_path / "lists.jsonl", *lists)))
    assert told(merged) == [(question_id("q1 ?"), "q1 ?", "2", ("a", "b", "a")), ("5", "q2 ?", None, ("x",))]


def test_bytes_around_the_rows_do_not_matter(tmp_path):
    """Byte order mark, CRLF, blank lines, no line end at the end, capitals in the suffix, .json with rows as lines."""
    row = {**ROW, "question": "What is 1 + 1 \u2028 caf\u00e9 \N{OWL}?"}
    lines = [json.dumps(r, ensure_ascii=False).encode() for r in (row, OTHER)]
    expected = told(read_generations(jsonl(tmp_path / "plain.jsonl", row, OTHER)))
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


def test_lines_of_any_length(tmp_path):
    row = {**ROW, "responses": ["x" * 5_000_000], "logits": [0.5] * 100_000}
    assert read_generations(jsonl(tmp_path / "gen.jsonl", row)).prompts[0].responses == ("x" * 5_000_000,)


def test_missing_values_of_tables(tmp_path):
    """Null and NaN are what a table makes of a gap; 3.0 of a 3 beside one."""
    rows = [{**ROW, "id": None, "answer": math.nan, "response": None}, {**OTHER, "id": 3.0, "answer": 5.0}]
    assert told(read_generations(jsonl(tmp_path / "gen.jsonl", *rows))) == [
        (question_id(ROW["question"]), ROW["question"], None, tuple(ROW["responses"])),
        ("3", OTHER["question"], "5", tuple(OTHER["responses"])),
    ]


def test_two_fields_that_agree_are_no_doubt(tmp_path):
    path = jsonl(tmp_path / "gen.jsonl", {**ROW, "prompt": ROW["question"]})
    assert told(read_generations(path)) == told(read_generations(jsonl(tmp_path / "plain.jsonl", ROW)))


def test_an_empty_response_only_where_it_is_allowed(tmp_path):
    path = jsonl(tmp_path / "gen.jsonl", {**ROW, "responses": ["", "b"]})
    with pytest.raises(ValueError, match=r"gen\.jsonl, line 1: response 1 of 2 is empty; drop it or sample it again"):
        read_generations(path)
    assert read_generations(path, allow_empty=True).prompts[0].responses == ("", "b")


def test_both_readers_of_this_package_agree():
    for path in sorted(EXCERPT.glob("*.jsonl")):
        rows = read_responses(path)
        same = [(r["id"], r["question"], r["answer"], tuple(r["responses"])) for r in rows]
        assert told(read_generations(path)) == same


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
tables = st.lists(
    st.fixed_dictionaries(
        {
            "question": text,
            "responses": st.lists(text, min_size=1, max_size=3),
            "answer": st.none() | text.map(str.strip),
        }
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row["question"],
)


@settings(quick, max_examples=12)
@given(rows=tables)
def test_one_content_in_every_form(rows, tmp_path):
    """JSON Lines, JSON, Parquet, as lists or as rows: the same prompts, and those that were written."""
    expected = [(question_id(r["question"]), r["question"], r["answer"], tuple(r["responses"])) for r in rows]
    singles = [{**{k: v for k, v in r.items() if k != "responses"}, "output": y} for r in rows for y in r["responses"]]
    for kind, content in (("list", rows), ("rows", singles)):
        (tmp_path / f"{kind}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(content), tmp_path / f"{kind}.parquet")
        jsonl(tmp_path / f"{kind}.jsonl", *content)
        for suffix in ("jsonl", "json", "parquet"):
            assert told(read_generations(tmp_path / f"{kind}.{suffix}")) == expected


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
    twice = pa.Table.from_arrays([pa.array(["q ?"]), pa.array(["r ?"])], names=["question", "question"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match=r"twice\.parquet, row 1: column 'question' is there 2 times; keep one"):
        read_generations(tmp_path / "twice.parquet")
    bad = pa.table({"question": pa.array([b"q \xff ?"]).view(pa.string()), "response": ["a"]})
    pq.write_table(bad, tmp_path / "bytes.parquet")
    with pytest.raises(ValueError, match=r"bytes\.parquet, row 1: not a readable Parquet file \(.*utf-8"):
        read_generations(tmp_path / "bytes.parquet")


# --- whatever the bytes -------------------------------------------------------------------------------------


def refused_or_read(path):
    """Prompts that hold what they promise, or a ValueError that begins with the path and says more."""
    try:
        found = read_generations(path)
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith(str(path)) and len(str(error)) > len(str(path)) + 20
        return
    assert len({p.id for p in found.prompts}) == len({p.question for p in found.prompts}) == len(found.prompts) > 0
    for p in found.prompts:
        assert p.id.strip() and p.question.strip() and p.responses and all(r.strip() for r in p.responses)
        "".join((p.id, p.question, p.answer or "", *p.responses)).encode()


numbers = [None, True, False, 0, -7, 10**400, 1.5, 2.0, math.nan, math.inf]
others = ["", " ", "\0", "\ud800", "\n", [], {}, [""], ["a", 1], ["a", "b"], [["a"]], {"a": "b"}, [{"role": "user"}]]
values = st.sampled_from(numbers + others)
objects = st.dictionaries(st.sampled_from([*FIELDS, "other"]), values | text, max_size=5)
documents = st.lists(objects | values, max_size=4)


@settings(quick, max_examples=120)
@given(rows=documents, good=st.booleans(), name=st.sampled_from(["f.jsonl", "f.json"]), lined=st.booleans())
def test_any_json_is_read_or_refused(rows, good, name, lined, tmp_path):
    rows = [ROW, *rows] if good else rows
    dumped = [json.dumps(row) for row in rows]
    (tmp_path / name).write_text("\n".join(dumped) if lined else f"[{', '.join(dumped)}]", encoding="utf-8")
    refused_or_read(tmp_path / name)


@settings(quick, max_examples=100)
@given(
    data=st.binary(max_size=60)
    | st.text(max_size=40).map(str.encode)
    | st.text(alphabet='{}[]",:\\ue \r\n"question"0', max_size=40).map(str.encode),
    name=st.sampled_from(["f.jsonl", "f.json", "f.parquet"]),
)
def test_any_bytes_are_read_or_refused(data, name, tmp_path):
    (tmp_path / name).write_bytes(data)
    refused_or_read(tmp_path / name)


@settings(quick, max_examples=80)
@given(data=st.data())
def test_any_damage_is_read_or_refused(data, tmp_path):
    """A right file cut, or with bytes replaced, put in or taken out."""
    name = data.draw(st.sampled_from(["f.jsonl", "f.json", "f.parquet"]))
    if name == "f.parquet":
        pq.write_table(pa.Table.from_pylist([ROW, OTHER]), tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        at = data.draw(st.integers(0, len(whole)))
        (tmp_path / name).write_bytes(
            data.draw(st.sampled_from([whole[:at], whole[at:], whole[:at] + whole[at + 1 :]]))
        )
    else:
        rows = [json.dumps(ROW), json.dumps(OTHER)]
        whole = (f"[\n{rows[0]},\n{rows[1]}\n]" if name == "f.json" else "\n".join(rows)).encode()
        at, end = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
        new, rest = data.draw(st.binary(max_size=4)), whole[data.draw(st.sampled_from([at, end])) :]
        (tmp_path / name).write_bytes(whole[:at] + new + rest)
    refused_or_read(tmp_path / name)


@settings(quick, max_examples=25)
@given(n_lines=st.integers(1, 30), at=st.integers(0, 29), cut=st.integers(1, 40))
def test_the_broken_line_is_the_one_that_is_named(n_lines, at, cut, tmp_path):
    assume(at < n_lines)
    lines = [json.dumps({"question": f"q{i} ?", "responses": ["a"]}) for i in range(n_lines)]
    lines[at] = lines[at][:-cut] if cut < len(lines[at]) else "{"
    (tmp_path / "f.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"f\.jsonl, line {at + 1}: not valid JSON"):
        read_generations(tmp_path / "f.jsonl")


# --- which files --------------------------------------------------------------------------------------------


def test_a_folder_stands_for_its_files(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.JSON", ".hidden.jsonl", "notes.txt", "d.jsonl.part", "sub/e.jsonl"):
        jsonl(tmp_path / "folder" / name, ROW)
    single = jsonl(tmp_path / "z.jsonl", ROW)
    found = expand([single, str(tmp_path / "folder")])
    assert found == [single, *(tmp_path / "folder" / name for name in ("a.jsonl", "b.jsonl", "c.JSON"))]
    assert expand(str(single)) == [single]


def test_a_file_given_twice_is_refused(tmp_path, monkeypatch):
    path, link = jsonl(tmp_path / "gen.jsonl", ROW), tmp_path / "link.jsonl"
    link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for second in (path, "gen.jsonl", tmp_path / "x" / ".." / "gen.jsonl", link):
        with pytest.raises(ValueError, match=r"the same file is given twice \(before as .*gen\.jsonl\); name"):
            teacher_names([path, second])
    with pytest.raises(ValueError, match=r"gen\.jsonl: the same file is given twice"):
        expand([path, "gen.jsonl"])
    with pytest.raises(ValueError, match="the same file is given twice"):
        select_common([read_generations(path)] * 2, 1, 1, 0)


def test_names_are_stems_or_tell_the_folder(tmp_path, monkeypatch):
    """Llama-3.1 is a stem, not a suffix; a link is called what it is called, not what it points to."""
    paths = [jsonl(tmp_path / name, ROW) for name in ("x/gen.jsonl", "y/gen.jsonl", "y/Llama-3.1-8B.jsonl")]
    link = tmp_path / "linked.jsonl"
    link.symlink_to(jsonl(tmp_path / "blobs" / "0f3a.jsonl", ROW))
    names = ["x/gen", "y/gen", "Llama-3.1-8B", "linked"]
    assert teacher_names([*paths, link]) == [t.name for t in read_teachers([*paths, link])] == names
    assert list(select_common([read_generations(p) for p in (*paths, link)], 1, 1, 0).prompts) == names
    monkeypatch.chdir(tmp_path / "x")
    assert teacher_names(["gen.jsonl", "../y/gen.jsonl"]) == names[:2]
    twin = jsonl(tmp_path / "deep" / "x" / "gen.jsonl", ROW)
    with pytest.raises(ValueError, match=r"gen\.jsonl: two files of one name: .* would both be 'x/gen'; rename one"):
        expand([paths[0], twin])


# --- the prompts that all answered --------------------------------------------------------------------------


def teacher(name, questions, m=2, ids=None):
    prompts = []
    for line, q in enumerate(questions, 1):
        responses = tuple(f"{name} {q} {k}" for k in range(m))
        prompts.append(Prompt(ids[q] if ids else question_id(q), q, None, responses, f"{name}, line {line}"))
    return Generations(name, Path(f"{name}.jsonl"), tuple(prompts))


QUESTIONS = [f"q{i} ?" for i in range(20)]


@settings(quick, max_examples=25)
@given(data=st.data())
def test_the_order_of_files_and_lines_does_not_matter(data):
    own = [data.draw(st.sets(st.sampled_from(QUESTIONS), min_size=8)) for _ in range(3)]
    common = set.intersection(*own)
    assume(common)
    n, seed = data.draw(st.integers(1, len(common))), data.draw(st.integers(0, 3))
    teachers = [teacher(f"t{k}", sorted(qs)) for k, qs in enumerate(own)]
    shuffled = [teacher(t.name, data.draw(st.permutations([p.question for p in t.prompts]))) for t in teachers]
    first = select_common(teachers, n, 2, seed)
    second = select_common(data.draw(st.permutations(shuffled)), n, 2, seed)
    assert first.ids == second.ids and first.n_left_out == second.n_left_out
    assert first.n_common == second.n_common == len(common) and len(set(first.ids)) == n
    for name, prompts in first.prompts.items():
        again = [(p.id, p.question, p.responses) for p in second.prompts[name]]
        assert [(p.id, p.question, p.responses) for p in prompts] == again
        assert [p.id for p in prompts] == list(first.ids) and {p.question for p in prompts} <= common
        assert all(r.startswith(f"{name} {p.question} ") for p in prompts for r in p.responses)


def test_smaller_n_is_a_part_and_another_teacher_shuffles_nothing():
    two = [teacher("a", QUESTIONS), teacher("b", QUESTIONS[:15])]
    ids = select_common(two, 15, 1, 7).ids
    assert select_common(two, 6, 1, 7).ids == ids[:6]
    kept = {question_id(q) for q in QUESTIONS[5:]}
    assert select_common([*two, teacher("c", QUESTIONS[5:])], 10, 1, 7).ids == tuple(i for i in ids if i in kept)
    assert select_common(two, 15, 1, 8).ids != ids  # the seed counts
    assert set(select_common(two, 15, 1, 8).ids) == set(ids)


def test_every_prompt_is_drawn_equally_often():
    """Over 2,000 seeds, 5 of 20: each prompt 500 times, give or take 4 standard deviations."""
    counts = dict.fromkeys(map(question_id, QUESTIONS), 0)
    one = [teacher("a", QUESTIONS)]
    for seed in range(2000):
        for i in select_common(one, 5, 1, seed).ids:
            counts[i] += 1
    assert all(abs(c - 500) < 4 * math.sqrt(2000 * 0.25 * 0.75) for c in counts.values()), counts


def test_the_first_m_responses_are_taken():
    found = select_common([teacher("a", QUESTIONS, m=4)], 3, 2, 0)
    assert all(p.responses == (f"a {p.question} 0", f"a {p.question} 1") for p in found.prompts["a"])


def test_ids_name_a_prompt_where_files_agree_on_them():
    """By id where the files that have one agree, else by text: never by an id that one file invented."""
    ids, numbers = {q: f"id-{q}" for q in QUESTIONS}, {q: str(i) for i, q in enumerate(QUESTIONS)}
    named, numbered = teacher("named", QUESTIONS, ids=ids), teacher("numbered", QUESTIONS, ids=numbers)
    plain = teacher("plain", QUESTIONS)
    with_ids = select_common([named], 5, 1, 0).ids
    assert set(with_ids) <= set(ids.values())
    assert select_common([plain, named], 5, 1, 0).ids == with_ids  # a file without ids does not object
    assert set(select_common([named, numbered], 5, 1, 0).ids) <= {question_id(q) for q in QUESTIONS}
    found = select_common([named, plain, numbered], 5, 1, 0)
    assert all([p.id for p in prompts] == list(found.ids) for prompts in found.prompts.values())


def test_one_id_with_two_questions_names_both_places():
    """Rows counted from 0 in every file are the usual cause."""
    a = teacher("a", ["q0 ?", "q1 ?"], ids={"q0 ?": "0", "q1 ?": "1"})
    b = teacher("b", ["q1 ?", "q0 ?"], ids={"q1 ?": "0", "q0 ?": "1"})
    with pytest.raises(ValueError, match=r"^b, line 1: one id .*: '0' is 'q1 \?' here, but 'q0 \?' at a, line 1; make"):
        select_common([a, b], 1, 1, 0)


def test_what_is_there_is_said():
    teachers = [teacher("a", QUESTIONS), teacher("b", QUESTIONS[:12]), teacher("c", QUESTIONS[2:])]
    found = select_common(teachers, 8, 2, 3)
    assert (found.n_common, found.n_left_out) == (10, {"a": 10, "b": 2, "c": 8})
    assert found.sentence == (
        "10 prompts were answered by all 3 teachers (left out: 10 of a, 2 of b, 8 of c); 8 of them, drawn with seed 3, "
        "are used, with the first 2 responses to each."
    )
    too_many = (
        "b.jsonl: n=11 prompts were asked for, but 10 prompts were answered by all 3 teachers (this, the smallest "
        "file, has 12); use n <= 10"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(too_many)}$"):
        select_common(teachers, 11, 2, 3)
    assert select_common(teachers[:1], 20, 1, 0).sentence == (
        "20 prompts were answered by the one teacher (left out: none); all are used, with the first response to each."
    )


def test_too_few_responses_name_prompt_and_file():
    """Whether or not the prompt is drawn, so that it does not depend on the seed; a prompt that others lack is free."""
    both = teacher("b", QUESTIONS[:3], m=4).prompts + teacher("b", QUESTIONS[3:5], m=3).prompts
    short = Generations("b", Path("b.jsonl"), both)
    for seed in range(4):
        with pytest.raises(
            ValueError,
            match=r"^b, line 1: prompt '\w+' has 3 response\(s\), m=4 were asked for "
            r"\(1 more prompts have too few\); use m <= 3, or sample more$",
        ):
            select_common([teacher("a", QUESTIONS, m=4), short], 2, 4, seed)
    assert select_common([teacher("a", QUESTIONS[:3], m=4), short], 3, 4, 0).n_common == 3


@pytest.mark.parametrize("what, value", [("n", 0), ("n", 2.0), ("n", True), ("m", 0), ("m", "4"), ("seed", -1)])
def test_numbers_out_of_range(what, value):
    with pytest.raises(ValueError, match=rf"^{what}={re.escape(repr(value))}: expected a whole number >= "):
        select_common([teacher("a", QUESTIONS)], **{"n": 1, "m": 1, "seed": 0, what: value})


def test_no_teacher():
    with pytest.raises(ValueError, match="no teacher to compare; read at least one file"):
        select_common([], 1, 1, 0)


def test_no_common_prompts_says_who_and_what():
    teachers = [teacher("a", QUESTIONS[:10]), teacher("b", QUESTIONS[5:15]), teacher("c", QUESTIONS[15:])]
    message = r"^c\.jsonl: no prompts in common with a\.jsonl and 1 more: 'q5 \?' \(a, line 6\) is not there; name"
    with pytest.raises(ValueError, match=message):
        select_common(teachers, 1, 1, 0)
