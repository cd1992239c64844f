"""What features cost beside what they cannot do without, and beside other ways: `make bench`.

Why: times on somebody's machine mean little; ratios, measured in one process on the same student and responses, with
the same threads, mean the same everywhere. Ours and the floor (see `bench.methods`) are timed in turns, so that what
else the machine does hits all of them; the slow ways are timed on as many responses as a few seconds allow and scaled to
all of them, which is said in the table, and left out where one response takes too long or a matrix does not fit.
Finished settings are kept in runs/bench: a run that was stopped goes on where it was. The last settings are a student
with a real vocabulary (`--real`: these alone), whose way is different: its logits and layers are made again.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass

import pandas as pd
import psutil
import torch

from gracelib.bench import methods as ways
from gracelib.bench import report
from gracelib.features.batches import give_back
from gracelib.features.memory import peak_memory, reset_peak
from gracelib.jobs.paths import figures, runs
from gracelib.jobs.progress import Bar, timed
from gracelib.jobs.store import closure, digest, fingerprint, versions, write_atomically
from gracelib.projection import MIB

FLOOR_BATCHES = (8, 16, 32, 64, 128)  # responses per batch tried for plain forward + backward
MOST_LOGITS = 300 << 20  # of such a batch
PROMPT = 20  # tokens, on average
ROUNDS_SECONDS = 900.0  # a setting has fewer repeats where they would take longer
PEER_SECONDS = 12.0  # the same for a slow way, which has fewer responses as well
ONE_RUN = 60.0  # a way is left out where one run takes longer
SECONDS_A_DRAW = 1.5e-8  # of one random sign of the others' projectors, on two cores: to know before


@dataclass(frozen=True)
class Setting:
    """A student of about `parameters` parameters and n responses of about `tokens` tokens; gemma: `methods.gemma_270m`.
    panels: of the figure."""

    parameters: int
    n: int = 512
    d: int = 512
    tokens: int = 100
    panels: str = "D"
    gemma: bool = False


# A score needs n m of a thousand or more; large students get fewer here, for time: 240 of the largest wait together in
# the 24 GiB of a laptop.
FULL = (
    Setting(100_000),
    Setting(300_000, panels="Dnd"),
    Setting(1_000_000),
    Setting(3_000_000),
    Setting(10_000_000, 256),
    Setting(30_000_000, 240),
    *(Setting(300_000, n, panels="n") for n in (8, 32, 128)),
    *(Setting(300_000, d=d, panels="d") for d in (32, 128, 2048)),
)
REAL = tuple(Setting(268_098_176, n, d, 250, "", True) for n, d in ((32, 32), (128, 128), (128, 512)))
QUICK = (
    Setting(30_000, 32, 64, 30, "Dnd"),
    Setting(100_000, 32, 64, 30),
    Setting(30_000, 8, 64, 30, "n"),
    Setting(30_000, 32, 256, 30, "d"),
)


def measure(setting: Setting, repeats: int = 5, advance=lambda what: None) -> list[dict]:
    """A row for each method (see `report.COLUMNS`, without the ratios). `advance(method)` is called before each."""
    model = ways.gemma_270m() if setting.gemma else ways.student_of(setting.parameters)
    work = ways.Work(model, ways.random_examples(setting.n, PROMPT, setting.tokens, model.config.vocab_size), setting.d)
    common = {
        "panels": setting.panels,
        "parameters": work.n_parameters,
        "responses": setting.n,
        "tokens": setting.tokens,
        "d": setting.d,
        "threads": torch.get_num_threads(),
    }
    advance(report.PASSES)
    tried = 8 if setting.gemma else setting.n
    most = MOST_LOGITS // (model.config.vocab_size * (PROMPT + setting.tokens))  # responses
    work.batch = min(work.batch, most)
    ways.plain_passes(work, tried)  # kernels are chosen, threads started
    trials = {}
    for work.batch in sorted({min(b, setting.n, most) for b in FLOOR_BATCHES}):
        trials[work.batch] = timed(lambda: ways.plain_passes(work, tried))[0]
    work.batch = common["batch"] = min(trials, key=trials.get)
    # What the recorder costs is told by the smaller students; here a run takes minutes.
    methods = [m for m in ways.METHODS if not (setting.gemma and m.name == report.BARE)]
    in_turns, alone = ([m for m in methods if bool(m.each) is each] for each in (False, True))
    rows = _in_turns(in_turns, work, repeats, advance)
    for method in alone:
        advance(method.name)
        rows.append({"method": method.name} | _alone(method, work, repeats))
    return [common | {"note": "", "responses_run": setting.n, "extrapolated": False} | row for row in rows]


def _in_turns(methods, work: ways.Work, repeats: int, advance) -> list[dict]:
    """All methods once for their memory, then round after round; the floor is the sum of two of them, round by round."""
    n, peaks, times = len(work.examples), {}, {}
    for method in methods:
        advance(method.name)
        peaks[method.name], seconds, parts = _first(method, work, n)
        times |= {what: [value] for what, value in {method.name: seconds, **(parts or {})}.items()}
    first = sum(times[method.name][0] for method in methods)
    # A run of many minutes needs no warming: where a second round would take too long, the first one is the measure.
    if first <= ROUNDS_SECONDS:
        repeats = max(r for r in (1, 3, repeats) if r == 1 or r <= repeats and r * first <= ROUNDS_SECONDS)
        ready, times = [(m.name, m.prepare(work)) for m in methods], {}
        for _ in range(repeats):
            for name, run in ready:
                seconds, parts = timed(lambda: run(n))
                for what, value in {name: seconds, **(parts or {})}.items():
                    times.setdefault(what, []).append(value)
    times[report.FLOOR] = [sum(pair) for pair in zip(times[report.PASSES], times[report.PRODUCT], strict=True)]
    return [{"method": what, **_summary(values), "peak_mib": peaks.get(what)} for what, values in times.items()]


def _alone(method: ways.Method, work: ways.Work, repeats: int) -> dict:
    n, D = len(work.examples), work.n_parameters
    nothing = {"seconds": None, "lowest": None, "highest": None, "peak_mib": None, "repeats": 0, "responses_run": 0}
    if package := ways.missing(method.name):
        return nothing | {"note": f"{package} is not installed: make bench"}
    if (room := method.bytes_kept(D, n, work.d)) > ways.ROOM:
        return nothing | {"note": f"left out: it keeps {room / 2**30:.1f} GiB"}
    if method.name in ways.PEERS and (takes := D * work.d * SECONDS_A_DRAW) > ONE_RUN:
        return nothing | {"note": f"left out: one run takes about {takes:.0f} s"}
    least = min(method.each, n)
    peak, once, _ = _first(method, work, least)
    k = min(n, max(1, int(PEER_SECONDS / repeats / once)) * least)
    repeats = max(1, min(repeats, int(PEER_SECONDS / (once * k / least))))
    run = method.prepare(work)
    times = [timed(lambda: run(k))[0] * n / k for _ in range(repeats)]
    return _summary(times) | {
        "peak_mib": peak,
        "responses_run": k,
        "extrapolated": k < n,
        "note": f"scaled from {k} of {n} responses" if k < n else "",
    }


def _first(method: ways.Method, work: ways.Work, k: int) -> tuple[float | None, float, dict]:
    """Peak memory (MiB beyond what there was before; None where the system does not tell), seconds of one run and of
    its parts; preparation is included in the memory only."""
    give_back()
    before, known = psutil.Process().memory_info().rss, reset_peak()
    run = method.prepare(work)
    seconds, parts = timed(lambda: run(k))
    return max(0.0, peak_memory() - before) / MIB if known else None, seconds, parts


def _summary(seconds: list[float]) -> dict:
    return {
        "seconds": statistics.median(seconds),
        "lowest": min(seconds),
        "highest": max(seconds),
        "repeats": len(seconds),
    }


def run(settings: tuple[Setting, ...], repeats: int = 5) -> pd.DataFrame:
    """The table of all settings, medians of `repeats` runs; those finished before with the same code, packages and threads are
    read (`make clean` forgets them)."""
    rows, code = [], fingerprint(closure("gracelib.bench.measure"))
    peers = {name: ways.missing(name) for name in ways.PEERS}
    with Bar(total=len(settings) * (len(ways.METHODS) + 1), desc="bench", unit="way") as bar:
        for setting in settings:
            key = digest([asdict(setting), repeats, code, versions(), torch.get_num_threads(), peers])
            path = runs() / "bench" / f"{key}.json"
            if path.is_file():
                rows += json.loads(path.read_text("utf-8"))
                bar.update(len(ways.METHODS) + 1)
                continue

            def advance(method, setting=setting):
                bar.set_postfix_str(f"D = {setting.parameters:,}, n m = {setting.n}, d = {setting.d}: {method}")
                bar.update()

            own = measure(setting, repeats, advance)
            write_atomically(path, lambda part, own=own: part.write_text(json.dumps(own), "utf-8"))
            rows += own
    return report.with_ratios(rows)


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(prog="python -m gracelib.bench.measure", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small part, under a minute, written to runs/bench")
    parser.add_argument(
        "--real", action="store_true", help="only a student with a real vocabulary, written to runs/bench"
    )
    a = parser.parse_args(argv)
    settings = REAL if a.real else QUICK if a.quick else FULL + REAL
    table = run(settings)
    print(report.text(table))
    written = report.save(
        table,
        figures("bench") if settings == FULL + REAL else runs() / "bench",
        "features",
        {"settings": [asdict(s) for s in settings], "threads": torch.get_num_threads()},
    )
    print("\nwritten:", ", ".join(f"{path.parent.name}/{path.name}" for path in written))
    return table


if __name__ == "__main__":
    main()
