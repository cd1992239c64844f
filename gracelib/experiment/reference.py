"""What a run is told at its end: its numbers beside the published ones."""

import json

import pandas as pd

from gracelib.experiment import tables
from gracelib.jobs import paths

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
    ours, theirs = (_made_with(folder) for folder in (own, published))
    changed = [f"{name} {theirs.get(name)} -> {now}" for name, now in ours.items() if theirs.get(name) != now]
    lines.append(
        f"published -> yours: {', '.join(changed) or 'arithmetic and versions are the same: please report this'}"
    )
    shown = [pd.read_csv(folder.parent / "table_main.csv") for folder in (own, published)]
    shown = [table[(table.setting == table.setting[0]) & table.cells_used.eq("all families")] for table in shown]
    both = shown[0].merge(shown[1], on="label", suffixes=("", " published"))
    columns = ["spearman", "spearman published", "regret_points", "regret_points published"]
    lines += [both.setting[0], both.set_index("label")[columns].round(2).to_string()]
    return "\n".join(lines)


def _numbers(path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.drop(columns=list(table.columns[table.columns.str.contains(MEASURED)]))


def _made_with(folder) -> dict[str, str]:
    record = json.loads((folder / tables.MADE_WITH).read_text(encoding="utf-8"))
    return {"arithmetic": record["arithmetic"]} | {f"package {name}": v for name, v in record["versions"].items()}
