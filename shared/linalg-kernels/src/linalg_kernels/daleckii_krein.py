"""Autograd of spectral functions F = V f(w) V^H.

The derivative is dF = V (f[w_i, w_j] ∘ V^H dA V) V^H (Daleckii and Krein), which is its own
adjoint; the derivatives of that are built in the same way from second and third divided
differences.
Nothing here differentiates eigenvectors, so repeated eigenvalues are ordinary points.

Every rule is an `autograd.Function` with reverse mode, forward mode and a vmap rule. Dynamo
cannot trace a Function that defines `jvp`, so each has a twin without one that is used while
a graph is traced; the Functions differ in nothing else. Where only a gradient of f(A) is asked for,
`spectral_eager` is a shorter road.

`w` (in any order) and `V` are the eigensystem of A and constants to autograd: A alone carries
derivatives.
"""

import torch
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import select
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision
from linalg_kernels.scalar import ScalarFunction
from linalg_kernels.transforms import (
    Rule,
    batch_first,
    needs_rule,
    transformed,
)


def _inner(G: Tensor, F: Tensor) -> Tensor:
    """Re tr(G^H F), one number a matrix."""
    return (G.conj() * F).real.sum((-2, -1))


def _add(x: Tensor | None, y: Tensor) -> Tensor:
    return y if x is None else x + y


# --- F = f(A) -------------------------------------------------------------------------------


def compute(
    A: Tensor,
    p: Tensor | None,
    fn: ScalarFunction,
    symmetrize: bool,
    check: bool,
    positive: bool,
    name: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """f(A), w and V without derivatives."""
    F, w, V = select.spectral(A, p, fn, symmetrize, check, name)
    if positive and errors.can_read(A, asked=True):
        remedy = "add shrinkage, or pass nonpos='clamp' with eps"
        errors.check_positive(w, name, fn.name, remedy)
    return F, w, V


class _Spectral(Rule):
    """(A, p) -> (F, w, V); w and V are not differentiable outputs."""

    @staticmethod
    def forward(A, p, fn, symmetrize, check, positive, name):
        return compute(A, p, fn, symmetrize, check, positive, name)

    @staticmethod
    def setup_context(ctx, inputs, output):
        A, p, fn, *_ = inputs
        _, w, V = output
        ctx.mark_non_differentiable(w, V)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(A, p, w, V)
        ctx.save_for_forward(A, p, w, V)
        ctx.fn = fn

    @staticmethod
    @full_precision
    def backward(ctx, G, _w, _V):
        if G is None:
            return (None,) * 7
        return *evaluate_vjp(ctx, G), None, None, None, None, None

    @staticmethod
    def vmap(info, dims, A, p, fn, symmetrize, check, positive, name):
        A, p = batch_first(info.batch_size, dims[:2], (A, p))
        return spectral(A, p, fn, symmetrize, check, positive, name), (0, 0, 0)


class _SpectralEager(_Spectral):
    @staticmethod
    def jvp(ctx, dA, dp, *_):
        return _evaluate_jvp(ctx, dA, dp), None, None


def spectral(
    A: Tensor,
    p: Tensor | None,
    fn: ScalarFunction,
    symmetrize: bool = True,
    check: bool = True,
    positive: bool = False,
    name: str = "A",
) -> tuple[Tensor, Tensor, Tensor]:
    """F = f(A) with its derivatives, and the constants w, V. `p` has the batch shape of A."""
    if not needs_rule(A, p):
        return compute(A, p, fn, symmetrize, check, positive, name)
    rule = _Spectral if torch.compiler.is_compiling() else _SpectralEager
    return rule.apply(A, p, fn, symmetrize, check, positive, name)


class _Accurate(Rule):
    """A -> (w, V) to high relative accuracy, constants to autograd."""

    @staticmethod
    def forward(A, symmetrize, check, name):
        return select.eigh_positive(A, symmetrize, check, name)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx, *_):  # noqa: ARG004
        return None, None, None, None

    @staticmethod
    def vmap(info, dims, A, symmetrize, check, name):
        (A,) = batch_first(info.batch_size, dims[:1], (A,))
        return accurate_eigensystem(A, symmetrize, check, name), (0, 0)


class _AccurateEager(_Accurate):
    @staticmethod
    def jvp(ctx, *_):  # noqa: ARG004
        return None, None


def accurate_eigensystem(
    A: Tensor, symmetrize: bool = True, check: bool = True, name: str = "A"
) -> tuple[Tensor, Tensor]:
    """w and V of positive definite A for `evaluate`, small w as accurate as large ones."""
    if not transformed():
        with torch.no_grad():
            return select.eigh_positive(A.detach(), symmetrize, check, name)
    rule = _Accurate if torch.compiler.is_compiling() else _AccurateEager
    return rule.apply(A, symmetrize, check, name)


