"""What `make figures` and `make recompute` decide before they start: which scale is drawn, trained or only tabulated.

Why two commands: at `mini` everything is trained in minutes, so drawing starts from nothing. At `lab` that takes hours,
so its result tables are committed, `figures` draws from them and trains nothing, and only `recompute` trains: part by
part, the cells that carry the argument first; a part that was stopped goes on where it was.
"""

import functools
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gracelib.checks import check_choice
from gracelib.experiment import extras, measurements, stages, tables
from gracelib.experiment.plan import PaperPlan, plans_of
from gracelib.experiment.reference import beside_published
from gracelib.experiment.scales import BESIDE, REDRAWN, SCALES, TABLES_ONLY, command_for, get_scale
from gracelib.experiment.tables import TABLES
from gracelib.jobs import notebooks, paths
from gracelib.jobs.explain import Verdict, in_words
from gracelib.jobs.explain import explain as explain_jobs
from gracelib.jobs.running import executor_of_run, run_jobs
from gracelib.jobs.store import Job, with_upstream
from gracelib.jobs.workers import n_workers
from gracelib.paper.cost import Assumptions
from gracelib.paper.figures import registered
from gracelib.paper.models import check_access
from gracelib.scale import PaperScale, Scale

#: What SCALE=paper computes. What notebooks need beside them (ablation grids, filtered students, absurd teachers) is not
#: run there.
PAPER_TABLES = ("cast", "teachers", "base_students", "features", "scores", "students")


def figures(
    scale: str, recompute: bool | None = None, names: Sequence[str] = (), parameters: dict | None = None
) -> list[Path]:
    """Run the notebooks of a scale, or only those that make the figures `names`; where those figures lie.

    `recompute` None: train what is not there, except at scales that take hours and for single figures, which are drawn
    from the result tables. ValueError for a scale without figures, FileNotFoundError where there are no tables to draw
    from, both naming the command that makes them.
    """
    get_scale(scale)
    if scale in TABLES_ONLY:
        raise ValueError(
            f"scale {scale!r} has result tables and no figures of its own; `{command_for(scale)}` makes them"
        )
    if recompute is None:
        recompute = not names and scale not in REDRAWN
    if not recompute:
        tables.check(scale)
    chosen = None
    if names:
        chosen = [paths.NOTEBOOKS / f"{stem}.ipynb" for stem in sorted({registered(name).notebook for name in names})]
    before = functools.partial(_models, get_scale(scale)) if recompute and not names else None
    notebooks.run(scale, recompute, chosen, parameters, before)
    for one in (scale, *BESIDE.get(scale, ())) if before else ():
        if said := beside_published(one):
            print(said, file=sys.stderr)
    return [paths.figures(scale) / f"{name}{'.png' if registered(name).picture else '.csv'}" for name in names]


def parts(scale: str) -> dict[str, Callable[[], object]]:
    """The pieces of a full run in the order in which they are run, by name.

    "teachers" trains the cast and samples every task; one piece a task and student then takes gradients and distils;
    "extra" adds the students of the ablations. Those of other objectives, of more epochs, of more prompts and of other seeds
    ("objectives", "epochs", "small_sample", "repeats") are made at lab only where they are named, and so are at every
    scale further seeds of other objectives ("seeds"). "figures" runs the notebooks, which score, collect the tables and draw; a
    scale of `TABLES_ONLY` has "tables" in its place.
    """

    def tabulate(part: str) -> None:
        # Which filtered students there can be is known only once the filter has run: "extra" goes through the tables.
        for name in tables.names(scale, asked=True):
            if TABLES[name].part == part:
                tables.table(scale, name)

    asked = {table.part for table in TABLES.values() if table.asked_at}
    last = {
        **{part: functools.partial(tabulate, part) for part in ("extra", *asked)},
        "figures": lambda: figures(scale, recompute=True),
        "tables": lambda: [tables.table(scale, name) for name in tables.names(scale)],
    }
    found = jobs(get_scale(scale), asked=True)
    return {
        name: last.get(
            name,
            functools.partial(run_jobs, own, paths.runs(), name.replace("-", " task, ") + " student" * ("-" in name)),
        )
        for name, own in found.items()
    }


def jobs(config: Scale, asked: bool = False) -> dict[str, list[Job]]:
    """Every job that the tables of a scale ask for, by `parts`: none that an unfinished one merely needs on the way.
    With `asked` also those of tables that are made only where their part is named.

    Of the filtered students only the filters are in it: which students there can be is known once these have run.
    """
    plans, found = plans_of(config), {}
    for name in tables.names(config.name, asked):
        for key, own in TABLES[name].jobs(plans).items():
            part = f"{key[0]}-{key[1]}" if TABLES[name].part == "cells" else TABLES[name].part
            found.setdefault(part, {}).update({job.key: job for job in own})
    if config.name in TABLES_ONLY:
        found["tables"] = found.pop("figures", {})
    return {part: [*own.values()] for part, own in found.items()}


def publish_bases(scale: str) -> None:
    """Copy the finished base models of a scale to what is committed: a clone with this code and these versions takes them
    from there (`store.FROM_SCRATCH`), which saves it a quarter of a run of mini."""
    shutil.rmtree(paths.published("jobs"), ignore_errors=True)
    for job in with_upstream(planned(get_scale(scale))):
        if job.stage is stages.PRETRAIN:
            shutil.copytree(job.folder(paths.runs()), job.folder(paths.published("jobs")))


