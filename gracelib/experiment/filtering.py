"""Responses with the wrong ones dropped: what a student would be taught if somebody checked the answers first.

The paper filters by resampling: of a prompt's M responses the wrong ones go, and the right ones are drawn again with
replacement until there are M. That leaves open what becomes of a prompt without any right response. Here it drops out,
and the prompts that are left share its responses as evenly as whole numbers allow, so that filtered and unfiltered
students see the same number N x M of responses in the same number of steps: what differs between them is which
responses, not how many. What a prompt is given is keyed by its id, so the order of rows never matters.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from gracelib.jobs.store import Stage
from gracelib.text.tasks import read_responses, write_jsonl

KEPT = "kept.json"


def filtered_responses(rows: list[dict], M: int, seed: int) -> tuple[list[dict], dict[str, float]]:
    """Right responses only, resampled with replacement so that there are len(rows) x M of them again.

    `rows` are prompts with `id`, `responses` and `correct` (booleans, beside the responses); the first M of each count.
    Every right response of the M is drawn from with equal probability. Each prompt that has one is given M or more: of
    the N x M responses, an equal share to each, and what does not divide goes one each to prompts in an order drawn from
    the seed and their ids. The rows returned are in the given order, with `responses` and `correct` (all true).

    Returns the rows and what was kept: `kept_share` (of the N x M responses), `prompts`, `prompts_kept`. No prompt with
    a right response: no rows. ValueError if a row has fewer than M responses or grades.
    """
    right = {}
    for row in rows:
        short = min(len(row["responses"]), len(row.get("correct", ())))
        if short < M:
            raise ValueError(
                f"prompt {row['id']!r} has {short} graded responses, fewer than M = {M}: sample and grade more"
            )
        texts = [text for text, good in zip(row["responses"][:M], row["correct"][:M], strict=True) if good]
        if texts:
            right[row["id"]] = texts
    kept = {
        "kept_share": sum(map(len, right.values())) / (len(rows) * M),
        "prompts": len(rows),
        "prompts_kept": len(right),
    }
    if not right:
        return [], kept
    each, more = divmod(len(rows) * M, len(right))
    first = set(sorted(right, key=lambda name: Random(f"{seed}/order/{name}").random())[:more])
    made = []
    for row in rows:
        if row["id"] in right:
            n = each + (row["id"] in first)
            texts = Random(f"{seed}/{row['id']}").choices(right[row["id"]], k=n)
            made.append({**row, "responses": texts, "correct": [True] * n, "n_truncated": 0})
    return made, kept


def run_filtered(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """`filtered_responses` of the first `n_prompts` prompts; beside them `kept.json`."""
    rows = read_responses(inputs["responses"] / "responses.jsonl", params["n_prompts"], allow_empty=True)
    made, kept = filtered_responses(rows, params["M"], params["seed"])
    write_jsonl(out / "responses.jsonl", made)
    (out / KEPT).write_text(json.dumps(kept), encoding="utf-8")


FILTERED = Stage("filtered_responses", run_filtered)
