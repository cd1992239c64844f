"""What a prompt gets depends on (seed, prompt, sample, step) and on nothing else: not on the batch, not on
the order. Each token is drawn from softmax(logits / T). Resuming, splitting over processes and comparing
temperatures all rest on the first; every score and accuracy on the second.
"""

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList, MambaConfig, MambaForCausalLM

from checkpoints_for_tests import make_checkpoint
from gracelib.models import accuracy
from gracelib.models.decoding import KeyedSampler, decode, row_keys, sample_responses, uniforms
from gracelib.models.prompting import encode_examples, encode_questions
from gracelib.models.training import train_causal_lm
from gracelib.scale import ModelSpec
from gracelib.text import answers
from gracelib.world import stories
from gracelib.world.models import build_model, build_tokenizer

PROMPTS = [
    {"id": f"p{i}", "question": p.question, "kept": i} for i, p in enumerate(stories.draw_problems(144, "test", 0))
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer, one_thread):
    """A small Llama after a few steps on short answers: it knows how to end, and little else."""
    network = build_model(ModelSpec(32, 1, 2), len(tokenizer), 0)
    pairs = stories.mixture_texts(512, 0, {"terse": 1.0, "equations": 0.3}, 0.2, 1, 5)
    train_causal_lm(network, encode_examples(tokenizer, pairs), epochs=2, lr=1e-2, batch_size=32, seed=0)
    return network.eval()


def sample(model, tokenizer, prompts=PROMPTS, **changes):
    settings = {"m": 8, "temperature": 0.9, "seed": 1, "max_new_tokens": 16} | changes
    return sample_responses(model, tokenizer, prompts, **settings)


@pytest.fixture(scope="module")
def reference(model, tokenizer):
    return sample(model, tokenizer)


def next_token_distribution(model, tokenizer, prompt, temperature):
    ids = torch.tensor(encode_questions(tokenizer, [prompt["question"]]))
    with torch.inference_mode():
        logits = model(ids).logits[0, -1].double()  # (vocab,)
    return torch.softmax(logits / temperature, -1).numpy()


# --- what the randomness depends on -------------------------------------------------------------------------


def test_rows_come_back_in_order_with_m_responses(reference):
    assert [row["id"] for row in reference] == [p["id"] for p in PROMPTS]
    assert all(row["kept"] == i and len(row["responses"]) == 8 for i, row in enumerate(reference))
    assert not any("<" in text for row in reference for text in row["responses"])  # no special tokens
    assert len({text for row in reference for text in row["responses"]}) > 500  # not one text over and over


@pytest.mark.parametrize("batch_size, n_prompts, m, least", [(33, 144, 8, 1000), (1, 20, 1, 20)])
def test_the_batch_size_does_not_change_the_responses(model, tokenizer, reference, batch_size, n_prompts, m, least):
    """At least 99.9% of the responses are identical; float rounding may flip the rest."""
    rows = sample(model, tokenizer, PROMPTS[:n_prompts], batch_size=batch_size, m=m)
    pairs = [
        pair
        for row, other in zip(reference, rows, strict=False)
        for pair in zip(row["responses"], other["responses"], strict=False)
    ]
    assert len(pairs) == n_prompts * m >= least
    assert sum(a == b for a, b in pairs) >= 0.999 * len(pairs)


def test_neighbours_order_and_m_do_not_change_the_responses(model, tokenizer, reference):
    """A prompt alone gets what it got in company; the first m samples are the first m of more (rounding: see
    above).
    """
    company = {row["id"]: row["responses"] for row in reference}
    some = PROMPTS[50:10:-1]
    alone = sample(model, tokenizer, some, m=5)
    pairs = [pair for row in alone for pair in zip(row["responses"], company[row["id"]], strict=False)]
    assert len(pairs) == 200 and sum(a != b for a, b in pairs) <= 1


