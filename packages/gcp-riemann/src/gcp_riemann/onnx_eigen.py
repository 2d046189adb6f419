"""Factorisations out of operators that ONNX has, for graphs on their way there.

ONNX knows neither Cholesky factors nor eigensystems, but loops and arithmetic. The functions here
become loops in `torch.onnx.export(..., dynamo=True)`; nothing else should call them, for
linalg-kernels is faster and gives derivatives.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

SWEEPS = 16
"""At most. Ten bring matrices of order 256 to the rounding of float32, fourteen of float64."""


def exporting() -> bool:
    """Whether the graph that is traced is for ONNX."""
    return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()


def cholesky(P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """The lower factor, column after column; NaN throughout for P that is not positive definite."""
    P, n = P.detach(), P.shape[-1]
    index = torch.arange(n, device=P.device)

    def more(j: Int64[Tensor, ""], _rest: Tensor, _L: Tensor) -> Tensor:
        return j < n

    def column(j: Int64[Tensor, ""], rest: Tensor, L: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        here = (index == j).to(P.dtype)
        found = (rest * here).sum(-1)
        found = torch.where(index >= j, found, 0) / (found * here).sum(-1, keepdim=True).sqrt()
        outer = found[..., :, None] * found[..., None, :]
        return j + 1, rest - outer, L + found[..., :, None] * here

    first = torch.zeros((), dtype=torch.int64, device=P.device)
    return while_loop(more, column, (first, P.clone(), torch.zeros_like(P)))[2]


def eigh(
    P: Float[Tensor, "*batch n n"],
) -> tuple[Float[Tensor, "*batch m"], Float[Tensor, "*batch n m"]]:
    """w in any order and V with P = V diag(w) Vᵀ of symmetric P, by Jacobi's rotations.

    As many at a time as there are pairs of rows: row i meets row i + m/2, and then all but the
    first change their places as in a round-robin tournament. m is n or, as it must be even, n + 1;
    what is too many has w = 1 and a column of zeros in V.
    """
    P, n = P.detach(), P.shape[-1]
    half = (n + 1) // 2
    order = _next_round(half).to(P.device)
    A = torch.nn.functional.pad(P, (0, n % 2, 0, n % 2))
    if n % 2:
        A = A + torch.diag_embed((torch.arange(n + 1, device=P.device) == n).to(P.dtype))
    V = torch.eye(2 * half, dtype=P.dtype, device=P.device)[:n].expand(*P.shape[:-1], 2 * half)
    # What rounding leaves off the diagonal is a quarter of √n roundings.
    rounding = max(math.sqrt(n), 4) / 2 * torch.finfo(P.dtype).eps
    little = rounding * torch.linalg.matrix_norm(A)
    last = SWEEPS * (2 * half - 1)

    def more(step: Int64[Tensor, ""], A: Tensor, _V: Tensor) -> Tensor:
        return (step < last) & (_off(A) > little).any()

    def turn(step: Int64[Tensor, ""], A: Tensor, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w = A.diagonal(dim1=-2, dim2=-1)
        gap = w[..., half:] - w[..., :half]
        twice = 2 * A[..., :half, half:].diagonal(dim1=-2, dim2=-1)
        # A pair of zero eigenvalues would be turned by any angle, which brings back what other
        # turns have removed. Its entry is small before the others are.
        twice = torch.where(twice.abs() > _off(A)[..., None] / (4 * half), twice, 0)
        size = gap.abs() + (gap.square() + twice.square()).sqrt()
        tangent = torch.where(gap < 0, -twice, twice) / torch.where(size == 0, 1, size)
        cosine = (1 + tangent.square()).rsqrt()
        sine = tangent * cosine
        A = _rotated(A, cosine, sine).index_select(-1, order).mT
        A = _rotated(A, cosine, sine).index_select(-1, order).mT
        return step + 1, A.contiguous(), _rotated(V, cosine, sine).index_select(-1, order)

    first = torch.zeros((), dtype=torch.int64, device=P.device)
    _, A, V = while_loop(more, turn, (first, A.clone(), V.clone()))
    return A.diagonal(dim1=-2, dim2=-1), V


def spectral(
    P: Float[Tensor, "*batch n n"], f: Callable[[Tensor], Tensor]
) -> Float[Tensor, "*batch n n"]:
    """V f(w) Vᵀ, exactly symmetric; f(1) must be finite."""
    w, V = eigh(P)
    F = (V * f(w)[..., None, :]) @ V.mT
    return (F + F.mT) / 2


def _off(A: Tensor) -> Float[Tensor, "*batch"]:
    """The norm of what is not on the diagonal."""
    rest = A - torch.diag_embed(A.diagonal(dim1=-2, dim2=-1))
    return rest.square().sum((-2, -1)).sqrt()


def _rotated(A: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Columns i and i + m/2 turned by the i-th angle."""
    left, right = A.chunk(2, -1)
    c, s = cosine[..., None, :], sine[..., None, :]
    return torch.cat([c * left - s * right, s * left + c * right], -1)


def _next_round(half: int) -> Int64[Tensor, " m"]:
    """Whom each place hears of next: 0 stays, the others go around."""
    above, below = list(range(half)), list(range(half, 2 * half))
    if half == 1:
        return torch.tensor([0, 1])
    above, below = [0, below[0], *above[1:-1]], [*below[1:], above[-1]]
    return torch.tensor(above + below)
