"""How fast is the block power iteration beside the full SVD of a 1024 x 1024 layer, at rank 128?

One thread, float32, the weight seen through the root of an input moment, which both are given.
Time over ours, and the truncation error in that metric over the least possible one. Calls in
turns, medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import asvd
import torch
from torch import Tensor

QUESTION = "How fast and how exact is the randomised decomposition of a layer beside the full SVD?"
N, RANK = 1024, 128
SPEED, ERROR = 8.0, 1.02


def layers() -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and input root: a spectrum without decay, one like a trained layer's, a steep one."""
    torch.manual_seed(0)
    W = torch.randn(N, N) / N**0.5
    mix = torch.linalg.qr(torch.randn(N, N)).Q
    index = torch.arange(1, N + 1)
    return {
        "Gaussian weight, white inputs": (W, torch.eye(N)),
        "Gaussian weight, inputs of variance 1/i": (W, mix * index**-0.5),
        "Gaussian weight, inputs of variance 1/i^3": (W, mix * index**-1.5),
    }


def main() -> None:
    """Prints a table and writes rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, (W, S) in layers().items():
        sigma = torch.linalg.svdvals((W @ S).double())
        least = sigma[RANK:].square().sum().sqrt()
        calls: dict[str, Callable[[], Tensor]] = {
            "ours": lambda W=W, S=S: asvd.spectrum(W, S, None, RANK, "randomized").U,
            "full": lambda W=W, S=S: torch.linalg.svd(W @ S, full_matrices=False).U[:, :RANK],
        }
        taken: dict[str, list[float]] = {key: [] for key in calls}
        U = calls["ours"]()
        calls["full"]()
        for _ in range(options.repeats):
            for key, call in calls.items():
                start = time.perf_counter()
                call()
                taken[key].append(time.perf_counter() - start)
        D, basis = (W @ S).double(), torch.linalg.qr(U.double()).Q
        error = float((D - basis @ (basis.mT @ D)).norm() / least)
        ours, full = (statistics.median(taken[key]) for key in ("ours", "full"))
        speed = full / ours
        for metric, value, unit, better, met in (
            ("speed over the full SVD", speed, "x", "higher", speed >= SPEED),
            ("error over the least", error, "", "lower", error <= ERROR),
        ):
            print(f"{name:44s} {metric:24s} {value:8.4f}  {'met' if met else 'missed'}", flush=True)
            rows.append({"label": name, "metric": metric, "value": value, "unit": unit,
                         "better": better, "met": met, "milliseconds": 1e3 * ours})  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps({"question": QUESTION, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
