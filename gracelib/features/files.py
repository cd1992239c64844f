"""Features at rest: how a finished folder of the `features` stage is read, and pieces of a long run that are kept.

A folder that does not fit together is refused here with its name: a score would otherwise be one of the wrong rows.

Why pieces with keys of their own: the gradients of a large student on thousands of responses take hours, and what
decides a piece's numbers is short to say: the student's weights, the exact tokens, and the settings. So a piece is a
file named after a hash of just that: a run that is killed loses the piece it was at, no more. The same command twice
reads it; another order of the teachers' files or a file with more prompts finds the pieces that are the same; changed
weights, another template or another `d` can never be given them. How many padded tokens went into a batch is not in the
key: it moves the last digits only. What makes pieces loads torch, so it is imported where it is used.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from gracelib.jobs.progress import timed
from gracelib.jobs.store import DECISIVE, closure, digest, fingerprint, versions, write_atomically

_NEEDED = ("g", "length", "loss", "mean_prob", "grad_norm", "prompt")
_AGAIN = "remove its folder and run the same command again"
FEWEST, MOST = 32, 256  #: responses in a piece
_TIMED = 1 << 17  # parameters that `planned_seconds` projects
#: Responses x parameters in a piece, by kind of device: minutes of work. Each piece checks the gradients against
#: autograd on two responses, so that pieces of fewer than FEWEST would mostly check.
_WORK = {"cpu": 3.2e10, "cuda": 3e11}


def load_features(folder: Path, m: int | None = None, d: int | None = None) -> dict:
    """Features of one (student, teacher, temperature): arrays by name, and `prompt_id` (n m,) of strings.

    `g` (n m, d) is before length recalibration; see `gradients.response_features` for the others. Arrays `token_*` are
    flat: `length` entries for each response in turn; files of before `features.record` have none. `m` and `d` keep the
    first m responses of every prompt and the first d columns of g (rows of the projection are independent, so these are
    a projection to d dimensions). FileNotFoundError where there is none. ValueError naming the file if it is no
    safetensors file, an array is missing, of another length or out of order, the ids do not fit, or more is asked for
    than is there.
    """
    path = Path(folder) / "features.safetensors"
    features, ids = _read(path)
    features["prompt_id"] = pd.Series(ids).to_numpy(dtype=str)[features["prompt"]]
    if "correct" in features:
        features["correct"] = features["correct"].astype(bool)
    m_there, d_there = int(np.bincount(features["prompt"]).min()), features["g"].shape[1]
    if (m or 1) > m_there or (d or 1) > d_there:
        raise ValueError(
            f"{folder}: m = {m}, d = {d} asked for, and there are {m_there} responses per prompt and {d_there} columns"
        )
    if m is not None and m < m_there:  # a prompt's responses stand together, in order
        first = np.flatnonzero(np.diff(features["prompt"], prepend=-1))
        features = rows_of(features, np.arange(len(features["prompt"])) - first[features["prompt"]] < m)
    features["g"] = features["g"][:, :d]
    return features


def rows_of(features: dict[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
    """The features of the responses that the mask `kept` (N,) marks."""
    tokens = np.repeat(kept, features["length"])
    return {name: values[tokens if name.startswith("token_") else kept] for name, values in features.items()}


def _read(path: Path) -> tuple[dict[str, np.ndarray], list]:
    """Arrays and ids of a file that fits together."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: `make figures` makes the features of a scale")
    try:
        with safe_open(path, framework="numpy") as f:
            features = {name: f.get_tensor(name) for name in f.keys()}
            about = json.loads((f.metadata() or {}).get("about", "{}"))
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); {_AGAIN}") from error
    except ValueError as error:
        raise ValueError(f"{path}: its metadata 'about' is not JSON ({error}); {_AGAIN}") from error
    ids = about.get("prompt_ids") if isinstance(about, dict) else None
    if not isinstance(ids, list) or not all(isinstance(name, str | int) for name in ids):
        raise ValueError(f"{path}: its metadata has no list prompt_ids of texts or numbers; {_AGAIN}")
    if lost := [name for name in _NEEDED if name not in features]:
        raise ValueError(
            f"{path}: array {lost[0]!r} is missing; it has {', '.join(sorted(features)) or 'none'}; {_AGAIN}"
        )
    if features["g"].ndim != 2 or not features["g"].size:
        raise ValueError(f"{path}: array 'g' has shape {features['g'].shape}, expected (responses, d); {_AGAIN}")
    n, length = len(features["g"]), features["length"]
    whole = length.shape == (n,) and length.dtype.kind in "iu" and length.min() >= 0
    for name, values in features.items():
        of_tokens = name.startswith("token_") and whole
        if len(values.shape) != 1 + (name == "g") or len(values) != (length.sum() if of_tokens else n):
            what = "token of" if of_tokens else "of"
            raise ValueError(
                f"{path}: array {name!r} has shape {values.shape}, expected one entry for each {what} the {n} rows of g; "
                f"{_AGAIN}"
            )
    prompt = features["prompt"]
    if prompt.dtype.kind not in "iu" or prompt[0] != 0 or not np.isin(np.diff(prompt.astype(np.int64)), (0, 1)).all():
        raise ValueError(
            f"{path}: array 'prompt' does not count 0, 0, 1, 1, ...: the responses of a prompt stand together "
            f"and in order; {_AGAIN}"
        )
    if len(ids) != prompt[-1] + 1:
        raise ValueError(f"{path}: {len(ids)} ids for {prompt[-1] + 1} prompts; {_AGAIN}")
    return features, ids