def test_seed_sample_and_prompt_each_change_the_responses(model, tokenizer, reference):
    other = sample(model, tokenizer, PROMPTS[:20], seed=2)
    same = sum(
        a == b
        for x, y in zip(reference, other, strict=False)
        for a, b in zip(x["responses"], y["responses"], strict=True)
    )
    assert same < 0.2 * 160
    assert np.mean([len(set(row["responses"])) for row in reference]) > 6  # of 8 samples
    twins = sample(model, tokenizer, [{"id": i, "question": PROMPTS[0]["question"]} for i in range(2)])
    assert sum(a == b for a, b in zip(twins[0]["responses"], twins[1]["responses"], strict=True)) < 4


def test_uniforms_are_uniform_and_unrelated():
    ids = [f"p{i}" for i in range(500)]
    samples = [k for k in range(4) for _ in ids]
    steps = np.stack([uniforms(row_keys(0, ids * 4, samples), t) for t in range(10)])
    assert steps.shape == (10, 2000) and steps.min() >= 0 and steps.max() < 1
    assert scipy.stats.kstest(steps.ravel(), "uniform").pvalue > 1e-3
    assert all(scipy.stats.kstest(row, "uniform").pvalue > 1e-4 for row in steps)
    assert len(np.unique(steps)) == steps.size
    bound = 4.5 / np.sqrt(2000)
    assert np.abs(np.corrcoef(steps)[~np.eye(10, dtype=bool)]).max() < bound  # between steps
    by_sample = np.corrcoef(steps[0].reshape(4, 500))[~np.eye(4, dtype=bool)]  # between samples
    by_seed = np.corrcoef(steps[0], uniforms(row_keys(1, ids * 4, samples), 0))[0, 1]
    assert np.abs(by_sample).max() < 4.5 / np.sqrt(500) and abs(by_seed) < bound


def test_uniforms_are_frozen():
    """These numbers decide every sampled text: a change here silently changes all results."""
    first = uniforms(row_keys(0, ["distill-00000", "distill-00001"], [0, 3]), 5)
    assert first.tolist() == [0.5340413237809755, 0.9106518695883579]


# --- what is drawn ------------------------------------------------------------------------------------------


def chi_square(counts, probability):
    """p-value of counts (vocab,) under probability (vocab,), words with few expected counts pooled."""
    expected = probability * counts.sum()
    often = expected >= 5
    observed = [*counts[often], counts[~often].sum()]
    wanted = [*expected[often], expected[~often].sum()]
    if wanted[-1] < 1e-9:
        assert observed[-1] == 0
        observed, wanted = observed[:-1], wanted[:-1]
    return scipy.stats.chisquare(observed, wanted).pvalue


def first_words(model, tokenizer, **changes):
    """How often each token opened 4,000 responses to one prompt; special tokens, which leave no text, count
    as one.
    """
    rows = sample(model, tokenizer, PROMPTS[:1], m=4000, max_new_tokens=1, **changes)
    special = tokenizer.eos_token_id
    ids = [tokenizer.convert_tokens_to_ids(text) if text else special for text in rows[0]["responses"]]
    return np.bincount(ids, minlength=len(tokenizer))


def merge_special(tokenizer, probability):
    merged, others = probability.copy(), [tokenizer.pad_token_id, tokenizer.unk_token_id]
    merged[tokenizer.eos_token_id] += merged[others].sum()
    merged[others] = 0
    return merged


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.6])
def test_tokens_follow_the_tempered_softmax(model, tokenizer, temperature):
    expected = merge_special(tokenizer, next_token_distribution(model, tokenizer, PROMPTS[0], temperature))
    counts = first_words(model, tokenizer, temperature=temperature)
    assert (counts > 0).sum() > 5
    assert chi_square(counts, expected) > 1e-3
    wrong = merge_special(tokenizer, next_token_distribution(model, tokenizer, PROMPTS[0], 1.3 * temperature))
    assert chi_square(counts, wrong) < 1e-3  # the test would notice another temperature


