"""What a run is told at its end: its numbers beside the published ones."""

import json
from pathlib import Path

import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence.cells import MAIN_SCORES
from gracelib.evidence.ranks import regret, spearman
from gracelib.experiment import tables
from gracelib.experiment.scales import SCALES, TABLES_ONLY
from gracelib.jobs import paths
from gracelib.jobs.arithmetic import arithmetic
from gracelib.jobs.store import DECISIVE, versions

MEASURED = "seconds|peak"  #: columns that no two runs share


def beside_published(scale: str) -> str:
    """Which result tables of this run are the published ones to the last digit; if some are not, why, and the main table's
    headline numbers of both. Empty where nothing is published, or the run's own folder is the published one."""
    own, published = paths.results(scale), paths.published(scale) / "results"
    names = [name for name in tables.names(scale) if (published / f"{name}.csv").is_file()]
    if not names or own.resolve() == published.resolve():
        return ""
    other = [name for name in names if not _numbers(own / f"{name}.csv").equals(_numbers(published / f"{name}.csv"))]
    if not other:
        return f"{scale}: all {len(names)} result tables are the published ones, to the last digit"
    lines = [f"{scale}: {len(other)} of {len(names)} result tables differ from the published ones: {', '.join(other)}"]
    changed = ", ".join(changed_since(published))
    lines.append(f"published -> yours: {changed or 'arithmetic and versions are the same: please report this'}")
    if scale in TABLES_ONLY:
        return "\n".join(lines)
    shown = [pd.read_csv(folder.parent / "table_main.csv") for folder in (own, published)]
    shown = [table[(table.setting == table.setting[0]) & table.cells_used.eq("all families")] for table in shown]
    both, seeds = shown[0].merge(shown[1], on="score", suffixes=("", " published")), over_seeds(scale)
    columns = ["spearman", "spearman published", "regret_points", "regret_points published"]
    if len(seeds):  # another rounding trains other models, as another seed does
        both = both.merge(seeds, on="score")
        columns += [f"{what} {end}" for what in ("spearman", "regret_points") for end in ("least", "most")]
    lines += [both.setting[0], both.set_index("label")[columns].round(2).to_string()]
    return "\n".join(lines)


def over_seeds(scale: str) -> pd.DataFrame:
    """Per score of the main table the least and the greatest signed Spearman and regret (points) over the runs of the
    scale's cast from other seeds, the published ones where you made none; columns score, "spearman least" and so on. No
    rows where there are none.
    """
    found = []
    for one in (name for name in SCALES if name.startswith(f"{scale}-seed")):
        if (paths.tables(one) / "students.csv").is_file():
            rows = tables.cells(one)
            for score in MAIN_SCORES:
                pair = rows[score], rows["average_at_k"], SCORES[score].direction
                found.append((score, spearman(*pair), regret(*pair)))
    table = pd.DataFrame(found, columns=["score", "spearman", "regret_points"]).groupby("score", sort=False)
    least, most = table.min().add_suffix(" least"), table.max().add_suffix(" most")
    return least.join(most).reset_index()


def _numbers(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    return table.drop(columns=list(table.columns[table.columns.str.contains(MEASURED)]))


def changed_since(results: Path) -> list[str]:
    """What decides bits and is another now than when the tables of a folder were made: "torch 2.12.0 -> 2.13.0". Tables of
    "native" arithmetic have the bits of one kind of processor, which is not known to be this one."""
    then = json.loads((results / tables.MADE_WITH).read_text(encoding="utf-8"))
    before = {"arithmetic": then["arithmetic"], **then["versions"]}
    now = {"arithmetic": arithmetic()} | {name: versions()[name] for name in DECISIVE}
    native = ["arithmetic native"] if arithmetic() == before["arithmetic"] == "native" else []
    return native + [
        f"{name} {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value
    ]
