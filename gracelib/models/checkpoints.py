"""Somebody's causal language model, or one line that says why it is none.

Why: a wrong path, an adapter without its base, a gated hub id, a tokenizer of another model: each ends somewhere in
`transformers` with pages of traceback, or, worse, with random weights and a warning. Here everything that can be
known without the weights is checked first (`check_student`, seconds), and the weights are then loaded in the dtype in
which they are used: there is never a second copy, and buffers that the model keeps in float32 (positions) stay so.
Only safetensors are read and no code of a checkpoint is ever run. Where a model runs and in which precision are names
that are known, refused before anything is loaded: torch says which thirty kinds of device it was built for, and says it
after the weights were read.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from gracelib.text.formats import is_pointer

DTYPES = ("float32", "bfloat16", "float64")
_KNOWN_DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu)(:[0-9]+)?")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
#: Of what a config does not know: layers that predict a second token, and constants that older versions saved.
_NEVER_READ = r"(^|[._])(mtp|nextn)|\.att(n|ention)\.(masked_)?bias$|rotary_emb\.inv_freq$"
_END = 1 << 20  # bytes hashed at either end of a file of weights
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "Model")


def check_device(name: str, what: str = "device") -> None:
    """ValueError, without loading torch, for a name that is none; `what` says in it where the name stood."""
    if not _KNOWN_DEVICE.fullmatch(name):
        raise ValueError(f"{what}={name!r} is not known; use auto, cpu or cuda")


def check_dtype(name: str, what: str = "dtype") -> None:
    """ValueError for a precision that no gradient is taken in."""
    if name not in DTYPES:
        raise ValueError(f"{what}={name!r} is not known; choose one of {', '.join(DTYPES)}")


def resolve_device(name: str, what: str = "device") -> str:
    """A device that is there; "auto": CUDA where there is one. ValueError if it is not known or not there.

    Loads torch only where a CUDA device is asked for, or an NVIDIA driver suggests that there is one.
    """
    check_device(name, what)
    if name == "auto" and not (Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")):
        return "cpu"
    if name != "auto" and not name.startswith("cuda"):
        return name
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if there else "cpu"
    if int(name.partition(":")[2] or 0) >= there:
        raise ValueError(
            f"{what}={name!r}: torch finds {there or 'no'} CUDA device{'s' * (there != 1)} here; use cpu or auto"
        )
    return name


def device_of_run() -> tuple[str, str]:
    """(device, dtype) of the gradients of a whole run: GRACELIB_DEVICE (cpu) and GRACELIB_DTYPE (float32).

    Not "auto": the world's models gain nothing on a GPU, and its numbers would depend on the machine. ValueError naming the variable for a value that is not known.
    """
    dtype = os.environ.get("GRACELIB_DTYPE") or "float32"
    check_dtype(dtype, "GRACELIB_DTYPE")
    return resolve_device(os.environ.get("GRACELIB_DEVICE") or "cpu", "GRACELIB_DEVICE"), dtype


def check_student(path_or_hub_id: str | os.PathLike, quantised: bool = False):
    """(config, tokenizer) of a checkpoint folder or hub id, without its weights. quantised: whether its weights may be.

    Raises ValueError, in one line, for: a path that does not exist; a folder that is not a model (naming the file
    that is missing); a hub id that cannot be reached or is gated (saying how to get it); a model that is not causal or
    that needs code of its own; quantised weights, an adapter beside them; no tokenizer; a tokenizer without EOS, or with
    ids beyond the model's embedding.
    """
    from transformers import AutoConfig, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.utils import find_adapter_config_file

    name, source = os.fspath(path_or_hub_id), place_of(path_or_hub_id)
    _check_folder(Path(os.path.expanduser(name)), name)
    config = _ask(name, "config", lambda: AutoConfig.from_pretrained(source, trust_remote_code=False))
    heads = config.architectures or []
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (heads and not heads[0].endswith(_HEADS)):
        kind = (heads or [config.model_type])[0]
        raise ValueError(f"student {name!r} is not a causal language model: it is a {kind}")
    if (how := getattr(config, "quantization_config", None)) and not quantised:
        kind = (how if isinstance(how, dict) else how.to_dict()).get("quant_method")
        raise ValueError(
            f"student {name!r}: its weights are quantised ({kind}); quantised weights have no gradients: give the original "
            "(a teacher that is quantised is sampled with --backend vllm)"
        )
    if _ask(name, "config", lambda: find_adapter_config_file(source)):
        raise ValueError(
            f"student {name!r}: an adapter (adapter_config.json) lies beside its weights; is the student with it or without? "
            "Merge it into the weights and save that, or move the adapter away"
        )
    tokenizer = _ask(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(source, trust_remote_code=False))
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"student {name!r}: its tokenizer has no EOS token, so no response could end; set eos_token "
            "in tokenizer_config.json (or tokenizer.eos_token and save_pretrained)"
        )
    highest, rows = max(tokenizer.get_vocab().values()), config.get_text_config().vocab_size
    if highest >= rows:
        raise ValueError(
            f"student {name!r}: its tokenizer has ids up to {highest}, its embedding {rows} rows; the "
            "tokenizer is another model's, or tokens were added without resize_token_embeddings"
        )
    return config, tokenizer


def load_student(path_or_hub_id: str | os.PathLike, dtype: str = "float32", device: str = "cpu"):
    """(model, tokenizer) of a checkpoint folder or a hub id.

    dtype: of the weights, "float32", "bfloat16" or "float64"; they are loaded in it, whatever the files hold. device:
    "cpu", "cuda", or "auto" (CUDA when present). Give `gradients.response_features` the same two and it makes no copy.

    The model is in eval mode. Raises ValueError as `check_student` before weights are read, and for weights that
    cannot be read, do not fit the config, leave a tensor out (which would be random) or hold one that the config does
    not know (which would be left out), but for multi-token-prediction layers, which no causal model computes with.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading and writing weights: the bars that count are ours
    check_dtype(dtype)
    device = resolve_device(device)
    config, tokenizer = check_student(path_or_hub_id)
    name = os.fspath(path_or_hub_id)
    model, info = _ask(
        name,
        "weights",
        lambda: AutoModelForCausalLM.from_pretrained(
            place_of(name),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **({"experts_implementation": "eager"} if dtype == "float64" else {}),  # the fused products know no float64
        ),
    )
    if info["mismatched_keys"]:
        tensor, there, expected = sorted(info["mismatched_keys"])[0]
        raise ValueError(
            f"student {name!r}: its weights do not fit its config: {tensor} has shape {tuple(there)}, "
            f"expected {tuple(expected)}; take both from the same model"
        )
    beyond = range(getattr(config, "num_nextn_predict_layers", None) or 0)  # DeepSeek's MTP layers follow the others
    known = "|".join([_NEVER_READ, *(rf"\.layers\.{config.num_hidden_layers + k}\." for k in beyond)])
    extra = (key for key in info["unexpected_keys"] if not re.search(known, key))
    for keys, said, so in (
        (info["missing_keys"], "lack {} tensors", "be random; the checkpoint is not complete"),
        (
            extra,
            "hold {} tensors that its config does not know",
            "be left out; take config.json and weights from the same model",
        ),
    ):
        if tensors := sorted(keys):
            which = ", ".join(tensors[:3]) + (", ..." if tensors[3:] else "")
            raise ValueError(f"student {name!r}: its weights {said.format(len(tensors))} ({which}), which would {so}")
    for tensor, values in model.named_parameters():
        if not torch.isfinite(values).all():
            n_bad = int((~torch.isfinite(values)).sum())
            raise ValueError(
                f"student {name!r}: {tensor} is not finite in {n_bad} places; "
                "the checkpoint is damaged or its training diverged: take another one"
            )
    return model.to(device).eval(), tokenizer


