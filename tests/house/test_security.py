"""What strangers wrote - text of models, checkpoints, files - is read and never run, and no secret of ours leaves
with the results. SECURITY.md says what is trusted.
"""

import ast
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from checkpoints_for_tests import make_checkpoint
from gracelib.jobs import paths
from gracelib.jobs.paths import ROOT
from gracelib.ranking import report
from gracelib.text.grading import Grader

TOKEN = "planted0token7f3a9c51d2e8"
SECRETS = {
    name: f"{name.lower()}-{TOKEN}" for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "MY_PASSWORD")
}
EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)>',
    "</td></table><iframe src=//x>",
    "--><b>",
    "$\\frac{1}{",
    "a$b$_^{",
]


# --- nothing is evaluated -----------------------------------------------------------------------------------


def dangers(source: str, own: bool = True) -> list[str]:
    """What in a Python source runs text, unpickles, or takes a stranger's code; "line: what". `own`: of the package,
    where a model's weights must be asked for as safetensors."""
    picklers = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code"}
    run_text = {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"}
    run_text_of_a_library = {"sympify", "parse_expr", "read_pickle", "unsafe_load", "literal_eval_unsafe"}
    shells = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
    found = []
    for node in ast.walk(ast.parse(source)):
        faults = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            faults = [(bool(picklers & {name.split(".")[0] for name in names}), "imports a pickler")]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            loads_weights = own and last == "from_pretrained" and "ForCausalLM" in called
            faults = [
                (called in run_text or last in run_text_of_a_library, f"calls {called}"),
                (called in shells, f"starts a shell: {called}"),
                (given.get("shell", "False") != "False", "starts a shell: shell="),
                (
                    called in ("np.load", "numpy.load") and "allow_pickle" not in given,
                    "np.load without allow_pickle=False",
                ),
                (given.get("allow_pickle", "False") != "False", "allow_pickle"),
                (called in ("torch.load", "yaml.load"), called),
                (given.get("trust_remote_code", "False") != "False", "trust_remote_code"),
                (loads_weights and given.get("use_safetensors") != "True", "weights without use_safetensors=True"),
            ]
        found += [f"{node.lineno}: {what}" for there, what in faults if there]
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "gracelib").rglob("*.py")), ids=lambda path: path.stem)
def test_the_package_runs_no_text_and_reads_no_pickle(path):
    assert dangers(path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_nor_do_the_notebooks(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            code = "\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!")))
            assert dangers(code, own=False) == [] and not re.search(r"^[!%]", cell.source, re.MULTILINE)


@pytest.mark.parametrize(
    "planted",
    [
        "eval(response)",
        "exec(text)",
        "compile(text, 'x', 'exec')",
        "import pickle",
        "from joblib import load",
        "import dill as d",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "sympy.sympify(answer)",
        "pd.read_pickle(path)",
        "AutoTokenizer.from_pretrained(path, trust_remote_code=True)",
        "AutoConfig.from_pretrained(p, trust_remote_code=own)",
        "AutoModelForCausalLM.from_pretrained(path)",
        "AutoModelForCausalLM.from_pretrained(p, use_safetensors=False)",
    ],
)
def test_the_scan_would_find_a_planted_one(planted):
    assert len(dangers(f"def f():\n    {planted}\n")) == 1


def test_the_scan_knows_what_is_harmless():
    assert (
        dangers(
            "import re, ast\nre.compile('x')\nast.literal_eval(t)\nmodel.eval()\nnp.load(p, allow_pickle=False)\n"
            "AutoModelForCausalLM.from_pretrained(p, use_safetensors=True, trust_remote_code=False)\n"
        )
        == []
    )


def test_a_pickle_in_a_checkpoint_is_never_opened(tmp_path):
    """Beside good weights, in place of them, and named by an index: the pickle would leave a file behind."""
    import torch

    from gracelib.models.checkpoints import load_student

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "it_ran"), "w"))

    student = make_checkpoint(tmp_path / "student", "llama")
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt"):
        torch.save({"a": Bomb()}, student / name)
    assert load_student(student)[0].config.model_type == "llama"
    (student / "model.safetensors").unlink()
    for index in (None, {"weight_map": {"a": "pytorch_model.bin"}}):
        if index:
            (student / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="pickles"):
            load_student(student)
    assert not (tmp_path / "it_ran").exists()


# --- what is shown ------------------------------------------------------------------------------------------


#: Tags and attributes of a page that would run something.
RUNS = re.compile(r"<(?:script|iframe|object|embed|base)\b|<[^>]*(?:\bon\w+\s*=|javascript:)", re.IGNORECASE)


def test_a_table_in_a_notebook_escapes_what_models_wrote():
    """What a notebook displays of a table of teachers and responses is pandas' own HTML, which must escape."""
    shown = pd.DataFrame({"teacher": EVIL, "response": EVIL}, index=EVIL)._repr_html_()
    assert not RUNS.search(shown) and "&lt;script&gt;" in shown and all(map(RUNS.search, EVIL[:4]))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not re.search(
                r"\bHTML\(|escape\s*=\s*False|\bMarkdown\(|\.to_html\(|\bdisplay_html|Javascript\(",
                cell.source if cell.cell_type == "code" else "",
            ), path.name
            for output in cell.get("outputs", []):
                assert not RUNS.search("".join(output.get("data", {}).get("text/html", ""))), path.name


