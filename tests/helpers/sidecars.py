"""What a folder of drawn figures must be: complete, and drawn from the tables that lie beside it."""

import json

from gracelib.jobs import paths
from gracelib.jobs.store import file_hash
from gracelib.paper.figures import FIGURES


def assert_sidecars(scale: str, figures=FIGURES) -> None:
    """Every registered figure has its files, with the hashes of files and inputs as its sidecar says; nothing else is there."""
    folder, read = paths.figures(scale), paths.tables(scale).parent
    known = {f"{name}{ending}" for name, item in figures.items() for ending in (*item.endings, ".json")}
    assert {path.name for path in folder.glob("*") if path.is_file()} == known
    for name, item in figures.items():
        side = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        assert (side["notebook"], side["scale"]) == (item.notebook, scale), name
        assert side["files"] == {f"{name}{ending}": file_hash(folder / f"{name}{ending}") for ending in item.endings}
        assert side["inputs"] == {table: file_hash(read / table) for table in side["inputs"]} != {}, f"{name}: stale"
        assert side["caption"].strip() and bool(side["alt"]) == item.picture, name
