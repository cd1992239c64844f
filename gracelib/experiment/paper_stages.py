"""The stages of the scale `paper`: the same chain as `stages`, with real data, real models and a real grader.

prompts -> responses -> correct -> features, and responses -> student -> accuracy, each a folder of the store. What
takes hours (sampling, training, evaluating) keeps its progress in a folder `KEY.scratch` beside the result, so that a
killed job goes on where it was instead of at its start. Grading is a stage of its own: a better grader must not cost
fifteen teachers' responses. Features have the form that `stages.run_features` writes, so every score and ablation
reads them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gracelib.jobs.store import Stage
from gracelib.text.responses import read_jsonl, read_responses, write_jsonl

ACCELERATE_VARIABLE = "GRACELIB_ACCELERATE"  #: an `accelerate launch` configuration: students are trained through it
MISSING_SHARE = (
    0.01  # a mirror may lack a few problems (some stand twice in MATH); one that lacks more is another data set
)


def _scratch(out: Path) -> Path:
    """Where a job's progress survives it: the store empties `KEY.part` when a job starts again."""
    return out.with_suffix(".scratch")


def _policy(params: dict):
    from gracelib.models.prompting import Policy

    return Policy(max_tokens=params["max_tokens"])


def _model(params: dict, inputs: dict[str, Path]) -> str:
    """The folder of a student that was trained here, or the place of one that was not."""
    return str(inputs["model"]) if "model" in inputs else params["model"]


