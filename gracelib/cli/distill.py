"""`gracelib distill`: fine-tune a base student on a file of a teacher's responses, on one GPU or, started by
`accelerate launch -m gracelib.cli distill ...`, on several.

Sharded over GPUs (FSDP): give `accelerate launch` a configuration with `distributed_type: FSDP`, an auto-wrap policy
of TRANSFORMER_BASED_WRAP and `fsdp_state_dict_type: FULL_STATE_DICT`, so that the trained student is an ordinary
checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def distill(
    responses: Annotated[Path, typer.Argument(help="JSONL, one prompt a line: question, responses (a list of texts)")],
    student: Annotated[str, typer.Option(help="folder of the base checkpoint, or hub id")],
    out: Annotated[Path, typer.Option(help="the trained checkpoint, a folder that is not there yet")],
    responses_a_prompt: Annotated[int, typer.Option(help="M: the first so many of each prompt; 0: all")] = 0,
    epochs: Annotated[float, typer.Option(help="passes over the responses")] = 4,
    lr: Annotated[float, typer.Option(help="peak learning rate")] = 1e-5,
    batch_size: Annotated[int, typer.Option(help="of all devices together, in responses")] = 64,
    micro_batch: Annotated[int, typer.Option(help="responses a device holds at once; changes memory, not results")] = 4,
    warmup: Annotated[float, typer.Option(help="share of the steps")] = 0.05,
    seed: Annotated[int, typer.Option(help="of the order of the responses")] = 0,
    max_tokens: Annotated[
        int, typer.Option(help="of prompt and response; longer responses are cut; 0: no limit")
    ] = 4096,
    template: Annotated[str, typer.Option(help="of the student, holds {question}. Default: the paper's")] = "",
    bos: Annotated[bool, typer.Option("--bos/--no-bos", help="begin with BOS, as in gradients and evaluation")] = False,
    precision: Annotated[str, typer.Option(help="auto (bfloat16 on CUDA), float32 or bfloat16")] = "auto",
    gradient_checkpointing: Annotated[bool, typer.Option(help="less memory for a third more compute")] = True,
    save_every: Annotated[
        int, typer.Option(help="steps between checkpoints; a killed run goes on from the last")
    ] = 500,
    scratch: Annotated[Path | None, typer.Option(help="where checkpoints lie; default OUT.scratch")] = None,
) -> None:
    """Distil: fine-tune a student on a teacher's responses, with the paper's settings; a killed run goes on."""
    from gracelib.cli.app import _one_line_errors

    with _one_line_errors():
        if responses_a_prompt < 0 or max_tokens < 0:
            raise ValueError(
                f"--responses-a-prompt {responses_a_prompt} and --max-tokens {max_tokens}: expected 0 (no limit) "
                "or a positive number"
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(
                f"{out} is there and not empty; choose another folder for the trained student, or remove it"
            )
        from gracelib.models.prompting import Policy
        from gracelib.text.tasks import read_responses

        rows = read_responses(responses, m=responses_a_prompt or None, allow_empty=True)
        own = {"template": template.replace("\\n", "\n")} if template else {}
        from gracelib.models.finetuning import fine_tune

        about = fine_tune(
            student,
            rows,
            out,
            scratch=scratch,
            M=responses_a_prompt or None,
            epochs=epochs,
            lr=lr,
            batch_size=batch_size,
            micro_batch=micro_batch,
            warmup=warmup,
            seed=seed,
            policy=Policy(bos=bos, max_tokens=max_tokens or None, **own),
            precision=precision,
            gradient_checkpointing=gradient_checkpointing,
            save_every=save_every,
        )
        if os.environ.get("RANK", "0") == "0":
            print(
                f"{about['n_examples']} responses, {about['n_tokens']} tokens, {about['steps']} steps "
                f"in {about['precision']}, "
                f"loss of the last step {about['loss']:.3f}"
            )
            print(out)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(distill)
