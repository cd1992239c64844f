"""Who takes part in the paper's own experiment: its students, its fifteen teachers and its two tasks, in one table.

Hub ids are to the best of our knowledge: the paper names models, not repositories (the OLMo-2 student's id is another
project's reading, and whether "Gemma-2B" is gemma-2b or gemma-2-2b is not said). So every row can be replaced by
another hub id or by a local folder, in a settings file (`paper.settings`). What a hub does not hand out freely is asked for before any compute is spent.
"""

from collections.abc import Iterable
from pathlib import Path

from gracelib.scale import Model

LLAMA, GEMMA = "the Llama Community License", "Google's Gemma terms of use"
STUDENTS = (  # base models; D as counted by a re-run of the paper's code
    Model("Llama-3.2-1B", "meta-llama/Llama-3.2-1B", "Llama", 3, 1.24e9, LLAMA),
    Model("OLMo-2-1B", "allenai/OLMo-2-0425-1B", "OLMo", 3, 1.48e9),
    Model("Gemma-2B", "google/gemma-2b", "Gemma", 3, 2.51e9, GEMMA),
    Model("Llama-3.2-3B", "meta-llama/Llama-3.2-3B", "Llama", 3, 3.21e9, LLAMA),
)
TEACHERS = (  # all of them instruction-tuned
    Model("Llama-3.2-3B", "meta-llama/Llama-3.2-3B-Instruct", "Llama", 3, 3.21e9, LLAMA),
    Model("Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", "Llama", 10, 8.03e9, LLAMA),
    Model("Llama-3.3-70B", "meta-llama/Llama-3.3-70B-Instruct", "Llama", 70, 70.6e9, LLAMA, gpus=4),
    Model("Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B-Instruct", "Qwen", 3, 1.54e9),
    Model("Qwen2.5-3B", "Qwen/Qwen2.5-3B-Instruct", "Qwen", 3, 3.09e9),
    Model("Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct", "Qwen", 10, 7.62e9),
    Model("Qwen2.5-14B", "Qwen/Qwen2.5-14B-Instruct", "Qwen", 30, 14.8e9),
    Model("Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-Math-1.5B-Instruct", "Qwen", 3, 1.54e9),
    Model("Qwen2.5-Math-7B", "Qwen/Qwen2.5-Math-7B-Instruct", "Qwen", 10, 7.62e9),
    Model("Gemma-2-2B", "google/gemma-2-2b-it", "Gemma", 3, 2.61e9, GEMMA),
    Model("Gemma-2-9B", "google/gemma-2-9b-it", "Gemma", 10, 9.24e9, GEMMA),
    Model("Gemma-2-27B", "google/gemma-2-27b-it", "Gemma", 30, 27.2e9, GEMMA),
    Model("OLMo-2-7B", "allenai/OLMo-2-1124-7B-Instruct", "OLMo", 10, 7.3e9),
    Model("OLMo-2-13B", "allenai/OLMo-2-1124-13B-Instruct", "OLMo", 30, 13.7e9),
    Model("Phi-4", "microsoft/phi-4", "Phi", 30, 14.7e9),
)


def check_access(models: Iterable[Model]) -> None:
    """Whether every model can be had: local folders are there, hub models are in the cache or can be downloaded.

    ValueError with one line a model that cannot, saying what to do; nothing is downloaded. A model in the local cache
    needs no network.
    """
    from huggingface_hub import auth_check, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    problems = []
    for model in dict.fromkeys(models):
        source, said = model.source, ""
        gated = (
            f"{source} is gated: accept {model.terms or 'its terms'} at https://huggingface.co/{source} (access is granted "
            "by its owners, sometimes after a while), make a token with read access, and log in with `hf auth login` or "
            "set HF_TOKEN"
        )
        instead = f'or name a local folder for "{model.name}" in the file given with --settings'
        # a place on this machine; a hub id is "owner/name"
        if Path(source).exists() or source.startswith((".", "/", "~")) or source.count("/") != 1:
            if not (Path(source) / "config.json").is_file():
                said = f"{source} is not a model folder (no config.json in it)"
        elif not isinstance(try_to_load_from_cache(source, "config.json"), str):
            try:
                auth_check(source)
            except GatedRepoError:
                said = gated
            except RepositoryNotFoundError:
                said = f"the hub has no model {source!r}, or it is private; {instead}"
            except Exception as error:
                # Offline, no network, a proxy: each version of the library has its own error, and all are reported.
                why = f"{source} is not in the local cache and the hub cannot be reached ({type(error).__name__})"
                said = why + (f" ({gated})" if model.terms and not model.path else "") + f"; {instead}"
        if said:
            problems.append(f"{model.name}: {said}")
    if problems:
        raise ValueError(f"{len(problems)} of the models cannot be had:\n  " + "\n  ".join(problems))
