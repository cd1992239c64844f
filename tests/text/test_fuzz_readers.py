"""Whatever bytes a file holds, a reader gives rows or one error of ours: no hang, no other exception.

The same bytes are drawn in every run. Half of the examples are whole files with something cut, turned or put in,
because random bytes rarely get past the first check.
"""

import io
import json

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gracelib.cli.experiment import parameter_value
from gracelib.experiment.scales import get_scale
from gracelib.experiment.tables import NEEDED, read_table
from gracelib.features.files import load_features
from gracelib.jobs import notebooks
from gracelib.models.prompting import Policy
from gracelib.models.sampled_file import GenerationFile, sidecar
from gracelib.paper.figures import figures_named
from gracelib.paper.settings import PAPER, with_file
from gracelib.text.responses import FIELDS, read_generations, read_jsonl, read_requests, read_responses
from nano_for_tests import write_notebook


def drawn(n):
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def refused_or(function, place=""):
    """What the function gives, or None if it refused in one line (that names the place)."""
    try:
        return function()
    except (ValueError, OSError) as error:
        assert type(error).__name__ not in ("UnicodeDecodeError", "UnicodeEncodeError", "JSONDecodeError"), repr(error)
        message = str(error)
        assert "\n" not in message and len(message) < 1500, message[:2000]
        assert place in message, message
        return None


#: What servers and chats put around a text.
AROUND = ("role", "from", "content", "text", "value", "body", "choices", "message", "status_code", "type")
SCALARS = st.sampled_from(
    [
        "user",
        "gpt",
        "<think>",
        "['a']",
        None,
        True,
        0,
        -7,
        10**400,
        1.5,
        2.0,
        float("nan"),
        float("inf"),
        "",
        " ",
        "\0",
        "\ud800",
        "\n",
    ]
)
VALUES = st.recursive(
    SCALARS | st.integers(-3, 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS + AROUND) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.dictionaries(
    st.sampled_from([*FIELDS, "other"]),
    VALUES | st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=3),
    max_size=5,
)
GOOD = [
    {"id": i, "question": f"What is {i} + {i}?", "answer": str(2 * i), "responses": [f"It is {2 * i}.", "No."]}
    for i in range(3)
]


@st.composite
def damaged(draw, whole: bytes):
    at = draw(st.integers(0, len(whole)))
    how = draw(st.sampled_from(["cut", "turn", "put in", "twice"]))
    if how == "cut":
        return whole[:at]
    if how == "turn":
        return whole[:at] + bytes(b ^ draw(st.integers(1, 255)) for b in whole[at : at + 1]) + whole[at + 1 :]
    if how == "put in":
        return whole[:at] + draw(st.binary(min_size=1, max_size=6)) + whole[at:]
    return whole[:at] + whole


def jsonl(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows) -> bytes:
    file = io.BytesIO()
    pd.DataFrame(rows).to_parquet(file)
    return file.getvalue()


@drawn(480)
@given(
    file=st.tuples(
        st.binary(max_size=60)
        | st.text(alphabet='{}[]",:\\ue \r\n"question"0', max_size=40).map(str.encode)
        | damaged(jsonl(GOOD))
        | damaged(json.dumps(GOOD, indent=0).encode())
        | st.lists(ROWS | VALUES | st.just(GOOD[0]), max_size=4).map(jsonl)
        | st.lists(ROWS | VALUES | st.just(GOOD[0]), max_size=4).map(lambda rows: json.dumps(rows).encode()),
        st.sampled_from([".jsonl", ".json"]),
    )
    | st.tuples(damaged(parquet(GOOD)) | st.binary(max_size=60), st.just(".parquet"))
)
@example(file=(parquet(GOOD), ".parquet"))
def test_prompts_and_generations(file, tmp_path):
    """Prompts that hold what they promise, from every reader of them, or an error that begins with the path."""
    content, suffix = file
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    refused_or(lambda: read_requests([path]), str(path))
    refused_or(lambda: read_generations(path, thinking="drop", requests={"": "q ?", "user": "r ?"}), str(path))
    found = refused_or(lambda: read_generations(path), str(path))
    if found is not None:
        assert len({p.id for p in found.prompts}) == len({p.question for p in found.prompts}) == len(found.prompts) > 0
        for p in found.prompts:
            assert p.id.strip() and p.question.strip() and p.responses and all(r.strip() for r in p.responses)
            "".join((p.id, p.question, p.answer or "", *p.responses)).encode()
    for read in (read_jsonl, read_responses):
        rows = refused_or(lambda read=read: read(path), str(path))
        assert rows is None or len({row["id"] for row in rows}) == len(rows) > 0


