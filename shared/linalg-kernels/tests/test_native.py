import ctypes

import pytest
import torch
from linalg_kernels.backends import native

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())

DTYPES = [torch.float32, torch.float64]
ISAS = native.info().isas if native.available() else ()


def random_spd(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(*shape, shape[-1] + 3, dtype=dtype, generator=generator)
    return X @ X.mT


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13, 16, 22, 31, 64, 128])
def test_cholesky_agrees_with_torch(n, isa, dtype):
    A = random_spd(37, n, dtype=dtype)
    info = torch.full((37,), -7, dtype=torch.int32)
    with native.use_isa(isa):
        L, found = native.cholesky(A, info=info)
    assert found == 0
    assert (info == 0).all()
    assert torch.equal(L, L.tril())
    residual = (L.double() @ L.double().mT - A.double()).norm(dim=(-2, -1)) / A.double().norm(
        dim=(-2, -1)
    )
    assert residual.max() <= n * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_cholesky_of_a_bad_matrix_leaves_its_neighbours_alone(isa, dtype):
    A = random_spd(37, 9, dtype=dtype)
    info = torch.empty(37, dtype=torch.int32)
    with native.use_isa(isa):
        good, _ = native.cholesky(A)
        A[5, 3, 2] = float("nan")
        A[6, 8, 8] = float("inf")
        A[7, 4, 4] = -1.0
        L, found = native.cholesky(A, info=info)
    assert found == native.NOT_POSITIVE
    bad = [5, 6, 7]
    assert info[bad].tolist() == [4, 9, 5]
    assert L[bad].isnan().all()
    rest = [i for i in range(37) if i not in bad]
    assert torch.equal(L[rest], good[rest])
    assert (info[rest] == 0).all()


def test_a_stale_library_is_refused_with_its_reason(monkeypatch):
    monkeypatch.setattr(native.library, "ABI_VERSION", native.ABI_VERSION + 1)
    library, _, reason = native.library._load.__wrapped__()
    assert library is None
    assert f"interface version {native.ABI_VERSION}" in reason
    assert f"needs {native.ABI_VERSION + 1}" in reason


def test_a_wrong_isa_names_the_choices(monkeypatch):
    monkeypatch.setenv(native.ISA_VARIABLE, "mmx")
    with pytest.raises(ValueError, match=f"LINALG_KERNELS_ISA must be one of {ISAS[0]}.*'mmx'"):
        native.library._load.__wrapped__()


def test_the_environment_chooses_the_isa(monkeypatch):
    before = native.info().isa
    monkeypatch.setenv(native.ISA_VARIABLE, ISAS[-1])
    library, _, _ = native.library._load.__wrapped__()
    try:
        assert isinstance(library, ctypes.CDLL)
        assert native.info().isa == ISAS[-1]
    finally:
        native.library._select(library, before)
