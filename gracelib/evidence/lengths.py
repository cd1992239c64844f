"""Gradient norm against response length as numbers: within teachers, between them, and over all responses.

Why the split: GRACE multiplies a gradient by log|y| because long responses have small gradients, the loss being a mean
over tokens. But teachers differ in length *and* in much else, so a curve through all responses mixes two things. Within
a teacher only the length (and what goes with it, such as the number of steps) changes; between teachers the manner
does too. Each number below says which of the two it is about. Teachers weigh alike, temperatures are put together, and
intervals resample teachers.
"""

import numpy as np
import pandas as pd

from gracelib.evidence import ranks
from gracelib.evidence.ranks import percentiles

POWERS = (0, 1, 2)
PRODUCTS = {0: "mean_norm", 1: "mean_norm_log", 2: "mean_norm_log2"}  #: columns of the table `lengths`
LEAST = 0.01  #: bins with a smaller share of a teacher's responses are left out
STEPS_AN_OCTAVE = 8  #: width of the bins of relative length in `profiles`


def teacher_bins(lengths: pd.DataFrame, student: str, task: str) -> pd.DataFrame:
    """One row a (teacher, bin), temperatures put together: bin_low, count, weight, mean_length and the mean products.

    `lengths` as the table `lengths`. `weight` is the share of the teacher's responses (1 a teacher). Left out:
    responses of one token (log|y| = 0) and bins with less than 1% of a teacher's responses. ValueError for a task or
    student that is not there.
    """
    own = lengths[(lengths["task"] == task) & (lengths["student"] == student)]
    if own.empty:
        there = sorted({f"{t} / {s}" for t, s in zip(lengths["task"], lengths["student"], strict=True)})
        raise ValueError(f"no lengths of task {task!r}, student {student!r}: choose one of {', '.join(there)}")
    columns = ["mean_length", *PRODUCTS.values()]
    sums = own[columns].multiply(own["count"], axis=0).assign(count=own["count"])
    bins = sums.groupby([own["teacher"], own["bin_low"]]).sum()
    bins[columns] = bins[columns].div(bins["count"], axis=0)
    bins = bins[bins.index.get_level_values("bin_low") >= 2]
    share = bins["count"] / bins.groupby("teacher")["count"].transform("sum")
    bins = bins[share >= LEAST]
    if bins.empty:
        raise ValueError(f"task {task!r}, student {student!r}: every response has one token, and log 1 = 0")
    return bins.assign(weight=bins["count"] / bins.groupby("teacher")["count"].transform("sum")).reset_index()


def length_relation(bins: pd.DataFrame) -> pd.DataFrame:
    """How the norm follows the length within teachers, between them and over all: one row a level.

    `bins` from `teacher_bins`. Columns: level; exponent q of norm ~ (log|y|)^-q (least squares of log norm on log
    log|y|) with its 95% interval low, high over teachers; explained (the share of the level's variance of log norm that
    this line explains); spread_0, spread_1, spread_2 (standard deviation of log(norm x (log|y|)^p); 0 is flat; squares
    of "within" and "between" add up to those of "all"); flattest (the power with the least spread) and flattest_share
    (of the resamples of teachers, how many agree); teachers, bins. NaN (flattest: -1) where lengths do not vary.
    """
    part, draws = _sums(bins), _resamples(bins["teacher"].nunique())
    rows = []
    for level in ("within", "between", "all"):
        point, drawn = _level(part, np.ones((1, draws.shape[1])), level), _level(part, draws, level)
        several = draws.shape[1] > 1
        low, high = percentiles(drawn["exponent"]) if several else (np.nan, np.nan)
        flattest = int(point["spread"][0].argmin()) if np.isfinite(point["exponent"][0]) else -1
        agree = float((drawn["spread"].argmin(1) == flattest).mean()) if several and flattest >= 0 else np.nan
        rows.append(
            {
                "level": level,
                "exponent": point["exponent"][0],
                "low": low,
                "high": high,
                "explained": point["explained"][0],
            }
            | {f"spread_{p}": point["spread"][0, i] for i, p in enumerate(POWERS)}
            | {"flattest": flattest, "flattest_share": agree, "teachers": draws.shape[1], "bins": len(bins)}
        )
    return pd.DataFrame(rows)


def _sums(bins: pd.DataFrame) -> dict[str, tuple[np.ndarray, ...]]:
    """Weighted means and within-teacher second moments of x = log log|y|, y = log norm and log products, by teacher."""
    w, code = bins["weight"].to_numpy(), pd.factorize(bins["teacher"], sort=True)[0]
    values = np.column_stack(
        [np.log(np.log(bins["mean_length"])), *(np.log(bins[c]) for c in PRODUCTS.values())]
    )  # (b, 4)

    def total(column: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(code, c) for c in column.T], axis=1)  # (teachers, columns)

    mean = total(w[:, None] * values)
    centred = values - mean[code]
    centred[np.abs(centred) < 1e-12] = 0.0  # rounding is not a spread
    return {
        "mean": mean,
        "square": total(w[:, None] * centred**2),
        "cross": total(w[:, None] * (centred[:, :1] * centred)),  # x with x, y and the products
    }


def _resamples(teachers: int) -> np.ndarray:
    """How often each teacher is in each resample, (N_BOOT, teachers); drawn as counts, so not the draws of `ranks`."""
    return np.random.default_rng(ranks.SEED).multinomial(teachers, np.full(teachers, 1 / teachers), size=ranks.N_BOOT)