def without_weights(path_or_hub_id: str | os.PathLike, config):
    """The model of a config with shapes and no numbers (device "meta"). ValueError for a config that gives none."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return _ask(
            os.fspath(path_or_hub_id),
            "config",
            lambda: AutoModelForCausalLM.from_config(config, trust_remote_code=False),
        )


def place_of(path_or_hub_id: str | os.PathLike) -> str:
    """Where a model is read from: the folder, `~` expanded, if there is one; else the name as it is, a hub id."""
    place = os.path.expanduser(path_or_hub_id)
    return place if os.path.isdir(place) else os.fspath(path_or_hub_id)


# Two digests for two questions: is this the same checkpoint (asked before 140 GB are read), and do these weights
# compute the same (asked of a loaded model, in whatever files it lay).


def files_digest(source: str | os.PathLike, endings: tuple[str, ...] = ("",), commit: str | None = None) -> str:
    """What a result made with a source depends on: of a folder the names, sizes and both ends of its files (hashing
    140 GB would take longer than loading them); of a hub id the id itself, with its `commit` where that is known.

    endings: of the names of the files that count; hidden ones never do.
    """
    if not Path(source).is_dir():
        return f"{source}@{commit}" if commit else str(source)
    found = hashlib.sha256()
    for path in sorted(p for p in Path(source).iterdir() if p.is_file() and p.name.endswith(endings)):
        if path.name.startswith("."):
            continue
        size = path.stat().st_size
        with open(path, "rb") as f:
            head = f.read(_END)
            f.seek(max(0, size - _END))
            found.update(f"{path.name} {size} ".encode() + head + f.read())
    return found.hexdigest()[:20]


def weights_digest(model) -> str:
    """A hash of what a model computes with: names, shapes and bytes of its parameters, and its configuration.

    Not of its files: one checkpoint may be stored in one shard or in three, in a folder or in the hub's cache.
    """
    import torch

    found = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        found.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
        found.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    config = {k: v for k, v in model.config.to_dict().items() if k not in _VOLATILE}
    found.update(json.dumps(config, sort_keys=True, default=str).encode())
    return found.hexdigest()[:32]


def _check_folder(place: Path, name: str) -> None:
    """ValueError for a folder that holds no whole model, and for what can be neither a folder nor a hub id."""
    if not place.exists():
        if not _HUB_ID.fullmatch(name):
            raise ValueError(f"student {name!r}: there is no such folder")
        return
    if not place.is_dir():
        raise ValueError(f"student {name!r} is a file; give the folder that holds config.json and model.safetensors")
    read = [p for p in sorted(place.iterdir()) if p.name.endswith((".json", ".safetensors", ".model")) and p.is_file()]
    if pointers := [p.name for p in read if is_pointer(p)]:
        raise ValueError(
            f"student {name!r}: {', '.join(pointers[:3])} is a Git LFS pointer, not the file; run `git lfs pull` there"
        )
    if not (place / "config.json").is_file():
        others = {
            "adapter_config.json": "; it is an adapter: merge it into its base model and save that",
            "*.gguf": "; GGUF files hold quantised weights, which have no gradients: give the original",
            "checkpoint-*/config.json": "; there is one in {}: give such a folder",
        }
        found = next(((found, said) for kind, said in others.items() for found in sorted(place.glob(kind))), None)
        raise ValueError(
            f"student {name!r} is not a model folder: config.json is missing"
            + (found[1].format(found[0].parent.name) if found else "")
        )
    if (place / _INDEX).is_file():
        try:
            shards = sorted(set(json.loads((place / _INDEX).read_text("utf-8"))["weight_map"].values()))
            shards[0]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"student {name!r}: {_INDEX} cannot be read ({error!r}): its weight_map must say in which "
                "file each tensor is; save the model again"
            ) from error
    else:
        shards = [_WEIGHTS]
    for shard in shards:  # transformers would unpickle a .bin, and follow ../ to wherever it leads
        if not str(shard).endswith(".safetensors"):
            raise ValueError(
                f"student {name!r}: {_INDEX} names {shard!r}; weights are read from .safetensors files "
                "only (others may be pickles): save the model as safetensors"
            )
        if Path(shard).name != shard:
            raise ValueError(
                f"student {name!r}: {_INDEX} names {shard!r}, which is outside the folder itself; put the "
                "weights beside config.json"
            )
    lost = [shard for shard in shards if not (place / shard).is_file()]
    if lost:
        pickled = any(place.glob("pytorch_model*.bin"))
        raise ValueError(
            f"student {name!r} is not a whole model: {lost[0]} is missing"
            + (
                "; weights in pytorch_model.bin are pickles and are not read: save the model as safetensors"
                if pickled
                else ""
            )
        )
    if not any((place / file).is_file() for file in _TOKENIZERS):
        raise ValueError(
            f"student {name!r} has no tokenizer: tokenizer.json is missing; save the student's own "
            "tokenizer there (tokenizer.save_pretrained)"
        )


def _ask(name: str, what: str, load):
    """load(), with what `transformers` raises said in one line."""
    try:
        return load()
    except Exception as error:  # every library below has errors of its own; all are about this checkpoint
        text = str(error)
        line = " ".join(text.split())
        line = line if len(line) <= 200 else line[:197] + "..."
        kinds, link = set(), error
        while link is not None:
            kinds |= {kind.__name__ for kind in type(link).__mro__}
            link = link.__cause__ or link.__context__
        model = Path(place_of(name)) / "tokenizer.model"  # lines of base64, or a binary file
        is_tiktoken = model.is_file() and re.match(rb"[\w+/=]+ \d+\s", model.read_bytes()[:200])
        offline = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"}
        reasons = (  # the first that holds
            (
                "trust_remote_code" in text,
                "needs code from its own repository, which is never run here; choose a model that transformers knows",
            ),
            (
                "GatedRepoError" in kinds or "gated repo" in text,
                "is gated on the hub: accept its terms on its page there, then `hf auth login` (or set HF_TOKEN) or "
                f"download it where you have access (`hf download {name} --local-dir FOLDER`) and give the folder",
            ),
            (
                what == "tokenizer" and re.search("tiktoken|sentencepiece", text),
                "has its tokenizer in tokenizer.model only, which needs a package: pip install "
                + ("tiktoken" if is_tiktoken else "sentencepiece protobuf"),
            ),
            (os.path.isdir(model.parent), f"cannot be loaded: its {what}: {type(error).__name__}: {line}"),
            (
                "RepositoryNotFoundError" in kinds or "is not a valid model identifier" in text,
                "is neither a folder here nor a model that the hub shows you: check the name; for a private one "
                "`hf auth login` first",
            ),
            (
                kinds & offline or "couldn't connect" in text,
                "is not a folder here, and the hub cannot be reached: download it on a machine with access (`hf "
                f"download {name} --local-dir FOLDER`) and give the folder",
            ),
            (True, f"cannot be loaded from the hub: its {what}: {type(error).__name__}: {line}"),
        )
        reason = next(said for holds, said in reasons if holds)
        raise ValueError(f"student {name!r} {reason}") from error
