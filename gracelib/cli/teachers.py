"""The commands for your own models: rank teachers for a student, sample a model, measure its accuracy, distil a student.

Thin: options in, one call, lines out. Nothing heavy is imported before its command runs.

`distill` runs on one GPU or, started by `accelerate launch -m gracelib.cli distill ...`, on several. Sharded over GPUs
(FSDP): give `accelerate launch` a configuration with `distributed_type: FSDP`, an auto-wrap policy of
TRANSFORMER_BASED_WRAP and `fsdp_state_dict_type: FULL_STATE_DICT`, so that the trained student is an ordinary checkpoint.
"""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from gracelib.models.prompting import TEACHER_INSTRUCTION, Policy
from gracelib.text.problems import load_problems
from gracelib.text.responses import read_generations, read_jsonl, read_requests

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
    str,
    typer.Option(
        help=r"of style student; holds {question}, \n is a new line; chat: the model's own chat template. Default: the paper's"
    ),
]
ThinkingOption = Annotated[
    str, typer.Option(help="keep or drop reasoning: <think>...</think>, or in a field of its own")
]
RequestsOption = Annotated[
    list[Path], typer.Option(help="the requests of batches, for the prompts of their outputs; may be repeated")
]
DropTextOption = Annotated[
    list[str], typer.Option(help="taken out of every question: an instruction that some files have; may be repeated")
]
MaxTokensOption = Annotated[int | None, typer.Option(help="cut longer texts (prompt and response), and say so")]
MinMOption = Annotated[
    bool, typer.Option("--min-m", help="leave out prompts with fewer than m responses instead of refusing them")
]
BosOption = Annotated[bool, typer.Option("--bos/--no-bos", help="of style student: begin with BOS, as in training")]


def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE_OR_FOLDER...",
            help="per teacher a file of generations (.jsonl, .json, both also .gz, .parquet), a folder that `datasets` "
            "saved, or hf://owner/name[:config][:split]; any other folder stands for the files in it",
        ),
    ],
    student: Annotated[str, typer.Option(help="folder of the student's checkpoint, or hub id")],
    n: Annotated[int, typer.Option("--n", help="prompts, of those that all teachers answered")] = 512,
    m: Annotated[int, typer.Option("--m", help="responses per prompt")] = 4,
    d: Annotated[int, typer.Option("--d", help="numbers that a gradient is projected to; the paper takes d = n")] = 512,
    folds: Annotated[int, typer.Option(help="C: the prompts are dealt into so many folds")] = 10,
    nu: Annotated[float, typer.Option(help="smoothing of the second moment")] = 1e-3,
    params: Annotated[str, typer.Option(help="gradients of: all, last-layer, lora-b")] = "all",
    projection: Annotated[str, typer.Option(help="of the gradients: signs (the paper's), sjlt")] = "signs",
    batch_tokens: Annotated[int | None, typer.Option(help="padded tokens in a batch: less memory or less time")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float64")] = "float32",
    seed: Annotated[int, typer.Option(help="of the draw of prompts, the projection and the folds")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    out: Annotated[str, typer.Option(help='the table as CSV; "" writes none')] = "ranking.csv",
    plot: Annotated[str, typer.Option(help='the picture (.svg, .png, .pdf); "" draws none')] = "ranking.svg",
    template: Annotated[
        str,
        typer.Option(
            help=r"what the student reads before a response, with {question}; \n is a "
            "new line; chat: its own chat template. Default: the paper's"
        ),
    ] = "",
    bos: Annotated[bool, typer.Option("--bos/--no-bos", help="begin with the tokenizer's BOS")] = False,
    max_tokens: MaxTokensOption = None,
    work: Annotated[
        Path | None, typer.Option(help="folder of finished pieces; default runs/score, without a clone here")
    ] = None,
    min_m: MinMOption = False,
    thinking: ThinkingOption = "keep",
    requests: RequestsOption = [],
    drop_text: DropTextOption = [],
    until_clear: Annotated[
        bool,
        typer.Option(
            "--until-clear",
            help="take 32 prompts, 64, ... up to n, and let teachers go that are clearly worse than the leader: fewer gradients",
        ),
    ] = False,
    scores: Annotated[
        str,
        typer.Option(
            help="other scores beside GRACE, from the same pass, as rsr,grape,lark: with intervals over prompts, their agreement "
            "with GRACE and what each took; car grades by the files' answers"
        ),
    ] = "",
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="only say how long it will take, per teacher, and the memory: two responses are timed"
        ),
    ] = False,
    gradients_of: Annotated[str, typer.Option(hidden=True, help="only take and keep this teacher's gradients")] = "",
) -> None:
    """Rank teachers for a student by GRACE, from their generations; a run that was stopped goes on where it was."""
    from gracelib.ranking.rank import score_teachers
    from gracelib.ranking.report import check_outputs, save_picture

    table, picture = Path(out) if out else None, Path(plot) if plot else None
    check_outputs(table, picture)
    ranking = score_teachers(
        student,
        files,
        n=n,
        m=m,
        d=d,
        n_folds=folds,
        nu=nu,
        params=params,
        projection=projection,
        batch_tokens=batch_tokens,
        dtype=dtype,
        seed=seed,
        device=device,
        policy=_policy(template, bos, max_tokens),
        work=work,
        min_m=min_m,
        thinking=thinking,
        requests=requests,
        drop_text=drop_text,
        plan=plan,
        until_clear=until_clear,
        scores=[*filter(None, map(str.strip, scores.split(",")))],
        gradients_of=gradients_of,
    )
    if plan or gradients_of:
        return print(ranking or "")
    written = [table, ranking.save(table)] if table else []
    if picture:
        save_picture(ranking.figure(), picture)
        written.append(picture)
    print(ranking)
    if written:
        print("\nwritten:", ", ".join(map(str, written)))


