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


def encode_example(tokenizer, question: str, response: str, template: str = STUDENT_TEMPLATE
                   ) -> tuple[list[int], list[int]]:
    """(prompt ids, response ids + EOS). Prompt and response are tokenised apart: the boundary is exact.

    Raises ValueError if the tokenizer has no EOS token: nothing would teach the student to stop.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no EOS token; set tokenizer.eos_token before scoring or training")
    response_ids = tokenizer(response, add_special_tokens=False)["input_ids"]
    return encode_prompt(tokenizer, question, template), [*response_ids, tokenizer.eos_token_id]
