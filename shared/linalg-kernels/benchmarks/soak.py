"""Is any of a million matrices treated badly?

Random symmetric matrices of many kinds (condition 1 … 1e12, scale 1e-12 … 1e6, clusters, multiples
of the identity, graded, rank deficient, subnormal) go through every operation on the CPU, and the
results are compared with those of LAPACK in float64, in units of what the accuracy statement of
this package allows: 20 ε (1 + κ) of the norm, κ = max|f'(w)| λ_max / ‖f(A)‖, times n/6 above order
6, as every reflection and rotation rounds; and for gradients 20 n ε (1 + max|f''| λ_max / max|f'|)
of the largest derivative. Where an eigenvalue cannot be told from zero, NaN is allowed; nowhere
else. Karcher means, of sets of eight of one in a hundred of the matrices, are held to the equation
that they solve.

    python benchmarks/soak.py --count 1000000 --out soak.json --worst worst.npz
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import linalg_kernels as lk
import numpy as np
import torch
from linalg_kernels import scalar
from linalg_kernels.testing import orthogonal, with_spectrum
from torch import Tensor

ORDERS = {2: 0.2, 3: 0.15, 4: 0.15, 5: 0.12, 6: 0.1, 7: 0.08, 8: 0.1, 13: 0.04, 16: 0.04, 32: 0.02}
"""Share of the matrices of each order."""

BATCH = 2048


def spectra(count: int, n: int, g: torch.Generator) -> Tensor:
    """Positive eigenvalues (count, n), largest 1: condition 1 … 1e12, half of them clustered."""
    cond = 12 * torch.rand(count, 1, dtype=torch.float64, generator=g)
    w = 10 ** (-cond * torch.rand(count, n, dtype=torch.float64, generator=g))
    w[:, 0] = 1.0
    w[:, -1] = 10 ** -cond[:, 0]
    # Members of a cluster differ by nothing, or by 1e-16 … 1e-2 of their size.
    which = torch.randint(0, n, (count, n), generator=g)
    gap = 10 ** (-2 - 14 * torch.rand(count, 1, dtype=torch.float64, generator=g))
    gap *= torch.rand(count, 1, generator=g) < 0.7
    noise = 1 + gap * torch.randn(count, n, dtype=torch.float64, generator=g)
    clustered = w.gather(1, which) * noise
    return torch.where(torch.rand(count, 1, generator=g) < 0.5, w, clustered.abs())


def matrices(count: int, n: int, dtype: torch.dtype, g: torch.Generator) -> Tensor:
    """Of all kinds (count, n, n), rounded to the dtype; symmetric to the bit."""
    w = spectra(count, n, g)
    V = orthogonal(count, n, generator=g)
    kind = torch.rand(count, generator=g)
    A = with_spectrum(w, V)
    eye = torch.eye(n, dtype=torch.float64)
    A = torch.where((kind < 0.03)[:, None, None], eye * w[:, :1, None], A)
    A = torch.where(((kind >= 0.03) & (kind < 0.06))[:, None, None], torch.diag_embed(w), A)
    # Badly scaled coordinates of a well-conditioned matrix.
    d = 10 ** (-6 * torch.rand(count, n, dtype=torch.float64, generator=g))
    good = with_spectrum(w.clamp_min(0.1), V)
    graded = d[:, :, None] * good * d[:, None, :]
    A = torch.where(((kind >= 0.06) & (kind < 0.16))[:, None, None], graded, A)
    # Rank deficient: of the first half of the columns.
    low = with_spectrum(torch.where(torch.arange(n) < (n + 1) // 2, w, 0.0), V)
    A = torch.where(((kind >= 0.16) & (kind < 0.2))[:, None, None], low, A)
    signs = torch.where(torch.rand(count, n, generator=g) < 0.5, -1.0, 1.0).double()
    A = torch.where(((kind >= 0.2) & (kind < 0.25))[:, None, None], with_spectrum(w * signs, V), A)
    scale = 10 ** (-12 + 18 * torch.rand(count, dtype=torch.float64, generator=g))
    info = torch.finfo(dtype)
    tiny = info.tiny * 10 ** (-4 * torch.rand(count, dtype=torch.float64, generator=g))
    scale = torch.where((kind >= 0.25) & (kind < 0.27), tiny, scale)
    # Symmetric to the bit, also after rounding.
    A = (A * scale[:, None, None]).to(dtype)
    return A.tril() + A.tril(-1).mT


class Exact(NamedTuple):
    """Eigenvalues and eigenvectors in float64, and where all eigenvalues are surely positive."""

    w: Tensor
    V: Tensor
    positive: Tensor


def exact(A: Tensor) -> Exact:
    w, V = torch.linalg.eigh(A.double())
    n = A.shape[-1]
    doubt = 20 * n * floor(A) * w.abs().amax(-1)
    # LAPACK itself refuses to factor what is subnormal.
    return Exact(w, V, (w[:, 0] > doubt) & (w[:, 0] > 4 * torch.finfo(A.dtype).tiny))


def floor(A: Tensor) -> Tensor:
    """Relative rounding of each matrix: ε, or more where its entries are subnormal."""
    info = torch.finfo(A.dtype)
    largest = A.double().abs().amax((-2, -1)).clamp_min(info.tiny * info.eps)
    return (info.tiny * info.eps / largest).clamp_min(info.eps)


def stated_error(A: Tensor) -> Tensor:
    """20 ε, times n/6 above order 6: of each matrix, before its condition."""
    return 20 * max(1.0, A.shape[-1] / 6) * floor(A)


class Function(NamedTuple):
    """An operation that is f of the eigenvalues, f and its derivative."""

    ours: Callable[[Tensor], Tensor]
    f: Callable[[Tensor], Tensor]
    df: Callable[[Tensor], Tensor]
    positive: bool = True


FUNCTIONS = {
    "logm": Function(lambda A: lk.logm(A, check=False), torch.log, torch.reciprocal),
    "logm, high": Function(
        lambda A: lk.logm(A, check=False, accuracy="high"), torch.log, torch.reciprocal
    ),
    "sqrtm": Function(lambda A: lk.sqrtm(A, check=False), torch.sqrt, lambda w: w.rsqrt() / 2),
    "inv_sqrtm": Function(
        lambda A: lk.inv_sqrtm(A, check=False), torch.rsqrt, lambda w: w**-1.5 / 2
    ),
    "powm 0.3": Function(
        lambda A: lk.powm(A, 0.3, check=False), lambda w: w**0.3, lambda w: 0.3 * w**-0.7
    ),
    "powm -1": Function(
        lambda A: lk.powm(A, -1.0, check=False), torch.reciprocal, lambda w: w**-2
    ),
    "clamp_eigvals": Function(
        lambda A: lk.clamp_eigvals(A, 1e-4, check=False),
        lambda w: w.clamp_min(1e-4), torch.ones_like, False,
    ),
    "expm": Function(lambda A: lk.expm(A, check=False), torch.exp, torch.exp, False),
}  # fmt: skip


# Operation, function with its divided differences, and second derivative.
GRADIENTS = {
    "logm": (lk.logm, scalar.LOG, lambda w: w**-2),
    "sqrtm": (lk.sqrtm, scalar.SQRT, lambda w: w**-1.5 / 4),
    "inv_sqrtm": (lk.inv_sqrtm, scalar.INV_SQRT, lambda w: 0.75 * w**-2.5),
}


def norms(A: Tensor) -> Tensor:
    """Frobenius norms that neither overflow nor underflow."""
    largest = A.abs().amax((-2, -1)).clamp_min(torch.finfo(torch.float64).tiny)
    return largest * torch.linalg.matrix_norm(A / largest[:, None, None])


def ratio(difference: Tensor, allowed: Tensor) -> Tensor:
    """Errors in units of what is allowed; ∞ for NaN."""
    return torch.where(difference.isnan(), torch.inf, difference / allowed)


def function_errors(name: str, A: Tensor, of: Exact) -> tuple[Tensor, Tensor]:
    """(error in units of the bound, which matrices it is stated for)."""
    fn = FUNCTIONS[name]
    stated = of.positive.clone() if fn.positive else torch.ones_like(of.positive)
    if name == "expm":
        # Beyond, the result overflows in float32.
        stated &= of.w[:, -1] < 80
        stated &= of.w[:, 0] > -80
    w = torch.where(stated[:, None], of.w, 1.0)
    value, slope = fn.f(w), fn.df(w)
    F = (of.V * value[:, None, :]) @ of.V.mT
    size = norms(F)
    # Of float32: also the result must fit.
    info = torch.finfo(A.dtype)
    stated &= (value.abs().amax(-1) < info.max / 100) & (size > 100 * info.tiny)
    kappa = slope.abs().amax(-1) * w.abs().amax(-1) / size
    allowed = stated_error(A) * (1 + kappa)
    if name == "logm, high":
        # A column takes part in n - 1 rotations a sweep: more than in other ways.
        allowed = 2 * allowed
    if A.dtype == torch.float64:
        # What is taken for exact is as inexact itself.
        allowed = 2 * allowed
    safe = definite(A, stated) if fn.positive else A
    return ratio(norms(fn.ours(safe).double() - F) / size, allowed), stated & (allowed < 0.3)


def definite(A: Tensor, positive: Tensor) -> Tensor:
    """A with the identity in place of what an operation may refuse."""
    return torch.where(positive[:, None, None], A, torch.eye(A.shape[-1], dtype=A.dtype))


def eigen_errors(A: Tensor, of: Exact) -> dict[str, tuple[Tensor, Tensor]]:
    """Of eigh and eigvalsh: backward errors and orthogonality."""
    every = torch.ones_like(of.positive)
    size = norms(A.double())
    some = size > 0
    allowed = stated_error(A)
    w, V = lk.eigh(A, check=False)
    w, V = w.double(), V.double()
    back = norms((V * w[:, None, :]) @ V.mT - A.double()) / size.clamp_min(1e-323)
    eye = torch.eye(A.shape[-1], dtype=torch.float64)
    straight = norms(V.mT @ V - eye)
    alone = lk.eigvalsh(A, check=False).double()
    off = (alone - of.w).abs().amax(-1) / size.clamp_min(1e-323)
    order = (w.diff(dim=-1) < 0).any(-1)
    return {
        "eigh": (ratio(torch.where(order, torch.inf, back), allowed), some),
        "eigh, orthogonal": (
            ratio(straight, stated_error(torch.ones_like(A))),
            every,
        ),
        "eigvalsh": (ratio(off, 2 * allowed), some),
    }


def _eps(A: Tensor) -> float:
    return torch.finfo(A.dtype).eps


def cholesky_errors(A: Tensor, of: Exact) -> dict[str, tuple[Tensor, Tensor]]:
    """Of the factor and what is built on it: backward errors."""
    size = norms(A.double()).clamp_min(1e-323)
    allowed = 20 * floor(A)
    A = definite(A, of.positive)
    L = lk.cholesky(A, check=False)
    back = norms(L.double() @ L.double().mT - A.double()) / size
    w = torch.where(of.positive[:, None], of.w, 1.0)
    terms = w.log().abs().amax(-1).clamp_min(1.0)
    kappa = w[:, -1] / w[:, 0]
    ld = (lk.logdet(A, check=False).double() - w.log().sum(-1)).abs()
    n = A.shape[-1]
    stated = of.positive & (allowed * kappa < 0.3)
    return {
        "cholesky": (ratio(back, allowed), of.positive),
        "logdet": (ratio(ld, 2 * allowed * n * (kappa + terms)), stated),
        "chol_log": (
            ratio(norms(lk.from_chol_log(lk.chol_log(A, check=False)).double() - A.double()) / size,
                  allowed * (1 + terms)),
            of.positive,
        ),
    }  # fmt: skip


def gradient_errors(name: str, A: Tensor, of: Exact) -> tuple[Tensor, Tensor]:
    """Of the derivative in a direction, and of the eigenvalues' pencil with the identity."""
    op, fn, second = GRADIENTS[name]
    n = A.shape[-1]
    G = torch.linspace(-1, 1, n * n, dtype=torch.float64).cos().view(n, n)
    G = G + G.mT
    w = torch.where(of.positive[:, None], of.w, 1.0)
    K = fn.first(w[:, :, None], w[:, None, :], None)
    seen = of.V.mT @ G @ of.V
    exactly = of.V @ (K * seen) @ of.V.mT
    leaf = definite(A, of.positive).requires_grad_()
    (found,) = torch.autograd.grad(op(leaf, check=False), leaf, G.to(A.dtype).expand_as(leaf))
    size = K.abs().amax((-2, -1))
    kappa = second(w).abs().amax(-1) * w[:, -1] / size
    allowed = 20 * n * floor(A) * (1 + kappa) * (2 if A.dtype == torch.float64 else 1)
    info = torch.finfo(A.dtype)
    fits = (size < info.max / 1e4) & (size > 1e4 * info.tiny)
    error = norms(found.double() - exactly) / (size * torch.linalg.matrix_norm(G))
    return ratio(error, allowed), of.positive & fits & (allowed < 0.3)


