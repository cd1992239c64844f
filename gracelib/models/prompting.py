"""What a student or a teacher is shown: one policy for gradients, training and evaluation, for any tokenizer.

Why: a token more or less at the boundary moves the point at which the loss starts, and a BOS that is there in
training and not in evaluation moves the accuracy. The authors' scripts do both (an instruction at evaluation
only, two BOS for some teachers). So a `Policy` says once what is done, and everything goes through `encode` and
`encode_questions`:

* prompt and response are tokenised apart and joined as ids. The boundary is exact even where the tokenizer would
  merge the prompt's last letters with the response's first, and a training text begins with exactly the ids from
  which the student generates. (A tokenizer that puts a space before every text, as SentencePiece ones do, puts one
  before the response; the student then learns to write it, and loses nothing.)
* no BOS unless the policy or the chat template says so, and never two; every whole response ends with EOS (in a chat
  template with the token that it writes after an answer), one of its |y| tokens.
* a response that does not fit is cut at its end, counted in `n_cut`, and gets no EOS, no more than one that its teacher's
  limit has cut: an EOS there would teach the student to stop in the middle of a sentence. (The authors' code appends one.)
* special tokens are what a template writes, never what a question or response spells out: `</s>` there is four letters.
  Only at the very end of a response it is taken off, because it was written by a decoder that did not skip it.

The built-in world uses the default policy. Many texts go through the tokenizer in one call, whose calls otherwise take
longer than its work. The template is filled in by replacing `{question}` and nothing else, so braces (LaTeX!) survive on both sides.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gracelib.text.formats import short

STUDENT_TEMPLATE = "### Problem:\n{question}\n\n### Solution:\n"
# The authors' code, which sends the braces doubled by mistake: \boxed{{}}.
TEACHER_INSTRUCTION = "Please reason step by step and put your final answer within \\boxed{}."
SLOT, CHAT = "{question}", "chat"
AT_ONCE = 1024  # pairs: the tokenizer keeps more of a text than its ids until its call ends


@dataclass(frozen=True)
class Policy:
    """How questions and responses become ids.

    template: the student's text before the response, with `{question}` once; or "chat": the tokenizer's own chat
    template with the question as the user's turn.
    bos: whether ids begin with the tokenizer's BOS. max_tokens: most ids of prompt and response together, EOS counted
    (None: no limit, and what exceeds the model's positions is refused where gradients are taken).

    Raises ValueError for a template without exactly one `{question}`, or max_tokens < 2.
    """

    template: str = STUDENT_TEMPLATE
    bos: bool = False
    max_tokens: int | None = None

    def __post_init__(self):
        found = self.template.count(SLOT)
        if found != 1 and self.template != CHAT:
            raise ValueError(f"the template must hold {SLOT} once, not {found} times: {short(self.template)}")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise ValueError(f"max_tokens={self.max_tokens}: a prompt and a response need at least 2 tokens")


@dataclass(frozen=True)
class Encoded:
    """One example. response_ids are the supervised tokens; they end with EOS unless the response was cut: before it came
    here (`cut`), or to fit `Policy.max_tokens`, by `n_cut` tokens (EOS among them). ended: an end token was written as
    text and is taken off. spelt: other special tokens are written in it and are read as text. step: of each of response_ids,
    which token of its sentence it is, the first is 0 (uint8, at most 255); None if it was not asked for or the tokenizer
    does not say where its tokens lie."""

    prompt_ids: list[int]
    response_ids: list[int]
    n_cut: int = 0
    cut: bool = False
    ended: bool = False
    spelt: bool = False
    step: np.ndarray | None = None

    def __len__(self) -> int:
        """Tokens of prompt and response together."""
        return len(self.prompt_ids) + len(self.response_ids)


def encode_questions(
    tokenizer, questions: Sequence[str], policy: Policy = Policy(), instruction: str = ""
) -> list[list[int]]:
    """Ids that the student (or, with an instruction, the teacher) is given before a response: in gradients, in training
    and when it generates. instruction: of the chat template, see `chat_prompt`.

    Raises ValueError if the policy asks for a BOS or a chat template that the tokenizer does not have, or if the ids of a
    question leave no room for a response within max_tokens (a prompt is never cut: it would be another question).
    """
    bos = tokenizer.bos_token_id
    if policy.bos and bos is None:
        raise ValueError("the policy asks for a BOS (bos=True), but the tokenizer has none; use bos=False")
    if policy.template == CHAT:
        texts = [chat_prompt(tokenizer, question, instruction) for question in questions]
    else:
        texts = [policy.template.replace(SLOT, question) for question in questions]
    prompts, special = _tokenize(tokenizer, texts), special_tokens(tokenizer)
    for k, question in enumerate(questions):
        if special.search(question):  # rare: what the template spells out counts, what the question does not
            before, _, after = texts[k].partition(question.strip())
            first, last = _tokenize(tokenizer, [before, after])
            (text,) = _tokenize(tokenizer, [question.strip()], split_special_tokens=True)
            prompts[k] = [*first, *text, *last]
    if policy.bos:  # a template may spell it out: still only one
        prompts = [ids if ids[:1] == [bos] else [bos, *ids] for ids in prompts]
    for question, ids in zip(questions, prompts, strict=True):
        if policy.max_tokens is not None and len(ids) >= policy.max_tokens:
            raise ValueError(
                f"the prompt {short(question)} has {len(ids)} tokens, which leaves none of "
                f"max_tokens={policy.max_tokens} for a response; raise max_tokens or leave the prompt out"
            )
    return prompts


def encode(
    tokenizer,
    pairs: Sequence[tuple[str, str]],
    policy: Policy = Policy(),
    cut: Sequence[bool] = (),
    steps: bool = False,
) -> list[Encoded]:
    """Ids of (question, response) pairs, see the module's head. cut: which responses were cut before they ended (none).
    steps: also find `Encoded.step`.

    Raises ValueError as `encode_questions`, if the tokenizer has no EOS token, and for a cut response without a token.
    """
    end, special, encoded = end_token(tokenizer, policy), special_tokens(tokenizer), []
    ends = {end, tokenizer.eos_token_id, tokenizer.pad_token_id} & {*tokenizer.added_tokens_decoder}
    written = "|".join(re.escape(token) for token in tokenizer.convert_ids_to_tokens([*ends])) or "(?!)"
    at_the_end = re.compile(rf"(?:(?:{written})\s*)+$")
    for start in range(0, len(pairs), AT_ONCE):
        questions, responses = zip(*pairs[start : start + AT_ONCE], strict=True)
        prompts = encode_questions(tokenizer, questions, policy)
        texts = [at_the_end.sub("", response) for response in responses]
        for k, (prompt, ids) in enumerate(zip(prompts, _tokenize(tokenizer, texts), strict=True)):
            was_cut, spelt = bool(cut and cut[start + k]), bool(special.search(texts[k]))
            if spelt:
                (ids,) = _tokenize(tokenizer, texts[k : k + 1], split_special_tokens=True)
            whole = [*ids, *([] if was_cut else [end])]
            if not whole:
                raise ValueError("the response is empty and was cut: it has no token to learn from; drop it")
            room = len(whole) if policy.max_tokens is None else policy.max_tokens - len(prompt)
            ended = texts[k] != responses[k]
            step = _steps(tokenizer, texts[k], spelt, len(whole))[:room] if steps and tokenizer.is_fast else None
            encoded.append(Encoded(prompt, whole[:room], max(0, len(whole) - room), was_cut, ended, spelt, step))
    return encoded


def _steps(tokenizer, text: str, spelt: bool, n: int) -> np.ndarray:
    """Which token of its sentence each of the text's n tokens (and the end token) is. A sentence ends with ". " or "? "
    (ASLEC's rule); a token is of the sentence that its last character is in."""
    how = {"split_special_tokens": True} if spelt else {}
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, **how)["offset_mapping"]
    ends = np.maximum.accumulate([*(end for _, end in found), len(text)][:n])
    sentence = np.searchsorted([match.end() for match in re.finditer(r"\. |\? ", text)], ends - 1, side="right")
    return np.minimum(np.arange(n) - np.searchsorted(sentence, sentence), 255).astype(np.uint8)


def text_features(encoded: Sequence[Encoded], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """What no model is needed for, of responses and their texts (N): characters; zlib_bits, of each text compressed alone;
    joint_bits, of each after all before it (as far back as zlib looks: 32 KiB); token_step, `Encoded.step` of all, one after
    the other, if it is known."""
    joint = zlib.compressobj(9, zlib.DEFLATED, -15)
    each = [text.encode(errors="surrogatepass") for text in texts]
    found = {
        "characters": np.array([len(text) for text in texts], np.int64),
        "zlib_bits": np.array([8 * len(zlib.compress(data, 9, -15)) for data in each], np.int64),
        "joint_bits": np.array(
            [8 * len(joint.compress(data) + joint.flush(zlib.Z_SYNC_FLUSH)) for data in each], np.int64
        ),
    }
    known = all(e.step is not None for e in encoded)
    return found | ({"token_step": np.concatenate([e.step for e in encoded])} if known and encoded else {})


def special_tokens(tokenizer) -> re.Pattern:
    """What finds the tokenizer's special tokens where a text spells them out."""
    found = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(found, reverse=True))) or "(?!)")


