"""Teachers' files as one student reads them: what a ranking and a mix are made of.

Why apart from either: whatever is wrong with files or options must be said before a model is loaded, in the same words for
both, and what decides the features (tokens, weights, settings) is then in one place.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from gracelib.checks import positions
from gracelib.jobs import paths as places
from gracelib.jobs.disk import check_writable, size_of, sweep
from gracelib.jobs.progress import Bar
from gracelib.models.checkpoints import (
    check_device,
    check_student,
    load_student,
    resolve_device,
    weights_digest,
    without_weights,
)
from gracelib.models.further import MORE, mean_losses
from gracelib.models.prompting import Encoded, Policy, encode, policy_notes
from gracelib.ranking.beside import check_reader
from gracelib.text.selection import Prompt, Selection, read_teachers, reasoning_sentence, select_common

FORWARD = {"d": 1, "params": "last-layer"}  #: how a pass is made of which the losses alone are wanted


@dataclass(frozen=True)
class Plan:
    """What scoring will take. table: teacher, responses, tokens (prompts counted), seconds; peak_bytes: of memory."""

    table: pd.DataFrame
    peak_bytes: int

    def __str__(self) -> str:
        total = self.table["seconds"].sum()
        shown = {"tokens": "{:,}".format, "seconds": "{:,.0f}".format}
        return (
            f"{self.table.to_string(index=False, formatters=shown)}\nin all about {total:,.0f} seconds "
            f"({total / 3600:.1f} hours), less what is finished already; at most about {size_of(self.peak_bytes)} of memory. "
            "Nothing was scored."
        )


@dataclass(frozen=True)
class Reading:
    """The student, and of each teacher, by name in order, the common prompts' responses as its tokens."""

    model: object
    selection: Selection
    m: int  #: responses per prompt
    encoded: dict[str, list[Encoded]]
    labels: dict[str, list[str]]  #: what to call each response in an error
    about: dict  #: what the student is and where it computes
    used: dict[str, int]  #: bytes of memory: what was planned, the peak before the student and after all
    how: dict  #: as `files.chunked_features` takes it
    work: Path  #: folder of finished pieces

    def of(self, names: Iterable[str], start: int = 0, stop: int | None = None) -> "Reading":
        """The same of these teachers' prompts from `start` to `stop` alone."""
        prompts, part = slice(start, stop), slice(start * self.m, stop and stop * self.m)
        own = {name: self.selection.prompts[name][prompts] for name in names}
        encoded, labels = ({name: both[name][part] for name in own} for both in (self.encoded, self.labels))
        return replace(
            self,
            selection=replace(self.selection, prompts=own, ids=self.selection.ids[prompts]),
            encoded=encoded,
            labels=labels,
        )

    def features(self) -> dict[str, dict]:
        """Features by teacher, made or read where they are finished."""
        return self._made(self.encoded, self.labels, self.how)

    def further(self, column: str) -> dict[str, np.ndarray]:
        """By teacher, the mean loss (N,) of what `further.MORE` makes of each response."""
        made = {name: [MORE[column](e) for e in own] for name, own in self.encoded.items()}
        flat = {name: sum(own, []) for name, own in made.items()}
        labels = {
            name: [label for label, parts in zip(self.labels[name], own, strict=True) for _ in parts]
            for name, own in made.items()
        }
        found = self._made(flat, labels, self.how | FORWARD)
        return {name: mean_losses(found[name]["loss"], own) for name, own in made.items()}

    def _made(self, encoded: dict, labels: dict, how: dict) -> dict[str, dict]:
        from gracelib.features import files, memory

        features, place = {}, {"student": self.about["student_hash"], "device": self.about["device"]}
        with Bar(total=sum(map(len, encoded.values())), desc="gradients", unit="response") as bar:
            for name, own in encoded.items():
                bar.set_postfix_str(name)
                examples = [(e.prompt_ids, e.response_ids) for e in own]
                features[name] = files.chunked_features(
                    self.model, examples, labels[name], self.work, done=bar.update, **place, **how
                )
        self.used["peak"] = memory.peak_memory(place["device"])
        before = size_of(self.used["before"])
        say(f"peak memory: {size_of(self.used['peak'])}, of which {before} before the student was loaded")
        return features

    def plan(self, columns: Iterable[str]) -> Plan:
        """What the features and the further passes for `columns` of `further.MORE` will take, each from a probe of two responses."""
        from gracelib.features import files, memory

        every = self.encoded.items()
        rows = [(teacher, len(own), sum(map(len, own)), 0.0) for teacher, own in every]
        table = pd.DataFrame(rows, columns=["teacher", "responses", "tokens", "seconds"])
        passes = [(lambda e: [e], self.how), *((MORE[column], self.how | FORWARD) for column in columns)]
        for given, how in passes:
            made = [[part for e in own for part in given(e)] for _, own in every]
            examples = [(e.prompt_ids, e.response_ids) for own in made for e in own]
            seconds = files.planned_seconds(self.model, examples, device=self.about["device"], **how)
            table["seconds"] += [seconds([*map(len, own)]) for own in made]
        return Plan(table, memory.peak_memory(self.about["device"]) + self.used["extra_planned"])


