"""What a native forward pass leaves for its backward pass, and when that is not used."""

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels.backends import native
from linalg_kernels.testing import random_spd

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())

DTYPES = [torch.float32, torch.float64]
ISAS = native.info().isas if native.available() else ()
LOG = native.Function(native.LOG)
SHAPES = [(1, 1), (3, 2, 3), (19, 4), (33, 7), (2, 64), (9, 128)]


def matrices(*shape, dtype=torch.float64, seed=0):
    return random_spd(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_numbers_packed_and_apart(shape, isa, dtype):
    A = matrices(*shape, dtype=dtype)
    E = torch.randn(A.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    with native.use_isa(isa):
        F, w, V, _ = native.spectral(A, LOG)
        value, packed, found = native.spectral_packed(A, LOG, True, 0.02)
        assert found == 0
        assert torch.equal(value, F)
        assert torch.equal(native.spectral_value(A, LOG, True, 0.02)[0], F)
        for got, wanted in zip(native.unpack(packed, A.shape), (w, V), strict=True):
            assert torch.equal(got, wanted)
        D = native.frechet_packed(packed, E, LOG)
        assert torch.equal(D, native.frechet(w, V, E, LOG))
        assert torch.equal(native.frechet_packed(native.pack(w, V), E, LOG), D)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bad_matrix_leaves_its_neighbours_alone(dtype):
    A = matrices(37, 5, dtype=dtype)
    E = torch.ones_like(A)
    good, packed, _ = native.spectral_packed(A, LOG, True, 0.02)
    wanted = native.frechet_packed(packed, E, LOG)
    A[3, 1, 2] = float("nan")
    F, packed, found = native.spectral_packed(A, LOG, True, 0.02)
    D = native.frechet_packed(packed, E, LOG)
    rest = [i for i in range(37) if i != 3]
    assert found == native.NOT_FINITE
    assert F[3].isnan().all()
    assert D[3].isnan().all()
    assert torch.equal(F[rest], good[rest])
    assert torch.equal(D[rest], wanted[rest])


FUNCTIONS = {
    "logm": lk.logm,
    "distance": lambda A: lk.pencil_log_norm(A, A.flip(0)),
    "square": lambda A: lk.pencil_log_square(A.flip(0), A),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("isa", ISAS)
def test_another_instruction_set_in_backward(name, isa):
    A = matrices(21, 4).requires_grad_()
    (wanted,) = torch.autograd.grad(FUNCTIONS[name](A).square().sum(), A)
    F = FUNCTIONS[name](A)
    with native.use_isa(isa):
        (gA,) = torch.autograd.grad(F.square().sum(), A)
    torch.testing.assert_close(gA, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_choice_in_backward(name, monkeypatch):
    A = matrices(21, 4).requires_grad_()
    F = FUNCTIONS[name](A).square().sum()
    (wanted,) = torch.autograd.grad(F, A, retain_graph=True)

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(native.library, "call", refuse)
    with lk.backend("torch"):
        (gA,) = torch.autograd.grad(F, A)
    torch.testing.assert_close(gA, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tangents_that_appear_only_in_backward(name):
    """Forward mode over a reverse pass that was recorded before it began."""
    A = matrices(3, 4).requires_grad_()
    F = FUNCTIONS[name](A)
    G, dG = torch.randn(2, *F.shape, dtype=A.dtype, generator=torch.Generator().manual_seed(2))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(G, dG)
        (gA,) = torch.autograd.grad(F, A, dual, retain_graph=True)
        tangent = torch.autograd.forward_ad.unpack_dual(gA).tangent
    torch.testing.assert_close(tangent, torch.autograd.grad(F, A, dG)[0])


def test_saved_tensors_may_be_moved():
    A = matrices(21, 4).requires_grad_()
    (wanted,) = torch.autograd.grad(lk.logm(A).square().sum(), A)

    def misplace(T):
        room = torch.empty(T.numel() + 1, dtype=T.dtype)[1:].view(T.shape)
        assert room.data_ptr() % 64
        return room.copy_(T)

    with torch.autograd.graph.saved_tensors_hooks(misplace, lambda T: T):
        F = lk.logm(A).square().sum()
    (gA,) = torch.autograd.grad(F, A)
    torch.testing.assert_close(gA, wanted, rtol=1e-12, atol=1e-12)
