r"""Whether the answers of real models to real problems are right: GSM8K, MATH, what else ends in a number or formula.

Most answers are numbers and are compared here, exactly, in microseconds. What is left (`\frac{1}{2}` for `0.5`, `x+1`
for `1+x`, intervals, matrices) goes to `math-verify`, and that in processes of their own. A final answer is a program of
sorts: `9^{9^{9^9}}` asks for more time and memory than there is, and nothing inside Python can stop a power of whole
numbers half-way. So the limits are the kernel's: a timer of CPU time that ends the process (CPU time, so that a busy
machine grades like an idle one) and a limit of its address space; pebble ends one that hangs and replaces what died. An
answer whose process ended counts as wrong and is counted in `n_timed_out`; where memory ran out and math-verify noticed,
the answer is simply wrong. Processes live for many answers, because starting one costs a second. They are told a few
variables of the environment and no secret. Only LaTeX is parsed, by a grammar; math-verify's other reader, which hands
digits and operators to Python, is not used.

`gracelib.text.answers.grade` does the same for the built-in world, whose answers are whole numbers.
"""

import os
import signal
import sys
import time
import warnings
from concurrent.futures import wait
from contextlib import AbstractContextManager, suppress
from multiprocessing.context import SpawnContext

import psutil
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from gracelib.jobs.progress import Bar
from gracelib.jobs.workers import WORKER_VARIABLES, ScriptlessProcess, n_workers
from gracelib.text.answers import (
    are_other_texts,
    as_number,
    as_tuples,
    choice,
    final_answers,
    first_number,
    is_prose,
    plain,
    reference_answer,
    tidy,
)

TIMEOUT_S, MEMORY_MB = 5.0, 1024
START_S = 300  # a cold disk may take a minute to import sympy; this only ends a start that hangs
PATIENCE = 20  # seconds on the wall allowed for one of CPU time before a process counts as hung: machines are busy
#: All that a grading process is told of the environment: what Python needs to find its packages, and no secret.
ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
)
ANSWERS_A_WORKER = 25  # another process pays off for this many formulas
ANSWERS_A_LIFE = 1000  # then a process is replaced: parsers remember what they have read, and its memory is limited


def compare(response: str, answer: str) -> bool | tuple[str, str]:
    """Whether a response is right where text and numbers can tell, else two formulas (reference, answer) to compare.

    A response without a final answer is wrong. Numbers are equal to six decimals and to a part in 2,000; units are
    dropped on both sides, and a percent sign, dozen or quarters on one side may be read as what they count or not at
    all. A sentence after `####` or "answer is" counts for its first number (after its last equals sign) where the
    reference is a number. ValueError: an empty reference, or one too long to be an answer.
    """
    truth, forms = tidy(reference_answer(answer)), final_answers(response)
    if not truth:
        raise ValueError(
            f"the reference answer {answer[:80]!r}... is too long, or holds no visible character; give "
            "the final answer alone"
        )
    letter, expected, said = choice(truth), as_number(truth), next(forms, None)
    if letter:
        said = next((one for one in (said, *forms) if one and choice(one.text)), said)
    elif "," in truth and not expected and said and "," not in said.text:
        said = next((one for one in (said, *forms) if one and one.form == "boxes"), said)
    if said is None or not tidy(said.text):
        return False
    if plain(said.text) == plain(truth):
        return True
    if letter and choice(said.text):
        return choice(said.text) == letter
    if are_other_texts(said.text, truth):
        return False
    number = as_number(said.text)
    if expected and number is None and said.form in ("hashes", "answer is") and is_prose(said.text):
        number = first_number(said.text)
        return number is not None and number.equals(expected)
    if number and expected:
        return number.equals(expected)
    # without its unit, which the grammar of formulas would read as a product of letters
    return as_tuples(truth, str(number.value) if number and number.unit == 1 else tidy(said.text))


