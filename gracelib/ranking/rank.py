"""Your teachers ranked for your student: from files of generations to GRACE with intervals, in one call.

Why one function for command, notebook and pipeline: what is compared must not depend on how it was asked for. It goes
through the same stations as the experiments here - common prompts, tokens, projected gradients, log|y|, folds - and
refuses whatever is wrong with options and files before a model is loaded. A rank is a comparison, so it comes with what
the prompts can say about it: intervals that include the error of the fold matrices (`influence`; notebook 03 measures
that intervals without it promise too much), and paired differences of neighbours, because all teachers answered the
same prompts.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES, compute_scores
from gracelib.checks import check_choice
from gracelib.evidence.regimes import near_copies
from gracelib.intervals import DIFFERENCES, grace_influence, grace_interval, ranked_differences
from gracelib.jobs import paths as places
from gracelib.jobs.disk import check_writable, size_of, sweep
from gracelib.jobs.progress import Bar
from gracelib.jobs.store import write_atomically
from gracelib.models.checkpoints import (
    DTYPES,
    check_device,
    check_student,
    load_student,
    resolve_device,
    weights_digest,
    without_weights,
)
from gracelib.models.prompting import CHAT, Encoded, Policy, encode, encoding_notes, policy_notes, text_features
from gracelib.ranking import report
from gracelib.ranking.beside import COSTS, MORE, beside, beside_text, check_reader, check_scores, right_ones
from gracelib.ranking.trust import notes_on
from gracelib.ranking.until_clear import LEFT, race, rounds
from gracelib.scores import recalibrate
from gracelib.text.responses import read_requests
from gracelib.text.selection import Generations, Prompt, Selection, read_teachers, reasoning_sentence, select_common

PARAMS, PROJECTIONS = ("all", "last-layer", "lora-b"), ("signs", "sjlt")  # as in features.estimators, which needs torch
SCORED = ("g_norm", "g_vendi", "mean_length", "student_loss")
#: top3_share: part of GRACE that its three largest prompts carry. nu_share: part of its log-derivative that is nu's. near_copies: `regimes.near_copies`.
#: Responses that did not fit, their tokens; that came cut; that have one token, and so count as zero.
COLUMNS = (
    "rank",
    "teacher",
    "grace",
    "grace_low",
    "grace_high",
    *SCORED,
    "top3_share",
    "nu_share",
    "near_copies",
    "cut_responses",
    "cut_tokens",
    "cut_before",
    "one_token",
)
#: A few prompts that carry this much of a teacher's GRACE are named, if there are so many prompts that it means much.
HEAVY_SHARE, HEAVY_PROMPTS = 1 / 3, 30


@dataclass(frozen=True)
class Ranking:
    """Teachers in the order of GRACE, lowest (best) first, and what the common prompts can tell."""

    table: pd.DataFrame  #: one row per teacher, columns `COLUMNS`, then those of `beside.beside` for each other score
    neighbours: pd.DataFrame  #: paired differences of consecutive teachers, GRACE(worse) - GRACE(better)
    against_first: pd.DataFrame  #: the same columns, every teacher against the first
    sentences: tuple[str, ...]  #: which prompts, which neighbours are not told apart, who else may be the best
    notes: tuple[str, ...]  #: what to be wary of: truncation, smoothing that decides, scores that few prompts carry
    settings: dict  #: everything that decides the numbers
    memory: dict[str, int]  #: bytes: what was planned, and the measured peak before the student and after all
    costs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COSTS))  #: with other scores, a row each
    left: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LEFT))  #: teachers that left early

    def __str__(self) -> str:
        parts = [report.table_text(self.table), "\n".join(self.sentences)]
        if len(self.left):
            parts.insert(1, "Left early, clearly worse than the leader then:\n" + self.left.to_string(index=False))
        if len(self.costs):
            parts.append(beside_text(self.table, self.settings["scores"], self.costs))
        return "\n\n".join(parts)

    def figure(self):
        """The ranking as a matplotlib figure."""
        s = self.settings
        note = (
            f"student: {Path(s['student']).name}; n = {s['n']} common prompts, m = {s['m']}, d = {s['d']}, "
            f"C = {s['n_folds']}, ν = {s['nu']:g}; intervals are over prompts, one student"
        )
        other = [s[k] for k, usual in (("params", "all"), ("projection", "signs")) if s[k] != usual]
        note += f"; gradients: {', '.join(other)}, another estimator than the paper's" if other else ""
        note += "; read in its own chat template" if s["template"] == CHAT else ""
        return report.ranking_figure(self.table, self.neighbours, note)

    def save(self, path: Path) -> Path:
        """The table as CSV and, beside it, settings, comparisons and notes, whose path is returned.

        That ends in `.settings.json`, so that a folder of generations that it lies in can still be read as one.
        """
        path, about = Path(path), Path(path).with_suffix(".settings.json")
        record = {"settings": self.settings, "sentences": self.sentences, "notes": self.notes, "memory": self.memory}
        for name in ("neighbours", "against_first", "costs", "left"):  # what is not finite (a ratio to zero) is null
            record[name] = json.loads(getattr(self, name).to_json(orient="records", double_precision=10))
        for place, content in (
            (path, self.table.to_csv(index=False, float_format="%.10g", lineterminator="\n")),
            (about, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        ):
            write_atomically(place, lambda part, content=content: part.write_text(content, "utf-8", newline=""))
        return about


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


def score_teachers(
    student: str | Path,
    paths: Iterable[str | Path] | str | Path,
    *,
    n: int = 512,
    m: int = 4,
    d: int = 512,
    n_folds: int = 10,
    nu: float = 1e-3,
    params: str = "all",
    projection: str = "signs",
    batch_tokens: int | None = None,
    dtype: str = "float32",
    seed: int = 0,
    device: str = "auto",
    policy: Policy | None = None,
    work: Path | None = None,
    min_m: bool = False,
    thinking: str = "keep",
    requests: Sequence[str | Path] = (),
    drop_text: Sequence[str] = (),
    plan: bool = False,
    scores: Sequence[str] = (),
    gradients_of: str = "",
    until_clear: bool = False,
) -> "Ranking | Plan | None":
    """Rank teachers for a student by GRACE on the prompts that all of them answered. Lower is better.

    student: a checkpoint folder or hub id. paths: one file of generations a teacher, folders of them, or hf:// data sets
        (`text.selection.expand`).
    n, m, d, n_folds (C), nu: common prompts, responses per prompt, numbers a gradient is projected to, folds of prompts,
        smoothing; the defaults are the paper's, which takes d = n.
    params: gradients with respect to "all" parameters (the paper), the "last-layer" or "lora-b". projection: of them to d
        numbers by "signs" (the paper) or "sjlt" (`features.estimators` says what they are).
    seed: of the draw of prompts, of the projection, and of the folds. batch_tokens: time and memory only.
    dtype, device: of the student. policy: template, BOS and truncation (`prompting.Policy`).
    work: folder of finished pieces (default `runs/score`): a run that was stopped goes on where it was, and the same
        run again computes no gradient. Progress and memory are printed on stderr.
    min_m: leave prompts with fewer than m responses out instead of refusing them. thinking, requests (files), drop_text:
        how generations are read (`text.responses.read_generations`).
    until_clear: take the prompts in rounds, and let a teacher that is clearly worse than the leader go (`until_clear`); n and d
        are then the most that is taken.
    scores: names of `baselines.SCORES` to set beside GRACE, from the same pass, with what each cost.
    plan: score nothing and write nothing, but say as a `Plan` what it will take, from a probe of two responses.
    gradients_of: only take the gradients of this teacher into `work` and return None: many machines share a ranking so.

    ValueError or OSError, in one line, for options and files, before a model is loaded; ValueError naming the response
    for a text that is too long for the student or a loss that is not finite. Source: the paper, sections 2 and 3.
    """
    policy, work = policy or Policy(), Path(work or places.runs() / "score")
    if work.exists() and not work.is_dir():
        raise ValueError(f"{work} is a file: give a folder to keep finished pieces in")
    _check_options(n, m, d, n_folds, nu, params, projection, batch_tokens, dtype, seed)
    check_device(device)
    check_writable(work)
    sweep(work)
    teachers = read_teachers(paths, thinking=thinking, requests=read_requests(requests), drop_text=drop_text)
    teachers.sort(key=lambda t: t.name)  # not as given: nothing below can then depend on the order of the files
    selection = select_common(teachers, n, m, seed, min_m)
    check_scores(scores, selection)
    right = right_ones(scores, selection)

    how = dict(d=d, seed=seed, params=params, projection=projection, dtype=dtype, batch_tokens=batch_tokens)
    model, encoded, labels, settings, used = loaded(student, teachers, selection, policy, device, how, scores)
    if plan:
        return _plan(model, encoded, settings["device"], used, how)
    if gradients_of:
        features_of(model, {gradients_of: encoded[gradients_of]}, labels, work, settings, used, how)
        return None
    began, ended = time.perf_counter(), ""
    prompt_id, features = np.repeat(np.array(selection.ids), m), {}

    def take(names: list[str], start: int, stop: int) -> None:
        part = slice(start * m, stop * m)
        own = ({name: both[name][part] for name in names} for both in (encoded, labels))
        for name, new in features_of(model, *own, work, settings, used, how).items():
            old = features.get(name)
            features[name] = {k: np.concatenate([old[k], new[k]]) for k in new} if old else new

    def look(name: str, stop: int):
        own = {"g": features[name]["g"][:, : min(d, stop)], "length": features[name]["length"]}
        found, influence = _scored(name, own | {"prompt_id": prompt_id[: stop * m]}, ("grace",), **folds)
        return found.grace, influence

    folds = dict(n_folds=n_folds, nu=nu, seed=seed)
    names, most = [t.name for t in teachers], n
    stayed, n, gone = race(names, rounds(n, n_folds) if until_clear else [n], take, look)
    left, d = pd.DataFrame(gone, columns=LEFT), min(d, n) if until_clear else d
    if until_clear:
        teachers = [t for t in teachers if t.name in stayed]
        prompts = {name: selection.prompts[name][:n] for name in stayed}
        selection, prompt_id = replace(selection, prompts=prompts, ids=selection.ids[:n]), prompt_id[: n * m]
        encoded = {name: encoded[name][: n * m] for name in stayed}
        right = {name: {k: v[: n * m] for k, v in right[name].items()} for name in stayed}
        features = {name: features[name] | {"g": features[name]["g"][:, :d]} for name in stayed}
        taken = 1 - (left["left_after"].sum() + n * len(stayed)) / (most * len(names))
        ended = (
            f"{n} of {most} prompts were taken, d = {d}; {len(left)} of {len(names)} teachers left early: "
            f"{taken:.0%} of the gradients were saved."
        )
    rows, heavy, with_influence = [], [], {}
    for teacher in Bar(teachers, desc="scores", unit="teacher"):
        own = {**features[teacher.name], "prompt_id": prompt_id}
        scored, influence = _scored(teacher.name, own, ("grace", *SCORED), **folds)
        with_influence[teacher.name] = scored.grace, influence
        interval = grace_interval(scored.grace, influence=influence)
        parts = scored.grace.count * scored.grace.per_prompt
        share, heaviest = float(np.sort(parts)[-3:].sum() / parts.sum()), str(scored.grace.prompt_ids[np.argmax(parts)])
        where = next(p.where for p in selection.prompts[teacher.name] if p.id == heaviest)
        rows.append(
            {
                "teacher": teacher.name,
                **scored.values,
                "grace_low": interval.low,
                "grace_high": interval.high,
                "top3_share": share,
                "nu_share": scored.grace.nu_share,
                "near_copies": near_copies(own["g"], m),
                "cut_responses": sum(e.n_cut > 0 for e in encoded[teacher.name]),
                "cut_tokens": sum(e.n_cut for e in encoded[teacher.name]),
                "cut_before": sum(e.cut for e in encoded[teacher.name]),
                "one_token": sum(len(e.response_ids) == 1 for e in encoded[teacher.name]),
            }
        )
        if n >= HEAVY_PROMPTS and share > HEAVY_SHARE:
            heavy.append(f"{teacher.name}: 3 of its {n} prompts carry {share:.0%} of its GRACE; look at {where}")
    table = pd.DataFrame(rows).sort_values(["grace", "teacher"], ignore_index=True)
    table = table.assign(rank=np.arange(1, len(table) + 1))[list(COLUMNS)]
    ranked, costs, seconds = list(table["teacher"]), None, time.perf_counter() - began
    if scores:
        texts = {name: [text for p in own for text in p.responses] for name, own in selection.prompts.items()}
        every = {
            name: {**features[name], **text_features(encoded[name], texts[name]), **right[name], "prompt_id": prompt_id}
            for name in ranked
        }
        passes = {}
        for column in {need for name in scores for need in SCORES[name].needs if need in MORE}:
            began = time.perf_counter()
            for name, losses in _further(model, MORE[column], encoded, labels, work, settings, used, how).items():
                every[name][column] = losses
            passes[column] = time.perf_counter() - began
        others, costs = beside(scores, every, table["grace"], seconds, passes, **folds)
        table = table.assign(**others)
    of_tokens = [f"{name}: {said}" for name in ranked for said in encoding_notes(encoded[name], policy)]
    notes = notes_on(table, n, m, d, n_folds) + of_tokens + heavy + settings["read_as"]
    neighbours = pd.DataFrame(ranked_differences(ranked, with_influence), columns=DIFFERENCES)
    against_first = pd.DataFrame(ranked_differences(ranked, with_influence, against_first=True), columns=DIFFERENCES)
    settings |= {
        "n": n,
        "m": m,
        "d": d,
        "n_folds": n_folds,
        "nu": nu,
        "params": params,
        "projection": projection,
        "dtype": dtype,
        "seed": seed,
        "scores": list(scores),
        "until_clear": until_clear,
        "min_m": min_m,
        "thinking": thinking,
        "drop_text": list(drop_text),
        **asdict(policy),
        "prompt_ids": list(selection.ids),
    }
    for note in notes:
        _say(f"note: {note}")
    thought = reasoning_sentence(teachers, thinking)
    sentences = (
        selection.sentence,
        ended,
        thought,
        "" if len(left) and len(stayed) == 1 else report.neighbours_sentence(neighbours),
        report.first_sentence(against_first),
    )
    more = {"left": left} | ({} if costs is None else {"costs": costs})
    return Ranking(
        table, neighbours, against_first, tuple(filter(None, sentences)), tuple(notes), settings, used, **more
    )


def _scored(teacher: str, own: dict, names: Sequence[str], **how):
    """`compute_scores` of a teacher's features, and the influence of each prompt on its GRACE."""
    try:
        found = compute_scores(own, names, **how)
        h = recalibrate(own["g"], own["length"])
        return found, grace_influence(h, own["prompt_id"], zero_rows="keep", **how)
    except ValueError as error:
        raise ValueError(f"teacher {teacher}: {error}") from error


