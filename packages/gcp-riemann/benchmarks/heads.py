"""What does normalising covariances cost, beside iSQRT-COV and SVD-Padé as published?

One thread, forward and backward, batch 8, maps of 14 x 14 positions, C = 64, 128, 256 channels
without reduction, from the maps to the vector that the classifier reads. The published
constructions are written anew from their description: float64 throughout, a dense M x M
centring matrix for each image; iSQRT-COV keeps all iterates and walks backwards through them
image by image; SVD-Padé takes a singular value decomposition and replaces 1/(σi - σj) by the
[50/50] Padé approximant of 1/(1 - x); the log-Cholesky head differentiates the Cholesky factor
by its textbook formula with explicit inverses. Medians of interleaved runs in one process.

Error: of the features, and of the gradient of the maps, against float64: against the root
itself for powers, against the same steps or the same shift where those are compared.
Residual: ‖R² - Σ‖_F / ‖Σ‖_F of the root. Memory: the most that a forward and backward pass
holds beyond its maps, as torch's profiler of CPU memory sees it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mpmath
import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from gcp_riemann import (
    covariance_pooling,
    log_cholesky,
    matrix_power,
    newton_schulz_root,
    root_residual,
    vectorise,
)
from gcp_riemann.newton_schulz import Scaling
from gcp_riemann.shift import default_shift
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

QUESTION = "What does normalising covariances cost beside iSQRT-COV and SVD-Padé as published?"
BATCH, POSITIONS, DEGREE = 8, 196, 50


# --- the published constructions ------------------------------------------------------------


class DenseCovariance(torch.autograd.Function):
    """X Ī Xᵀ with Ī = (I - 11ᵀ/M)/M repeated for every image, in float64."""

    @staticmethod
    def forward(ctx, X):
        X = X.double()
        M = X.shape[-1]
        centring = (torch.eye(M) - torch.ones(M, M) / M).double() / M
        centring = centring.repeat(len(X), 1, 1)
        ctx.save_for_backward(X, centring)
        return X.bmm(centring).bmm(X.mT)

    @staticmethod
    def backward(ctx, G):
        X, centring = ctx.saved_tensors
        return (G + G.mT).bmm(X).bmm(centring).float()


class PublishedNewtonSchulz(torch.autograd.Function):
    """Trace normalisation, N coupled steps with every iterate kept, reverse of the recursion."""

    @staticmethod
    def forward(ctx, S, iters):
        n = S.shape[-1]
        eye3 = 3 * torch.eye(n, dtype=S.dtype).repeat(len(S), 1, 1)
        t = S.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
        A = S / t
        Ys = torch.zeros(len(S), iters, n, n, dtype=S.dtype)
        Zs = torch.zeros(len(S), iters, n, n, dtype=S.dtype)
        T = 0.5 * (eye3 - A)
        Ys[:, 0], Zs[:, 0] = A.bmm(T), T
        for k in range(1, iters - 1):
            T = 0.5 * (eye3 - Zs[:, k - 1].bmm(Ys[:, k - 1]))
            Ys[:, k], Zs[:, k] = Ys[:, k - 1].bmm(T), T.bmm(Zs[:, k - 1])
        last = 0.5 * Ys[:, iters - 2].bmm(eye3 - Zs[:, iters - 2].bmm(Ys[:, iters - 2]))
        ctx.save_for_backward(S, A, last, t, Ys, Zs)
        ctx.iters = iters
        return last * t.sqrt()

    @staticmethod
    def backward(ctx, G):
        S, A, last, t, Ys, Zs = ctx.saved_tensors
        n, iters = S.shape[-1], ctx.iters
        eye3 = 3 * torch.eye(n, dtype=S.dtype).repeat(len(S), 1, 1)
        outer = G * t.sqrt()
        slope = (G * last).sum((-2, -1), keepdim=True) / (2 * t.sqrt())
        Y, Z = Ys[:, iters - 2], Zs[:, iters - 2]
        dY = 0.5 * (outer.bmm(eye3 - Y.bmm(Z)) - Z.bmm(Y).bmm(outer))
        dZ = -0.5 * Y.bmm(outer).bmm(Y)
        for k in range(iters - 3, -1, -1):
            Y, Z = Ys[:, k], Zs[:, k]
            YZ, ZY = eye3 - Y.bmm(Z), Z.bmm(Y)
            newY = 0.5 * (dY.bmm(YZ) - Z.bmm(dZ).bmm(Z) - ZY.bmm(dY))
            newZ = 0.5 * (YZ.bmm(dZ) - Y.bmm(dY).bmm(Y) - dZ.bmm(ZY))
            dY, dZ = newY, newZ
        gA = 0.5 * (dY.bmm(eye3 - A) - dZ - A.bmm(dY))
        g = gA / t
        inner = (gA.mT * S.mT).sum((-2, -1))
        for i in range(len(S)):
            g[i] += torch.diag((slope[i, 0, 0] - inner[i] / t[i, 0, 0] ** 2).repeat(n))
        return g, None


def pade_coefficients() -> tuple[list[float], list[float]]:
    """Numerator and denominator of the [50/50] approximant of 1/(1 - x), to 20 digits.

    Exactly it would be 1/(1 - x) itself, and its equations be singular; the rounding of the
    numerically differentiated series leaves them a solution, as in the published code.
    """
    with mpmath.workdps(20):
        series = mpmath.taylor(lambda x: 1.0 / (1.0 - x), 0, 2 * DEGREE + 1)
        p, q = mpmath.pade(series, DEGREE, DEGREE)
    return [float(c) for c in p], [float(c) for c in q]


class PublishedPade(torch.autograd.Function):
    """U √σ Uᵀ by SVD; backward through eigenvectors with a Padé form of 1/(σi - σj)."""

    coefficients: tuple[list[float], list[float]] = ([], [])

    @staticmethod
    def forward(ctx, S):
        U, s, _ = torch.linalg.svd(S)
        s = s.clamp_min(torch.finfo(S.dtype).eps)
        ctx.save_for_backward(U, s)
        return (U * s.sqrt()[:, None, :]) @ U.mT

    @staticmethod
    def backward(ctx, G):
        U, s = ctx.saved_tensors
        p, q = PublishedPade.coefficients
        largest, smallest = (
            torch.maximum(s[:, :, None], s[:, None, :]),
            torch.minimum(s[:, :, None], s[:, None, :]),
        )
        x = smallest / largest
        top, bottom = torch.zeros_like(x), torch.zeros_like(x)
        power = torch.ones_like(x)
        for a, b in zip(p, q, strict=False):
            top, bottom = top + a * power, bottom + b * power
            power = power * x
        K = top / bottom / largest
        sign = torch.sign(s[:, None, :] - s[:, :, None])
        K = torch.nan_to_num(K, 0.0, torch.finfo(K.dtype).max, torch.finfo(K.dtype).min) * sign
        K = K - torch.diag_embed(K.diagonal(dim1=-2, dim2=-1))
        root = s.sqrt()
        dU = (G + G.mT) @ U * root[:, None, :]
        ds = (U.mT @ G @ U).diagonal(dim1=-2, dim2=-1) * 0.5 / root
        inner = K * (U.mT @ dU)
        inner = (inner + inner.mT) / 2 + torch.diag_embed(ds)
        return U @ inner @ U.mT


class PublishedCholesky(torch.autograd.Function):
    """L of Σ + εI with the derivative L^-T Φ(Lᵀ G) L^-1 by an explicit inverse."""

    @staticmethod
    def forward(ctx, S):
        eye = torch.eye(S.shape[-1], dtype=S.dtype).repeat(len(S), 1, 1)
        L = torch.linalg.cholesky(S + 1e-6 * eye)
        ctx.save_for_backward(L)
        return L

    @staticmethod
    def backward(ctx, G):
        (L,) = ctx.saved_tensors
        inverse = torch.linalg.inv(L)
        P = (L.mT @ G.tril()).tril()
        P = P - torch.diag_embed(P.diagonal(dim1=-2, dim2=-1)) / 2
        g = inverse.mT @ P @ inverse
        return (g + g.mT) / 2


class PublishedTriangle(torch.autograd.Function):
    """Upper triangle by an index that is searched for in every call, in float32."""

    @staticmethod
    def forward(ctx, X):
        n = X.shape[-1]
        index = torch.ones(n, n).triu().reshape(n * n).nonzero()
        ctx.save_for_backward(X, index)
        return X.reshape(len(X), n * n)[:, index[:, 0]].float()

    @staticmethod
    def backward(ctx, g):
        X, index = ctx.saved_tensors
        n = X.shape[-1]
        G = torch.zeros(len(X), n * n)
        G[:, index[:, 0]] = g
        return G.reshape(len(X), n, n).to(X.dtype)


def published_isqrt(X: Tensor, iters: int) -> Tensor:
    """Features of iSQRT-COV."""
    return PublishedTriangle.apply(PublishedNewtonSchulz.apply(DenseCovariance.apply(X), iters))


def published_pade(X: Tensor) -> Tensor:
    """Features of SVD-Padé."""
    return PublishedTriangle.apply(PublishedPade.apply(DenseCovariance.apply(X)))


def published_cholesky(X: Tensor) -> Tensor:
    """Features of Cho-TMLR."""
    L = PublishedCholesky.apply(DenseCovariance.apply(X))
    lower = L.tril(-1)
    D = torch.diag_embed(L.diagonal(dim1=-2, dim2=-1).log())
    return PublishedTriangle.apply(lower + lower.mT + 2 * D)


# --- ours -----------------------------------------------------------------------------------


def ours_power(X: Tensor) -> Tensor:
    """MatrixPower by eigendecomposition."""
    return vectorise(matrix_power(covariance_pooling(X)))


def ours_newton(iters: int, scaling: Scaling = "spectrum") -> Callable[[Tensor], Tensor]:
    """MatrixPower by Newton-Schulz."""
    return lambda X: vectorise(newton_schulz_root(covariance_pooling(X), iters, scaling=scaling))


def ours_cholesky(X: Tensor) -> Tensor:
    """ChoTMLR."""
    return vectorise(log_cholesky(covariance_pooling(X)))


# --- measuring ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Ours against a rival on the same maps; `least` is the speed that is asked for."""

    name: str
    ours: Callable[[Tensor], Tensor]
    rival_name: str
    rival: Callable[[Tensor], Tensor]
    least: float


