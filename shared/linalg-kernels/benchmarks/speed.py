"""How much faster are eigensystems, their functions, distances, factors and means than peers?

Every operation is the whole public call, forward or forward and backward, on one thread. Times
are CPU time of this process, medians of runs that alternate between ours and the peer's, so
that a busy machine disturbs both alike; `low` and `high` are quartiles of the ratio. Beside each
time stands the largest relative difference of value and gradient from the torch reference in
float64, ours and the peer's. A gate is a ratio that a release must reach with AVX-512.

Peers: torch.linalg with autograd, spd-learn, geoopt, pyRiemann (the faster of its two backends
for the mean). Run it with OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE unset.

    python benchmarks/speed.py --out speed.json
"""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import geoopt
import linalg_kernels as lk
import pyriemann.geometry.distance
import pyriemann.geometry.mean
import spd_learn.functional
import torch
from eigenworks.timing import arguments, in_turns, ratios, seconds_per_call, write_rows
from linalg_kernels.backends import native
from torch import Tensor

warnings.filterwarnings("ignore", category=FutureWarning)

ROUNDS = 7
SECONDS = 0.008  # that one round of one contestant takes at least
ORDERS = (4, 8, 16, 22, 32, 64)
AVX2_SHARE = 0.6  # of a gate, that AVX2 must reach

Gates = tuple[float, ...]
Others = dict[str, float]


@dataclass(frozen=True)
class Operation:
    """One operation, its peers, and the gates against them by peer and dtype, over ORDERS."""

    ours: Callable[..., Any]
    peers: dict[str, Callable[..., Any]]
    gates: dict[tuple[str, str], Gates] = field(default_factory=dict)
    inputs: int = 1
    with_gradient: bool = True


