"""Somebody's student is loaded in the dtype it is used in, or refused in one line that says what to do.

Every message is a single line; whatever can be known without the weights is refused before they are read; no code of
a checkpoint runs and no pickle is read.
"""

import copy
import json
import shutil
from unittest.mock import Mock

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from checkpoints_for_tests import make_checkpoint
from gracelib.features.gradients import response_features
from gracelib.models.checkpoints import check_student, files_digest, load_student


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("whole") / "llama", "llama")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "student")


def edit(path, **changes):
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**record, **changes}), "utf-8")


def refused(student, message, **options):
    with pytest.raises(ValueError, match=message) as caught:
        load_student(student, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, str(caught.value)


def test_loaded_in_its_dtype_without_a_second_copy(whole, monkeypatch):
    """The buffers that the model keeps in float32 (rotary frequencies) stay so: converting a loaded model would round
    them, and with it every position."""
    assert {p.dtype for p in load_student(whole)[0].parameters()} == {torch.float32}
    model, _ = load_student(whole, dtype="bfloat16")
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    monkeypatch.setattr(copy, "deepcopy", lambda *_: pytest.fail("the weights are copied"))
    response_features(model, [([5, 6], [7, 1])], d=2, device="cpu", dtype="bfloat16", progress=False)


def test_a_hub_id_goes_to_the_hub_and_a_folder_of_that_name_first(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    shutil.copytree(whole, tmp_path / "org" / "model")
    assert load_student("org/model")[0].config.model_type == "llama"


def test_what_can_be_known_is_refused_before_the_weights_are_read(folder, monkeypatch):
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights are read")
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(folder)
    refused(folder, r"tokenizer has ids up to 400, its embedding 400 rows; the tokenizer is another model's")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    refused(folder, r"tokenizer has no EOS token, so no response could end; set eos_token")
    edit(folder / "config.json", model_type="t5", architectures=["T5ForConditionalGeneration"])
    refused(folder, r"is not a causal language model: it is a T5ForConditionalGeneration")


def test_weights_that_do_not_fit_are_refused(folder):
    edit(folder / "config.json", num_hidden_layers=1)
    refused(
        folder,
        r"hold 9 tensors that its config does not know \(model\.layers\.1\..*, \.\.\.\), which would be left out",
    )
    edit(folder / "config.json", num_nextn_predict_layers=1)  # layers that predict a second token: no model reads them
    weights = load_file(folder / "model.safetensors") | {"mtp.norm.weight": torch.ones(2)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_student(folder)
    edit(folder / "config.json", num_hidden_layers=3)
    refused(folder, r"its weights lack 9 tensors \(model\.layers\.2\..*, \.\.\.\), which would be random")
    edit(folder / "config.json", num_hidden_layers=2, intermediate_size=32)
    refused(
        folder,
        r"its weights do not fit its config: model\.layers\.0\.mlp\.down_proj\.weight has shape \(32, 64\), expected \(32, 32\)",
    )


@pytest.mark.parametrize(
    "files, without, message",
    [
        ({"adapter_config.json": b"{}"}, "", r"an adapter \(adapter_config\.json\) lies beside its weights"),
        (
            {"a.gguf": b"GGUF"},
            "config.json",
            r"GGUF files hold quantised weights, which have no gradients: give the original",
        ),
        ({"checkpoint-500/config.json": b"{}"}, "config.json", r"there is one in checkpoint-500: give such a folder"),
        (
            {"tokenizer.model": b"\n\x0e\n\x05<unk>\x15"},
            "tokenizer.json",
            r"needs a package: pip install sentencepiece protobuf",
        ),
        ({"tokenizer.model": b"IQ== 0\nIg== 1\n"}, "tokenizer.json", r"needs a package: pip install tiktoken"),
    ],
)
def test_a_folder_that_is_something_else(files, without, message, folder, monkeypatch):
    if without == "tokenizer.json":  # what transformers says where neither package is installed
        said = ValueError("`tiktoken` is required to read a `tiktoken` file. Install it with `pip install tiktoken`.")
        monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", Mock(side_effect=said))
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    if without:
        (folder / without).unlink()
    refused(folder, message)


def test_quantised_weights_are_for_vllm_alone(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    refused(folder, r"quantised \(bitsandbytes\); quantised weights have no gradients: give the original")
    check_student(folder, quantised=True)


@pytest.mark.parametrize(
    "error, cause, message",
    [
        (
            OSError("You are trying to access a gated repo.\nMake sure ..."),
            type("GatedRepoError", (Exception,), {})("403"),
            r"is gated on the hub: accept its terms .* `hf auth login` .*`hf download org/model --local-dir FOLDER`",
        ),
        (
            OSError("org/model is not a local folder and is not a valid model identifier"),
            type("RepositoryNotFoundError", (Exception,), {})("404"),
            r"neither a folder here nor a model that the hub shows you: check the name",
        ),
        (
            OSError("We couldn't connect to the hub"),
            ConnectionError("refused"),
            r"is not a folder here, and the hub cannot be reached: download it on a machine with access",
        ),
        (
            OSError("org/model does not appear to have a file named config.json"),
            None,
            r"cannot be loaded from the hub: its config: OSError: org/model does not appear",
        ),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_remedy(error, cause, message, monkeypatch):
    error.__cause__ = cause
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", Mock(side_effect=error))
    refused("org/model", message)


def test_offline_for_real(monkeypatch):
    """What the hub's own client raises when it may not go out, not what this file thinks it raises."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("no-such-org/no-such-model", r"is not a folder here, and the hub cannot be reached: download it")


def test_a_folder_is_told_apart_by_the_bytes_of_the_files_that_count(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_text(text)
    a, b, c = (files_digest(tmp_path / name) for name in "abc")
    assert a == b != c
    (tmp_path / "b" / "notes.txt").write_text("read me")
    (tmp_path / "b" / ".hidden").write_text("1")
    assert files_digest(tmp_path / "b") != b and files_digest(tmp_path / "b", (".safetensors",)) == b
    assert files_digest("owner/name") == "owner/name" and files_digest("owner/name", commit="c") == "owner/name@c"