def maps(channels: int) -> Tensor:
    """ReLU features (8, C, 196) whose covariance has a falling spectrum."""
    draws = torch.Generator().manual_seed(channels)
    X = torch.randn(BATCH, channels, POSITIONS, generator=draws)
    mix = torch.randn(channels, channels, generator=draws) * torch.logspace(0, -1.5, channels)
    return (mix @ X / channels**0.5).relu()


def both_ways(features: Callable[[Tensor], Tensor], X: Tensor) -> tuple[Tensor, Tensor]:
    """Features, and the gradient of the maps for a fixed cotangent."""
    leaf = X.detach().requires_grad_()
    F = features(leaf)
    cotangent = torch.randn(F.shape, generator=torch.Generator().manual_seed(1)).to(F.dtype)
    (g,) = torch.autograd.grad(F, leaf, cotangent)
    return F.detach(), g


def held(features: Callable[[Tensor], Tensor], X: Tensor) -> float:
    """Most MiB allocated at once during `both_ways`, by the profiler's allocations in order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        both_ways(features, X)
    now = peak = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak / 2**20


def steps_to(S: Tensor, residual: float, scaling: Scaling) -> int:
    """The fewest steps of Newton-Schulz whose residual is at most this."""
    return next(
        iters
        for iters in range(2, 40)
        if float(root_residual(S, newton_schulz_root(S, iters, scaling=scaling)).max()) <= residual
    )


def cases(X: Tensor) -> list[Case]:
    """Comparisons for these maps. The target residuals are of 7 and 10 published steps."""
    S = covariance_pooling(X.double())
    found = [
        Case("MatrixPower, eigh, float32", ours_power, "SVD-Padé", published_pade, 3.0),
        Case("MatrixPower, eigh, float64", lambda X: ours_power(X.double()), "SVD-Padé",
             published_pade, 3.0),
    ]  # fmt: skip
    for plain in (7, 10):
        target = float(root_residual(S, newton_schulz_root(S, plain, scaling="trace")).max())
        mine = steps_to(S, target, "spectrum")
        found.append(
            Case(f"Newton-Schulz, residual {target:.1g}: {mine} steps", ours_newton(mine),
                 f"iSQRT-COV, {plain} steps",
                 lambda X, plain=plain: published_isqrt(X, plain), 2.0)
        )  # fmt: skip
    found.append(
        Case("Newton-Schulz, 5 published steps", ours_newton(5, "trace"), "iSQRT-COV, 5 steps",
             lambda X: published_isqrt(X, 5), 1.0)
    )  # fmt: skip
    found.append(Case("ChoTMLR", ours_cholesky, "Cho-TMLR", published_cholesky, 2.0))
    return found


def exact_of(case: Case, channels: int) -> tuple[Callable[[Tensor], Tensor], ...]:
    """What ours and the rival are to be held to: the same in float64, at the shift of each."""
    if case.name == "ChoTMLR":
        ours = default_shift(channels, torch.float32)
        return (
            lambda X: vectorise(log_cholesky(covariance_pooling(X), shift=ours)),
            lambda X: vectorise(
                log_cholesky(covariance_pooling(X), shift=0.0, absolute_shift=1e-6)
            ),
        )
    if case.name == "Newton-Schulz, 5 published steps":
        return (ours_newton(5, "trace"),) * 2
    return (ours_power,) * 2


def error(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Relative errors of features and gradient."""
    features, gradient = (
        float((g.double() - w).norm() / w.norm()) for g, w in zip(got, want, strict=True)
    )
    return features, gradient


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    PublishedPade.coefficients = pade_coefficients()
    rows = []
    print(f"{'':44s}{'ours ms':>9s}{'theirs':>9s}{'speed':>7s}   error of features, gradient:"
          " ours | theirs;  MiB ours, theirs")  # fmt: skip
    rounds = 1 if options.quick else options.rounds
    for channels in (64,) if options.quick else (64, 128, 256):
        X = maps(channels)
        for case in cases(X):
            pair = {"ours": case.ours, "rival": case.rival}
            calls = {name: partial(both_ways, features, X) for name, features in pair.items()}
            for call in calls.values():
                call()
            taken = medians(in_turns(calls, least=rounds))
            exact = exact_of(case, channels)
            mine, theirs = (
                error(both_ways(f, X), both_ways(e, X.double()))
                for f, e in zip(pair.values(), exact, strict=True)
            )
            memory, rival_memory = held(case.ours, X), held(case.rival, X)
            speed = taken["rival"] / taken["ours"]
            print(
                f"C={channels:3d} {case.name:38s}{1e3 * taken['ours']:9.1f}"
                f"{1e3 * taken['rival']:9.1f}{speed:6.1f}x   "
                f"{mine[0]:.0e} {mine[1]:.0e} | {theirs[0]:.0e} {theirs[1]:.0e};  "
                f"{memory:.0f}, {rival_memory:.0f}"
            )
            name = case.name.split(":")[0]
            rows.append({
                "label": f"{name}, C={channels}",
                "metric": f"speed over {case.rival_name.split(',')[0]}",
                "value": speed, "unit": "x", "better": "higher", "asked": case.least,
                "milliseconds": 1e3 * taken["ours"], "milliseconds of the rival":
                1e3 * taken["rival"], "error of features": mine[0], "error of gradient": mine[1],
                "error of the rival's features": theirs[0],
                "error of the rival's gradient": theirs[1], "MiB": memory,
                "MiB of the rival": rival_memory, "steps": case.name.partition(": ")[2],
                "rival": case.rival_name,
            })  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
