"""What do the Triton kernels take of a GPU, and what could they reach at most?

Compiles every kernel as it would be launched, for GPUs that need not be there, and reads registers
and stack out of the machine code. A kernel that keeps anything on the stack, or takes more
registers or shared memory than its budget, is a miss, and the exit status says so.

The last three columns are a model, not a measurement: programs that one multiprocessor holds at a
time, and matrices a second if memory (3 TB/s) or arithmetic (60 TFLOP/s in float32, 30 in
float64) were all that there is. Jacobi rotations wait for one another, which the model does not
know: expect far less.

    python benchmarks/gpu_compile.py --out gpu-compile.json
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from eigenworks.timing import arguments, write_rows
from torch import Tensor

# Kernels that Triton interprets cannot be compiled.
os.environ.pop("TRITON_INTERPRET", None)

import triton
from linalg_kernels.backends import native
from linalg_kernels.backends.triton import operators
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = (80, 90)
ORDERS = (8, 16, 32)
DTYPES = (torch.float32, torch.float64)

# The budget: registers of a thread, so that 64 K of them hold 512 threads, nothing on the stack,
# and tiles of shared memory of a program (one of 32 x 32 in float32 is 4 KiB); a Gram matrix and
# the blocks it is summed from take more.
REGISTERS = operators.OPTIONS["maxnreg"]
TILES = 3
BLOCK_TILES = 6

# The model: bytes and operations a second, and what a multiprocessor has.
BANDWIDTH = 3e12
PEAK = {torch.float32: 60e12, torch.float64: 30e12}
REGISTER_FILE, THREADS, PROGRAMS = 65536, 2048, 32
SHARED = {80: 164 * 1024, 90: 228 * 1024}
SWEEPS = 8  # of Jacobi rotations, as random matrices of order 32 take

NONE = -float("inf")


@dataclass(frozen=True)
class Kernel:
    """A kernel by the call that launches it, and its work for one matrix of order n.

    `call` gets n and a function that makes tensors without memory. `moved` counts numbers of n²,
    `work` operations of n³ beside those of an eigensystem.
    """

    call: Callable[[int, Callable[..., Tensor]], Any]
    moved: float
    work: float
    eigensystem: bool = False
    tiles: int = TILES


def spectral(kind: int, floor: float = NONE) -> Callable[[int, Callable[..., Tensor]], Any]:
    def call(n: int, make: Callable[..., Tensor]) -> Any:
        table = make(4) if kind == native.POWER else None
        return operators.spectral(make(4, n, n), table, kind, floor, True, 0.02)

    return call


def frechet(kind: int, floor: float = NONE) -> Callable[[int, Callable[..., Tensor]], Any]:
    def call(n: int, make: Callable[..., Tensor]) -> Any:
        tables = {native.POWER: (4,), native.TABLE: (4, n, n)}
        table = make(*tables[kind]) if kind in tables else None
        return operators.frechet(make(4, n), make(4, n, n), make(4, n, n), table, kind, floor)

    return call


KERNELS = {
    "eigh": Kernel(lambda n, make: operators.eigh(make(4, n, n), True, 0.02), 2, 0, True),
    "eigvalsh": Kernel(lambda n, make: operators.eigvalsh(make(4, n, n), True, 0.02), 1, 0, True),
    "log": Kernel(spectral(native.LOG), 3, 2, True),
    "power": Kernel(spectral(native.POWER), 3, 2, True),
    "clamped log": Kernel(spectral(native.LOG, 0.1), 3, 2, True),
    "V f(w) V'": Kernel(
        lambda n, make: operators.evaluate(make(4, n), make(4, n, n), None, native.EXP, NONE), 2, 2
    ),
    "derivative of log": Kernel(frechet(native.LOG), 3, 8),
    "of exp": Kernel(frechet(native.EXP), 3, 8),
    "of power": Kernel(frechet(native.POWER), 3, 8),
    "of clamped log": Kernel(frechet(native.LOG, 0.1), 3, 8),
    "of a table": Kernel(frechet(native.TABLE), 4, 8),
    "cholesky": Kernel(lambda n, make: operators.cholesky(make(4, n, n), True, 0.02), 2, 1 / 3),
    "its adjoint": Kernel(
        lambda n, make: operators.cholesky_vjp(make(4, n, n), make(4, n, n)), 3, 4
    ),
    "distance": Kernel(
        lambda n, make: operators.pencil(make(4, n, n), make(4, n, n), 0.02, True), 3, 10 / 3, True
    ),
    "its gradient": Kernel(
        lambda n, make: operators.pencil_vjp(make(4, n), make(4, n), make(4, n, n), (True, True)),
        3, 4,
    ),
    # A tall matrix of 2048 rows: numbers and operations of its own below.
    "rank one": Kernel(
        lambda n, make: operators.leading_triple(make(4, 2048, n), 20, 1e-6), 0, 0,
        tiles=BLOCK_TILES,
    ),
    "without rank one": Kernel(
        lambda n, make: operators.without_leading_triple(make(4, 2048, n), 20, 1e-6), 0, 0,
        tiles=BLOCK_TILES,
    ),
    "reflections": Kernel(
        lambda n, make: operators.householder(make(4, n, n), make(4, n, n), False), 3, 4
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """What reached `operators.launch`."""

    kernel: Any
    dtype: torch.dtype
    N: int
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


def launches(kernel: Kernel, n: int, dtype: torch.dtype) -> Launch:
    """The one launch of a call, with everything it is given."""
    seen = []

    def keep(kernel, batch, columns, dtype, N, *arguments, **constants):  # noqa: ARG001
        seen.append(Launch(kernel, dtype, N, arguments, constants))

    with mock.patch.object(operators, "launch", keep):
        kernel.call(n, lambda *shape: torch.empty(shape, dtype=dtype, device="meta"))
    (launch,) = seen
    return launch


def signature(launch: Launch) -> tuple[dict[str, str], dict[str, Any]]:
    """Types of all arguments, and values of those that are constants to the compiler."""
    names = launch.kernel.arg_names
    values = dict(zip(names, launch.arguments, strict=False)) | launch.constants
    values |= {"first": 0, "N": launch.N}
    pointers = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32"}
    types, constants = {}, {}
    for parameter in launch.kernel.params:
        value = values[parameter.name]
        if parameter.is_constexpr:
            types[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, Tensor):
            types[parameter.name] = pointers[value.dtype]
        else:
            types[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    return types, constants


def usage(launch: Launch, architecture: int) -> dict[str, int]:
    """Warps, registers, bytes of stack and of shared memory of the compiled kernel."""
    types, constants = signature(launch)
    warps = operators.warps(launch.kernel, launch.N, launch.dtype)
    compiled = triton.compile(
        ASTSource(launch.kernel, signature=types, constexprs=constants),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": warps, **operators.OPTIONS},
    )
    dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        told = subprocess.run(
            [dump, "-res-usage", cubin], capture_output=True, text=True, check=True
        ).stdout
    counts = {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return {
        "warps": warps,
        "registers": counts["REG"],
        "stack": counts["STACK"] + counts["LOCAL"],
        "shared": compiled.metadata.shared,
    }


def occupancy(used: dict[str, int], architecture: int) -> int:
    """Programs that one multiprocessor holds at a time."""
    threads = 32 * used["warps"]
    # Registers are given to warps in units of 8 a thread.
    registers = -(-used["registers"] // 8) * 8 * threads
    limits = [PROGRAMS, THREADS // threads, REGISTER_FILE // registers]
    if used["shared"]:
        # A program takes 1 KiB for the system beside its own.
        limits.append(SHARED[architecture] // (used["shared"] + 1024))
    return min(limits)


def model(name: str, kernel: Kernel, n: int, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes moved and operations of one matrix."""
    size = torch.empty((), dtype=dtype).element_size()
    if name.endswith("rank one"):
        rows = 2048
        # Read twice and written once or not; the Gram matrix, ten squarings, X v and u v^T.
        passes = 3 if name.startswith("without") else 2
        return passes * rows * n * size, 2 * rows * n * n + 10 * 2 * n**3 + 4 * rows * n
    work = 2 * kernel.work * n**3 if kernel.work > 1 else kernel.work * n**3
    if kernel.eigensystem:
        # A round turns the columns of two tiles three times, 3 operations a number.
        work += SWEEPS * operators.rounds(n) * 9 * n * n
    return kernel.moved * n * n * size, work


