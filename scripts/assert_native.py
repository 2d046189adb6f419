"""Fail unless linalg-kernels computes by its native library here.

Without the library it works all the same, by plain torch: a broken build would go unnoticed. Needs
nothing but linalg-kernels, so that it runs in any environment a wheel is tried in.
"""

import sys

import linalg_kernels
import torch


def main() -> int:
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}")
    info = linalg_kernels.backend_info()
    print(info)
    if info.native is None:
        print(f"error: {info.reason}", file=sys.stderr)
        return 1
    # The library is not only found: it factorises, and its factor gives the matrix back.
    X = torch.randn(64, 8, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A = X @ X.mT
    with linalg_kernels.backend("native"):
        L = linalg_kernels.cholesky(A)
    error = ((L @ L.mT - A).abs().amax() / A.abs().amax()).item()
    if not error < 1e-14:
        print(f"error: cholesky is off by {error:.1e} of the largest entry", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