def test_top_p_keeps_the_nucleus_and_only_that(model, tokenizer):
    p = next_token_distribution(model, tokenizer, PROMPTS[0], 1.0)
    order = np.argsort(-p)
    size = int(np.searchsorted(np.cumsum(p[order]), 0.6)) + 1  # the smallest set that holds 0.6
    nucleus = np.zeros_like(p)
    nucleus[order[:size]] = p[order[:size]] / p[order[:size]].sum()
    counts = first_words(model, tokenizer, temperature=1.0, top_p=0.6)
    assert size < len(p) and counts[nucleus == 0].sum() == 0
    assert chi_square(counts, nucleus) > 1e-3


@pytest.mark.parametrize("u, allowed", [(1 - 2**-53, 39), (0.0, 10)])
def test_a_word_of_probability_zero_is_never_drawn(monkeypatch, u, allowed):
    """u just below 1 must not fall off the end of a cumulative sum that rounding left short of one."""
    scores = torch.full((1, 50), -torch.inf)
    scores[0, 10:40] = torch.randn(30, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("gracelib.models.decoding.uniforms", lambda keys, step: np.array([u]))
    sampler = KeyedSampler(np.zeros(1, dtype=np.uint64), 1, np.array([False]))
    out = sampler(torch.zeros(1, 1, dtype=torch.long), scores)
    assert out.argmax().item() == allowed and torch.isfinite(out).sum() == 1


def test_greedy_is_the_library_s_greedy(model, tokenizer):
    rows = sample(model, tokenizer, PROMPTS[:24], m=1, temperature=0.0)
    for row in rows:
        ids = torch.tensor(encode_questions(tokenizer, [row["question"]]))
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=16,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        assert row["responses"] == [tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)]


def test_truncated_responses_are_counted_and_are_prefixes(model, tokenizer, reference):
    """A response cut at 4 tokens is the beginning of the longer one, because each step has its own number."""
    cut, full = sample(model, tokenizer, PROMPTS[:30], max_new_tokens=4), reference[:30]
    n_cut = 0
    for short, long in zip(cut, full, strict=True):
        for a, b in zip(short["responses"], long["responses"], strict=True):
            assert a.split() == b.split()[:4]
        assert short["n_truncated"] == sum(len(text.split()) >= 4 for text in long["responses"])
        n_cut += short["n_truncated"]
    assert 0 < n_cut <= 240
    ended = sum(8 - row["n_truncated"] for row in reference)
    assert 0 < ended < 8 * len(reference)  # both kinds occur


def test_greedy_beside_samples_changes_neither(model, tokenizer, reference):
    """One call for both, because the passes are shared: the same texts as two calls give (rounding: see above)."""
    both = sample(model, tokenizer, greedy=True)
    alone = sample(model, tokenizer, m=1, temperature=0.0)
    assert all("greedy" not in row for row in reference)
    assert sum(a["greedy"] == b["responses"][0] for a, b in zip(both, alone, strict=True)) >= len(alone) - 1
    pairs = [p for a, b in zip(both, reference, strict=True) for p in zip(a["responses"], b["responses"], strict=True)]
    assert sum(a == b for a, b in pairs) >= 0.999 * len(pairs) and len(pairs) == 8 * len(PROMPTS)
    assert [row["n_truncated"] for row in both] == pytest.approx([row["n_truncated"] for row in reference], abs=1)
    top_p = sample(model, tokenizer, PROMPTS[:24], m=2, greedy=True, top_p=0.3)
    assert [row["greedy"] for row in top_p] == [row["greedy"] for row in both[:24]]


def test_the_greedy_accuracy_is_that_of_greedy_decoding(model, tokenizer, monkeypatch):
    """Not that of a sample, nor of another row. Right is what has a certain text, as this model never has the answer."""
    alone = sample(model, tokenizer, m=1, temperature=0.0)
    wanted = {p["id"]: row["responses"][0] for p, row in zip(PROMPTS, alone, strict=True)}
    prompts = [p | {"answer": p["id"] if i % 3 == 0 else "nobody"} for i, p in enumerate(PROMPTS)]
    for module in (accuracy, answers):
        monkeypatch.setattr(module, "is_correct", lambda response, answer: response == wanted.get(answer))
    found = accuracy.evaluate(model, tokenizer, prompts, k=4, seed=0, max_new_tokens=16)
    assert found["greedy"] == pytest.approx(1 / 3, abs=1.01 / len(prompts))  # a rounding may flip one text
    assert found["average"] < 0.25