def generate(
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="the responses, a .jsonl file")],
    task: TaskOption = "",
    source: SourceOption = "",
    prompts: PromptsOption = None,
    split: Annotated[str, typer.Option(help="of the task: train or test")] = "train",
    n: NOption = None,
    m: Annotated[int, typer.Option("--m", help="responses per prompt")] = 4,
    temperature: Annotated[float, typer.Option(help="0 decodes greedily")] = 0.6,
    top_p: TopPOption = 1.0,
    max_new_tokens: TokensOption = 4096,
    seed: SeedOption = 0,
    backend: BackendOption = "transformers",
    style: StyleOption = "chat",
    instruction: Annotated[str, typer.Option(help="stands before the question (chat)")] = TEACHER_INSTRUCTION,
    template: TemplateOption = "",
    bos: BosOption = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    batch_size: BatchOption = None,
    tensor_parallel_size: ParallelOption = 1,
) -> None:
    """Sample responses of a model to a task's prompts or your own; a stopped run goes on where it was."""
    rows = _prompts(task, source, prompts, split, n, seed)
    from gracelib.models import sampling

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
            instruction=instruction,
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
    k: Annotated[int, typer.Option("--k", help="samples per prompt for Average@k and best-of-k")] = 16,
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


def distill(
    responses: Annotated[Path, typer.Argument(help="a teacher's generations, in any form that score reads")],
    student: Annotated[str, typer.Option(help="folder of the base checkpoint, or hub id")],
    out: Annotated[Path, typer.Option(help="the trained checkpoint, a folder that is not there yet")],
    responses_a_prompt: Annotated[int, typer.Option(help="M: the first so many of each prompt; 0: all")] = 0,
    epochs: Annotated[float, typer.Option(help="passes over the responses")] = 4,
    lr: Annotated[float, typer.Option(help="peak learning rate")] = 1e-5,
    batch_size: Annotated[int, typer.Option(help="of all devices together, in responses")] = 64,
    micro_batch: Annotated[
        int,
        typer.Option(help="responses a device holds at once; changes memory, not results but the samples of on-policy"),
    ] = 4,
    warmup: Annotated[float, typer.Option(help="share of the steps")] = 0.05,
    seed: Annotated[int, typer.Option(help="of the order of the responses")] = 0,
    max_tokens: Annotated[
        int, typer.Option(help="of prompt and response; longer responses are cut; 0: no limit")
    ] = 4096,
    template: Annotated[
        str, typer.Option(help="of the student, holds {question}; chat: its own chat template. Default: the paper's")
    ] = "",
    bos: Annotated[bool, typer.Option("--bos/--no-bos", help="begin with BOS, as in gradients and evaluation")] = False,
    objective: Annotated[
        str,
        typer.Option(
            help="sequence: from the text alone, the paper's; from --teacher-model's distributions: gkd, on-policy (reverse KL on "
            "samples of the student), skew, skew-reverse (DistiLLM), taid, uld (a teacher with another tokenizer); plad: from the "
            "text and --rejected, by the loss of DPO (a twentieth of --lr is usual)"
        ),
    ] = "sequence",
    beta: Annotated[
        float | None,
        typer.Option(help="of gkd (0.5) and on-policy (1): 0 is forward KL, 1 reverse KL; of plad (0.1): DPO's"),
    ] = None,
    teacher_model: Annotated[
        str, typer.Option(help="the teacher itself, folder or hub id; with the student's tokenizer, but for uld")
    ] = "",
    rejected: Annotated[
        Path | None,
        typer.Option(help="the student's own generations for the same prompts (`generate --style student`), for plad"),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto (bfloat16 on CUDA), float32 or bfloat16")] = "auto",
    gradient_checkpointing: Annotated[bool, typer.Option(help="less memory for a third more compute")] = True,
    save_every: Annotated[
        int, typer.Option(help="steps between checkpoints; a killed run goes on from the last")
    ] = 500,
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="where checkpoints lie and stay: a folder of its own; default OUT.scratch, removed at the end"
        ),
    ] = None,
    thinking: ThinkingOption = "keep",
    requests: RequestsOption = [],
    drop_text: DropTextOption = [],
) -> None:
    """Distil: fine-tune a student on a teacher's responses, with the paper's settings; a killed run goes on."""
    if responses_a_prompt < 0 or max_tokens < 0:
        raise ValueError(
            f"--responses-a-prompt {responses_a_prompt} and --max-tokens {max_tokens}: expected 0 (no limit) "
            "or a positive number"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and not empty; choose another folder for the trained student, or remove it")
    how = {"thinking": thinking, "requests": read_requests(requests), "drop_text": drop_text}
    rows, others = (
        path and [vars(one) for one in read_generations(path, allow_empty=True, **how).prompts if one.responses]
        for path in (responses, rejected)
    )
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
        policy=_policy(template, bos, max_tokens or None),
        objective=objective,
        beta=beta,
        teacher=teacher_model or None,
        rejected=others,
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


def mix(
    files: Annotated[list[Path], typer.Argument(metavar="FILE_OR_FOLDER...", help="generations, as score reads them")],
    student: Annotated[str, typer.Option(help="folder of the student's checkpoint, or hub id")],
    out: Annotated[Path, typer.Option(help="the data set, a .jsonl file that distill reads")],
    by: Annotated[
        str, typer.Option(help="grape: the likeliest response per token; rsr: the least rank per surprisal")
    ] = "grape",
    share: Annotated[
        list[str], typer.Option(help="TEACHER=0.5, of the prompts, for each teacher; default: whoever is best")
    ] = [],
    n: Annotated[int | None, typer.Option("--n", help="prompts; default: all that all teachers answered")] = None,
    m: Annotated[int, typer.Option("--m", help="responses per prompt of each teacher to choose from")] = 1,
    seed: Annotated[int, typer.Option(help="of the draw of prompts")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float64")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    template: TemplateOption = "",
    bos: BosOption = False,
    max_tokens: MaxTokensOption = None,
    min_m: MinMOption = False,
    thinking: ThinkingOption = "keep",
    requests: RequestsOption = [],
    drop_text: DropTextOption = [],
) -> None:
    """Put together a data set: of each prompt the response, of all teachers, that suits the student best."""
    from gracelib.ranking.mix import mix as mixed

    shares = dict(text.rpartition("=")[::2] for text in share)
    if not all(re.fullmatch(r"[0-9]*\.?[0-9]+", value) for value in shares.values()):
        raise ValueError(f"--share {' '.join(share)}: expected TEACHER=0.5 for each teacher")
    found = mixed(
        student,
        files,
        out,
        by=by,
        shares={k: float(v) for k, v in shares.items()} or None,
        n=n,
        m=m,
        seed=seed,
        dtype=dtype,
        device=device,
        policy=_policy(template, bos, max_tokens),
        min_m=min_m,
        thinking=thinking,
        requests=requests,
        drop_text=drop_text,
    )
    print(f"{sum(found.values())} prompts:", ", ".join(f"{count} of {name}" for name, count in found.items()))
    print(out)


COMMANDS = (score, generate, evaluate, distill, mix)


def _prompts(
    task: str, source: str, prompts: Path | None, split: str, n: int | None, seed: int, graded: bool = False
) -> list[dict]:
    if bool(task) == (prompts is not None):
        raise ValueError("give either --task or --prompts, " + ("not both" if task else "one of them is needed"))
    if n is not None and n < 1:
        raise ValueError(f"--n {n}: at least one prompt is needed")
    if task:
        return load_problems(task, source or None, split, n, seed)
    if source:
        raise ValueError("--source belongs to --task; --prompts names the file itself")
    rows = read_jsonl(prompts, ("question", "answer") if graded else ("question",))
    if n is not None and n > len(rows):
        raise ValueError(f"{prompts}: {len(rows)} prompts, but --n {n} were asked for")
    return rows[:n]


def _policy(template: str, bos: bool, max_tokens: int | None = None):
    own = {"template": template.replace("\\n", "\n")} if template else {}
    return Policy(bos=bos, max_tokens=max_tokens, **own)
