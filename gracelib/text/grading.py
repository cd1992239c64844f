r"""Whether the answers of real models to real problems are right: GSM8K, MATH, what else ends in a number or formula.

Most answers are numbers and are compared here, exactly, in microseconds. What is left (`\frac{1}{2}` for `0.5`, `x+1`
for `1+x`, intervals, matrices) goes to `math-verify`, and that in processes of their own: a model's answer may be a
tower of powers, and computing it must neither hang nor crash the run that grades it. A process that exceeds its time is
killed and replaced; its answer counts as wrong and is counted in `n_timed_out`. So does one that dies of its memory
limit; where math-verify notices that memory ran out, the answer is simply wrong. Processes live for many answers,
because starting one costs a second.

`gracelib.models.accuracy.grade` does the same for the built-in world, whose answers are whole numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from gracelib.jobs.workers import WORKER_VARIABLES, n_workers
from gracelib.text.answers import as_number, final_answer, first_number, is_prose, plain, reference_answer, tidy

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


def compare(response: str, answer: str) -> bool | tuple[str, str]:
    """Whether a response is right where text and numbers can tell, else two formulas (reference, answer) to compare.

    A response without a final answer is wrong. Numbers are equal to six decimals, units are dropped on both sides, and
    a percent sign on one side may be read as "of a hundred" or not at all. A sentence after `####` or "answer is"
    counts for its first number (after its last equals sign) where the reference is a number. ValueError: an empty
    reference, or one too long to be an answer.
    """
    truth, said = tidy(reference_answer(answer).text), final_answer(response)
    if not truth:
        raise ValueError(
            f"the reference answer {answer[:80]!r}... is too long, or holds no visible character; give "
            "the final answer alone"
        )
    if said is None or not tidy(said.text):
        return False
    if plain(said.text) == plain(truth):
        return True
    number, expected = as_number(said.text), as_number(truth)
    if expected and number is None and said.form in ("hashes", "answer is") and is_prose(said.text):
        number = first_number(said.text)
        return number is not None and number.equals(expected)
    if number and expected:
        return number.equals(expected)
    # without its unit, which the grammar of formulas would read as a product of letters
    return truth, str(number.value) if number and not number.percent else tidy(said.text)


class _Worker:
    """One process of `grading_worker.py`."""

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        script = Path(__file__).with_name("grading_worker.py")
        self.wall_s = 5 + PATIENCE * timeout_s
        self.process = subprocess.Popen(  # -P: the script's folder holds modules named like others' (stats, tables)
            [sys.executable, "-P", str(script), repr(timeout_s), str(memory_mb)],
            encoding="ascii",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ} | WORKER_VARIABLES,
        )
        hello = self._read(START_S)
        if hello is None or "error" in hello:
            self.close()
            reason = hello["error"] if hello else f"exit status {self.process.returncode}"
            raise RuntimeError(
                f"the grading process did not start ({reason}); is math-verify installed? pip install math-verify"
            )
        self.memory_limit = hello["memory_limit"]

    def _read(self, wall_s: float) -> dict | None:
        timer = threading.Timer(wall_s, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        return json.loads(line) if line.endswith("\n") else None

    def ask(self, pair: tuple[str, str]) -> dict | None:
        """The reply, or None if the process died over it."""
        try:
            self.process.stdin.write(json.dumps(pair) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        return self._read(self.wall_s)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:  # what was being written when it died has no reader
            return


class Grader:
    """A pool of grading processes, started when the first formula needs one; use as `with Grader() as grader:`.

    Parameters
    ----------
    timeout_s : seconds of CPU time an answer may take (default 5; a busy machine grades like an idle one).
    memory_mb : MiB an answer may take beyond what the process needs (default 1024; enforced on Linux only, elsewhere
        a warning says so).
    workers : processes at most; default `gracelib.jobs.workers.n_workers()`.

    Attributes
    ----------
    n_timed_out : answers whose process was stopped so far, at a limit or by a crash; they count as wrong.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, memory_mb: int = MEMORY_MB, workers: int | None = None) -> None:
        if not timeout_s > 0 or memory_mb < 1 or (workers is not None and workers < 1):
            raise ValueError(f"timeout_s={timeout_s}, memory_mb={memory_mb}, workers={workers}: must all be positive")
        self.timeout_s, self.memory_mb, self.n_timed_out = float(timeout_s), int(memory_mb), 0
        self._most = workers or n_workers()
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; grading again starts new ones."""
        while self._idle:
            self._idle.pop().close()

    def grade(self, pairs: list[tuple[str, str]]) -> list[bool]:
        """Whether each (response, reference answer) is right, in order.

        A reference may be a number. Raises ValueError naming the pair if one is not two texts or its reference is
        empty, before a process is started.
        """
        pairs = [
            (pair[0], str(pair[1]) if isinstance(pair[1], int | float) else pair[1]) if len(pair) == 2 else pair
            for pair in pairs
        ]
        for i, pair in enumerate(pairs):
            if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise ValueError(f"pair {i}: expected (response, answer), two texts, not {str(pair)[:80]!r}")
        grades, formulas = [], {}
        for i, (response, answer) in enumerate(pairs):
            try:
                grades.append(compare(response, answer))
            except ValueError as error:
                raise ValueError(f"pair {i}: {error}") from error
            if not isinstance(grades[i], bool):
                formulas.setdefault(grades[i], []).append(i)  # the same formula twice is computed once
        for pair, right in self._verify(list(formulas)).items():
            for i in formulas[pair]:
                grades[i] = bool(right)
            if right is None:
                self.n_timed_out += len(formulas[pair])
        return grades

    def _verify(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], bool | None]:
        """What math-verify says of each; None where the process died."""
        verdicts, queue = {}, deque(pairs)
        if not pairs:
            return verdicts
        at_once = min(self._most, 1 + len(pairs) // ANSWERS_A_WORKER)
        bar = tqdm(total=len(pairs), desc="comparing formulas", delay=3)

        def serve() -> None:
            worker = None
            try:
                while queue:
                    try:
                        pair = queue.popleft()
                    except IndexError:  # another thread took the last one
                        break
                    worker = worker or self._worker()
                    reply = worker.ask(pair)
                    with self._lock:
                        verdicts[pair] = reply["right"] if reply else None
                        bar.update()
                    if reply is None or reply["tired"]:
                        worker.close()
                        worker = None
            except BaseException:
                queue.clear()
                if worker is not None:
                    worker.close()
                    worker = None  # what it would answer next might belong to this pair
                raise
            finally:
                if worker is not None:
                    self._idle.append(worker)

        try:
            with ThreadPoolExecutor(at_once) as pool:
                try:
                    for future in as_completed([pool.submit(serve) for _ in range(at_once)]):
                        future.result()
                finally:
                    queue.clear()  # interrupted: no thread takes another
        finally:
            bar.close()
        return verdicts

    def _worker(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.process.poll() is None:
                    return worker
                worker.close()  # ended by somebody else while it waited: no answer's fault
        worker = _Worker(self.timeout_s, self.memory_mb)
        if not worker.memory_limit:
            warnings.warn(
                "grading: this system enforces no memory limit; only the time of an answer is bounded", stacklevel=2
            )
        return worker


def grade_rows(
    rows: list[dict], *, timeout_s: float = TIMEOUT_S, memory_mb: int = MEMORY_MB, workers: int | None = None
) -> list[dict]:
    """The rows with `correct`, a list of booleans beside `responses`: `gracelib.models.accuracy.grade` for real tasks.

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