def loaded(
    student, teachers: Sequence[Generations], selection: Selection, policy: Policy, device: str, how: dict, scores
):
    """The student, encoded responses and their labels by teacher, what the student is, and memory planned and used."""
    from gracelib.features import files, memory  # here: reading and refusing files needs no torch

    device = resolve_device(device)
    config, tokenizer = check_student(student)
    how["special"] = sorted(tokenizer.all_special_ids)
    read_as = policy_notes(tokenizer, policy)  # first: that there is no chat template is no response's fault
    made = {t.name: _encode(tokenizer, selection.prompts[t.name], policy, config) for t in teachers}
    encoded, labels = ({name: both[i] for name, both in made.items()} for i in (0, 1))
    shape = without_weights(student, config)  # what it will take is said before the weights are read
    check_reader(scores, shape, tokenizer)
    # Of the longest responses: a piece is all that is in memory at once.
    lengths = sorted(map(len, sum(encoded.values(), [])))[-files.piece_size(shape, device.partition(":")[0]) :]
    asked = {name: how[name] for name in ("dtype", "params", "projection")}
    plan = memory.plan_memory(shape, lengths, how["d"], how["batch_tokens"], device=device, **asked)
    n_parameters = sum(p.numel() for p in shape.parameters())
    _say(selection.sentence)
    _say(f"student: {n_parameters:,} parameters on {device}. Memory planned: {plan}")

    memory.reset_peak(device)
    used = {"weights_planned": plan.weights, "extra_planned": plan.extra, "before": memory.peak_memory(device)}
    model, _ = load_student(student, dtype=how["dtype"], device=device)
    about = {"student": str(student), "student_hash": weights_digest(model), "n_parameters": n_parameters}
    about |= {"device": device, "read_as": read_as}
    return model, encoded, labels, about, used


