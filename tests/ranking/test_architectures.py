"""Any causal model that transformers knows can be the student, whatever precision it is stored in: it is scored, and what
`distill` makes of it is distilled again, scored and evaluated.

Every architecture is run in one of the three precisions, in turn; GRACELIB_ALL_STUDENTS=1 runs each in all (ten minutes).
"""

import os

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from checkpoints_for_tests import make_checkpoint
from gracelib.models.accuracy import measure
from gracelib.models.finetuning import fine_tune
from gracelib.ranking.rank import COLUMNS, score_teachers
from gracelib.text.responses import write_jsonl

SMALL = dict(
    vocab_size=416,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=512,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=2,
    # experts
    num_experts=4,
    num_local_experts=4,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    shared_expert_intermediate_size=16,
    n_shared_experts=1,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
    # keys and values of low rank
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_rope_head_dim=4,
    qk_nope_head_dim=4,
    v_head_dim=8,
)
#: model type -> what its configuration needs beside or instead of SMALL (None: not its head_dim)
ARCHITECTURES = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "phi"), {}
    ),
    **dict.fromkeys(
        ("phi3", "gpt2", "gpt_neox", "gpt_bigcode", "bloom", "mpt", "stablelm", "starcoder2", "cohere2"), {}
    ),
    **dict.fromkeys(
        ("granite", "smollm3", "nemotron", "glm4", "exaone4", "persimmon", "biogpt", "ernie4_5", "lfm2"), {}
    ),
    **dict.fromkeys(("mamba", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "deepseek_v2"), {}),
    **dict.fromkeys(("gpt_oss", "jetmoe", "minimax", "glm4_moe", "ernie4_5_moe"), {}),
    "deepseek_v3": {"head_dim": 4},
    "falcon": {"head_dim": None},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "rwkv": {"attention_hidden_size": 32, "context_length": 512},
    "qwen3_next": {
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    },
}
STORED = ("float32", "bfloat16", "float16")
ALL = os.environ.get("GRACELIB_ALL_STUDENTS")
CASES = [(kind, s) for i, kind in enumerate(ARCHITECTURES) for j, s in enumerate(STORED) if ALL or (i + j) % 3 == 0]
ROWS = [
    {"id": i, "question": f"Add {i} and 5.", "answer": str(i + 5), "responses": [f"{i} + 5 = {i + 5}"]}
    for i in range(4)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("tokenizer") / "llama", "llama"))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    for name in ("a", "b"):
        write_jsonl(folder / f"{name}.jsonl", [row | {"responses": [row["responses"][0] + name]} for row in ROWS])
    return folder


def made(kind, stored, tokenizer, folder):
    own = {name: value for name, value in (SMALL | ARCHITECTURES[kind]).items() if value is not None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **own))
    model.to(getattr(torch, stored)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def scored(student, teachers, work, dtype="float32"):
    table = score_teachers(student, teachers, n=4, m=1, d=2, n_folds=2, device="cpu", work=work, dtype=dtype).table
    assert np.isfinite(table[list(COLUMNS[2:])].to_numpy(float)).all() and (table["grace"] > 0).all()
    return table


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind, stored", CASES)
def test_scored_distilled_twice_and_evaluated(kind, stored, tokenizer, teachers, tmp_path):
    student = made(kind, stored, tokenizer, tmp_path / "student")
    before = scored(student, teachers, tmp_path / "work")
    for out in (tmp_path / "once", tmp_path / "twice"):
        how = dict(epochs=1, lr=3e-3, batch_size=2, micro_batch=2, progress=False)
        assert np.isfinite(fine_tune(student, ROWS, out, **how)["loss"])
        student = out
    assert scored(student, teachers, tmp_path / "work")["student_loss"].mean() < before["student_loss"].mean()
    found = measure(student, ROWS[:2], tmp_path / "accuracy", k=1, max_new_tokens=3, device="cpu", progress=False)
    assert found["n_prompts"] == 2 and 0 <= found["average"] <= 1


@pytest.mark.filterwarnings("ignore")
def test_experts_are_scored_in_every_precision(tokenizer, teachers, tmp_path):
    """transformers' fused products of experts know no float64."""
    student = made("mixtral", "float32", tokenizer, tmp_path / "student")
    rough, usual, fine = (scored(student, teachers, tmp_path, d) for d in ("bfloat16", "float32", "float64"))
    np.testing.assert_allclose(fine["grace"], usual["grace"], rtol=1e-3)
    np.testing.assert_allclose(rough["student_loss"].sum(), usual["student_loss"].sum(), rtol=0.02)
