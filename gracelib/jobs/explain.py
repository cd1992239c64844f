"""What a run would do and why, without doing it: which finished jobs it would take as they are, which it would compute.

Why: a key that changed says only that something did. Each finished folder holds what it was made from, so what is
planned now can be compared with the closest older result of the same stage and label: its parameters, the code of each
module, package versions, and the inputs. Nothing is written and nothing is thrown away, damaged folders included.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gracelib.jobs.arithmetic import arithmetic
from gracelib.jobs.store import DECISIVE, META, Job, versions, with_upstream

NEVER, STOPPED = "never computed", "never finished (a run was stopped in it)"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one job: reused, or rerun for the reasons `why`."""

    job: Job
    why: tuple[str, ...]


def explain(jobs: Iterable[Job], root: Path, others: Iterable[Job] = ()) -> list[Verdict]:
    """What becomes of `jobs` in `root` and of all they stand on, inputs before what needs them. (An input that is gone and
    that nothing needs any more is left out.)

    `others`: jobs of other plans, whose results are no older versions of anything here (with what they stand on).
    """
    wanted = list(jobs)
    again = {job.key: job for job in with_upstream(wanted, unfinished_in=root)}
    older = {stage: _metas(root, stage) for stage in {job.stage.name for job in again.values()}}
    foreign = {job.key for job in with_upstream(others)} if again else set()
    verdicts = []
    for job in with_upstream(wanted):
        fault = job.fault(root)
        if job.key in again:
            like = [meta for meta in older[job.stage.name] if meta["key"] not in foreign]
            verdicts.append(Verdict(job, tuple(_reasons(job, fault, like, root, set(again)))))
        elif fault is None:
            verdicts.append(Verdict(job, ()))
    return verdicts


def _metas(root: Path, stage: str) -> list[dict]:
    """What the finished folders of a stage record, newest first. A folder whose meta file cannot be read has none."""
    found = []
    for path in sorted(Path(root).glob(f"{stage}/*/{META}"), key=lambda path: -path.stat().st_mtime_ns):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            names = ("label", "key", "params", "code", "modules", "inputs", "versions")
            found.append({name: record[name] for name in names} | {"arithmetic": record.get("arithmetic", "native")})
        except (ValueError, KeyError, TypeError):
            continue  # damaged, and named as such where a planned job has this folder
    return found


def _before(job: Job, finished: list[dict]) -> dict | None:
    """The closest of these results with the job's label, or None."""

    def distance(meta: dict) -> int:
        inputs = sum(meta["inputs"].get(name) != upstream.key for name, upstream in job.inputs.items())
        return len(changes(meta["params"], job.params)) + (meta["code"] != job.stage.code) + inputs

    return min((meta for meta in finished if meta["label"] == job.label), key=distance, default=None)


def _reasons(job: Job, fault: str, finished: list[dict], root: Path, again: set[str]) -> list[str]:
    if fault != "missing":
        return [f"damaged: {fault.removeprefix(job.key).lstrip('/')}"]
    old = _before(job, finished)
    if old is None:
        return [STOPPED if job.folder(root).with_suffix(".part").is_dir() else NEVER]
    found = [f"its parameters changed: {change}" for change in changes(old["params"], job.params)]
    parts, now = job.stage.parts, versions()
    if names := sorted(name for name in {*parts, *old["modules"]} if old["modules"].get(name) != parts.get(name)):
        found.append(f"its code changed: {', '.join(names)}")
    for name in DECISIVE:
        if old["versions"].get(name) != now[name]:
            found.append(f"package {name} {old['versions'].get(name)} -> {now[name]}")
    if old["arithmetic"] != arithmetic():
        found.append(f"its arithmetic changed: {old['arithmetic']} -> {arithmetic()}")
    for name, upstream in job.inputs.items():
        if old["inputs"].get(name) != upstream.key:
            said = "an input is rerun" if upstream.key in again else "an input is another"
            found.append(f"{said}: {upstream.name}")
    return found or ["its inputs have other names"]


def changes(old, new, where: str = "") -> list[str]:
    """ "lr 0.001 -> 0.002" for each leaf of two JSON values that differ; dicts and lists of one length are gone into."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{where}.{k}".lstrip("."), old.get(k, "(none)"), new.get(k, "(none)")) for k in sorted({*old, *new})]
    elif isinstance(old, list) and isinstance(new, list | tuple) and len(old) == len(new):
        pairs = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [f"{where} {_short(old)} -> {_short(new)}"]
    return [change for place, one, other in pairs for change in changes(one, other, place)]


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def report(verdicts: list[Verdict], each: bool = False) -> str:
    """Lines for a reader: a stage with its counts, below it each distinct reason with its count; `each`: every job."""
    lines = [f"{'stage':<20} {'reused':>6} {'rerun':>6}  why"]
    for stage in dict.fromkeys(verdict.job.stage.name for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.job.stage.name == stage]
        # A job with several reasons counts under all of them; an input is named by its stage.
        reasons = Counter("; ".join(dict.fromkeys(map(_by_stage, verdict.why))) for verdict in own if verdict.why)
        lines.append(f"{stage:<20} {len(own) - reasons.total():>6} {reasons.total():>6}")
        lines += [f"{'':<36}{count} x {why}" for why, count in reasons.most_common()]
        for verdict in own if each else ():
            fate = f"rerun: {'; '.join(verdict.why)}" if verdict.why else "reused"
            lines.append(f"    {verdict.job.label or verdict.job.key}: {fate}")
    n_again = sum(bool(verdict.why) for verdict in verdicts)
    return "\n".join([*lines, f"{n_again} of {len(verdicts)} jobs are run"])


def in_words(seconds: float) -> str:
    """3725 -> "1 h 02 min"; below an hour minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def _by_stage(why: str) -> str:
    return " ".join(why.split(" ")[:5]) if why.startswith("an input is") else why
