"""How fast is the block power iteration beside the full SVD of a 1024 x 1024 layer, at rank 128?

One thread, float32. Both are given the product of the weight and the root of an input moment.
Processor time over ours, and the truncation error over the least possible one, both from the
vectors that are returned. Calls in turns, medians.
"""

import time
from collections.abc import Callable

import asvd
import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from torch import Tensor

QUESTION = "How fast and how exact is the randomised decomposition of a layer beside the full SVD?"
N, RANK = 1024, 128
SPEED, ERROR = 8.0, 1.02


def layers() -> dict[str, Tensor]:
    """Weight times input root: spectra without decay, with some, and with much."""
    torch.manual_seed(0)
    W = torch.randn(N, N) / N**0.5
    mix = torch.linalg.qr(torch.randn(N, N)).Q
    index = torch.arange(1, N + 1)
    return {
        "Gaussian weight, white inputs": W,
        "Gaussian weight, inputs of variance 1/i": W @ (mix * index**-0.5),
        "Gaussian weight, inputs of variance 1/i^3": W @ (mix * index**-1.5),
    }


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, D in layers().items():
        sigma = torch.linalg.svdvals(D.double())
        least = sigma[RANK:].square().sum().sqrt()
        calls: dict[str, Callable[[], Tensor]] = {
            "ours": lambda D=D: asvd.spectrum(D, rank=RANK, decomposition="randomized").U,
            "full": lambda D=D: torch.linalg.svd(D, full_matrices=False).U[:, :RANK],
        }
        U = calls["ours"]()
        calls["full"]()
        repeats = 1 if options.quick else options.repeats
        taken = medians(in_turns(calls, least=repeats, clock=time.process_time))
        basis = torch.linalg.qr(U.double()).Q
        error = float((D - basis @ (basis.mT @ D.double())).norm() / least)
        speed = taken["full"] / taken["ours"]
        for metric, value, unit, better, met in (
            ("speed over the full SVD", speed, "x", "higher", speed >= SPEED),
            ("error over the least", error, "", "lower", error <= ERROR),
        ):
            print(f"{name:44s} {metric:24s} {value:8.4f}  {'met' if met else 'missed'}", flush=True)
            rows.append({"label": name, "metric": metric, "value": value, "unit": unit,
                         "better": better, "met": met,
                         "milliseconds": 1e3 * taken["ours"]})  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
