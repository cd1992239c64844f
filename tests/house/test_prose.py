"""Plain English in what users read and maintainers write: phrases that a newcomer stumbles over are not used."""

import re
import subprocess

import nbformat
import pytest

from gracelib.jobs import paths

COUNTED = "rows?|marks?|lines?|bars?|panels?|responses?|prompts?|tokens?|gradients?|numbers|samples|seconds?|minutes|curves?|files?|nats|one|ms|s|MB|GB"
PER = "response|prompt|teacher|student|cell|token|score|step|family|task|setting|problem|panel|stage|file|checkpoint|line|row|core|budget"
PLAIN = {
    # "one row a teacher", but not "rows a teacher has" or "tokens a prompt's text takes"
    "per, not a": rf"\b(?:{COUNTED}) an? (?:{PER})\b(?!'s| (?:has|is|of|takes|that|which|flags|needs|gets|may|can|selects)\b)",
    "minus, not less": r"\b(?:GRACE|accuracy|correlation|d/2|\d) less (?:G-Norm|the)\b",
    "say": r"\bforetell",
    "in place of, for": r"\bin the place of\b",
    "tell apart": r"\bcannot tell \w+ from another\b",
}
LIST = ["git", "ls-files", "*.md", "*.py", "*.ipynb", "Makefile"]
FILES = subprocess.run(LIST, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("name", [name for name in FILES if name != "tests/house/test_prose.py"])
def test_the_words_are_plain(name):
    text = (paths.ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
    text = " ".join(text.split())
    found = [
        f"{rule}: ...{text[max(0, m.start() - 30) : m.end() + 20]}..."
        for rule, p in PLAIN.items()
        for m in re.finditer(p, text)
    ]
    assert found == []
