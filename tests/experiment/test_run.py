"""What a run is and what it finds in a fresh clone."""

import json

import pytest

from gracelib.experiment import run, stages
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths
from gracelib.jobs.arithmetic import arithmetic
from gracelib.jobs.store import DECISIVE, META, versions, with_upstream


def test_the_bases_of_mini_are_published_for_this_code():
    """Else a fresh clone trains them, without a word, in a quarter of the time that a run of mini takes."""
    bases = [job for job in with_upstream(run.planned(get_scale("mini"))) if job.stage is stages.PRETRAIN]
    published = paths.published("jobs")
    made_with = {
        (record["arithmetic"], *(record["versions"][name] for name in DECISIVE))
        for record in (json.loads(path.read_text("utf-8")) for path in published.rglob(META))
    }
    if made_with != {(arithmetic(), *(versions()[name] for name in DECISIVE))}:
        pytest.skip(f"they were made with {made_with}, which is not here")
    assert {job.folder(published) for job in bases if job.done(published)} == {*published.glob("pretrain/*")}, (
        "make publish"
    )
    assert len(bases) == len([*published.glob("pretrain/*")]) == 6


def test_what_takes_hours_more_is_made_where_its_part_is_named_only(monkeypatch):
    """The students of other objectives: at mini with the rest, at lab on request, and there never asked for else."""
    lab, mini = get_scale("lab"), get_scale("mini")
    assert "objectives" in run.jobs(mini) and "objectives" not in run.jobs(lab) and "objectives" in run.parts("lab")
    # By seed: of each teacher and objective one; alone, 5 choices, a chain and regeneration. Responses of one seed are of all.
    mixed, own = 15 + 6, {"epochs": 15 * 4, "repeats": 15 * 2, "small_sample": 15 * 2}
    sizes = {"objectives": 15 * 9 + 2 * mixed + 2, "seeds": 2 * (15 * 9 + mixed + 2) + mixed} | own
    assert {part: len(run.planned(lab, [part])) for part in sizes} == sizes
    made = []
    monkeypatch.setattr(run.tables, "table", lambda scale, name: made.append((scale, name)))
    for part in sizes:
        run.parts("lab")[part]()
    run.parts("lab-world1")["repeats"]()
    tables_of = {"objectives": ["objectives", "mixtures"], "seeds": ["objectives_seeds", "mixtures_seeds"]}
    expected = [("lab", name) for part in sizes for name in tables_of.get(part, [part])]
    assert made == [*expected, ("lab-world1", "repeats")]
