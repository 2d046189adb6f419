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


class _Value(EagerRule):
    """A -> F."""

    @staticmethod
    def forward(ctx, A, fn, f, symmetrize, check, name):
        F, packed = select.spectral_packed(A, fn, f, symmetrize, check, name)
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
        return gA, None, None, None, None, None


@full_precision
def _differentiable(A: Tensor, packed: Tensor, G: Tensor, fn: ScalarFunction) -> Tensor:
    w, V = native.unpack(packed, A.shape)
    return daleckii_krein.frechet(A, G, None, w, V, fn)


def apply(A: Tensor, fn: ScalarFunction, symmetrize: bool, check: bool, name: str) -> Tensor | None:
    """f(A) with its gradient, or None where another road must be taken.

    A may be anything: what is no square matrix of the library is left to others.
    """
    if transformed() or not isinstance(A, Tensor) or A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        return None
    f = select.natively(A, fn)
    if f is None:
        return None
    if differentiated(A):
        return _Value.apply(A, fn, f, symmetrize, check, name)
    return select.spectral_value(A, fn, f, symmetrize, check, name)