def test_rows_that_ended_are_not_carried_along(model, tokenizer):
    """The passes over the model shrink while a batch is decoded, and every row still gets its own tokens."""
    rows_at_a_pass = []
    with model.register_forward_hook(lambda module, args, out: rows_at_a_pass.append(len(out.logits))):
        sample(model, tokenizer, PROMPTS[:1], m=64)
    assert rows_at_a_pass[0] == 64 and rows_at_a_pass == sorted(rows_at_a_pass, reverse=True)
    assert rows_at_a_pass[-1] <= 32  # half of them at least ended before the last step


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "olmo2", "gpt2", "phi3"])
def test_a_part_of_the_cache_is_enough_to_go_on(family, tmp_path):
    """Against one pass of the library over the whole batch, where a row's own uniform numbers choose its tokens: with
    windows that slide (Gemma) and without, a row's tokens do not depend on which neighbours have ended."""
    window = {"sliding_window": 10} if family == "gemma2" else {}
    checkpoint = make_checkpoint(tmp_path / family, family)
    network = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float64", **window).eval()
    prompts = torch.randint(3, 20, (40, 7), generator=torch.Generator().manual_seed(0))
    keys = row_keys(5, [str(i) for i in range(40)], [0] * 40)
    sampled = np.zeros(40, dtype=bool)
    stop = tuple(range(0, network.config.vocab_size, 8))  # an eighth of the tokens end a response of random weights
    read, embedding = [], network.get_input_embeddings()
    with torch.inference_mode():
        with embedding.register_forward_hook(lambda module, args, out: read.append(out.shape[1])):
            found = decode(
                network, prompts.tolist(), keys, temperature=1.0, max_new_tokens=24, stop=stop, greedy=sampled
            )
        network.generation_config = GenerationConfig()
        out = network.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            max_new_tokens=24,
            logits_processor=LogitsProcessorList([KeyedSampler(keys, 7, sampled)]),
            eos_token_id=list(stop),
            pad_token_id=stop[0],
        )[:, 7:].tolist()
    ends = [next((i + 1 for i, token in enumerate(row) if token in stop), 24) for row in out]
    assert read == [7, *[1] * (len(read) - 1)]  # a token a pass: nothing is read twice
    assert found == [row[:end] for row, end in zip(out, ends, strict=True)]
    assert len(set(ends)) > 8 and min(ends) <= 2 and max(ends) > 12


def test_a_model_whose_past_cannot_be_taken_apart_reads_again():
    """A state space model has no keys and values to leave out: the rows that go on are read once more."""
    torch.manual_seed(0)
    network = MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, state_size=4)).eval()
    network.generation_config = GenerationConfig()
    prompts, keys = [[5, 6, 7, i] for i in range(8, 24)], row_keys(0, list(map(str, range(16))), [0] * 16)
    settings = dict(temperature=1.0, max_new_tokens=20, stop=(1, 2, 3, 4))
    with torch.inference_mode():
        moved: list[float] = []
        together = decode(network, prompts, keys, greedy=np.zeros(16, dtype=bool), done=moved.append, **settings)
        alone = [
            decode(network, [prompt], keys[i : i + 1], greedy=np.array([False]), **settings)[0]
            for i, prompt in enumerate(prompts)
        ]
    assert together == alone and len({len(row) for row in together}) > 3
    assert sum(map(len, together)) / 20 <= sum(moved) <= 16 and len(moved) >= max(map(len, together))  # every token


def test_a_checkpoints_own_generation_defaults_are_not_applied(model, tokenizer, monkeypatch):
    """A hub model may ship a repetition penalty; what is sampled is the model at the stated temperature alone."""
    plain = sample(model, tokenizer, PROMPTS[:10])
    own = GenerationConfig(repetition_penalty=5.0, no_repeat_ngram_size=2)
    monkeypatch.setattr(model, "generation_config", own)
    assert sample(model, tokenizer, PROMPTS[:10]) == plain and model.generation_config is own
