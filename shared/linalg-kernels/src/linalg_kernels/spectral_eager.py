"""f(A) where nothing but a gradient may be asked for: the shortest road to the library and back.

At orders up to 8 a batch of hundreds of matrices takes the library tens of microseconds, as much
as the road; so everything here is passed once, and eigenvalues and eigenvectors are one tensor.
`daleckii_krein` is the definition, and takes over for second derivatives.
"""

from torch import Tensor

from linalg_kernels import daleckii_krein
from linalg_kernels.backends import native, select
from linalg_kernels.precision import full_precision
from linalg_kernels.scalar import ScalarFunction
from linalg_kernels.transforms import EagerRule, differentiated, transformed


class _Packed(EagerRule):
    """A -> F, natively."""

    @staticmethod
    def forward(ctx, A, fn, f, symmetrize, check, positive, name):
        found = select.spectral_packed(A, f, symmetrize, check, positive)
        if found is None:
            F, w, V = daleckii_krein.compute(A, None, fn, symmetrize, check, positive, name)
            found = F, native.pack(w, V)
        F, packed = found
        ctx.save_for_backward(A, packed)
        ctx.functions = fn, f
        return F

    @staticmethod
    def backward(ctx, G):
        A, packed = ctx.saved_tensors
        fn, f = ctx.functions
        gA = select.frechet_packed(packed, G, f)
        if gA is None:
            gA = _differentiable(A, packed, G, fn)
        return gA, None, None, None, None, None, None


@full_precision
def _differentiable(A: Tensor, packed: Tensor, G: Tensor, fn: ScalarFunction) -> Tensor:
    w, V = native.unpack(packed, A.shape)
    return daleckii_krein.frechet(A, G, None, w, V, fn)


def _natively(
    A: Tensor, fn: ScalarFunction, symmetrize: bool, check: bool, positive: bool, name: str
) -> Tensor | None:
    f = select.natively(A, fn)
    if f is None:
        return None
    if differentiated(A):
        return _Packed.apply(A, fn, f, symmetrize, check, positive, name)
    return select.spectral_value(A, f, symmetrize, check, positive)


def shortest(
    A: Tensor, fn: ScalarFunction, symmetrize: bool, check: bool, positive: bool, name: str
) -> Tensor | None:
    """f(A) with its gradient, or None where another road must be taken.

    A may be anything: what is no square matrix of the library is left to others.
    """
    if transformed() or not isinstance(A, Tensor) or A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        return None
    return _natively(A, fn, symmetrize, check, positive, name)


class _Value(EagerRule):
    """(A, p) -> F."""

    @staticmethod
    def forward(ctx, A, p, fn, symmetrize, check, positive, name):
        F, w, V = daleckii_krein.compute(A, p, fn, symmetrize, check, positive, name)
        ctx.save_for_backward(A, p, w, V)
        ctx.fn = fn
        return F

    @staticmethod
    @full_precision
    def backward(ctx, G):
        return *daleckii_krein.evaluate_vjp(ctx, G), None, None, None, None, None


def apply(
    A: Tensor,
    p: Tensor | None,
    fn: ScalarFunction,
    symmetrize: bool = True,
    check: bool = True,
    positive: bool = False,
    name: str = "A",
) -> Tensor:
    """f(A) with its derivatives. `p` has the batch shape of A."""
    arguments = A, p, fn, symmetrize, check, positive, name
    if transformed():
        return daleckii_krein.spectral(*arguments)[0]
    if p is None:
        F = _natively(A, fn, symmetrize, check, positive, name)
        if F is not None:
            return F
    return (
        _Value.apply(*arguments) if differentiated(A, p) else daleckii_krein.compute(*arguments)[0]
    )
