"""How fast are products of r reflections, n = 512, forward and backward, beside other ways?

One thread, float32, ours (compact WY, linalg-kernels) and a rival in turns in one process; a row
is the ratio of medians. Rivals: `torch.linalg.householder_product`, and the loop that multiplies
dense matrices H = I - 2 v vᵀ/‖v‖² one after the other, as the official code does (re-implemented
from its description). Also Q applied to 16 vectors beside forming Q first. torch.linalg takes
unit trapezoidal reflectors alone, so both get them there; the others get dense ones. Gradients
are compared before anything is timed, and the largest difference stands beside each row.
"""

from collections.abc import Callable

import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from linalg_kernels import householder_apply, householder_product
from torch import Tensor

N = 512
VECTORS = 16
QUESTION = "How fast are products of r reflections, n = 512, forward and backward?"


def by_torch(V: Tensor) -> Tensor:
    """All n columns of the product of unit trapezoidal reflectors, tau = 2/‖v‖²."""
    n, k = V.shape
    # householder_product gives as many columns as it gets, and takes fewer tau.
    packed = torch.cat((V, V.new_zeros(n, n - k)), 1)
    return torch.linalg.householder_product(packed, 2 / V.square().sum(0))


def dense_loop(V: Tensor) -> Tensor:
    """Dense reflections multiplied from left to right, O(n³) each."""
    eye = torch.eye(V.shape[0])
    Q = eye
    for v in V.unbind(1):
        Q = Q @ (eye - 2 * torch.outer(v, v) / (v @ v))
    return Q


def gradient(fn: Callable[[Tensor], Tensor], V: Tensor, C: Tensor) -> Callable[[], Tensor]:
    """The gradient of <C, fn(V)>, value included."""

    def call() -> Tensor:
        v = V.detach().requires_grad_()
        fn(v).backward(C)
        assert v.grad is not None
        return v.grad

    return call


def product(V: Tensor) -> Tensor:
    """Ours."""
    return householder_product(V, check=False)


def cases(k: int) -> list[tuple[str, Callable[[], Tensor], Callable[[], Tensor], int]]:
    """Rival, ours, the rival's call, rounds."""
    rng = torch.Generator().manual_seed(k)
    V, C = torch.randn(N, k, generator=rng), torch.randn(N, N, generator=rng)
    trapezoidal = V.tril(-1) + torch.eye(N, k)
    X, D = torch.randn(N, VECTORS, generator=rng), torch.randn(N, VECTORS, generator=rng)
    found = []
    if k <= 128:
        found.append(
            (
                "torch.linalg.householder_product",
                gradient(product, trapezoidal, C),
                gradient(by_torch, trapezoidal, C),
                15,
            )
        )
    if k >= 64:
        found.append(
            (
                "loop over dense reflections",
                gradient(product, V, C),
                gradient(dense_loop, V, C),
                3,
            )
        )
    found.append(
        (
            f"forming Q, then Q X ({VECTORS} vectors)",
            gradient(lambda v: householder_apply(v, X, check=False), V, D),
            gradient(lambda v: product(v) @ X, V, D),
            15,
        )
    )
    return found


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256, 512])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for k in (8, 64) if options.quick else options.sizes:
        for rival, ours, theirs, rounds in cases(k):
            # LAPACK does not read the upper triangle, and has no gradient there.
            values = ours().tril(-1), theirs().tril(-1)
            difference = float((values[0] - values[1]).abs().max() / values[1].abs().max())
            if not difference < 1e-3:
                raise SystemExit(f"r={k}, {rival}: gradients differ by {difference:.1e}")
            calls = {"ours": ours, "rival": theirs}
            taken = in_turns(calls, least=1 if options.quick else rounds, warm=True, floor=2e-2)
            mine, other = medians(taken).values()
            print(
                f"r={k:3d}  ours {1e3 * mine:8.3f} ms  {rival:36s} {1e3 * other:9.2f} ms  "
                f"{other / mine:7.1f}x  gradients differ by {difference:.0e}",
                flush=True,
            )
            rows.append({"label": f"r={k}, forward and backward", "metric": f"speed over {rival}",
                         "value": other / mine, "unit": "x", "better": "higher",
                         "milliseconds": 1e3 * mine, "difference": difference})  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
