"""What `bench` measured, in words and a picture; torch is not needed to read it.

Why ratios: seconds on somebody's machine mean little; the ratio to the floor (one forward and backward pass over the
same tokens, and one dense matrix product), measured in the same process with the same threads, means the same anywhere.
"""

import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from gracelib.drawing.saving import json_ready, picture_writers
from gracelib.drawing.style import DOUBLE, EDGE, entry, frame, styled
from gracelib.jobs.store import file_hash, versions, write_atomically

#: One row per setting and method. parameters is D, responses n m; seconds: median of `repeats` runs, for all responses
#: (from `responses_run` of them, where extrapolated); peak_mib: main memory beyond the student and the libraries.
COLUMNS = (
    "panels",
    "parameters",
    "responses",
    "tokens",
    "d",
    "method",
    "seconds",
    "lowest",
    "highest",
    "ms_per_response",
    "times_floor",
    "times_ours",
    "peak_mib",
    "repeats",
    "responses_run",
    "extrapolated",
    "batch",
    "threads",
    "note",
)
SETTING = ["parameters", "responses", "d"]
OURS, PAPER, DATTRI = "ours", "the paper's way (traker)", "dattri's projector"
BARE = "ours, gradients alone"  # without what `features.record` takes down
CAREFUL, STACKED = "careful user: kept signs, batch 1", "careful user: kept signs, 32 stacked"
PASSES, BACKWARD, PRODUCT = "forward + backward", "backward only", "one matrix product"
FLOOR = "floor: forward + backward + product"
_LOOKS = {
    OURS: {"color": "#0173b2", "marker": "o", "linestyle": "-"},
    FLOOR: {"color": "#222222", "marker": "s", "linestyle": (0, (4, 2))},
    PASSES: {"color": "#949494", "marker": "D", "linestyle": ":"},
    PAPER: {"color": "#d55e00", "marker": "v", "linestyle": "-"},
    DATTRI: {"color": "#cc78bc", "marker": "P", "linestyle": "-"},
    CAREFUL: {"color": "#de8f05", "marker": "X", "linestyle": "-"},
    STACKED: {"color": "#029e73", "marker": "^", "linestyle": "-"},
}
_AXES = (
    ("D", "parameters", "parameters $D$", "$D$"),
    ("n", "responses", "responses $n\\,m$", "$n\\,m$"),
    ("d", "d", "rows of $\\Pi$, $d$", "$d$"),
)


def with_ratios(rows: list[dict]) -> pd.DataFrame:
    """The table of COLUMNS from measured rows: adds ms_per_response, times_floor and times_ours; NaN where unmeasured."""
    table = pd.DataFrame(rows)
    table["ms_per_response"] = 1000 * table["seconds"] / table["responses"]
    for column, base in (("times_floor", FLOOR), ("times_ours", OURS)):
        seconds = table[table["method"] == base].set_index(SETTING)["seconds"]
        table[column] = table["seconds"] / seconds.reindex(pd.MultiIndex.from_frame(table[SETTING])).to_numpy()
    return table[list(COLUMNS)]


def text(table: pd.DataFrame) -> str:
    """The table for a terminal, a block a setting."""
    shown = ["method", "seconds", "ms_per_response", "times_floor", "times_ours", "peak_mib", "repeats", "note"]
    blocks = []
    for (size, n, d), own in table.groupby(SETTING, sort=False):
        tokens, threads, batch = own.iloc[0][["tokens", "threads", "batch"]]
        blocks.append(
            f"D = {size:,}, {n} responses of about {tokens} tokens, d = {d}, {threads} threads (forward + backward in "
            f"batches of {batch})\n{own[shown].to_string(index=False, float_format='{:.4g}'.format, na_rep='-')}\n"
        )
    return "\n".join(blocks)


def figure(table: pd.DataFrame) -> Figure:
    """Milliseconds a response against D, against n m and against d, one panel each; hollow marks are extrapolated."""
    present = [m for m in _LOOKS if table[table["method"] == m]["seconds"].notna().any()]
    with styled():
        handles = [entry(m, **_LOOKS[m]) for m in present]
        if (table["extrapolated"].astype(bool) & table["seconds"].notna()).any():
            handles.append(entry("from fewer responses", color="white", marker="o"))
        fig, axes = frame(
            DOUBLE,
            2.3,
            [handles],
            f"median of up to {table['repeats'].max()} runs, {table['threads'].iloc[0]} threads, "
            f"responses of about {table['tokens'].iloc[0]} tokens",
            (1, 1, 1),
            True,
            3,
        )
        for ax, (panel, column, label, _) in zip(axes, _AXES, strict=True):
            rows = table[table["panels"].str.contains(panel) & table["seconds"].notna()]
            for method in present:
                own, look = rows[rows["method"] == method].sort_values(column), _LOOKS[method]
                ax.plot(own[column], own["ms_per_response"], **(look | {"marker": ""}), linewidth=1.1, zorder=2)
                for is_hollow, part in own.groupby(own["extrapolated"].astype(bool)):
                    ax.plot(
                        part[column],
                        part["ms_per_response"],
                        linestyle="none",
                        marker=look["marker"],
                        markersize=4.5,
                        markeredgecolor=look["color"] if is_hollow else EDGE,
                        markeredgewidth=0.9 if is_hollow else 0.5,
                        color="white" if is_hollow else look["color"],
                        zorder=3,
                    )
            fixed = [
                f"{symbol} = {rows[c].iloc[0]:,}" for _, c, _, symbol in _AXES if c != column and rows[c].nunique() == 1
            ]
            ax.set(xscale="log", yscale="log", xlabel=label, title=", ".join(fixed))
            if panel != "D":
                values = sorted(rows[column].unique())
                ax.set_xticks(values, map(str, values))
            ax.minorticks_off()
        axes[0].set_ylabel("ms per response")
    return fig


def save(table: pd.DataFrame, folder: Path, name: str, parameters: dict) -> list[Path]:
    """`folder/name` .csv, .svg, .png and last the .json sidecar; the paths, in that order."""
    title, written = "Time of the features, beside other ways and the floor", []
    writers = {
        ".csv": lambda part: table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n"),
        **picture_writers(figure(table), name, title),
    }
    for ending, write in writers.items():
        written.append(folder / f"{name}{ending}")
        write_atomically(written[-1], write)
    record = {
        "name": name,
        "title": title,
        "made_by": "make bench",
        "volatile": "seconds and memory: another machine, and another run, differ; ratios less so",
        "parameters": parameters,
        "versions": versions(),
        "files": {path.name: file_hash(path) for path in written},
    }
    path = folder / f"{name}.json"
    dumped = json.dumps(json_ready(record), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(dumped, encoding="utf-8"))
    return [*written, path]
