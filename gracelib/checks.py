"""Input checks shared by every score: one clear ValueError that names the value, the place and the remedy.

Why apart: a NaN that slips into a matrix product turns a score into a plausible number or into NaN far from
its cause. Every function that takes gradients passes them through here first, so each message is written
once.
"""

import numpy as np

LARGEST = (
    1e100  # no gradient is: fourth powers of what is larger, divided by a small nu, would be infinite (or nothing)
)


class UndefinedScore(ValueError):
    """The input is sound, but no prompt has what the score averages over."""


def check_rows(h, name: str = "h") -> np.ndarray:
    """`h`, an array or a torch tensor of any kind, as float64 (rows, d), or a ValueError that names the shape or the
    first row that is not finite, or too large or too small to compute with."""
    if hasattr(h, "is_floating_point"):  # a tensor: numpy takes none that is bfloat16, on a GPU or asks for gradients
        h = h.detach().cpu()
        h = h.double() if h.is_floating_point() else h
    h = np.asarray(h)
    if h.dtype.kind not in "iuf":
        raise ValueError(f"{name} has dtype {h.dtype}: expected real numbers")
    if h.ndim != 2:
        raise ValueError(f"{name} has {h.ndim} dimension(s), shape {h.shape}: expected (responses, d)")
    if h.shape[0] == 0 or h.shape[1] == 0:
        raise ValueError(f"{name} is empty, shape {h.shape}: there is nothing to score")
    h = h.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(h).all(axis=1))
    if bad.size:
        raise ValueError(
            f"{name} has NaN or Inf in {bad.size} row(s), first at row {bad[0]}: find the response that "
            "produced it, a score over the rest would hide it"
        )
    size = np.abs(h).max(axis=1)
    bad = np.flatnonzero((size > LARGEST) | ((size > 0) & (size < 1 / LARGEST)))
    if bad.size:
        raise ValueError(
            f"{name} has a row, {bad[0]}, whose largest entry is of size {size[bad[0]]:.0e}: outside {1 / LARGEST:.0e} to "
            f"{LARGEST:.0e} its powers leave the range of numbers; find the response that produced it, or scale all rows"
        )
    return h


def check_prompt_ids(prompt_id, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted unique prompt ids (n,) and the index of each row's prompt (n_rows,); ids are strings or
    integers."""
    ids = np.asarray(prompt_id, None if isinstance(prompt_id, np.ndarray) else object)  # numpy makes text of [1, "1"]
    if ids.shape != (n_rows,):
        raise ValueError(f"prompt_id has shape {ids.shape}, expected ({n_rows},): one id per row")
    if any(isinstance(v, str) and v.endswith("\0") for v in ids):
        raise ValueError("prompt_id: an id ends in a NUL character, which numpy drops; take it off")
    if ids.dtype.kind == "O":
        for kind, types in (("U", str), (None, (int, np.integer))):
            if all(isinstance(v, types) and not isinstance(v, bool) for v in ids):
                ids = np.array(ids.tolist(), dtype=kind)
                break
    if ids.dtype.kind not in "iuU":
        raise ValueError(f"prompt_id has dtype {ids.dtype}: ids must be all strings or all integers")
    return np.unique(ids, return_inverse=True)


def check_column(name: str, values, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """`values` as a float64 vector inside [low, high], or a ValueError that names the first entry outside."""
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iuf":
        raise ValueError(f"{name} has shape {values.shape} and dtype {values.dtype}: expected one number per response")
    values = values.astype(np.float64)
    slack = 1e-6  # a float32 mean of probabilities that are all 1 may come out as 1.0000001
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= low - slack) & (values <= high + slack)))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] = {values[bad[0]]} ({bad.size} such): expected finite, in [{low}, {high}]")
    return values


def as_int(name: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name} = {value!r}: expected a whole number")
    return int(value)


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} = {value!r:.200}: choose one of {', '.join(allowed)}")


def check_nu(nu: float, zero: str = "") -> float:
    """`nu` as a float, finite and >= 0; also refused at 0 where `zero` says why that cannot be."""
    nu = float(nu)
    if not np.isfinite(nu) or nu < 0:
        raise ValueError(f"nu = {nu}: the smoothing must be finite and >= 0")
    if nu == 0 and zero:
        raise ValueError(f"nu = 0: {zero}")
    return nu


def check_prompted_rows(h, prompt_id, zero_rows: str, name: str = "h") -> tuple[np.ndarray, ...]:
    """`check_rows`, `check_prompt_ids` and `find_zero_rows` of one matrix: rows, prompt ids, their index, zero rows."""
    h = check_rows(h, name)
    prompt_ids, code = check_prompt_ids(prompt_id, len(h))
    return h, prompt_ids, code, find_zero_rows(h, zero_rows)


def find_zero_rows(h: np.ndarray, zero_rows: str) -> np.ndarray:
    """Mask (rows,) of rows without direction; refuses them unless told to keep them, and always if all are
    zero."""
    check_choice("zero_rows", zero_rows, ("refuse", "keep"))
    zero = ~h.any(axis=1)
    if zero.all():
        raise ValueError(f"all {len(h)} rows of h are zero: no response has a direction, so no score is defined")
    if zero.any() and zero_rows == "refuse":
        raise ValueError(
            f"h has {zero.sum()} zero row(s), first at row {np.argmax(zero)}: a response of one token "
            '(log|y| = 0) or a dead gradient; drop them, or pass zero_rows="keep" '
            "to count them as responses that add nothing"
        )
    return zero


def positions(config) -> float:
    """The most tokens that a model reads; infinite where its configuration does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or np.inf


def rope_switch(config) -> int | None:
    """The input length beyond which a model reads a text with other rotary frequencies (LongRoPE, as in Phi-3-128k and
    Phi-4-mini); None: it has none. transformers takes the longest text of a batch, so a short text beside a longer one
    would be read as no reader of it alone would: texts of the two kinds must not share a batch."""
    of_all = getattr(config.get_text_config(), "rope_parameters", None) or {}
    for rope in (of_all, *of_all.values()):  # of some models each kind of layer has its own
        if isinstance(rope, dict) and rope.get("rope_type") == "longrope":
            return rope["original_max_position_embeddings"]
    return None
