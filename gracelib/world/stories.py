"""The built-in worlds: arithmetic stories and eleven manners of solving them.

Choosing a teacher is only interesting where teachers differ in *manner*: the paper's are nearly all strong, yet
their students are not. So every story here ("ann has 9 books . finds 1 . loses 5 . ...") can be solved in any of
eleven manners, from plain equations to counting by ones, and each manner has paraphrase slots (connectives,
separators, closing phrases) filled at random. The slots matter: without them a cold teacher writes the same
response m times, the gradients' second moment loses rank and the smoothing nu alone decides every score.

A second world asks what a teacher covers: its stories may be solved from any of their steps on (`turn`), its student
holds a share of all sums wrong, always in the same way (`misbelief`), and its teachers have favourite words (`Habits`),
which a low temperature turns into copies.

This module is text only. Models are trained on it in `world.models`; everything after that sees nothing but
Hugging Face models, tokenizers and JSONL.
"""

import hashlib
import re
from dataclasses import dataclass
from itertools import accumulate
from random import Random

MAX_VALUE = 20  # running totals stay in 0..20, so that one token per number is enough
MAX_NUMBER = 65  # `gains_first` adds up all gains before any loss: 20 + 5 * 9
SPLITS = {"pretrain": range(0, 60), "distill": range(60, 85), "test": range(85, 100)}

NAMES = "ann bob cleo dan eve finn gus hana ian joy kai lea max nora otto pia".split()
THINGS = "books pens cards coins shells stamps marbles apples pears plums cups keys rings hats kites drums".split()
GAINS = "finds gets wins buys".split()
LOSSES = "loses gives sells drops".split()
CONNECTIVES = "so then now next -".split()
SEPARATORS = "; . , /".split()


@dataclass(frozen=True)
class Problem:
    """A start value, signed steps of 1..9, and the words that tell the story."""

    start: int
    steps: tuple[int, ...]
    name: str
    thing: str
    verbs: tuple[str, ...]

    @property
    def answer(self) -> int:
        return self.start + sum(self.steps)

    @property
    def question(self) -> str:
        told = " ".join(f"{verb} {abs(step)} ." for verb, step in zip(self.verbs, self.steps, strict=True))
        return f"{self.name} has {self.start} {self.thing} . {told} how many ?"


def split_of(start: int, steps: tuple[int, ...]) -> str:
    """The split that owns a problem, decided by a hash of its arithmetic alone (names do not matter).

    Two stories with the same numbers are one problem, so pretraining, distillation and test sets are disjoint by
    construction, whatever is drawn from them.
    """
    digest = hashlib.blake2b(repr((start, *steps)).encode(), digest_size=8).digest()
    bucket = int.from_bytes(digest, "big") % 100
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


def draw_problem(rng: Random, split: str, min_steps: int, max_steps: int, any_order: bool = False) -> Problem:
    """One random problem of `split` with min_steps..max_steps steps (uniform).

    `any_order`: its steps are all different, and may be taken from any of them on, coming round to those before it.
    """
    while True:
        start, n_steps = rng.randint(0, MAX_VALUE), rng.randint(min_steps, max_steps)
        value, steps = start, []
        for _ in range(n_steps):
            taken = steps if any_order else ()
            step = rng.choice([s for s in range(-9, 10) if s and s not in taken and 0 <= value + s <= MAX_VALUE])
            steps.append(step)
            value += step
        turned = ((*steps[k:], *steps[:k]) for k in range(n_steps if any_order else 0))
        if any(not 0 <= total <= MAX_VALUE for order in turned for total in accumulate(order, initial=start)):
            continue
        if split_of(start, tuple(steps)) == split:
            verbs = tuple(rng.choice(GAINS if step > 0 else LOSSES) for step in steps)
            return Problem(start, tuple(steps), rng.choice(NAMES), rng.choice(THINGS), verbs)


