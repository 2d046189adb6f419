"""How far are spectral functions from mpmath at 60 digits?

Prints ‖F - F*‖_F / ‖F*‖_F in units of rounding for matrices of order 8, worst of five, beside
what their condition allows: 20 (1 + κ), κ = max|f'(w)| λ_max / ‖F*‖_F.

    python benchmarks/accuracy.py --out accuracy.json
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import linalg_kernels as lk
import mpmath
import torch
from eigenworks.timing import arguments, write_rows
from linalg_kernels.testing import exact_function, random_spd, relative_error
from rich.console import Console
from rich.table import Table
from torch import Tensor


class Function(NamedTuple):
    """A spectral function and, for the oracle, the real function and its derivative."""

    ours: Callable[[Tensor], Tensor]
    f: Callable
    df: Callable


FUNCTIONS = {
    "logm": Function(lk.logm, mpmath.log, lambda x: 1 / x),
    "expm": Function(lk.expm, mpmath.exp, mpmath.exp),
    "sqrtm": Function(lk.sqrtm, mpmath.sqrt, lambda x: 1 / (2 * mpmath.sqrt(x))),
    "inv_sqrtm": Function(
        lk.inv_sqrtm, lambda x: 1 / mpmath.sqrt(x), lambda x: 1 / (2 * x * mpmath.sqrt(x))
    ),
    "powm(-1)": Function(lambda A: lk.powm(A, -1.0), lambda x: 1 / x, lambda x: 1 / x**2),
    "powm(0.75)": Function(
        lambda A: lk.powm(A, 0.75),
        lambda x: x ** mpmath.mpf(0.75),
        lambda x: mpmath.mpf(0.75) / x ** mpmath.mpf(0.25),
    ),
}
CONDITIONS = (1e2, 1e4, 1e6, 1e8, 1e12)


def measure(conditions: Sequence[float]) -> list[dict]:
    rows = []
    for dtype in (torch.float32, torch.float64):
        for cond in conditions:
            # Single precision cannot tell the smallest eigenvalue from zero beyond this.
            if cond > 0.1 / torch.finfo(dtype).eps:
                continue
            generator = torch.Generator().manual_seed(0)
            matrices = [random_spd(8, cond=cond, generator=generator) for _ in range(5)]
            for name, function in FUNCTIONS.items():
                errors, bounds = [], []
                for A in matrices:
                    A = (A / cond if name == "expm" else A).to(dtype)
                    exact = exact_function(A, function.f)
                    w = torch.linalg.eigvalsh(A.double())
                    slope = max(abs(float(function.df(mpmath.mpf(float(x))))) for x in w)
                    kappa = slope * float(w[-1]) / float(torch.linalg.matrix_norm(exact))
                    errors.append(relative_error(function.ours(A), exact))
                    bounds.append(20 * (1 + kappa))
                rows.append(
                    {
                        "label": f"{name}, {str(dtype)[6:]}, cond {cond:.0e}",
                        "metric": "error",
                        "unit": "eps",
                        "value": max(errors),
                        "allowed": max(bounds),
                        "better": "lower",
                    }
                )
    return rows


def show(rows: list[dict]) -> None:
    table = Table(title="relative error against mpmath, in roundings")
    for column in ("", "error", "allowed"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(row["label"], f"{row['value']:.3g}", f"{row['allowed']:.3g}")
    Console().print(table)


def main() -> None:
    options = arguments(__doc__).parse_args()
    rows = measure(CONDITIONS[:2] if options.quick else CONDITIONS)
    show(rows)
    write_rows(options.out, "How far are spectral functions from mpmath at 60 digits?", rows)


if __name__ == "__main__":
    main()
