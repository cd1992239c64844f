"""The transformers engine: sampling with nothing but torch, on any device.

The randomness of every token is `gracelib.models.decoding`'s, keyed by (seed, prompt, sample, step): prompts of the
built-in world get the very texts that `sample_responses` gives them. What is added are prompts that are encoded
already (chat templates) and several tokens that end a response (real chat models have an end of turn beside
EOS).
"""

from __future__ import annotations

import torch
from transformers import GenerationConfig

from gracelib.models.checkpoints import load_student
from gracelib.models.decoding import _row_keys, decode


class TransformersEngine:
    """A model in this process."""

    def __init__(self, model: str, dtype: str, device: str):
        self.model, _ = load_student(model, dtype, device)
        self.model.generation_config = GenerationConfig()  # no penalty we did not ask for

    @torch.inference_mode()
    def tokens(self, requests, sampling) -> list[list[list[int]]]:
        """The new tokens of `m` samples of each request (see `sampling.Engine`). The requests' prompts must be of
        one length: nothing is padded."""
        rows = [(request, k) for request in requests for k in range(sampling.m)]
        found = []
        for at in range(0, len(rows), sampling.batch_size):
            batch = rows[at : at + sampling.batch_size]
            keys = _row_keys(sampling.seed, [request.id for request, _ in batch], [k for _, k in batch])
            found += decode(
                self.model,
                [request.ids for request, _ in batch],
                keys,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_new_tokens=requests[0].room,
                stop=tuple(sampling.stop),
            )
        return [found[i : i + sampling.m] for i in range(0, len(found), sampling.m)]