def piece_size(model, device: str) -> int:
    """Responses in a piece: minutes of work, whatever the student's size; FEWEST to MOST."""
    n_parameters = sum(p.numel() for p in model.parameters())
    return int(min(MOST, max(FEWEST, _WORK.get(device, _WORK["cuda"]) // n_parameters)))


def planned_seconds(
    model,
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    d: int,
    seed: int = 0,
    params: str = "all",
    projection: str = "signs",
    dtype: str = "float32",
    device: str = "cpu",
    batch_tokens: int | None = None,
    special: Sequence[int] = (),
) -> Callable[[Sequence[int]], float]:
    """lengths -> seconds that `chunked_features` will take for responses of so many tokens, prompt counted, if no piece is
    finished. The passes are timed on two of `examples`, of middle length, the projection on a part of the parameters."""
    import torch

    from gracelib.features.batches import batch_groups
    from gracelib.features.estimators import PROJECTIONS, estimator, n_parameters
    from gracelib.features.gradients import response_features
    from gracelib.features.per_response import LayerByLayer, work

    engine, size = estimator(params, projection, seed)["engine"] or LayerByLayer, n_parameters(model, params)
    ordered = sorted(examples, key=lambda e: len(e[0]) + len(e[1]))
    two = [ordered[len(ordered) // 2]] * 2

    def passes(lengths: Sequence[int], together: bool) -> tuple[float, list[int]]:
        """Multiplications without the projection, and responses of each group."""
        grouped = batch_groups(model, lengths, batch_tokens, together)
        tokens = sum(len(batch) * max(lengths[i] for i in batch) for group in grouped.groups for batch in group)
        return work(model, grouped.found, len(lengths), tokens, 0), [sum(map(len, group)) for group in grouped.groups]

    both, _ = passes([len(x) + len(y) for x, y in two], False)
    how = {"seed": seed, "engine": engine, "dtype": dtype, "device": device, "progress": False, "special": special}
    rate = (
        min(timed(lambda: response_features(model, two, d=1, **how))[0] for _ in range(2)) / both
    )  # the first warms up
    projector = PROJECTIONS[projection](d, seed, torch.device(device))
    projector.cache_bytes = 0  # a large student's signs are not kept

    @cache
    def an_element(rows: int) -> float:
        block, out = torch.randn(rows, min(size, _TIMED), device=device), torch.zeros(d, rows, device=device).T
        return min(timed(lambda: projector.accumulate(out, "", 0, block))[0] for _ in range(2)) / block.shape[1]

    def seconds(lengths: Sequence[int]) -> float:
        total, step = 0.0, piece_size(model, device.partition(":")[0])
        for start in range(0, len(lengths), step):
            multiplications, groups = passes(lengths[start : start + step], engine is LayerByLayer and device == "cpu")
            total += rate * (multiplications + 2 * both * (params == "all")) + size * sum(map(an_element, groups))
        return total

    return seconds


def chunked_features(
    model,
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    names: Sequence[str],
    work: Path,
    *,
    student: str,
    d: int,
    seed: int = 0,
    params: str = "all",
    projection: str = "signs",
    dtype: str = "float32",
    device: str = "cpu",
    batch_tokens: int | None = None,
    special: Sequence[int] = (),
    done: Callable[[float], None] = lambda n: None,
    part: tuple[int, int] = (0, 1),
) -> dict[str, np.ndarray]:
    """`gradients.response_features` of `examples`, piece by piece; finished pieces are read from the folder `work`.

    `student` is `checkpoints.weights_digest(model)` taken once for all calls; `names` say in error messages where a response comes
    from. `done` is called as work goes on (`response_features`), after a piece that was read with all its responses. A piece whose checksum is wrong is named
    on stderr and computed again. part (k, n): only the n-th of the pieces from the k-th on, for n processes that share the
    work. Returns and raises as `response_features`.
    """
    from safetensors.numpy import save_file

    from gracelib.features.estimators import estimator
    from gracelib.features.gradients import response_features

    kind = device.partition(":")[0]
    size, plugged_in = piece_size(model, kind), estimator(params, projection, seed)
    how = {"d": d, "seed": seed, "dtype": dtype, "special": sorted(special)}
    record = {
        **how,
        "student": student,
        "params": params,
        "projection": projection,
        "device": kind,
        "code": fingerprint(closure("gracelib.features.estimators")),
        "versions": {name: versions()[name] for name in DECISIVE},
    }
    pieces = []
    for start in range(0, len(examples), size)[part[0] :: part[1]]:
        own = examples[start : start + size]
        path = work / f"{digest({**record, 'examples': [[list(x), list(y)] for x, y in own]})}.safetensors"
        found = _read_piece(path, len(own), d) if path.is_file() else None
        if found is not None:
            done(len(own))
        else:
            place = {"device": device, "batch_tokens": batch_tokens, "names": names[start : start + size]}
            found = response_features(model, own, progress=False, done=done, **how, **place, **plugged_in)
            found = {name: np.ascontiguousarray(values) for name, values in found.items()}
            # One metadata entry: several are written in random order, and the same run must give the same bytes.
            about = {"checksum": _checksum(found)}
            write_atomically(path, lambda part: save_file(found, part, metadata=about))
        pieces.append(found)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in next(iter(pieces), ())}


def _read_piece(path: Path, n: int, d: int) -> dict[str, np.ndarray] | None:
    """A finished piece, or None (and a line on stderr) if it is not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            features = {name: file.get_tensor(name) for name in file.keys()}
            kept = (file.metadata() or {}).get("checksum")
    except (SafetensorError, OSError) as error:
        print(f"{path.name} cannot be read ({error}); it is computed again", file=sys.stderr)
        return None
    if kept != _checksum(features) or features["g"].shape != (n, d):
        print(f"{path.name} is damaged (its checksum changed); it is computed again", file=sys.stderr)
        return None
    return features


def _checksum(features: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(features):
        found.update(f"{name} {features[name].dtype} {features[name].shape}".encode())
        found.update(features[name].tobytes())
    return found.hexdigest()[:32]