def by_eigh(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """V f(w) V^T through torch's own eigh and autograd."""

    def apply(A: Tensor) -> Tensor:
        w, V = torch.linalg.eigh(A)
        return (V * f(w)[..., None, :]) @ V.mT

    return apply


SPECTRAL_GATES: dict[tuple[str, str], Gates] = {
    ("spd-learn", "float32"): (10, 12, 8.5, 8.5, 6, 3.4),
    ("spd-learn", "float64"): (8, 7, 5.3, 5, 3.5, 2.4),
    ("torch", "float32"): (8.5, 11, 7.5, 7.5, 5.3, 3),
}
functional = spd_learn.functional
OPERATIONS = {
    "eigh": Operation(
        lk.eigh, {"torch": torch.linalg.eigh},
        {("torch", "float32"): (10, 10, 10, 10, 5, 2.5),
         ("torch", "float64"): (5, 5, 5, 5, 3, 1.7)},
        with_gradient=False,
    ),
    "logm": Operation(lk.logm, {"torch": by_eigh(torch.log)}, with_gradient=False),
    "logm + gradient": Operation(
        lk.logm,
        {"torch": by_eigh(torch.log), "spd-learn": functional.matrix_log.apply,
         "geoopt": geoopt.linalg.sym_logm},
        SPECTRAL_GATES,
    ),
    "sqrtm + gradient": Operation(
        lk.sqrtm,
        {"torch": by_eigh(torch.sqrt), "spd-learn": functional.matrix_sqrt.apply},
        SPECTRAL_GATES,
    ),
    "expm + gradient": Operation(lk.expm, {"torch": by_eigh(torch.exp)}),
    "affine-invariant distance + gradient": Operation(
        lk.pencil_log_norm,
        {"pyRiemann": pyriemann.geometry.distance.distance_riemann,
         "geoopt": geoopt.SymmetricPositiveDefinite().dist},
        {("pyRiemann", "float32"): (14, 22, 10, 10, 7.5, 4.2),
         ("pyRiemann", "float64"): (10, 14, 5.7, 5.7, 4.5, 2.9)},
        inputs=2,
    ),
    "cholesky + gradient": Operation(
        lk.cholesky, {"torch": torch.linalg.cholesky},
        {("torch", "float32"): (4.5, 4.5, 3.5, 2.8, 2.8, 2.6),
         ("torch", "float64"): (4.2, 3.8, 2.2, 2.2, 2.2, 2)},
    ),
}  # fmt: skip


def random_spd(batch: int, n: int, dtype: torch.dtype, seed: int) -> Tensor:
    X = torch.randn(batch, n, 2 * n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return X @ X.mT / n + 0.1 * torch.eye(n, dtype=dtype)


def runner(f: Callable[..., Any], operation: Operation, A: Sequence[Tensor]) -> Callable[[], Any]:
    """The call to be timed, which gives its value, or value and gradients."""
    if not operation.with_gradient:

        def value() -> Any:
            with torch.no_grad():
                return f(*A)

        return value
    leaves = [a.clone().requires_grad_() for a in A]
    shape = f(*leaves).shape
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(shape, dtype=torch.float64, generator=generator).to(A[0].dtype)

    def gradient() -> Any:
        F = f(*leaves)
        return F, *torch.autograd.grad(F, leaves, G)

    return gradient


def results(run: Callable[[], Any]) -> list[Tensor]:
    """Symmetric parts of what a call gives, or of an eigensystem its product."""
    found = run()
    if isinstance(found, tuple) and len(found) == 2 and found[0].ndim < found[1].ndim:
        w, V = found
        found = (V * w[..., None, :]) @ V.mT
    tensors = found if isinstance(found, tuple) else (found,)
    return [T.detach().double() for T in tensors]


def difference(got: Sequence[Tensor], wanted: Sequence[Tensor], factor: bool) -> float:
    """Largest relative difference; of gradients the symmetric part."""
    worst = 0.0
    for i, (x, y) in enumerate(zip(got, wanted, strict=True)):
        if x.ndim == 3 and not (factor and i == 0):
            x, y = (x + x.mT) / 2, (y + y.mT) / 2
        dims = tuple(range(1, y.ndim))
        change = (x - y).square().sum(dims).sqrt() if dims else (x - y).abs()
        size = y.square().sum(dims).sqrt() if dims else y.abs()
        worst = max(worst, (change / size).max().item())
    return worst


def beside(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, list[float]]:
    """Our seconds a call and the ratios theirs / ours."""
    calls = {"ours": ours, "theirs": theirs}
    taken = in_turns(calls, least=ROUNDS, floor=SECONDS, clock=clock)
    return statistics.median(taken["ours"]), ratios(taken, "theirs")


class Table:
    """Prints rows and keeps them for the JSON."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def ratio(
        self, label: str, metric: str, against: Sequence[float], gate: float | None, others: Others
    ) -> None:
        """A speed over a peer, with the quartiles of its measurements."""
        low, middle, high = statistics.quantiles(against, n=4)
        self.value(label, metric, (middle, "x"), gate, {"low": low, "high": high} | others)

    def value(
        self,
        label: str,
        metric: str,
        quantity: tuple[float, str],
        gate: float | None = None,
        others: Others | None = None,
        better: str = "higher",
    ) -> None:
        """A number with its unit, held to a gate if it has one."""
        value, unit = quantity
        row = {"label": label, "metric": metric, "value": value, "unit": unit, "better": better}
        told = ""
        if gate is not None:
            met = value >= gate if better == "higher" else value <= gate
            row |= {"gate": gate, "met": met}
            told = f"  gate {gate:5.3g} {'met' if met else 'MISSED'}"
        others = others or {}
        if "error" in others:
            told += f"  error {others['error']:.0e}"
        if "peer_error" in others:
            told += f" (theirs {others['peer_error']:.0e})"
        self.rows.append(row | others)
        print(f"{label:62} {metric:24} {value:8.2f} {unit}{told}", flush=True)


def against_peers(
    table: Table, names: Sequence[str], orders: Sequence[int], batches: Sequence[int], share: float
) -> None:
    for name in names:
        operation = OPERATIONS[name]
        for dtype in (torch.float32, torch.float64):
            kind = str(dtype).removeprefix("torch.")
            for n in orders:
                for batch in batches:
                    one_operation(table, name, operation, kind, dtype, n, batch, share)


def one_operation(
    table: Table, name: str, operation: Operation, kind: str, dtype: torch.dtype, n: int,
    batch: int, share: float,
) -> None:  # fmt: skip
    A = [random_spd(batch, n, dtype, n + 100 * i) for i in range(operation.inputs)]
    ours = runner(operation.ours, operation, A)
    with lk.backend("torch"):
        wanted = results(runner(operation.ours, operation, [a.double() for a in A]))
    factor = name.startswith("cholesky")
    error = difference(results(ours), wanted, factor)
    for peer, theirs in operation.peers.items():
        run = runner(theirs, operation, A)
        peer_error = difference(results(run), wanted, factor)
        mine, against = beside(ours, run)
        gate = None
        if (peer, kind) in operation.gates and n in ORDERS and batch == 256:
            gate = share * operation.gates[peer, kind][ORDERS.index(n)]
        where = "" if share == 1 else f"{native.info().isa}, "
        others = {
            "microseconds_per_matrix": mine / batch * 1e6,
            "error": error,
            "peer_error": peer_error,
        }
        label = f"{name}, {where}{kind}, n={n}, batch {batch}"
        table.ratio(label, f"speed over {peer}", against, gate, others)


def karcher(table: Table) -> None:
    """Means of 256 matrices to 1e-8, against the faster of pyRiemann's two backends."""
    mean = pyriemann.geometry.mean.mean_riemann
    for n, gate in ((8, 4.5), (22, 4.0), (32, 2.7)):
        X = random_spd(256, n, torch.float64, n)
        x = X.numpy()
        with torch.no_grad():

            def ours(X: Tensor = X) -> Tensor:
                return lk.karcher_mean(X, tol=1e-8)

            peers = [lambda x=x: mean(x, tol=1e-8), lambda X=X: mean(X, tol=1e-8)]
            exact = lk.karcher_mean(X, tol=1e-13)
            error = difference([ours()], [exact], False)
            peer_error = max(difference([torch.as_tensor(p())], [exact], False) for p in peers)
            found = [beside(ours, p) for p in peers]
        mine, against = min(found, key=lambda pair: statistics.median(pair[1]))
        label = f"karcher_mean to 1e-8, float64, n={n}, 256 matrices"
        others = {"milliseconds": mine * 1e3, "error": error, "peer_error": peer_error}
        table.ratio(label, "speed over pyRiemann", against, gate, others)


def householder(table: Table) -> None:
    """All 512 columns of a product of 64 reflectors."""
    V = torch.randn(512, 64, generator=torch.Generator().manual_seed(0)).tril()
    V = V / V.diagonal()

    def theirs(W: Tensor) -> Tensor:
        square = torch.cat([W, W.new_zeros(512, 448)], -1)
        return torch.linalg.householder_product(square, 2 / W.square().sum(-2))

    operation = Operation(lk.householder_product, {})
    ours, run = runner(lk.householder_product, operation, [V]), runner(theirs, operation, [V])
    with torch.no_grad():
        wanted = theirs(V.double())[None]
        error = difference([lk.householder_product(V).double()[None]], [wanted], True)
    _, against = beside(ours, run)
    label = "householder_product + gradient, float32, n=512, 64 reflectors"
    table.ratio(label, "speed over torch", against, 50, {"error": error})


def overhead(table: Table) -> None:
    """Microseconds that a call on one small matrix takes beyond torch's own call."""
    A = random_spd(1, 4, torch.float32, 4)
    leaf, G = A.clone().requires_grad_(), torch.ones_like(A)
    pairs = {
        "eigh": (lk.eigh, torch.linalg.eigh),
        "cholesky": (lk.cholesky, torch.linalg.cholesky),
        "logm": (lk.logm, by_eigh(torch.log)),
    }
    for name, (ours, theirs) in pairs.items():
        with torch.no_grad():
            mine, against = beside(lambda f=ours: f(A), lambda f=theirs: f(A))
        beyond = mine * (1 - statistics.median(against)) * 1e6
        table.value(f"{name}, one matrix, no_grad", "overhead", (beyond, "µs"), 25, better="lower")

        def both(f: Callable[..., Any]) -> Tensor:
            F = f(leaf)
            F = F if isinstance(F, Tensor) else F[1]
            return torch.autograd.grad(F, leaf, G)[0]

        mine, against = beside(lambda f=ours: both(f), lambda f=theirs: both(f))
        beyond = mine * (1 - statistics.median(against)) * 1e6
        table.value(
            f"{name}, one matrix, with gradient", "overhead", (beyond, "µs"), 60, better="lower"
        )


def two_threads(table: Table) -> None:
    """Wall time of 1024 matrices on one thread over that on two; and torch's on two over ours."""
    for n in (8, 22, 32, 64):
        operation = OPERATIONS["logm + gradient"]
        A = [random_spd(1024, n, torch.float32, n)]
        ours = runner(lk.logm, operation, A)
        peer = runner(operation.peers["torch"], operation, A)

        def on_one(run: Callable[[], Any] = ours) -> None:
            torch.set_num_threads(1)
            run()
            torch.set_num_threads(2)

        torch.set_num_threads(2)
        label = f"logm + gradient, float32, n={n}, batch 1024, two threads"
        against = beside(ours, on_one, time.perf_counter)[1]
        table.ratio(label, "speed over one thread", against, 1.7, {})
        against = beside(ours, peer, time.perf_counter)[1]
        table.ratio(label, "speed over torch", against, None, {})
        torch.set_num_threads(1)


def roofline(table: Table) -> None:
    """Fractions of what large products and copies reach on this processor."""
    for dtype, size in ((torch.float32, 1024), (torch.float64, 1024)):
        kind = str(dtype).removeprefix("torch.")
        M = torch.randn(size, size, dtype=dtype)
        big = torch.randn(1 << 25, dtype=dtype)
        other = torch.empty_like(big)
        peak = (
            2
            * size**3
            / min(seconds_per_call(lambda M=M: M @ M, 2, time.process_time) for _ in range(5))
        )
        copy = min(
            seconds_per_call(lambda b=big, o=other: o.copy_(b), 1, time.process_time)
            for _ in range(5)
        )
        bandwidth = 2 * big.numel() * big.element_size() / copy
        for n in (8, 22, 32, 64):
            operation = OPERATIONS["logm + gradient"]
            A = [random_spd(256, n, dtype, n)]
            run = runner(lk.logm, operation, A)
            calls = max(1, int(0.05 / seconds_per_call(run, 1, time.process_time)))
            taken = min(seconds_per_call(run, calls, time.process_time) for _ in range(3))
            # Eigensystem 9 n^3, V f V^T n^3, four products of the derivative 6 n^3.
            arithmetic = 256 * 16 * n**3 / taken / peak
            # A is read, F, V and w written; w, V and G are read, the gradient written.
            moved = 256 * 7 * n * n * big.element_size() / taken / bandwidth
            label = f"logm + gradient, {kind}, n={n}, batch 256"
            table.value(label, "share of the FMA peak", (100 * arithmetic, "%"))
            table.value(label, "share of the bandwidth", (100 * moved, "%"))


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--orders", type=int, nargs="+", default=list(ORDERS))
    parser.add_argument("--batch", type=int, nargs="+", default=[256])
    parser.add_argument("--only", nargs="+", choices=[*OPERATIONS, *PARTS], help="of the table")
    options = parser.parse_args()
    if options.quick:
        options.orders, options.only = [8], list(OPERATIONS)
    torch.set_num_threads(1)
    print(lk.backend_info())
    table = Table()
    chosen = options.only or [*OPERATIONS, *PARTS]
    names = [name for name in OPERATIONS if name in chosen]
    against_peers(table, names, options.orders, options.batch, 1.0)
    for name, part in PARTS.items():
        if name in chosen:
            part(table)
    missed = [row for row in table.rows if row.get("met") is False]
    gates = sum("gate" in row for row in table.rows)
    print(f"{gates - len(missed)} of {gates} gates met")
    write_rows(options.out, __doc__.splitlines()[0], table.rows)


def forced_avx2(table: Table) -> None:
    """The gates again, with the narrower instruction set."""
    if "avx2" not in native.info().isas:
        return
    gated = [name for name, operation in OPERATIONS.items() if operation.gates]
    with native.use_isa("avx2"):
        against_peers(table, gated, (8, 22, 64), (256,), AVX2_SHARE)


PARTS = {
    "means": karcher,
    "householder": householder,
    "overhead": overhead,
    "threads": two_threads,
    "roofline": roofline,
    "avx2": forced_avx2,
}


if __name__ == "__main__":
    main()
