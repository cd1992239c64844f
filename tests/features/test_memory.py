"""Memory: what is stated before a run holds for the run, and does not depend on how many responses there are.

Measured in a process of its own (the peak of a process never falls), beyond one backward pass over the same batch
whose weight gradients are freed as they appear. Stating too much would be easy to keep, so the statement may exceed
the measurement by a small factor only, and lies below what keeping one batch's gradients would take. The peak does not
grow with the responses, and is below weights + activations + 1.5 times the largest layer's batch of gradients.
"""

import json
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gracelib.features.batches import give_back
from gracelib.features.memory import peak_memory, plan_memory, reset_peak, size_of
from gracelib.projection import MIB
from gradient_models import in_a_process

RUN = """
import json
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from gracelib.features import batches as batching
from gracelib.bench.methods import random_examples
from gracelib.features.estimators import estimator
from gracelib.features.gradients import response_features
from gracelib.features.memory import one_backward, peak_memory, plan_memory
batching.GROUP_ROWS = int(sys.argv[1])
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=40000, hidden_size=320, intermediate_size=1280, num_hidden_layers=4,
                                     num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True)).eval()
examples = random_examples(32, 10, 20, 40000)
lengths = [len(x) + len(y) for x, y in examples]
for _ in range(2):
    one_backward(model, examples, 8 * max(lengths))
start, seen = peak_memory(), []
model.register_forward_hook(lambda *_: seen.append(peak_memory() - start))
# beside gradients of 8 responses
small = dict(batch_tokens=8 * max(lengths), block_bytes=16 << 20)
response_features(model, examples, d=32, device="cpu", progress=False, **small, **estimator(projection=sys.argv[2]))
plan = plan_memory(model, lengths, 32, projection=sys.argv[2], **small)
print(json.dumps({"seen": seen, "all": peak_memory() - start, "extra": plan.extra, "whole": plan.whole,
                  "weights": plan.weights, "rows": plan.rows}))
"""


def measured(code: str, *arguments) -> dict:
    return json.loads(in_a_process(code, *arguments).splitlines()[-1])


@pytest.mark.parametrize(
    "together, filled", [(8, 4 + 2), (16, 4 + 3)], ids=["batch by batch", "three batches together"]
)
def test_the_measured_extra_stays_below_the_stated(together, filled):
    """A student of 19 million parameters; `seen` is the peak so far at each forward pass: three of the check against
    plain autograd, one of one token that asks what its modules are given, then one a batch.
    By the pass `filled`, two groups of one batch or one of three are done."""
    m = measured(RUN, together, "signs")
    assert len(m["seen"]) >= 4 + 4 and together <= m["rows"] <= together + 2
    # The plan promises a plain backward pass its room, logits included; these (a vocabulary of 40,000) are made again.
    assert 0 < m["all"] <= m["extra"] <= 5 * m["all"], m
    assert m["extra"] < 0.6 * m["whole"] and m["whole"] == m["rows"] * m["weights"], m
    # The signs that are kept are there by then; later ones add what the allocator scatters, not gradients.
    assert m["all"] - m["seen"][filled] < 0.1 * m["whole"], m


def test_a_cheaper_projection_keeps_no_signs_of_every_element():
    """So its plan is less than half of that with signs, and holds: the check against autograd needs most."""
    m = measured(RUN, 8, "sjlt")
    assert m["all"] <= m["extra"] < 0.25 * m["whole"], m


# 256 MiB of kept signs are not gradients: the largest layer here (a tied embedding of 13 million numbers, 400 MiB for a
# batch of 8) is large enough that the bound would not hold if they and a whole batch of gradients were there.
MANY = """
import json, sys
import torch
from gracelib.bench.methods import random_examples, random_student
from gracelib.features.gradients import response_features
from gracelib.features.memory import one_backward, peak_memory
n = int(sys.argv[1])
model = random_student(width=320, layers=3, heads=4, intermediate=640, vocabulary=40000)
examples = random_examples(8, 10, 20, 40000) * (n // 8)    # the same eight again: the same batches
tokens = 8 * max(len(x) + len(y) for x, y in examples)
for _ in range(2):
    one_backward(model, examples, tokens)
before = peak_memory()
features = response_features(model, examples, d=32, batch_tokens=tokens, device="cpu", progress=False)
largest = max(p.numel() for p in model.parameters())
print(json.dumps({"beyond": peak_memory() - before, "largest": 4 * 8 * largest, "results": features["g"].nbytes,
                  "whole": 4 * 8 * sum(p.numel() for p in model.parameters())}))
"""