def end_token(tokenizer, policy: Policy = Policy()) -> int:
    """The token after a whole response: EOS, or in a chat template the token that it writes after an answer
    (<|im_end|>, <end_of_turn>), if it writes one. Raises ValueError for a tokenizer without EOS, or as `chat_prompt`."""
    import jinja2

    if tokenizer.eos_token_id is None:
        raise ValueError(
            "the tokenizer has no EOS token: nothing would teach the student to stop; set "
            "tokenizer.eos_token and save it to the student's folder"
        )
    if policy.template != CHAT:
        return tokenizer.eos_token_id
    chat_prompt(tokenizer, "Question")  # refuses what has no template
    turns = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"}]
    try:
        after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("Answer")[2]
    except jinja2.TemplateError:
        return tokenizer.eos_token_id
    return next(
        (token for token in _tokenize(tokenizer, [after])[0] if token in tokenizer.added_tokens_decoder),
        tokenizer.eos_token_id,
    )


def encode_examples(tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, response ids + EOS) of (question, response) pairs by the default policy, which cuts nothing."""
    return [(e.prompt_ids, e.response_ids) for e in encode(tokenizer, pairs)]


def policy_notes(tokenizer, policy: Policy) -> list[str]:
    """What is not the paper's template, or may not suit this student: its chat template, a BOS that it is used to."""
    if policy.template == CHAT:
        end = tokenizer.convert_ids_to_tokens(end_token(tokenizer, policy))
        return [f"the student reads its own chat template; a whole response ends with {end}"]
    if policy.bos or tokenizer.bos_token_id is None or tokenizer("")["input_ids"][:1] != [tokenizer.bos_token_id]:
        return []
    return [
        f"this student's tokenizer begins every text with {tokenizer.bos_token}, which is left out as in the paper; some "
        "(Gemma) read badly without: --bos adds it, in gradients, training and evaluation alike"
    ]


