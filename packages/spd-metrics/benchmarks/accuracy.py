"""How many digits do affine-invariant distances keep between ill-conditioned matrices?

20 random pairs of 6 x 6 matrices for each condition number, against the same distance in
60-digit arithmetic (mpmath) of the same double-precision entries.
"""

from collections.abc import Callable

import geoopt
import mpmath
import torch
from eigenworks.timing import arguments, write_rows
from linalg_kernels.testing import random_spd
from pyriemann.geometry.distance import distance_riemann
from spd_metrics import AffineInvariant
from torch import Tensor

QUESTION = "How many digits do affine-invariant distances keep between ill-conditioned matrices?"
CONDITIONS = (1e2, 1e4, 1e6)
PAIRS, ORDER = 20, 6


def exact(P: Tensor, Q: Tensor) -> list:
    """Distances in 60 digits."""
    found = []
    with mpmath.workdps(60):
        for p, q in zip(P.tolist(), Q.tolist(), strict=True):
            inverse = mpmath.inverse(mpmath.cholesky(mpmath.matrix(p)))
            w = mpmath.eigsy(inverse * mpmath.matrix(q) * inverse.T, eigvals_only=True)
            found.append(mpmath.sqrt(sum(mpmath.log(x) ** 2 for x in w)))
    return found


def main() -> None:
    """Prints a table and writes rows."""
    options = arguments(__doc__).parse_args()
    distances: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "ours": AffineInvariant().dist,
        "geoopt": geoopt.SymmetricPositiveDefinite().dist,
        "pyRiemann": distance_riemann,
    }
    rows = []
    for cond in CONDITIONS:
        generator = torch.Generator().manual_seed(int(cond))
        pairs = 2 if options.quick else PAIRS
        P, Q = (random_spd(pairs, ORDER, cond=cond, generator=generator) for _ in range(2))
        want = exact(P, Q)
        for name, dist in distances.items():
            both = zip(dist(P, Q).tolist(), want, strict=True)
            error = float(max(abs(got / d - 1) for got, d in both))
            print(f"condition {cond:.0e}, {name:9s} largest relative error {error:.0e}")
            rows.append({"label": f"condition {cond:.0e}", "metric": f"relative error, {name}",
                         "value": error, "better": "lower"})  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
