"""What a student or a teacher is shown: one policy for gradients, training and evaluation, for any tokenizer.

Why: a token more or less at the boundary moves the point at which the loss starts, and a BOS that is there in
training and not in evaluation moves the accuracy. The authors' scripts do both (an instruction at evaluation
only, two BOS for some teachers). So a `Policy` says once what is done, and everything goes through `encode` and
`encode_questions`:

* prompt and response are tokenised apart and joined as ids. The boundary is exact even where the tokenizer would
  merge the prompt's last letters with the response's first, and a training text begins with exactly the ids from
  which the student generates. (A tokenizer that puts a space before every text, as SentencePiece ones do, puts one
  before the response; the student then learns to write it, and loses nothing.)
* no BOS unless the policy says so, and never two; every whole response ends with EOS, one of its |y| tokens.
* a response that does not fit is cut at its end, counted in `n_cut`, and gets no EOS: an EOS there would teach the
  student to stop in the middle of a sentence. (The authors' code appends one.)

The built-in world uses the default policy. Many texts go through the tokenizer in one call, whose calls otherwise take
longer than its work. The template is filled in by replacing `{question}` and nothing else, so braces (LaTeX!) survive on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gracelib.text.formats import short

STUDENT_TEMPLATE = "### Problem:\n{question}\n\n### Solution:\n"
# The authors' code, which sends the braces doubled by mistake: \boxed{{}}.
TEACHER_INSTRUCTION = "Please reason step by step and put your final answer within \\boxed{}."
SLOT = "{question}"
AT_ONCE = 1024  # pairs: the tokenizer keeps more of a text than its ids until its call ends


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
            raise ValueError(f"the template must hold {SLOT} once, not {found} times: {short(self.template)}")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise ValueError(f"max_tokens={self.max_tokens}: a prompt and a response need at least 2 tokens")


@dataclass(frozen=True)
class Encoded:
    """One example. response_ids are the supervised tokens; they end with EOS unless `n_cut`, the number of tokens
    (EOS among them) that were cut off to fit `Policy.max_tokens`, is positive."""

    prompt_ids: list[int]
    response_ids: list[int]
    n_cut: int = 0


def encode_questions(tokenizer, questions: Sequence[str], policy: Policy = Policy()) -> list[list[int]]:
    """Ids that the student is given before a response: in gradients, in training and when it generates.

    Raises ValueError if the policy asks for a BOS that the tokenizer does not have, or if the ids of a question leave
    no room for a response within max_tokens (a prompt is never cut: it would be another question).
    """
    bos = tokenizer.bos_token_id
    if policy.bos and bos is None:
        raise ValueError("the policy asks for a BOS (bos=True), but the tokenizer has none; use bos=False")
    prompts = _tokenize(tokenizer, [policy.template.replace(SLOT, question) for question in questions])
    if policy.bos:  # a template may spell it out: still only one
        prompts = [ids if ids[:1] == [bos] else [bos, *ids] for ids in prompts]
    for question, ids in zip(questions, prompts, strict=True):
        if policy.max_tokens is not None and len(ids) >= policy.max_tokens:
            raise ValueError(
                f"the prompt {short(question)} has {len(ids)} tokens, which leaves none of "
                f"max_tokens={policy.max_tokens} for a response; raise max_tokens or leave the prompt out"
            )
    return prompts


def encode(tokenizer, pairs: Sequence[tuple[str, str]], policy: Policy = Policy()) -> list[Encoded]:
    """Ids of (question, response) pairs, see the module's head.

    Raises ValueError as `encode_questions`, and if the tokenizer has no EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "the tokenizer has no EOS token: nothing would teach the student to stop; set "
            "tokenizer.eos_token and save it to the student's folder"
        )
    encoded = []
    for start in range(0, len(pairs), AT_ONCE):
        questions, responses = zip(*pairs[start : start + AT_ONCE], strict=True)
        prompts = encode_questions(tokenizer, questions, policy)
        for prompt, response in zip(prompts, _tokenize(tokenizer, responses), strict=True):
            whole = [*response, tokenizer.eos_token_id]
            room = len(whole) if policy.max_tokens is None else policy.max_tokens - len(prompt)
            encoded.append(Encoded(prompt, whole[:room], max(0, len(whole) - room)))
    return encoded


def encode_examples(tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, response ids + EOS) of (question, response) pairs by the default policy, which cuts nothing."""
    return [(e.prompt_ids, e.response_ids) for e in encode(tokenizer, pairs)]


def cut_sentence(encoded: Sequence[Encoded], policy: Policy) -> str:
    """What truncation took, for whoever reads the numbers; "" if nothing was cut."""
    cut = [e.n_cut for e in encoded if e.n_cut]
    if not cut:
        return ""
    return (
        f"{len(cut):,} of {len(encoded):,} responses did not fit max_tokens={policy.max_tokens} and were cut: "
        f"{sum(cut):,} tokens lost, at most {max(cut):,} of one response"
    )


def chat_prompt(tokenizer, question: str, instruction: str = TEACHER_INSTRUCTION) -> str:
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
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:  # a template may demand a system message, or turns in an order of its own
        raise ValueError(f"the chat template refuses these messages ({error})") from error


def chat_ids(tokenizer, question: str, instruction: str = TEACHER_INSTRUCTION) -> list[int]:
    """Ids of `chat_prompt`, with the BOS that the template writes (or not) and no second one."""
    return _tokenize(tokenizer, [chat_prompt(tokenizer, question, instruction)])[0]


def _tokenize(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
