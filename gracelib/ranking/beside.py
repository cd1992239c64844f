"""Other scores beside GRACE, of the same responses and with intervals over the same resamples of prompts.

Why beside and not instead: which score to trust is an open question, and what answers it for a user is whether they agree
on these teachers. So each comes with its own ranks, the rank correlation with GRACE, and what it cost beyond GRACE's pass.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES, check_score, compute_scores
from gracelib.evidence.ranks import spearman_known
from gracelib.intervals import N_BOOT, agreement_interval, influence_draws, percentiles, ratio_draws
from gracelib.jobs.progress import Bar
from gracelib.scores import Grace
from gracelib.since import pooled
from gracelib.text.selection import Selection

_PASSES = {
    "characters": "no model",
    "alone_loss": "one forward more, for both IFD",
    "local_loss": "a forward for each sentence",
}
COSTS = ("score", "better", "agreement", "low", "high", "why_not", "seconds", "passes", "aggregation")


def check_scores(names: Sequence[str], selection: Selection) -> None:
    """ValueError for a name that is no score, or one that these files cannot have: nothing says what is right."""
    for name in names:
        check_score(name)
        if SCORES[name].function is None:
            raise ValueError(f"{name} is no function of responses and student: {SCORES[name].source}; leave it out")
    if graded := [name for name in names if "correct" in SCORES[name].needs]:
        for prompt, answer in zip(next(iter(selection.prompts.values())), selection.answers, strict=True):
            if answer is None:
                raise ValueError(
                    f"{prompt.where}: no file has an answer to this prompt, and {graded[0]} needs to know which responses "
                    f"are right; add the field 'answer', or leave {graded[0]} out"
                )


def check_reader(names: Iterable[str], model, tokenizer) -> None:
    """ValueError for a score that this student cannot have: no module to look at, no places of tokens in a text."""
    from gracelib.features.record import up_projection

    for name in names:
        if "act_self" in SCORES[name].needs and up_projection(model) is None:
            raise ValueError(
                f"{name} looks at mlp.up_proj of the last layer, which {type(model).__name__} has not; leave {name} out"
            )
        if {"token_step", "local_loss"} & {*SCORES[name].needs} and not tokenizer.is_fast:
            raise ValueError(f"{name} needs a tokenizer that says where its tokens lie in a text; leave {name} out")


def right_ones(names: Iterable[str], selection: Selection) -> dict[str, dict]:
    """Teacher -> correct (N,), if a score needs it: graded by the answer that any of the files has."""
    if not any("correct" in SCORES[name].needs for name in names):
        return dict.fromkeys(selection.prompts, {})
    from gracelib.text.grading import grade_rows

    found = {}
    for teacher, prompts in selection.prompts.items():
        both = zip(prompts, selection.answers, strict=True)
        rows = grade_rows([{"id": p.id, "answer": answer, "responses": [*p.responses]} for p, answer in both])
        found[teacher] = {"correct": np.concatenate([row["correct"] for row in rows]).astype(bool)}
    return found


def beside(
    names: Sequence[str],
    features: Mapping[str, Mapping],
    scored: Sequence[tuple[Grace, np.ndarray]],
    seconds: float,
    passes: Mapping[str, float],
    **how,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns of the teachers in the order of `features`, NAME, NAME_low, NAME_high and NAME_rank, and a row for each score
    and GRACE (`COSTS`).

    features: by teacher, as `compute_scores` takes them; scored: their GRACE and its influence; seconds: what GRACE took;
    passes: and what the columns of `further.MORE` took; how: as `compute_scores`.
    Intervals (NAME_low and NAME_high; low and high of the agreement) resample prompts: means and ratios of sums as they are,
    other scores to first order (`Scored.influence`); NaN for GRACE's parts. agreement: Spearman correlation of the ranks with
    GRACE's over the teachers that have the score; why_not: the reason where some or all have none.
    """
    columns = {}
    nan = np.nan, np.nan
    costs = [
        ("GRACE", SCORES["grace"].direction, np.nan, *nan, "", seconds, "forward and backward", "mean over responses")
    ]
    began = time.perf_counter()
    features = pooled(features)
    shared = time.perf_counter() - began
    bar = Bar(desc="scores beside GRACE", unit="score", total=len(names) * len(features))
    for name in names:
        score, began, values, draws, undefined = SCORES[name], time.perf_counter(), [], [], ""
        for own in features.values():
            found = compute_scores(own, [name], **how, with_influence=True)
            values.append(found.values.get(name, np.nan))
            undefined = found.undefined.get(name, undefined)
            if name in found.ratios:
                draws.append(ratio_draws(found.ratios[name], own["prompt_id"]))
            elif name in found.influence:
                draws.append(influence_draws(values[-1], found.influence[name]))
            else:  # undefined, or GRACE and its parts: the table has GRACE's own interval
                draws.append(np.full(N_BOOT, np.nan))
            bar.update()
        value, draws = np.array(values), np.stack(draws)
        columns[name] = value
        columns[f"{name}_low"], columns[f"{name}_high"] = np.transpose([percentiles(drawn) for drawn in draws])
        columns[f"{name}_rank"] = pd.Series(value).rank(method="min", ascending=score.direction == "lower").to_numpy()
        ordered = [-grace.total for grace, _ in scored]  # as an accuracy: higher is better
        agreement, why_not = spearman_known(value, ordered, score.direction)
        why_not = undefined or why_not.replace("cell", "teacher")
        known = np.isfinite(draws).any(1).all() and np.isfinite(agreement)
        ends = agreement_interval(draws, scored, score.direction) if known else nan
        took = time.perf_counter() - began + sum(passes.get(need, 0.0) for need in score.needs)
        took += shared if "pool_loss" in score.needs else 0.0
        said = next((said for need, said in _PASSES.items() if need in score.needs), "none beyond GRACE's")
        costs.append((score.label, score.direction, agreement, *ends, why_not, took, said, score.aggregation))
    bar.close()
    order = [f"{name}{part}" for name in names for part in ("", "_low", "_high", "_rank")]
    return pd.DataFrame(columns)[order], pd.DataFrame(costs, columns=COSTS)


def beside_text(table: pd.DataFrame, names: Sequence[str], costs: pd.DataFrame) -> str:
    """Both tables for a terminal: each score with its interval and, after #, its own rank."""

    def cell(row, name: str) -> str:
        value, low, high, rank = (row[f"{name}{part}"] for part in ("", "_low", "_high", "_rank"))
        if np.isnan(value):
            return "-"
        return f"{value:.4g}{'' if np.isnan(low) else f' ({low:.4g} to {high:.4g})'} #{rank:.0f}"

    shown = pd.DataFrame(
        {"rank": table["rank"], "teacher": table["teacher"]}
        | {SCORES[name].label: [cell(row, name) for _, row in table.iterrows()] for name in names}
    )
    how = costs.assign(
        agreement=[
            f"{f'{a:.2f}' if a == a else '-'}{f' ({low:.2f} to {high:.2f})' if low == low else ''}{why and f' ({why})'}"
            for a, low, high, why in costs[["agreement", "low", "high", "why_not"]].itertuples(index=False)
        ],
        seconds=costs["seconds"].map("{:,.2f}".format),
    ).drop(columns=["low", "high", "why_not"])
    return (
        "Beside GRACE, by its rank; 95% intervals over prompts, and the score's own rank:\n"
        f"{shown.to_string(index=False)}\n\n"
        "agreement: Spearman correlation with GRACE's ranks over the teachers that have the score, and its interval over prompts.\n"
        f"{how.to_string(index=False)}"
    )