def run_problems(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """n problems of a split in an order drawn by the seed, so that the first ones are a random sample."""
    from gracelib.text.problems import load_problems

    source, n = params["source"] or None, params["n"]
    there = len(load_problems(params["task"], source, params["split"]))
    if there < n * (1 - MISSING_SHARE):
        raise ValueError(
            f"{params['task']}, split {params['split']}: {there} problems, but {n} were asked for; set "
            f"n_{params['split']} in the settings file, or use another copy of the data"
        )
    if there < n:
        print(f"{params['task']}, split {params['split']}: {there} different problems instead of {n}", file=sys.stderr)
    write_jsonl(
        out / "prompts.jsonl", load_problems(params["task"], source, params["split"], min(n, there), params["seed"])
    )


def run_sample(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.models.sampling import sample

    prompts = read_jsonl(inputs["prompts"] / "prompts.jsonl", required=("question", "answer"))
    path = sample(
        params["model"],
        prompts,
        out=_scratch(out) / "responses.jsonl",
        m=params["m"],
        temperature=params["temperature"],
        max_new_tokens=params["max_new_tokens"],
        seed=params["seed"],
        style="chat",
        top_p=params["top_p"],
        backend=params["backend"],
        tensor_parallel_size=params["gpus"],
    )
    os.replace(path, out / "responses.jsonl")
    shutil.rmtree(_scratch(out))


def run_grade(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """One row a prompt: id, correct (a list), words (mean), n_truncated, n_distinct. The texts stay where they
    are.
    """
    from gracelib.text.grading import grade_rows

    rows = grade_rows(read_responses(inputs["responses"] / "responses.jsonl", allow_empty=True))
    write_jsonl(
        out / "correct.jsonl",
        [
            {
                "id": row["id"],
                "question": row["question"],
                "correct": row["correct"],
                "n_truncated": row["n_truncated"],
                "words": sum(len(r.split()) for r in row["responses"]) / len(row["responses"]),
                "n_distinct": len(set(row["responses"])),
            }
            for row in rows
        ],
    )


def run_paper_features(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from gracelib.features.gradients import response_features
    from gracelib.models.checkpoints import load_student
    from gracelib.models.prompting import cut_sentence, encode

    rows = read_responses(inputs["responses"] / "responses.jsonl", params["n_prompts"], params["m"], allow_empty=True)
    verdict = {row["id"]: row["correct"] for row in read_jsonl(inputs["correct"] / "correct.jsonl")}
    model, tokenizer = load_student(params["model"], params["dtype"], "auto")
    policy, pairs, names, correct, prompt = _policy(params), [], [], [], []
    for i, row in enumerate(rows):
        for k, response in enumerate(row["responses"]):
            pairs.append((row["question"], response))
            names.append(f"prompt {row['id']}, sample {k} of {inputs['responses'].name}")
            correct.append(verdict[row["id"]][k])
            prompt.append(i)
    encoded = encode(tokenizer, pairs, policy)
    if said := cut_sentence(encoded, policy):
        print(said, file=sys.stderr)
    features = response_features(
        model,
        [(e.prompt_ids, e.response_ids) for e in encoded],
        d=params["d"],
        seed=params["projection_seed"],
        names=names,
        dtype=params["dtype"],
    )
    features |= {"prompt": np.array(prompt), "correct": np.array(correct, dtype=np.uint8)}
    about = json.dumps(
        {"params": params, "prompt_ids": [row["id"] for row in rows], "n_cut": sum(e.n_cut > 0 for e in encoded)},
        sort_keys=True,
    )
    save_file(
        {name: np.ascontiguousarray(values) for name, values in features.items()},
        out / "features.safetensors",
        metadata={"about": about},
    )


def run_fine_tune(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """In this process on one GPU; through `accelerate launch` where GRACELIB_ACCELERATE names a configuration."""
    path = inputs["responses"] / "responses.jsonl"
    settings = {name: params[name] for name in ("M", "epochs", "lr", "batch_size", "warmup", "seed")}
    config = os.environ.get(ACCELERATE_VARIABLE, "").strip()
    if not config:
        # One GPU, also where several are visible: without a configuration nothing says how to share the work.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        from gracelib.models.finetuning import fine_tune

        rows = read_responses(path, allow_empty=True)
        fine_tune(params["model"], rows, out, scratch=_scratch(out), policy=_policy(params), **settings)
        return
    options = {
        "student": params["model"],
        "out": out,
        "scratch": _scratch(out),
        "max-tokens": params["max_tokens"],
        **{name.replace("_", "-"): value for name, value in settings.items() if name != "M"},
        "responses-a-prompt": params["M"],
    }
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        config,
        "-m",
        "gracelib.cli",
        "distill",
        str(path),
    ]
    done = subprocess.run([*command, *(text for name, value in options.items() for text in (f"--{name}", str(value)))])
    if done.returncode:
        raise RuntimeError(
            f"`accelerate launch` with {config} ended with status {done.returncode}; its output is above"
        )


def run_measure(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Average@k, best-of-k and greedy; the responses stay in `out`, without their progress files."""
    from gracelib.models.accuracy import measure

    prompts = read_jsonl(inputs["prompts"] / "prompts.jsonl", required=("question", "answer"))
    scratch = _scratch(out)
    # A student is measured under the template it was trained with, a teacher in its chat template.
    result = measure(
        _model(params, inputs),
        prompts,
        scratch,
        k=params["k"],
        temperature=params["temperature"],
        max_new_tokens=params["max_new_tokens"],
        style=params["style"],
        policy=_policy(params),
        seed=params["seed"],
        top_p=params["top_p"],
        backend=params["backend"],
        tensor_parallel_size=params["gpus"],
    )
    for name in ("sampled_graded.jsonl", "greedy_graded.jsonl"):
        os.replace(scratch / name, out / name)
    columns = ("average", "average_se", "best_of", "greedy", "truncated")
    (out / "accuracy.json").write_text(json.dumps({name: result[name] for name in columns}), encoding="utf-8")
    shutil.rmtree(scratch)


PROBLEMS = Stage("problems", run_problems)
SAMPLE = Stage("sample", run_sample)
GRADE = Stage("grade", run_grade)
FEATURES = Stage("paper_features", run_paper_features)
FINE_TUNE = Stage("fine_tune", run_fine_tune)
MEASURE = Stage("measure", run_measure)
