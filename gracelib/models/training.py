"""One training loop for everything that is trained: base models, teachers and students, at every scale.

It is the `transformers` Trainer (1.13 times a plain loop with the same batches, measured on a CPU) with three savings
that change no number beyond rounding: no attention mask is passed (with right padding a causal model never looks at the
padding, and without a mask PyTorch takes its fast path), a batch is cut into parts of similar length, so that one long
response does not make 63 short ones pay for its padding, and no logits are made where no response has begun.
The loss is still the mean over all supervised tokens of the whole batch. Batches stay random: drawing them by length
is quicker still but groups responses of one manner together, and models then learned far less (loss 1.4 for 0.7).
"""

import functools
import inspect
import tempfile

import torch
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainingArguments

IGNORED = -100  # the label that is left out of the loss
PART = 16  # examples a forward pass: padding to the longest of 16 neighbours in length wastes little


def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids` and `labels`, (batch, longest), rows sorted by length."""
    examples = sorted(examples, key=lambda e: len(e["input_ids"]))
    longest = len(examples[-1]["input_ids"])
    input_ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full((len(examples), longest), IGNORED)
    for row, e in enumerate(examples):
        ids = torch.tensor(e["input_ids"])
        input_ids[row, : len(ids)] = ids
        labels[row, e["n_masked"] : len(ids)] = ids[e["n_masked"] :]
    return {"input_ids": input_ids, "labels": labels}


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices of the hidden layers and AdamW for all else, as one optimiser: torch's Muon takes matrices only,
    and is not meant for embeddings. Llamas of the world's size need a third to a half of the passes over their texts that
    AdamW needs. The state is in the two parts: it cannot be saved and resumed."""

    def __init__(self, model: torch.nn.Module, matrix_lr: float, lr: float):
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"torch {torch.__version__} has no Muon, with which the small scales train their models; "
                "install torch 2.9 or later"
            )
        head = model.get_output_embeddings()
        tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) or m is head]
        outer = {id(m.weight) for m in tables}  # a tied head has the embedding's
        matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in outer]
        inner = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in inner]
        super().__init__([{"params": matrices, "lr": matrix_lr}, {"params": others, "lr": lr}], {})
        self._parts = (
            torch.optim.Muon(matrices, lr=matrix_lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=lr, weight_decay=0.0, fused=True),
        )

    def step(self, closure=None):
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups[0]["lr"] = group["lr"]  # what the schedule made of it
            part.step()


class _PartsTrainer(Trainer):
    """A Trainer whose training step goes through a batch in parts of neighbouring lengths."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        n_tokens = (inputs["labels"][:, 1:] != IGNORED).sum()
        total = torch.zeros((), device=n_tokens.device)
        for ids, labels in zip(inputs["input_ids"].split(PART), inputs["labels"].split(PART), strict=True):
            columns = (labels[:, 1:] != IGNORED).any(0).nonzero().flatten() + 1
            first, used = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (1, 2)
            # Padding beyond is cut off; where no row has a label, as in prompts, no logits are made (if the model can).
            keep = {"logits_to_keep": used - first + 1} if self._can_keep else {}
            logits = model(input_ids=ids[:, :used], use_cache=False, **keep).logits
            logits = logits[:, first - 1 - used : -1]  # (part, used - first, vocab)
            loss = (
                cross_entropy(
                    logits.flatten(0, 1).float(), labels[:, first:used].flatten(), ignore_index=IGNORED, reduction="sum"
                )
                / n_tokens
            )
            self.accelerator.backward(loss)
            total += loss.detach()
        if not torch.isfinite(total):
            raise ValueError(
                f"training loss is {total.item()} at step {self.state.global_step}; lower the learning rate"
            )
        return total

    @functools.cached_property
    def _can_keep(self) -> bool:
        """Whether the model's forward can be told for which tokens to make logits (the model before several GPUs wrap it)."""
        return "logits_to_keep" in inspect.signature(self.model.forward).parameters


def trainer_arguments(
    folder, epochs: float, lr: float, batch_size: int, warmup: float, seed: int, cuda: bool, **own
) -> TrainingArguments:
    """What small and large students' training have in common, the paper's: AdamW (0.9, 0.999), cosine after a linear
    warm-up over a share of the steps, no weight decay, gradient norm at most 1, one seed. `own`: what they have not."""
    common = {
        "output_dir": str(folder),
        "num_train_epochs": epochs,
        "learning_rate": lr,
        "per_device_train_batch_size": batch_size,
        "warmup_steps": warmup,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "seed": seed,
        "data_seed": seed,
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "remove_unused_columns": False,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
    }
    return TrainingArguments(**common | own)


def train_causal_lm(
    model,
    examples: list[tuple[list[int], list[int]]],
    *,
    epochs: float,
    lr: float,
    batch_size: int,
    seed: int,
    whole_sequence: bool = False,
    warmup: float = 0.05,
    device: str = "cpu",
    matrix_lr: float = 0.0,
) -> list[dict]:
    """Fine-tune `model` in place on (prompt ids, response ids) pairs.

    AdamW (betas 0.9, 0.999), or, if `matrix_lr` is not 0, Muon (momentum 0.95, Nesterov) at that rate for the matrices
    of the hidden layers and AdamW at `lr` for all else (embeddings, head, norms, biases); cosine schedule after a
    linear warm-up over the fraction `warmup` of the steps, no weight decay, gradient norm clipped at 1, loss averaged
    over the supervised tokens of a batch (the response including EOS, or every token if `whole_sequence`). The order of
    examples is fixed by `seed`. `device` "cpu", or "cuda" where the Trainer may use every GPU there is: chosen by the
    caller, not by the machine, so that the same call trains the same model everywhere.

    Returns the Trainer's log history. Raises ValueError for an empty data set, a loss that is not
    finite, or a torch without Muon where it is asked for.
    """
    if not examples:
        raise ValueError("no training examples; the responses file may be empty")
    data = [{"input_ids": [*p, *r], "n_masked": 0 if whole_sequence else len(p)} for p, r in examples]
    with tempfile.TemporaryDirectory() as scratch:
        args = trainer_arguments(
            scratch, epochs, lr, batch_size, warmup, seed, device == "cuda", save_strategy="no", logging_steps=50
        )
        trainer = _PartsTrainer(
            model=model,
            args=args,
            train_dataset=data,
            data_collator=collate,
            optimizers=(MuonAdamW(model, matrix_lr, lr) if matrix_lr else None, None),
        )
        trainer.remove_callback(PrinterCallback)  # no log lines on stdout: notebooks keep theirs
        trainer.train()
    bad = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    if bad:  # the loss before the last step was finite, its gradient was not
        raise ValueError(f"training left values that are not finite in {bad[:3]}; lower the learning rate")
    return trainer.state.log_history


def first_responses(rows: list[dict], M: int | None) -> list[tuple[str, str]]:
    """(question, response) of the first `M` responses (None: all) of every row. ValueError if a row has fewer."""
    for row in rows:
        if len(row["responses"]) < (M or 1):
            where = f"{row['where']}: " if "where" in row else ""
            raise ValueError(
                f"{where}prompt {row.get('id')!r} has {len(row['responses'])} responses, fewer than M = {M or 1}; sample "
                "more, or drop it"
            )
    return [(row["question"], response) for row in rows for response in row["responses"][:M]]