def draw_problems(
    n: int, split: str, seed: int, min_steps: int = 3, max_steps: int = 5, any_order: bool = False
) -> list[Problem]:
    """`n` problems of a split with distinct arithmetic, from an explicit seed.

    Raises
    ------
    ValueError
        unknown split, or more distinct problems asked for than the step range holds.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {sorted(SPLITS)}")
    rng, seen, problems = Random(f"{seed}/{split}"), set(), []
    for _ in range(50 * n + 1000):
        problem = draw_problem(rng, split, min_steps, max_steps, any_order)
        if (problem.start, problem.steps) not in seen:
            seen.add((problem.start, problem.steps))
            problems.append(problem)
        if len(problems) == n:
            return problems
    raise ValueError(
        f"n={n} distinct problems of {min_steps}..{max_steps} steps are not in split {split!r}; "
        "ask for fewer, or for longer chains"
    )


# --- the manners ------------------------------------------------------------------------------------------------
# Each writes the steps of a solution as a list of words. `a`, `s`, `b` are the value before a step, the signed
# step and the value after it (which may be wrong: see `solve`).


def _sign(s: int) -> str:
    return "+" if s > 0 else "-"


def _equations(p, trace, rng):
    for i, (a, s, b) in enumerate(trace):
        yield from ([rng.choice(CONNECTIVES)] if i else [])
        yield from (a, _sign(s), abs(s), "=", b, rng.choice(SEPARATORS))


def _skipping(p, trace, rng, skip):
    """Equations of which a share `skip` is not written out: at 1 it is the terse manner in the words of equations."""
    for i, (a, s, b) in enumerate(trace):
        yield from ([rng.choice(CONNECTIVES)] if i else [])
        yield from ((b,) if rng.random() < skip else (a, _sign(s), abs(s), "=", b))
        yield rng.choice(SEPARATORS)


def _narration(p, trace, rng):
    yield from (rng.choice(["at first there are", "we begin with", "the story opens with"]), p.start, p.thing, ".")
    for (_, s, b), verb in zip(trace, p.verbs, strict=True):
        yield from (rng.choice(CONNECTIVES), p.name, verb, abs(s), ",")
        yield from (rng.choice(["that leaves", "this makes", "and we have"]), b, p.thing, ".")


def _algebra(p, trace, rng):
    x = rng.choice("x y z n".split())
    yield from (rng.choice("let set put".split()), x, "=", p.start, rng.choice(SEPARATORS))
    for _, s, b in trace:
        yield from (rng.choice(CONNECTIVES), x, "=", x, _sign(s), abs(s), "=", b, rng.choice(SEPARATORS))


def _check(p, trace, rng):
    for a, s, b in trace:
        yield from (rng.choice(CONNECTIVES), a, _sign(s), abs(s), "=", b, rng.choice("since as because".split()))
        yield from (b, _sign(-s), abs(s), "=", a, rng.choice(SEPARATORS))


def _terse(p, trace, rng):
    yield from (p.start, rng.choice(SEPARATORS))
    for _, _, b in trace:
        yield from (b, rng.choice(SEPARATORS))


def _reversed(p, trace, rng):
    for i, (a, s, b) in enumerate(trace):
        yield from ([rng.choice(CONNECTIVES)] if i else [])
        yield from (b, "=", a, _sign(s), abs(s), rng.choice(SEPARATORS))


def _counting(p, trace, rng):
    for a, s, b in trace:
        step = 1 if s > 0 else -1
        count = list(range(a + step, a + s, step))
        yield from (rng.choice(CONNECTIVES), a, ":", *count, b, rng.choice(SEPARATORS))


def _narration_digressing(p, trace, rng):
    asides = [
        "the sky is blue",
        "it rains a bit",
        "lunch is ready",
        f"{p.name} likes tea",
        "a dog runs by",
        "music plays",
    ]
    words = list(_narration(p, trace, rng))
    for word in words:
        yield word
        if word == "." and rng.random() < 0.5:
            yield from (rng.choice(asides), ".")


def _polish(p, trace, rng):
    for a, s, b in trace:
        yield from (rng.choice(CONNECTIVES), "(", _sign(s), a, abs(s), ")", b, rng.choice(SEPARATORS))


def _table(p, trace, rng):
    for a, s, b in trace:
        yield from (rng.choice("row line step entry".split()), "|", a, "|", _sign(s), abs(s), "|", b, "|")


MANNERS = {
    "equations": _equations,
    "algebra": _algebra,
    "narration": _narration,
    "check": _check,
    "table": _table,
    "polish": _polish,
    "digressing": _narration_digressing,
    "gains_first": _equations,
    "reversed": _reversed,
    "terse": _terse,
    "counting": _counting,
}
CLOSINGS = ("the answer is", "answer :", "that makes")
TERSE_CLOSINGS = (":", "=", "-")


class Habits(Random):
    """A writer with favourite words: the i-th favourite of a list has weight skew**i. Which they are depends on `writer`."""

    def __init__(self, skew: float, writer: str):
        super().__init__()
        self.skew, self.writer = skew, writer

    def choice(self, seq):
        if self.skew == 1 or not isinstance(seq[0], str):
            return super().choice(seq)
        first = _hashed(self.writer, *seq)
        return self.choices(seq, [self.skew ** ((i + first) % len(seq)) for i in range(len(seq))])[0]


def misbelief(value: int, step: int, share: float) -> int:
    """What a writer who holds a `share` of all sums wrong adds to the true result of this one: always the same."""
    code = _hashed("belief", value, step)
    return (-3, -2, -1, 1, 2, 3)[code // 1000 % 6] if code % 1000 < 1000 * share else 0


def _hashed(*what) -> int:
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=4).digest(), "big")


def solve(
    problem: Problem,
    manner: str,
    rng: Random,
    noise: float = 0.0,
    turn: float = 0.0,
    skip: float = 0.0,
    believed: float = 0.0,
) -> str:
    """One solution text in a manner, its paraphrase slots filled from `rng`.

    With probability `noise` a step's result is off by 1..3, and the chain goes on from the wrong value: how the base
    student's pretraining text comes to be of the right form but unreliable. With probability `turn` the solution begins
    with a later step and comes round to those before it (problems of `any_order`). `skip`: share of steps that are not
    written out (equations). `believed`: share of sums that are wrong, see `misbelief`.
    """
    if manner not in MANNERS or (skip and manner != "equations"):
        raise ValueError(f"manner={manner!r} is not one of {sorted(MANNERS)}, or not one that skips steps")
    steps, verbs = problem.steps, problem.verbs
    if manner == "gains_first":
        order = sorted(range(len(steps)), key=lambda i: steps[i] < 0)  # stable: gains, then losses
        steps, verbs = tuple(steps[i] for i in order), tuple(verbs[i] for i in order)
    if turn and rng.random() < turn:
        k = rng.randrange(1, len(steps))
        steps, verbs = (*steps[k:], *steps[:k]), (*verbs[k:], *verbs[:k])
    value, trace = problem.start, []
    for i, step in enumerate(steps):
        later = [0, *accumulate(steps[i + 1 :])]  # a wrong chain may not leave the numbers that have a token
        low, high = -min(later), MAX_NUMBER - max(later)
        result = value + step + misbelief(value, step, believed)
        if not low <= result <= high:
            result = value + step
        if rng.random() < noise:
            result = rng.choice([result + e for e in (-3, -2, -1, 1, 2, 3) if low <= result + e <= high])
        trace.append((value, step, result))
        value = result
    told = Problem(problem.start, steps, problem.name, problem.thing, verbs)
    words = [*(_skipping(told, trace, rng, skip) if skip else MANNERS[manner](told, trace, rng))]
    words += [rng.choice(TERSE_CLOSINGS if manner == "terse" else CLOSINGS), value]
    return " ".join(map(str, words))


def mixture_texts(
    n: int,
    seed: int,
    shares: dict[str, float],
    noise: float,
    min_steps: int,
    max_steps: int,
    any_order: bool = False,
    **how: float,
) -> list[tuple[str, str]]:
    """`n` (question, solution) pairs of the split "pretrain", manners drawn by `shares`; problems may repeat, slots do not.
    `how`: turn and believed of `solve`."""
    rng, names = Random(f"{seed}/mixture"), list(shares)
    manners = rng.choices(names, weights=[shares[k] for k in names], k=n)
    pairs = []
    for manner in manners:
        problem = draw_problem(rng, "pretrain", min_steps, max_steps, any_order)
        pairs.append((problem.question, solve(problem, manner, rng, noise, **how)))
    return pairs


def vocabulary() -> list[str]:
    """Every word of the world, in a fixed order: numbers first, then all words the manners can write, sorted."""
    rng, words = Random("vocabulary"), set()
    for i in range(600):
        problem = draw_problem(rng, "pretrain", 5, 5)
        for manner in MANNERS:
            words.update(solve(problem, manner, rng).split())
        words.update(problem.question.split())
    words.update(NAMES + THINGS + GAINS + LOSSES)
    words = {w for w in words if not re.fullmatch(r"\d+", w)}
    return [str(i) for i in range(MAX_NUMBER + 1)] + sorted(words)
