"""Invariants of the built-in world: the splits share no arithmetic, every manner's clean solution is right in
every step, noise is what it says it is, paraphrase slots really vary, and the tokenizer has a word for
everything. The world is the ground truth of every figure: a wrong clean solution would look like an
incompetent teacher, a leak between the splits like a good one.
"""

import hashlib
import json
import re
from collections import Counter
from random import Random

import pytest

from gracelib.text.answers import is_correct, last_number
from gracelib.world import stories as world
from gracelib.world.models import build_tokenizer

EXAMPLE = world.Problem(9, (1, -5, 7), "ann", "books", ("finds", "loses", "gets"))


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def problems(n, seed=0, split="pretrain"):
    rng = Random(seed)
    return [world.draw_problem(rng, split, 1, 5) for _ in range(n)]


def test_a_problem_reads_as_documented():
    assert EXAMPLE.question == "ann has 9 books . finds 1 . loses 5 . gets 7 . how many ?"
    assert EXAMPLE.answer == 12


# --- splits -------------------------------------------------------------------------------------------------


def test_splits_are_disjoint_and_cover_everything():
    buckets = sorted(b for r in world.SPLITS.values() for b in r)
    assert buckets == list(range(100))
    drawn = {split: {(p.start, p.steps) for p in problems(300, split=split)} for split in world.SPLITS}
    for split, chains in drawn.items():
        assert {world.split_of(*chain) for chain in chains} == {split}
    assert not drawn["pretrain"] & drawn["test"] and not drawn["distill"] & drawn["test"]
    assert not drawn["pretrain"] & drawn["distill"]


def test_draws_are_deterministic_distinct_and_in_range():
    first, again = world.draw_problems(200, "test", 5), world.draw_problems(200, "test", 5)
    assert first == again and first != world.draw_problems(200, "test", 6)
    assert len({(p.start, p.steps) for p in first}) == 200
    for p in first:
        values = [p.start + sum(p.steps[:i]) for i in range(len(p.steps) + 1)]
        assert 3 <= len(p.steps) <= 5 and all(0 <= v <= world.MAX_VALUE for v in values)
        assert all(1 <= abs(s) <= 9 for s in p.steps)
        assert all((verb in world.GAINS) == (s > 0) for verb, s in zip(p.verbs, p.steps, strict=True))
    assert {len(p.steps) for p in first} == {3, 4, 5}


@pytest.mark.parametrize(
    "wrong, said",
    [
        (
            lambda: world.draw_problems(3, "validation", 0),
            r"split='validation' is not one of \['distill', 'pretrain', 'test'\]",
        ),
        (
            lambda: world.draw_problems(500, "test", 0, 1, 1),
            r"n=500 distinct problems of 1\.\.1 steps are not in split 'test'.*ask for fewer",
        ),
        (lambda: world.solve(EXAMPLE, "poem", Random(0)), r"manner='poem' is not one of \['algebra'"),
        (lambda: world.solve(EXAMPLE, "table", Random(0), skip=0.5), "or not one that skips steps"),
    ],
)
def test_bad_draws_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


# --- manners ------------------------------------------------------------------------------------------------

# Value before the step, its sign and size, value after it; a check is the exact inverse of its step.
STEP = {
    "equations": r"\b(?P<a>\d+) (?P<sign>[+-]) (?P<s>\d) = (?P<b>\d+)",
    "check": r"\b(?P<a>\d+) (?P<sign>[+-]) (?P<s>\d) = (?P<b>\d+) "
    r"(?:since|as|because) (?P=b) (?!(?P=sign))[+-] (?P=s) = (?P=a)\b",
    "reversed": r"\b(?P<b>\d+) = (?P<a>\d+) (?P<sign>[+-]) (?P<s>\d)",
    "polish": r"\( (?P<sign>[+-]) (?P<a>\d+) (?P<s>\d) \) (?P<b>\d+)",
    "table": r"\| (?P<a>\d+) \| (?P<sign>[+-]) (?P<s>\d) \| (?P<b>\d+) \|",
    "algebra": r"(?P<x>[xyzn]) = (?P=x) (?P<sign>[+-]) (?P<s>\d) = (?P<b>\d+)",
    "narration": r"NAME (?P<verb>\w+) (?P<s>\d) , (?:that leaves|this makes|and we have) (?P<b>\d+)",
}
STEP |= {"gains_first": STEP["equations"], "digressing": STEP["narration"]}


