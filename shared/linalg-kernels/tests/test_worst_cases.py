"""The worst of a million matrices of each operation, as `benchmarks/soak.py` found them.

`worst_cases.npz` is what `soak.py --keep 1 --worst` writes. Each matrix goes through every
operation alone and in a batch, by the library and by torch, and stays within what is stated.
"""

import importlib.util
import sys
from pathlib import Path

import linalg_kernels as lk
import numpy as np
import pytest
import torch
from linalg_kernels.backends import native

HERE = Path(__file__).parent
SOAK = HERE.parent / "benchmarks" / "soak.py"
CASES = np.load(HERE / "worst_cases.npz")
ROADS = ["torch", "native"] if native.available() else ["torch"]


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak_of_kernels", SOAK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("case", CASES.files)
def test_stays_within_what_is_stated(soak, case, road):
    A = torch.from_numpy(CASES[case])
    many = A.expand(2 * native.WIDEST, *A.shape).contiguous()
    with lk.backend(road):
        for batch in (A[None], many):
            for name, (errors, stated) in soak.check(batch).items():
                worst = float(torch.where(stated, errors, 0).max())
                assert worst <= 1, f"{name}: {worst:.3g} of the bound"
