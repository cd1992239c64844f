"""The cast of the built-in world: its tokenizer, base students and teachers, as real Llama checkpoints.

Base students read text of *every* manner in graded shares, with unreliable arithmetic: they know how each manner
looks but not how to be right, so what a teacher adds is competence in a manner that suits the student more or less.
Teachers are pretrained on clean text of all manners and then trained on their own; they differ in manner, in width
and in how much of their own manner they saw, so that most are strong, some are only just competent, and those suffer
from a high sampling temperature.
"""

from pathlib import Path
from random import Random

from gracelib.models.prompting import encode_examples
from gracelib.scale import ModelSpec, PretrainSpec, TeacherSpec
from gracelib.world import stories


def build_tokenizer():
    """The word-level tokenizer of the world, as a PreTrainedTokenizerFast that saves and loads like any other."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", "###", "Problem:", "Solution:", *stories.vocabulary()]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def build_model(spec: ModelSpec, vocab_size: int, seed: int):
    """A Llama of the given shape with seeded random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=spec.width,
        intermediate_size=2 * spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def pretrain(out: Path, model: ModelSpec, data: PretrainSpec, seed: int) -> None:
    """Train a base model on a manner mixture and save it with its tokenizer under `out`."""
    tokenizer = build_tokenizer()
    how = {name: getattr(data, name) for name in ("noise", "min_steps", "max_steps", "any_order", "turn", "believed")}
    pairs = stories.mixture_texts(data.n_texts, seed, dict(data.shares), **how)
    examples = encode_examples(tokenizer, pairs)
    network = build_model(model, len(tokenizer), seed)
    _train_and_save(out, network, tokenizer, examples, data, seed, whole_sequence=True)


def train_teacher(out: Path, base: Path, spec: TeacherSpec, seed: int) -> None:
    """Train a pretrained base on clean solutions of one manner and save the teacher under `out`."""
    from gracelib.models.checkpoints import load_student

    network, tokenizer = load_student(base)
    rng, writer = Random(f"{seed}/{spec.name}"), stories.Habits(spec.skew, spec.name)
    steps = spec.min_steps, spec.max_steps, spec.any_order
    problems = [stories.draw_problem(rng, "pretrain", *steps) for _ in range(spec.n_texts)]
    writer.setstate(rng.getstate())  # it has favourite words, the stories that it reads have none
    how = {name: getattr(spec, name) for name in ("noise", "turn", "skip")}
    texts = [(p.question, stories.solve(p, spec.manner, writer, **how)) for p in problems]
    examples = encode_examples(tokenizer, texts)
    _train_and_save(out, network, tokenizer, examples, spec, seed)


def _train_and_save(
    out: Path,
    network,
    tokenizer,
    examples: list,
    spec: PretrainSpec | TeacherSpec,
    seed: int,
    whole_sequence: bool = False,
) -> None:
    from gracelib.models.training import train_causal_lm

    train_causal_lm(
        network,
        examples,
        epochs=spec.epochs,
        lr=spec.lr,
        batch_size=spec.batch_size,
        seed=seed,
        whole_sequence=whole_sequence,
        matrix_lr=spec.matrix_lr,
    )
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)
