"""Accuracy of a checkpoint on a real task: Average@k, best-of-k and greedy (paper, section 3 and appendix C).

`evaluate` does it for the built-in world, in one process and one breath. With `measure` a model may need hours: the
responses are files that resume, and grading runs apart from the process, with a time limit per response.
"""

from pathlib import Path

import pandas as pd

from gracelib.jobs.store import write_atomically
from gracelib.models import sampling
from gracelib.models.decoding import sample_responses
from gracelib.models.prompting import STUDENT_TEMPLATE, Policy
from gracelib.text.answers import grade, is_correct
from gracelib.text.grading import grade_rows
from gracelib.text.responses import read_responses, write_jsonl

GRADERS = {"math-verify": grade_rows, "last-number": grade}


def accuracy(rows: list[dict]) -> dict[str, float]:
    """Average@k (mean share of correct responses) and best-of-k (share of prompts with any) of graded rows, in 0..1.

    `average_se` is the standard error of Average@k over prompts: samples of one prompt resemble each other, so it is
    the spread of the prompts' shares that counts, not the number of samples.
    """
    shares = [sum(row["correct"]) / len(row["correct"]) for row in rows]
    mean = sum(shares) / len(shares)
    spread = sum((s - mean) ** 2 for s in shares) / max(1, len(shares) - 1)
    return {
        "average": mean,
        "average_se": (spread / len(shares)) ** 0.5,
        "best_of": sum(s > 0 for s in shares) / len(shares),
    }


def evaluate(
    model,
    tokenizer,
    prompts: list[dict],
    *,
    k: int = 16,
    temperature: float = 1.0,
    seed: int,
    max_new_tokens: int,
    template: str = STUDENT_TEMPLATE,
    greedy: bool = True,
) -> dict[str, float]:
    """Average@k and best-of-k at `temperature`, and (if asked for) greedy accuracy, all in 0..1, on held-out prompts.

    Also `truncated`, the share of the sampled responses that did not end within max_new_tokens.
    """
    rows = grade(
        sample_responses(
            model,
            tokenizer,
            prompts,
            m=k,
            temperature=temperature,
            seed=seed,
            greedy=greedy,
            max_new_tokens=max_new_tokens,
            template=template,
        )
    )
    found = accuracy(rows)
    if greedy:
        found["greedy"] = sum(is_correct(row["greedy"], row["answer"]) for row in rows) / len(rows)
    return found | {"truncated": sum(row["n_truncated"] for row in rows) / (k * len(prompts))}


def measure(
    model: str | Path,
    prompts: list[dict],
    folder: Path,
    *,
    k: int = 16,
    temperature: float = 1.0,
    max_new_tokens: int,
    style: str = "student",
    policy: Policy = Policy(),
    grader: str = "math-verify",
    **options,
) -> dict[str, float]:
    """Average@k and best-of-k at `temperature`, and greedy accuracy, of a model on prompts with answers.

    Writes `sampled.jsonl` and `greedy.jsonl` (responses), the same with `correct` in `sampled_graded.jsonl` and
    `greedy_graded.jsonl`, and `accuracy.csv` into `folder`; responses that are there from the same settings are
    reused.
    `options`: further arguments of `gracelib.models.sampling.sample`.
    `grader`: "math-verify" reads `####` and boxed answers and compares expressions (`gracelib.text.grading`; what takes
    too long counts as wrong, with a warning); "last-number" is the built-in world's rule (`gracelib.text.answers.grade`).

    Returns
    -------
    average, average_se (over prompts), best_of, greedy (all in 0..1), truncated (share of the sampled responses that
    were cut off), n_prompts, k.

    Raises
    ------
    ValueError
        before the model is loaded: an unknown grader, a prompt without answer, anything `sample` refuses.
    """
    if grader not in GRADERS:
        raise ValueError(f"grader {grader!r} is not known; choose one of {list(GRADERS)}")
    for number, row in enumerate(prompts, 1):
        if row.get("answer") in (None, ""):
            raise ValueError(
                f"prompt {row.get('id', number)!r} has no answer to compare with; accuracy needs one for every prompt"
            )
    if Path(folder).is_file():
        raise ValueError(f"{folder} is a file; name a folder for the responses and accuracy.csv")
    if k < 1:
        raise ValueError(f"k={k}: must be at least 1 sample a prompt")
    folder, loaded, found = Path(folder), {}, {}
    for name, m, t in (("sampled", k, temperature), ("greedy", 1, 0.0)):
        path = sampling.sample(
            model,
            prompts,
            out=folder / f"{name}.jsonl",
            m=m,
            temperature=t,
            style=style,
            policy=policy,
            max_new_tokens=max_new_tokens,
            loaded=loaded,
            **options,
        )
        found[name] = GRADERS[grader](read_responses(path, allow_empty=True))
        write_atomically(folder / f"{name}_graded.jsonl", lambda part, rows=found[name]: write_jsonl(part, rows))
    result = {
        **accuracy(found["sampled"]),
        "greedy": accuracy(found["greedy"])["average"],
        "truncated": sum(row["n_truncated"] for row in found["sampled"]) / (k * len(prompts)),
        "n_prompts": len(prompts),
        "k": k,
    }
    table = pd.DataFrame([{"model": str(model), "temperature": temperature, "grader": grader, **result}])
    write_atomically(folder / "accuracy.csv", lambda part: table.to_csv(part, index=False))
    return result
