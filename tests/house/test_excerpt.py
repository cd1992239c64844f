"""The excerpt of real generations is what its README says: the same 24 problems in ten files, small and
attributed. Every test on real text in a fresh clone stands on it.
"""

import json
import re
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
EXCERPT = DATA / "gsm8k_excerpt"
README = (DATA / "README.md").read_text("utf-8")
SHA256 = dict(re.findall(r"^\| \[(.+?)\.jsonl\].*`([0-9a-f]{64})` \|$", README, re.M))


def test_ten_files_of_the_same_problems_in_under_200_kb():
    files = sorted(EXCERPT.iterdir())
    assert [f.name for f in files] == sorted(f"{model}.jsonl" for model in SHA256) and len(files) == 10
    assert sum(f.stat().st_size for f in files) < 200_000
    rows = [[json.loads(line) for line in f.read_bytes().splitlines()] for f in files]
    for other in rows:
        assert [(r["question"], r["answer"]) for r in other] == [(r["question"], r["answer"]) for r in rows[0]]
        assert all(len(r["responses"]) == 1 and r["responses"][0].strip() for r in other)
    assert len({r["question"] for r in rows[0]}) == len(rows[0]) == 24
    assert any(not r["question"].isascii() for r in rows[0])  # so that encodings are tested on it


def test_the_licences_travel_with_it():
    for source in ("WildEval/ZeroEval) at commit 8c1485edf12c", "openai/grade-school-math) at commit 3101c7d50724"):
        assert source in README
    linked = re.findall(r"\]\((licences/[^)]+)\)", README)
    assert {"Apache License", "MIT License"} == {
        next(line.strip() for line in (DATA / name).read_text("utf-8").splitlines() if line.strip()) for name in linked
    }
