"""The trainer goes through a batch in parts and without an attention mask, and must still do what a textbook
loop does: AdamW on the mean loss over the supervised tokens of the whole batch, warm-up, cosine, clipping.
The same seed gives the same bits, and a run that blows up says so instead of saving a broken model.
"""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from gracelib.models.prompting import encode_examples
from gracelib.models.training import PART, MuonAdamW, train_causal_lm
from gracelib.scale import ModelSpec
from gracelib.world import stories
from gracelib.world.models import build_model, build_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
LR = 3e-3


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def examples(tokenizer):
    """41 pairs of very different lengths: three parts, the last one short."""
    assert 41 % PART
    pairs = stories.mixture_texts(41, 3, dict.fromkeys(stories.MANNERS, 1.0), 0.3, 1, 5)
    return encode_examples(tokenizer, pairs)


def network(tokenizer, seed=0):
    """Larger initial weights than usual: gradients then exceed norm 1, so clipping has something to do."""
    model = build_model(ModelSpec(16, 1, 2), len(tokenizer), seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(40)
    return model


def train(model, examples, **changes):
    return train_causal_lm(model, examples, **({"epochs": 4, "lr": LR, "batch_size": 64, "seed": 0} | changes))


def summed_loss(model, prompt, response, first):
    """Over the tokens from number `first` on, of one example."""
    ids = torch.tensor([prompt + response])
    logits = model(ids, attention_mask=torch.ones_like(ids)).logits[0, first - 1 : -1]  # (targets, vocab)
    return cross_entropy(logits, ids[0, first:], reduction="sum")


def plain_loop(model, examples, n_steps, whole_sequence=False, clip=1.0, optimisers=None):
    """Full-batch training written out: one example at a time, one step of each optimiser (its rate) a pass."""
    usual = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    n_warmup, norms = math.ceil(0.05 * n_steps), []
    firsts = [1 if whole_sequence else len(prompt) for prompt, _ in examples]  # the first token that is a target
    n_tokens = sum(len(p) + len(r) - first for (p, r), first in zip(examples, firsts, strict=True))
    for step in range(n_steps):
        done = max(0, step - n_warmup) / max(1, n_steps - n_warmup)
        share = step / n_warmup if step < n_warmup else 0.5 * (1 + math.cos(math.pi * done))
        model.zero_grad()
        for (prompt, response), first in zip(examples, firsts, strict=True):
            (summed_loss(model, prompt, response, first) / n_tokens).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), clip).item())
        for optimiser, rate in (optimisers or {usual: LR}).items():
            optimiser.param_groups[0]["lr"] = rate * share
            optimiser.step()
    return norms


def distance(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("whole_sequence", [False, True])
def test_it_is_the_textbook_loop(tokenizer, examples, whole_sequence):
    """Four optimiser steps on one batch, against the plain loop: same weights up to float rounding."""
    start = network(tokenizer)
    ours, plain, unclipped, other = (copy.deepcopy(start) for _ in range(4))
    train(ours, examples, whole_sequence=whole_sequence)
    norms = plain_loop(plain, examples, 4, whole_sequence)
    plain_loop(unclipped, examples, 4, whole_sequence, clip=1e9)
    plain_loop(other, examples, 4, not whole_sequence)
    moved = distance(plain, start)
    assert moved > LR and max(norms) > 1
    assert distance(ours, plain) < 0.01 * moved
    assert distance(unclipped, plain) > 0.05 * moved  # the comparison would notice a missing clip
    assert distance(other, plain) > 0.05 * moved  # ... or a wrong mask


def test_a_model_that_makes_all_logits_trains_the_same(tokenizer, examples):
    """Logits of prompts are left out where the model's forward can leave them out; that changes nothing but time."""
    start = network(tokenizer)
    few, every = copy.deepcopy(start), copy.deepcopy(start)
    made, forward = {}, every.forward

    def without_choice(input_ids=None, use_cache=None):
        out = forward(input_ids=input_ids, use_cache=use_cache)
        made["every"] = out.logits.shape[1]
        return out

    every.forward = without_choice
    with few.register_forward_hook(lambda module, args, out: made.update(few=out.logits.shape[1])):
        train(few, examples)
    train(every, examples)
    assert made["few"] <= made["every"] - min(len(p) for p, _ in examples) + 1  # in the last part of the batch
    assert distance(few, every) < 0.01 * distance(few, start)


def test_muon_takes_the_matrices_between_embedding_and_head(tokenizer, examples):
    """Six steps against torch's two optimisers written out, each with its own rate on the one schedule."""
    start = network(tokenizer)
    ours, plain, adamw = (copy.deepcopy(start) for _ in range(3))
    train(ours, examples, epochs=6, matrix_lr=2e-2)
    train(adamw, examples, epochs=6)
    matrices = [p for name, p in plain.named_parameters() if p.ndim == 2 and "embed" not in name]
    assert len(matrices) == 7  # q, k, v, o and three of the MLP; the head is the embedding
    others = [p for name, p in plain.named_parameters() if p.ndim == 1 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=2e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    plain_loop(plain, examples, 6, optimisers={muon: 2e-2, torch.optim.AdamW(others, lr=LR, weight_decay=0.0): LR})
    moved = distance(plain, start)
    assert moved > LR
    assert distance(ours, plain) < 0.05 * moved  # Muon rounds to bfloat16 on its way
    assert distance(adamw, plain) > 0.2 * moved


def test_a_head_of_its_own_is_no_hidden_matrix():
    """Untied, as in most large models: AdamW keeps the head and the embedding."""
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    matrices, others = (group["params"] for group in MuonAdamW(model, 1e-2, 1e-3).param_groups)
    assert len(matrices) == 7 and all(50 not in p.shape for p in matrices)
    assert len(matrices) + len(others) == len(list(model.parameters()))
    assert any(p is model.lm_head.weight for p in others)


def test_the_logged_loss_is_the_mean_over_supervised_tokens_and_nothing_is_printed(tokenizer, examples, capfd):
    model = network(tokenizer)
    with torch.no_grad():
        total = sum(summed_loss(model, prompt, response, len(prompt)).item() for prompt, response in examples)
    log = train(model, examples, epochs=1)
    assert log[-1]["train_loss"] == pytest.approx(total / sum(len(r) for _, r in examples), rel=1e-5)
    assert capfd.readouterr().out == ""  # stdout is for results


def test_the_same_seed_gives_the_same_bits(tokenizer, examples):
    start = network(tokenizer)
    first, again, other = (copy.deepcopy(start) for _ in range(3))
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        torch.manual_seed(torch.initial_seed() + 1)  # whatever was drawn before must not matter
        train(model, examples, seed=seed, batch_size=8, epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert distance(first, other) > 0  # another order of examples


def test_bad_training_is_refused(tokenizer, examples):
    with pytest.raises(ValueError, match="no training examples; the responses file may be empty"):
        train(network(tokenizer), [])
    with pytest.raises(ValueError, match=r"training loss is nan at step \d+; lower the learning rate"):
        train(network(tokenizer), examples, lr=1e30, epochs=5)
    broken = network(tokenizer)
    with torch.no_grad():
        next(broken.parameters())[9, 0] = torch.inf
    with pytest.raises(ValueError, match="training loss is (nan|inf) at step 0"):
        train(broken, examples)
