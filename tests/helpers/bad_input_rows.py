"""The bad inputs, one row each: name, what is wrong, how it is given, and what the error must say."""

import json
import shutil
from pathlib import Path

from bad_inputs_for_tests import BAD, Bad
from nano_for_tests import write_notebook

GENERATE = ["generate", "--model", "student", "--style", "student", "--max-new-tokens", "4", "--out", "out.jsonl"]
EVALUATE = ["evaluate", "--model", "student", "--max-new-tokens", "4", "--out", "out"]
DISTILL = ["distill", "teacher.jsonl", "--student", "student", "--out", "out"]
SCORE = ["score", "teacher.jsonl", "--student", "student", "--n", "3", "--m", "2", "--d", "4", "--folds", "3"]
READ = [*GENERATE, "--prompts", "{bad}"]
TRAIN = ["distill", "{bad}", "--student", "student", "--out", "out"]
ON = ["--prompts", "prompts.jsonl"]


def files(kind: str, run: list[str], **said: tuple[str, ...]) -> list[Bad]:
    """A row for each file of tests/bad_inputs/<kind>: (what is wrong, then what the error must say)."""
    return [Bad(f"{kind}__{name}", wrong, run, says) for name, (wrong, *says) in said.items()]


def options(command: str, base: list[str], *rows: tuple) -> list[Bad]:
    """Rows (name, what is wrong, options, *what the error must say)."""
    return [Bad(f"{command}__{name}", wrong, [*base, *own], tuple(says)) for name, wrong, own, *says in rows]


PROMPT_FILES = files(
    "prompts",
    READ,
    names_line_2_truncated=("the file ends in the middle of a line", "line 2", "not valid JSON", "one object a line"),
    names_line_2_not_utf8=("a byte of Latin-1", "line 2", "not UTF-8", "0xe9", "save the file as UTF-8"),
    names_line_1_utf16=("saved as UTF-16", "line 1", "not UTF-8", "save the file as UTF-8"),
    names_line_2_byte_order_mark_in_the_middle=(
        "two files put together, the second with a byte order mark",
        "line 2",
        "not valid JSON",
    ),
    names_line_3_id_stands_twice=("one id for two prompts", "line 3", "'a'", "line 1"),
    names_line_2_id_is_true=("an id that is true", "line 2", "True", "id"),
    names_line_2_id_is_nan=("an id that is NaN", "line 2", "nan", "id"),
    names_line_2_id_is_a_list=("an id that is a list", "line 2", "a list", "id"),
    names_line_2_question_is_missing=("no question", "line 2", "'question'", "missing"),
    names_line_2_question_is_a_number=("a question that is a number", "line 2", "question", "5"),
    names_line_2_question_is_null=("a question that is null", "line 2", "question", "None"),
    names_line_2_question_is_nested=("a question that is an object", "line 2", "question", "an object of 1"),
    names_line_2_question_is_blank=("a question of white space", "line 2", "question"),
    names_line_2_question_stands_twice=("two questions in one object", "line 2", "'question'", "twice"),
    names_line_2_half_a_character=("half a surrogate pair", "line 2", "half a character", "ud83d", "UTF-8"),
    names_line_1_a_list_of_objects=("a JSON list in a .jsonl file", "line 1", "a list of 2", "one object a line"),
    names_line_2_a_bare_number=("a line that is a number", "line 2", "17", "one object a line"),
    names_line_1_csv_in_place_of_jsonl=("a CSV file named .jsonl", "line 1", "not valid JSON", "one object a line"),
    names_the_suffix_csv=("a CSV file", ".csv", ".jsonl"),
    names_line_1_empty_file=("an empty file", "line 1", "the file is empty", "expected"),
    names_line_1_blank_lines_only=("blank lines and nothing else", "line 1", "the file is empty", "expected"),
    names_line_2_number_of_5000_digits=("a number of 5,000 digits", "line 2", "4300 digits"),
)
for name, wrong, *says in (
    ("names_the_prompt_without_answer", "a prompt without answer, to be graded", "line 2", "'answer' is missing"),
    ("names_line_2_answer_is_a_list", "an answer that is a list", "line 2", "answer", "a list of 1"),
    ("names_the_line_answer_is_nan", "an answer that is NaN", "line 2", "answer", "nan"),
):
    PROMPT_FILES.append(Bad(f"prompts__{name}", wrong, [*EVALUATE, "--prompts", "{bad}"], tuple(says)))


