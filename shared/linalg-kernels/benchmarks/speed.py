"""How much faster are eigensystems, their functions and Cholesky factors than peers?

Every operation is the whole public call, forward or forward and backward, on one thread. Times
are CPU time of this process, medians of runs that alternate between ours and the peer's, so
that a busy machine disturbs both alike. `low` and `high` are quartiles of the ratio.

Peers: torch.linalg with autograd, spd-learn, geoopt. Run it with OPENBLAS_CORETYPE and
OPENBLAS_L2_SIZE unset.

    python benchmarks/speed.py --out speed.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geoopt.linalg
import linalg_kernels as lk
import spd_learn.functional
import torch
from torch import Tensor

ROUNDS = 9
SECONDS = 0.01  # that one round of one contestant takes at least


def random_spd(batch: int, n: int, dtype: torch.dtype) -> Tensor:
    X = torch.randn(batch, n, 2 * n, dtype=dtype, generator=torch.Generator().manual_seed(n))
    return X @ X.mT / n + 0.1 * torch.eye(n, dtype=dtype)


def torch_function(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def apply(A: Tensor) -> Tensor:
        w, V = torch.linalg.eigh(A)
        return (V * f(w)[..., None, :]) @ V.mT

    return apply


def gradient(f: Callable[[Tensor], Any], A: Tensor) -> Callable[[], object]:
    """Forward and backward; spd-learn's functions are autograd Functions."""
    leaf = A.clone().requires_grad_()
    G = torch.randn(A.shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    return lambda: torch.autograd.grad(f(leaf), leaf, G)


def value(f: Callable[[Tensor], object], A: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return f(A)

    return run


# name: (ours, {peer: theirs}, whether with the gradient)
OPERATIONS = {
    "eigh": (lk.eigh, {"torch": torch.linalg.eigh}, False),
    "cholesky": (lk.cholesky, {"torch": torch.linalg.cholesky}, False),
    "cholesky + gradient": (lk.cholesky, {"torch": torch.linalg.cholesky}, True),
    "logm": (lk.logm, {"torch": torch_function(torch.log)}, False),
    "logm + gradient": (
        lk.logm,
        {
            "torch": torch_function(torch.log),
            "spd-learn": spd_learn.functional.matrix_log.apply,
            "geoopt": geoopt.linalg.sym_logm,
        },
        True,
    ),
    "sqrtm + gradient": (
        lk.sqrtm,
        {
            "torch": torch_function(torch.sqrt),
            "spd-learn": spd_learn.functional.matrix_sqrt.apply,
        },
        True,
    ),
    "expm + gradient": (lk.expm, {"torch": torch_function(torch.exp)}, True),
}


def seconds_per_call(run: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - start) / calls


def compare(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, list[float]]:
    """Our seconds a call and the ratios theirs / ours."""
    calls = []
    for run in (ours, theirs):
        run()
        calls.append(max(1, int(SECONDS / max(seconds_per_call(run, 1), 1e-6))))
    mine, ratios = [], []
    for _ in range(ROUNDS):
        mine.append(seconds_per_call(ours, calls[0]))
        ratios.append(seconds_per_call(theirs, calls[1]) / mine[-1])
    return statistics.median(mine), ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    parser.add_argument("--orders", type=int, nargs="+", default=[4, 8, 16, 22, 32, 64])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--only", nargs="+", default=list(OPERATIONS), choices=list(OPERATIONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(lk.backend_info())
    print(f"{'operation':20} {'dtype':8} {'n':>3} {'us/matrix':>10}  ratio to each peer")
    rows = []
    for name in arguments.only:
        ours, peers, with_gradient = OPERATIONS[name]
        prepare = gradient if with_gradient else value
        for dtype in (torch.float32, torch.float64):
            for n in arguments.orders:
                A = random_spd(arguments.batch, n, dtype)
                kind = str(dtype).removeprefix("torch.")
                told = []
                mine = 0.0
                for peer, theirs in peers.items():
                    mine, ratios = compare(prepare(ours, A), prepare(theirs, A))
                    low, middle, high = statistics.quantiles(ratios, n=4)
                    told.append(f"{peer} {middle:.1f}")
                    rows.append(
                        {
                            "label": f"{name}, {kind}, n={n}, batch {arguments.batch}",
                            "metric": f"speed over {peer}",
                            "value": middle,
                            "low": low,
                            "high": high,
                            "unit": "x",
                            "better": "higher",
                            "microseconds_per_matrix": mine / arguments.batch * 1e6,
                        }
                    )
                each = mine / arguments.batch * 1e6
                print(f"{name:20} {kind:8} {n:3} {each:10.3f}  {'  '.join(told)}", flush=True)
    if arguments.out:
        question = __doc__.splitlines()[0]
        arguments.out.write_text(json.dumps({"question": question, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
