"""One environment however it is made: conda users get what pip users get, and the pinned set fits the bounds."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gracelib.jobs.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]


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