def _level(part: dict, draws: np.ndarray, level: str) -> dict[str, np.ndarray]:
    """Exponent, explained share and spreads of one level for each row of `draws`."""
    k = draws.sum(1, keepdims=True)
    square, cross = (np.zeros((len(draws), part["mean"].shape[1])) for _ in range(2))
    if level in ("within", "all"):
        square, cross = square + draws @ part["square"] / k, cross + draws @ part["cross"] / k
    if level in ("between", "all"):
        offset = part["mean"] - part["mean"].mean(0)  # (teachers, 4): close to zero, so that squares lose no digits
        mean = draws @ offset / k
        square = square + np.maximum(draws @ offset**2 / k - mean**2, 0)
        cross = cross + draws @ (offset[:, :1] * offset) / k - mean[:, :1] * mean
    xx, yy = (np.where(square[:, i] > 1e-12, square[:, i], np.nan) for i in (0, 1))  # NaN: it does not vary
    xy = cross[:, 1]
    return {"exponent": -xy / xx, "explained": xy**2 / (xx * yy), "spread": np.sqrt(square[:, 1:])}


def pooled(bins: pd.DataFrame) -> pd.DataFrame:
    """One row a bin: length and norm averaged over all responses, with a 95% band over teachers (NaN for one teacher)."""
    columns = ["count", "mean_length", "mean_norm"]
    long = bins.assign(mean_length=bins["mean_length"] * bins["count"], mean_norm=bins["mean_norm"] * bins["count"])
    wide = {c: long.pivot(index="teacher", columns="bin_low", values=c).fillna(0) for c in columns}  # (teachers, bins)
    count = wide["count"].sum()
    low, high = _band(wide["mean_norm"].to_numpy(), wide["count"].to_numpy())
    return pd.DataFrame(
        {
            "count": count,
            "mean_length": wide["mean_length"].sum() / count,
            "mean_norm": wide["mean_norm"].sum() / count,
            "low": low,
            "high": high,
        }
    ).reset_index()


def _band(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """95% interval over teachers of sum(values) / sum(weights) in each bin, (2, bins); both are (teachers, bins)."""
    if len(values) < 2:
        return np.full((2, values.shape[1]), np.nan)
    draws = _resamples(len(values))
    with np.errstate(invalid="ignore", divide="ignore"):  # a bin that no drawn teacher has
        return percentiles((draws @ values) / (draws @ weights))


def profiles(bins: pd.DataFrame) -> pd.DataFrame:
    """norm x (log|y|)^p against length, both over the teacher's own (geometric) means, averaged over teachers.

    One row a (power, bin of relative length). Columns: power, relative_length, relative, low, high (95% over teachers),
    teachers (in the bin). What is flat here is flat within teachers, wherever their lengths lie.
    """

    def own_mean(log: pd.Series) -> pd.Series:
        return (log * bins["weight"]).groupby(bins["teacher"]).transform("sum")

    length, found = np.log(bins["mean_length"]), []
    length = length - own_mean(length)
    near = bins.assign(step=np.round(STEPS_AN_OCTAVE * length / np.log(2)))
    near["x"] = length * near["weight"]

    def wide(column: str) -> pd.DataFrame:  # (teachers, steps)
        return near.pivot_table(index="teacher", columns="step", values=column, aggfunc="sum", fill_value=0)

    weight = wide("weight")
    for p, column in PRODUCTS.items():
        log = np.log(bins[column])
        near["v"] = (log - own_mean(log)) * near["weight"]
        values = wide("v")
        low, high = np.exp(_band(values.to_numpy(), weight.to_numpy()))
        found.append(
            pd.DataFrame(
                {
                    "power": p,
                    "relative_length": np.exp(wide("x").sum() / weight.sum()),
                    "relative": np.exp(values.sum() / weight.sum()),
                    "low": low,
                    "high": high,
                    "teachers": (weight > 0).sum(),
                }
            ).reset_index(drop=True)
        )
    return pd.concat(found, ignore_index=True)


def curves(pool: pd.DataFrame) -> pd.DataFrame:
    """Reference curves fitted to the pooled bins by least squares weighted with their responses: one row a curve.

    Columns: curve, factor a, exponent, r_squared (of the norm over bins; negative is worse than a constant). The first
    two are a / (log|y|)^p; the third a |y|^-b, fitted on logarithms. NaN for fewer than three bins.
    """
    w, x, y = (pool[c].to_numpy(float) for c in ("count", "mean_length", "mean_norm"))
    rows = []
    for p in (1, 2, "free"):
        name, a, b, r2 = "a |y|^-b" if p == "free" else f"a / (log|y|)^{p}", np.nan, np.nan, np.nan
        if len(pool) >= 3:
            if p == "free":
                slope, at_one = np.polyfit(np.log(x), np.log(y), 1, w=np.sqrt(w))
                a, b, shape = np.exp(at_one), -slope, x**slope
            else:
                shape, b = np.log(x) ** -p, p
                a = (w * y * shape).sum() / (w * shape**2).sum()
            r2 = 1 - (w * (y - a * shape) ** 2).sum() / (w * (y - np.average(y, weights=w)) ** 2).sum()
        rows.append({"curve": name, "factor": a, "exponent": b, "r_squared": r2})
    return pd.DataFrame(rows)
