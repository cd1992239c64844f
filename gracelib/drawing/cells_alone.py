"""The paper's figures of notebook 05 that need the cells alone: for a scale that has no other tables (`paper`)."""

from pathlib import Path

import pandas as pd

from gracelib.drawing import correlations
from gracelib.paper.settings import changes
from gracelib.scale import PaperScale


def draw(scale: PaperScale, named: dict[str, pd.DataFrame], at: float) -> list[Path]:
    """Write them; their files. `named`: the cells of each task by its name; `at`: the temperature of figure 5."""
    name, k, student = scale.name, scale.k, scale.student
    first, longer = named[scale.tasks[0].name], named.get("long") if len(named) > 1 else None
    drawn = {
        "fig01_correlations": correlations.figure1(first, student, name, longer=longer, k=k),
        "fig02_scatter": correlations.figure2(first, student, name, k=k),
        "fig04_all_scores": correlations.figure4(first, student, name, longer=longer, k=k),
        "fig05_one_temperature": correlations.figure5(first, student, name, k=k, temperature=at),
        "fig11_greedy": correlations.figure2(first, student, name, k=k, accuracy="greedy"),
        "fig12_best_of_k": correlations.figure2(first, student, name, k=k, accuracy="best_of"),
        "regret_bars": correlations.regret_bars(first, student, name, longer=longer, k=k),
    }
    others = [(first, role) for role in dict.fromkeys(first["student"]) if role != student]
    if "second" in set(first["student"]) - {student}:
        drawn["fig03_second_student"] = correlations.figure2(first, "second", name, k=k, item="figure 3")
    if longer is not None:
        drawn["fig08_long_task"] = correlations.figure2(longer, student, name, k=k, item="figure 8")
        others.append((longer, student))
    drawn["table_main"] = correlations.table_main(first, student, name, others=others, leave_out=None, k=k)
    about = {
        "inputs": ["scores", "students", "teachers"],
        "seed": scale.seed,
        "parameters": {"scale": name, "student": student, "not the paper's": changes(scale)},
    }
    return [path for figure, one in drawn.items() for path in one.save(name, figure, **about)]