class _Evaluate(Rule):
    """As `_Spectral`, from an eigensystem that is already known."""

    @staticmethod
    def forward(_A, p, w, V, fn):
        return select.evaluate(w, V, p, fn)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        A, p, w, V, fn = inputs
        ctx.save_for_backward(A, p, w, V)
        ctx.save_for_forward(A, p, w, V)
        ctx.fn = fn

    @staticmethod
    @full_precision
    def backward(ctx, G):
        gA, gp = evaluate_vjp(ctx, G)
        return gA, gp, None, None, None

    @staticmethod
    def vmap(info, dims, A, p, w, V, fn):
        A, p, w, V = batch_first(info.batch_size, dims[:4], (A, p, w, V))
        return evaluate(A, p, w, V, fn), 0


class _EvaluateEager(_Evaluate):
    @staticmethod
    def jvp(ctx, dA, dp, *_):
        return _evaluate_jvp(ctx, dA, dp)


def evaluate(A: Tensor, p: Tensor | None, w: Tensor, V: Tensor, fn: ScalarFunction) -> Tensor:
    """f(A) with its derivatives, from A = V diag(w) V^H."""
    rule = _Evaluate if torch.compiler.is_compiling() else _EvaluateEager
    return rule.apply(A, p, w, V, fn)


def evaluate_vjp(ctx, G: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Gradients with respect to A and p, from A, p, w, V that a rule has saved, and its fn."""
    A, p, w, V = ctx.saved_tensors
    gA = frechet(A, G, p, w, V, ctx.fn) if ctx.needs_input_grad[0] else None
    gp = None
    if p is not None and ctx.needs_input_grad[1]:
        gp = _inner(G, evaluate(A, p, w, V, ctx.fn.by_exponent()))
    return gA, gp


@full_precision
def _evaluate_jvp(ctx, dA: Tensor | None, dp: Tensor | None) -> Tensor | None:
    A, p, w, V = ctx.saved_tensors
    dF = None
    if dA is not None:
        dF = frechet(A, dA, p, w, V, ctx.fn)
    if dp is not None:
        dF = _add(dF, dp[..., None, None] * evaluate(A, p, w, V, ctx.fn.by_exponent()))
    return dF


# --- DF = Df(A)[E] --------------------------------------------------------------------------


class _Frechet(Rule):
    """(A, E, p) -> Df(A)[E]."""

    @staticmethod
    def forward(_A, E, p, w, V, fn):
        return select.frechet(w, V, E, p, fn)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        A, E, p, w, V, fn = inputs
        ctx.save_for_backward(A, E, p, w, V)
        ctx.save_for_forward(A, E, p, w, V)
        ctx.fn = fn

    @staticmethod
    @full_precision
    def backward(ctx, G):
        A, E, p, w, V = ctx.saved_tensors
        gA = gE = gp = None
        if ctx.needs_input_grad[0]:
            gA = frechet2(A, E, G, p, w, V, ctx.fn)
        if ctx.needs_input_grad[1]:
            gE = frechet(A, G, p, w, V, ctx.fn)
        if p is not None and ctx.needs_input_grad[2]:
            gp = _inner(G, frechet(A, E, p, w, V, ctx.fn.by_exponent()))
        return gA, gE, gp, None, None, None

    @staticmethod
    def vmap(info, dims, A, E, p, w, V, fn):
        A, E, p, w, V = batch_first(info.batch_size, dims[:5], (A, E, p, w, V))
        return frechet(A, E, p, w, V, fn), 0


class _FrechetEager(_Frechet):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, dE, dp, *_):
        A, E, p, w, V = ctx.saved_tensors
        dD = None
        if dA is not None:
            dD = frechet2(A, E, dA, p, w, V, ctx.fn)
        if dE is not None:
            dD = _add(dD, frechet(A, dE, p, w, V, ctx.fn))
        if dp is not None:
            mixed = frechet(A, E, p, w, V, ctx.fn.by_exponent())
            dD = _add(dD, dp[..., None, None] * mixed)
        return dD


def frechet(
    A: Tensor, E: Tensor, p: Tensor | None, w: Tensor, V: Tensor, fn: ScalarFunction
) -> Tensor:
    """Df(A)[E] with its derivatives, from A = V diag(w) V^H; only herm(E) counts.

    Batch shapes broadcast; p has that of A.
    """
    if not needs_rule(A, E, p):
        return select.frechet(w, V, E, p, fn)
    if A.shape != E.shape:
        shape = torch.broadcast_shapes(A.shape, E.shape)
        # LAPACK's eigenvectors are stored by columns: turned once, not once for each of the batch.
        V = V.contiguous()
        w = w.expand(shape[:-1])
        p = None if p is None else p.expand(shape[:-2])
        A, E, V = A.expand(shape), E.expand(shape), V.expand(shape)
    rule = _Frechet if torch.compiler.is_compiling() else _FrechetEager
    return rule.apply(A, E, p, w, V, fn)


# --- D²f(A)[E, H] ---------------------------------------------------------------------------


class _Frechet2(Rule):
    """(A, E, H, p) -> D²f(A)[E, H], symmetric in E and H; p carries no derivative here."""

    @staticmethod
    def forward(_A, E, H, p, w, V, fn):
        return reference.frechet2(w, V, E, H, p, fn)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        A, E, H, p, w, V, fn = inputs
        # A fixed exponent has no tangent: None, not zeros.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(A, E, H, p, w, V)
        ctx.save_for_forward(A, E, H, p, w, V)
        ctx.fn = fn

    @staticmethod
    @full_precision
    def backward(ctx, G):
        if G is None:
            return (None,) * 7
        A, E, H, p, w, V = ctx.saved_tensors
        if ctx.needs_input_grad[3]:
            raise NotImplementedError(f"third derivatives of {ctx.fn.name} are not implemented")
        gA = frechet3(A, E, H, G, p, w, V, ctx.fn) if ctx.needs_input_grad[0] else None
        gE = frechet2(A, G, H, p, w, V, ctx.fn) if ctx.needs_input_grad[1] else None
        gH = frechet2(A, E, G, p, w, V, ctx.fn) if ctx.needs_input_grad[2] else None
        return gA, gE, gH, None, None, None, None

    @staticmethod
    def vmap(info, dims, A, E, H, p, w, V, fn):
        A, E, H, p, w, V = batch_first(info.batch_size, dims[:6], (A, E, H, p, w, V))
        return frechet2(A, E, H, p, w, V, fn), 0


class _Frechet2Eager(_Frechet2):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, dE, dH, dp, *_):
        A, E, H, p, w, V = ctx.saved_tensors
        if dp is not None:
            raise NotImplementedError(f"third derivatives of {ctx.fn.name} are not implemented")
        dD = None if dA is None else frechet3(A, E, H, dA, p, w, V, ctx.fn)
        if dE is not None:
            dD = _add(dD, frechet2(A, dE, H, p, w, V, ctx.fn))
        if dH is not None:
            dD = _add(dD, frechet2(A, E, dH, p, w, V, ctx.fn))
        return dD


def frechet2(
    A: Tensor, E: Tensor, H: Tensor, p: Tensor | None, w: Tensor, V: Tensor, fn: ScalarFunction
) -> Tensor:
    """D²f(A)[E, H], from A = V diag(w) V^H."""
    rule = _Frechet2 if torch.compiler.is_compiling() else _Frechet2Eager
    return rule.apply(A, E, H, p, w, V, fn)


# --- D³f(A)[E, H, K] ------------------------------------------------------------------------


class _Frechet3(Rule):
    """(A, E, H, K, p) -> D³f(A)[E, H, K], symmetric in E, H and K; A and p carry no derivative."""

    @staticmethod
    def forward(_A, E, H, K, p, w, V, fn):
        return reference.frechet3(w, V, E, H, K, p, fn)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        A, E, H, K, p, w, V, fn = inputs
        # A fixed exponent has no tangent: None, not zeros.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(A, E, H, K, p, w, V)
        ctx.save_for_forward(A, E, H, K, p, w, V)
        ctx.fn = fn

    @staticmethod
    @full_precision
    def backward(ctx, G):
        if G is None:
            return (None,) * 8
        A, E, H, K, p, w, V = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if needed[0] or needed[4]:
            raise NotImplementedError(f"fourth derivatives of {ctx.fn.name} are not implemented")
        gE = frechet3(A, G, H, K, p, w, V, ctx.fn) if needed[1] else None
        gH = frechet3(A, E, G, K, p, w, V, ctx.fn) if needed[2] else None
        gK = frechet3(A, E, H, G, p, w, V, ctx.fn) if needed[3] else None
        return None, gE, gH, gK, None, None, None, None

    @staticmethod
    def vmap(info, dims, A, E, H, K, p, w, V, fn):
        tensors = batch_first(info.batch_size, dims[:7], (A, E, H, K, p, w, V))
        return frechet3(*tensors, fn), 0


class _Frechet3Eager(_Frechet3):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, dE, dH, dK, dp, *_):
        A, E, H, K, p, w, V = ctx.saved_tensors
        if dA is not None or dp is not None:
            raise NotImplementedError(f"fourth derivatives of {ctx.fn.name} are not implemented")
        dD = None
        if dE is not None:
            dD = frechet3(A, dE, H, K, p, w, V, ctx.fn)
        if dH is not None:
            dD = _add(dD, frechet3(A, E, dH, K, p, w, V, ctx.fn))
        if dK is not None:
            dD = _add(dD, frechet3(A, E, H, dK, p, w, V, ctx.fn))
        return dD


def frechet3(
    A: Tensor,
    E: Tensor,
    H: Tensor,
    K: Tensor,
    p: Tensor | None,
    w: Tensor,
    V: Tensor,
    fn: ScalarFunction,
) -> Tensor:
    """D³f(A)[E, H, K], from A = V diag(w) V^H."""
    rule = _Frechet3 if torch.compiler.is_compiling() else _Frechet3Eager
    return rule.apply(A, E, H, K, p, w, V, fn)
