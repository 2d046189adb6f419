"""Inputs, oracles and checks for tests of functions of matrices.

Needs `mpmath` (for the oracle) beside the package's own requirements.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck


def orthogonal(
    *shape: int, dtype: torch.dtype = torch.float64, generator: torch.Generator | None = None
) -> Tensor:
    """Random orthogonal (unitary) matrices (*shape, n, n); `shape` ends in n."""
    Q, _ = torch.linalg.qr(torch.randn(*shape, shape[-1], dtype=dtype, generator=generator))
    return Q


def with_spectrum(w: Tensor | Sequence[Any], V: Tensor) -> Tensor:
    """V diag(w) V^H, exactly Hermitian; `w` is (..., n)."""
    w = torch.as_tensor(w, dtype=V.real.dtype if V.is_complex() else V.dtype)
    A = (V * w[..., None, :]) @ V.mH
    return (A + A.mH) / 2


def random_spd(
    *shape: int,
    cond: float = 100.0,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random Hermitian positive definite matrices (*shape, n, n), eigenvalues 1 … cond."""
    n = shape[-1]
    real = torch.empty(0, dtype=dtype).real.dtype if dtype.is_complex else dtype
    w = torch.logspace(0, torch.log10(torch.tensor(cond)).item(), n, dtype=real)
    return with_spectrum(w, orthogonal(*shape, dtype=dtype, generator=generator))


def relative_error(F: Tensor, exact: Tensor) -> float:
    """Largest ‖F - exact‖_F / ‖exact‖_F over the batch, in units of F's rounding."""
    error = torch.linalg.matrix_norm(F.to(exact.dtype) - exact)
    eps = torch.finfo(F.dtype).eps
    return float((error / torch.linalg.matrix_norm(exact)).max()) / eps


def _rounded(F: Any, n: int) -> Tensor:
    return torch.tensor([[float(F[i, j]) for j in range(n)] for i in range(n)], dtype=torch.float64)


def exact_function(A: Tensor, f: Callable[[Any], Any], digits: int = 60) -> Tensor:
    """f(A) of one real symmetric matrix to `digits` digits by mpmath, rounded to float64.

    The entries of A are taken as they are, so the result has no error but the last rounding.
    """
    import mpmath

    with mpmath.workdps(digits):
        n = A.shape[-1]
        exact = mpmath.matrix([[mpmath.mpf(float(a)) for a in row] for row in A])
        w, V = mpmath.eigsy((exact + exact.T) / 2)
        F = V * mpmath.diag([f(x) for x in w]) * V.T
        return _rounded(F, n)


def exact_frechet(
    A: Tensor, E: Tensor, f: Callable[[Any], Any], df: Callable[[Any], Any], digits: int = 60
) -> Tensor:
    """Df(A)[E] of real symmetric matrices by mpmath, as `exact_function`."""
    import mpmath

    with mpmath.workdps(digits):
        n = A.shape[-1]
        a = mpmath.matrix([[mpmath.mpf(float(x)) for x in row] for row in A])
        e = mpmath.matrix([[mpmath.mpf(float(x)) for x in row] for row in E])
        w, V = mpmath.eigsy((a + a.T) / 2)
        inner = V.T * ((e + e.T) / 2) * V
        tie = mpmath.mpf(10) ** (-digits * 2 // 3) * max(abs(x) for x in w)
        for i in range(n):
            for j in range(n):
                gap = w[i] - w[j]
                inner[i, j] *= df(w[i]) if abs(gap) < tie else (f(w[i]) - f(w[j])) / gap
        D = V * inner * V.T
        return _rounded(D, n)


def check_grad(fn: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """Reverse mode against finite differences, alone and batched over cotangents."""
    assert gradcheck(fn, _leaves(inputs), check_batched_grad=True)


def check_gradgrad(fn: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """Second derivatives against finite differences, reverse over reverse and forward over it."""
    assert gradgradcheck(fn, _leaves(inputs), check_fwd_over_rev=True)


def check_forward_mode(
    fn: Callable[..., Any], inputs: Sequence[Tensor], batched: bool = True
) -> None:
    """Forward mode against finite differences, alone and `batched` over tangents."""
    assert gradcheck(
        fn,
        _leaves(inputs),
        check_forward_ad=True,
        check_backward_ad=False,
        check_batched_forward_grad=batched,
        check_undefined_grad=False,
        check_batched_grad=False,
    )


def check_vmap(fn: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """torch.func.vmap over the leading dimension against a loop, also of the derivative."""
    looped = [fn(*(x[i] for x in inputs)) for i in range(inputs[0].shape[0])]
    expected = [torch.stack(outs) for outs in zip(*map(outputs, looped), strict=True)]
    for got, want in zip(outputs(torch.func.vmap(fn)(*inputs)), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    moved = [x.movedim(0, -1) for x in inputs]
    again = torch.func.vmap(fn, in_dims=-1)(*moved)
    for got, want in zip(outputs(again), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)

    def loss(*args: Tensor) -> Tensor:
        return torch.stack([(_magnitude(x) ** 2).sum() for x in outputs(fn(*args))]).sum()

    wanted = torch.stack(
        [torch.func.grad(loss)(*(x[i] for x in inputs)) for i in range(inputs[0].shape[0])]
    )
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(loss))(*inputs), wanted, rtol=1e-9, atol=1e-10
    )


def check_func(fn: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """torch.func.jacrev, jacfwd and hessian agree with each other."""

    def loss(*args: Tensor) -> Tensor:
        return torch.stack([(_magnitude(x) ** 2).sum() for x in outputs(fn(*args))]).sum()

    rev = torch.func.jacrev(loss)(*inputs)
    fwd = torch.func.jacfwd(loss)(*inputs)
    torch.testing.assert_close(rev, fwd, rtol=1e-8, atol=1e-9)
    nested = torch.func.jacrev(torch.func.jacrev(loss))(*inputs)
    torch.testing.assert_close(torch.func.hessian(loss)(*inputs), nested, rtol=1e-7, atol=1e-8)


def check_compile(fn: Callable[..., Any], inputs: Sequence[Tensor], backend: str) -> None:
    """torch.compile(fullgraph=True) gives the eager value and gradient."""
    torch._dynamo.reset()
    compiled = torch.compile(fn, fullgraph=True, backend=backend)
    for got, want in zip(
        _with_gradients(compiled, inputs), _with_gradients(fn, inputs), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


def check_export(fn: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """torch.export gives a program with the eager value."""

    class Program(torch.nn.Module):
        def forward(self, *args: Tensor) -> Any:
            return fn(*args)

    inputs = tuple(x.detach() for x in inputs)
    program = torch.export.export(Program(), inputs).module()
    for got, want in zip(outputs(program(*inputs)), outputs(fn(*inputs)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


def _leaves(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.detach().clone().requires_grad_() for x in inputs)


def outputs(out: Any) -> list[Tensor]:
    """The tensors that an operation returns."""
    return [out] if isinstance(out, Tensor) else [x for x in out if isinstance(x, Tensor)]


def _magnitude(x: Tensor) -> Tensor:
    return x.real**2 + x.imag**2 if x.is_complex() else x


def _with_gradients(fn: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    leaves = _leaves(inputs)
    values = [x for x in outputs(fn(*leaves)) if x.is_floating_point() or x.is_complex()]
    total = torch.stack([(_magnitude(x) ** 2).sum() for x in values]).sum()
    return [x.detach() for x in values] + list(torch.autograd.grad(total, leaves))
