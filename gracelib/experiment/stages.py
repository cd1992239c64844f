"""The stages of the pipeline: what each kind of job writes into its folder, and from what.

prompts -> responses -> features (-> scores), and responses -> student -> accuracy. Every stage reads finished folders
and plain parameters and writes plain files; `pipeline` says which jobs a scale consists of. Torch is imported inside
the stages, in the worker processes: a notebook that only reads tables never loads it.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from gracelib.jobs.store import Stage
from gracelib.models.prompting import encode_examples
from gracelib.scale import ModelSpec, PretrainSpec, TeacherSpec
from gracelib.text.answers import is_correct
from gracelib.text.responses import read_jsonl, read_responses, write_jsonl
from gracelib.world import stories
from gracelib.world.cast import pretrain, train_teacher


def load_model(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", use_safetensors=True)
    return model, AutoTokenizer.from_pretrained(folder)


def _spec(cls, record: dict):
    """A frozen spec back from its JSON record (lists become the tuples they were)."""
    tuples = {"shares"}
    return cls(
        **{f.name: tuple(map(tuple, record[f.name])) if f.name in tuples else record[f.name] for f in fields(cls)}
    )


def run_pretrain(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    pretrain(out, _spec(ModelSpec, params["model"]), _spec(PretrainSpec, params["data"]), params["seed"])


def run_teacher(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    train_teacher(out, inputs["base"], _spec(TeacherSpec, params["teacher"]), params["seed"])


def run_prompts(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    problems = stories.draw_problems(
        params["n"], params["split"], params["seed"], params["min_steps"], params["max_steps"]
    )
    write_jsonl(
        out / "prompts.jsonl",
        [
            {"id": f"{params['split']}-{i:05d}", "question": p.question, "answer": str(p.answer)}
            for i, p in enumerate(problems)
        ],
    )


def run_responses(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.models.accuracy import grade
    from gracelib.models.decoding import sample_responses

    model, tokenizer = load_model(inputs["teacher"])
    rows = sample_responses(
        model,
        tokenizer,
        read_jsonl(inputs["prompts"] / "prompts.jsonl"),
        m=params["m"],
        temperature=params["temperature"],
        seed=params["seed"],
        max_new_tokens=params["max_new_tokens"],
    )
    write_jsonl(out / "responses.jsonl", grade(rows))


def run_evaluate(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.models.accuracy import evaluate

    model, tokenizer = load_model(inputs["model"])
    prompts = read_jsonl(inputs["prompts"] / "prompts.jsonl", required=("question", "answer"))
    result = evaluate(
        model,
        tokenizer,
        prompts,
        k=params["k"],
        temperature=params["temperature"],
        seed=params["seed"],
        max_new_tokens=params["max_new_tokens"],
    )
    (out / "accuracy.json").write_text(json.dumps(result), encoding="utf-8")


def run_features(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from gracelib.features.gradients import response_features

    model, tokenizer = load_model(inputs["student"])
    rows = read_responses(inputs["responses"] / "responses.jsonl", params["n_prompts"], params["m"], allow_empty=True)
    pairs, names, correct, prompt = [], [], [], []
    for i, row in enumerate(rows):
        for k, response in enumerate(row["responses"]):
            pairs.append((row["question"], response))
            names.append(f"prompt {row['id']}, sample {k} of {inputs['responses'].name}")
            correct.append("answer" in row and is_correct(response, row["answer"]))
            prompt.append(i)
    features = response_features(
        model,
        encode_examples(tokenizer, pairs),
        d=params["d"],
        seed=params["projection_seed"],
        names=names,
        device=params["device"],
        dtype=params["dtype"],
        progress=False,
    )
    features["prompt"] = np.array(prompt)
    if all("answer" in row for row in rows):  # GRACE itself needs no verifier
        features["correct"] = np.array(correct, dtype=np.uint8)
    # One metadata entry: several would be written in random order, and the same run must give the same bytes.
    about = json.dumps({"params": params, "prompt_ids": [row["id"] for row in rows]}, sort_keys=True)
    save_file(
        {name: np.ascontiguousarray(values) for name, values in features.items()},
        out / "features.safetensors",
        metadata={"about": about},
    )


def run_distill(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.models.training import distill

    model, tokenizer = load_model(inputs["student"])
    rows = read_responses(inputs["responses"] / "responses.jsonl", allow_empty=True)
    distill(
        model,
        tokenizer,
        rows,
        M=params["M"],
        epochs=params["epochs"],
        lr=params["lr"],
        batch_size=params["batch_size"],
        seed=params["seed"],
        warmup=params["warmup"],
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def run_evaluate_as(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Average@k of a student under a template of its own, without greedy decoding."""
    from gracelib.models.accuracy import accuracy, grade
    from gracelib.models.decoding import sample_responses

    model, tokenizer = load_model(inputs["model"])
    prompts = read_jsonl(inputs["prompts"] / "prompts.jsonl", required=("question", "answer"))
    rows = sample_responses(
        model,
        tokenizer,
        prompts,
        m=params["k"],
        temperature=params["temperature"],
        seed=params["seed"],
        max_new_tokens=params["max_new_tokens"],
        template=params["template"],
    )
    (out / "accuracy.json").write_text(json.dumps(accuracy(grade(rows))), encoding="utf-8")


PRETRAIN = Stage("pretrain", run_pretrain)
TEACHER = Stage("teacher", run_teacher)
PROMPTS = Stage("prompts", run_prompts)
RESPONSES = Stage("responses", run_responses)
EVALUATE = Stage("evaluate", run_evaluate)
FEATURES = Stage("features", run_features)
DISTILL = Stage("distill", run_distill)
EVALUATE_AS = Stage("evaluate_as", run_evaluate_as)
