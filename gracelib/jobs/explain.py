"""What a run would do and why, without doing it: which finished jobs it would take as they are, which it would compute.

Why: a key that changed says only that something did. Each finished folder holds what it was made from, so what is
planned now can be compared with the closest older result of the same stage and label: its parameters, the code of each
module, package versions, and the inputs. Nothing is written and nothing is thrown away, damaged folders included.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

from gracelib.jobs import notebooks, paths
from gracelib.jobs.store import DECISIVE, META, Job, file_hash, versions, with_upstream

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


class Finished:
    """The meta files of a runs folder: what is there, and what older results of a stage were made from."""

    def __init__(self, root: Path, others: Iterable[Job] = ()):
        self.root, self._faults = Path(root), {}
        self._of_others = {job.key for job in others}

    def fault(self, job: Job) -> str | None:
        """None for a result that is there and whole; else "missing" or what is damaged in it."""
        if job.key not in self._faults:
            self._faults[job.key] = job.fault(self.root)
        return self._faults[job.key]

    @cached_property
    def metas(self) -> dict[str, list[dict]]:
        """Stage -> what its finished folders record, newest first. A folder whose meta file cannot be read has none."""
        found = defaultdict(list)
        newest = sorted(self.root.glob(f"*/*/{META}"), key=lambda path: -path.stat().st_mtime_ns)
        for path in newest:
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                found[path.parent.parent.name].append(
                    {key: record[key] for key in ("label", "key", "params", "code", "inputs", "versions", "seconds")}
                    | {"modules": record.get("modules", {})}
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # damaged, and named as such where a planned job has this folder
        return found

    def before(self, job: Job) -> dict | None:
        """The closest older result of the same stage and label, or None."""
        like = [m for m in self.metas[job.stage.name] if m["label"] == job.label and m["key"] not in self._of_others]
        return min(
            like,
            key=lambda m: (
                len(_flat_changes(m["params"], job.params))
                + (m["code"] != job.stage.code)
                + sum(m["inputs"].get(k) != up.key for k, up in job.inputs.items())
            ),
            default=None,
        )

    def seconds(self, stage: str, old: dict | None, plan: set[str]) -> float | None:
        """What a job took before; else the median of its stage's finished jobs in this plan (another scale's are of
        another size); else None."""
        took = [m["seconds"] for m in self.metas[stage] if m["key"] in plan]
        return old["seconds"] if old else median(took) if took else None


def explain(jobs: Iterable[Job], root: Path, others: Iterable[Job] = ()) -> list[Verdict]:
    """What becomes of `jobs` and all they stand on in `root`, inputs before what needs them.

    `others`: jobs of other plans, whose results are no older versions of anything here (with what they stand on).
    """
    wanted, finished = list(jobs), Finished(root, with_upstream(others))
    needed: dict[str, Job] = {}

    def visit(job: Job) -> None:  # as `store.with_upstream`: what a finished job was made from is needed no more
        if job.key not in needed and finished.fault(job):
            for upstream in job.inputs.values():
                visit(upstream)
            needed[job.key] = job

    for job in wanted:
        visit(job)
    verdicts, plan = [], {job.key: job for job in with_upstream(wanted)}
    for job in plan.values():
        if finished.fault(job) is None:
            verdicts.append(Verdict(job, "reused"))
        elif job.key not in needed:
            verdicts.append(Verdict(job, "not needed"))
        else:
            old = finished.before(job) if finished.fault(job) == "missing" else None
            verdicts.append(
                Verdict(
                    job,
                    "rerun",
                    tuple(_reasons(job, old, finished, needed)),
                    finished.seconds(job.stage.name, old, set(plan)),
                )
            )
    return verdicts


def _reasons(job: Job, old: dict | None, finished: Finished, needed: dict[str, Job]) -> list[str]:
    if (fault := finished.fault(job)) != "missing":
        return [f"damaged: {fault.partition('/')[2] or fault}"]
    if old is None:
        return [STOPPED if job.folder(finished.root).with_suffix(".part").is_dir() else NEVER]
    found = [f"its parameters changed: {change}" for change in _flat_changes(old["params"], job.params)]
    if old["code"] != job.stage.code:
        parts = job.stage.parts
        names = sorted(name for name in {*parts, *old["modules"]} if old["modules"].get(name) != parts.get(name))
        found += [f"its code changed: {', '.join(names) if old['modules'] else 'of which module is not recorded'}"]
    now = versions()
    found += [
        f"package {name} {old['versions'].get(name)} -> {now[name]}"
        for name in DECISIVE
        if old["versions"].get(name) != now[name]
    ]
    for name, upstream in job.inputs.items():
        if old["inputs"].get(name) != upstream.key:
            again = "an input is rerun" if upstream.key in needed else "an input is another"
            found.append(f"{again}: {upstream.stage.name} {upstream.label}".strip())
    return found or ["its inputs have other names"]


def _flat_changes(old, new, where: str = "") -> list[str]:
    """ "lr 0.001 -> 0.002" for each leaf of two JSON values that differ; dicts and lists of one length are gone into."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            c
            for k in sorted({*old, *new})
            for c in _flat_changes(old.get(k, "(none)"), new.get(k, "(none)"), f"{where}.{k}".lstrip("."))
        ]
    new = list(new) if isinstance(new, tuple) else new
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [c for i, pair in enumerate(zip(old, new, strict=True)) for c in _flat_changes(*pair, f"{where}[{i}]")]
    return [] if old == new else [f"{where} {_short(old)} -> {_short(new)}"]


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


def explain_notebooks(scale: str, recompute: bool = True) -> list[tuple[str, list[str]]]:
    """Each numbered notebook with the reasons why `notebooks.run` would execute it; none where it is up to date."""
    dial, found = {"scale": scale, "recompute": recompute}, []
    for one in notebooks.planned_executions(scale, recompute, notebooks.numbered(), dial):
        why = one.outdated(paths.figures(scale))
        found.append((one.notebook.stem, (_notebook_reasons(one, paths.figures(scale)) or [why]) if why else []))
    return found


def _notebook_reasons(one, figures: Path) -> list[str]:
    try:
        record = json.loads(one.out.with_suffix(".json").read_text(encoding="utf-8"))
        old, wrote = record.get("made_from", {}), record["wrote"]
        if not one.out.is_file():
            return ["its executed copy is gone"]
        if record["key"] == one.key:
            return [
                f"{name} is not what it wrote"
                for name, hashed in wrote.items()
                if not ((figures / name).is_file() and file_hash(figures / name) == hashed)
            ]
    except FileNotFoundError:
        return ["never executed"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ["its stamp cannot be read"]
    if not old:
        return ["something changed; what, its stamp does not record"]
    now, found = json.loads(json.dumps(one.made_from)), []
    if old["cells"] != now["cells"]:
        found.append("its cells changed")
    for what, said in (("code", "gracelib's code changed"), ("data", "data changed"), ("tables", "tables changed")):
        names = sorted(n for n in {*old[what], *now[what]} if old[what].get(n) != now[what].get(n))
        found += [f"{said}: {', '.join(names)}"] * bool(names)
    found += [f"its parameters changed: {change}" for change in _flat_changes(old["parameters"], now["parameters"])]
    found += [f"setting {change}" for change in _flat_changes(old["settings"], now["settings"])]
    found += [f"package {change.replace(chr(34), '')}" for change in _flat_changes(old["versions"], now["versions"])]
    return found or ["a notebook before it is executed"]