PROMPT_FILES += [
    Bad(
        "prompts__names_line_1_nested_200000_deep",
        "brackets 200,000 deep",
        [*GENERATE, "--prompts", "nested.jsonl"],
        ("nested.jsonl, line 1", "nested too deeply"),
        prepare=lambda where: (where / "nested.jsonl").write_text('{"question": ' + "[" * 200_000 + "\n", "utf-8"),
    ),
    Bad(
        "prompts__cuts_a_value_of_a_megabyte",
        "a line of 1 MB with a wrong id",
        [*GENERATE, "--prompts", "long.jsonl"],
        ("long.jsonl, line 1", "a list of 1"),
        prepare=lambda where: (where / "long.jsonl").write_text(
            json.dumps({"question": "q " * 500_000, "id": ["x" * 500_000]}) + "\n", "utf-8"
        ),
    ),
    Bad(
        "prompts__names_a_question_longer_than_the_model_reads",
        "a question of 1 MB",
        [*GENERATE, "--prompts", "long.jsonl"],
        ("tokens", "the model reads 2048", "drop it"),
        prepare=lambda where: (where / "long.jsonl").write_text(
            json.dumps({"question": "clips " * 200_000, "answer": "1"}) + "\n", "utf-8"
        ),
    ),
    Bad(
        "prompts__names_the_missing_file",
        "no such file",
        [*GENERATE, "--prompts", "promts.jsonl"],
        ("promts.jsonl", "no such file", "check the spelling"),
    ),
    Bad(
        "prompts__names_the_folder",
        "a folder in place of a file",
        [*GENERATE, "--prompts", "student"],
        ("student", "is a folder", "name a file"),
    ),
]
RESPONSE_FILES = files(
    "responses",
    TRAIN,
    names_line_3_response_is_a_number=("a response that is a number", "line 3", "response 2 of 2 must be text", "6"),
    names_line_2_responses_missing=("no responses", "line 2", "no response field", "expected one of responses"),
    names_line_2_no_responses=(
        "an empty list of responses",
        "line 2",
        "'responses' is an empty list",
        "sample it again",
    ),
    names_line_2_responses_nested=("lists within the list", "line 2", "response 1 of 1 must be text", "a list of"),
    names_line_2_responses_is_null=("responses that are null", "line 2", "'responses' is null"),
    names_line_2_half_a_character=("half a surrogate pair", "line 2", "half a character"),
    names_line_1_empty_file=("an empty file", "line 1", "the file is empty"),
    names_line_2_truncated=("the file ends in the middle of a line", "line 2", "not valid JSON"),
)
SETTINGS_FILES = files(
    "settings",
    ["plan", "--settings", "{bad}"],
    names_the_line_not_toml=("not TOML", "not_toml.toml", "line 2", "not valid TOML"),
    names_the_section_unknown=("a misspelt section", "setings", "there are", "settings"),
    names_the_key_unknown=("a setting that is not there", "[settings]", "'learning_rate'", "lr"),
    names_the_key_m_is_text=("a number written as a word", "[settings] m", "'four'", "valid integer"),
    names_the_key_m_is_negative=("a negative number of responses", "[settings]", "m = -4"),
    names_the_key_lr_is_nan=("a learning rate that is NaN", "[settings]", "lr = nan"),
    names_the_key_nu_is_zero=("no smoothing", "[settings]", "nu = 0"),
    names_the_key_n_prompts_exceeds_n_train=("more prompts than there are", "n_prompts=100000", "n_train"),
    names_the_key_backend_unknown=("an unknown backend", "[settings]", "backend", "'tensorflow'", "vllm"),
    names_the_key_dtype_unknown=("an unknown precision", "[settings]", "feature_dtype", "'float8'", "bfloat16"),
    names_the_teacher_unknown=("a teacher that takes no part", "[teachers]", "'GPT-7'", "Phi-4"),
    names_the_section_is_a_number=("a section that is a number", "settings", "3"),
    names_the_part_is_a_text=("a list written as a word", "[only] teacher", "'Phi-4'", "valid list"),
    names_the_part_unknown_temperature=("a temperature that is not in the experiment", "0.55", "choose among"),
    names_the_part_temperature_is_a_word=("a temperature that is a word", "temperature", "'warm'"),
    not_utf8=("a byte of Latin-1", "not_utf8.toml", "utf-8"),
    names_the_place_is_a_list=("a list in place of sections", "names_the_place_is_a_list.json", "list"),
    gsm8k_n_train_is_negative=("a negative number of problems", "n_train"),
)
SCORE_OPTIONS = options(
    "score",
    SCORE,
    ("m_is_negative", "a negative number of responses", ["--m", "-1"], "m = -1", "at least 1"),
    ("n_is_zero", "no prompts", ["--n", "0"], "n = 0", "at least 3"),
    ("d_is_zero", "no dimensions", ["--d", "0"], "d = 0", "at least 1"),
    ("one_fold", "one fold", ["--folds", "1"], "folds = 1", "at least 2"),
    ("more_folds_than_prompts", "more folds than prompts", ["--folds", "4"], "folds = 4", "n = 3"),
    ("too_few_prompts_outside", "a fold of all prompts but one", ["--folds", "2"], "n = 3", "folds = 2", "folds = 3"),
    ("nu_is_nan", "smoothing that is NaN", ["--nu", "nan"], "nu = nan", "above 0"),
    ("nu_is_zero", "no smoothing", ["--nu", "0"], "nu = 0", "above 0"),
    ("seed_is_negative", "a negative seed", ["--seed", "-1"], "seed = -1", "at least 0"),
    ("dtype_unknown", "an unknown precision", ["--dtype", "float16"], "'float16'", "float32, bfloat16, float64"),
    ("device_unknown", "an unknown device", ["--device", "tpu"], "'tpu'", "auto, cpu or cuda"),
    ("device_meta", "a device that holds no numbers", ["--device", "meta"], "'meta'", "auto, cpu or cuda"),
    ("params_unknown", "an unknown choice of parameters", ["--params", "some"], "'some'", "all, last-layer, lora-b"),
    (
        "until_clear_of_sjlt",
        "rounds of a projection that cannot be shortened",
        ["--until-clear", "--projection", "sjlt"],
        "until_clear",
        "sjlt",
        "signs",
    ),
    ("batch_tokens_is_zero", "batches of nothing", ["--batch-tokens", "0"], "batch_tokens = 0", "at least 1"),
    (
        "template_without_question",
        "a template without a place for the question",
        ["--template", "Solve it:"],
        "{question}",
        "0 times",
    ),
    ("max_tokens_is_one", "texts of one token", ["--max-tokens", "1"], "max_tokens=1", "at least 2"),
    (
        "out_in_a_folder_that_is_not_there",
        "a place that is not there",
        ["--out", "no/ranking.csv"],
        "no/ranking.csv",
        "make it first",
    ),
    ("out_is_no_csv", "a table named .txt", ["--out", "ranking.txt"], "ranking.txt", ".csv"),
    ("plot_is_a_gif", "a picture of an unknown kind", ["--plot", "ranking.gif"], "ranking.gif", ".svg"),
    (
        "work_is_a_file",
        "a file in place of the folder for pieces",
        ["--work", "prompts.jsonl"],
        "prompts.jsonl",
        "give a folder",
    ),
    ("too_few_responses", "more responses than there are", ["--m", "3"], "teacher.jsonl, line 1", "m=3", "m <= 2"),
    ("n_is_a_word", "a word in place of a number", ["--n", "many"], "--n", "valid integer"),
    ("option_unknown", "a misspelt option", ["--fold", "2"], "--fold", "--folds"),
)
SCORE_OPTIONS += [
    Bad("score__no_file", "no file of generations", ["score", "--student", "student"], ("FILE_OR_FOLDER", "Missing")),
    Bad("score__no_student", "no student", ["score", "teacher.jsonl"], ("--student", "Missing")),
    Bad("score__the_same_file_twice", "one file twice", [*SCORE, "teacher.jsonl"], ("teacher.jsonl", "twice", "once")),
    Bad(
        "score__prompts_without_responses",
        "prompts in place of generations",
        ["score", "prompts.jsonl", "--student", "student"],
        ("prompts.jsonl, line 1", "no response field", "responses"),
    ),
    Bad(
        "score__a_csv_file",
        "a CSV file",
        ["score", "teacher.csv", "--student", "student"],
        ("teacher.csv", ".jsonl"),
        prepare=lambda where: (where / "teacher.csv").write_text("question,response\n"),
    ),
    Bad(
        "score__a_file_that_is_not_there",
        "a misspelt name",
        ["score", "techer.jsonl", "--student", "student"],
        ("techer.jsonl", "no such file", "spelling"),
    ),
]
GENERATE_OPTIONS = options(
    "generate",
    [*GENERATE, *ON],
    ("m_is_zero", "no responses", ["--m", "0"], "m=0", "at least 1"),
    ("temperature_is_negative", "a negative temperature", ["--temperature", "-1"], "temperature=-1", "positive"),
    ("temperature_is_nan", "a temperature that is NaN", ["--temperature", "nan"], "temperature=nan", "positive"),
    ("greedy_four_times", "four greedy responses", ["--temperature", "0"], "temperature=0", "m=4", "m=1"),
    ("top_p_is_nan", "a nucleus that is NaN", ["--top-p", "nan"], "top_p=nan", "(0, 1]"),
    ("top_p_is_two", "a nucleus of more than everything", ["--top-p", "2"], "top_p=2", "(0, 1]"),
    ("max_new_tokens_is_zero", "responses of nothing", ["--max-new-tokens", "0"], "max_new_tokens=0", "at least 1"),
    ("backend_unknown", "an unknown backend", ["--backend", "tensorflow"], "'tensorflow'", "vllm"),
    ("style_unknown", "an unknown style", ["--style", "poem"], "'poem'", "chat"),
    ("dtype_unknown", "an unknown precision", ["--dtype", "int8"], "'int8'", "bfloat16"),
    ("device_unknown", "an unknown device", ["--device", "tpu"], "'tpu'", "auto, cpu or cuda"),
    ("batch_size_is_zero", "batches of nothing", ["--batch-size", "0"], "batch_size=0", "at least 1"),
    ("gpus_of_this_machine", "GPUs of no other machine", ["--gpus", "1"], "--gpus", "--executor ray or slurm"),
    (
        "two_gpus_for_transformers",
        "a model shared between GPUs",
        ["--tensor-parallel-size", "2"],
        "tensor_parallel_size=2",
        "vllm",
    ),
    ("out_is_no_jsonl", "responses named .csv", ["--out", "out.csv"], "out.csv", ".jsonl"),
    ("n_is_zero", "no prompts", ["--n", "0"], "--n 0", "at least one"),
    ("n_is_too_large", "more prompts than there are", ["--n", "4"], "prompts.jsonl", "3 prompts", "--n 4"),
    ("seed_is_negative", "a negative seed", ["--seed", "-1"], "seed", "-1", "at least 0"),
    (
        "template_with_two_questions",
        "a template with the question twice",
        ["--template", "{question} {question}"],
        "{question}",
        "2 times",
    ),
    ("task_and_prompts", "a task and a file of prompts", ["--task", "gsm8k"], "--task or --prompts", "not both"),
    ("source_without_task", "a source without a task", ["--source", "data"], "--source", "--task"),
    *(
        (f"{name}_of_the_other_style", "an option that would not count", [f"--{name}", *own], name, f"--style {style}")
        for name, style, own in (
            ("template", "student", ["Q: {question}", "--style", "chat"]),
            ("bos", "student", ["--style", "chat"]),
            ("instruction", "chat", ["Think."]),
        )
    ),
)
GENERATE_OPTIONS += [
    Bad("generate__no_prompts", "neither task nor prompts", GENERATE, ("--task or --prompts", "one of them")),
    Bad("generate__task_unknown", "an unknown task", [*GENERATE, "--task", "gsm9k"], ("'gsm9k'", "gsm8k", "math")),
    Bad(
        "generate__source_is_not_there",
        "a copy of the task that is not there",
        [*GENERATE, "--task", "gsm8k", "--source", "./data/gsm8k"],
        ("data/gsm8k", "no such file or folder"),
    ),
    Bad(
        "generate__split_unknown",
        "a split that the folder does not have",
        [*GENERATE, "--task", "gsm8k", "--source", "data", "--split", "dev"],
        ("data", "'dev'", "train.jsonl"),
        prepare=lambda where: (
            shutil.copytree(where / "student", where / "data", ignore=lambda *_: _[1]),
            shutil.copy(where / "prompts.jsonl", where / "data" / "train.jsonl"),
        ),
    ),
    Bad(
        "generate__file_made_with_other_settings",
        "a finished file of another run",
        [*GENERATE, *ON],
        ("out.jsonl", "settings", "move it away"),
        prepare=lambda where: shutil.copy(where / "teacher.jsonl", where / "out.jsonl"),
    ),
]
EVALUATE_OPTIONS = options(
    "evaluate",
    [*EVALUATE, *ON],
    ("k_is_zero", "no samples", ["--k", "0"], "k=0", "at least 1"),
    ("grader_unknown", "an unknown grader", ["--grader", "me"], "'me'", "math-verify"),
    ("out_is_a_file", "a file in place of the folder", ["--out", "prompts.jsonl"], "prompts.jsonl", "folder"),
    ("device_unknown", "an unknown device", ["--device", "tpu"], "'tpu'", "auto, cpu or cuda"),
)
DISTILL_OPTIONS = options(
    "distill",
    DISTILL,
    ("epochs_is_zero", "no epochs", ["--epochs", "0"], "epochs=0", "above 0"),
    ("epochs_is_nan", "epochs that are NaN", ["--epochs", "nan"], "epochs=nan", "above 0"),
    ("epochs_is_infinite", "epochs without end", ["--epochs", "inf"], "epochs=inf", "finite"),
    ("lr_is_nan", "a learning rate that is NaN", ["--lr", "nan"], "lr=nan", "above 0"),
    ("lr_is_negative", "a negative learning rate", ["--lr=-0.1"], "lr=-0.1", "above 0"),
    ("lr_is_zero", "a learning rate of 0", ["--lr", "0"], "lr=0", "above 0"),
    ("warmup_is_two", "a warm-up longer than the training", ["--warmup", "2"], "warmup=2", "[0, 1)"),
    ("warmup_is_nan", "a warm-up that is NaN", ["--warmup", "nan"], "warmup=nan", "[0, 1)"),
    (
        "objective_unknown",
        "an unknown objective",
        ["--objective", "minillm"],
        "'minillm'",
        "choose one of sequence, gkd",
    ),
    ("objective_without_teacher", "no teacher to compare with", ["--objective", "gkd"], "gkd", "--teacher-model"),
    ("plad_without_rejected", "nothing to prefer it to", ["--objective", "plad"], "plad", "--rejected"),
    ("teacher_without_objective", "a teacher nobody asks", ["--teacher-model", "student"], "sequence", "leave out"),
    ("beta_is_two", "a beta beyond reverse KL", ["--objective", "gkd", "--beta", "2"], "beta=2", "from 0"),
    ("beta_of_the_paper", "a beta without divergence", ["--beta", "0.5"], "beta=0.5", "gkd and on-policy"),
    ("batch_size_is_zero", "batches of nothing", ["--batch-size", "0"], "batch_size=0"),
    (
        "batch_size_is_odd",
        "a batch that micro-batches do not divide",
        ["--batch-size", "7"],
        "batch_size=7",
        "micro_batch=4",
    ),
    ("scratch_is_mine", "checkpoints among other files", ["--scratch", "student"], "student", "a folder of its own"),
    ("scratch_is_out", "checkpoints where the student will be", ["--scratch", "out"], "out", "choose another folder"),
    ("save_every_is_zero", "a checkpoint every 0 steps", ["--save-every", "0"], "save_every=0", "at least 1"),
    ("seed_is_negative", "a negative seed", ["--seed", "-1"], "seed=-1", "at least 0"),
    ("precision_unknown", "an unknown precision", ["--precision", "float16"], "'float16'", "bfloat16"),
    ("max_tokens_is_one", "texts of one token", ["--max-tokens", "1"], "max_tokens=1", "at least 2"),
    (
        "responses_a_prompt_is_negative",
        "a negative number of responses",
        ["--responses-a-prompt", "-1"],
        "--responses-a-prompt -1",
        "0 (no limit) or a positive number",
    ),
    (
        "responses_a_prompt_is_too_large",
        "more responses than there are",
        ["--responses-a-prompt", "9"],
        "teacher.jsonl, line 1",
        "2 responses",
        "9",
    ),
    ("out_is_not_empty", "a folder that holds something", ["--out", "student"], "student", "choose another folder"),
)
DISTILL_OPTIONS += [
    Bad(
        "distill__texts_longer_than_the_student_reads",
        "a student of 16 positions",
        DISTILL,
        ("the student reads 16", "--max-tokens 16"),
        prepare=lambda where: (where / "student" / "config.json").write_text(
            json.dumps(json.loads((where / "student" / "config.json").read_text()) | {"max_position_embeddings": 16})
        ),
    )
]
FIGURES_OPTIONS = options(
    "figures",
    ["figures", "--scale", "nano"],
    ("scale_unknown", "an unknown scale", ["--scale", "huge"], "'huge'", "mini", "SCALE="),
    ("figure_unknown", "an unknown figure", ["--fig", "99"], "'99'", "choose among"),
    ("parameter_unknown", "a misspelt parameter", ["--parameter", "sigmma=1"], "'sigmma'", "'sigma'"),
    ("parameter_without_value", "a parameter without a value", ["--parameter", "sigma"], "'sigma'", "NAME=VALUE"),
    (
        "parameter_of_another_kind",
        "a word where a number is expected",
        ["--parameter", "sigma=small"],
        "sigma",
        "'small'",
        "0.001",
    ),
    ("parameter_that_is_nan", "a number that is none", ["--parameter", "sigma=nan"], "sigma", "nan"),
    ("device_unknown", "an unknown device", ["--device", "tpu"], "'tpu'", "auto, cpu or cuda"),
    ("dtype_unknown", "an unknown precision", ["--dtype", "float8"], "'float8'", "bfloat16"),
    ("save_at_another_scale", "committed notebooks at another scale", ["--save"], "--save", "mini or lab"),
    ("confirm_without_paper", "an option of another scale", ["--confirm"], "'nano'", "--confirm", "scale paper"),
    ("tables_only", "a scale without figures", ["--scale", "lab-world1"], "lab-world1", "make recompute"),
    ("nothing_to_draw_from", "no result tables", ["--no-recompute"], "nothing to draw from", "make figures SCALE=nano"),
)
OTHER_OPTIONS = [
    Bad(
        "recompute__part_unknown",
        "an unknown part",
        ["recompute", "--scale", "nano", "--part", "studnets"],
        ("'studnets'", "choose one of", "teachers"),
    ),
    Bad("recompute__scale_paper", "the paper's scale", ["recompute", "--scale", "paper"], ("'paper'", "CONFIRM=1")),
    Bad(
        "recompute__device_unknown",
        "an unknown device",
        ["recompute", "--scale", "nano", "--device", "tpu"],
        ("'tpu'", "auto, cpu or cuda"),
    ),
    Bad("command__unknown", "a misspelt command", ["scroe"], ("'scroe'",)),
    Bad(
        "plan__address_alone",
        "an address of no executor",
        ["plan", "--address", "auto"],
        ("--address", "--executor ray"),
    ),
    Bad("plan__scale_lab", "a scale without a plan", ["plan", "--scale", "lab"], ("'lab'", "README")),
    Bad(
        "plan__settings_file_missing",
        "no such file",
        ["plan", "--settings", "paper.toml"],
        ("paper.toml", "cannot be read"),
    ),
    Bad("plan__student_unknown", "an unknown student", ["plan", "--student", "GPT-2"], ("'GPT-2'", "Llama-3.2-1B")),
    Bad(
        "plan__temperature_unknown",
        "a temperature that is not in the experiment",
        ["plan", "--temperature", "0.55"],
        ("0.55", "choose among"),
    ),
    Bad(
        "plan__assumption_unknown",
        "an unknown assumption",
        ["plan", "--assume", "moneys=3"],
        ("'moneys'", "choose one of"),
    ),
    Bad(
        "plan__assumption_is_a_word",
        "an assumption that is a word",
        ["plan", "--assume", "mfu=high"],
        ("'mfu=high'", "NAME=NUMBER"),
    ),
    Bad(
        "plan__nothing_left",
        "a student that is not trained on the task",
        ["plan", "--student", "Llama-3.2-3B", "--task", "GSM8K"],
        ("nothing is left", "MATH"),
    ),
    Bad(
        "environment__workers_is_a_word",
        "a word in place of a number",
        ["figures", "--scale", "nano"],
        ("GRACELIB_WORKERS='zero'", "1 or more"),
        {"GRACELIB_WORKERS": "zero"},
    ),
    Bad(
        "environment__workers_is_zero",
        "no processes",
        ["recompute", "--scale", "nano", "--part", "teachers"],
        ("GRACELIB_WORKERS='0'", "1 or more"),
        {"GRACELIB_WORKERS": "0"},
    ),
    Bad(
        "environment__device_unknown",
        "an unknown device",
        ["figures", "--scale", "nano"],
        ("GRACELIB_DEVICE='tpu'", "auto, cpu or cuda"),
        {"GRACELIB_DEVICE": "tpu"},
    ),
    Bad(
        "environment__dtype_unknown",
        "an unknown precision",
        ["recompute", "--scale", "nano", "--part", "teachers"],
        ("GRACELIB_DTYPE='float8'", "bfloat16"),
        {"GRACELIB_DTYPE": "float8"},
    ),
    Bad(
        "environment__runs_is_a_file",
        "a file in place of the folder of runs",
        ["figures", "--scale", "nano"],
        ("GRACELIB_RUNS", "prompts.jsonl", "folder"),
        {"GRACELIB_RUNS": "prompts.jsonl"},
    ),
    Bad(
        "environment__figures_is_a_file",
        "a file in place of the folder of figures",
        ["figures", "--scale", "nano"],
        ("GRACELIB_FIGURES", "prompts.jsonl", "folder"),
        {"GRACELIB_FIGURES": "prompts.jsonl"},
    ),
    Bad(
        "environment__paper_part_is_no_json",
        "a part of the paper's cells that is not JSON",
        ["plan"],
        ("GRACELIB_PAPER_ONLY", "{teacher", "JSON"),
        {"GRACELIB_PAPER_ONLY": "{teacher"},
    ),
    Bad(
        "environment__paper_part_unknown",
        "an unknown key in the paper's part",
        ["plan"],
        ("GRACELIB_PAPER_ONLY", "'teachers'", "teacher"),
        {"GRACELIB_PAPER_ONLY": '{"teachers": ["Phi-4"]}'},
    ),
    Bad(
        "environment__paper_file_missing",
        "a settings file that is not there",
        ["plan"],
        ("none.toml", "cannot be read"),
        {"GRACELIB_PAPER": "none.toml"},
    ),
]


