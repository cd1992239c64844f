"""One data set from many teachers: of each prompt the response that suits the student best.

Why: scores of responses need not stop at naming one teacher. GRAPE (arXiv 2502.04194) trains on the response that the
student finds likeliest per token; RSR (arXiv 2601.14249) on the one with the least mean rank per mean surprisal. Both come
from one forward pass (the gradients of the output projection alone are taken beside it: nothing is propagated back). Under a
share for each teacher the best choice is an assignment problem, solved exactly.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gracelib.checks import check_choice
from gracelib.jobs.disk import check_writable
from gracelib.jobs.store import write_atomically
from gracelib.models.prompting import Policy, encoding_notes
from gracelib.ranking.reading import loaded, say, selected
from gracelib.since import COSTS, assigned
from gracelib.text.responses import read_requests, write_jsonl


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
    min_m: bool = False,
    thinking: str = "keep",
    requests: Sequence[str | Path] = (),
    drop_text: Sequence[str] = (),
) -> dict[str, int]:
    """Write `out`, JSON lines with id, question, answer (where a file has it), responses (one), finish_reasons (of one that
    its teacher's limit cut) and teacher, and give each teacher's number of prompts.

    by: a name of COSTS. Of n common prompts (None: all; drawn as `score_teachers` does) each teacher's first m responses are looked at.
    shares: of the prompts for each teacher, adding up to 1 (None: whoever is best); the others as in `score_teachers`.
    ValueError or OSError in one line for what does not fit, before a model is loaded.
    """
    check_choice("by", by, tuple(COSTS))
    check_choice("the ending of out", out.suffix, (".jsonl",))
    check_writable(out.absolute().parent)
    texts = dict(thinking=thinking, requests=read_requests(requests), drop_text=drop_text)
    selection, _, work = selected(paths, work, device, n, m, seed, min_m, **texts)
    names = [*selection.prompts]
    if shares is not None and (
        {*shares} != {*names} or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6
    ):
        given = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise ValueError(f"shares {given}: give each of {', '.join(names)} one of at least 0, adding up to 1")
    how = dict(d=1, seed=seed, params="last-layer", projection="signs", dtype=dtype, batch_tokens=batch_tokens)
    policy = policy or Policy()
    reading = loaded(student, selection, work, m, policy, device, how)
    for name, own in reading.encoded.items():
        for said in encoding_notes(own, policy):
            say(f"note: {name}: {said}")
    features = reading.features()
    cost = np.stack([COSTS[by](features[name]).reshape(-1, m) for name in names], 1)  # (n, teachers, m)
    chosen = assigned(cost.min(axis=2), None if shares is None else [shares[name] for name in names])
    rows = []
    for i, (k, answer) in enumerate(zip(chosen, selection.answers, strict=True)):
        prompt, j = selection.prompts[names[k]][i], int(cost[i, k].argmin())
        row = {"id": prompt.id, "question": prompt.question} | ({"answer": answer} if answer else {})
        row |= {"responses": [prompt.responses[j]]} | ({"finish_reasons": ["length"]} if j in prompt.cut else {})
        rows.append(row | {"teacher": names[k]})
    write_atomically(out, lambda part: write_jsonl(part, rows))
    return dict(Counter(names[k] for k in chosen).most_common())
