"""What a run would do and why, without doing it: which finished jobs it would take as they are, which it would compute.

Why: a key that changed says only that something did. Each finished folder holds what it was made from, so what is
planned now can be compared with the closest older result of the same stage and label: its parameters, the code of each
module, package versions, and the inputs. Nothing is written and nothing is thrown away, damaged folders included.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gracelib.jobs.store import DECISIVE, META, Job, versions, with_upstream

NEVER, STOPPED = "never computed", "never finished (a run was stopped in it)"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one job: reused, rerun, or not needed (gone, and nothing that is computed needs it)."""

    job: Job
    fate: str  #: "reused", "rerun", "not needed"
    why: tuple[str, ...] = ()
    seconds: float | None = None  #: of compute, where it or its like ran before

    @property
    def name(self) -> str:
        return f"{self.job.stage.name} {self.job.label}".strip()


def explain(jobs: Iterable[Job], root: Path, others: Iterable[Job] = ()) -> list[Verdict]:
    """What becomes of `jobs` and all they stand on in `root`, inputs before what needs them.

    `others`: jobs of other plans, whose results are no older versions of anything here (with what they stand on).
    """
    wanted = list(jobs)
    plan = {job.key: job for job in with_upstream(wanted)}
    faults = {key: job.fault(root) for key, job in plan.items()}
    needed: set[str] = set()

    def visit(job: Job) -> None:  # as `store.with_upstream`: what a finished job was made from is needed no more
        if job.key not in needed and faults[job.key]:
            needed.add(job.key)
            for upstream in job.inputs.values():
                visit(upstream)

    for job in wanted:
        visit(job)
    metas = {stage: _metas(root, stage) for stage in {plan[key].stage.name for key in needed}}
    foreign = {job.key for job in with_upstream(others)} if needed else set()
    verdicts = []
    for job in plan.values():
        if job.key not in needed:
            verdicts.append(Verdict(job, "not needed" if faults[job.key] else "reused"))
            continue
        finished, old = metas[job.stage.name], None
        if faults[job.key] == "missing":
            old = _before(job, [meta for meta in finished if meta["key"] not in foreign])
        # Another scale's jobs are of another size: only what this plan finished tells how long one takes.
        took = [old["seconds"]] if old else [meta["seconds"] for meta in finished if meta["key"] in plan]
        why = tuple(_reasons(job, old, faults[job.key], root, needed))
        verdicts.append(Verdict(job, "rerun", why, median(took) if took else None))
    return verdicts


def _metas(root: Path, stage: str) -> list[dict]:
    """What the finished folders of a stage record, newest first. A folder whose meta file cannot be read has none."""
    found = []
    for path in sorted(Path(root).glob(f"{stage}/*/{META}"), key=lambda path: -path.stat().st_mtime_ns):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            names = ("label", "key", "params", "code", "modules", "inputs", "versions", "seconds")
            found.append({name: record[name] for name in names})
        except (ValueError, KeyError, TypeError):
            continue  # damaged, and named as such where a planned job has this folder
    return found


def _before(job: Job, finished: list[dict]) -> dict | None:
    """The closest of these results with the job's label, or None."""

    def distance(meta: dict) -> int:
        inputs = sum(meta["inputs"].get(name) != upstream.key for name, upstream in job.inputs.items())
        return len(changes(meta["params"], job.params)) + (meta["code"] != job.stage.code) + inputs

    return min((meta for meta in finished if meta["label"] == job.label), key=distance, default=None)


def _reasons(job: Job, old: dict | None, fault: str, root: Path, needed: set[str]) -> list[str]:
    if fault != "missing":
        return [f"damaged: {fault.removeprefix(job.key).lstrip('/')}"]
    if old is None:
        return [STOPPED if job.folder(root).with_suffix(".part").is_dir() else NEVER]
    found = [f"its parameters changed: {change}" for change in changes(old["params"], job.params)]
    parts, now = job.stage.parts, versions()
    if names := sorted(name for name in {*parts, *old["modules"]} if old["modules"].get(name) != parts.get(name)):
        found.append(f"its code changed: {', '.join(names)}")
    for name in DECISIVE:
        if old["versions"].get(name) != now[name]:
            found.append(f"package {name} {old['versions'].get(name)} -> {now[name]}")
    for name, upstream in job.inputs.items():
        if old["inputs"].get(name) != upstream.key:
            again = "an input is rerun" if upstream.key in needed else "an input is another"
            found.append(f"{again}: {upstream.stage.name} {upstream.label}".strip())
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
    stages = dict.fromkeys(v.job.stage.name for v in verdicts)
    lines = [f"{'stage':<20} {'reused':>6} {'rerun':>6}  why"]
    for stage in stages:
        own = [v for v in verdicts if v.job.stage.name == stage]
        fates, reasons = Counter(v.fate for v in own), Counter()
        for v in own:
            # A job with several reasons counts under all of them; an input is named by its stage.
            reasons["; ".join(dict.fromkeys(_by_stage(why) for why in v.why))] += v.fate == "rerun"
        spare = f"  ({fates['not needed']} gone and not needed)" if fates["not needed"] else ""
        lines.append(f"{stage:<20} {fates['reused']:>6} {fates['rerun']:>6}{spare}")
        lines += [f"{'':<36}{count} x {why}" for why, count in reasons.most_common() if count]
        lines += [f"    {v.fate:<11}{v.job.label or v.job.key}: {'; '.join(v.why)}".rstrip(": ") for v in own if each]
    again = [v for v in verdicts if v.fate == "rerun"]
    known = [v.seconds for v in again if v.seconds is not None]
    lines.append(
        f"{len(again)} of {len(verdicts)} jobs are run"
        + (f": about {in_words(sum(known))} of one core by what such jobs took before" if known else "")
        + (f" ({len(again) - len(known)} of stages that never ran here)" if known and len(known) < len(again) else "")
    )
    return "\n".join(lines)


def in_words(seconds: float) -> str:
    """3725 -> "1 h 02 min"; below an hour minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def _by_stage(why: str) -> str:
    return " ".join(why.split(" ")[:5]) if why.startswith("an input is") else why
