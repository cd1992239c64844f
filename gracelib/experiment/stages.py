"""The stages of a run: what each kind of job writes into its folder, and from what.

prompts -> responses -> features (-> scores), and responses -> student -> accuracy. Every stage reads finished folders
and plain parameters and writes plain files; `plan` says which jobs a scale consists of. Torch is imported inside the
stages, in the worker processes: a notebook that only reads tables never loads it.

A model is trained here (an input) or somebody's (`params["model"]`, a folder or hub id). Small ones decode and train in
memory. What takes hours with large ones (SAMPLE, MEASURE, FINE_TUNE, their FEATURES) keeps its progress in a folder `KEY.scratch`
beside the result, so that a killed job goes on where it was instead of at its start; their grading is a stage of its own:
a better grader must not cost fifteen teachers' responses. Features have one form, so every score and ablation reads them.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gracelib.jobs.progress import Bar
from gracelib.jobs.store import Stage
from gracelib.jobs.workers import Local
from gracelib.models.checkpoints import load_student
from gracelib.models.prompting import Policy, encode, encode_examples, encoding_notes, text_features
from gracelib.scale import ModelSpec, PretrainSpec, TeacherSpec
from gracelib.text.answers import grade, is_correct
from gracelib.text.responses import read_jsonl, read_responses, write_jsonl
from gracelib.world import stories
from gracelib.world.models import pretrain, train_teacher

ACCELERATE_VARIABLE = "GRACELIB_ACCELERATE"  #: an `accelerate launch` configuration: students are trained through it
#: A mirror may lack a few problems (some stand twice in MATH); one that lacks more is another data set.
MISSING_SHARE = 0.01


def _taken(params: dict, *names: str) -> dict:
    return {name: params[name] for name in names}


def _prompts(inputs: dict[str, Path]) -> list[dict]:
    return read_jsonl(inputs["prompts"] / "prompts.jsonl", required=("question", "answer"))


def _responses(inputs: dict[str, Path], *most: int) -> list[dict]:
    """Which were cut counts for somebody's models alone: in the built-in world every response ends with EOS."""
    path, cut = inputs["responses"] / "responses.jsonl", "student" not in inputs
    return read_responses(path, *most, allow_empty=True, cut=cut)


def _spec(cls, record: dict):
    """A frozen spec back from its JSON record (lists become the tuples they were)."""
    return cls(**{name: tuple(map(tuple, value)) if name == "shares" else value for name, value in record.items()})


