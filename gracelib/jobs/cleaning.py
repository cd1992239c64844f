"""An executed notebook made fit for committing: what a reader sees stays, what changes from run to run goes.

Why: a notebook whose metadata holds timings differs after every run, so that nobody sees the number that really changed.
"""

from __future__ import annotations

import nbformat

from gracelib.jobs.store import digest

KERNEL = "python3"


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook fit for committing: outputs and execution counts stay, everything volatile goes.

    Dropped: papermill's metadata and its injected cell, timings, stderr (progress bars), kernel details beyond the
    kernel's name. Cells are numbered as a fresh run from top to bottom would number them. Added: `made_by` these cells.
    """
    keep_cell = {"tags"}
    cells, count = [], 0
    for index, cell in enumerate(c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])):
        cell = nbformat.from_dict(
            {
                **cell,
                "id": f"cell-{index:02d}",
                "metadata": {k: v for k, v in cell.metadata.items() if k in keep_cell and v},
            }
        )
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _joined([o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")])
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
                if "metadata" in output:
                    output.metadata = {}
        cells.append(cell)
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
        "language_info": {"name": "python"},
        "gracelib": made_by(cells),
    }
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def made_by(cells: list) -> dict[str, str]:
    """Hashes of the code cells, the parameters cell among them, that outputs were made with: what a committed notebook
    carries, so that a cell that was edited and not run again is found (`jobs.notebook_checks`)."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    tagged = [cell.source for cell in code if "parameters" in cell.metadata.get("tags", [])]
    return {"code": digest([cell.source for cell in code]), "parameters": digest(tagged)}


def _joined(outputs: list) -> list:
    """Prints that follow each other as one output: where a kernel flushes is a matter of time."""
    joined = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined
