"""The prompts that teachers are compared on hang on ids and seed alone, because a ranking that changes with the order of
its files is none; and what is given twice, or in no file together, is refused with both names.
"""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gracelib.text.responses import question_id, write_jsonl
from gracelib.text.selection import (
    Generations,
    Prompt,
    expand,
    read_generations,
    read_teachers,
    select_common,
    teacher_names,
)

ROW = {"id": "a", "question": "What is 1 + 1?", "answer": "2", "responses": ["1 + 1 = 2.", "Two."]}


def jsonl(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)
    return path


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
        read_teachers([paths[0], twin])


# --- the prompts that all answered --------------------------------------------------------------------------


def teacher(name, questions, m=2, ids=None):
    prompts = []
    for line, q in enumerate(questions, 1):
        responses = tuple(f"{name} {q} {k}" for k in range(m))
        prompts.append(Prompt(ids[q] if ids else question_id(q), q, None, responses, f"{name}, line {line}"))
    return Generations(name, Path(f"{name}.jsonl"), tuple(prompts))


QUESTIONS = [f"q{i} ?" for i in range(20)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_order_of_files_and_lines_does_not_matter(data):
    own = [data.draw(st.sets(st.sampled_from(QUESTIONS), min_size=8)) for _ in range(3)]
    common = set.intersection(*own)
    assume(common)
    n, seed = data.draw(st.integers(1, len(common))), data.draw(st.integers(0, 3))
    teachers = [teacher(f"t{k}", sorted(qs), m=4) for k, qs in enumerate(own)]
    shuffled = [teacher(t.name, data.draw(st.permutations([p.question for p in t.prompts])), m=4) for t in teachers]
    first = select_common(teachers, n, 2, seed)
    second = select_common(data.draw(st.permutations(shuffled)), n, 2, seed)
    assert first.ids == second.ids and len(set(first.ids)) == n
    assert all(found.sentence.startswith(f"{len(common)} prompt") for found in (first, second))
    for name, prompts in first.prompts.items():
        again = [(p.id, p.question, p.responses) for p in second.prompts[name]]
        assert [(p.id, p.question, p.responses) for p in prompts] == again
        assert [p.id for p in prompts] == list(first.ids) and {p.question for p in prompts} <= common
        assert all(p.responses == tuple(f"{name} {p.question} {k}" for k in range(2)) for p in prompts)  # the first m


def test_smaller_n_is_a_part_and_another_teacher_shuffles_nothing():
    two = [teacher("a", QUESTIONS), teacher("b", QUESTIONS[:15])]
    ids = select_common(two, 15, 1, 7).ids
    assert select_common(two, 6, 1, 7).ids == ids[:6]
    kept = {question_id(q) for q in QUESTIONS[5:]}
    assert select_common([*two, teacher("c", QUESTIONS[5:])], 10, 1, 7).ids == tuple(i for i in ids if i in kept)
    assert select_common(two, 15, 1, 8).ids != ids  # the seed counts
    assert set(select_common(two, 15, 1, 8).ids) == set(ids)


def test_ids_name_a_prompt_where_most_files_agree_on_them():
    """By id where most files that have one agree, else by text: never by an id that one file invented."""
    ids, numbers = {q: f"id-{q}" for q in QUESTIONS}, {q: str(i) for i, q in enumerate(QUESTIONS)}
    named, numbered = teacher("named", QUESTIONS, ids=ids), teacher("numbered", QUESTIONS, ids=numbers)
    plain = teacher("plain", QUESTIONS)
    with_ids = select_common([named], 5, 1, 0).ids
    assert set(with_ids) <= set(ids.values())
    assert select_common([plain, named], 5, 1, 0).ids == with_ids  # a file without ids does not object
    assert set(select_common([named, numbered], 5, 1, 0).ids) <= {question_id(q) for q in QUESTIONS}
    like_named = teacher("like", QUESTIONS, ids=ids)
    assert select_common([named, numbered, like_named, plain], 5, 1, 0).ids == with_ids  # one of three objects
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


def test_too_few_responses_name_prompt_and_file_or_are_left_out():
    """Whether or not the prompt is drawn, so that it does not depend on the seed; a prompt that others lack is free.
    Or they are left out, where asked for."""
    both = teacher("b", QUESTIONS[:3], m=4).prompts + teacher("b", QUESTIONS[3:5], m=3).prompts
    short = Generations("b", Path("b.jsonl"), both)
    for seed in range(4):
        with pytest.raises(
            ValueError,
            match=r"^b, line 1: prompt '\w+' has 3 response\(s\), m=4 were asked for "
            r"\(1 more prompts have too few\); use m <= 3, sample more, or leave .* out \(--min-m\)$",
        ):
            select_common([teacher("a", QUESTIONS, m=4), short], 2, 4, seed)
    assert select_common([teacher("a", QUESTIONS[:3], m=4), short], 3, 4, 0).sentence.startswith("3 prompts")
    two = [teacher("a", QUESTIONS[:6], m=4), short]
    found = select_common(two, 3, 4, 0, min_m=True)
    assert set(found.ids) == {question_id(q) for q in QUESTIONS[:3]}
    assert found.sentence.startswith(
        "3 prompts were answered by all 2 teachers at least 4 times (left out: 1 of a, 2 with fewer responses); all are"
    )
    with pytest.raises(ValueError, match=r"n=4 .* but 3 prompts were answered .*; use n <= 3$"):
        select_common(two, 4, 4, 0, min_m=True)
    with pytest.raises(ValueError, match=r"n=1 .* but 0 prompts were answered .*; use a smaller m$"):
        select_common(two, 1, 5, 0, min_m=True)


def test_questions_match_after_nfc_and_white_space_and_every_teacher_gets_one_text():
    composed = [f"Zo\u00e9 adds {k}." for k in range(5)]
    others = [f"Zoe\u0301  adds\n{k}. " for k in range(5)]
    expected = select_common([teacher("a", composed)], 5, 1, 0)
    for two in ([teacher("a", composed), teacher("b", others)], [teacher("b", others), teacher("a", composed)]):
        found = select_common(two, 5, 1, 0)
        assert found.ids == expected.ids
        assert {tuple(p.question for p in prompts) for prompts in found.prompts.values()} == {
            tuple(p.question for p in expected.prompts["a"])
        }
        assert found.prompts["b"][0].responses[0].startswith("b Zoe\u0301")
    apart = teacher("c", ["q 1", "q  1"])  # questions that one file tells apart are not merged
    assert select_common([apart, teacher("d", ["q 1", "q  1", "q\n1"])], 2, 1, 0).sentence.startswith(
        "2 prompts were answered by all 2 teachers (left out: 1 of d)"
    )
    ids = ({q: f"{k}" for k, q in enumerate(texts)} for texts in (composed, others))
    named = [teacher(name, [*of], ids=of) for name, of in zip("ab", ids, strict=True)]
    assert set(select_common(named, 5, 1, 0).ids) == set("01234")  # one id with one question in two forms


def test_an_instruction_that_keeps_questions_apart_is_named_and_can_be_dropped(tmp_path):
    told = "Put it into \\boxed{}."
    for name, form in (("plain", "{}"), ("told", "{}\nPut it  into \\boxed{{}}."), ("chat", "<user>{}</user>")):
        jsonl(tmp_path / f"{name}.jsonl", *({"question": form.format(q), "response": "2"} for q in QUESTIONS[:4]))
    for name, option in (("told", f"--drop-text '{told}'"), ("chat", "--drop-text '<user>' --drop-text '</user>'")):
        files = [tmp_path / "plain.jsonl", tmp_path / f"{name}.jsonl"]
        for order in (files, files[::-1]):
            said = f"4 of 4 questions would agree without the text that {option} takes out of {files[1]}"
            with pytest.raises(ValueError, match=re.escape(said)):
                select_common(read_teachers(order), 1, 1, 0)
    three = read_teachers(tmp_path, drop_text=[told, "<user>", "</user>"])
    assert select_common(three, 4, 1, 0).ids == select_common(three[1:2], 4, 1, 0).ids
    mixed = [teacher("a", QUESTIONS[:6]), teacher("b", [*QUESTIONS[:3], *(f"{q} Think." for q in QUESTIONS[3:6])])]
    assert select_common(mixed, 3, 1, 0).sentence.endswith(
        "to each; 3 of 3 questions would agree without the text that --drop-text Think. takes out of b.jsonl."
    )
    single = [teacher(name, [q]) for name, q in zip("ab", QUESTIONS[:2], strict=True)]
    with pytest.raises(ValueError, match=r"; each file holds one prompt: if they are of one teacher, join them: cat"):
        select_common(single, 1, 1, 0)


@pytest.mark.parametrize(
    "n_teachers, what, value, message",
    [
        (1, "n", 0, "n=0: expected a whole number >= 1"),
        (1, "n", 2.0, "n=2.0: expected a whole number >= 1"),
        (1, "n", True, "n=True: expected a whole number >= 1"),
        (1, "m", 0, "m=0: expected a whole number >= 1"),
        (1, "m", "4", "m='4': expected a whole number >= 1"),
        (1, "seed", -1, "seed=-1: expected a whole number >= 0"),
        (0, "n", 1, "no teacher to compare; read at least one file"),
    ],
)
def test_numbers_out_of_range_and_no_teacher(n_teachers, what, value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        select_common([teacher("a", QUESTIONS)] * n_teachers, **{"n": 1, "m": 1, "seed": 0, what: value})
