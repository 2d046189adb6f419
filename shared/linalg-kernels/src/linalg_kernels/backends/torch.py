"""The reference: every primitive in plain torch, short enough to read beside its formula.

Primitives work on Hermitian tensors `(*batch, n, n)` without autograd rules of their own; an
element that holds NaN or Inf comes out as NaN and leaves its neighbours alone.
"""

import torch
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.scalar import ScalarFunction

# Entries of the third-order kernel that are held at once by `second`.
_TILE = 1 << 22


def hermitian(A: Tensor) -> Tensor:
    """(A + A^H) / 2."""
    return (A + A.mH) / 2


def from_lower(A: Tensor) -> Tensor:
    """The Hermitian matrix whose lower triangle is that of A (the diagonal's real part)."""
    strict = A.tril(-1)
    return strict + strict.mH + torch.diag_embed(A.diagonal(dim1=-2, dim2=-1).real).to(A.dtype)


def read_hermitian(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, bool]:
    """The Hermitian matrix that A stands for, and whether it is known to be finite."""
    H = hermitian(A) if symmetrize else from_lower(A)
    if not (check and errors.can_read(A)):
        return H, False
    errors.check_finite(H, name)
    if symmetrize:
        errors.check_hermitian(A, name)
    return H, True


def _isolate(A: Tensor) -> tuple[Tensor, Tensor]:
    """A with its non-finite elements replaced by I, and the mask of the finite ones."""
    finite = errors.finite_elements(A)
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return torch.where(finite[..., None, None], A, identity), finite


def eigh(A: Tensor, *, finite: bool = False) -> tuple[Tensor, Tensor]:
    """Eigenvalues (*batch, n) in ascending order and eigenvectors (*batch, n, n) of Hermitian A.

    `finite=True` promises that A holds no NaN or Inf and saves the search for them.
    """
    if A.shape[-1] == 1:
        w = A[..., 0].real.clone()
        return w, torch.where(torch.isfinite(w), 1, float("nan"))[..., None].to(A.dtype)
    if finite:
        return tuple(torch.linalg.eigh(A))
    safe, is_finite = _isolate(A)
    w, V = torch.linalg.eigh(safe)
    nan = float("nan")
    return (
        torch.where(is_finite[..., None], w, nan),
        torch.where(is_finite[..., None, None], V, nan),
    )


# Sweeps of one-sided Jacobi, of which there are exactly the second number where none can be read.
_JACOBI_SWEEPS, _JACOBI_BLIND = 40, 10


