"""Your teachers ranked for your student: from files of generations to GRACE with intervals, in one call.

Why one function for command, notebook and pipeline: what is compared must not depend on how it was asked for. It goes
through the same stations as the experiments here - common prompts, tokens, projected gradients, log|y|, folds - and
refuses whatever is wrong with options and files before a model is loaded. A rank is a comparison, so it comes with what
the prompts can say about it: intervals that include the error of the fold matrices (`influence`; notebook 03 measures
that intervals without it promise too much), and paired differences of neighbours, because all teachers answered the
same prompts.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES, compute_scores
from gracelib.checks import check_choice
from gracelib.evidence.regimes import near_copies
from gracelib.evidence.until_clear import LEFT, race, rounds
from gracelib.intervals import DIFFERENCES, grace_influence, grace_interval, ranked_differences
from gracelib.jobs.progress import Bar
from gracelib.jobs.store import write_atomically
from gracelib.models.checkpoints import DTYPES
from gracelib.models.further import MORE
from gracelib.models.prompting import CHAT, Policy, encoding_notes, text_features
from gracelib.ranking import report
from gracelib.ranking.beside import COSTS, beside, beside_text, check_scores, right_ones
from gracelib.ranking.reading import Plan, Reading, loaded, say, selected
from gracelib.ranking.trust import notes_on
from gracelib.scores import recalibrate
from gracelib.text.responses import Prompt, read_requests

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
    policy = policy or Policy()
    scores = [name for name in dict.fromkeys(scores) if name != "grace"]  # which is there anyway
    _check_options(n, m, d, n_folds, nu, params, projection, batch_tokens, dtype, seed)
    if until_clear and projection != "signs":
        raise ValueError(
            f"until_clear begins with the first columns of each projection, which are none for {projection}: use projection = signs"
        )
    texts = dict(thinking=thinking, requests=read_requests(requests), drop_text=drop_text)
    selection, thought, work = selected(paths, work, device, n, m, seed, min_m, **texts)
    check_scores(scores, selection)
    right = right_ones(scores, selection)
    how = dict(d=d, seed=seed, params=params, projection=projection, dtype=dtype, batch_tokens=batch_tokens)
    reading = loaded(student, selection, work, m, policy, device, how, scores)
    more = [column for column in MORE if any(column in SCORES[name].needs for name in scores)]
    if plan:
        return reading.plan(more)
    if gradients_of:
        reading.of([gradients_of]).features()
        return None

    began, folds = time.perf_counter(), dict(n_folds=n_folds, nu=nu, seed=seed)
    features, taken, left, saved = _raced(reading, until_clear, folds)
    whole, reading, ended = len(selection.prompts), reading.of(features, stop=taken), ""
    if until_clear:
        d = min(d, taken)
        ended = (
            f"{taken} of {n} prompts were taken, d = {d}; {len(left)} of {whole} teachers left early: "
            f"{saved:.0%} of the gradients were saved."
        )
    n, rows, heavy, with_influence = taken, [], [], {}
    for name, own in Bar(features.items(), desc="scores", unit="teacher"):
        scored, with_influence[name] = _scored(name, own, ("grace", *SCORED), **folds)
        row, heaviest = _row(name, own, scored, with_influence[name][1], reading)
        rows.append(row)
        if n >= HEAVY_PROMPTS and row["top3_share"] > HEAVY_SHARE:
            heavy.append(
                f"{name}: 3 of its {n} prompts carry {row['top3_share']:.0%} of its GRACE; look at {heaviest.where}"
            )
    table = pd.DataFrame(rows).sort_values(["grace", "teacher"], ignore_index=True)
    table = table.assign(rank=np.arange(1, len(table) + 1))[list(COLUMNS)]
    ranked, costs, seconds = list(table["teacher"]), pd.DataFrame(columns=COSTS), time.perf_counter() - began
    if scores:
        others, costs = _beside(
            scores, {name: features[name] for name in ranked}, reading, right, more, seconds, with_influence, folds
        )
        table = table.assign(**others)
    of_tokens = [f"{name}: {said}" for name in ranked for said in encoding_notes(reading.encoded[name], policy)]
    notes = notes_on(table, n, m, d, n_folds) + of_tokens + heavy + reading.about["read_as"]
    neighbours = pd.DataFrame(ranked_differences(ranked, with_influence), columns=DIFFERENCES)
    against_first = pd.DataFrame(ranked_differences(ranked, with_influence, against_first=True), columns=DIFFERENCES)
    settings = reading.about | {
        "n": n,
        "m": m,
        "d": d,
        "n_folds": n_folds,
        "nu": nu,
        "params": params,
        "projection": projection,
        "dtype": dtype,
        "seed": seed,
        "scores": scores,
        "until_clear": until_clear,
        "min_m": min_m,
        "thinking": thinking,
        "requests": [*map(str, requests)],
        "drop_text": list(drop_text),
        **asdict(policy),
        "prompt_ids": list(reading.selection.ids),
    }
    for note in notes:
        say(f"note: {note}")
    sentences = (
        selection.sentence,
        ended,
        thought,
        "" if len(left) and len(ranked) == 1 else report.neighbours_sentence(neighbours),
        report.first_sentence(against_first),
    )
    said = tuple(filter(None, sentences)), tuple(notes)
    return Ranking(table, neighbours, against_first, *said, settings, reading.used, costs, left)


def _raced(reading: Reading, until_clear: bool, folds: dict) -> tuple[dict[str, dict], int, pd.DataFrame, float]:
    """Features of the teachers that stayed, how many prompts were taken, a row (`LEFT`) for each that left, and the share of
    gradients that was saved."""
    n, d, features = len(reading.selection.ids), reading.how["d"], {}
    prompt_id = np.repeat(np.array(reading.selection.ids), reading.m)

    def take(names: list[str], start: int, stop: int) -> None:
        for name, new in reading.of(names, start, stop).features().items():
            old = features.get(name)
            features[name] = {k: np.concatenate([old[k], new[k]]) for k in new} if old else new

    def up_to(name: str, stop: int) -> dict:
        most = min(d, stop) if until_clear else d
        return features[name] | {"g": features[name]["g"][:, :most], "prompt_id": prompt_id[: stop * reading.m]}

    def look(name: str, stop: int):
        return _scored(name, up_to(name, stop), ("grace",), **folds)[1]

    sizes = rounds(n, folds["n_folds"]) if until_clear and len(reading.encoded) > 1 else [n]
    stayed, taken, gone, saved = race([*reading.encoded], sizes, take, look)
    return {name: up_to(name, taken) for name in stayed}, taken, pd.DataFrame(gone, columns=LEFT), saved


def _row(name: str, features: dict, scored, influence: np.ndarray, reading: Reading) -> tuple[dict, Prompt]:
    """A teacher's row of the table, and the prompt that carries most of its GRACE."""
    interval, own = grace_interval(scored.grace, influence=influence), reading.encoded[name]
    parts = scored.grace.count * scored.grace.per_prompt
    heaviest = str(scored.grace.prompt_ids[np.argmax(parts)])
    row = {
        "teacher": name,
        **scored.values,
        "grace_low": interval.low,
        "grace_high": interval.high,
        "top3_share": float(np.sort(parts)[-3:].sum() / parts.sum()),
        "nu_share": scored.grace.nu_share,
        "near_copies": near_copies(features["g"], reading.m),
        "cut_responses": sum(e.n_cut > 0 for e in own),
        "cut_tokens": sum(e.n_cut for e in own),
        "cut_before": sum(e.cut for e in own),
        "one_token": sum(len(e.response_ids) == 1 for e in own),
    }
    return row, next(p for p in reading.selection.prompts[name] if p.id == heaviest)


def _beside(scores, features: dict, reading: Reading, right: dict, more, seconds: float, scored: dict, folds: dict):
    """`beside.beside` with what these scores need more: the texts, which are right, further passes."""
    passes = {}
    for name, own in features.items():
        texts = [text for p in reading.selection.prompts[name] for text in p.responses]
        own |= text_features(reading.encoded[name], texts) | {k: v[: len(texts)] for k, v in right[name].items()}
    for column in more:
        began = time.perf_counter()
        for name, losses in reading.further(column).items():
            features[name][column] = losses
        passes[column] = time.perf_counter() - began
    return beside(scores, features, [scored[name] for name in features], seconds, passes, **folds)


def _scored(teacher: str, own: dict, names: Sequence[str], **how):
    """`compute_scores` of a teacher's features; its GRACE with the influence of each prompt on it."""
    try:
        found = compute_scores(own, names, **how)
        h = recalibrate(own["g"], own["length"])
        return found, (found.grace, grace_influence(h, own["prompt_id"], zero_rows="keep", **how))
    except ValueError as error:
        raise ValueError(f"teacher {teacher}: {error}") from error


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
