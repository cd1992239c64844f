"""From text to ids, for anybody's tokenizer: the boundary is exact, BOS and EOS are a stated policy, nothing is lost
in silence. What is generated from, trained on and differentiated begins with the same ids.

The tokenizers are real BPE ones, trained here; some merge everything, so that joining texts instead of ids would move
the boundary.
"""

import copy
import re

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from checkpoints_for_tests import KINDS, make_checkpoint
from gracelib.models import prompting
from gracelib.models.prompting import (
    CHAT,
    STUDENT_TEMPLATE,
    TEACHER_INSTRUCTION,
    Encoded,
    Policy,
    chat_prompt,
    encode,
    encode_examples,
    encode_questions,
    encoding_notes,
    end_token,
    policy_notes,
    text_features,
)
from gracelib.models.sampling import stop_tokens
from gracelib.world.models import build_tokenizer

QUESTIONS = ("What is \\boxed{3} + {x}?", "How many? {question} {0} {{}}", "Janet’s ducks lay 16 eggs.\n", "é¥ 你好")
RESPONSES = ("She has 16 - 3 = 13.\n#### 13", "\n\nThe answer is \\boxed{\\frac{1}{2}}.", " 7", "", "<b>{x}</b> 你好")


def merging_tokenizer():
    """No split at words or line ends: every frequent string becomes one token, across any boundary."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator([f"### Problem:\nQ\n\n### Solution:\n{r}" for r in RESPONSES + ("She sold",)] * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


@pytest.fixture(scope="module")
def merging():
    return merging_tokenizer()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: AutoTokenizer.from_pretrained(make_checkpoint(folder / kind, kind)) for kind in KINDS}


def test_the_boundary_is_exact_where_the_tokenizer_merges_across_it(merging):
    question, response = "Q", "She sold"
    (e,) = encode(merging, [(question, response)])
    assert merging.decode(e.prompt_ids) == "### Problem:\nQ\n\n### Solution:\n"
    assert merging.decode(e.response_ids[:-1]) == response
    joined = merging("### Problem:\nQ\n\n### Solution:\nShe sold", add_special_tokens=False)["input_ids"]
    assert joined != [*e.prompt_ids, *e.response_ids[:-1]]  # or this test would test nothing
    ends = [len(merging.decode(joined[:k])) for k in range(len(joined) + 1)]
    assert len("### Problem:\nQ\n\n### Solution:\n") not in ends  # a token really spans the boundary


@pytest.mark.parametrize("kind", [*KINDS, "merging"])
def test_by_default_prompt_and_response_are_tokenised_apart_and_only_eos_is_added(kind, checkpoints, merging):
    """Each as the tokenizer has it alone, whatever else goes through it in the same call."""
    tokenizer = merging if kind == "merging" else checkpoints[kind]
    pairs = [(question, response) for question in QUESTIONS for response in RESPONSES]
    for (question, response), (prompt, ids) in zip(pairs, encode_examples(tokenizer, pairs), strict=True):
        text = STUDENT_TEMPLATE.replace("{question}", question)
        assert prompt == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert (tokenizer.decode(prompt), tokenizer.decode(ids[:-1])) == (text, response)
        assert [prompt] == encode_questions(tokenizer, [question])
    assert encode(tokenizer, pairs) == [Encoded(*example, 0) for example in encode_examples(tokenizer, pairs)]
    assert encode_examples(tokenizer, []) == []


def test_many_pairs_come_back_in_order(merging, monkeypatch):
    pairs = [(f"{i} ?", str(i)) for i in range(7)]
    whole = encode(merging, pairs)
    monkeypatch.setattr(prompting, "AT_ONCE", 3)
    assert encode(merging, pairs) == whole and merging.decode(whole[6].response_ids[:-1]) == "6"


def test_the_worlds_words_are_one_token_each():
    (prompt, response), (_, empty) = encode_examples(
        build_tokenizer(), [("ann has 9 books .", "9 + 1 = 10"), ("q", "")]
    )
    tokenizer = build_tokenizer()
    assert tokenizer.convert_ids_to_tokens(response) == ["9", "+", "1", "=", "10", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(prompt)[-2:] == ["###", "Solution:"]
    assert not set(tokenizer.all_special_ids) & set(prompt)  # no BOS, no EOS in the prompt
    assert empty == [tokenizer.eos_token_id]  # |y| = 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bos", [False, True])
def test_generation_and_training_begin_with_the_same_ids(kind, bos, checkpoints):
    """No BOS by default though the tokenizer may add one when asked for special tokens; with bos=True exactly one;
    EOS once, at the end."""
    tokenizer = checkpoints[kind]
    policy = Policy(bos=bos, template="Q: {question}\nA: ")
    if bos and tokenizer.bos_token_id is None:
        with pytest.raises(ValueError, match="asks for a BOS"):
            encode_questions(tokenizer, ["x"], policy)
        return
    (e,) = encode(tokenizer, [("x", "y = 2")], policy)
    assert [e.prompt_ids] == encode_questions(tokenizer, ["x"], policy)
    ids = [*e.prompt_ids, *e.response_ids]
    assert ids.count(tokenizer.bos_token_id) == int(bos) and (ids[0] == tokenizer.bos_token_id) is bos
    assert e.response_ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
    (plain,) = encode(tokenizer, [("x", "y = 2")], Policy(template=policy.template))
    assert e.response_ids == plain.response_ids and e.prompt_ids[int(bos) :] == plain.prompt_ids


def test_a_template_that_spells_out_its_bos_gets_no_second_one(merging):
    (ids,) = encode_questions(merging, ["x"], Policy("<s>{question}", bos=True))
    assert [ids] == encode_questions(merging, ["x"], Policy("<s>{question}")) and ids.count(merging.bos_token_id) == 1


def test_braces_survive(merging):
    """In the question, in the response and in the template itself."""
    policy = Policy("Put it in \\boxed{}: {question} {{}}\n")
    for question, ids in zip(QUESTIONS, encode_questions(merging, QUESTIONS, policy), strict=True):
        assert merging.decode(ids) == "Put it in \\boxed{}: " + question + " {{}}\n"


def test_truncation_is_counted(merging):
    """A cut response keeps its first tokens, loses its EOS with the rest, and every lost token is counted; one that
    just fits is whole."""
    pairs = [(QUESTIONS[0], RESPONSES[0] * 3)]
    (whole,) = encode(merging, pairs)
    total = len(whole.prompt_ids) + len(whole.response_ids)
    for limit in (total + 5, total):
        assert encode(merging, pairs, Policy(max_tokens=limit)) == [whole]
    for lost in (1, 2, len(whole.response_ids) - 1):
        policy = Policy(max_tokens=total - lost)
        (cut,) = encode(merging, pairs, policy)
        assert cut.n_cut == lost and cut.prompt_ids == whole.prompt_ids
        assert cut.response_ids == whole.response_ids[:-lost] and merging.eos_token_id not in cut.response_ids
        assert encoding_notes([whole, cut, cut], policy) == [
            f"2 of 3 responses did not fit max_tokens={total - lost} and were cut: {2 * lost} tokens lost, "
            f"at most {lost} of one response"
        ]
    assert encoding_notes([whole], Policy()) == []
    with pytest.raises(ValueError, match=re.escape(f"the prompt {QUESTIONS[0]!r} has {len(whole.prompt_ids)} tokens")):
        encode(merging, pairs, Policy(max_tokens=len(whole.prompt_ids)))
    with pytest.raises(ValueError, match="leaves none of max_tokens=4"):  # generation has the same limit
        encode_questions(merging, QUESTIONS[:1], Policy(max_tokens=4))


def test_a_tokenizer_without_eos_is_refused():
    tokenizer = merging_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS token: nothing would teach the student to stop"):
        encode(tokenizer, [("Q", "A")])


def test_a_cut_response_gets_no_eos(merging):
    """Neither one that its teacher's limit has cut, which is counted, nor what is left of it where it does not fit."""
    (whole,) = encode(merging, [("Q", "She sold 7")])
    cut, other = encode(merging, [("Q", "She sold 7")] * 2, cut=[True, False])
    assert cut.response_ids == whole.response_ids[:-1] and cut.cut and other == whole and len(cut.response_ids) > 1
    limit = Policy(max_tokens=len(whole.prompt_ids) + 1)
    (short,) = encode(merging, [("Q", "She sold 7")], limit, [True])
    assert short.response_ids == whole.response_ids[:1] and short.n_cut == len(cut.response_ids) - 1
    assert encoding_notes([cut, other], Policy()) == [
        "1 of 2 responses were cut by their teacher's limit: they end without an end token"
    ]
    with pytest.raises(ValueError, match="the response is empty and was cut"):
        encode(merging, [("Q", "")], cut=[True])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", [STUDENT_TEMPLATE, CHAT])
