"""`gracelib generate` and `gracelib evaluate`: one model, one list of prompts, from the command line.

Thin: options in, one call of `sampling.sample` or `accuracy.measure` out. Registered on the app of `gracelib.cli.app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[str, typer.Option("--model", help="folder of a checkpoint, or hub id")]
TaskOption = Annotated[str, typer.Option(help="gsm8k or math; or give --prompts")]
SourceOption = Annotated[
    str, typer.Option(help="where the task lies: hub id, file or folder; default: its usual hub id")
]
PromptsOption = Annotated[
    Path | None, typer.Option(help="a JSONL file of your own: question, and optionally id and answer")
]
NOption = Annotated[
    int | None, typer.Option("--n", help="only this many prompts: of a task drawn by --seed, of --prompts the first")
]
BackendOption = Annotated[str, typer.Option(help="transformers or vllm")]
StyleOption = Annotated[str, typer.Option(help="chat: the chat template, for teachers; student: ### Problem: ...")]
TopPOption = Annotated[float, typer.Option(help="nucleus sampling; 1: all tokens")]
TokensOption = Annotated[int, typer.Option(help="a response is cut there")]
SeedOption = Annotated[int, typer.Option(help="of the draw of prompts and of sampling")]
DtypeOption = Annotated[str, typer.Option(help="float32, bfloat16; auto: as the checkpoint")]
DeviceOption = Annotated[str, typer.Option(help="of the transformers backend: auto, cpu, cuda")]
BatchOption = Annotated[int | None, typer.Option(help="sequences decoded together")]
ParallelOption = Annotated[int, typer.Option(help="GPUs that share the model (vllm)")]
TemplateOption = Annotated[
    str, typer.Option(help=r"of style student; holds {question}, \n is a new line. Default: the paper's")
]
BosOption = Annotated[bool, typer.Option("--bos/--no-bos", help="of style student: begin with BOS, as in training")]


def generate(
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="the responses, a .jsonl file")],
    task: TaskOption = "",
    source: SourceOption = "",
    prompts: PromptsOption = None,
    split: Annotated[str, typer.Option(help="of the task: train or test")] = "train",
    n: NOption = None,
    m: Annotated[int, typer.Option("--m", help="responses a prompt")] = 4,
    temperature: Annotated[float, typer.Option(help="0 decodes greedily")] = 0.6,
    top_p: TopPOption = 1.0,
    max_new_tokens: TokensOption = 4096,
    seed: SeedOption = 0,
    backend: BackendOption = "transformers",
    style: StyleOption = "chat",
    instruction: Annotated[
        str | None, typer.Option(help="stands before the question (chat); default: the paper's")
    ] = None,
    template: TemplateOption = "",
    bos: BosOption = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    batch_size: BatchOption = None,
    tensor_parallel_size: ParallelOption = 1,
) -> None:
    """Sample responses of a model to a task's prompts or your own; a stopped run goes on where it was."""
    from gracelib.cli.app import _one_line_errors

    with _one_line_errors():
        rows = _prompts(task, source, prompts, split, n, seed)
        from gracelib.models import sampling

        extra = {} if instruction is None else {"instruction": instruction}
        print(
            sampling.sample(
                model,
                rows,
                out=out,
                m=m,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                style=style,
                max_new_tokens=max_new_tokens,
                backend=backend,
                policy=_policy(template, bos),
                dtype=dtype,
                device=device,
                batch_size=batch_size,
                tensor_parallel_size=tensor_parallel_size,
                **extra,
            )
        )


def evaluate(
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="a folder for the responses and accuracy.csv")],
    task: TaskOption = "",
    source: SourceOption = "",
    prompts: PromptsOption = None,
    split: Annotated[str, typer.Option(help="of the task: train or test")] = "test",
    n: NOption = None,
    k: Annotated[int, typer.Option("--k", help="samples a prompt for Average@k and best-of-k")] = 16,
    temperature: Annotated[float, typer.Option(help="of the samples; greedy comes beside them")] = 1.0,
    top_p: TopPOption = 1.0,
    max_new_tokens: TokensOption = 4096,
    seed: SeedOption = 0,
    backend: BackendOption = "transformers",
    style: StyleOption = "student",
    template: TemplateOption = "",
    bos: BosOption = False,
    grader: Annotated[str, typer.Option(help="math-verify, or last-number (the built-in world)")] = "math-verify",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    batch_size: BatchOption = None,
    tensor_parallel_size: ParallelOption = 1,
) -> None:
    """Measure a model's accuracy on prompts with answers: Average@k, best-of-k and greedy."""
    from gracelib.cli.app import _one_line_errors

    with _one_line_errors():
        rows = _prompts(task, source, prompts, split, n, seed, graded=True)
        from gracelib.models import accuracy

        found = accuracy.measure(
            model,
            rows,
            out,
            k=k,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            style=style,
            max_new_tokens=max_new_tokens,
            backend=backend,
            policy=_policy(template, bos),
            grader=grader,
            dtype=dtype,
            device=device,
            batch_size=batch_size,
            tensor_parallel_size=tensor_parallel_size,
        )
        print(
            f"Average@{k} {found['average']:.3f} +- {found['average_se']:.3f} (standard error over {len(rows)} "
            f"prompts), best-of-{k} {found['best_of']:.3f}, greedy {found['greedy']:.3f}, cut off {found['truncated']:.1%}"
        )
        print(out / "accuracy.csv")


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(generate)
    app.command()(evaluate)


def _prompts(
    task: str, source: str, prompts: Path | None, split: str, n: int | None, seed: int, graded: bool = False
) -> list[dict]:
    if bool(task) == (prompts is not None):
        raise ValueError("give either --task or --prompts, " + ("not both" if task else "one of them is needed"))
    if n is not None and n < 1:
        raise ValueError(f"--n {n}: at least one prompt is needed")
    if task:
        from gracelib.text.problems import load_problems

        return load_problems(task, source or None, split, n, seed)
    from gracelib.text.tasks import read_jsonl

    if source:
        raise ValueError("--source belongs to --task; --prompts names the file itself")
    rows = read_jsonl(prompts, ("question", "answer") if graded else ("question",))
    if n is not None and n > len(rows):
        raise ValueError(f"{prompts}: {len(rows)} prompts, but --n {n} were asked for")
    return rows[:n]


def _policy(template: str, bos: bool):
    from gracelib.models.prompting import Policy

    return Policy(template=template.replace("\\n", "\n"), bos=bos) if template else Policy(bos=bos)
