"""Where question and responses are in the rows that other programs write: one table, and what its fields may hold.

Why a table and not a reader for each program: most rows differ in names only. A field holds a text, or a list of texts,
or what inference servers and chats put around a text; each of these is looked through wherever it stands, so that a new
program is a new line here, and in the table of notebooks/formats.md, which a test compares.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from gracelib.text.formats import short

QUESTION = ("question", "problem", "prompt")  #: two of them in a row must agree
LISTS = ("responses", "generations", "completions", "outputs")
RESPONSE = (*LISTS, "response", "generation", "completion", "output")


@dataclass(frozen=True)
class Shape:
    """Rows as some program writes them: the fields that hold the question, and one response or a list of all; and those
    without which the others could mean something else (`content` may be a document that the question is about)."""

    name: str
    question: tuple[str, ...]
    response: tuple[str, ...]
    also: tuple[str, ...] = ()


SHAPES = (
    Shape("the paper's code, TRL prompt-completion, vLLM outputs, OpenR1, NeMo", QUESTION, RESPONSE),
    Shape("distilabel, Alpaca, Dolly, Magpie", ("instruction", "input", "context"), RESPONSE, ("instruction",)),
    Shape("pairs of input and output", ("input",), ("output",)),
    Shape("reasoning in a field of its own", QUESTION, ("content",), ("reasoning_content",)),
    Shape("OpenMathInstruct, OpenThoughts (metadata)", QUESTION, ("generated_solution", "deepseek_solution")),
    Shape("Qwen2.5-Math evaluation", ("question",), ("code",), ("pred",)),
    Shape("lm-evaluation-harness samples", ("doc",), ("resps",)),
    Shape("chat: OpenAI and TRL messages", ("messages",), ("messages",)),
    Shape("chat: ShareGPT, OpenThoughts conversations", ("conversations",), ("conversations",)),
    Shape("OpenAI and vLLM batch output", ("custom_id",), ("response",)),
)
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
_TEXT = ("text", "content", "value")  #: where an object of a server or of a chat has its text
_THOUGHT_BEGINS, _THOUGHT_ENDS = ("<think>", "<|begin_of_thought|>"), re.compile(r"</think>|<\|end_of_thought\|>")
_SOLUTION = re.compile(r"<\|(begin|end)_of_solution\|>")


class Said(NamedTuple):
    """A response as it stands in a file, unchecked."""

    text: object
    reason: object = None  #: why it ended
    thought: object = None  #: reasoning apart from it


def shape_of(there: dict, row: dict) -> Shape:
    """The first shape with its question and response in what is `there` of a row, else the first with its question."""

    def fit(shape: Shape) -> tuple[bool, bool]:
        asked = any(name in there for name in shape.question) and all(name in row for name in shape.also)
        return asked and any(name in there for name in shape.response), asked

    return max(SHAPES, key=fit)


def question_in(value: object, name: str, where: str, whole: bool = False) -> object:
    """What the user asks in the field `name`: its text, that of a chat, or that of an object with a question. `whole`: the
    field is a chat that holds the response too."""
    if whole or _is_objects(value):
        return _text_in(_turn("user", value, name, where, whole))
    if not isinstance(value, dict):
        return value
    if not (found := [value[key] for key in QUESTION if value.get(key) is not None]):
        has = short(", ".join(value) or "none")
        raise ValueError(f"{where}: no question in {name!r}; expected one of {', '.join(QUESTION)}; it has {has}")
    return found[0]


def responses_in(value: object, name: str, where: str, whole: bool = False) -> list[Said]:
    """The responses in the field `name`: in a text, a chat, an answer of an inference server, or in a list of these."""
    if whole or is_chat(value) or not isinstance(value, list):
        return _said(value, name, where, whole)
    if name == "resps":  # a list for each request of the document
        value = [one for several in value for one in (several if isinstance(several, list) else [several])]
    return [said for one in value for said in _said(one, name, where)]


def without_thought(text: str) -> str:
    """A response without the reasoning that is written into it; empty where that does not end."""
    rest = _THOUGHT_ENDS.split(text)[-1]
    if rest == text:
        return "" if text.lstrip().startswith(_THOUGHT_BEGINS) else text
    return _SOLUTION.sub("", rest).strip()


def _said(value: object, name: str, where: str, whole: bool = False) -> list[Said]:
    if whole or is_chat(value):
        value = _turn("assistant", value, name, where, whole)
    if not isinstance(value, dict):
        return [Said(value)]
    body = value["body"] if isinstance(value.get("body"), dict) else value
    found = []
    for choice in body["choices"] if _is_objects(body.get("choices")) else [body]:
        message = choice["message"] if isinstance(choice.get("message"), dict) else choice
        thought = message.get("reasoning_content") or message.get("reasoning")
        found.append(Said(_text_in(message), choice.get("finish_reason"), thought))
    return found


def _text_in(turn: dict) -> object:
    """The text of an object, whole or in parts; the object itself if it has none."""
    names = [name for name in _TEXT if name in turn]
    text = next((turn[name] for name in names if turn[name] is not None), None if names else turn)
    if _is_objects(text) and all(isinstance(part.get("text"), str) for part in text):
        return "".join(part["text"] for part in text)
    return text


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def is_chat(value: object) -> bool:
    return _is_objects(value) and all(isinstance(turn.get("role") or turn.get("from"), str) for turn in value)


def _turn(role: str, chat: object, name: str, where: str, whole: bool) -> dict:
    """The turn of user or assistant in a chat of this one turn, or of both. What its system says is not part of the
    question."""
    turns = [(turn.get("role") or turn["from"], turn) for turn in chat] if is_chat(chat) else []
    turns = [(_ROLES.get(who, who), turn) for who, turn in turns]
    roles = [who for who, _ in turns if who != "system"]
    if roles != (["user", "assistant"] if whole else [role]):
        raise ValueError(
            f"{where}: field {name!r} is a chat of {len(roles)} turns ({short(', '.join(roles[:6]))}); only one question with its "
            "one answer can be scored; keep such rows, or cut each chat to its first question and answer"
        )
    return dict(turns)[role]
