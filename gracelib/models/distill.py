"""Distillation of one cell: the base student fine-tuned on all of a teacher's responses, unfiltered.

The paper trains on N x M pairs for 4 epochs with batch 64, cosine schedule, 5% warm-up and no weight decay (appendix
B of the submission); wrong responses stay in, which is what makes a teacher's errors matter.
"""

from __future__ import annotations

from gracelib.models.encoding import encode_examples
from gracelib.models.training import train_causal_lm


def distill(
    model,
    tokenizer,
    rows: list[dict],
    *,
    M: int | None = None,
    epochs: float,
    lr: float,
    batch_size: int,
    seed: int,
    warmup: float = 0.05,
) -> list[dict]:
    """Fine-tune `model` in place on the first `M` responses (None: all) of every row, with `question` and `responses`.

    Returns the training log. The loss covers the response including EOS, averaged over the tokens of a batch, as
    `transformers` does: a response weighs as |y|, not as log|y|. ValueError if a row has fewer than M responses.
    """
    short = next((row for row in rows if M is not None and len(row["responses"]) < M), None)
    if short is not None:
        raise ValueError(f"prompt {short.get('id')!r} has {len(short['responses'])} responses, fewer than M = {M}")
    pairs = [(row["question"], response) for row in rows for response in row["responses"][:M]]
    return train_causal_lm(
        model, encode_examples(tokenizer, pairs), epochs=epochs, lr=lr, batch_size=batch_size, seed=seed, warmup=warmup
    )
