"""X' = X - s1 u1 v1^T of features by products with X, verified by the residual.

Either of

- Gram: G = X^T X and its powers G^4, G^16, ... by squaring, for few positions or channels;
- Lanczos on X^T X, never formed, whose k-th step is the best of all power iterations with k
  products: with s2/s1 = 0.36 five steps reach single precision, at 0.9 thirteen,

from a fixed positive vector, which is not orthogonal to the leading vector of non-negative
features (Perron and Frobenius). Both stop where ‖X^T X v - λ v‖ <= tol λ, λ = ‖X v‖², for every
sample, and then X' = X - (X v) v^T.

Source: Golub and Van Loan, Matrix Computations, 4th ed., 10.1.
"""

import torch
from jaxtyping import Float
from linalg_kernels import eigh
from linalg_kernels.precision import full_precision
from torch import Tensor

# Steps after which a spectrum is left to linalg_kernels: for sizes that it squares, which needs no
# gap, and beyond.
_STEPS, _SQUARED, _MANY = 24, 256, 96
# Up to this many positions or channels the Gram matrix costs less than the products with X.
_GRAM = 64
# Up to this size one product X (I - v v^T) costs less than X v and its outer product.
_PROJECT = 24
# Samples of so many entries are worked on at a time: more leave the last cache between steps.
_CHUNK = 2_000_000
# Of so many entries a product with a vector is made sample by sample on the CPU: in batches
# torch takes it for a product of matrices, which is five to twenty times slower.
_LOOP = 4096
# Squares of these leave single precision neither way.
_RANGE = (1e-16, 1e16)


def default_tol(dtype: torch.dtype) -> float:
    """A few roundings."""
    return 8 * torch.finfo(dtype).eps


def _start(X: Tensor) -> Tensor:
    """A fixed positive vector (b, n, 1) that no symmetry of features is likely to have."""
    n = X.shape[-1]
    h = 1 + 0.5 * torch.sin(torch.arange(n, dtype=X.dtype, device=X.device).square_())
    # Not len(X), which would fix the size of the batch in a traced graph.
    return (h / torch.linalg.vector_norm(h))[:, None].expand(X.shape[0], n, 1)


def _times(A: Tensor, v: Tensor) -> Tensor:
    """A v of A (b, m, n) and v (b, n, 1)."""
    b, m, n = A.shape
    if b == 1 or not A.is_cpu or m * n < _LOOP:
        return A @ v
    product = A.new_empty(b, m)
    for one, x, y in zip(A.unbind(), v[..., 0].unbind(), product.unbind(), strict=True):
        torch.mv(one, x, out=y)
    return product[..., None]


def _in_range(squares: Tensor) -> bool:
    low, high = squares.aminmax()
    # False for NaN also.
    return _RANGE[0] < float(low) and float(high) < _RANGE[1]


def _by_gram(X: Tensor, tol: float) -> Tensor | None:
    """v (b, n, 1), or None where it was not found in every sample."""
    G = X.mT @ X
    P, h = G, _start(X)
    for squarings in range(1, 9):
        trace = P.diagonal(dim1=-2, dim2=-1).sum(-1)
        if squarings == 1 and not _in_range(trace):
            return None
        P = P / trace[:, None, None]
        P = P @ P
        if squarings == 1:
            continue
        v = P @ (P @ h)
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True)
        z = G @ v
        value = v.mT @ z
        error = torch.linalg.vector_norm(z - value * v, dim=1, keepdim=True)
        if bool((error <= tol * value).all()):
            return v
    return None


