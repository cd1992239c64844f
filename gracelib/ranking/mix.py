"""One data set from many teachers: of each prompt the response that suits the student best.

Why: scores of responses need not stop at naming one teacher. GRAPE (arXiv 2502.04194) trains on the response that the
student finds likeliest per token; RSR (arXiv 2601.14249) on the one with the least mean rank per mean surprisal. Both come
from one forward pass (the gradients of the output projection alone are taken beside it: nothing is propagated back). Under a
share for each teacher the best choice is an assignment problem, solved exactly.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from gracelib.checks import check_choice
from gracelib.jobs.disk import check_writable
from gracelib.jobs.store import write_atomically
from gracelib.models.prompting import Policy
from gracelib.ranking.reading import loaded, selected
from gracelib.since import COSTS, assigned
from gracelib.text.responses import write_jsonl


def mix(
    student: str | Path,
    paths: Iterable[str | Path] | str | Path,
    out: Path,
    *,
    by: str = "grape",
    shares: Mapping[str, float] | None = None,
    n: int | None = None,
    m: int = 1,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "auto",
    batch_tokens: int | None = None,
    policy: Policy | None = None,
    work: Path | None = None,
    thinking: str = "keep",
) -> dict[str, int]:
    """Write `out`, JSON lines with id, question, answer (where known), responses (one) and teacher, and give each teacher's
    number of prompts.

    by: a name of COSTS. Of n common prompts (None: all; drawn as `score_teachers` does) each teacher's first m responses are looked at.
    shares: of the prompts for each teacher, adding up to 1 (None: whoever is best); the others as in `score_teachers`.
    ValueError or OSError in one line for what does not fit, before a model is loaded.
    """
    check_choice("by", by, tuple(COSTS))
    check_choice("the ending of out", out.suffix, (".jsonl",))
    check_writable(out.absolute().parent)
    selection, _, work = selected(paths, work, device, n, m, seed, thinking=thinking)
    names = [*selection.prompts]
    if shares is not None and (
        {*shares} != {*names} or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6
    ):
        given = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise ValueError(f"shares {given}: give each of {', '.join(names)} one of at least 0, adding up to 1")
    how = dict(d=1, seed=seed, params="last-layer", projection="signs", dtype=dtype, batch_tokens=batch_tokens)
    features = loaded(student, selection, work, m, policy or Policy(), device, how).features()
    cost = np.stack([COSTS[by](features[name]).reshape(-1, m) for name in names], 1)  # (n, teachers, m)
    chosen = assigned(cost.min(axis=2), None if shares is None else [shares[name] for name in names])
    rows = []
    for i, k in enumerate(chosen):
        prompt = selection.prompts[names[k]][i]
        answer = {} if prompt.answer is None else {"answer": prompt.answer}
        response = prompt.responses[int(cost[i, k].argmin())]
        rows.append(
            {"id": prompt.id, "question": prompt.question, **answer, "responses": [response], "teacher": names[k]}
        )
    write_atomically(out, lambda part: write_jsonl(part, rows))
    return dict(Counter(names[k] for k in chosen).most_common())