# --- models and tokenizers ----------------------------------------------------------------------------------


def edited(name: str, **changes):
    """A JSON file of the student with other entries; None takes one out."""

    def prepare(where: Path) -> None:
        path = where / "student" / name
        record = {**json.loads(path.read_text("utf-8")), **changes}
        path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}), "utf-8")

    return prepare


def written(name: str, content: str | bytes):
    def prepare(where: Path) -> None:
        (where / "student" / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def without(*names: str):
    def prepare(where: Path) -> None:
        for name in names:
            (where / "student" / name).unlink()

    return prepare


def own_code(name: str, model_type: str | None):
    """A checkpoint that brings code, which says so if it is run."""

    def prepare(where: Path) -> None:
        what = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Tokens", None]}
        edited(name, auto_map=what, **({"model_type": model_type} if model_type else {"tokenizer_class": "Tokens"}))(
            where
        )
        if not model_type:
            (where / "student" / "tokenizer.json").unlink()
            (where / "student" / "vocab.json").write_text("{}")
        (where / "student" / "own.py").write_text("open('it_ran', 'w').close()\nclass Config: ...\nclass Model: ...\n")

    return prepare


def tensors(change):
    def prepare(where: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = where / "student" / "model.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path, metadata={"format": "pt"})

    return prepare


def index(place: str, content: bytes = b""):
    """Weights in pieces, of which the index names `place`."""

    def prepare(where: Path) -> None:
        import torch

        folder = where / "student"
        (folder / place).parent.mkdir(exist_ok=True)
        if place.endswith(".bin"):
            torch.save({"a": torch.zeros(1)}, folder / place)
        elif not (folder / place).exists():
            shutil.copy(folder / "model.safetensors", folder / place)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": place}}))

    return prepare


def truncated(where: Path) -> None:
    path = where / "student" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def one_token_more(where: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(where / "student")
    tokenizer.add_tokens([f"<extra{i}>" for i in range(200)])
    tokenizer.save_pretrained(where / "student")


CHAT = ["generate", "--model", "student", "--max-new-tokens", "4", "--out", "out.jsonl", "--prompts", "prompts.jsonl"]
BINARY = "weights are read from .safetensors files only"
MODELS = [
    Bad(f"model__{name}", wrong, run, tuple(says), prepare=prepare)
    for name, wrong, run, prepare, *says in (
        (
            "names_the_missing_config",
            "no config.json",
            SCORE,
            without("config.json"),
            "'student'",
            "config.json is missing",
        ),
        (
            "names_the_missing_config_to_distill",
            "no config.json",
            DISTILL,
            without("config.json"),
            "config.json is missing",
        ),
        ("names_the_broken_config", "a config.json that is cut", SCORE, written("config.json", "{"), "config", "JSON"),
        (
            "names_the_config_that_is_a_list",
            "a config.json that is a list",
            SCORE,
            written("config.json", "[]"),
            "'student'",
            "config",
        ),
        (
            "names_the_unknown_architecture",
            "an architecture that transformers does not know",
            SCORE,
            edited("config.json", model_type="nextbest", architectures=["NextBestForCausalLM"]),
            "'student'",
            "nextbest",
        ),
        (
            "names_the_masked_model",
            "a model that is not causal",
            SCORE,
            edited("config.json", model_type="bert", architectures=["BertForMaskedLM"]),
            "not a causal language model",
            "BertForMaskedLM",
        ),
        (
            "refuses_code_of_the_model",
            "a model with code of its own (auto_map)",
            SCORE,
            own_code("config.json", "nextbest"),
            "needs code from its own repository, which is never run here",
        ),
        (
            "refuses_code_of_the_model_to_generate",
            "a model with code of its own (auto_map)",
            [*GENERATE, *ON],
            own_code("config.json", "nextbest"),
            "needs code from its own repository, which is never run here",
        ),
        (
            "refuses_code_of_the_tokenizer",
            "a tokenizer with code of its own (auto_map)",
            SCORE,
            own_code("tokenizer_config.json", None),
            "needs code from its own repository, which is never run here",
        ),
        (
            "refuses_pickled_weights",
            "weights in pytorch_model.bin",
            SCORE,
            lambda where: (without("model.safetensors")(where), written("pytorch_model.bin", b"\x80")(where)),
            "pickles and are not read",
            "save the model as safetensors",
        ),
        (
            "refuses_an_index_that_names_a_pickle",
            "an index that names pytorch_model-00001.bin",
            SCORE,
            index("pytorch_model-00001.bin"),
            "pytorch_model-00001.bin",
            BINARY,
        ),
        (
            "refuses_an_index_that_leads_outside",
            "an index that names ../other/model.safetensors",
            SCORE,
            index("../other/model.safetensors"),
            "../other/model.safetensors",
            "outside",
        ),
        (
            "names_the_missing_shard",
            "an index that names a file that is not there",
            SCORE,
            lambda where: (index("model-1.safetensors")(where), (where / "student" / "model-1.safetensors").unlink()),
            "model-1.safetensors is missing",
        ),
        (
            "names_the_broken_index",
            "an index without weight_map",
            SCORE,
            written("model.safetensors.index.json", '{"weights": {}}'),
            "model.safetensors.index.json",
            "weight_map",
        ),
        (
            "names_the_empty_index",
            "an index of nothing",
            SCORE,
            written("model.safetensors.index.json", '{"weight_map": {}}'),
            "model.safetensors.index.json",
        ),
        (
            "names_the_missing_weights",
            "no weights",
            SCORE,
            without("model.safetensors"),
            "model.safetensors is missing",
        ),
        ("says_that_weights_are_truncated", "model.safetensors is cut", SCORE, truncated, "weights", "SafetensorError"),
        (
            "says_that_weights_are_a_pointer",
            "model.safetensors is a Git LFS pointer",
            SCORE,
            written("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
            "model.safetensors",
            "git lfs pull",
        ),
        (
            "names_the_weight_that_is_nan",
            "a NaN in a weight",
            SCORE,
            tensors(lambda found: found["model.norm.weight"][3:4].fill_(float("nan"))),
            "model.norm.weight",
            "not finite",
        ),
        (
            "names_the_weight_that_is_nan_to_generate",
            "a NaN in a weight",
            [*GENERATE, *ON],
            tensors(lambda found: found["model.norm.weight"][3:4].fill_(float("nan"))),
            "model.norm.weight",
            "not finite",
        ),
        (
            "names_the_missing_weight",
            "a tensor is missing",
            SCORE,
            tensors(lambda found: found.pop("model.layers.1.mlp.up_proj.weight")),
            "model.layers.1.mlp.up_proj.weight",
            "not complete",
        ),
        (
            "names_the_weight_of_another_shape",
            "a tensor of another shape",
            SCORE,
            tensors(lambda found: found.update({"model.norm.weight": found["model.norm.weight"][:5].clone()})),
            "model.norm.weight",
        ),
        (
            "names_the_missing_tokenizer",
            "no tokenizer",
            SCORE,
            without("tokenizer.json"),
            "tokenizer.json is missing",
            "save_pretrained",
        ),
        (
            "names_the_broken_tokenizer",
            "a tokenizer.json that is cut",
            SCORE,
            written("tokenizer.json", '{"version": "1.0"'),
            "its tokenizer",
        ),
        (
            "names_the_vocabulary_that_is_too_small",
            "a tokenizer with more tokens than the embedding",
            SCORE,
            one_token_more,
            "embedding",
            "400 rows",
            "resize_token_embeddings",
        ),
        (
            "names_the_missing_eos",
            "a tokenizer without EOS",
            SCORE,
            edited("tokenizer_config.json", eos_token=None),
            "no EOS token",
            "eos_token",
        ),
        (
            "names_the_missing_chat_template",
            "a base model in chat style",
            CHAT,
            without("chat_template.jinja"),
            "no chat template",
            "style 'student'",
        ),
        (
            "refuses_a_chat_template_that_reaches_for_python",
            "a chat template that reaches for Python's objects",
            CHAT,
            written("chat_template.jinja", "{{ messages.__class__.__mro__[1].__subclasses__() }}"),
            "chat template refuses",
            "unsafe",
        ),
        (
            "names_the_broken_chat_template",
            "a chat template that is cut",
            CHAT,
            written("chat_template.jinja", "{% for message in messages %}"),
            "chat template",
        ),
        (
            "names_the_size_that_is_negative",
            "a negative size in config.json",
            SCORE,
            edited("config.json", hidden_size=-32),
            "its config",
            "-32",
        ),
        (
            "names_the_size_that_is_a_word",
            "a size in config.json that is a word",
            SCORE,
            edited("config.json", num_hidden_layers="two"),
            "config",
        ),
        (
            "names_the_broken_generation_config",
            "a generation_config.json that is cut",
            [*GENERATE, *ON],
            written("generation_config.json", "{"),
            "generation_config.json",
        ),
    )
]
MODELS += [
    Bad(
        "model__names_the_missing_folder",
        "no such folder",
        [*SCORE, "--student", "./studnet"],
        ("'./studnet'", "no such folder"),
    ),
    Bad(
        "model__names_the_file",
        "a file in place of a folder",
        [*SCORE, "--student", "prompts.jsonl"],
        ("'prompts.jsonl' is a file", "give the folder"),
    ),
    Bad(
        "model__says_that_an_adapter_is_none",
        "an adapter without its base",
        SCORE,
        ("adapter", "merge it"),
        prepare=lambda where: (without("config.json")(where), written("adapter_config.json", "{}")(where)),
    ),
]


# --- feature files ------------------------------------------------------------------------------------------


def features(change=lambda arrays, about: None, **given):
    """A folder `cell` with the features of 2 prompts with 2 responses each, changed."""

    def prepare(where: Path) -> None:
        import numpy as np
        from safetensors.numpy import save_file

        arrays = {
            "g": np.ones((4, 3), np.float32),
            "length": np.full(4, 5),
            "loss": np.ones(4),
            "mean_prob": np.ones(4) / 2,
            "grad_norm": np.ones(4),
            "prompt": np.array([0, 0, 1, 1]),
            "correct": np.ones(4, np.uint8),
        }
        about = {"params": {}, "prompt_ids": ["a", "b"]}
        change(arrays, about)
        (where / "cell").mkdir()
        save_file(arrays, where / "cell" / "features.safetensors", metadata={"about": json.dumps(about), **given})

    return prepare


def read_features(where: Path) -> None:
    """gracelib.experiment.tables.load_features"""
    from gracelib.experiment.tables import load_features

    load_features(Path("cell"))


def score_features(where: Path) -> None:
    """gracelib.baselines.compute_scores"""
    from gracelib.baselines import compute_scores
    from gracelib.experiment.tables import load_features

    compute_scores(load_features(Path("cell")), n_folds=2)


def raw(content: bytes):
    def prepare(where: Path) -> None:
        (where / "cell").mkdir()
        (where / "cell" / "features.safetensors").write_bytes(content)

    return prepare


def npz_with_objects(where: Path) -> None:
    import numpy as np

    (where / "cell").mkdir()
    with open(where / "cell" / "features.safetensors", "wb") as f:
        np.savez(f, g=np.array([{"a": 1}], dtype=object))


FEATURES = [
    Bad(f"features__{name}", wrong, read_features, ("features.safetensors", *says), prepare=prepare)
    for name, wrong, prepare, *says in (
        ("name_the_missing_file", "no file", lambda where: (where / "cell").mkdir(), "not there", "make"),
        ("name_the_missing_array", "no gradients in it", features(lambda a, about: a.pop("g")), "'g'", "missing"),
        (
            "name_the_missing_prompts",
            "no prompt numbers in it",
            features(lambda a, about: a.pop("prompt")),
            "'prompt'",
            "missing",
        ),
        ("are_no_safetensors", "a text file", raw(b"g,length\n1,2\n"), "safetensors"),
        ("are_empty", "an empty file", raw(b""), "safetensors"),
        (
            "are_cut",
            "a header without its arrays",
            raw(b'\x28\0\0\0\0\0\0\0{"g":{"dtype":"F32","shape":[4],"data_of'),
            "safetensors",
        ),
        ("are_an_npz_with_pickles", "an npz file with objects", npz_with_objects, "safetensors"),
        ("have_no_ids", "no list of ids", features(lambda a, about: about.pop("prompt_ids")), "prompt_ids"),
        (
            "have_too_few_ids",
            "more prompts than ids",
            features(lambda a, about: about["prompt_ids"].pop()),
            "1 ids",
            "2 prompts",
        ),
        ("have_metadata_that_is_no_json", "metadata that is not JSON", features(about="{"), "about"),
        (
            "have_arrays_of_other_lengths",
            "lengths of another shape",
            features(lambda a, about: a.update(length=a["length"][:3])),
            "'length'",
            "(3,)",
            "4",
        ),
        (
            "have_gradients_of_one_dimension",
            "a vector of gradients",
            features(lambda a, about: a.update(g=a["g"][:, 0].copy())),
            "'g'",
            "(4,)",
        ),
        (
            "have_prompts_out_of_order",
            "responses of a prompt apart",
            features(lambda a, about: a.update(prompt=a["prompt"][[0, 2, 1, 3]])),
            "'prompt'",
            "together",
        ),
    )
]
FEATURES += [
    Bad(
        "features__name_the_row_that_is_nan",
        "a NaN among the gradients",
        score_features,
        ("NaN or Inf", "row 2"),
        prepare=features(lambda a, about: a["g"].__setitem__((2, 1), float("nan"))),
    ),
    Bad(
        "features__name_the_length_of_zero",
        "a response of no tokens",
        score_features,
        ("length[1] = 0", ">= 1"),
        prepare=features(lambda a, about: a["length"].__setitem__(1, 0)),
    ),
    Bad(
        "features__name_the_probability_of_two",
        "a probability of 2",
        score_features,
        ("mean_prob[0] = 2", "[0.0, 1.0]"),
        prepare=features(
            lambda a, about: (
                a["g"].__setitem__(slice(None), a["g"] * [[1, 2, 3], [2, 1, 0], [0, 1, 4], [5, 1, 1]]),
                a["mean_prob"].__setitem__(0, 2),
            )
        ),
    ),
]


# --- notebooks ----------------------------------------------------------------------------------------------


def notebook(parameters: str | None, **kernel):
    return lambda where: write_notebook(where / "00_mine.ipynb", "print(scale)", dial=parameters, **kernel)


def text_notebook(content: str):
    return lambda where: (where / "00_mine.ipynb").write_text(content, "utf-8")


def run_notebook(**given):
    def run(where: Path) -> None:
        from gracelib.jobs import notebooks

        notebooks.run(
            "nano", notebooks=[Path("00_mine.ipynb")], parameters=given, before=notebooks.papermill.execute_notebook
        )

    run.__doc__ = "gracelib.jobs.notebooks.run" + (f"(parameters={given})" if given else "")
    return run


GOOD_CELL = 'scale = "mini"\nrecompute = False\nsigma = 0.001'
NOTEBOOKS = [
    Bad(f"notebook__{name}", wrong, run, ("00_mine.ipynb", *says), prepare=prepare)
    for name, wrong, run, prepare, *says in (
        (
            "has_no_parameters_cell",
            "no cell tagged parameters",
            run_notebook(),
            notebook(None),
            "no cell tagged 'parameters'",
            "tag",
        ),
        (
            "has_a_syntax_error_in_its_parameters",
            "a parameters cell that is not Python",
            run_notebook(),
            notebook("scale = "),
            "parameters cell",
            "line 1",
        ),
        (
            "has_parameters_that_are_no_literals",
            "a parameter that is computed",
            run_notebook(),
            notebook('scale = "mini"\nrecompute = bool(1)'),
            "parameters cell",
            "line 2",
            "plain",
        ),
        (
            "has_an_r_kernel",
            "a notebook in R",
            run_notebook(),
            notebook('scale <- "mini"', name="ir", language="R"),
            "'R'",
            "Python",
        ),
        ("is_no_json", "a file that is cut", run_notebook(), text_notebook('{"cells": ['), "not a notebook", "JSON"),
        ("is_empty", "an empty file", run_notebook(), text_notebook(""), "not a notebook"),
        ("is_a_list", "a list in place of a notebook", run_notebook(), text_notebook("[]"), "not a notebook"),
        ("is_missing", "no such file", run_notebook(), lambda where: None, "not there"),
        (
            "does_not_know_the_parameter",
            "a misspelt parameter",
            run_notebook(sigmma=1),
            notebook(GOOD_CELL),
            "'sigmma'",
            "sigma",
        ),
        (
            "takes_no_word_for_a_number",
            "a word where a number is expected",
            run_notebook(sigma="small"),
            notebook(GOOD_CELL),
            "sigma",
            "'small'",
            "0.001",
        ),
    )
]
NOTEBOOKS = [
    row if "does_not_know" not in row.name else Bad(row.name, row.wrong, row.run, row.says[1:], prepare=row.prepare)
    for row in NOTEBOOKS
]


# --- committed result tables --------------------------------------------------------------------------------


def table(name: str, change):
    """The committed tables of mini, of which one is changed: bytes in, bytes out."""

    def prepare(where: Path) -> None:
        results = where / "figures" / "mini" / "results"
        shutil.copytree(BAD.parent.parent / "figures" / "published" / "mini" / "results", results)
        path = results / f"{name}.csv"
        path.write_bytes(change(path.read_bytes()))

    return prepare


def with_a_word(text: bytes) -> bytes:
    """The first number of the column `grace` replaced."""
    head, first, *rest = text.split(b"\n")
    cells = first.split(b",")
    cells[head.split(b",").index(b"grace")] = b"lots"
    return b"\n".join((head, b",".join(cells), *rest))


def no_column(name: bytes):
    def change(text: bytes) -> bytes:
        rows = [row.split(b",") for row in text.splitlines()]
        at = rows[0].index(name)
        return b"\n".join(b",".join(row[:at] + row[at + 1 :]) for row in rows) + b"\n"

    return change


def lines_of(text: bytes, n: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[:n])


DRAW = ["figures", "--scale", "mini", "--fig", "19"]
TABLES = [
    Bad(f"table__{name}", wrong, DRAW, (f"{file}.csv", *says, "make figures SCALE=mini"), prepare=table(file, change))
    for name, wrong, file, change, *says in (
        (
            "scores_are_cut_in_a_line",
            "a table that ends in the middle of a line",
            "scores",
            lambda t: lines_of(t, 5)[:-40],
            "line 5",
            "cut",
        ),
        ("students_lack_a_column", "a column is missing", "students", no_column(b"average"), "line 1", "'average'"),
        ("teachers_have_no_rows", "a head and no rows", "teachers", lambda t: lines_of(t, 1), "no rows"),
        ("features_are_empty", "an empty file", "features", lambda t: b"", "empty"),
        ("scores_hold_a_word", "a word in a column of numbers", "scores", with_a_word, "line 2", "'grace'", "'lots'"),
        (
            "students_are_not_utf8",
            "a byte of Latin-1",
            "students",
            lambda t: t.replace(b"equations-40", b"\xe9quations", 1),
            "UTF-8",
        ),
        (
            "grid_is_cut_in_a_line",
            "a table of one figure that ends in the middle of a line",
            "grid",
            lambda t: lines_of(t, 9)[:-9],
            "line 9",
            "cut",
        ),
    )
]
ROWS: list[Bad] = [
    *PROMPT_FILES,
    *RESPONSE_FILES,
    *SCORE_OPTIONS,
    *GENERATE_OPTIONS,
    *EVALUATE_OPTIONS,
    *DISTILL_OPTIONS,
    *FIGURES_OPTIONS,
    *OTHER_OPTIONS,
    *SETTINGS_FILES,
    *MODELS,
    *FEATURES,
    *NOTEBOOKS,
    *TABLES,
]


def ingest_lines() -> list[str]:
    """The table of tests/bad_inputs/ingest, whose names say it all (`tests/text/test_responses.py` reads them)."""
    from gracelib.text.selection import read_generations, read_teachers, select_common

    lines = ["| generations of others (ingest/) | the error |", "|---|---|"]
    for path in sorted((BAD / "ingest").iterdir()):
        try:
            select_common(read_teachers(path), 2, 2, 0) if path.is_dir() else read_generations(path)
        except ValueError as error:
            text = str(error).replace(f"{path.parent}/", "").replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| {path.name} | {' '.join(text.split())} |")
    return lines