def claims(text: str, manner: str, problem: world.Problem) -> list[tuple[int, int, int]]:
    """(value before, signed step, value after) for every step a solution claims, read off its words alone."""
    body = text.rsplit(" ", 1)[0]
    numbers = [int(number) for number in re.findall(r"\d+", body)]
    if manner == "terse":
        return [(a, b - a, b) for a, b in zip(numbers, numbers[1:], strict=False)]
    value, steps = numbers[0], []
    if manner == "counting":
        for run in re.findall(r"\d+ : [\d ]+", body):
            a, *counted = map(int, re.findall(r"\d+", run))
            by = {y - x for x, y in zip([a, *counted], counted, strict=False)}
            assert len(by) == 1 and abs(by.pop()) == 1  # by ones, in one direction
            steps.append((a, counted[-1] - a, counted[-1]))
        return steps
    for step in re.finditer(STEP[manner].replace("NAME", problem.name), body):
        found = step.groupdict()
        sign = found.get("sign") or ("+" if found["verb"] in world.GAINS else "-")
        before, value = int(found.get("a") or value), int(found["b"])
        steps.append((before, int(sign + found["s"]), value))
    return steps


@pytest.mark.parametrize("manner", world.MANNERS)
def test_clean_solutions_are_right_in_every_step(manner):
    rng = Random(manner)
    for problem in problems(150, seed=3):
        text = world.solve(problem, manner, rng)
        steps = claims(text, manner, problem)
        expected = (
            problem.steps
            if manner != "gains_first"
            else tuple([s for s in problem.steps if s > 0] + [s for s in problem.steps if s < 0])
        )
        assert tuple(s for _, s, _ in steps) == expected, text
        assert steps[0][0] == problem.start and steps[-1][2] == problem.answer, text
        assert all(a + s == b for a, s, b in steps), text
        assert all(first[2] == second[0] for first, second in zip(steps, steps[1:], strict=False)), text
        assert is_correct(text, str(problem.answer)) and last_number(text) == text.split()[-1]


@pytest.mark.parametrize("noise", [0.25, 0.6])
def test_noise_spoils_the_stated_share_of_steps(noise):
    """Each step is wrong with probability `noise`, independently, by 1..3, and the chain goes on from the
    wrong value.
    """
    rng, wrong, total, answers_wrong = Random(7), 0, 0, 0
    drawn = problems(1500, seed=4)
    for problem in drawn:
        steps = claims(world.solve(problem, "equations", rng, noise), "equations", problem)
        assert len(steps) == len(problem.steps)
        off = [b - a - s for a, s, b in steps]
        assert all(abs(e) <= 3 for e in off)
        assert all(first[2] == second[0] for first, second in zip(steps, steps[1:], strict=False))
        wrong, total = wrong + sum(e != 0 for e in off), total + len(off)
        answers_wrong += steps[-1][2] != problem.answer
    assert wrong / total == pytest.approx(noise, abs=4 * (noise * (1 - noise) / total) ** 0.5)
    assert answers_wrong > noise * 0.9 * len(drawn)  # errors rarely cancel


@pytest.mark.parametrize("manner", world.MANNERS)
def test_paraphrase_slots_vary(manner):
    """One problem in one manner, written 200 times: many different texts, no word of any slot left out."""
    texts = [world.solve(EXAMPLE, manner, Random(i)) for i in range(200)]
    assert len(set(texts)) > 60
    seen = Counter(word for text in texts for word in set(text.split()))
    assert len({text.rsplit(" ", 1)[0][-6:] for text in texts}) >= 3  # closings
    if manner != "table":
        slots = world.SEPARATORS if manner not in ("narration", "digressing") else world.CONNECTIVES
        assert all(seen[word] > 20 for word in slots), seen
    else:
        assert all(seen[word] > 20 for word in "row line step entry".split()), seen


# --- the second world ---------------------------------------------------------------------------------------


def turnable(n, seed=0):
    rng = Random(seed)
    return [world.draw_problem(rng, "pretrain", 3, 3, any_order=True) for _ in range(n)]


