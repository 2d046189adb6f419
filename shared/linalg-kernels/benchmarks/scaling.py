"""How do the times of a logarithm and of a distance grow with the order and with the batch?

Forward and backward on one thread, microseconds a matrix, beside torch.linalg with autograd and
the fastest peer: over orders from 4 to 256 at 256 matrices (32 at 128, 8 at 256), and over batches
from 1 to 1024 at order 22. Of few large matrices torch computes the eigensystems; ours must not be
slower than 0.95 of it where a call takes it a millisecond. Times are CPU time of this process,
medians of calls in turns.

    python benchmarks/scaling.py --plot scaling.svg
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import linalg_kernels as lk
import pyriemann.geometry.distance
import spd_learn.functional
import torch
from eigenworks.timing import arguments, in_turns, medians, ratios, write_rows
from linalg_kernels.testing import random_spd
from torch import Tensor

ORDERS = (4, 8, 16, 22, 32, 64, 128, 256)
BATCHES = (1, 4, 16, 32, 64, 256, 1024)
AT = 22  # the order at which the batch varies
TURN = 0.005  # seconds
SLOWEST = 0.95  # of torch, where it takes a millisecond

Points = dict[str, list[tuple[int, float]]]


def log_by_eigh(A: Tensor) -> Tensor:
    """V log(w) V^T through torch's own eigh and autograd."""
    w, V = torch.linalg.eigh(A)
    return (V * torch.log(w)[..., None, :]) @ V.mT


def distance_by_eigh(P: Tensor, Q: Tensor) -> Tensor:
    """‖log(L^-1 Q L^-T)‖ through torch's own factorisations and autograd."""
    left = torch.linalg.solve_triangular(torch.linalg.cholesky(P), Q, upper=False)
    S = torch.linalg.solve_triangular(torch.linalg.cholesky(P), left.mT, upper=False)
    return torch.linalg.eigvalsh(S).log().square().sum(-1).sqrt()


OPERATIONS: dict[str, dict[str, Callable[..., Tensor]]] = {
    "logm": {
        "ours": lk.logm,
        "torch": log_by_eigh,
        "spd-learn": spd_learn.functional.matrix_log.apply,
    },
    "affine-invariant distance": {
        "ours": lk.pencil_log_norm,
        "torch": distance_by_eigh,
        "pyRiemann": pyriemann.geometry.distance.distance_riemann,
    },
}


def with_gradient(fn: Callable[..., Tensor], leaves: list[Tensor]) -> Callable[[], Any]:
    G = torch.ones_like(fn(*leaves))
    return lambda: torch.autograd.grad(fn(*leaves), leaves, G)


def measure(
    name: str, n: int, batch: int, dtype: torch.dtype, least: int
) -> dict[str, list[float]]:
    """Seconds of calls of each contestant."""
    generator = torch.Generator().manual_seed(n)
    count = 1 if name == "logm" else 2
    leaves = [
        random_spd(batch, n, cond=30.0, dtype=dtype, generator=generator).requires_grad_()
        for _ in range(count)
    ]
    calls = {who: with_gradient(fn, leaves) for who, fn in OPERATIONS[name].items()}
    return in_turns(calls, least=least, floor=TURN, clock=time.process_time)


def draw(path: Path, curves: dict[str, tuple[Points, Points]]) -> None:
    """Time a matrix against the order and against the batch."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(curves), 2, figsize=(9, 3.4 * len(curves)), squeeze=False)
    for row, (name, panels) in zip(axes, curves.items(), strict=True):
        for axis, points, label in zip(row, panels, ("order", f"batch (order {AT})"), strict=True):
            for who, curve in points.items():
                axis.loglog(*zip(*curve, strict=True), "o-", label=who)
            axis.set_xlabel(label)
            axis.set_ylabel("µs a matrix")
            axis.set_title(f"{name}, forward and backward")
            axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--plot", type=Path, help="draw the float32 curves into this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(lk.backend_info())
    orders, batches, least = ORDERS, BATCHES, 5
    if options.quick:
        orders, batches, least = (4, 22), (1, 32), 1
    sizes = [(n, {128: 32, 256: 8}.get(n, 256)) for n in orders] + [
        (AT, batch) for batch in batches
    ]
    rows: list[dict[str, Any]] = []
    curves: dict[str, tuple[Points, Points]] = {}
    for name in OPERATIONS:
        curves[name] = ({}, {})
        for dtype in (torch.float32, torch.float64):
            kind = str(dtype).removeprefix("torch.")
            for place, (n, batch) in enumerate(sizes):
                taken = measure(name, n, batch, dtype, least)
                middle = medians(taken)
                if dtype == torch.float32:
                    for who, seconds in middle.items():
                        points = curves[name][place >= len(orders)].setdefault(who, [])
                        at = n if place < len(orders) else batch
                        points.append((at, 1e6 * seconds / batch))
                label = f"{name} + gradient, {kind}, n={n}, batch {batch}"
                told = f"{label:58} {1e6 * middle['ours'] / batch:8.2f} µs"
                for who in middle:
                    if who == "ours":
                        continue
                    ratio = statistics.median(ratios(taken, who))
                    row = {"label": label, "metric": f"speed over {who}", "value": ratio,
                           "unit": "x", "better": "higher",
                           "microseconds_per_matrix": 1e6 * middle["ours"] / batch}  # fmt: skip
                    told += f"  {ratio:6.2f}x {who}"
                    if who == "torch" and middle["torch"] >= 1e-3:
                        row |= {"gate": SLOWEST, "met": ratio >= SLOWEST}
                        told += "" if ratio >= SLOWEST else " SLOWER"
                    rows.append(row)
                print(told, flush=True)
    if options.plot:
        draw(options.plot, curves)
    write_rows(options.out, __doc__.splitlines()[0], rows)


if __name__ == "__main__":
    main()
