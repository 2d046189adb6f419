"""The benchmark of the kernels: as far as it goes without a GPU, and all of it on one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from linalg_kernels.backends import gpu

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
# What rows of `speed.py` have as well.
FIELDS = {"label", "metric", "value", "unit", "better", "low", "high", "error", "peer_error"}
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def run(out, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
def test_dry_run(tmp_path):
    out = tmp_path / "rows.json"
    chosen = ("--orders", "2", "--only", "logm + gradient", "remove_rank1")
    result = run(out, "--dry-run", *chosen, TRITON_INTERPRET="1")
    assert result.returncode == 0, result.stderr
    assert "speed not measured" in result.stdout
    told = json.loads(out.read_text())
    assert told["question"].startswith("How much faster are small matrices on a GPU")
    assert len(told["rows"]) == 4
    for row in told["rows"]:
        assert set(row) >= FIELDS
        assert row["dry_run"]
        assert row["error"] < (1e-4 if "float32" in row["label"] else 1e-12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
def test_dry_run_of_everything(tmp_path):
    result = run(tmp_path / "rows.json", "--dry-run", TRITON_INTERPRET="1")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_no_gpu_is_said(tmp_path):
    result = run(tmp_path / "rows.json", CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 0, result.stderr
    assert "skipped: there is no GPU" in result.stdout


@pytest.mark.gpu
@on_gpu
def test_whole_comparison(tmp_path):
    out = tmp_path / "rows.json"
    result = run(out, "--batch", "4096", "--orders", "8", "32", "33")
    assert result.returncode == 0, result.stderr
    for row in json.loads(out.read_text())["rows"]:
        assert row["error"] < (1e-3 if "float32" in row["label"] else 1e-11), row


@pytest.mark.gpu
@on_gpu
def test_a_large_batch_on_a_stream_of_its_own():
    """On the current stream, in a CUDA graph, and as torch has it."""
    X = torch.randn(10_000, 22, 44, device="cuda", dtype=torch.float64)
    A = X @ X.mT / 22
    operators = gpu.operators()
    w, _, found = operators.eigh(A, True, 0.02)
    assert not found.any()
    torch.testing.assert_close(w, torch.linalg.eigvalsh(A), rtol=1e-10, atol=1e-10)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        operators.eigh(A, True, 0.02)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        captured, *_ = operators.eigh(A, True, 0.02)
    A.mul_(2)
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(captured, 2 * w)
