"""Features at rest: how a finished folder of the `features` stage is read.

Why apart from `pipeline`: which responses and columns are taken decides every score, so this is part of the code of the
stages that compute them, and the rest of the pipeline is not. A file that does not fit together is refused here with
its name: a score would otherwise be one of the wrong rows.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

_NEEDED = ("g", "length", "loss", "mean_prob", "grad_norm", "prompt")
_AGAIN = "remove its folder and run the same command again"


def load_features(folder: Path, m: int | None = None, d: int | None = None) -> dict:
    """Features of one (student, teacher, temperature): arrays by name, and `prompt_id` (n m,) of strings.

    `g` (n m, d) is before length recalibration; see `gradients.response_features` for the others. `m` and `d` keep the
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
            f"{folder}: m = {m}, d = {d} asked for, and there are {m_there} responses a prompt and {d_there} columns"
        )
    if m is not None and m < m_there:  # a prompt's responses stand together, in order
        first = np.flatnonzero(np.diff(features["prompt"], prepend=-1))
        kept = np.arange(len(features["prompt"])) - first[features["prompt"]] < m
        features = {name: values[kept] for name, values in features.items()}
    features["g"] = features["g"][:, :d]
    return features


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
    for name, values in features.items():
        if len(values.shape) != 1 + (name == "g") or len(values) != len(features["g"]):
            raise ValueError(
                f"{path}: array {name!r} has shape {values.shape}, expected one entry for each of the "
                f"{len(features['g'])} rows of g; {_AGAIN}"
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
