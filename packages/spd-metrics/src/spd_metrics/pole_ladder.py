"""Parallel transport along a Bures-Wasserstein geodesic by a pole ladder, extrapolated.

One rung of the ladder reflects a short geodesic at the midpoint m of its piece of the way, and
reads the end backwards (Lorenzi and Pennec 2014). For a geodesic of vanishing length that is
V -> -Dσ_m[V], linear in V, with the geodesic symmetry σ_m(T m T) = (2I - T) m (2I - T). With the
way (L + tF)(L + tF)^T, and M, M₀, M₁ = L + tF at the middle and both ends of a rung, it reads

    V' = M^-T Y M₁^T + (·)^T,   N Y + Y N = M^T V M,   N = M^T M₀.

A rung backwards undoes it, so that the error of a ladder is a series in even powers of the
length of its rungs, and ladders of 2, 4, 6, … rungs are extrapolated (Richardson). The last
improvement estimates the error.
"""

import warnings

import torch
from linalg_kernels import ConvergenceWarning, eigvalsh
from linalg_kernels.lyapunov import eigensystem, solve
from linalg_kernels.transforms import read
from torch import Tensor

_RUNGS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


def _lyapunov(N: Tensor, w: Tensor, U: Tensor, R: Tensor) -> Tensor:
    """Y with N Y + Y N = R, from N = U diag(w) U^T."""
    again = N, w, U
    if torch.compiler.is_compiling():
        # Dynamo does not trace a Function that is given one tensor twice.
        again = N.clone(), w.clone(), U.clone()
    return solve(N, again[0], R, w, U, again[1], again[2])


def climb(V: Tensor, L: Tensor, F: Tensor, times: Tensor) -> Tensor:
    """V (*batch, n, n) carried up one ladder with ends of rungs at `times` (rungs + 1, *batch)."""
    t = times[..., None, None]
    ends, middle = L + t * F, L + (t[1:] + t[:-1]) / 2 * F
    N = _symmetric(middle.mT @ ends[:-1])
    w, U = eigensystem(N, True, False, "N")
    # V stays as R = M^T V M, read at the middle of its rung: no rung needs an inverse of its own.
    step = torch.linalg.solve(middle[:-1], middle[1:]).mT
    across = ends[1:-1].mT @ middle[1:]
    R = middle[0].mT @ V @ middle[0]
    for rung in range(len(N)):
        Y = _lyapunov(N[rung], w[rung], U[rung], R)
        if rung < len(step):
            half = step[rung] @ Y @ across[rung]
            R = half + half.mT
    half = torch.linalg.solve(middle[-1].mT, Y @ ends[-1].mT)
    return half + half.mT


def _spread(D: Tensor, count: int) -> Tensor:
    """Times (count + 1, *batch) in [0, 1], dense where I + tD is about to become singular.

    The eigenvalues 1 + td vanish at a time before 0 and at one after 1; the logarithm of the
    ratio of the distances to these two grows evenly.
    """
    d = eigvalsh(D.detach(), check=False)
    before = 1 / d.amax(-1).clamp(min=1e-3)
    after = 1 / (-d.amin(-1)).clamp(1e-3, 1 - torch.finfo(D.dtype).eps) - 1
    first, last = torch.log(before / (1 + after)), torch.log((1 + before) / after)
    even = torch.linspace(0, 1, count + 1, dtype=D.dtype, device=D.device)
    even = even.reshape(-1, *[1] * first.ndim)
    times = (1 + before + after) * torch.sigmoid(first + even * (last - first)) - before
    return torch.cat([torch.zeros_like(times[:1]), times[1:-1], torch.ones_like(times[:1])])


def transport(V: Tensor, L: Tensor, F: Tensor) -> Tensor:
    """V carried from L L^T to (L + F)(L + F)^T, F L^-1 being symmetric.

    Ladders are added until the last changes the result by less than eps^⅔ of its norm; that
    change is an upper estimate of the error. Warns (ConvergenceWarning) where the longest
    ladder still changes it by more than √eps.
    """
    V, L, F = torch.broadcast_tensors(V, L, F)
    if V.shape[-1] == 0:
        return V
    D = _symmetric(torch.linalg.solve_triangular(L, F, upper=False, left=False))
    eps = torch.finfo(V.dtype).eps
    table: list[Tensor] = []
    change: float | None = None
    for row, count in enumerate(_RUNGS):
        line = [climb(V, L, F, _spread(D, count))]
        for k, previous in enumerate(table):
            ratio = (count / _RUNGS[row - k - 1]) ** 2
            line.append(line[k] + (line[k] - previous) / (ratio - 1))
        if table:
            change = _relative_change(line[-1], table[-1])
            if change is not None and not change > eps ** (2 / 3):
                return line[-1]
        table = line
    if change is not None and change > eps**0.5:
        warnings.warn(
            f"the ladder of {_RUNGS[-1]} rungs still changed the Bures-Wasserstein transport by "
            f"{change:.1g} of its norm: the points are far from each other",
            ConvergenceWarning,
            stacklevel=4,
        )
    return table[-1]


def _relative_change(now: Tensor, before: Tensor) -> float | None:
    """The largest of a batch; None where values cannot be read."""
    if now.numel() == 0:
        return 0.0
    norms = torch.linalg.matrix_norm
    size = norms(now.detach())
    change = norms((now - before).detach()) / torch.where(size > 0, size, 1)
    return read(change.nan_to_num(0.0).amax())
