"""How fast are distances, means and maps beside pyRiemann, geoopt and spd-learn?

One thread, float64, B = 256 matrices of order 8, 32 and 64, condition number 100. Ours and its
peers take turns in one process, in each turn as many calls as 8 ms hold, as `speed.py` of
linalg-kernels does; a row is the ratio of their median times, of this process alone. Values, and
gradients of distances, are compared first: the largest relative difference stands beside the ratio,
and one above 1e-5 ends the benchmark.
"""

import time
from collections.abc import Callable
from typing import Any

import geoopt
import numpy as np
import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from linalg_kernels.testing import random_spd
from pyriemann.geometry.distance import distance_riemann
from pyriemann.geometry.mean import mean_riemann
from pyriemann.geometry.tangentspace import exp_map_logeuclid, log_map_logeuclid
from spd_learn.functional import airm_distance, log_cholesky_distance
from spd_metrics import (
    AffineInvariant,
    BuresWassersteinCholesky,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
)
from torch import Tensor

QUESTION = "How fast are distances, means and maps beside pyRiemann, geoopt and spd-learn?"
BATCH = 256
ORDERS = (8, 32, 64)
TURN = 0.008  # seconds

Call = Callable[[], Any]


def with_gradient(fn: Callable[[Tensor, Tensor], Tensor], P: Tensor, Q: Tensor) -> Call:
    """Values of fn(P, Q) and the gradients of their sum."""
    leaves = P.clone().requires_grad_(), Q.clone().requires_grad_()
    G = torch.ones(P.shape[:-2], dtype=P.dtype)

    def call() -> tuple[Tensor, Tensor, Tensor]:
        value = fn(*leaves)
        of_P, of_Q = torch.autograd.grad(value, leaves, G)
        return value.detach(), of_P, of_Q

    return call


def published_cholesky(theta: float, power: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Distances of PCM (power θ) and BWCM (power θ/2) as Chen et al. (2026) define them."""

    def dist(P: Tensor, Q: Tensor) -> Tensor:
        L, K = torch.linalg.cholesky(P), torch.linalg.cholesky(Q)
        lower = (L - K).tril(-1)
        l, k = (F.diagonal(dim1=-2, dim2=-1) ** power for F in (L, K))  # noqa: E741
        step = (l - k) / theta
        return torch.sqrt((lower * lower).sum((-2, -1)) + (step * step).sum(-1))

    return dist


def cases(n: int) -> dict[str, dict[str, Call]]:
    """For each operation the implementations, ours first."""
    generator = torch.Generator().manual_seed(n)
    P, Q = (random_spd(BATCH, n, cond=100.0, generator=generator) for _ in range(2))
    p, q = P.numpy(), Q.numpy()
    geo = geoopt.SymmetricPositiveDefinite()
    aim, lem = AffineInvariant(), LogEuclidean()
    base, V = P[0], lem.log(P[0], Q)
    v = V.numpy()
    both = "distance, forward and backward"
    return {
        f"AIM {both}": {
            "ours": with_gradient(aim.dist, P, Q),
            "geoopt": with_gradient(geo.dist, P, Q),
            "pyRiemann": with_gradient(distance_riemann, P, Q),
            "spd-learn": with_gradient(airm_distance, P, Q),
        },
        "AIM mean to 1e-8": {
            "ours": lambda: aim.mean(P, tol=1e-8),
            "pyRiemann": lambda: mean_riemann(p, tol=1e-8),
        },
        "LEM log": {
            "ours": lambda: lem.log(base, Q),
            "pyRiemann": lambda: log_map_logeuclid(q, p[0]),
            "pyRiemann on torch": lambda: log_map_logeuclid(Q, base),
        },
        "LEM exp": {
            "ours": lambda: lem.exp(base, V),
            "pyRiemann": lambda: exp_map_logeuclid(v, p[0]),
            "pyRiemann on torch": lambda: exp_map_logeuclid(V, base),
        },
        f"LCM {both}": {
            "ours": with_gradient(LogCholesky().dist, P, Q),
            "spd-learn": with_gradient(log_cholesky_distance, P, Q),
        },
        f"PCM {both}": {
            "ours": with_gradient(PowerCholesky(0.5).dist, P, Q),
            "the published formula": with_gradient(published_cholesky(0.5, 0.5), P, Q),
        },
        f"BWCM {both}": {
            "ours": with_gradient(BuresWassersteinCholesky(0.5).dist, P, Q),
            "the published formula": with_gradient(published_cholesky(0.5, 0.25), P, Q),
        },
    }


def difference(found: Any, other: Any) -> float:
    """The largest relative difference of values, or of symmetric parts of matrices."""
    worst = 0.0
    pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (found, other)), strict=True)
    for mine, theirs in pairs:
        a, b = np.asarray(mine), np.asarray(theirs)
        if a.ndim >= 2:
            a, b = a + a.swapaxes(-2, -1), b + b.swapaxes(-2, -1)
        worst = max(worst, float(np.linalg.norm(a - b) / np.linalg.norm(b)))
    return worst


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each operation and order")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    budget, least = (0.0, 1) if options.quick else (options.seconds, 5)
    for n in ORDERS[:1] if options.quick else ORDERS:
        for operation, calls in cases(n).items():
            values = {name: call() for name, call in calls.items()}
            gaps = {name: difference(values["ours"], value) for name, value in values.items()}
            if max(gaps.values()) > 1e-5:
                raise SystemExit(f"{operation}, n={n}: values differ: {gaps}")
            taken = medians(
                in_turns(calls, budget, least=least, floor=TURN, clock=time.process_time)
            )
            ours = taken.pop("ours")
            for name, seconds in taken.items():
                print(
                    f"{operation:34s} n={n:2d} {1e3 * ours:8.2f} ms {seconds / ours:5.1f}x "
                    f"{name}, difference {gaps[name]:.0e}"
                )
                rows.append({"label": f"{operation}, n={n}", "metric": f"speed over {name}",
                             "value": seconds / ours, "unit": "x", "better": "higher",
                             "milliseconds": 1e3 * ours, "difference": gaps[name]})  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
