"""Small models of every kind, texts for them, and the features' definition spelled out: what the tests of the features share."""

import math
import os
import subprocess
import sys
import warnings

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from gracelib.features.estimators import estimator
from gracelib.features.gradients import response_features
from gracelib.jobs.paths import ROOT
from gracelib.projection import signs

VOCAB, D_ROWS = 29, 24
SMALL = dict(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=40,
)
MODELS = {
    "llama tied": ("Llama", dict(SMALL, tie_word_embeddings=True, pad_token_id=None)),
    "llama untied": ("Llama", dict(SMALL, tie_word_embeddings=False, attention_bias=True, mlp_bias=True)),
    "llama padding_idx": ("Llama", dict(SMALL, tie_word_embeddings=True, pad_token_id=3)),
    "gpt2": ("GPT2", dict(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=40)),
    "qwen2": ("Qwen2", dict(SMALL, tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(SMALL, tie_word_embeddings=False, head_dim=4)),
    "gemma2": ("Gemma2", dict(SMALL, head_dim=4, pad_token_id=0)),
    "olmo2": ("Olmo2", dict(SMALL, pad_token_id=None)),
    "phi3": ("Phi3", dict(SMALL, pad_token_id=None)),
}
# Beyond 13 tokens other frequencies, for all texts of a batch.
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.0], long_factor=[3.0, 60.0])
LONG = dict(SMALL, pad_token_id=None, original_max_position_embeddings=13, rope_parameters=LONGROPE)
BUILT = MODELS | {"phi3 longrope": ("Phi3", LONG)}


def build(kind="llama tied", perturb=True):
    title, options = BUILT[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{title}Config")(**options)
    model = transformers.AutoModelForCausalLM.from_config(config)
    if perturb:  # fresh norms are 1 and biases 0: no test of anything
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.2 * torch.randn_like(p))
    return model


def texts(n=9, seed=0):
    r = np.random.default_rng(seed)
    return [tuple(r.integers(0, VOCAB, r.integers(1, limit)).tolist() for limit in (9, 15)) for _ in range(n)]


def plain(model, examples, tensors=None, matrix=signs, d=D_ROWS, seed=0):
    """The definition: one response, one backward, no padding; then the dense projection. `tensors`: name -> parameter."""
    model.eval()
    tensors = tensors or dict(model.named_parameters())
    size, rows = sum(p.numel() for p in tensors.values()), []
    for x, y in examples:
        logits = model(torch.tensor([[*x, *y]])).logits[0, len(x) - 1 : -1]
        loss = F.cross_entropy(logits, torch.tensor(y))
        grads = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True, materialize_grads=True)
        made = zip(tensors, grads, strict=True)
        g = sum(v.flatten().double() @ matrix(seed, k, 0, v.numel(), d, torch.float64) for k, v in made)
        norm = math.sqrt(sum(float(v.double().square().sum()) for v in grads))
        prob = logits.softmax(-1).gather(1, torch.tensor(y)[:, None]).mean().item()
        rows.append(((g / math.sqrt(size)).numpy(), len(y), loss.item(), prob, norm))
    return dict(zip(("g", "length", "loss", "mean_prob", "grad_norm"), map(np.array, zip(*rows))))


def flatten_rows(model):
    """A module that sees all responses' positions in one row cannot tell them apart."""
    mlp = model.model.layers[0].mlp
    inner = mlp.forward
    mlp.forward = lambda x: inner(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def features(model, examples, params="all", projection="signs", **options):
    options = {"d": D_ROWS, "device": "cpu", "progress": False, "batch_tokens": 60, **options}
    options = estimator(params, projection, options.get("seed", 0)) | options
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fall-back that nobody expects fails the test
        return response_features(model, examples, **options)


def agree(a, b, rtol=2e-5):
    assert a["length"].tolist() == b["length"].tolist()
    for k in ("loss", "mean_prob", "grad_norm"):
        np.testing.assert_allclose(a[k], b[k], rtol=rtol, err_msg=k)
    scale = np.linalg.norm(b["g"], axis=1, keepdims=True)
    np.testing.assert_allclose(a["g"] / scale, b["g"] / scale, atol=2 * rtol)


def in_a_process(code: str, *arguments, **environment) -> str:
    """What `code` prints in a process of its own, on one thread."""
    where = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "features")])
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