def test_names_of_teachers_are_drawn_as_they_are(tmp_path):
    """Dollars are no formula that fails after hours, and a picture holds no script."""
    n = len(EVIL)
    table = pd.DataFrame(
        {
            "rank": range(1, n + 1),
            "teacher": EVIL,
            "grace": np.arange(n) + 1.0,
            "grace_low": np.arange(n) + 0.5,
            "grace_high": np.arange(n) + 1.5,
            "g_norm": 1.0,
            "g_vendi": 1.0,
            "mean_length": 5.0,
            "student_loss": 1.0,
        }
    )
    neighbours = pd.DataFrame({"rank": range(1, n), "better": EVIL[:-1], "worse": EVIL[1:], "apart": [True] * (n - 1)})
    path = tmp_path / "ranking.svg"
    report.save_picture(report.ranking_figure(table, neighbours, EVIL[0]), path)
    tags = {
        element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter() if isinstance(element.tag, str)
    }
    assert "svg" in tags and not tags & {"script", "foreignObject", "iframe", "img"}
    assert "<script" not in re.sub(r"<!--.*?-->", "", path.read_text("utf-8"), flags=re.DOTALL)


# --- secrets ------------------------------------------------------------------------------------------------


def leaks(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_no_secret_of_the_environment_is_in_what_a_run_leaves(tmp_path):
    """A part of a `nano` run and two `score` runs, one of them refused, with secrets in the environment."""
    make_checkpoint(tmp_path / "student", "llama")
    rows = [
        {"id": i, "question": f"What is {i} + {i}?", "responses": [f"It is {2 * i}.", "No idea."]} for i in range(4)
    ]
    (tmp_path / "teacher.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = (
        os.environ
        | SECRETS
        | {
            "GRACELIB_RUNS": str(tmp_path / "runs"),
            "GRACELIB_FIGURES": str(tmp_path / "figures"),
            "PYTHONPATH": str(ROOT),
            "GRACELIB_WORKERS": "1",
            "HF_HUB_OFFLINE": "1",
        }
    )
    said = []
    for command in (
        ["recompute", "--scale", "nano", "--part", "teachers"],
        ["score", "teacher.jsonl", "--student", "student", "--n", "4", "--m", "2", "--d", "4", "--folds", "2"],
        ["score", "teacher.jsonl", "--student", "nowhere/at-all", "--n", "4", "--m", "2"],
    ):
        said.append(
            subprocess.run(
                [sys.executable, "-m", "gracelib.cli", *command],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                timeout=600,
            )
        )
    assert [done.returncode for done in said] == [0, 0, 2], said[0].stderr[-2000:] + said[1].stderr[-2000:]
    assert TOKEN not in "".join(done.stdout + done.stderr for done in said)
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"meta.json", "ranking.settings.json", "ranking.csv", "ranking.svg", "responses.jsonl"} <= written
    assert leaks(tmp_path) == []


def test_no_secret_is_in_an_executed_notebook_or_a_sidecar(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    from gracelib.drawing.saving import Drawn
    from gracelib.jobs import notebooks

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    shutil.copytree(paths.published("mini") / "results", paths.results("mini"))
    Drawn(Figure(), pd.DataFrame({"x": [1]}), "A caption.", "A picture.", {}, {}).save(
        "mini", "fig01_correlations", inputs=["scores"], seed=0, parameters={"scale": "mini"}
    )
    assert (paths.figures("mini") / "fig01_correlations.json").is_file()
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    notebooks.run("mini", recompute=False, notebooks=[ROOT / "notebooks" / "03_scores.ipynb"])
    assert len(list(tmp_path.glob("runs/notebook/*/03_scores.ipynb"))) == 1 and leaks(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows the environment of a process")
def test_the_grading_process_is_told_no_secret(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    before = set(multiprocessing.active_children())
    with Grader(workers=1) as grader:
        assert grader.grade([(r"\boxed{\frac{2}{4}}", r"\frac{1}{2}")]) == [True]
        (process,) = set(multiprocessing.active_children()) - before
        told = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert os.environ["HF_TOKEN"] == SECRETS["HF_TOKEN"]  # ours is as it was
    assert b"PATH=" in told and TOKEN.encode() not in told
    assert not {name.encode() for name in SECRETS} & {entry.partition(b"=")[0] for entry in told.split(b"\0")}


# --- advisories ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script, status", [("exit 0", 0), ("exit 1", 2), (None, 2)], ids=["clean", "found", "absent"])
def test_an_audit_asks_about_every_package_and_fails_where_it_cannot(script, status, tmp_path):
    """`make audit` for real, with a stand-in for the program that asks."""
    stand_in = tmp_path / "pip-audit"
    if script:
        stand_in.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{script}\n')
        stand_in.chmod(0o755)
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    variables = [f"PIP_AUDIT={stand_in}", f"BIN={Path(sys.executable).parent}", f"AUDIT_VENV={tmp_path}"]
    made = ["-o", ".venv/.installed", "-o", f"{tmp_path}/.installed"]
    done = subprocess.run(["make", *made, "audit", *variables], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == status, done
    asked = (tmp_path / "asked.txt").read_text()
    assert "\nnumpy==" in asked and "\ntorch==" in asked and "+" not in asked and "\ngracelib" not in asked
    if script:
        assert (tmp_path / "arguments").read_text().startswith("--strict ")
