"""Accuracy of a model on a task: Average@k, best-of-k and greedy (paper, section 3 and appendix C)."""

from __future__ import annotations

from gracelib.models.decoding import sample_responses
from gracelib.text.is_correct import is_correct


def grade(rows: list[dict]) -> list[dict]:
    """The rows with `correct`, a list of booleans beside `responses`; rows need `answer`."""
    return [{**row, "correct": [is_correct(r, row["answer"]) for r in row["responses"]]} for row in rows]


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
    batch_size: int = 1024,
) -> dict[str, float]:
    """Average@k and best-of-k at `temperature`, and greedy accuracy, all in 0..1, on held-out prompts.

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
            greedy=True,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
    )
    right = sum(is_correct(row["greedy"], row["answer"]) for row in rows)
    cut = sum(row["n_truncated"] for row in rows) / (k * len(prompts))
    return {**accuracy(rows), "greedy": right / len(rows), "truncated": cut}
