"""Tiny Hugging Face checkpoints of six architectures, each with a BPE tokenizer trained on the spot.

Why made here and not downloaded: the tests run on a fresh clone without a network, and what they check (any
causal checkpoint folder with its own byte-level BPE tokenizer can be a student) does not depend on what the
weights have learnt. Everything is drawn from `seed`, so the same call writes the same bytes.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

KINDS = ("llama", "qwen2", "gemma2", "olmo2", "gpt2", "phi3")
# BOS, EOS, PAD. Qwen2's, like the real one, has no BOS (transformers gives it this EOS whatever the file says).
SPECIAL = {"qwen2": ("<|im_start|>", "<|endoftext|>", "<|im_end|>")}
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CHAT_TEMPLATE = (
    "{% if bos_token %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TEXTS = (
    "### Problem:\nNatalia sold 48 clips in April and half as many in May. How many clips did she sell?",
    "### Solution:\nShe sold 48 / 2 = <<48/2=24>>24 clips in May.\n\n48 + 24 = 72 clips altogether.\n#### 72",
    "Let's think step by step. First, we find the total number of apples: 5 * 12 = 60. The answer is \\boxed{60}.",
    "To find how much money Betty still needs, subtract: $100 - $50 - $15 - $30 = $5. Therefore, Betty needs $5.",
    "Question: A train travels 60 miles per hour for 3.5 hours. How far does it go?\n\nSolution: 60 x 3.5 = 210 miles.",
)


def make_checkpoint(
    folder: Path | str,
    kind: str,
    *,
    vocab: int = 400,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    texts: tuple[str, ...] = TEXTS,
    positions: int = 2048,
) -> Path:
    """Write a randomly initialised causal model and its tokenizer to `folder`, and return the folder.

    `kind` is one of KINDS; `hidden` is a multiple of 16 (4 heads, 2 of them for keys and values where the
    architecture has that). The tokenizer is a byte-level BPE trained on `texts` with BOS, EOS, PAD and a chat
    template; like most real ones it adds nothing by itself except, for llama and gemma2, a BOS when asked for
    special tokens; qwen2's has no BOS at all. `vocab` is the size of the embedding; a small corpus may fill fewer
    entries of it.
    """
    folder = Path(folder)
    _tokenizer(kind, vocab, texts).save_pretrained(folder)
    common = dict(vocab_size=vocab, max_position_embeddings=positions, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    sizes = dict(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    configs = {
        "llama": lambda: LlamaConfig(**common, **sizes, tie_word_embeddings=True),
        "qwen2": lambda: Qwen2Config(**common, **sizes, tie_word_embeddings=True),
        "gemma2": lambda: Gemma2Config(**common, **sizes, head_dim=hidden // 4, query_pre_attn_scalar=hidden // 4),
        "olmo2": lambda: Olmo2Config(**common, **sizes),
        "gpt2": lambda: GPT2Config(
            vocab_size=vocab,
            n_positions=positions,
            n_embd=hidden,
            n_layer=layers,
            n_head=4,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        ),
        "phi3": lambda: Phi3Config(**common, **sizes),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(configs[kind]())
    model.float().save_pretrained(folder)
    return folder


def _tokenizer(kind: str, vocab: int, texts: tuple[str, ...]) -> PreTrainedTokenizerFast:
    bos, eos, pad = SPECIAL.get(kind, (BOS, EOS, PAD))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[bos, eos, pad],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    if kind in ("llama", "gemma2"):
        bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=None if kind == "qwen2" else bos,
        eos_token=eos,
        pad_token=pad,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
