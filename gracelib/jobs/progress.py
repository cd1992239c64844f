"""The bar of everything that takes time, on stderr; and how long something took.

Why one: a terminal gets a bar that is drawn over itself, a log file gets a line now and then, and no line twice, so that both can
be read. What is counted may come in fractions: the largest piece of work must not be a bar that stands still.
"""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

_BETWEEN_LINES = 30.0  # seconds, in a file
_SHOWN = "{desc}: {percentage:3.0f}%|{bar:20}| {n:.0f}/{total:.0f} {unit}s, {elapsed} so far, about {remaining} left{postfix}"


class Bar(tqdm):
    """`tqdm` with these defaults; `unit` is one, without its s. `how`: as there."""

    def __init__(self, *items, **how):
        pause = 0.1 if sys.stderr.isatty() else _BETWEEN_LINES
        shown = {"bar_format": _SHOWN, "smoothing": 0.02, "miniters": 0, "mininterval": pause}
        super().__init__(*items, **{**shown, "maxinterval": max(10.0, pause), "file": sys.stderr, **how})

    def update(self, n: float = 1) -> bool | None:
        """As `tqdm`'s, but not beyond the total: the sum of fractions may round."""
        return super().update(n if self.total is None else min(n, self.total - self.n))

    @staticmethod
    def status_printer(file):
        """What prints a state of the bar: over the last one on a terminal, else below it, if it is another."""
        if file.isatty():
            return tqdm.status_printer(file)
        last = [None]

        def print_line(state: str) -> None:
            if state.strip() and state != last[0]:
                file.write(state if last[0] is None else f"\n{state}")
                file.flush()
                last[0] = state

        return print_line


def timed(work: Callable) -> tuple[float, object]:
    """Seconds until `work()` is done, by a GPU too, and what it returned."""
    torch, begin = sys.modules.get("torch"), time.perf_counter()
    made = work()
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, made