def test_feature_files(tmp_path):
    from safetensors.numpy import save_file

    n, path = 6, tmp_path / "features.safetensors"
    arrays = {
        "g": np.ones((n, 2), np.float32),
        "prompt": np.repeat(np.arange(3), 2),
        "length": np.full(n, 4),
        **{name: np.full(n, 0.5) for name in ("loss", "mean_prob", "grad_norm")},
        "token_rank": np.arange(4 * n, dtype=np.uint8),
    }
    save_file(arrays, path, metadata={"about": json.dumps({"prompt_ids": ["a", "b", "c"]})})
    whole = path.read_bytes()
    head = int.from_bytes(whole[:8], "little") + 8
    texts = [b'"F32"', b'"I64"', b'"g"', b"[6]", b"[6,2]", b"prompt_ids", b"about", b'\\"a\\"']

    @drawn(150)
    @given(
        damaged(whole)
        | damaged(whole[:head]).map(lambda start: start + whole[head:])
        | st.builds(
            lambda old, new: whole.replace(old, new[: len(old)].ljust(len(old))),
            st.sampled_from(texts),
            st.sampled_from([b"null", b'"BF16"', b'"F8_E4M3"', b'"BOOL"', b'"x"', b"[-1]", b"[1, 2]", b"[]", b"{}"]),
        )
    )
    def check(content):
        path.write_bytes(content)
        found = refused_or(lambda: load_features(tmp_path), str(path))
        if found is not None:
            assert len(found["g"]) == len(found["prompt_id"]) == len(found["length"])
            assert len(found.get("token_rank", ())) in (0, found["length"].sum())

    check()
    path.write_bytes(whole)
    assert load_features(tmp_path, m=1)["token_rank"].tolist() == [*range(4), *range(8, 12), *range(16, 20)]


@drawn(120)
@given(
    content=st.binary(max_size=40)
    | damaged(jsonl([{"settings": {"m": 2}}, *GOOD]))
    | st.lists(VALUES | ROWS, max_size=3).map(lambda rows: jsonl([{"settings": {"m": 2}}, *rows]))
)
def test_a_generation_file_that_was_left(content, tmp_path):
    """The .part of a stopped run and the sidecar of a finished one: continued, or refused."""
    file = GenerationFile(tmp_path / "out.jsonl", {"m": 2})
    file.part.write_bytes(content)
    rows = refused_or(file.resume, str(file.part))
    assert rows is None or all(isinstance(row, dict) and row["id"] == name for name, row in rows.items())
    file.path.write_bytes(b"{}\n")
    sidecar(file.path).write_bytes(content)
    assert not refused_or(file.finished, str(file.path))
    file.path.unlink()


@drawn(80)
@given(name=st.sampled_from(sorted(NEEDED)), data=st.data())
def test_result_tables(name, data, tmp_path):
    from gracelib.jobs.paths import ROOT

    whole = (ROOT / "figures" / "published" / "mini" / "results" / f"{name}.csv").read_bytes()
    content = data.draw(damaged(b"".join(whole.splitlines(keepends=True)[:3])) | st.binary(max_size=30))
    path = tmp_path / f"{name}.csv"
    path.write_bytes(content)
    found = refused_or(lambda: read_table(path, "make figures"), str(path))
    assert found is None or set(NEEDED[name]) <= set(found)


SECTIONS = ("settings", "only", "students", "teachers", "tasks", "gsm8k", "math", "other")
KEYS = ("m", "lr", "backend", "n_prompts", "teacher", "temperature", "Phi-4", "gsm8k", "d_kept", "seed", "x")


@drawn(150)
@given(
    content=st.binary(max_size=30)
    | st.dictionaries(
        st.sampled_from(SECTIONS), VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3), max_size=3
    ).map(lambda record: json.dumps(record).encode())
)
def test_settings_of_scale_paper(content, tmp_path):
    for suffix in ("json", "toml"):
        path = tmp_path / f"paper.{suffix}"
        path.write_bytes(content)
        refused_or(lambda path=path: with_file(PAPER, path))


CODE = st.text(st.sampled_from("ab=1 \n\"'[](){}:,.#\\-+\t\0e9é"), max_size=25)


@drawn(150)
@example(text="a=" + "-" * 50_000 + "1")  # too deep for Python's parser: MemoryError
@given(
    text=CODE
    | st.sampled_from(
        ["[" * 5000, "-" * 50_000 + "1", "a=" + "(" * 300, "a=1\n" * 500, "a: int", "a = b = 1", "a, b = 1, 2"]
    )
)
def test_parameters(text, tmp_path):
    path = tmp_path / "00_x.ipynb"
    write_notebook(path, dial=text)
    for name, default in (refused_or(lambda: notebooks.parameters_of(path), path.name) or {}).items():
        refused_or(lambda name=name, default=default: notebooks.check_value(path.name, name, 1, default), path.name)
    for read in (parameter_value, figures_named, get_scale, Policy):
        refused_or(lambda read=read: read(text))


@drawn(60)
@given(
    content=st.binary(max_size=30)
    | VALUES.map(lambda value: json.dumps({"cells": value, "metadata": value, "nbformat": 4}).encode())
)
def test_a_notebook_that_is_none(content, tmp_path):
    path = tmp_path / "00_x.ipynb"
    path.write_bytes(content)
    refused_or(lambda: notebooks.parameters_of(path), path.name)
