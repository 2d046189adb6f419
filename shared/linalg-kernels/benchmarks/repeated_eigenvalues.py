"""What is the derivative of the matrix logarithm worth where eigenvalues meet?

Prints, beside torch's own autograd through eigh, spd-learn and pyRiemann:

- the relative error of the gradient of <G, log A> against mpmath at 60 digits, for spectra
  from "all equal" to relative gaps of 1e-14, and for scales from 1e-12 to 1e6,
- the relative error of a Hessian-vector product, against the same.

    python benchmarks/repeated_eigenvalues.py --out repeated.json
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import linalg_kernels as lk
import mpmath
import torch
from eigenworks.timing import arguments, write_rows
from linalg_kernels.testing import exact_frechet, orthogonal, with_spectrum
from rich.console import Console
from rich.table import Table
from torch import Tensor

warnings.filterwarnings("ignore")

SPECTRA = {
    "I": [1.0, 1.0, 1.0, 1.0],
    "diag(1, 1, 2, 2)": [1.0, 1.0, 2.0, 2.0],
    **{f"gap 1e-{k}": [1.0, 1.0 + 10.0**-k, 2.0, 2.0 * (1 + 10.0**-k)] for k in range(4, 15, 2)},
}
SCALES = (1e-12, 1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6)


def torch_log(A: Tensor) -> Tensor:
    w, V = torch.linalg.eigh(A)
    return (V * torch.log(w)) @ V.mT


def spd_learn_log(A: Tensor) -> Tensor:
    from spd_learn.functional import matrix_log

    return matrix_log.apply(A)


def pyriemann_log(A: Tensor) -> Tensor:
    from pyriemann.geometry.base import logm

    return logm(A)


WAYS = {
    "linalg-kernels": lk.logm,
    "torch eigh": torch_log,
    "spd-learn": spd_learn_log,
    "pyRiemann": pyriemann_log,
}


def exact_hvp(A: Tensor, G: Tensor, H: Tensor) -> Tensor:
    """D²log(A)[G, H], by mpmath: a central difference of the exact derivative at 60 digits."""
    digits = 60
    with mpmath.workdps(digits):
        n = A.shape[-1]

        def matrix(T: Tensor) -> Any:
            return mpmath.matrix([[mpmath.mpf(float(x)) for x in row] for row in T])

        a, g, h = matrix(A), matrix((G + G.mT) / 2), matrix((H + H.mT) / 2)
        step = mpmath.mpf(10) ** -15

        def frechet(m: Any) -> Any:
            w, V = mpmath.eigsy(m)
            inner = V.T * g * V
            for i in range(n):
                for j in range(n):
                    gap = w[i] - w[j]
                    tied = abs(gap) < mpmath.mpf(10) ** -40
                    inner[i, j] *= 1 / w[i] if tied else mpmath.log(w[i] / w[j]) / gap
            return V * inner * V.T

        D = (frechet(a + step * h) - frechet(a - step * h)) / (2 * step)
        return torch.tensor(
            [[float(D[i, j]) for j in range(n)] for i in range(n)], dtype=torch.float64
        )


def relative(got: Tensor | None, exact: Tensor) -> float:
    if got is None:
        return math.nan
    return float(torch.linalg.norm(got.double() - exact) / torch.linalg.norm(exact))


def gradient(log, A: Tensor, G: Tensor) -> Tensor:
    leaf = A.clone().requires_grad_()
    (grad,) = torch.autograd.grad((log(leaf) * G).sum(), leaf)
    return (grad + grad.mT) / 2


def hvp(log, A: Tensor, G: Tensor, H: Tensor) -> Tensor | None:
    leaf = A.clone().requires_grad_()
    (grad,) = torch.autograd.grad((log(leaf) * G).sum(), leaf, create_graph=True)
    if not grad.requires_grad:
        return None
    (second,) = torch.autograd.grad((grad * H).sum(), leaf)
    return (second + second.mT) / 2


def measure() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    Q = orthogonal(4, generator=generator)
    G = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    H = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    H = (H + H.mT) / 2
    rows = []

    def add(what: str, at: str, exact: Tensor, results: Mapping[str, Tensor | None]) -> None:
        for way, got in results.items():
            error = relative(got, exact)
            rows.append(
                {
                    "label": f"{what}, {at}, {way}",
                    "what": what,
                    "at": at,
                    "way": way,
                    "metric": "relative error",
                    # JSON has no NaN; a gradient that is NaN has no correct digit.
                    "value": error if math.isfinite(error) else None,
                    "better": "lower",
                }
            )

    for name, spectrum in SPECTRA.items():
        # The exact multiples and the diagonal are taken as they are: a rotation would round
        # their ties apart.
        A = torch.diag(torch.tensor(spectrum, dtype=torch.float64))
        A = A if name in ("I", "diag(1, 1, 2, 2)") else with_spectrum(spectrum, Q)
        exact = exact_frechet(A, G, mpmath.log, lambda x: 1 / x)
        add("gradient", name, exact, {k: gradient(f, A, G) for k, f in WAYS.items()})
        exact = exact_hvp(A, G, H)
        add("Hessian-vector product", name, exact, {k: hvp(f, A, G, H) for k, f in WAYS.items()})
    for dtype in (torch.float64, torch.float32):
        for scale in SCALES:
            A = (with_spectrum([0.2, 0.5, 0.9, 1.0], Q) * scale).to(dtype)
            exact = exact_frechet(A, G, mpmath.log, lambda x: 1 / x)
            results = {k: gradient(f, A, G.to(dtype)) for k, f in WAYS.items()}
            add(f"gradient, {str(dtype)[6:]}", f"scale {scale:.0e}", exact, results)
    return rows


def show(rows: list[dict]) -> None:
    for what in dict.fromkeys(row["what"] for row in rows):
        table = Table(title=f"log: relative error of the {what}")
        table.add_column("at")
        for way in WAYS:
            table.add_column(way, justify="right")
        chosen = [row for row in rows if row["what"] == what]
        for at in dict.fromkeys(row["at"] for row in chosen):
            cells = [row["value"] for row in chosen if row["at"] == at]
            table.add_row(at, *("NaN or none" if v is None else f"{v:.0e}" for v in cells))
        Console().print(table)


def main() -> None:
    options = arguments(__doc__).parse_args()
    rows = measure()
    show(rows)
    write_rows(options.out, "What is the derivative of logm worth where eigenvalues meet?", rows)


if __name__ == "__main__":
    main()