def _models(config: Scale) -> None:
    """Everything that takes a model, and what scores the features, in two goes: workers that load torch once and not once
    a notebook, and no notebook that ends with one core at work. The notebooks then find their jobs finished; opened by
    hand, each does its own. Scales that are run beside it (`BESIDE`) are in the same goes, and get their tables."""
    found = planned(config)
    scored = [job for job in found if job.stage in measurements.STAGES]
    with executor_of_run(n_workers()) as pool:
        models = [job for job in found if job.stage not in measurements.STAGES]
        run_jobs(models, paths.runs(), f"{config.name}: models and gradients", pool)
        # Which filtered students there can be is known only now; the scores of the ablations fill the cores beside them.
        students = _filtered_students(config)
        run_jobs([*students, *scored], paths.runs(), f"{config.name}: filtered students, ablations", pool)
    for other in BESIDE.get(config.name, ()):
        for name in tables.names(other):
            tables.table(other, name)


def _filtered_students(config: Scale) -> list[Job]:
    return [job for own in extras.possible_students(plans_of(config)).values() for job in own]


def recompute(scale: str, only: Sequence[str] = ()) -> float:
    """Train, score, distil and draw everything of a scale that is not finished; the seconds it took.

    `only` names `parts`; all of them by default where they are worth naming (hours), else "figures", which includes the
    others. ValueError for an unknown scale or part.
    """
    found = parts(scale)
    n_workers()  # a bad GRACELIB_WORKERS is refused now
    planned(get_scale(scale), only)  # an unknown part is refused
    chosen = [name for name in found if name in only]
    if not only:
        chosen = list(jobs(get_scale(scale))) if scale in (*REDRAWN, *TABLES_ONLY) else ["figures"]
    started = time.perf_counter()
    for i, name in enumerate(chosen, 1):
        before = time.perf_counter()
        print(f"{scale}: part {name} ({i} of {len(chosen)})", file=sys.stderr)
        found[name]()
        print(f"{scale}: part {name} is finished, {in_words(time.perf_counter() - before)}", file=sys.stderr)
    return time.perf_counter() - started


def planned(config: Scale, parts: Sequence[str] = ()) -> list[Job]:
    """The jobs that a scale and those run beside it ask for, or some `parts` of it. ValueError for an unknown part."""
    found = jobs(config, asked=bool(parts))
    for part in parts:
        check_choice(f"part (of scale {config.name})", part, found)
    beside = [job for name in BESIDE.get(config.name, ()) for job in planned(get_scale(name))]
    return [job for name, own in found.items() if not parts or name in parts for job in own] + beside * (not parts)


def explain(scale: str, parts: Sequence[str] = (), recompute: bool = True) -> list[Verdict]:
    """What a run would do with every job of a scale (or of some parts), inputs before what needs them; without `parts`
    the notebooks come last, of a run that trains or (`recompute` False) redraws.

    Filtered students are in it as far as their filters have run: before, nobody knows which there can be. ValueError
    for an unknown scale or part.
    """
    config = get_scale(scale)
    wanted = planned(config, parts)
    if "filtered" in tables.names(scale) and (not parts or {"extra", "figures"} & set(parts)):
        wanted += _filtered_students(config)
    if scale not in TABLES_ONLY and not parts:
        wanted += notebooks.planned(scale, recompute)
    return explain_jobs(wanted, paths.runs(), (job for other in SCALES.values() for job in planned(other)))


# --- the paper's own experiment -------------------------------------------------------------------------------


def run_paper(scale: PaperScale, *, drop_weights: bool = False, assumptions: Assumptions = Assumptions()) -> list[Path]:
    """Finish every cell of the scale, then write its tables; their paths.

    Finished work is reused. `drop_weights` removes each trained student once it is measured. A scale restricted to
    some cells (`settings.only`) writes tables of those cells. Here one cell runs after the other (a machine with more GPUs
    runs the same command several times, each with other CUDA_VISIBLE_DEVICES and another part of the cells); an executor of
    several machines (GRACELIB_EXECUTOR) runs as many at once as it has room for. ValueError for what can be known before any
    compute: an engine that is not installed, a model or local data set that cannot be had.
    """
    if scale.backend == "vllm":
        from gracelib.models.vllm_engine import version

        version()
    for task in scale.tasks:
        if task.source and not Path(task.source).exists() and task.source.count("/") != 1:
            raise ValueError(
                f"{task.title}: {task.source} is neither there nor a hub id; correct [tasks] {task.dataset}"
            )
    check_access(scale.models())
    root, plans = paths.runs(), [PaperPlan(scale, task.name, assumptions) for task in scale.tasks]
    prompts = [
        job for plan in plans for job in (plan.train_prompts, plan.test_prompts)
    ]  # first: data that is not there
    drop = [job for plan in plans for job in plan.distilled.values()] if drop_weights else ()
    jobs = [*prompts, *(job for plan in plans for job in plan.jobs())]
    with executor_of_run(1, kept=False) as pool:
        run_jobs(jobs, root, scale.name, pool, drop)
    return [tables.write(scale.name, name, tables.collect(plans, name)) for name in PAPER_TABLES]
