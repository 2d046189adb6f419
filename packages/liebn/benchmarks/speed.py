"""How fast is a training step of LieBatchNorm beside spd-learn's SPDBatchNormLie?

Forward and backward in training mode (statistics, running statistics, gradients of input, bias
and scale), one thread, batch x order 30x32, 256x8, 256x32, 256x64, float64 and float32. The
two take turns in one process, in each turn as many steps as 8 ms hold, as `speed.py` of
linalg-kernels does; a row is the ratio of their median times, of this process alone. Outputs and
gradients of the input are compared first; the largest relative difference is printed and written.
"""

import time
from collections.abc import Callable

import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from liebn import AffineInvariantGroup, LieBatchNorm, LogCholeskyGroup, LogEuclideanGroup
from linalg_kernels.testing import random_spd
from spd_learn.modules import SPDBatchNormLie
from torch import Tensor, nn

QUESTION = __doc__.splitlines()[0]
TURN = 0.008  # seconds
SIZES = ((30, 32), (256, 8), (256, 32), (256, 64))
GROUPS = {
    "AIM": (AffineInvariantGroup(), {"metric": "AIM"}),
    "LEM": (LogEuclideanGroup(), {"metric": "LEM"}),
    "LCM": (LogCholeskyGroup(), {"metric": "LCM"}),
    "AIM θ=1.5": (AffineInvariantGroup(theta=1.5), {"metric": "AIM", "theta": 1.5}),
    "LCM θ=0.5": (LogCholeskyGroup(theta=0.5), {"metric": "LCM", "theta": 0.5}),
}


def step(layer: nn.Module, X: Tensor, G: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """One training step: the output and the gradient in X of <G, output>."""
    leaf = X.clone().requires_grad_()

    def call() -> tuple[Tensor, Tensor]:
        layer.zero_grad()
        leaf.grad = None
        Y = layer(leaf)
        Y.backward(G)
        assert leaf.grad is not None
        return Y.detach(), leaf.grad

    return call


def difference(found: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """The larger of the relative differences of outputs and of symmetric gradients."""
    pairs = [found, other]
    (Y, g), (Z, h) = (((T + T.mT).double() / 2 for T in pair) for pair in pairs)
    return max(float((Y - Z).norm() / Z.norm()), float((g - h).norm() / h.norm()))


def measure(
    name: str, batch: int, n: int, dtype: torch.dtype, seconds: float, least: int = 5
) -> dict:
    """One row."""
    group, options = GROUPS[name]
    generator = torch.Generator().manual_seed(n)
    X = random_spd(batch, n, cond=100.0, generator=generator).to(dtype)
    B = random_spd(n, cond=4.0, generator=generator).to(dtype)
    G = torch.randn(batch, n, n, dtype=dtype, generator=generator)
    ours = LieBatchNorm(group, n, dtype=dtype)
    peer = SPDBatchNormLie(n, **options, dtype=dtype)
    with torch.no_grad():
        ours.bias = B
        peer.bias = B[None]  # ty: ignore[invalid-assignment]
    calls = {"ours": step(ours, X, G + G.mT), "peer": step(peer, X, G + G.mT)}
    gap = difference(*(call() for call in calls.values()))
    taken = in_turns(calls, seconds, least=least, floor=TURN, clock=time.process_time)
    mine, other = medians(taken).values()
    kind = str(dtype).removeprefix("torch.")
    return {
        "label": f"{name}, {batch}x{n}, {kind}",
        "metric": "speed over spd-learn",
        "value": other / mine,
        "unit": "x",
        "better": "higher",
        "milliseconds": 1e3 * mine,
        "milliseconds of spd-learn": 1e3 * other,
        "largest relative difference": gap,
    }


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each row")
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=list(GROUPS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    seconds, least = (0.0, 1) if options.quick else (options.seconds, 5)
    for dtype in (torch.float64, torch.float32):
        for name in options.groups:
            for batch, n in SIZES[1:2] if options.quick else SIZES:
                row = measure(name, batch, n, dtype, seconds, least)
                rows.append(row)
                print(
                    f"{row['label']:28s} ours {row['milliseconds']:8.2f} ms  spd-learn "
                    f"{row['milliseconds of spd-learn']:8.2f} ms  {row['value']:5.1f}x  "
                    f"differ by {row['largest relative difference']:.0e}",
                    flush=True,
                )
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
