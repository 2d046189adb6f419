"""How fast are distances, means and maps beside pyRiemann, geoopt and spd-learn?

One thread, float64, B = 256 matrices of order 8, 32 and 64, best of several repeats with ours
and the peers' taken in turns. Values are checked to agree before anything is timed.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import geoopt
import numpy as np
import torch
from linalg_kernels.testing import random_spd
from pyriemann.geometry.distance import distance_riemann
from pyriemann.geometry.mean import mean_riemann
from pyriemann.geometry.tangentspace import exp_map_logeuclid, log_map_logeuclid
from spd_learn.functional import log_cholesky_distance
from spd_metrics import (
    AffineInvariant,
    BuresWassersteinCholesky,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
)
from torch import Tensor

BATCH = 256
ORDERS = (8, 32, 64)
QUESTION = "How fast are distances, means and maps beside pyRiemann, geoopt and spd-learn?"


def with_gradient(
    fn: Callable[[Tensor, Tensor], Tensor], P: Tensor, Q: Tensor
) -> Callable[[], Tensor]:
    """Value and gradient of Σ fn(P, Q)."""

    def call() -> Tensor:
        p, q = P.detach().requires_grad_(), Q.detach().requires_grad_()
        value = fn(p, q)
        value.sum().backward()
        return value.detach()

    return call


def published_cholesky(theta: float, power: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Distances of PCM (power θ) and BWCM (power θ/2) in a few lines of torch."""

    def dist(P: Tensor, Q: Tensor) -> Tensor:
        L, K = torch.linalg.cholesky(P), torch.linalg.cholesky(Q)
        lower = (L - K).tril(-1)
        ends = (F.diagonal(dim1=-2, dim2=-1) ** power for F in (L, K))
        step = (next(ends) - next(ends)) / theta
        return torch.sqrt((lower * lower).sum((-2, -1)) + (step * step).sum(-1))

    return dist


def cases(n: int) -> dict[str, dict[str, Callable[[], object]]]:
    """For each operation the implementations, ours first."""
    generator = torch.Generator().manual_seed(n)
    P, Q = (random_spd(BATCH, n, cond=100.0, generator=generator) for _ in range(2))
    p, q = P.numpy(), Q.numpy()
    geo = geoopt.SymmetricPositiveDefinite()
    base, V = P[0], LogEuclidean().log(P[0], Q)
    v = V.numpy()
    aim, lem = AffineInvariant(), LogEuclidean()
    found: dict[str, dict[str, Callable[[], object]]] = {
        "AIM distance, forward and backward": {
            "ours": with_gradient(aim.dist, P, Q),
            "geoopt": with_gradient(geo.dist, P, Q),
            "pyRiemann": with_gradient(distance_riemann, P, Q),
        },
        "LEM log": {
            "ours": lambda: lem.log(base, Q),
            "pyRiemann": lambda: log_map_logeuclid(q, p[0]),
        },
        "LEM exp": {
            "ours": lambda: lem.exp(base, V),
            "pyRiemann": lambda: exp_map_logeuclid(v, p[0]),
        },
        "LCM distance, forward and backward": {
            "ours": with_gradient(LogCholesky().dist, P, Q),
            "spd-learn": with_gradient(log_cholesky_distance, P, Q),
        },
        "PCM distance, forward and backward": {
            "ours": with_gradient(PowerCholesky(0.5).dist, P, Q),
            "published formula": with_gradient(published_cholesky(0.5, 0.5), P, Q),
        },
        "BWCM distance, forward and backward": {
            "ours": with_gradient(BuresWassersteinCholesky(0.5).dist, P, Q),
            "published formula": with_gradient(published_cholesky(0.5, 0.25), P, Q),
        },
    }
    if n <= 32:
        found["AIM mean to 1e-8"] = {
            "ours": lambda: torch.from_numpy(np.asarray(aim.mean(P))),
            "pyRiemann": lambda: mean_riemann(p, tol=1e-8),
        }
    return found


def best(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Least seconds of a call of each, in turns, for about `seconds` in all."""
    least = dict.fromkeys(calls, float("inf"))
    start = time.perf_counter()
    rounds = 0
    while rounds < 3 or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - begin)
        rounds += 1
    return least


def main() -> None:
    """Prints a table and writes rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each operation and order")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for n in ORDERS:
        for operation, calls in cases(n).items():
            values = {name: np.asarray(call()) for name, call in calls.items()}
            for name, value in values.items():
                if not np.allclose(value, values["ours"], rtol=1e-5, atol=1e-6):
                    raise SystemExit(f"{operation}, n={n}: {name} gives another value")
            least = best(calls, options.seconds)
            ours = least.pop("ours")
            for name, taken in least.items():
                speed = taken / ours
                print(
                    f"{operation:38s} n={n:2d}  ours {1e3 * ours:8.2f} ms  {name:18s} {speed:5.1f}x"
                )
                rows.append({"label": f"{operation}, n={n}", "metric": f"speed over {name}",
                             "value": speed, "unit": "x", "better": "higher",
                             "milliseconds": 1e3 * ours})  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps({"question": QUESTION, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