class _Process(ScriptlessProcess):
    """A process that is told `ENVIRONMENT` alone."""

    def start(self) -> None:
        environment = dict(os.environ)
        os.environ.clear()  # for milliseconds: what a process is told at its start can be read in /proc while it lives
        os.environ.update({name: environment[name] for name in ENVIRONMENT if name in environment} | WORKER_VARIABLES)
        try:
            super().start()
        finally:
            os.environ.clear()
            os.environ.update(environment)


class _Context(SpawnContext):
    Process = _Process


def _prepare(memory_mb: int) -> None:
    """What a grading process does before its first answer."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # whatever a library says of a formula is no output of ours
    os.dup2(nowhere, 2)
    with suppress(ImportError):  # no math-verify: the first answer says so
        _is_equal(r"\frac{1}{2}", "0.5", timeout_s=60)  # imports and tables belong to no answer's limits
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = psutil.Process().memory_info().vms + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _is_equal(reference: str, answer: str, timeout_s: float) -> bool:
    """What math-verify says of two formulas; the process ends if that takes more CPU time."""
    from math_verify import parse, verify
    from math_verify.parser import LatexExtractionConfig
    from sympy import Expr
    from sympy.core.cache import clear_cache
    from sympy.core.evalf import PrecisionExhausted

    config, has_timer = (LatexExtractionConfig(boxed_match_priority=0),), hasattr(signal, "setitimer")
    if has_timer:  # not on Windows, where the clock on the wall has to do
        signal.setitimer(signal.ITIMER_PROF, timeout_s)
    try:
        said = [parse(f"\\boxed{{{latex}}}", config, parsing_timeout=None) for latex in (reference, answer)]
        equal = verify(*said, timeout_seconds=None, allow_set_relation_comp=True)
        first = [one[0] for one in said]
        if equal and all(isinstance(one, Expr) and one.is_number for one in first):
            # rounded to six decimals or chopped; PrecisionExhausted: zero, which is not small but nothing
            with suppress(PrecisionExhausted):
                truth, value = (one.evalf(30, strict=True) for one in first)
                equal = abs(truth) >= 1e-3 or bool(abs(value - truth) <= abs(truth) / 2000)
        return bool(equal)
    except Exception:  # whatever text makes a parser raise is no right answer
        return False
    finally:
        if has_timer:
            signal.setitimer(signal.ITIMER_PROF, 0)
        clear_cache()  # what an answer leaves behind must not fill the memory of the next


class Grader(AbstractContextManager):
    """A pool of grading processes, started when the first formula needs one; use as `with Grader() as grader:`.

    Parameters
    ----------
    timeout_s : seconds of CPU time an answer may take (default 5; a busy machine grades like an idle one).
    memory_mb : MiB an answer may take beyond what the process needs (default 1024; enforced on Linux only, elsewhere
        a warning says so).
    workers : processes at most; default `gracelib.jobs.workers.n_workers()`. Fewer where the first formulas are few.

    Attributes
    ----------
    n_timed_out : answers whose process was stopped so far, at a limit or by a crash; they count as wrong.
    wall_s : seconds on the wall after which a process counts as hung.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, memory_mb: int = MEMORY_MB, workers: int | None = None) -> None:
        if not timeout_s > 0 or memory_mb < 1 or (workers is not None and workers < 1):
            raise ValueError(f"timeout_s={timeout_s}, memory_mb={memory_mb}, workers={workers}: must all be positive")
        self.timeout_s, self.memory_mb, self.n_timed_out = float(timeout_s), int(memory_mb), 0
        self.wall_s = 5 + PATIENCE * self.timeout_s
        self._most, self._pool = workers or n_workers(), None

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; grading again starts new ones."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def grade(self, pairs: list[tuple[str, str]]) -> list[bool]:
        """Whether each (response, reference answer) is right, in order.

        A reference may be a number. Raises ValueError naming the pair if one is not two texts or its reference is
        empty, before a process is started; RuntimeError if none can be started.
        """
        grades, formulas = [], {}
        for i, pair in enumerate(pairs):
            if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str | int | float):
                raise ValueError(f"pair {i}: expected (response, answer), two texts, not {str(pair)[:80]!r}")
            try:
                grades.append(compare(pair[0], str(pair[1])))
            except ValueError as error:
                raise ValueError(f"pair {i}: {error}") from error
            if not isinstance(grades[i], bool):
                formulas.setdefault(grades[i], []).append(i)  # the same formula twice is computed once
        for formula, equal in self._verify(list(formulas)).items():
            for i in formulas[formula]:
                grades[i] = bool(equal)
            if equal is None:
                self.n_timed_out += len(formulas[formula])
        return grades

    def _verify(self, formulas: list[tuple[str, str]]) -> dict[tuple[str, str], bool | None]:
        """What math-verify says of each; None where the process died."""
        verdicts, broken = {}, None
        for _ in range(2):  # pebble gives up where somebody ends a process that waits, which is no answer's fault
            asked = [formula for formula in formulas if formula not in verdicts]
            try:
                futures = [self._schedule(formula, len(asked)) for formula in asked]
                for formula, future in zip(
                    asked, Bar(futures, desc="comparing formulas", unit="formula", delay=3), strict=True
                ):
                    verdicts[formula] = self._result(future)
                return verdicts
            except (ImportError, RuntimeError) as error:
                self.close()
                broken = error
        raise RuntimeError(
            f"the grading process did not start ({broken}); is math-verify installed? pip install math-verify"
        ) from broken

    def _schedule(self, formula: tuple[str, str], n: int) -> ProcessFuture:
        """One of `n` formulas handed to the pool, to a new one where that is needed."""
        if self._pool is None or not self._pool.active:
            self.close()
            if sys.platform != "linux":
                warnings.warn("grading: this system enforces no memory limit, only one of time", stacklevel=2)
            at_once = min(self._most, 1 + n // ANSWERS_A_WORKER)
            self._pool = ProcessPool(at_once, ANSWERS_A_LIFE, _prepare, (self.memory_mb,), _Context())
        return self._pool.schedule(_is_equal, (*formula, self.timeout_s), timeout=self.wall_s)

    def _result(self, future: ProcessFuture) -> bool | None:
        """What a process says of a formula when all before it are done; None if it was stopped over it."""
        begun = time.monotonic()
        while not future.done():
            wait([future], timeout=1)
            late = time.monotonic() - begun > START_S + self.wall_s
            if not future.done() and (late or not self._pool.active):  # pebble loses what it was given in that moment
                raise RuntimeError("it ended, or hangs")
        try:
            return future.result()
        except (TimeoutError, ProcessExpired, MemoryError):
            return None


def grade_rows(
    rows: list[dict], *, timeout_s: float = TIMEOUT_S, memory_mb: int = MEMORY_MB, workers: int | None = None
) -> list[dict]:
    """The rows with `correct`, a list of booleans beside `responses`: `gracelib.text.answers.grade` for real tasks.

    Rows need `id` or `question`, `answer` (text or number) and `responses`. Warns if answers were stopped at a limit.
    Raises ValueError naming the prompt whose answer is missing or empty.
    """
    for row in rows:
        name = row.get("id", str(row.get("question"))[:60])
        if row.get("answer") is None or not str(row["answer"]).strip():
            raise ValueError(f"prompt {name!r} has no answer to grade against; add the field 'answer'")
        if not isinstance(row.get("responses"), list | tuple) or not all(isinstance(r, str) for r in row["responses"]):
            raise ValueError(f"prompt {name!r}: responses must be a list of texts")
    with Grader(timeout_s, memory_mb, workers) as grader:
        right = iter(grader.grade([(response, str(row["answer"])) for row in rows for response in row["responses"]]))
        if grader.n_timed_out:
            warnings.warn(
                f"{grader.n_timed_out} answers took more than {timeout_s:g} s or {memory_mb} MiB to compare "
                "and count as wrong",
                stacklevel=2,
            )
    return [{**row, "correct": [next(right) for _ in row["responses"]]} for row in rows]