def _plan(model, encoded: dict[str, list[Encoded]], device: str, used: dict, how: dict) -> Plan:
    from gracelib.features import files, memory

    every = [(e.prompt_ids, e.response_ids) for own in encoded.values() for e in own]
    seconds = files.planned_seconds(model, every, device=device, **how)
    rows = []
    for teacher, own in encoded.items():
        lengths = [*map(len, own)]
        rows.append((teacher, len(own), sum(lengths), seconds(lengths)))
    table = pd.DataFrame(rows, columns=["teacher", "responses", "tokens", "seconds"])
    return Plan(table, memory.peak_memory(device) + used["extra_planned"])


def features_of(model, encoded: dict, labels: dict, work: Path, about: dict, used: dict, how: dict) -> dict[str, dict]:
    """Features by teacher; adds the peak to `used`, bytes of memory."""
    from gracelib.features import files, memory

    features, place = {}, {"student": about["student_hash"], "device": about["device"]}
    with Bar(total=sum(map(len, encoded.values())), desc="gradients", unit="response") as bar:
        for name, own in encoded.items():
            bar.set_postfix_str(name)
            examples = [(e.prompt_ids, e.response_ids) for e in own]
            features[name] = files.chunked_features(
                model, examples, labels[name], work, done=bar.update, **place, **how
            )
    used["peak"] = memory.peak_memory(place["device"])
    _say(f"peak memory: {size_of(used['peak'])}, of which {size_of(used['before'])} before the student was loaded")
    return features


