"""The process in which `math-verify` compares two formulas: a script that `gracelib.text.grading` starts and may kill.

A final answer is a program of sorts: `9^{9^{9^9}}` asks for more time and memory than there is. Nothing inside Python
can stop a power of whole numbers half-way, so the limits are the kernel's: a timer of CPU time that ends the process
(CPU time, so that a busy machine grades like an idle one) and a limit of its address space. The process imports
math-verify and nothing of this package, reads one request a line, `[reference, answer]` in JSON, and answers each with
one line.

Only LaTeX is parsed, by a grammar; math-verify's other reader, which hands digits and operators to Python, is not used.
"""

from __future__ import annotations

import json
import os
import signal
import sys

TIRED = 0.5  # share of the memory limit at which a worker asks to be replaced: its caches must not fail the next answer


def _limit_memory(megabytes: int) -> bool:
    """Whether a limit of what the process has now and `megabytes` more is in force."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as f:
            has = int(f.read().split()[0]) * resource.getpagesize()
        limit = has + megabytes * 2**20
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # not Linux: the time limit alone has to do, and the parent says so
        return False
    return True


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(timeout_s: float, megabytes: int) -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle; it closes standard input
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever a library prints must not look like a reply

    def reply(message: dict) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        from math_verify import parse, verify
        from math_verify.parser import LatexExtractionConfig
    except ImportError as error:
        reply({"error": str(error)})
        return
    config = (LatexExtractionConfig(boxed_match_priority=0),)

    def read(latex: str) -> list:
        return parse(f"\\boxed{{{latex}}}", config, parsing_timeout=None)  # our own timer is on already

    def is_right(reference: str, answer: str) -> bool:
        return bool(verify(read(reference), read(answer), timeout_seconds=None))

    is_right("\\frac{1}{2}", "0.5")  # tables that are built at first use belong to no answer's limits
    limited = _limit_memory(megabytes)
    at_start = _resident() if limited else 0
    has_timer = hasattr(signal, "setitimer")
    reply({"ready": True, "memory_limit": limited})
    for line in sys.stdin:
        reference, answer = json.loads(line)
        if has_timer:
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
        try:
            right = is_right(reference, answer)
        except Exception:  # whatever text makes a parser raise is no right answer
            right = False
        if has_timer:
            signal.setitimer(signal.ITIMER_PROF, 0)
        reply({"right": right, "tired": limited and _resident() - at_start > TIRED * megabytes * 2**20})


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