def encoding_notes(encoded: Sequence[Encoded], policy: Policy) -> list[str]:
    """What a reader of the numbers must know of how responses became tokens: what was cut, and what text spelt out."""
    n, lost = len(encoded), [e.n_cut for e in encoded if e.n_cut]
    counted = (
        (
            len(lost),
            f"did not fit max_tokens={policy.max_tokens} and were cut: {sum(lost):,} tokens lost, "
            f"at most {max(lost, default=0):,} of one response",
        ),
        (sum(e.cut for e in encoded), "were cut by their teacher's limit: they end without an end token"),
        (sum(e.ended for e in encoded), "ended with an end token written as text, which was taken off"),
        (sum(e.spelt for e in encoded), "spell out special tokens of the student, which are read as plain text"),
    )
    return [f"{count:,} of {n:,} responses {what}" for count, what in counted if count]


def chat_prompt(tokenizer, question: str, instruction: str = TEACHER_INSTRUCTION) -> str:
    """What an instruction-tuned teacher is shown: instruction, blank line, question as the user's turn in the
    tokenizer's chat template, up to where the answer starts.

    The text holds the template's own special tokens, often a BOS: tokenise it with `encode_questions`, which adds no
    second one. Raises ValueError for a tokenizer without a chat template, or one whose template refuses the messages.
    """
    import jinja2

    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the tokenizer has no chat template: is this an instruction-tuned model? Give a base model "
            "the student's template instead (style 'student', no --template chat)"
        )
    messages = [{"role": "user", "content": f"{instruction}\n\n{question}" if instruction else question}]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:  # a template may demand a system message, or turns in an order of its own
        raise ValueError(f"the chat template refuses these messages ({error})") from error


def _tokenize(tokenizer, texts: Sequence[str], **how) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, **how)["input_ids"]