def test_special_tokens_in_a_text_are_text(kind, template, checkpoints):
    """At the very end of a response they are taken off; elsewhere, and in a question, they are letters. BOS and EOS are
    what the policy and the template write, and nothing else."""
    tokenizer, policy = checkpoints[kind], Policy(template)
    eos, pad = tokenizer.eos_token, tokenizer.pad_token
    plain, ended, inside = encode(
        tokenizer, [("Q?", text) for text in ("a 7.", f"a 7.{eos}{pad} {pad}\n", f"a {eos}7.")], policy
    )
    assert ended.response_ids == plain.response_ids and (ended.ended, inside.ended, inside.spelt) == (True, False, True)
    assert tokenizer.decode(inside.response_ids[:-1]) == f"a {eos}7."
    assert inside.response_ids.count(tokenizer.eos_token_id) == 1
    (asked,), (other,) = (encode_questions(tokenizer, [q], policy) for q in (f"Is {eos} {pad} a tag?", "Is x a tag?"))
    special = tokenizer.all_special_ids
    assert [i for i in asked if i in special] == [i for i in other if i in special]
    assert tokenizer.decode(asked) == tokenizer.decode(other).replace("x", f"{eos} {pad}")
    assert encoding_notes([plain, ended, inside], policy) == [
        "1 of 3 responses ended with an end token written as text, which was taken off",
        "1 of 3 responses spell out special tokens of the student, which are read as plain text",
    ]


