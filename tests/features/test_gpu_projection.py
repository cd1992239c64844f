"""The fused kernel gives the signs of the torch path, bit for bit: whole numbers project to the same whole numbers,
whatever the block, the edge, the 32-bit border, the number of rows.

Without a GPU the kernel's own code runs in Triton's interpreter, in a process that is told so before the first import,
and is compiled for two GPUs down to machine code; on a GPU the same cases run there.
"""

import importlib.util
import warnings

import pytest
import torch

from gracelib.features import gradients
from gracelib.projection import SignProjection, signs
from gradient_models import in_a_process

TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not TRITON, reason="triton is not installed: no kernel to run")
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available() or not TRITON, reason="no CUDA device: no kernel to run there"
)

# Responses, rows, elements, first element, split count, precision: below and above a tile in each, d not a multiple of
# 32, a last element alone, both 32-bit borders, more splits than tiles, and one split for many.
CASES = [
    (3, 40, 200, 5, 64, "tf32x3"),
    (17, 33, 129, 0, 2, "ieee"),
    (1, 1, 1, 2**40 + 3, 64, "tf32x3"),
    (2, 64, 128, 2**31 - 60, 1, "tf32x3"),
    (5, 100, 130, 2**32 - 50, 3, "ieee"),
    (130, 31, 65, 7, 1, "tf32x3"),
]


def check_cases(device):
    from gracelib.features.gpu_projection import TritonSignProjection

    def make(d, seed=4, **options):
        return TritonSignProjection(d, seed, device, **options)

    for B, d, n, start, splits, precision in CASES:
        case = f"{(B, d, n, start, splits, precision)}"
        g = torch.randint(-50, 51, (B, n + 3), generator=torch.Generator().manual_seed(n)).float()
        g = g[:, 1 : n + 1]  # rows apart from each other, not aligned
        exact = (g.double() @ signs(4, "w", start, start + n, d, torch.float64)).float() + 1
        # the interpreter keeps bfloat16 as 16-bit integers and multiplies those
        for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
            out = torch.ones(B, d, device=device)  # added to, not overwritten
            make(d, splits=splits, precision=precision).accumulate(out, "w", start, g.to(device, dtype))
            assert torch.equal(out.cpu(), exact), f"{case}, {dtype}"
        few = torch.zeros(B, max(1, d // 3), device=device)
        make(few.shape[1]).accumulate(few, "w", start, g.to(device))
        assert torch.equal(few.cpu(), exact[:, : few.shape[1]] - 1), f"{case}: fewer rows are not a prefix"
    out, other = (torch.zeros(3, 40, device=device) for _ in range(2))
    make(40, seed=5).accumulate(out, "w", 0, torch.ones(3, 64, device=device))
    make(40, seed=5).accumulate(other, "v", 0, torch.ones(3, 64, device=device))
    assert not torch.equal(out, other)
    g = torch.randn(4, 1000, generator=torch.Generator().manual_seed(1)) * 10.0 ** torch.arange(-6, -2)[:, None]
    exact = g.double() @ signs(4, "w", 9, 1009, 48, torch.float64)
    runs = []
    for _ in range(2):
        runs.append(torch.zeros(4, 48, device=device))
        make(48).accumulate(runs[-1], "w", 9, g.to(device))
    assert torch.equal(*runs), "two runs differ"
    assert ((runs[0].cpu() - exact).norm(dim=1) <= 2e-6 * exact.norm(dim=1)).all(), "not within float32's rounding"
    wide = torch.zeros(4, 48, dtype=torch.float64, device=device)  # float64 is the torch path's
    make(48).accumulate(wide, "w", 9, g.double().to(device))
    assert (wide.cpu() - exact).abs().max() < 1e-9
    for bad in (
        lambda: make(4).accumulate(torch.zeros(2, 4), "w", 0, torch.zeros(3, 5)),
        lambda: make(0),
        lambda: make(4, precision="tf32"),
    ):
        with pytest.raises(ValueError, match="accumulate|d >= 1|precision must be"):
            bad()


@needs_triton
def test_the_kernel_agrees_in_the_interpreter():
    code = "import test_gpu_projection as t; t.check_cases('cpu'); print('every case')"
    assert "every case" in in_a_process(code, TRITON_INTERPRET="1")


COMPILE = r"""
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gracelib.features import gpu_projection as t
for element, arch in (("fp32", 80), ("bf16", 90)):
    constants = dict(t._CONSTANTS, BLOCK_B=16, BLOCK_D=t._BLOCK_D, BLOCK_E=t._BLOCK_E, PRECISION="tf32x3")
    types = {name: "constexpr" if name in constants else "i32" for name in t._project.arg_names}
    types.update(grad="*" + element, row_keys="*i32", partial="*fp32", low="i64")
    made = triton.compile(ASTSource(fn=t._project, signature=types, constexprs=constants),
                          target=GPUTarget("cuda", arch, 32), options={"num_warps": 4})
    ptx = made.asm["ptx"]
    mma = {line.split()[0] for line in ptx.splitlines() if line.strip().startswith(("mma", "wgmma.mma"))}
    print(element, len(made.asm["cubin"]) > 1000, bool(re.search(r"(?m)^\s*(@\S+ )?(atom|red)[.]", ptx)), sorted(mma))
"""


@needs_triton
def test_the_kernel_compiles_for_a_gpu_that_is_not_there(tmp_path):
    """To machine code, with what the wheel brings; on the tensor cores, with float32 sums, without atomics."""
    lines = in_a_process(COMPILE, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0").splitlines()
    assert [line.split()[:3] for line in lines] == [["fp32", "True", "False"], ["bf16", "True", "False"]], lines
    assert ".f32.tf32.tf32.f32" in lines[0] and ".f32.bf16.bf16" in lines[1], lines


def test_a_cpu_never_takes_the_kernel(monkeypatch):
    monkeypatch.setattr(gradients, "kernel_fault", lambda device: pytest.fail("asked about a CPU"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(gradients.sign_projection(8, 0, torch.device("cpu"))) is SignProjection


def test_a_gpu_without_the_kernel_says_so(monkeypatch):
    monkeypatch.setattr(
        gradients, "kernel_fault", lambda device: "triton cannot be imported (No module named 'triton')"
    )
    with pytest.warns(UserWarning, match=r"signs are made by torch.*No module named 'triton'"):
        found = gradients.sign_projection(8, 0, torch.device("cuda"))
    assert type(found) is SignProjection and found.device.type == "cuda"


@needs_triton
def test_a_kernel_with_wrong_signs_is_found_before_it_is_used():
    """The check that every process makes once a device, with the kernel as it is, with one sign wrong, and failing."""
    code = """
import torch
from gracelib.features import gpu_projection as t
cpu = torch.device("cpu")
print(t.works_on(cpu))
launch = t.TritonSignProjection._launch
def wrong(self, out, *rest):
    launch(self, out, *rest)
    out[2, 17] += 2
t.TritonSignProjection._launch = wrong
print(t.works_on(cpu))
def fails(self, *rest):
    raise RuntimeError("no C compiler")
t.TritonSignProjection._launch = fails
print(t.works_on(cpu))
"""
    assert in_a_process(code, TRITON_INTERPRET="1").splitlines() == [
        "None",
        "its signs differ from the torch path's",
        "RuntimeError: no C compiler",
    ]


@needs_cuda
def test_the_kernel_agrees_on_the_device():
    check_cases("cuda")
    gradients.kernel_fault.cache_clear()
    assert type(gradients.sign_projection(8, 0, torch.device("cuda"))).__name__ == "TritonSignProjection"