def _by_lanczos(X: Tensor, tol: float, steps: int) -> tuple[Tensor, Tensor] | None:
    """v (b, n, 1) and X v (b, m, 1), or None where they were not found in every sample."""
    b, m, n = X.shape
    steps = min(steps, n)
    # Rows are the Lanczos vectors and their images, so that each lies in one piece.
    V, W = X.new_empty(b, steps, n), X.new_empty(b, steps, m)
    T = X.new_zeros(b, steps, steps)
    v = _start(X)
    for k in range(steps):
        w = _times(X, v)
        V[:, k], W[:, k] = v[..., 0], w[..., 0]
        z = _times(X.mT, w)
        done = V[:, : k + 1]
        c = done @ z
        z = z - done.mT @ c
        if k == 0 and not _in_range(c):
            return None
        if k > 0:
            # Once more: what rounding leaves along `done` would grow.
            z = z - done.mT @ (done @ z)
        rest = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        T[:, : k + 1, k] = T[:, k, : k + 1] = c[..., 0]
        if k > 0 or steps == 1:
            values, Y = eigh(T[:, : k + 1, : k + 1], check=False)
            y, value = Y[..., -1:], values[:, -1]
            # ‖X^T X v - λ v‖ of v = Σ y_i v_i is what the last vector leaves.
            if bool((rest[:, 0, 0] * y[:, -1, 0].abs() <= tol * value).all()):
                return done.mT @ y, W[:, : k + 1].mT @ y
        # A sample of which nothing is left has converged; its further vectors are zero.
        rounding = torch.finfo(X.dtype).eps * T[:, :1, :1]
        v = z / torch.where(rest > rounding, rest, torch.inf)
    return None


@full_precision
def removed(X: Float[Tensor, "b m n"], tol: float | None) -> Tensor | None:
    """X' of every sample, or None where some sample did not converge or is out of range.

    X is not empty, float32 or float64. Values are read, so this cannot be traced.
    """
    tol = default_tol(X.dtype) if tol is None else tol
    samples = max(1, _CHUNK // X[0].numel())
    if len(X) <= samples:
        return _removed(X, tol)
    left = torch.empty_like(X)
    for some, out in zip(X.split(samples), left.split(samples), strict=True):
        one = _removed(some, tol)
        if one is None:
            return None
        out.copy_(one)
    return left


def _removed(X: Tensor, tol: float) -> Tensor | None:
    wide = X.shape[1] < X.shape[2]
    A = X.mT if wide else X
    n = A.shape[-1]
    if n > _GRAM:
        found = _by_lanczos(A, tol, _STEPS if n <= _SQUARED else _MANY)
        if found is None:
            return None
        v, Av = found
    else:
        v = _by_gram(A, tol)
        if v is None:
            return None
        if n <= _PROJECT and not wide:
            return X @ (torch.eye(n, dtype=X.dtype, device=X.device) - v * v.mT)
        Av = _times(A, v)
    return torch.addcmul(X, v, Av.mT, value=-1) if wide else torch.addcmul(X, Av, v.mT, value=-1)


@full_precision
def traced(X: Float[Tensor, "b m n"], steps: int) -> Float[Tensor, "b m n"]:
    """X' after exactly so many Lanczos steps, by products alone, for graphs that are traced.

    The leading vector of the small T is that of T^(2^16), by squaring.
    """
    wide = X.shape[1] < X.shape[2]
    A = X.mT if wide else X
    steps = min(steps, A.shape[-1])
    tiny = torch.finfo(X.dtype).tiny
    size = A.abs().amax((1, 2), keepdim=True)
    A = A / size.clamp_min(tiny)
    v = _start(A)
    done, images, columns, first = [], [], [], None
    for _ in range(steps):
        w = A @ v
        done.append(v)
        images.append(w)
        V = torch.cat(done, 2)
        z = A.mT @ w
        c = V.mT @ z
        z = z - V @ c
        z = z - V @ (V.mT @ z)
        first = c if first is None else first
        rest = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        columns.append(torch.nn.functional.pad(c, (0, 0, 0, steps - c.shape[1])))
        rounding = torch.finfo(X.dtype).eps * first
        v = torch.where(rest > rounding, z / rest.clamp_min(tiny), 0)
    T = torch.cat(columns, 2).triu()
    T = T + T.triu(1).mT
    P = T
    for _ in range(16):
        trace = P.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
        P = P / trace.clamp_min(tiny)
        P = P @ P
    column = P.diagonal(dim1=-2, dim2=-1).argmax(-1)[:, None, None]
    y = P.gather(2, column.expand(-1, steps, 1))
    y = y / torch.linalg.vector_norm(y, dim=1, keepdim=True).clamp_min(tiny)
    v, Av = torch.cat(done, 2) @ y, torch.cat(images, 2) @ y * size
    return X - v @ Av.mT if wide else X - Av @ v.mT