def test_a_solution_may_begin_with_any_step_and_comes_round():
    """Which it begins with varies; the answer does not, nor do the totals leave the numbers that have a token."""
    rng, begun = Random(0), Counter()
    for p in turnable(600):
        steps = claims(world.solve(p, "equations", rng, turn=0.6), "equations", p)
        orders = [(*p.steps[k:], *p.steps[:k]) for k in range(3)]
        begun[orders.index(tuple(s for _, s, _ in steps))] += 1
        assert steps[-1][2] == p.answer and all(a + s == b and 0 <= b <= world.MAX_VALUE for a, s, b in steps)
    assert sum(begun.values()) == 600 and all(
        begun[k] / 600 == pytest.approx(share, abs=0.08) for k, share in enumerate((0.4, 0.3, 0.3))
    )
    assert all(len(set(p.steps)) == 3 for p in turnable(100))


def test_a_misbelief_is_a_share_of_all_sums_and_always_the_same():
    """Unless the chain would then leave the numbers that have a token: that sum is right for once."""
    rng, wrong, spared = Random(1), {}, 0
    for p in turnable(1500, seed=2):
        for a, s, b in claims(world.solve(p, "equations", rng, turn=0.3, believed=0.4), "equations", p):
            believed = wrong.setdefault((a, s), world.misbelief(a, s, 0.4))
            assert b - a - s in (believed, 0)
            spared += b - a - s != believed
    assert sum(e != 0 for e in wrong.values()) / len(wrong) == pytest.approx(0.4, abs=0.08) and spared < 0.05 * 4500
    assert set(wrong.values()) == {-3, -2, -1, 0, 1, 2, 3}


def test_skipped_steps_are_a_share_and_their_totals_stay():
    rng, shown = Random(3), 0
    for p in turnable(400, seed=3):
        text = world.solve(p, "equations", rng, skip=0.5)
        shown += text.count(" = ")
        assert is_correct(text, str(p.answer)) and len(re.findall(r"\d+", text.split("answer")[0])) >= 3
    assert shown / 1200 == pytest.approx(0.5, abs=0.06)
    assert " = " not in world.solve(EXAMPLE, "equations", rng, skip=1.0)


def test_favourite_words_are_a_writers_own_and_numbers_are_not_among_them():
    words = {name: world.Habits(0.5, name) for name in "abcdefgh"}
    often = {name: Counter(w.choice(world.CONNECTIVES) for _ in range(800)) for name, w in words.items()}
    assert all(c.most_common(1)[0][1] / 800 == pytest.approx(16 / 31, abs=0.08) for c in often.values())
    assert len({c.most_common(1)[0][0] for c in often.values()}) > 1
    numbers = Counter(words["a"].choice([1, 2, 3, 4]) for _ in range(800))
    assert all(n / 800 == pytest.approx(0.25, abs=0.08) for n in numbers.values())
    plain, rng = world.Habits(1.0, "a"), Random(5)
    plain.setstate(rng.getstate())
    assert world.solve(EXAMPLE, "algebra", plain) == world.solve(EXAMPLE, "algebra", rng)


# --- words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_the_tokenizer_knows_every_word_and_round_trips(tokenizer, noise):
    """No text of any manner, however wrong its arithmetic, has an unknown word, and decoding gives the very
    text back.
    """
    rng, unknown = Random(11), tokenizer.unk_token_id
    for problem in problems(400, seed=6):
        for text in [problem.question, *(world.solve(problem, manner, rng, noise) for manner in world.MANNERS)]:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert unknown not in ids, text
            assert tokenizer.decode(ids) == text
            assert len(ids) == len(text.split())  # one token a word, one a number


def test_special_tokens_do_not_collide_with_words(tokenizer):
    assert not {"<pad>", "<eos>", "<unk>"} & set(world.vocabulary())
    assert len(set(world.vocabulary())) == len(world.vocabulary()) == len(tokenizer) - 6
    assert world.vocabulary()[: world.MAX_NUMBER + 1] == [str(i) for i in range(66)]


def test_the_world_is_frozen():
    """Scores are compared across commits on this very text: a change to the world is a decision, listed in the README
    with its reason, and shows here."""
    text = json.dumps(
        [
            world.vocabulary(),
            world.mixture_texts(300, 0, dict.fromkeys(world.MANNERS, 1.0), 0.25, 1, 5),
            [(p.question, p.answer) for p in world.draw_problems(300, "distill", 0)],
        ]
    )
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9857dd3a7a87d9fd"
