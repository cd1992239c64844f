"""What a student or a teacher is shown: one policy for gradients, training and evaluation, for any tokenizer.

Why: a token more or less at the boundary moves the point at which the loss starts, and a BOS that is there in
training and not in evaluation moves the accuracy. The authors' scripts do both (an instruction at evaluation
only, two BOS for some teachers). So a `Policy` says once what is done, and everything goes through `encode` and
`encode_question`:

* prompt and response are tokenised apart and joined as ids. The boundary is exact even where the tokenizer would
  merge the prompt's last letters with the response's first, and a training text begins with exactly the ids from
  which the student generates. (A tokenizer that puts a space before every text, as SentencePiece ones do, puts one
  before the response; the student then learns to write it, and loses nothing.)
* no BOS unless the policy says so, and never two; every whole response ends with EOS, one of its |y| tokens.
* a response that does not fit is cut at its end, counted in `n_cut`, and gets no EOS: an EOS there would teach the
  student to stop in the middle of a sentence. (The authors' code appends one.)

The default policy gives exactly the ids of `encode_example`, which the built-in world uses. The template is
filled in by replacing `{question}` and nothing else, so braces (LaTeX!) survive on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STUDENT_TEMPLATE = "### Problem:\n{question}\n\n### Solution:\n"
# The authors' code, which sends the braces doubled by mistake: \boxed{{}}.
TEACHER_INSTRUCTION = "Please reason step by step and put your final answer within \\boxed{}."
SLOT = "{question}"


@dataclass(frozen=True)
class Policy:
    """How questions and responses become ids.

    template: the student's text before the response, with `{question}` once.
    bos: whether ids begin with the tokenizer's BOS. max_tokens: most ids of prompt and response together, EOS counted
    (None: no limit, and what exceeds the model's positions is refused where gradients are taken).

    Raises ValueError for a template without exactly one `{question}`, or max_tokens < 2.
    """

    template: str = STUDENT_TEMPLATE
    bos: bool = False
    max_tokens: int | None = None

    def __post_init__(self):
        found = self.template.count(SLOT)
        if found != 1:
            raise ValueError(f"the template must hold {SLOT} once, not {found} times: {_start(self.template)}")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise ValueError(f"max_tokens={self.max_tokens}: a prompt and a response need at least 2 tokens")


@dataclass(frozen=True)
class Encoded:
    """One example. response_ids are the supervised tokens; they end with EOS unless `n_cut`, the number of tokens
    (EOS among them) that were cut off to fit `Policy.max_tokens`, is positive."""

    prompt_ids: list[int]
    response_ids: list[int]
    n_cut: int = 0


def encode_question(tokenizer, question: str, policy: Policy = Policy()) -> list[int]:
    """Ids that the student is given before a response: in gradients, in training and when it generates.

    Raises ValueError if the policy asks for a BOS that the tokenizer does not have, or if the ids leave no room for a
    response within max_tokens (a prompt is never cut: it would be another question).
    """
    ids = tokenizer(policy.template.replace(SLOT, question), add_special_tokens=False)["input_ids"]
    if policy.bos:
        if tokenizer.bos_token_id is None:
            raise ValueError("the policy asks for a BOS (bos=True), but the tokenizer has none; use bos=False")
        if ids[:1] != [tokenizer.bos_token_id]:  # a template may spell it out: still only one
            ids = [tokenizer.bos_token_id, *ids]
    if policy.max_tokens is not None and len(ids) >= policy.max_tokens:
        raise ValueError(
            f"the prompt {_start(question)} has {len(ids)} tokens, which leaves none of "
            f"max_tokens={policy.max_tokens} for a response; raise max_tokens or leave the prompt out"
        )
    return ids


def encode(tokenizer, question: str, response: str, policy: Policy = Policy()) -> Encoded:
    """Ids of one prompt and one response, see the module's head.

    Raises ValueError as `encode_question`, and if the tokenizer has no EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "the tokenizer has no EOS token: nothing would teach the student to stop; set "
            "tokenizer.eos_token and save it to the student's folder"
        )
    prompt_ids = encode_question(tokenizer, question, policy)
    response_ids = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    room = len(response_ids) if policy.max_tokens is None else policy.max_tokens - len(prompt_ids)
    return Encoded(prompt_ids, response_ids[:room], max(0, len(response_ids) - room))


def cut_sentence(encoded: Sequence[Encoded], policy: Policy) -> str:
    """What truncation took, for whoever reads the numbers; "" if nothing was cut."""
    cut = [e.n_cut for e in encoded if e.n_cut]
    if not cut:
        return ""
    return (
        f"{len(cut):,} of {len(encoded):,} responses did not fit max_tokens={policy.max_tokens} and were cut: "
        f"{sum(cut):,} tokens lost, at most {max(cut):,} of one response"
    )


def chat_prompt(tokenizer, question: str, instruction: str = TEACHER_INSTRUCTION, system: str | None = None) -> str:
    """What an instruction-tuned teacher is shown: instruction, blank line, question as the user's turn in the
    tokenizer's chat template, up to where the answer starts.

    The text holds the template's own special tokens, often a BOS: tokenise it with `chat_ids`, which adds no second
    one. Raises ValueError for a tokenizer without a chat template, or one whose template refuses the messages.
    """
    import jinja2

    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the tokenizer has no chat template: is this an instruction-tuned model? Give a base model "
            "the student's template instead (style 'student')"
        )
    messages = [{"role": "user", "content": f"{instruction}\n\n{question}" if instruction else question}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:  # Gemma's, for one, knows no system role
        raise ValueError(
            f"the chat template refuses these messages ({error})"
            + ("; leave out the system message" if system is not None else "")
        ) from error


def chat_ids(tokenizer, question: str, instruction: str = TEACHER_INSTRUCTION, system: str | None = None) -> list[int]:
    """Ids of `chat_prompt`, with the BOS that the template writes (or not) and no second one."""
    return tokenizer(chat_prompt(tokenizer, question, instruction, system), add_special_tokens=False)["input_ids"]


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


def _start(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