def selected(
    paths: Iterable[str | Path] | str | Path,
    work: Path | None,
    device: str,
    n: int | None,
    m: int,
    seed: int,
    min_m: bool = False,
    *,
    thinking: str = "keep",
    **how,
) -> tuple[Selection, str, Path]:
    """The prompts that all teachers answered, a sentence on their reasoning, and the folder of finished pieces.

    Arguments as of `rank.score_teachers`; `how`: as `read_generations` takes it. ValueError or OSError in one line."""
    work = Path(work or places.runs() / "score")
    if work.exists() and not work.is_dir():
        raise ValueError(f"{work} is a file: give a folder to keep finished pieces in")
    check_device(device)
    check_writable(work)
    sweep(work)
    teachers = read_teachers(paths, thinking=thinking, **how)
    teachers.sort(key=lambda t: t.name)  # not as given: nothing below can then depend on the order of the files
    return select_common(teachers, n, m, seed, min_m), reasoning_sentence(teachers, thinking), work


def loaded(
    student,
    selection: Selection,
    work: Path,
    m: int,
    policy: Policy,
    device: str,
    how: dict,
    scores: Sequence[str] = (),
) -> Reading:
    """The student and what it is to read. Everything that can be refused without its weights is, before they are read."""
    from gracelib.features import files, memory  # here: reading and refusing files needs no torch

    device = resolve_device(device)
    config, tokenizer = check_student(student)
    how = how | {"special": sorted(tokenizer.all_special_ids)}
    read_as = policy_notes(tokenizer, policy)  # first: that there is no chat template is no response's fault
    made = {name: _encode(tokenizer, own, policy, config) for name, own in selection.prompts.items()}
    encoded, labels = ({name: both[i] for name, both in made.items()} for i in (0, 1))
    shape = without_weights(student, config)  # what it will take is said before the weights are read
    check_reader(scores, shape, tokenizer)
    # Of the longest responses: a piece is all that is in memory at once.
    lengths = sorted(map(len, sum(encoded.values(), [])))[-files.piece_size(shape, device.partition(":")[0]) :]
    asked = {name: how[name] for name in ("dtype", "params", "projection")}
    plan = memory.plan_memory(shape, lengths, how["d"], how["batch_tokens"], device=device, **asked)
    n_parameters = sum(p.numel() for p in shape.parameters())
    say(selection.sentence)
    say(f"student: {n_parameters:,} parameters on {device}. Memory planned: {plan}")

    memory.reset_peak(device)
    used = {"weights_planned": plan.weights, "extra_planned": plan.extra, "before": memory.peak_memory(device)}
    model, _ = load_student(student, dtype=how["dtype"], device=device)
    about = {"student": str(student), "student_hash": weights_digest(model), "n_parameters": n_parameters}
    about |= {"device": device, "read_as": read_as}
    return Reading(model, selection, m, encoded, labels, about, used, how, work)


def _encode(tokenizer, prompts: Sequence[Prompt], policy: Policy, config) -> tuple[list[Encoded], list[str]]:
    """Token ids of every response, and what to call each in an error message."""
    reads = positions(config)
    labels = [f"{p.where}, response {k}" for p in prompts for k in range(1, len(p.responses) + 1)]
    pairs = [(p.question, response) for p in prompts for response in p.responses]
    cut = [k in p.cut for p in prompts for k in range(len(p.responses))]
    try:
        encoded = encode(tokenizer, pairs, policy, cut, steps=True)
    except ValueError:  # all at once is quicker; one by one it has a name
        for label, pair, was_cut in zip(labels, pairs, cut, strict=True):
            try:
                encode(tokenizer, [pair], policy, [was_cut])
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from error
        raise
    for label, e in zip(labels, encoded, strict=True):
        if len(e) > reads:
            raise ValueError(
                f"{label}: {len(e)} tokens with its prompt, but the student has {reads} "
                f"positions; --max-tokens {reads} cuts such texts and says how many"
            )
    return encoded, labels


def say(text: str) -> None:
    print(text, file=sys.stderr)
