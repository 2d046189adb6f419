import weakref

import pytest
import torch
from liebn import AffineInvariantGroup, LieBatchNorm, LogCholeskyGroup
from liebn.groups.diagonal import exp_diagonal
from liebn.groups.move import move
from linalg_kernels import cholesky, congruence, from_chol_log, powm
from linalg_kernels.testing import random_spd
from torch.autograd import gradcheck
from torch.testing import assert_close


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("steps", [1, None])
def test_layer(group, name, draw, differentiable, steps):
    """By finite differences, in input, bias and scale; statistics frozen or followed."""
    if name == "so4" or (steps is None and not differentiable):
        pytest.skip("slow, or the same as with one step")
    X = draw(4)
    n = X.shape[-1]
    layer = LieBatchNorm(
        group, n, dtype=torch.float64, karcher_steps=steps, differentiable=differentiable
    )
    if not differentiable:
        # With statistics that are constants, differences must see them constant too.
        layer(X)
        layer.eval()
    Z = 0.1 * torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = torch.tensor(-0.4, dtype=torch.float64)
    names = "parametrizations.bias.original", "parametrizations.scale.original"

    def call(V, bias, scale):
        # A perturbation that stays in the group: all of it is charted at E.
        near = group.chart_inverse(group.exp(tangent(group, V)))
        return torch.func.functional_call(layer, dict(zip(names, (bias, scale), strict=True)), near)

    V = group.log(group.chart(X))
    # steps=None stops at 1e-10, which differences divide by their own step.
    atol, rtol = (1e-4, 1e-3) if steps is None else (1e-5, 1e-3)
    leaves = [T.detach().requires_grad_() for T in (V, Z, z)]
    assert gradcheck(call, leaves, atol=atol, rtol=rtol)


def tangent(group, V):
    kind = type(group).__name__
    if kind == "RotationGroup":
        return (V - V.mT) / 2
    if "Cholesky" in kind and "Right" not in kind:
        return V.tril()
    return (V + V.mT) / 2


def test_training_uses_constant_statistics(group, draw):
    """The gradient in training is that of eval mode at the batch's own statistics."""
    X = draw(6).requires_grad_()
    layer = LieBatchNorm(group, X.shape[-1], momentum=1.0, dtype=torch.float64)
    G = torch.randn(X.shape, dtype=X.dtype, generator=torch.Generator().manual_seed(0))

    def gradients():
        layer.zero_grad()
        leaves = [X, *layer.parameters()]
        return torch.autograd.grad((G * layer(X)).sum(), leaves)

    trained = gradients()
    layer.eval()
    for found, expected in zip(trained, gradients(), strict=True):
        assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("channels", [(), (2,)])
def test_move_is_its_composition(channels):
    generator = torch.Generator().manual_seed(0)
    X = random_spd(5, *channels, 4, generator=generator).requires_grad_()
    K = cholesky(random_spd(*channels, 4, generator=generator)).requires_grad_()
    W = torch.linalg.inv(cholesky(random_spd(*channels, 4, generator=generator)))
    f = torch.rand(5, *channels, dtype=X.dtype, generator=generator).requires_grad_()
    fast = move(X, K, f, congruence.eigh(W, X))
    plain = K @ powm(W @ X @ W.mT, f) @ K.mT
    assert_close(fast, plain)
    G = torch.randn(X.shape, dtype=X.dtype, generator=generator)
    found, expected = (torch.autograd.grad((G * Y).sum(), (X, K, f)) for Y in (fast, plain))
    assert_close(found[0] + found[0].mT, expected[0] + expected[0].mT)
    assert_close(found[1].tril(), expected[1].tril())
    assert_close(found[2], expected[2])


def test_move_keeps_nothing_after_its_gradient():
    X = random_spd(6, 4).requires_grad_()
    K = cholesky(random_spd(4))
    S = congruence.eigh(torch.eye(4, dtype=X.dtype), X)
    kept = weakref.ref(S.w)
    Y = move(X, K, torch.ones(6, dtype=X.dtype), S)
    del S
    assert kept() is not None
    Y.sum().backward()
    assert kept() is None


def test_second_derivatives_are_refused():
    layer = LieBatchNorm(AffineInvariantGroup(), 3, dtype=torch.float64)
    X = random_spd(4, 3).requires_grad_()
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        torch.autograd.grad(layer(X).sum(), X, create_graph=True)


def test_second_derivatives_of_the_log_cholesky_group():
    layer = LieBatchNorm(LogCholeskyGroup(), 2, differentiable=True, dtype=torch.float64)
    X = random_spd(3, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda X: layer((X + X.mT) / 2), X)


def test_exponential_of_the_diagonal_is_its_composition():
    P = random_spd(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    G = torch.randn(P.shape, dtype=P.dtype, generator=torch.Generator().manual_seed(1))
    L = exp_diagonal(P / 50)
    Y, Z = L @ L.mT, from_chol_log(P / 50)
    assert_close(Y, Z)
    found, expected = (torch.autograd.grad((G * T).sum(), P) for T in (Y, Z))
    assert_close(found, expected)