def run_pretrain(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    pretrain(out, _spec(ModelSpec, params["model"]), _spec(PretrainSpec, params["data"]), params["seed"])


def run_teacher(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    train_teacher(out, inputs["base"], _spec(TeacherSpec, params["teacher"]), params["seed"])


def run_prompts(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    problems = stories.draw_problems(**_taken(params, "n", "split", "seed", "min_steps", "max_steps", "any_order"))
    write_jsonl(
        out / "prompts.jsonl",
        [
            {"id": f"{params['split']}-{i:05d}", "question": p.question, "answer": str(p.answer)}
            for i, p in enumerate(problems)
        ],
    )


def run_responses(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.models.decoding import sample_responses

    how = _taken(params, "m", "temperature", "seed", "max_new_tokens")
    write_jsonl(
        out / "responses.jsonl", grade(sample_responses(*load_student(inputs["teacher"]), _prompts(inputs), **how))
    )


def run_evaluate(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    from gracelib.models.accuracy import evaluate

    how = _taken(params, "k", "temperature", "seed", "max_new_tokens")
    how |= {name: params[name] for name in ("template", "greedy") if name in params}
    result = evaluate(*load_student(inputs["model"]), _prompts(inputs), **how)
    (out / "accuracy.json").write_text(json.dumps(result), encoding="utf-8")


def run_features(out: Path, params: dict, inputs: dict[str, Path], spread: Callable | None = None) -> None:
    """Verdicts come from GRADE where that was a stage of its own, else from the built-in world's rule. spread: as
    `spread_features`, what takes the gradients of somebody's student."""
    import numpy as np
    from safetensors.numpy import save_file

    from gracelib.features.gradients import response_features

    rows = _responses(inputs, params["n_prompts"], params["m"])
    verdicts = {}
    if "correct" in inputs:
        verdicts = {row["id"]: row["correct"] for row in read_jsonl(inputs["correct"] / "correct.jsonl")}
    pairs, names, correct, prompt = [], [], [], []
    for i, row in enumerate(rows):
        for k, response in enumerate(row["responses"]):
            pairs.append((row["question"], response))
            names.append(f"prompt {row['id']}, sample {k} of {inputs['responses'].name}")
            right = verdicts[row["id"]][k] if verdicts else "answer" in row and is_correct(response, row["answer"])
            correct.append(right)
            prompt.append(i)
    if "student" in inputs:
        model, tokenizer = load_student(inputs["student"])
    else:
        model, tokenizer = load_student(params["model"], params["dtype"], params["device"])
    policy = Policy(max_tokens=params.get("max_tokens"))
    cut = [k in row.get("cut", ()) for row in rows for k in range(len(row["responses"]))]
    encoded = encode(tokenizer, pairs, policy, cut, steps=True)
    for said in encoding_notes(encoded, policy):
        print(said, file=sys.stderr)
    examples = [(e.prompt_ids, e.response_ids) for e in encoded]
    how = {"seed": params["projection_seed"], "special": tokenizer.all_special_ids} | _taken(params, "d", "dtype")
    if spread:
        features = spread(model, params, examples, names, _scratch(out), how)
    else:
        features = response_features(model, examples, names=names, device=params["device"], progress=False, **how)
    features |= text_features(encoded, [response for _, response in pairs])
    features["prompt"] = np.array(prompt)
    if verdicts or all("answer" in row for row in rows):  # GRACE itself needs no verifier
        features["correct"] = np.array(correct, dtype=np.uint8)
    # One metadata entry: several would be written in random order, and the same run must give the same bytes.
    about = json.dumps({"params": params, "prompt_ids": [row["id"] for row in rows]}, sort_keys=True)
    save_file(
        {name: np.ascontiguousarray(values) for name, values in features.items()},
        out / "features.safetensors",
        metadata={"about": about},
    )


def run_distill(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Wrong responses stay in, which is what makes a teacher's errors matter. The loss is averaged over the tokens of a
    batch, so a response weighs as |y|, not as log|y|."""
    from gracelib.models.training import first_responses, train_causal_lm

    model, tokenizer = load_student(inputs["student"])
    examples = encode_examples(tokenizer, first_responses(_responses(inputs), params["M"]))
    train_causal_lm(model, examples, **_taken(params, "epochs", "lr", "batch_size", "seed", "warmup"))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


# --- somebody's models and data --------------------------------------------------------------------------------


def _scratch(out: Path) -> Path:
    """Where a job's progress survives it: the store empties `KEY.part` when a job starts again, and removes this at its end."""
    return out.with_suffix(".scratch")


def _engine(params: dict) -> dict:
    """How a model is sampled from to a file."""
    own = _taken(params, "temperature", "max_new_tokens", "seed", "top_p", "backend")
    return own | {"tensor_parallel_size": params["gpus"]}


def run_spread_features(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Apart from FEATURES: what keeps pieces decides no number of the built-in world."""
    run_features(out, params, inputs, spread_features)


def spread_features(model, params: dict, *given) -> dict:
    """`files.chunked_features` of somebody's model: what is finished when a job is killed stays. Of the GPUs that it was given
    (CUDA_VISIBLE_DEVICES) the first is `model`'s, and each of the others gets a process that loads the model, too: they
    share the pieces, which are the same for any number of GPUs, to the last digit.

    given: examples, names, folder of the pieces, and options (a dictionary)."""
    n = len(os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","))
    with Local(n) as pool:
        others = [pool.submit(_pieces, (k, n), None, params, *given) for k in range(1, n)]
        found = _pieces((0, n), model, params, *given)
        for other in others:
            other.result()
    return _pieces((0, 1), model, params, *given) if others else found


def _pieces(part: tuple[int, int], model, params: dict, examples: list, names: list, work: Path, how: dict) -> dict:
    from gracelib.features.files import chunked_features

    if model is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[part[0]]
        model, _ = load_student(params["model"], params["dtype"], params["device"])
    with Bar(total=len(examples) / part[1], desc="gradients", unit="response", disable=part[0] > 0) as bar:
        how = how | {"student": params["content"], "device": model.device.type, "part": part, "done": bar.update}
        return chunked_features(model, examples, names, work, **how)


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

    own = {"out": _scratch(out) / "responses.jsonl", "m": params["m"], "style": "chat"}
    shutil.copyfile(sample(params["model"], _prompts(inputs), **own, **_engine(params)), out / "responses.jsonl")


def run_grade(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """One row per prompt: id, question, correct (a list). The texts stay where they are."""
    from gracelib.text.grading import grade_rows

    write_jsonl(
        out / "correct.jsonl", [_taken(row, "id", "question", "correct") for row in grade_rows(_responses(inputs))]
    )


def run_fine_tune(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """In this process on one GPU; through `accelerate launch` where GRACELIB_ACCELERATE names a configuration."""
    settings = _taken(params, "M", "epochs", "lr", "batch_size", "warmup", "seed")
    config = os.environ.get(ACCELERATE_VARIABLE, "").strip()
    if not config:
        # One GPU, also where several are visible: without a configuration nothing says how to share the work.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        from gracelib.models.finetuning import fine_tune

        policy = Policy(max_tokens=params["max_tokens"])
        fine_tune(params["model"], _responses(inputs), out, scratch=_scratch(out), policy=policy, **settings)
        return
    options = {
        "student": params["model"],
        "out": out,
        "scratch": _scratch(out),
        "max-tokens": params["max_tokens"],
        **{name.replace("_", "-"): value for name, value in settings.items() if name != "M"},
        "responses-a-prompt": params["M"],
    }
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):  # given to this job, whatever the configuration has
        launch += ["--num_processes", str(len(visible.split(","))), "--main_process_port", "0"]
    command = [*launch, "-m", "gracelib.cli", "distill", str(inputs["responses"] / "responses.jsonl")]
    done = subprocess.run([*command, *(text for name, value in options.items() for text in (f"--{name}", str(value)))])
    if done.returncode:
        raise RuntimeError(
            f"`accelerate launch` with {config} ended with status {done.returncode}; its output is above"
        )


def run_measure(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    """Average@k, best-of-k and greedy; the responses stay in `out`, without their progress files."""
    from gracelib.models.accuracy import measure

    scratch = _scratch(out)
    # A student is measured under the template it was trained with, a teacher in its chat template.
    own = _taken(params, "k", "style") | {"policy": Policy(max_tokens=params["max_tokens"])}
    model = str(inputs["model"]) if "model" in inputs else params["model"]
    result = measure(model, _prompts(inputs), scratch, **own, **_engine(params))
    for name in ("sampled_graded.jsonl", "greedy_graded.jsonl"):
        shutil.copyfile(scratch / name, out / name)
    found = _taken(result, "average", "average_se", "best_of", "greedy", "truncated")
    (out / "accuracy.json").write_text(json.dumps(found), encoding="utf-8")


PRETRAIN = Stage("pretrain", run_pretrain)
TEACHER = Stage("teacher", run_teacher)
PROMPTS = Stage("prompts", run_prompts)
RESPONSES = Stage("responses", run_responses)
EVALUATE = Stage("evaluate", run_evaluate)
FEATURES = Stage("features", run_features)
SPREAD_FEATURES = Stage("features", run_spread_features)
DISTILL = Stage("distill", run_distill)
PROBLEMS = Stage("problems", run_problems)
SAMPLE = Stage("sample", run_sample)
GRADE = Stage("grade", run_grade)
FINE_TUNE = Stage("fine_tune", run_fine_tune)
MEASURE = Stage("measure", run_measure)
