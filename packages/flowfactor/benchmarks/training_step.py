"""What does the exact log-determinant cost beside the released code's row sums?

One thread, float32, the published potentials (all widths n) on 32 sequences. A step is what
the flow adds to one transition of training: the move, the Hamilton-Jacobi loss with its force,
the change of log density, and the gradient of all in the weights. The released step (Song et
al. 2023) is written anew from its description: derivatives by autograd, d²u as the gradient of
the gradient's sum, Σ log|1 + row sums|, which is no determinant. At n = 324 the exact
determinant is also taken by `slogdet` of autograd's Hessian, row by row and by torch.func at
once, and compared with the closed form's. Ratios of medians, in turns.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import potential_flows as pf
import torch
from flowfactor import LatentFlow
from torch import Tensor

QUESTION = "What does the exact log-determinant cost beside the released code's row sums?"
BATCH = 32


class Cases:
    """The same flow, stepped in each way; every call returns the change of log density."""

    def __init__(self, n: int) -> None:
        torch.manual_seed(n)
        self.flow = LatentFlow(n, 1)
        self.z = torch.randn(BATCH, n)
        self.weights = list(self.flow.parameters())

    def ours(self) -> Tensor:
        """Closed forms, exact determinant."""
        logabsdet = self.flow.logabsdet(self.z, 1.0, 0)
        moved = self.flow.step(self.z, 1.0, 0)
        loss = self.flow.hamilton_jacobi_square(self.z, 1.0, 0).mean()
        return self._train(loss, moved, logabsdet)

    def released(self) -> Tensor:
        """One time for all rows, sums over the batch, row sums of the Hessian."""
        u, force = self.flow.potentials[0], self.flow.forces[0]
        z = self.z.detach().requires_grad_()
        t = torch.ones((), requires_grad=True)
        value = u(z, t)
        rate = torch.autograd.grad(value.sum(), t, create_graph=True)[0]
        slope = torch.autograd.grad(value.sum(), z, create_graph=True)[0]
        rows = torch.autograd.grad(slope.sum(), z, create_graph=True)[0]
        residual = rate + 0.5 * slope.square().mean() + force(z, t).square()
        logabsdet = (1 + rows).abs().log().sum(-1)
        return self._train(residual.square().mean(), z + slope, logabsdet)

    def func(self) -> Tensor:
        """The step with the exact determinant of torch.func's Hessian, all columns at once."""
        return self._by_autograd(lambda u, z: pf.hessian(u, z, 1.0))

    def autograd(self) -> Tensor:
        """The same with the Hessian row by row, as autograd is commonly asked for it."""

        def rows(u: pf.Potential, z: Tensor) -> Tensor:
            z = z.detach().requires_grad_()
            value = u(z, torch.ones(len(z)))
            slope = torch.autograd.grad(value.sum(), z, create_graph=True)[0]
            return torch.stack(
                [
                    torch.autograd.grad(slope[:, i].sum(), z, create_graph=True)[0]
                    for i in range(z.shape[-1])
                ],
                1,
            )

        return self._by_autograd(rows)

    def _by_autograd(self, hessian: Callable[[pf.Potential, Tensor], Tensor]) -> Tensor:
        u, force = self.flow.potentials[0], self.flow.forces[0]
        hidden = lambda z, t: u(z, t)  # noqa: E731 - without the closed forms
        H = hessian(hidden, self.z)
        logabsdet = torch.linalg.slogdet(torch.eye(H.shape[-1]) + H)[1]
        loss = pf.mean_square(
            pf.hamilton_jacobi_residual(hidden, self.z, 1.0, force=lambda z, t: -(force(z, t) ** 2))
        )
        return self._train(loss, pf.euler_step(hidden, self.z, 1.0), logabsdet)

    def _train(self, loss: Tensor, moved: Tensor, logabsdet: Tensor) -> Tensor:
        # Something of the next latent, as a decoder would.
        total = loss + moved.square().mean() - logabsdet.mean()
        torch.autograd.grad(total, self.weights, allow_unused=True)
        return logabsdet.detach()


def medians(calls: dict[str, Callable[[], Tensor]], seconds: float) -> dict[str, float]:
    """Median seconds of a call of each, in turns, for about `seconds` in all."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    while len(taken["ours"]) < 5 or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Prints a table and writes rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each comparison")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for n, peer in ((64, "released"), (324, "released"), (324, "func"), (324, "autograd")):
        cases = Cases(n)
        calls = {"ours": cases.ours, peer: getattr(cases, peer)}
        exact, other = cases.ours(), calls[peer]()
        difference = ((other - exact).abs().max() / exact.abs().max()).item()
        if peer != "released" and difference > 1e-3:
            raise SystemExit(f"n={n}: relative difference {difference:.1e} from {peer}")
        took = medians(calls, options.seconds)
        ratio = took[peer] / took["ours"]
        print(
            f"n={n:3d}  ours {1e3 * took['ours']:8.2f} ms  {peer:8s} {1e3 * took[peer]:9.2f} ms  "
            f"ours is {ratio:6.2f}x as fast  log density differs by {difference:.1e}"
        )
        rows.append(
            {
                "label": f"a step with its gradient, n={n}",
                "metric": f"speed over {peer} step",
                "value": ratio,
                "unit": "x",
                "better": "higher",
                "milliseconds": 1e3 * took["ours"],
                "relative difference of the log density": difference,
            }
        )
    if options.out:
        options.out.write_text(json.dumps({"question": QUESTION, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
