"""The house stands: a wing imports only what stands below it, definitions need no torch, nothing private is borrowed."""

import ast
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from gracelib.jobs.paths import PACKAGE, ROOT

MODULES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}
DEFINITIONS = [name for name in MODULES if "." not in name and name != "__init__"]
TORCH = ("features", "models", "bench")  #: wings that may import torch at the head of a module
FOREIGN = {"torch", "transformers", "safetensors", "datasets", "accelerate"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def imports(nodes) -> set[str]:
    """Full names of everything that these statements import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_a_wing_imports_only_what_stands_below_it():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_no_private_name_is_borrowed(module):
    """What another module needs is public: a private name across modules marks a cut in the wrong place."""
    borrowed = [
        name
        for name in imports(ast.walk(tree(module)))
        if name.startswith("gracelib.")
        and any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
    ]
    own = {
        alias.asname or alias.name
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("gracelib")
        for alias in node.names
        if ".".join([*node.module.split("."), alias.name][1:]) in MODULES
    }
    used = [
        ast.unparse(node)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in own
        and node.attr.startswith("_")
    ]
    assert not borrowed + used


@pytest.mark.parametrize("module", DEFINITIONS)
def test_definitions_are_pure_numpy(module):
    """No torch, no tables, no files: a score is a function of its arrays."""
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "difflib",
        "functools",
        "hashlib",
        "itertools",
        "math",
        "typing",
        "warnings",
        "numpy",
        "scipy",
        "gracelib",
    }
    if module == "projection":
        allowed |= {"sys", "torch"}  # signs are made where the gradients lie
    assert {found.split(".")[0] for found in imports(ast.walk(tree(module)))} <= allowed
    calls = {
        node.func.id
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] not in (*TORCH, "projection")])
def test_torch_is_loaded_only_where_it_computes(module):
    """Elsewhere it is imported inside the functions that need it: a notebook that reads tables and draws never loads it."""
    assert not {found.split(".")[0] for found in imports(tree(module).body)} & FOREIGN


def test_reading_tables_and_drawing_load_no_torch():
    """A figure notebook imports no torch, not even by way of something else; nor does a public name's first use."""
    code = (
        "import sys, gracelib, gracelib.experiment.tables, gracelib.drawing.marks, gracelib.drawing.saving, "
        "gracelib.jobs.notebooks; gracelib.score_teachers; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_public_names_are_there_and_an_unknown_one_is_refused():
    import gracelib

    for public in gracelib.__all__:
        found = getattr(gracelib, public)
        module = import_module("gracelib.baselines" if public == "SCORES" else found.__module__)
        assert getattr(module, public) is found, public
    with pytest.raises(AttributeError, match="has no attribute 'graze'; public names"):
        gracelib.graze  # noqa: B018