def test_the_peak_is_bounded_by_the_largest_layer_and_does_not_grow():
    few, many = measured(MANY, 8), measured(MANY, 32)
    for m in (few, many):
        assert 0 < m["beyond"] < 1.5 * m["largest"], (few, many)
    # four times the responses: less than a fifth of one more batch of gradients
    assert many["beyond"] - few["beyond"] < 0.2 * few["whole"], (few, many)


def student(tied=True, **shape):
    shape = {
        **dict(
            vocab_size=128256,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=64,
        ),
        **shape,
    }
    with torch.device("meta"):  # no weight is made: planning needs shapes only
        return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=tied))


def test_a_plan_needs_no_weights_and_grows_with_nothing_but_the_results():
    """Llama-3.2-1B's shape, D = 1,235,814,400."""
    model = student()
    few, many = (plan_memory(model, [256] * n, 512, 8192, device="cuda") for n in (256, 2048))
    assert few.weights == many.weights == 4 * 1_235_814_400 and few.rows == 32 and few.tokens == 8192
    assert many.extra - few.extra == (2048 - 256) * (512 * 4 + 72 + 256 * 13)
    assert many.whole == 32 * 4 * 1_235_814_400 and many.extra < many.whole / 10
    half = plan_memory(model, [256] * 256, 512, 8192, device="cuda", dtype="bfloat16")
    assert half.weights == 2 * 1_235_814_400 and "widened factors" in half.parts
    assert "weights 4.6 GiB; beyond them" in str(many) and "would take 147.3 GiB" in str(many)


def test_cheaper_choices_are_planned_too():
    model = student(num_hidden_layers=2, vocab_size=1000)
    every, last, lora = (plan_memory(model, [64] * 8, 64, 512, params=p) for p in ("all", "last-layer", "lora-b"))
    assert last.extra < every.extra and lora.extra < every.extra and "adapters" in lora.parts
    assert last.whole == 8 * 4 * 1000 * 2048
    sjlt = plan_memory(model, [64] * 8, 64, 512, projection="sjlt")
    assert sjlt.extra < every.extra and "signs" not in sjlt.parts
    untied = plan_memory(student(False, num_hidden_layers=2, vocab_size=1000), [64] * 8, 64, 512)
    assert untied.extra < every.extra and "gradient of a tied head's logits" not in untied.parts
    with pytest.raises(ValueError, match="projection must be one of signs, sjlt, got 'sjtl'"):
        plan_memory(model, [64] * 8, 64, projection="sjtl")


def test_the_largest_tensor_is_stated_where_the_check_needs_more_than_the_run():
    plan = plan_memory(student(num_hidden_layers=1), [16], 1, 16, block_bytes=MIB)
    assert plan.parts["largest tensor's gradient, in the first check"] > 0
    assert plan.extra >= 3 * 4 * 128256 * 2048


def test_the_peak_is_measured():
    give_back()  # or the 64 MiB are made of what other tests freed
    reset_peak()
    before = peak_memory()
    torch.ones(64 * MIB // 4).sum()
    after = peak_memory()
    assert 60 * MIB < after - before < 200 * MIB
    give_back()  # the features of other tests have told the process to keep what is freed
    if reset_peak():
        assert peak_memory() < after - 32 * MIB
    assert [size_of(x) for x in (12, 2048, 3 << 19, 5 << 30)] == ["12 bytes", "2.0 KiB", "1.5 MiB", "5.0 GiB"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: no GPU memory to measure")
def test_the_peak_is_measured_on_cuda():
    reset_peak("cuda")
    before = peak_memory("cuda")
    torch.ones(64 * MIB // 4, device="cuda").sum()
    assert 64 * MIB <= peak_memory("cuda") - before < 80 * MIB


# --- freed memory stays with the process that makes features, and goes back when it is asked to ------------------

AGAIN = """
import resource, sys
import torch
from gracelib.bench.methods import random_examples, student_of
from gracelib.features import batches, gradients
if sys.argv[1] == "as it was":
    gradients.keep_freed = lambda: None
torch.set_num_threads(1)
student, examples = student_of(300_000), random_examples(256, 20, 100, 160)

def faults_of(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def features():
    gradients.response_features(student, examples, d=64, device="cpu", progress=False)

features()
again = sorted(faults_of(features) for _ in range(3))[1]
batches.give_back()
print(again, faults_of(features))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems is not told")
def test_a_second_call_uses_the_memory_of_the_first():
    """Pages asked of the system by a later call (median of three: where the heap ends up is chance), and by one after
    everything was given back."""
    (kept, after), (before, _) = (map(int, in_a_process(AGAIN, how).split()) for how in ("kept", "as it was"))
    assert kept < before / 10, (kept, before)
    assert after > 10 * kept, (after, kept)  # given back, and asked for again
