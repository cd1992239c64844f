"""One environment however it is made, and a house whose floors hold: conda users get what pip users get, the
pinned set fits the bounds, a lower floor never imports a higher one, scores need no torch, and drawing a
figure loads none.
"""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gracelib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]
MODULES = {path.stem: path for path in (ROOT / "gracelib").glob("*.py")}


def name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


# --- packages -----------------------------------------------------------------------------------------------


def test_conda_users_get_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert environment["name"] == "gracelib"
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert f"python{PROJECT['requires-python']}" in conda and {"pip", "make"} <= set(conda)
    listed = [line for line in pip if not line.startswith("--")]
    assert sorted(listed) == sorted(PROJECT["dependencies"] + EXTRAS["test"])
    assert {line for line in pip if line.startswith("--")} == {"--constraint constraints.txt", "--editable ."}


def test_the_packages_of_the_design_are_all_there():
    have = {name(r) for r in PROJECT["dependencies"]} | {name(r) for r in EXTRAS["test"]}
    assert {
        "jupyterlab",
        "papermill",
        "torch",
        "transformers",
        "datasets",
        "numpy",
        "scipy",
        "seaborn",
        "nbval",
    } <= have
    assert "vllm" in {name(r) for r in EXTRAS["gpu"]} and "vllm" not in have  # it brings its own torch


def test_the_pinned_set_fits_the_bounds():
    pinned = {canonicalize_name(line.split("==")[0]): Version(line.split("==")[1]) for line in CONSTRAINTS}
    for text in PROJECT["dependencies"] + EXTRAS["test"]:
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"constraints.txt pins no {requirement.name}"
        assert version in requirement.specifier, f"{requirement} does not hold for the pinned {version}"
        assert all(s.operator == ">=" for s in requirement.specifier), f"{requirement}: lower bounds only"


def test_the_pinned_set_names_no_place():
    """Exact versions and nothing else: no index, no host, no path, no local build."""
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    assert len({canonicalize_name(line.split("==")[0]) for line in CONSTRAINTS}) == len(CONSTRAINTS)
    for file in ("constraints.txt", "pyproject.toml", "environment.yml"):
        assert not re.search(r"https?://|--index|--find-links|file:", (ROOT / file).read_text("utf-8"))


# --- floors -------------------------------------------------------------------------------------------------

FLOORS = {  # scales is on floor 1: it lists the cast of the world
    0: "paths disk store workers devices heap",  # the ground
    1: "feature_file world world_models scales encoding tasks filtering answers generate training distill evaluate prompting checkpoints records generations ingest final_answers grading grading_worker problems generation_file sampling_inputs transformers_backend vllm_backend backends accuracy paper_models paper_scale paper_cost",  # data
    2: "projection contributions per_response batching gradients parameter_choice memory chunks sft triton_projection projection_choice",  # torch
    3: "checks moments scores grid baselines cmi influence variants",  # arrays in, numbers out
    4: "stats resample intervals coverage paper registry tables score_tables style plots figures captions setups slices paper_figures ablation_tables training_figures ablation_figures subset_figures choice_tables choice_text choice_plots choice_figures cmi_figures world_report length_tables length_figures cost_figures claim_measures ranking_report bench_report table_files",  # reading
    5: "__init__ stages score_stages pipeline pathological measures feature_measures protocol extra_runs cleaning notebooks explain verify given notebook_checks bench bench_cuda commands gallery cli ranking cli_score cli_cells claim_world claim_kinds claim_tables claim_list claims paper_stages paper_plan paper_run cli_distill cli_paper cli_truth estimators bench_methods audit notebook_parameters",  # what puts them together
}
FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules.split()}


def imports(module: str) -> set[str]:
    """Full names of everything a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_module_has_a_floor():
    assert set(MODULES) == set(FLOOR_OF), "a new module: say in FLOORS which floor it is on"


@pytest.mark.parametrize("module", sorted(FLOOR_OF))
def test_a_lower_floor_never_imports_a_higher_one(module):
    used = {found.split(".")[1] for found in imports(module) if found.startswith("gracelib.")} & set(MODULES)
    too_high = {m: FLOOR_OF[m] for m in used if FLOOR_OF[m] > FLOOR_OF[module]}
    assert not too_high, f"{module} (floor {FLOOR_OF[module]}) imports {too_high}"


@pytest.mark.parametrize("module", FLOORS[3].split())
def test_scores_are_pure_numpy(module):
    """No torch, no tables, no files: a score is a function of its arrays."""
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "functools",
        "itertools",
        "math",
        "typing",
        "warnings",
        "numpy",
        "scipy",
        "gracelib",
    }
    assert {found.split(".")[0] for found in imports(module)} <= allowed
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print"}


@pytest.mark.parametrize("module", FLOORS[4].split())
def test_reading_needs_no_torch(module):
    assert not {found.split(".")[0] for found in imports(module)} & {"torch", "transformers", "safetensors"}


def test_reading_tables_and_drawing_load_no_torch():
    """A figure notebook imports no torch, not even by way of something else."""
    code = (
        "import sys, gracelib, gracelib.pipeline, gracelib.plots, gracelib.figures, gracelib.notebooks; "
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_public_names_are_there_and_an_unknown_one_is_refused():
    import gracelib

    for public in gracelib.__all__:
        assert callable(getattr(gracelib, public)), public
    with pytest.raises(AttributeError, match="has no attribute 'graze'; public names"):
        gracelib.graze  # noqa: B018


# --- house rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(MODULES))
def test_house_rules(module):
    """Thin, explained, and nothing that runs what a file says."""
    source = MODULES[module].read_text("utf-8")
    assert len(source.splitlines()) <= 300, (
        f"{module}: more than 300 lines; look for the second thing it does"
    )
    tree = ast.parse(source)
    assert ast.get_docstring(tree), f"{module}: no docstring at its head"
    assert not {found.split(".")[0] for found in imports(module)} & {
        "pickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") not in ("eval", "exec"), f"{module}, line {node.lineno}"
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert given.get("trust_remote_code", "False") == "False", f"{module}, line {node.lineno}"
            assert given.get("allow_pickle", "False") == "False", f"{module}, line {node.lineno}"
            if ast.unparse(node.func) == "torch.load":
                assert given.get("weights_only") == "True", f"{module}, line {node.lineno}"
