"""The benchmark of a large student on a GPU: refused in one line where there is none, and its code runs on the CPU at a
tiny shape, so that it is known to run before somebody lends a GPU to it.
"""

import json

import numpy as np
import pytest
import torch

from gracelib.bench import cuda


def test_the_code_path_runs_and_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path))
    result = cuda.main("--shape tiny --n 6 --d 8 --batch-tokens 600 --device cpu".split())
    (path,) = (tmp_path / "bench").iterdir()
    assert path.name == "tiny_all_float32_cpu.json" and json.loads(path.read_text("utf-8")) == result
    assert result["seconds"] > 0 and result["peak_bytes"] >= result["weight_bytes"] == 4 * result["parameters"]
    assert result["responses"] == 6 and result["extra_bytes_stated"] == sum(result["extra_parts_stated"].values())
    out = capsys.readouterr().out
    assert "6 responses" in out and "the paper: about 10 minutes on one H100" in out and "written to bench/tiny" in out


def test_the_shape_and_the_lengths_are_those_of_the_paper():
    with torch.device("meta"):
        model = cuda.random_llama("llama-3.2-1b", "float32", "meta")
    assert sum(p.numel() for p in model.parameters()) == 1_235_814_400
    responses = np.array([len(y) for _, y in cuda.gsm8k_examples(2048, 50)])
    assert 115 < np.median(responses) < 130 and 190 < np.quantile(responses, 0.9) < 230
    assert cuda.random_llama("tiny", "bfloat16", "cpu").dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device: nothing to refuse")
def test_no_gpu_is_said(capsys):
    with pytest.raises(SystemExit) as stopped:
        cuda.main([])
    assert stopped.value.code == 2 and "no CUDA device is present; `make bench`" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the full size is measured on one")
def test_a_billion_parameters_on_cuda():
    """Llama-3.2-1B's shape, 2,048 responses, d = 512: what was stated holds, and the result is written down."""
    result = cuda.main([])
    assert result["extra_bytes_measured"] <= result["extra_bytes_stated"]