def test_the_end_of_a_turn_is_what_the_chat_template_writes(checkpoints, tmp_path):
    """In training and gradients after every whole response; without a token of its own it is EOS, and in the paper's
    template always."""
    tokenizer = copy.deepcopy(checkpoints["qwen2"])
    assert end_token(tokenizer, Policy(CHAT)) == tokenizer.eos_token_id  # this template ends a turn with a line end
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    turn, eos = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id
    (chat,), (paper,) = (encode(tokenizer, [("Q?", "7")], policy) for policy in (Policy(CHAT), Policy()))
    assert turn != eos and chat.response_ids[-1] == turn and paper.response_ids[-1] == eos
    assert tokenizer.decode(chat.prompt_ids) == "<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\n"
    assert policy_notes(tokenizer, Policy(CHAT)) == [
        "the student reads its own chat template; a whole response ends with <|im_end|>"
    ]
    tokenizer.save_pretrained(tmp_path)
    assert set(stop_tokens(str(tmp_path), tokenizer, Policy(CHAT))) == {eos, turn}
    assert stop_tokens(str(tmp_path), tokenizer) == (eos,)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        encode(tokenizer, [("Q?", "7")], Policy(CHAT))


def test_a_bos_that_is_left_out_is_said(checkpoints):
    (said,) = policy_notes(checkpoints["gemma2"], Policy())
    assert "begins every text with <s>, which is left out" in said and "--bos adds it" in said
    assert policy_notes(checkpoints["gemma2"], Policy(bos=True)) == policy_notes(checkpoints["gpt2"], Policy()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_prompt_has_one_bos_or_none(kind, checkpoints):
    """Tokenising the template's text as usual adds a second BOS where the tokenizer adds one by itself."""
    tokenizer = checkpoints[kind]
    text = chat_prompt(tokenizer, "What is {x}?")
    assert text.endswith(f"<|user|>\n{TEACHER_INSTRUCTION}\n\nWhat is {{x}}?\n<|assistant|>\n")
    assert "\\boxed{}." in text  # not the doubled braces of the authors' code
    (ids,) = encode_questions(tokenizer, ["What is {x}?"], Policy(CHAT), TEACHER_INSTRUCTION)
    assert tokenizer.decode(ids) == text
    has_bos = tokenizer.bos_token_id is not None
    assert ids.count(tokenizer.bos_token_id) == int(has_bos)
    if has_bos:
        assert [ids] == encode_questions(tokenizer, ["What is {x}?"], Policy(CHAT, bos=True), TEACHER_INSTRUCTION)
    if kind in ("llama", "gemma2"):
        assert tokenizer(text)["input_ids"].count(tokenizer.bos_token_id) == 2  # what is avoided


def test_without_an_instruction_the_question_stands_alone(checkpoints):
    assert chat_prompt(checkpoints["llama"], "Q?", instruction="") == "<s><|user|>\nQ?\n<|assistant|>\n"


def test_which_token_of_its_sentence_each_token_is():
    """ASLEC's sentences end with ". " or "? "; a response that begins with a line break begins its first, the end token
    belongs to the last, and a text that was cut keeps what is left."""
    texts = ["a b . c d ? e", "\n a . b", "", "1.5 a"]
    policy, pairs = Policy(template="{question}", max_tokens=7), [("a", text) for text in texts]
    world = build_tokenizer()
    encoded = encode(world, pairs, policy, steps=True)
    assert [e.step.tolist() for e in encoded] == [[0, 1, 2, 0, 1, 2], [0, 1, 0, 1], [0], [0, 1, 2]]
    assert [len(e.response_ids) for e in encoded] == [6, 4, 1, 3] and encode(world, pairs)[0].step is None
    found = text_features(encoded, texts)
    assert found["token_step"].tolist() == sum((e.step.tolist() for e in encoded), [])
    assert found["characters"].tolist() == [13, 7, 0, 5]
    copies = text_features(encoded[:1] * 9, ["the same sentence over and over"] * 9)
    assert (copies["joint_bits"][1:] < copies["zlib_bits"][1:] / 2).all() and "token_step" in copies
