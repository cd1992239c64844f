"""What a further forward pass is given for a response, for the scores that ask more than one: IFD reads it without its
prompt, LALP (`since.lalp`) sentence by sentence, each after the prompt and a share of the sentences before it."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from gracelib.models.prompting import Encoded

WINDOW = 0.25  #: of the sentences before one


def alone(e: Encoded) -> list[Encoded]:
    """Its tokens after the first, without the prompt."""
    return [Encoded(e.response_ids[:1], e.response_ids[1:])] if len(e.response_ids) > 1 else []


def by_sentence(e: Encoded) -> list[Encoded]:
    """Each sentence after the prompt and WINDOW of the sentences before it."""
    starts = [*np.flatnonzero(e.step == 0), len(e.response_ids)]
    return [
        Encoded([*e.prompt_ids, *e.response_ids[starts[s - math.ceil(WINDOW * s)] : begin]], e.response_ids[begin:end])
        for s, (begin, end) in enumerate(pairwise(starts))
    ]


#: Column of the features -> what the pass is given for a response; the column is the mean of the losses.
MORE = {"alone_loss": alone, "local_loss": by_sentence}


def mean_losses(losses: np.ndarray, made: Sequence[list[Encoded]]) -> np.ndarray:
    """Of each response the mean (N,) of the losses of what was made of it; NaN where nothing was. losses: of all, flat."""
    owner = np.repeat(np.arange(len(made)), [*map(len, made)])
    return pd.Series(losses).groupby(owner).mean().reindex(range(len(made))).to_numpy()