def rows(
    names: list[str], orders: list[int], dtypes: list[torch.dtype], architectures: list[int]
) -> Iterator[dict[str, Any]]:
    for name in names:
        kernel = KERNELS[name]
        for dtype in dtypes:
            for n in orders:
                launch = launches(kernel, n, dtype)
                size = torch.empty((), dtype=dtype).element_size()
                moved, work = model(name, kernel, n, dtype)
                for architecture in architectures:
                    used = usage(launch, architecture)
                    shared = kernel.tiles * max(launch.N, 32) ** 2 * size
                    met = (
                        used["stack"] == 0
                        and used["registers"] <= REGISTERS
                        and used["shared"] <= shared
                    )
                    kind = str(dtype).removeprefix("torch.")
                    yield {
                        "label": f"{name}, {kind}, n={n}, sm_{architecture}",
                        "metric": "registers",
                        "value": used["registers"],
                        "better": "lower",
                        "kernel": name,
                        "dtype": kind,
                        "n": n,
                        "architecture": f"sm_{architecture}",
                        **used,
                        "met": met,
                        "programs": occupancy(used, architecture),
                        "by_memory": BANDWIDTH / moved,
                        "by_arithmetic": PEAK[dtype] / work,
                    }


HEAD = (
    f"{'kernel':18} {'dtype':8} {'n':>3} {'sm':>5} {'warps':>5} {'regs':>4} {'stack':>5} "
    f"{'shared':>6} {'budget':6} | model: {'programs/SM':>11} {'memory/s':>9} {'flops/s':>9}"
)


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['kernel']:18} {row['dtype']:8} {row['n']:3} {row['architecture']:>5} "
        f"{row['warps']:5} {row['registers']:4} {row['stack']:5} {row['shared']:6} "
        f"{'met' if row['met'] else 'MISSED':6} |        {row['programs']:11} "
        f"{row['by_memory']:9.1e} {row['by_arithmetic']:9.1e}"
    )


def main() -> int:
    """Prints a table and writes rows; 1 if a kernel is over its budget."""
    parser = arguments(__doc__)
    parser.add_argument("--orders", type=int, nargs="+", default=list(ORDERS))
    parser.add_argument("--only", nargs="+", choices=list(KERNELS), default=list(KERNELS))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float64"])
    parser.add_argument(
        "--architectures", type=int, nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES)
    )
    options = parser.parse_args()
    if options.quick:
        options.orders, options.architectures, options.dtypes = [8], [90], ["float32"]
    dtypes = [getattr(torch, name) for name in options.dtypes or ()] or list(DTYPES)
    print(f"Triton {triton.__version__}, compiled without a GPU; the model is no measurement")
    print(HEAD)
    found = []
    for row in rows(options.only, options.orders, dtypes, options.architectures):
        found.append(row)
        print(line(row), flush=True)
    missed = sum(not row["met"] for row in found)
    print(f"{len(found) - missed} of {len(found)} compiled kernels within their budget")
    write_rows(options.out, __doc__.splitlines()[0], found)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
