"""How often a geodesic of a Cholesky metric cannot be computed (Chen et al. 2026, Table 5).

γ(½) from a factor L with one pivot near 0 along X, drawn as in the paper: the pivot is ε u,
the other diagonal entries u, entries below the diagonal normal, X normal with its diagonal
made positive ("positive") or left as it is ("signed"). A draw fails if γ(½) is not finite or,
for signed X, if the geodesic has ended before.
"""

from collections.abc import Iterator

import torch
from eigenworks import Claim, Curve, Experiment, Figure, Lines, Row, Size, Trial, wilson
from torch import Tensor

from spd_metrics.cholesky_product import CholeskyBuresWasserstein, CholeskyLog, CholeskyPower
from spd_metrics.metric import Pullback

SMALL = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-10)
TINY = (1e-20, 1e-21, 1e-22, 1e-23, 1e-24, 1e-25, 1e-30)
THETAS = (1.5, 0.5, 0.15)


def draw(size: int, count: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Factors L and velocities X of both signs (count, size, size)."""
    L = torch.randn(count, size, size, dtype=torch.float64).tril(-1)
    # Of (0, 1]: the smallest number of torch.rand is 0, which is no pivot.
    diagonal = 1 - torch.rand(count, size, dtype=torch.float64)
    diagonal[:, 0] *= epsilon
    X = torch.randn(count, size, size, dtype=torch.float64).tril()
    return L + torch.diag_embed(diagonal), X


def positive(X: Tensor) -> Tensor:
    """X with the absolute values of its diagonal."""
    return X.tril(-1) + torch.diag_embed(X.diagonal(dim1=-2, dim2=-1).abs())


def as_published(L: Tensor, X: Tensor, exponent: float) -> Tensor:
    """γ(½) by the formulas of Table 1 as they stand, l exp(x/2l) or l (1 + a x/2l)^(1/a)."""
    pivots, x = L.diagonal(dim1=-2, dim2=-1), X.diagonal(dim1=-2, dim2=-1)
    rate = 0.5 * x / pivots
    moved = torch.exp(rate) if exponent == 0 else (1 + exponent * rate) ** (1 / exponent)
    return (L + 0.5 * X).tril(-1) + torch.diag_embed(pivots * moved)


def failures(metric: Pullback, L: Tensor, X: Tensor) -> Tensor:
    """Which draws do not give a finite factor."""
    return ~metric.exp(L, 0.5 * X).isfinite().flatten(1).all(1)


def _families() -> Iterator[tuple[str, float, str]]:
    yield "log", 0.0, "CholeskyLog"
    for theta in THETAS:
        yield f"power, θ={theta}", theta, "CholeskyPower"
    for theta in THETAS:
        yield f"Bures-Wasserstein, θ={theta}", theta / 2, "CholeskyBuresWasserstein"


def _metric(kind: str, exponent: float, domain: str) -> Pullback:
    if kind == "CholeskyLog":
        return CholeskyLog()
    if kind == "CholeskyPower":
        return CholeskyPower(exponent, domain)  # ty: ignore[invalid-argument-type]
    return CholeskyBuresWasserstein(2 * exponent, domain=domain)  # ty: ignore[invalid-argument-type]


def run(trial: Trial) -> Iterator[Row]:
    """Failure rates in per cent: formulas as published, in logarithms, and clamped."""
    sizes, draws = trial.parameters["sizes"], trial.parameters["draws"]
    assert isinstance(sizes, tuple)
    assert isinstance(draws, tuple)
    families = tuple(_families())
    total = len(sizes) * len(families)
    for n, count in zip(map(int, sizes), map(int, draws), strict=True):
        batch = max(1, min(count, 1_000_000 // (n * n)))
        for number, (name, exponent, kind) in enumerate(families):
            trial.progress((sizes.index(n) * len(families) + number) / total, f"{name}, n={n}")
            deep = kind == "CholeskyBuresWasserstein" and exponent < 0.1
            levels = TINY if deep else SMALL
            # The log metric is complete: it has no boundary to stop at.
            ways = {"in logarithms": "nan", "clamped": "clamp"}
            if kind == "CholeskyLog":
                del ways["clamped"]
            rates: dict[str, list[float]] = {}
            for epsilon in levels:
                failed = dict.fromkeys(("as published", *ways, "signed"), 0)
                done = 0
                while done < count:
                    size = min(batch, count - done)
                    L, signed = draw(n, size, epsilon)
                    X = positive(signed)
                    published = as_published(L, X, exponent)
                    failed["as published"] += int((~published.isfinite().flatten(1).all(1)).sum())
                    for how, domain in ways.items():
                        failed[how] += int(failures(_metric(kind, exponent, domain), L, X).sum())
                    metric = _metric(kind, exponent, "nan")
                    failed["signed"] += int(failures(metric, L, signed).sum())
                    done += size
                for how, hits in failed.items():
                    rates.setdefault(how, []).append(100 * hits / count)
            for how, line in rates.items():
                curves = [Curve(each, range(len(levels)), rates[each]) for each in rates]
                plot = Lines(
                    f"{name}, n={n}: failures against the pivot {levels[0]:g} … {levels[-1]:g}",
                    "which pivot",
                    "failures in %",
                    tuple(curves),
                )
                for epsilon, rate in zip(levels, line, strict=True):
                    first = how == "as published" and epsilon == levels[0]
                    yield Row(
                        f"{name}, {how}, n={n}, ε={epsilon:.0e}",
                        "failures",
                        rate,
                        unit="%",
                        better="lower",
                        interval=wilson(round(rate * count / 100), count, scale=100, of="draws"),
                        plots=(plot,) if first else (),
                    )


_PUBLISHED = {
    ("log", 3): (SMALL, (0.62, 5.70, 51.32, 94.34, 99.39, 100.0)),
    ("log", 256): (SMALL, (14.29, 18.48, 58.35, 95.02, 99.47, 100.0)),
    ("Bures-Wasserstein, θ=0.15", 3): (TINY, (0.002, 0.03, 0.25, 2.26, 22.98, 86.34, 100.0)),
    ("Bures-Wasserstein, θ=0.15", 256): (TINY, (0.02, 0.01, 0.23, 2.42, 23.13, 86.58, 100.0)),
}


def _tolerance(rate: float, n: int) -> float:
    """Three standard errors of a rate in per cent, and 0.5 for those of the table itself."""
    draws = 50_000 if n == 3 else 500
    return 0.5 + 3 * (rate * (100 - rate) / draws) ** 0.5


_ZERO = [f"power, θ={theta}" for theta in THETAS]
_ZERO += [f"Bures-Wasserstein, θ={theta}" for theta in THETAS[:2]]

experiment = Experiment(
    name="spd-metrics/stability",
    title="Geodesics of Cholesky metrics near a vanishing pivot",
    claim=Claim(
        "The power and Bures-Wasserstein metrics on Cholesky factors do not overflow where the "
        "log metric does",
        source="Chen et al., ICLR 2026, Table 5",
    ),
    run=run,
    quick=Size(seconds=8, seeds=(0,), parameters={"sizes": (3,), "draws": (20_000,)}),
    full=Size(seconds=600, seeds=(0,), parameters={"sizes": (3, 256), "draws": (50_000, 500)}),
    figures=tuple(
        Figure(
            f"{name}, as published, n={n}, ε={epsilon:.0e}",
            "failures",
            value,
            "Chen et al., ICLR 2026, Table 5",
            tolerance=_tolerance(value, n),
        )
        for (name, n), (levels, values) in _PUBLISHED.items()
        for epsilon, value in zip(levels, values, strict=True)
    )
    + tuple(
        Figure(
            f"{name}, as published, n={n}, ε={epsilon:.0e}",
            "failures",
            0.0,
            "Chen et al., ICLR 2026, Table 5",
            tolerance=0.1,
        )
        for name in _ZERO
        for n in (3, 256)
        for epsilon in SMALL
    ),
    notes="50,000 draws of n = 3 and 500 of n = 256. 'in logarithms' overflows only where γ(½) "
    "is larger than the largest number; 'clamped' is domain='clamp', which stops there and short "
    "of the boundary. 'signed' draws the diagonal of X with both signs, as the paper does not: an "
    "incomplete metric's geodesic may then end before t = ½. Published power and "
    "Bures-Wasserstein figures are at the smallest pivots of their columns; 0 stands for all.",
)
