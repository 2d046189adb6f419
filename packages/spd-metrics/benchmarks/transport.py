"""How exact and how fast is Bures-Wasserstein transport as the points move apart?

`transport` climbs extrapolated pole ladders. Its error, and that of a Runge-Kutta integration
of the equation of parallel fields in 100 steps (what geomstats does, in our own writing), are
taken against an integration by scipy's DOP853 to 1e-13, for optimal maps T of condition number
3 to 3000 between 6 x 6 matrices P and T P T. Errors are the largest of 20 pairs, relative to
the norm of the result; times are medians of a batch of 20, taken in turns.
"""

import warnings

import numpy as np
import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from linalg_kernels import lyapunov
from linalg_kernels.testing import orthogonal, random_spd, with_spectrum
from scipy.integrate import solve_ivp
from scipy.linalg import solve_continuous_lyapunov
from spd_metrics import BuresWasserstein
from torch import Tensor

QUESTION = "How exact and how fast is Bures-Wasserstein transport as the points move apart?"
CONDITIONS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
PAIRS, ORDER, STEPS = 20, 6, 100


def draw(cond: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """P, T, Q = T P T and V, each (pairs, n, n)."""
    generator = torch.Generator().manual_seed(int(cond))
    P = random_spd(PAIRS, ORDER, cond=10.0, generator=generator)
    ends = torch.logspace(-0.5, 0.5, ORDER, base=cond, dtype=torch.float64)
    T = with_spectrum(ends, orthogonal(PAIRS, ORDER, generator=generator))
    Q = T @ P @ T
    V = torch.randn(PAIRS, ORDER, ORDER, generator=generator, dtype=torch.float64)
    return P, T, (Q + Q.mT) / 2, V + V.mT


def runge_kutta(P: Tensor, T: Tensor, Q: Tensor, V: Tensor, steps: int = STEPS) -> Tensor:
    """V = S X + X S along X = T_t P T_t, T_t = I + t (T - I): S' = -𝓛_X[2 sym(S T_t^-1 T' X)]."""
    identity = torch.eye(ORDER, dtype=P.dtype)

    def slope(S: Tensor, t: float) -> Tensor:
        here = identity + t * (T - identity)
        X = here @ P @ here
        K = S @ torch.linalg.solve(here, T - identity) @ X
        return -lyapunov(X, K + K.mT, check=False)

    S, h = lyapunov(P, V), 1 / steps
    for k in range(steps):
        first = slope(S, k * h)
        second = slope(S + h / 2 * first, (k + 0.5) * h)
        third = slope(S + h / 2 * second, (k + 0.5) * h)
        last = slope(S + h * third, (k + 1) * h)
        S = S + h / 6 * (first + 2 * second + 2 * third + last)
    return S @ Q + Q @ S


def reference(P: Tensor, T: Tensor, Q: Tensor, V: Tensor) -> Tensor:
    """The same equation by DOP853, pair by pair."""
    results = []
    for p, t_map, q, v in zip(*(A.numpy() for A in (P, T, Q, V)), strict=True):
        identity = np.eye(ORDER)

        def slope(t: float, flat: np.ndarray, p=p, t_map=t_map, identity=identity) -> np.ndarray:
            here = identity + t * (t_map - identity)
            X = here @ p @ here
            K = flat.reshape(ORDER, ORDER) @ np.linalg.solve(here, t_map - identity) @ X
            return -solve_continuous_lyapunov(X, K + K.T).ravel()

        start = solve_continuous_lyapunov(p, v).ravel()
        size = 1e-13 * float(np.abs(start).max())
        way = solve_ivp(slope, (0, 1), start, method="DOP853", rtol=1e-13, atol=size)
        S = way.y[:, -1].reshape(ORDER, ORDER)
        results.append(torch.from_numpy(S @ q + q @ S))
    return torch.stack(results)


def worst(got: Tensor, want: Tensor) -> float:
    """The largest relative error of a batch."""
    return float((torch.linalg.matrix_norm(got - want) / torch.linalg.matrix_norm(want)).max())


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each condition number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    seconds, least = (0.0, 1) if options.quick else (options.seconds, 3)
    for cond in CONDITIONS[1:2] if options.quick else CONDITIONS:
        P, T, Q, V = draw(cond)
        want = reference(P, T, Q, V)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            error = worst(BuresWasserstein().transport(P, Q, V), want)
            calls = {
                "ours": lambda P=P, Q=Q, V=V: BuresWasserstein().transport(P, Q, V),
                "Runge-Kutta": lambda P=P, T=T, Q=Q, V=V: runge_kutta(P, T, Q, V),
            }
            ours, theirs = medians(in_turns(calls, seconds, least=least)).values()
        other = worst(runge_kutta(P, T, Q, V), want)
        print(
            f"condition {cond:6g}: error {error:.1e}{' (warned)' if told else '':9s} "
            f"in {1e3 * ours:6.1f} ms; Runge-Kutta {other:.1e} in {1e3 * theirs:6.1f} ms"
        )
        label = f"condition of the optimal map {cond:g}"
        rows += [
            {"label": label, "metric": "relative error", "value": error, "better": "lower",
             "warned": bool(told)},
            {"label": label, "metric": "relative error of Runge-Kutta", "value": other},
            {"label": label, "metric": "speed over Runge-Kutta", "value": theirs / ours,
             "unit": "x", "better": "higher", "milliseconds": 1e3 * ours},
        ]  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
