"""How much faster are small matrices on a GPU by our kernels than by torch.linalg, or CuPy?

Every operation is the whole public call with `check=False`, forward or forward and backward,
in batches of 65,536 unless told otherwise. Times are of the device (CUDA events), medians of runs
that alternate between ours and the peer's; `low` and `high` are quartiles of the ratio. Beside
each stands the largest relative difference of value and gradient from torch in float64, ours
and the peer's. The JSON is that of `speed.py`.

`--dry-run` does everything on a few matrices on the CPU, where it measures nothing: with
TRITON_INTERPRET=1 our kernels run there in Triton's interpreter, else what the CPU has.

    python benchmarks/gpu.py --out gpu.json
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import linalg_kernels as lk
import torch
from linalg_kernels.backends import gpu
from torch import Tensor

ORDERS = (4, 8, 16, 22, 32)
BEYOND = (33, 64)  # where torch computes for us as well
ROUNDS = 7
SECONDS = 0.02  # that one round of one contestant takes at least


@dataclass(frozen=True)
class Operation:
    """One operation, torch's way to it, and whether it is timed with its gradient."""

    ours: Callable[..., Any]
    torch: Callable[..., Any]
    inputs: int = 1
    with_gradient: bool = True
    beyond: bool = False


def by_eigh(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """V f(w) V^T through torch's own eigh and autograd."""

    def apply(A: Tensor) -> Tensor:
        w, V = torch.linalg.eigh(A)
        return (V * f(w)[..., None, :]) @ V.mT

    return apply


def distance(P: Tensor, Q: Tensor) -> Tensor:
    """The affine-invariant distance by Cholesky whitening."""
    L = torch.linalg.cholesky(P)
    S = torch.linalg.solve_triangular(L, Q, upper=False)
    S = torch.linalg.solve_triangular(L.mT, S, upper=True, left=False)
    return torch.linalg.eigvalsh((S + S.mT) / 2).log().square().sum(-1).sqrt()


def without_rank_one(X: Tensor) -> Tensor:
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    return X - S[..., :1, None] * U[..., :1] @ Vh[..., :1, :]


def unchecked(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *tensors: f(*tensors, check=False)


OPERATIONS = {
    "eigh": Operation(unchecked(lk.eigh), torch.linalg.eigh, with_gradient=False, beyond=True),
    "logm + gradient": Operation(unchecked(lk.logm), by_eigh(torch.log), beyond=True),
    "sqrtm + gradient": Operation(unchecked(lk.sqrtm), by_eigh(torch.sqrt)),
    "expm + gradient": Operation(unchecked(lk.expm), by_eigh(torch.exp)),
    "cholesky + gradient": Operation(unchecked(lk.cholesky), torch.linalg.cholesky),
    "affine-invariant distance + gradient": Operation(lk.pencil_log_norm, distance, inputs=2),
    "remove_rank1": Operation(unchecked(lk.remove_rank1), without_rank_one, with_gradient=False),
}


def random_spd(batch: int, n: int, dtype: torch.dtype, seed: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(min(batch, 256), n, 2 * n, dtype=torch.float64, generator=generator)
    A = (X @ X.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)).to(device, dtype)
    # The same 256 matrices again and again: what differs between them does not matter here.
    return A.repeat(-(-batch // len(A)), 1, 1)[:batch].contiguous()


def runner(f: Callable[..., Any], operation: Operation, A: Sequence[Tensor]) -> Callable[[], Any]:
    """The call to be timed, which gives its value, or value and gradients."""
    if not operation.with_gradient:

        def value() -> Any:
            with torch.no_grad():
                return f(*A)

        return value
    leaves = [a.clone().requires_grad_() for a in A]
    F = f(*leaves)
    G = torch.linspace(0.5, 1.5, F.numel(), dtype=F.dtype, device=F.device).view_as(F)

    def gradient() -> Any:
        F = f(*leaves)
        return F, *torch.autograd.grad(F, leaves, G)

    return gradient


def results(run: Callable[[], Any]) -> list[Tensor]:
    """What a call gives, of an eigensystem its product."""
    found = run()
    if isinstance(found, tuple) and len(found) == 2 and found[0].ndim < found[1].ndim:
        w, V = found
        found = (V * w[..., None, :]) @ V.mT
    tensors = found if isinstance(found, tuple) else (found,)
    return [T.detach().double() for T in tensors]


def difference(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest relative difference; of gradients the symmetric part."""
    worst = 0.0
    for i, (x, y) in enumerate(zip(got, wanted, strict=True)):
        if i and x.ndim == 3:
            x, y = (x + x.mT) / 2, (y + y.mT) / 2
        dims = tuple(range(1, y.ndim))
        change = (x - y).square().sum(dims).sqrt() if dims else (x - y).abs()
        size = y.square().sum(dims).sqrt() if dims else y.abs()
        worst = max(worst, (change / size).max().item())
    return worst


def seconds_per_call(run: Callable[[], object], calls: int, device: str) -> float:
    """Of the device if there is one, else of the wall clock."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls


def in_turns(
    ours: Callable[[], object], theirs: Callable[[], object], device: str, rounds: int
) -> tuple[float, list[float]]:
    """Our seconds a call and the ratios theirs / ours."""
    calls = []
    for run in (ours, theirs):
        seconds_per_call(run, 1, device)  # compiles, or loads what was compiled
        once = seconds_per_call(run, 1, device)
        calls.append(max(1, int(SECONDS / max(once, 1e-6))) if rounds > 1 else 1)
    mine, ratios = [], []
    for _ in range(rounds):
        mine.append(seconds_per_call(ours, calls[0], device))
        ratios.append(seconds_per_call(theirs, calls[1], device) / mine[-1])
    return statistics.median(mine), ratios


def cupy_eigh() -> Callable[[Tensor], Any] | None:
    """CuPy's batched eigh on tensors of torch, if it is installed."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return None
    return lambda A: tuple(torch.from_dlpack(x) for x in cupy.linalg.eigh(cupy.from_dlpack(A)))


def rows_of(
    name: str, n: int, dtype: torch.dtype, batch: int, device: str, rounds: int
) -> list[dict[str, Any]]:
    """One row for each peer."""
    operation = OPERATIONS[name]
    A = [random_spd(batch, n, dtype, n + 100 * i, device) for i in range(operation.inputs)]
    ours = runner(operation.ours, operation, A)
    with lk.backend("torch"):
        wanted = results(runner(operation.ours, operation, [a.double() for a in A]))
    peers: dict[str, Callable[..., Any]] = {"torch": operation.torch}
    if name == "eigh" and device != "cpu" and (cupy := cupy_eigh()) is not None:
        peers["CuPy"] = cupy
    error = difference(results(ours), wanted)
    kind = str(dtype).removeprefix("torch.")
    found = []
    for peer, theirs in peers.items():
        run = runner(theirs, operation, A)
        mine, ratios = in_turns(ours, run, device, rounds)
        low, middle, high = (
            statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        )
        found.append(
            {
                "label": f"{name}, {kind}, n={n}, batch {batch}",
                "metric": f"speed over {peer}",
                "value": middle,
                "unit": "x",
                "better": "higher",
                "low": low,
                "high": high,
                "microseconds_per_matrix": mine / batch * 1e6,
                "error": error,
                "peer_error": difference(results(run), wanted),
            }
        )
    return found


def main() -> int:
    """Prints a table and writes rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    parser.add_argument("--quick", action="store_true", help="one order, small batches")
    parser.add_argument("--orders", type=int, nargs="+", default=[*ORDERS, *BEYOND])
    parser.add_argument("--batch", type=int, default=65536)
    parser.add_argument("--only", nargs="+", choices=list(OPERATIONS), default=list(OPERATIONS))
    parser.add_argument("--dry-run", action="store_true", help="two matrices, on the CPU")
    arguments = parser.parse_args()
    if not (arguments.dry_run or torch.cuda.is_available()):
        reason = "there is no GPU; --dry-run goes as far as it goes without"
        print(f"skipped: {reason}")
        if arguments.out:
            told = {"question": __doc__.splitlines()[0], "skipped": reason}
            arguments.out.write_text(json.dumps(told) + "\n")
        return 0
    if arguments.quick:
        arguments.orders, arguments.batch = [8], 4096
    device = "cpu" if arguments.dry_run else "cuda"
    print(lk.backend_info())
    if arguments.dry_run:
        print("a dry run on the CPU: speed not measured")
    else:
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    batch, rounds = (2, 1) if arguments.dry_run else (arguments.batch, ROUNDS)
    interpreted = arguments.dry_run and gpu.interpreted()
    found = []
    for name in arguments.only:
        for dtype in (torch.float32, torch.float64):
            for n in arguments.orders:
                if n > gpu.LIMIT and not OPERATIONS[name].beyond:
                    continue
                with lk.backend("triton" if interpreted else "auto"):
                    new = rows_of(name, n, dtype, batch, device, rounds)
                for row in new:
                    if arguments.dry_run:
                        row["dry_run"] = True
                    print(
                        f"{row['label']:58} {row['metric']:18} {row['value']:8.2f} x  "
                        f"error {row['error']:.0e} (theirs {row['peer_error']:.0e})",
                        flush=True,
                    )
                found += new
    if arguments.out:
        question = __doc__.splitlines()[0]
        arguments.out.write_text(json.dumps({"question": question, "rows": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