def distance_errors(A: Tensor, of: Exact) -> dict[str, tuple[Tensor, Tensor]]:
    """Of the distance to I and its gradient at I, -log(A) / distance."""
    n = A.shape[-1]
    w = torch.where(of.positive[:, None], of.w, 1.0)
    logs = w.log()
    value = torch.linalg.vector_norm(logs, dim=-1)
    slope = of.V @ (logs[..., None] * of.V.mT) / value.clamp_min(1e-300)[:, None, None]
    P = torch.eye(n, dtype=A.dtype).expand_as(A).clone().requires_grad_()
    found = lk.pencil_log_norm(P, definite(A, of.positive))
    (gP,) = torch.autograd.grad(found.sum(), P)
    kappa = w[:, -1] / w[:, 0]
    allowed = 20 * n * floor(A) * (1 + kappa) * (2 if A.dtype == torch.float64 else 1)
    stated = of.positive & (allowed < 0.3) & (value > 0.1)
    return {
        "distance": (ratio((found.detach().double() - value).abs(), allowed), stated),
        "distance, gradient": (
            ratio(norms(gP.double() + slope), allowed * (1 + 2 / value.clamp_min(1e-300))), stated
        ),
    }  # fmt: skip


def mean_errors(A: Tensor, of: Exact) -> tuple[Tensor, Tensor]:
    """Of Karcher means of eight matrices: the mean logarithm seen from them, over the spread."""
    at = of.positive & (of.w[:, -1] / of.w[:, 0].clamp_min(1e-300) < 1e4)
    unit = A / A.abs().amax((-2, -1)).clamp_min(torch.finfo(A.dtype).tiny)[:, None, None]
    sets = definite(unit, at)[: len(A) // 800 * 8].unflatten(0, (-1, 8)) if len(A) >= 800 else A[:0]
    error, stated = torch.zeros(len(A), dtype=torch.float64), torch.zeros(len(A), dtype=torch.bool)
    if sets.numel():
        M = lk.karcher_mean(sets, check=False).double()
        C = torch.linalg.inv(torch.linalg.cholesky(M))[:, None]
        with lk.backend("torch"):
            logs = lk.logm(C @ sets.double() @ C.mT)
        left = torch.linalg.matrix_norm(logs.mean(1)) / (1 + torch.linalg.matrix_norm(logs).amax(1))
        bound = 2e-3 if A.dtype == torch.float32 else 1e-7
        error[: len(left)], stated[: len(left)] = ratio(left, torch.full_like(left, bound)), True
    return error, stated


def lyapunov_errors(A: Tensor, of: Exact) -> dict[str, tuple[Tensor, Tensor]]:
    """A X + X A = A has the solution I / 2."""
    kappa = of.w[:, -1] / torch.where(of.positive, of.w[:, 0], 1.0)
    safe = definite(A, of.positive)
    X = lk.lyapunov(safe, safe).double()
    eye = torch.eye(A.shape[-1], dtype=torch.float64) / 2
    allowed = 20 * floor(A) * (1 + kappa)
    return {"lyapunov": (ratio(norms(X - eye), allowed), of.positive & (allowed < 0.3))}


def other_errors(A: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Of operations on matrices of any kind: orthogonality and backward errors, 20 ε n."""
    n = A.shape[-1]
    every = torch.ones(len(A), dtype=torch.bool)
    eps, eye = _eps(A), torch.eye(n, dtype=torch.float64)
    allowed = torch.full((len(A),), 20 * eps * n, dtype=torch.float64)
    Q = lk.householder_product(
        A
        + 0.1 * torch.eye(n, dtype=A.dtype) * A.abs().amax((-2, -1))[:, None, None]
        + torch.finfo(A.dtype).tiny
    ).double()
    S = A / A.abs().amax((-2, -1)).clamp_min(torch.finfo(A.dtype).tiny)[:, None, None]
    K = S.tril(-1) - S.tril(-1).mT
    R = lk.so_exp(K).double()
    found = {
        "householder_product": (ratio(norms(Q.mT @ Q - eye), allowed), every),
        "so_exp": (ratio(norms(R.mT @ R - eye), allowed), every),
    }
    sigma = torch.linalg.svdvals(S.double())
    if n > 1:
        gap = sigma[:, 0] > 1.01 * sigma[:, 1]
        rest = lk.remove_rank1(S).double()
        left = (torch.linalg.matrix_norm(rest) - sigma[:, 1:].square().sum(-1).sqrt()).abs()
        found["remove_rank1"] = (
            ratio(left / sigma[:, 0].clamp_min(1e-300), allowed * 50), gap & (sigma[:, 0] > 0)
        )  # fmt: skip
    return found


def check(A: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Errors of each operation in units of what is allowed, and where that is stated."""
    of = exact(A)
    found = {name: function_errors(name, A, of) for name in FUNCTIONS}
    found |= {f"{name}, gradient": gradient_errors(name, A, of) for name in GRADIENTS}
    found |= eigen_errors(A, of) | cholesky_errors(A, of) | distance_errors(A, of)
    found["karcher_mean"] = mean_errors(A, of)
    found |= lyapunov_errors(A, of) | other_errors(A)
    return found


class Worst:
    """The worst matrices of each operation."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.count: dict[str, int] = {}
        self.beyond: dict[str, int] = {}
        self.found: dict[str, list[tuple[float, np.ndarray]]] = {}

    def add(self, name: str, A: Tensor, errors: Tensor, stated: Tensor) -> None:
        """Takes the errors of a batch."""
        errors = torch.where(stated, errors, 0.0)
        self.count[name] = self.count.get(name, 0) + int(stated.sum())
        self.beyond[name] = self.beyond.get(name, 0) + int((errors > 1).sum())
        best = self.found.setdefault(name, [])
        for i in errors.topk(min(self.keep, len(A))).indices.tolist():
            best.append((float(errors[i]), A[i].numpy().copy()))
        best.sort(key=lambda one: -one[0])
        del best[self.keep :]


def soak(count: int, dtype: torch.dtype, seed: int, keep: int, tell: bool = True) -> Worst:
    """`count` matrices through every operation."""
    g = torch.Generator().manual_seed(seed)
    worst = Worst(keep)
    start = time.perf_counter()
    for n, share in ORDERS.items():
        left = round(count * share)
        while left > 0:
            A = matrices(min(BATCH, left), n, dtype, g)
            for name, (errors, stated) in check(A).items():
                worst.add(name, A, errors, stated)
            left -= BATCH
        if tell:
            print(f"{dtype}, n = {n}: {time.perf_counter() - start:.0f} s", flush=True)
    return worst


def main() -> None:
    # A test takes the operations from here, and has no need of the report's package.
    from eigenworks.timing import arguments, write_rows

    parser = arguments(__doc__)
    parser.add_argument(
        "--count", type=int, help="of matrices of each dtype, 1,000,000 if not told"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=int, default=3, help="worst matrices of each operation")
    parser.add_argument("--worst", type=Path, help="where to write the worst matrices (.npz)")
    options = parser.parse_args()
    count = options.count or (2000 if options.quick else 1_000_000)
    torch.set_num_threads(1)
    rows, kept = [], {}
    for dtype in (torch.float32, torch.float64):
        worst = soak(count, dtype, options.seed, options.keep)
        for name, found in worst.found.items():
            error = found[0][0]
            print(
                f"{str(dtype)[6:]:8} {name:20} {worst.count[name]:>9,} stated, "
                f"{worst.beyond[name]:>7,} beyond, worst {error:.3g} of the bound"
            )
            rows.append({
                "label": f"{name}, {str(dtype)[6:]}", "metric": "worst error", "unit": "bound",
                "value": error, "matrices": worst.count[name], "beyond": worst.beyond[name],
                "better": "lower",
            })  # fmt: skip
            for place, (_, A) in enumerate(found):
                kept[f"{name}/{str(dtype)[6:]}/{place}"] = A
    write_rows(options.out, "Is any of a million matrices treated badly?", rows)
    if options.worst is not None:
        np.savez_compressed(options.worst, **kept)


if __name__ == "__main__":
    main()