def _further(model, given, encoded: dict, labels: dict, work: Path, about: dict, used: dict, how: dict) -> dict:
    """By teacher, the mean loss (N,) of what `given` (of `beside.MORE`) makes of each response; NaN where it makes nothing."""
    made = {name: [given(e) for e in own] for name, own in encoded.items()}
    owner = {name: np.repeat(np.arange(len(own)), [*map(len, own)]) for name, own in made.items()}
    called = {name: [labels[name][i] for i in own] for name, own in owner.items()}
    flat = {name: sum(own, []) for name, own in made.items()}
    found = features_of(model, flat, called, work, about, used, how | {"d": 1, "params": "last-layer"})
    return {name: pd.Series(found[name]["loss"]).groupby(own).mean().reindex(range(len(made[name]))).to_numpy()
            for name, own in owner.items()}  # fmt: skip


def _encode(tokenizer, prompts: Sequence[Prompt], policy: Policy, config) -> tuple[list[Encoded], list[str]]:
    """Token ids of every response, and what to call each in an error message."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
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
        if positions is not None and len(e) > positions:
            raise ValueError(
                f"{label}: {len(e)} tokens with its prompt, but the student has {positions} "
                f"positions; --max-tokens {positions} cuts such texts and says how many"
            )
    return encoded, labels


def _check_options(n, m, d, n_folds, nu, params, projection, batch_tokens, dtype, seed) -> None:
    for name, value, least in (
        ("n", n, 3),
        ("m", m, 1),
        ("d", d, 1),
        ("folds", n_folds, 2),
        ("seed", seed, 0),
        ("batch_tokens", 1 if batch_tokens is None else batch_tokens, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} = {value!r}: expected a whole number of at least {least}")
    if n_folds > n:
        raise ValueError(f"folds = {n_folds} is more than n = {n} prompts: a fold needs at least one prompt")
    if n - -(-n // n_folds) < 2:  # the interval leaves out one of them
        raise ValueError(f"n = {n} prompts in folds = {n_folds}: 2 prompts must lie outside each fold; set folds = {n}")
    if not (np.isfinite(nu) and nu > 0):
        raise ValueError(f"nu = {nu}: the smoothing must be a finite number above 0 (the default is 1e-3)")
    check_choice("params", params, PARAMS)
    check_choice("projection", projection, PROJECTIONS)
    check_choice("dtype", dtype, DTYPES)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