def eigh_positive(L: Tensor) -> tuple[Tensor, Tensor]:
    """`eigh` of L L^H, each eigenvalue to its own relative accuracy, for lower triangular L.

    One-sided Jacobi: rotations from the right make the columns of L orthogonal, n/2 disjoint
    pairs at a time in the order of a round robin (Demmel and Veselić 1992).
    """
    n = L.shape[-1]
    players = n + n % 2 if n > 1 else 0
    tolerance = torch.finfo(L.dtype).eps * max(2, n / 4)
    Z = L
    readable = errors.can_read(L)
    for _ in range(_JACOBI_SWEEPS if readable else _JACOBI_BLIND):
        order = list(range(players))
        turned = False
        for _ in range(players - 1):
            pairs = [(order[i], order[-1 - i]) for i in range(players // 2)]
            pairs = [(min(a, b), max(a, b)) for a, b in pairs if max(a, b) < n]
            order = [order[0], order[-1], *order[1:-1]]
            p = torch.tensor([a for a, _ in pairs], device=L.device)
            q = torch.tensor([b for _, b in pairs], device=L.device)
            x, y = Z.index_select(-1, p), Z.index_select(-1, q)
            norms = torch.linalg.vector_norm(torch.stack([x, y]), dim=-2)
            inner = (x.conj() * y).sum(-2)
            size = inner.abs()
            turn = size > tolerance * norms[0] * norms[1]
            if readable:
                try:
                    turned = bool(turn.any()) or turned
                except RuntimeError:  # vmap shows no values
                    readable, turned = False, True
            phase = torch.where(turn, inner / torch.where(turn, size, 1), 1)
            twice = torch.where(turn, 2 * size, 1)
            zeta = (norms[1] - norms[0]) * (norms[1] + norms[0]) / twice
            t = torch.where(zeta < 0, -1.0, 1.0) / (zeta.abs() + torch.sqrt(zeta * zeta + 1))
            t = torch.where(turn, t, 0).to(zeta.dtype)
            c = 1 / torch.sqrt(1 + t * t)
            s = (c * t).to(Z.dtype) * phase
            c = c.to(Z.dtype)[..., None, :]
            s = s[..., None, :]
            moved = torch.cat([c * x - s.conj() * y, s * x + c * y], -1)
            rest = [i for i in range(n) if i not in {k for pair in pairs for k in pair}]
            columns = [*(a for a, _ in pairs), *(b for _, b in pairs), *rest]
            kept = Z[..., rest]
            back = torch.tensor(columns, device=L.device).argsort()
            Z = torch.cat([moved, kept], -1).index_select(-1, back)
        if not turned and readable:
            break
    norms = torch.linalg.vector_norm(Z, dim=-2)
    w, order = torch.sort(norms * norms, dim=-1)
    V = Z / norms[..., None, :]
    return w, V.gather(-1, order[..., None, :].expand(V.shape))


def eigvalsh(A: Tensor, *, finite: bool = False) -> Tensor:
    """Eigenvalues (*batch, n) in ascending order of Hermitian A."""
    if A.shape[-1] == 1:
        return A[..., 0].real.clone()
    if finite:
        return torch.linalg.eigvalsh(A)
    safe, is_finite = _isolate(A)
    return torch.where(is_finite[..., None], torch.linalg.eigvalsh(safe), float("nan"))


def compose(V: Tensor, d: Tensor) -> Tensor:
    """V diag(d) V^H, exactly Hermitian."""
    return hermitian((V * d[..., None, :]) @ V.mH)


def evaluate(w: Tensor, V: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """V f(w) V^H."""
    return compose(V, fn.value(w, None if p is None else p[..., None]))


def kernel(w: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """f[w_i, w_j], (*batch, n, n)."""
    return fn.first(w[..., :, None], w[..., None, :], None if p is None else p[..., None, None])


def frechet(w: Tensor, V: Tensor, E: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """Daleckii-Krein: V (f[w_i, w_j] ∘ V^H herm(E) V) V^H."""
    return hermitian(V @ (kernel(w, p, fn) * (V.mH @ hermitian(E) @ V)) @ V.mH)


def frechet2(
    w: Tensor, V: Tensor, E: Tensor, H: Tensor, p: Tensor | None, fn: ScalarFunction
) -> Tensor:
    """D²f[E, H] = V M V^H with M_ij = Σ_k f[w_i, w_k, w_j] (E_ik H_kj + H_ik E_kj).

    E and H in M are in the eigenbasis. The kernel is formed in tiles of k.
    """
    n = w.shape[-1]
    E, H = V.mH @ hermitian(E) @ V, V.mH @ hermitian(H) @ V
    M = torch.zeros_like(E)
    width = max(1, _TILE // max(1, E.numel()))
    exponent = None if p is None else p[..., None, None, None]
    for start in range(0, n, width):
        k = slice(start, start + width)
        a, b, c = w[..., :, None, None], w[..., None, k, None], w[..., None, None, :]
        T = fn.second(a, b, c, exponent)
        products = E[..., :, k, None] * H[..., None, k, :] + H[..., :, k, None] * E[..., None, k, :]
        M = M + (T * products).sum(-2)
    return hermitian(V @ M @ V.mH)


def frechet3(
    w: Tensor,
    V: Tensor,
    E: Tensor,
    H: Tensor,
    K: Tensor,
    p: Tensor | None,
    fn: ScalarFunction,
) -> Tensor:
    """D³f[E, H, K] = V M V^H, M_il = Σ_jk f[w_i, w_j, w_k, w_l] Σ E_ij H_jk K_kl.

    The inner sum is over the six orders of E, H, K, which are in the eigenbasis; three of
    them are the adjoints of the others. The kernel is formed row by row: O(n⁴) work in O(n³)
    memory.
    """
    directions = [V.mH @ hermitian(D) @ V for D in (E, H, K)]
    exponent = None if p is None else p[..., None, None, None]
    rows = []
    for i in range(w.shape[-1]):
        a = w[..., i, None, None, None]
        b, c, d = w[..., :, None, None], w[..., None, :, None], w[..., None, None, :]
        T = fn.third(a, b, c, d, exponent).to(V.dtype)
        row = torch.zeros_like(E[..., 0, :])
        for first, second, third in ((0, 1, 2), (0, 2, 1), (1, 0, 2)):
            left, middle, right = directions[first], directions[second], directions[third]
            weighted = left[..., i, :, None] * middle
            row = row + torch.einsum("...jk,...kl,...jkl->...l", weighted, right, T)
        rows.append(row)
    M = torch.stack(rows, dim=-2) if rows else torch.zeros_like(E)
    return hermitian(V @ (M + M.mH) @ V.mH)


def cholesky(A: Tensor, *, finite: bool = False) -> tuple[Tensor, Tensor]:
    """Lower factor (*batch, n, n) of Hermitian A and info (*batch,) int32.

    `info` is 0, the order of the first leading minor that is not positive, or n + 1 where A
    is not finite; the factor is NaN where it is not 0.
    """
    n = A.shape[-1]
    if finite:
        L, info = torch.linalg.cholesky_ex(A)
    else:
        safe, is_finite = _isolate(A)
        L, info = torch.linalg.cholesky_ex(safe)
        info = torch.where(is_finite, info, n + 1)
    return torch.where((info == 0)[..., None, None], L, float("nan")), info


def half_lower(M: Tensor) -> Tensor:
    """Φ(M): the lower triangle of M with its diagonal halved."""
    return M.tril(-1) + torch.diag_embed(M.diagonal(dim1=-2, dim2=-1) / 2)


def cholesky_vjp(L: Tensor, G: Tensor) -> Tensor:
    """herm(L^-H Φ(L^H G) L^-1), the adjoint of A -> L; only the lower triangle of G counts."""
    left = torch.linalg.solve_triangular(L.mH, half_lower(L.mH @ G.tril()), upper=True)
    return hermitian(torch.linalg.solve_triangular(L, left, upper=False, left=False))
