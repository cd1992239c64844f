"""Features of many responses in pieces that are kept: a run that is killed loses the piece it was at, no more.

Why pieces with keys of their own: the gradients of a large student on thousands of responses take hours, and what
decides a piece's numbers is short to say: the student's weights, the exact tokens, and the settings. So a piece is a
file named after a hash of just that. The same command twice reads it; another order of the teachers' files or a file
with more prompts finds the pieces that are the same; changed weights, another template or another `d` can never be
given them. How many padded tokens went into a batch is not in the key: it moves the last digits only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gracelib.features.gradients import Example, response_features
from gracelib.jobs.store import DECISIVE, closure, digest, fingerprint, versions, write_atomically

_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
FEWEST, MOST = 32, 256  #: responses in a piece
#: Responses x parameters in a piece, by kind of device: minutes of work. Each piece checks the gradients against
#: autograd on two responses, so that pieces of fewer than FEWEST would mostly check.
_WORK = {"cpu": 1e10, "cuda": 3e11}


def student_hash(model: torch.nn.Module) -> str:
    """A hash of what a model computes with: names, shapes and bytes of its parameters, and its configuration.

    Not of its files: one checkpoint may be stored in one shard or in three, in a folder or in the hub's cache.
    """
    found = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        found.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
        found.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    config = {k: v for k, v in model.config.to_dict().items() if k not in _VOLATILE}
    found.update(json.dumps(config, sort_keys=True, default=str).encode())
    return found.hexdigest()[:32]


def piece_size(model: torch.nn.Module, device: str) -> int:
    """Responses in a piece: minutes of work, whatever the student's size; FEWEST to MOST."""
    n_parameters = sum(p.numel() for p in model.parameters())
    return int(min(MOST, max(FEWEST, _WORK.get(device, _WORK["cuda"]) // n_parameters)))


def chunked_features(
    model: torch.nn.Module,
    examples: Sequence[Example],
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
    done: Callable[[int], None] = lambda n: None,
) -> dict[str, np.ndarray]:
    """`gradients.response_features` of `examples`, piece by piece; finished pieces are read from the folder `work`.

    `student` is `student_hash(model)` taken once for all calls; `names` say in error messages where a response comes
    from. `done(n)` is called after each piece with its number of responses. A piece whose checksum is wrong is named
    on stderr and computed again. Returns and raises as `response_features`.
    """
    size = piece_size(model, torch.device(device).type)
    record = {
        "student": student,
        "d": d,
        "seed": seed,
        "params": params,
        "projection": projection,
        "dtype": dtype,
        "device": torch.device(device).type,
        "code": fingerprint(closure("gracelib.features.gradients")),
        "versions": {name: versions()[name] for name in DECISIVE},
    }
    pieces = []
    for start in range(0, len(examples), size):
        own = examples[start : start + size]
        path = work / f"{digest({**record, 'examples': [[list(x), list(y)] for x, y in own]})}.safetensors"
        found = _read(path, len(own), d) if path.is_file() else None
        if found is None:
            found = response_features(
                model,
                own,
                d=d,
                seed=seed,
                params=params,
                projection=projection,
                dtype=dtype,
                device=device,
                batch_tokens=batch_tokens,
                progress=False,
                names=names[start : start + size],
            )
            _write(path, found)
        pieces.append(found)
        done(len(own))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _write(path: Path, features: dict[str, np.ndarray]) -> None:
    features = {name: np.ascontiguousarray(values) for name, values in features.items()}
    # One metadata entry: several are written in random order, and the same run must give the same bytes.
    write_atomically(path, lambda part: save_file(features, part, metadata={"checksum": _checksum(features)}))


def _read(path: Path, n: int, d: int) -> dict[str, np.ndarray] | None:
    """A finished piece, or None (and a line on stderr) if it is not what was written."""
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
