"""Features at rest: how a finished folder of the `features` stage is read.

Why apart from `pipeline`: which responses and columns are taken decides every score, so this is part of the code of the
stages that compute them, and the rest of the pipeline is not.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

#: The modules whose code makes a feature, for the keys of what is computed from gradients.
GRADIENT_CODE = ("gracelib.gradients", "gracelib.batching", "gracelib.per_response", "gracelib.contributions",
                 "gracelib.parameter_choice", "gracelib.projection", "gracelib.projection_choice",
                 "gracelib.triton_projection")


def load_features(folder: Path, m: int | None = None, d: int | None = None) -> dict:
    """Features of one (student, teacher, temperature): arrays by name, and `prompt_id` (n m,) of strings.

    `g` (n m, d) is before length recalibration; see `gradients.response_features` for the others. `m` and `d` keep the
    first m responses of every prompt and the first d columns of g (rows of the projection are independent, so these are
    a projection to d dimensions). ValueError if more is asked for than is there.
    """
    from safetensors import safe_open

    with safe_open(folder / "features.safetensors", framework="numpy") as f:
        features = {name: f.get_tensor(name) for name in f.keys()}
        ids = json.loads(f.metadata()["about"])["prompt_ids"]
    features["prompt_id"] = pd.Series(ids).to_numpy(dtype=str)[features["prompt"]]
    if "correct" in features:
        features["correct"] = features["correct"].astype(bool)
    m_there, d_there = int(np.bincount(features["prompt"]).min()), features["g"].shape[1]
    if (m or 1) > m_there or (d or 1) > d_there:
        raise ValueError(f"{folder}: m = {m}, d = {d} asked for, and there are {m_there} responses a prompt and {d_there} columns")
    if m is not None and m < m_there:  # a prompt's responses stand together, in order
        first = np.flatnonzero(np.diff(features["prompt"], prepend=-1))
        kept = np.arange(len(features["prompt"])) - first[features["prompt"]] < m
        features = {name: values[kept] for name, values in features.items()}
    features["g"] = features["g"][:, :d]
    return features
