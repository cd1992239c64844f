"""From text to tokens, once for everybody.

The student sees the same template when its gradients are taken, when it is trained and when it is evaluated (the
authors' scripts add an instruction at evaluation only), and every supervised response ends with EOS, which counts as
one of its |y| tokens. No BOS is added anywhere. Apart from `tasks`, so that reading other file formats one day does not
invalidate what was trained.
"""

from __future__ import annotations

STUDENT_TEMPLATE = "### Problem:\n{question}\n\n### Solution:\n"


def encode_prompt(tokenizer, question: str, template: str = STUDENT_TEMPLATE) -> list[int]:
    return tokenizer(template.format(question=question), add_special_tokens=False)["input_ids"]


def encode_examples(
    tokenizer, pairs: list[tuple[str, str]], template: str = STUDENT_TEMPLATE
) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, response ids + EOS) of each (question, response): `encode_example` in one call of the tokenizer, whose
    calls otherwise take longer than its work."""
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no EOS token; set tokenizer.eos_token before scoring or training")
    if not pairs:
        return []
    prompts, responses = (
        tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for texts in (
            [template.format(question=question) for question, _ in pairs],
            [response for _, response in pairs],
        )
    )
    return [(prompt, [*ids, tokenizer.eos_token_id]) for prompt, ids in zip(prompts, responses, strict=True)]


def encode_example(
    tokenizer, question: str, response: str, template: str = STUDENT_TEMPLATE
) -> tuple[list[int], list[int]]:
    """(prompt ids, response ids + EOS). Prompt and response are tokenised apart: the boundary is exact.

    Raises ValueError if the tokenizer has no EOS token: nothing would teach the student to stop.
    """
    return encode_examples(tokenizer, [(question, response)], template)[0]
