"""Kernels compiled for GPUs that need not be there: nothing on the stack, registers in budget.

The whole table is what `benchmarks/gpu_compile.py` prints.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from linalg_kernels.backends import gpu

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_compile.py"

pytestmark = pytest.mark.skipif(not gpu._installed(), reason="no Triton")


def table(out, *arguments):
    """Rows of the script, in a process of its own: kernels that are interpreted do not compile."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    # Kernels are compiled here, not found as another run left them.
    environment["TRITON_CACHE_DIR"] = str(out.parent / "cache")
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode in (0, 1), result.stderr
    return json.loads(out.read_text())["rows"], result


def assert_within_budget(rows):
    for row in rows:
        assert row["stack"] == 0, row
        assert row["registers"] <= 128, row
        assert row["met"], row


def test_a_few_kernels_fit_both_architectures(tmp_path):
    kernels = ["log", "of power"]
    rows, result = table(
        tmp_path / "rows.json", "--orders", "8", "--dtypes", "float64", "--only", *kernels
    )
    assert [(row["kernel"], row["architecture"]) for row in rows] == [
        (kernel, sm) for kernel in kernels for sm in ("sm_80", "sm_90")
    ]
    assert_within_budget(rows)
    assert result.returncode == 0
    assert "4 of 4 compiled kernels within their budget" in result.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("n", [8, 16, 32])
def test_every_kernel_fits(n, tmp_path):
    rows, _ = table(tmp_path / "rows.json", "--orders", str(n))
    assert {row["dtype"] for row in rows} == {"float32", "float64"}
    assert_within_budget(rows)
