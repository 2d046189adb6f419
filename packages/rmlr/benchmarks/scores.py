"""How fast are scores and their gradients beside the published construction, in what memory?

Forward and backward of sum(G ∘ logits), float64, one thread, all points at the identity,
in turns of 40 ms in one process; the published construction (`peers/published.py`) is written anew
from its description. Logits and gradients are checked to agree before anything is timed. Memory
is what the peak of the process grows by in one call, in a process of its own. "trivialised" is
the layer as it is made by default, "matrix" has P itself as parameter, as the published layer,
"scalar" is bias="scalar".
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import geoopt
import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from linalg_kernels.testing import random_spd
from peers.published import SCORES
from rmlr import RiemannianMLR
from rmlr.flat import Flat
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerEuclidean,
)
from torch import Tensor

QUESTION = "How fast are scores and their gradients beside the published construction?"
SIZES = ((30, 30, 117), (256, 8, 117), (30, 64, 117), (256, 30, 3))
METRICS = {
    "log-Euclidean": LogEuclidean(),
    "log-Cholesky": LogCholesky(),
    "Euclidean": PowerEuclidean(),
    "affine-invariant": AffineInvariant(),
    "Bures-Wasserstein": BuresWasserstein(),
}
PUBLISHED = "published"
Call = Callable[[], tuple[Tensor, Tensor]]


def layer(kind: str, name: str, n: int, c: int) -> RiemannianMLR | None:
    """The layer with one of its ways to hold points; None where a metric has it not."""
    metric = METRICS[name]
    torch.manual_seed(0)
    if kind == "matrix":
        return RiemannianMLR(n, c, metric, manifold=geoopt.SymmetricPositiveDefinite())
    if kind == "scalar":
        flat = isinstance(RiemannianMLR(n, c, metric).form, Flat)
        torch.manual_seed(0)
        return RiemannianMLR(n, c, metric, bias="scalar") if flat else None
    return RiemannianMLR(n, c, metric)


def case(kind: str, name: str, b: int, n: int, c: int) -> Call | None:
    """A call that gives logits and the gradient for S, and computes those of parameters."""
    generator = torch.Generator().manual_seed(1)
    S = random_spd(b, n, cond=50.0, generator=generator)
    G = torch.randn(b, c, generator=generator)
    if kind == PUBLISHED:
        model = layer("trivialised", name, n, c)
        assert model is not None
        lower = torch.nn.Parameter(model.A.detach())
        P = torch.nn.Parameter(torch.eye(n).expand(c, n, n).clone())

        def logits(S: Tensor) -> Tensor:
            A = lower.tril() + lower.tril(-1).mT
            return SCORES[name](S[:, None], P, A)

        parameters = [lower, P]
    else:
        made = layer(kind, name, n, c)
        if made is None:
            return None
        logits, parameters = made, list(made.parameters())

    def call() -> tuple[Tensor, Tensor]:
        for parameter in parameters:
            parameter.grad = None
        leaf = S.detach().requires_grad_()
        out = logits(leaf)
        (G * out).sum().backward()
        assert leaf.grad is not None
        return out.detach(), leaf.grad

    return call


def peak(kind: str, name: str, size: tuple[int, int, int]) -> float:
    """MiB that one call adds to the peak of a process that has done a small one."""
    arguments = [sys.executable, __file__, "--peak", kind, name, *map(str, size)]
    ended = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return float(ended.stdout)


def print_peak(kind: str, name: str, b: int, n: int, c: int) -> None:
    """What `peak` reads."""
    small, large = case(kind, name, 2, n, 2), case(kind, name, b, n, c)
    assert small is not None
    assert large is not None
    small()
    # Linux: lets the high-water mark start anew from what is held now.
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    large()
    print(high_water() - before)


def high_water() -> float:
    """Most MiB that this process has held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("memory is measured on Linux only")


def key(size: tuple[int, int, int]) -> str:
    """A size as the command line writes it."""
    return ",".join(map(str, size))


def relative(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest entry."""
    return float((got - want).abs().max() / want.abs().max())


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each metric and size")
    parser.add_argument("--sizes", nargs="*", choices=[*map(key, SIZES)],
                        default=[*map(key, SIZES)], help="b,n,c to measure")  # fmt: skip
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    if options.peak:
        kind, name, *size = options.peak
        print_peak(kind, name, *map(int, size))
        return
    rows = []
    print(f"{'(b, n, c)':16s}{'metric':19s}{'points':13s}{'ms':>9s}{'speed':>8s}"
          f"{'logits':>9s}{'gradient':>9s}{'MiB':>7s}")  # fmt: skip
    seconds, least, floor = (0.0, 1, 0.0) if options.quick else (options.seconds, 5, 4e-2)
    if options.quick:
        options.sizes = [key(SIZES[0])]
    for b, n, c in (size for size in SIZES if key(size) in options.sizes):
        for name in METRICS:
            kinds = (PUBLISHED, "trivialised", "matrix", "scalar")
            made = {kind: case(kind, name, b, n, c) for kind in kinds}
            calls = {kind: call for kind, call in made.items() if call is not None}
            logits, gradient = calls[PUBLISHED]()
            errors = {}
            for kind, call in calls.items():
                got = call()
                errors[kind] = relative(got[0], logits), relative(got[1], gradient)
                if max(errors[kind]) > 1e-9:
                    raise SystemExit(f"{name}, {kind}: differs from the published construction")
            times = medians(in_turns(calls, seconds, least=least, warm=True, floor=floor))
            for kind, taken in times.items():
                measured = b == 30 and kind in (PUBLISHED, "trivialised")
                memory = peak(kind, name, (b, n, c)) if measured else float("nan")
                speed = times[PUBLISHED] / taken
                print(f"{(b, n, c)!s:16s}{name:19s}{kind:13s}{1e3 * taken:9.2f}{speed:7.1f}x"
                      f"{errors[kind][0]:9.0e}{errors[kind][1]:9.0e}{memory:7.0f}",
                      flush=True)  # fmt: skip
                label = f"{name}, {kind}, b={b}, n={n}, c={c}"
                if measured:
                    rows.append({"label": label, "metric": "peak memory", "value": memory,
                                 "unit": "MiB", "better": "lower"})  # fmt: skip
                if kind != PUBLISHED:
                    rows.append({"label": label, "metric": "speed over the published construction",
                                 "value": speed, "unit": "x", "better": "higher",
                                 "milliseconds": 1e3 * taken,
                                 "difference": max(errors[kind])})  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
