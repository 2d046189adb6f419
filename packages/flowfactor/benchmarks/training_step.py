"""What does the exact log-determinant cost beside the released code's row sums?

One thread, float32, the published potentials (all widths n) on 32 sequences.

A training step is the whole of it: encode the first frames, move them T = 8 times, decode
every frame, all terms of the loss, their gradient, Adam; with the published convolutional VAE
on 3 x 28 x 28, and with this package's small MLP, where the flow has the larger share. A
transition is only what the flow adds at one t: the move, the Hamilton-Jacobi loss with its
force, the change of log density, and the gradient in the weights of the flow.

The released step (Song et al. 2023) is written anew from its description: step by step in time,
derivatives by autograd, d²u as the gradient of the gradient's sum, Σ log|1 + row sums|, which is
no determinant. At n = 324 the exact determinant is also taken by `slogdet` of autograd's Hessian:
by torch.func at once, row by row for the whole batch, and by `torch.autograd.functional.hessian`
for one point after the other. Values are compared before anything is timed. Ratios of medians, in
turns.
"""

from typing import Literal

import potential_flows as pf
import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from flowfactor import Config, LatentFlow, OfficialPrior, sequence_bound
from flowfactor.posterior import sample_gaussian, standard_normal_kl
from torch import Tensor
from torch.nn import functional

QUESTION = "What does the exact log-determinant cost beside the released code's row sums?"
BATCH, STEPS = 32, 8


def slopes(u: torch.nn.Module, z: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """∂u/∂t summed over the batch, ∇u, and the row sums of ∇²u, as the released code has them."""
    time = torch.tensor(t, requires_grad=True)
    value = u(z, time)
    rate = torch.autograd.grad(value.sum(), time, create_graph=True)[0]
    slope = torch.autograd.grad(value.sum(), z, create_graph=True)[0]
    rows = torch.autograd.grad(slope.sum(), z, create_graph=True)[0]
    return rate, slope, rows


class TrainingStep:
    """One update of the same model on the same sequences, with either loss."""

    def __init__(self, backbone: Literal["mlp", "conv-a"], n: int) -> None:
        torch.manual_seed(n)
        config = Config(
            (3, 28, 28), 3, n, backbone=backbone, hidden=(256, 128), potential_hidden=None,
            bounded=True, prior="official",
        )  # fmt: skip
        self.model = config.build()
        self.frames = torch.rand(BATCH, STEPS + 1, 3, 28, 28)
        # Nothing is learned while it is timed.
        self.optimizer = torch.optim.Adam(self.model.parameters(), 0.0)

    def ours(self) -> float:
        """Exact determinants and constraints of all steps in one call, frames decoded in one."""
        return self._update(sequence_bound(self.model, self.frames, 0).loss)

    def released(self) -> float:
        """One transition after the other, row sums, softmax over coordinates."""
        model, frames = self.model, self.frames
        assert isinstance(model.prior, OfficialPrior)
        u, force, sigma = model.flow.potentials[0], model.flow.forces[0], model.prior.sigma[0]
        mean, log_var = model.encode(frames[:, 0])
        z = sample_gaussian(mean, log_var)
        loss = standard_normal_kl(mean, log_var).mean() + self._entropy(z, 0)
        log_q = -0.5 * ((z - mean).square() / log_var.exp() + log_var)
        log_p = -0.5 * z.square()
        start = slopes(u, z, 0.0)[1]
        loss = loss + start.square().mean() + force(z, 0.0).square().mean()
        for t in range(1, STEPS + 1):
            rate, slope, rows = slopes(u, z, float(t))
            residual = rate + 0.5 * slope.square().mean() + force(z, float(t)).square()
            loss = loss + residual.square().mean()
            log_q = log_q - (1 + rows).abs().log()
            square = sigma[t - 1].square() + 1e-5 if t > 1 else torch.ones(())
            log_p = log_p - torch.log1p(1 / square)
            loss = loss + functional.kl_div(
                log_p.exp().log_softmax(-1),
                log_q.exp().log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            )
            z = z + slope
            loss = loss + self._entropy(z, t)
        return self._update(loss)

    def _entropy(self, z: Tensor, t: int) -> Tensor:
        shown = self.model.decode(z)
        return functional.binary_cross_entropy(shown, self.frames[:, t], reduction="sum") / BATCH

    def _update(self, loss: Tensor) -> float:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Transition:
    """What the flow adds at one t, in each way; calls return the change of log density."""

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
        rate, slope, rows = slopes(u, z, 1.0)
        residual = rate + 0.5 * slope.square().mean() + force(z, 1.0).square()
        logabsdet = (1 + rows).abs().log().sum(-1)
        return self._train(residual.square().mean(), z + slope, logabsdet)

    def _train(self, loss: Tensor, moved: Tensor, logabsdet: Tensor) -> Tensor:
        # Something of the next latent, as a decoder would.
        total = loss + moved.square().mean() - logabsdet.mean()
        torch.autograd.grad(total, self.weights, allow_unused=True)
        return logabsdet.detach()


class Determinant:
    """log|det(I + ∇²u)| with and without its gradient in the weights."""

    def __init__(self, n: int, trained: bool) -> None:
        torch.manual_seed(n)
        self.u = pf.MLPPotential(n, n, time_dim=n, output=torch.tanh)
        self.z = torch.randn(BATCH, n)
        # The last bias moves no derivative.
        self.weights = list(self.u.parameters())[:-1]
        self.trained = trained
        self.u.requires_grad_(trained)

    def ours(self) -> Tensor:
        """The closed form."""
        return self._train(pf.step_logabsdet(self.u, self.z, 1.0))

    def func(self) -> Tensor:
        """torch.func's Hessian, all columns of all points at once."""
        hidden = lambda z, t: self.u(z, t)  # noqa: E731 - without the closed forms
        return self._slogdet(pf.hessian(hidden, self.z, 1.0))

    def rows(self) -> Tensor:
        """The Hessian row by row for all points, as autograd is commonly asked for it."""
        z = self.z.detach().requires_grad_()
        value = self.u(z, torch.ones(len(z)))
        slope = torch.autograd.grad(value.sum(), z, create_graph=True)[0]
        found = [
            torch.autograd.grad(slope[:, i].sum(), z, retain_graph=True, create_graph=self.trained)[
                0
            ]
            for i in range(z.shape[-1])
        ]
        return self._slogdet(torch.stack(found, 1))

    def points(self) -> Tensor:
        """torch.autograd.functional.hessian of one point after the other."""
        found = [
            torch.autograd.functional.hessian(
                lambda z: self.u(z, 1.0), z, create_graph=self.trained
            )
            for z in self.z
        ]
        return self._slogdet(torch.stack(found))

    def _slogdet(self, H: Tensor) -> Tensor:
        return self._train(torch.linalg.slogdet(torch.eye(H.shape[-1]) + H)[1])

    def _train(self, logabsdet: Tensor) -> Tensor:
        if self.trained:
            torch.autograd.grad(logabsdet.sum(), self.weights)
        return logabsdet.detach()


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each comparison")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []

    def compare(
        label: str, cases: TrainingStep | Transition | Determinant, peer: str, least: int = 5
    ) -> None:
        calls = {"ours": cases.ours, peer: getattr(cases, peer)}
        exact, other = (torch.as_tensor(call()) for call in calls.values())
        difference = ((other - exact).abs().max() / exact.abs().max()).item()
        if peer != "released" and difference > 1e-3:
            raise SystemExit(f"{label}: relative difference {difference:.1e} from {peer}")
        if options.quick:
            took = medians(in_turns(calls, least=1))
        else:
            took = medians(in_turns(calls, options.seconds, least=least))
        ratio = took[peer] / took["ours"]
        print(
            f"{label:36s} ours {1e3 * took['ours']:8.2f} ms  {peer:8s} {1e3 * took[peer]:9.2f} ms"
            f"  {ratio:6.2f}x as fast",
            flush=True,
        )
        rows.append(
            {
                "label": label,
                "metric": f"speed over {peer}",
                "value": ratio,
                "unit": "x",
                "better": "higher",
                "milliseconds": 1e3 * took["ours"],
                "relative difference": difference,
            }
        )

    compare("training step, published VAE, n=64", TrainingStep("conv-a", 64), "released", 3)
    compare("training step, small MLP, n=64", TrainingStep("mlp", 64), "released")
    large = 64 if options.quick else 324
    for n in sorted({64, large}):
        compare(f"one transition, n={n}", Transition(n), "released")
    for trained in (False, True):
        what = "log|det| and gradient" if trained else "log|det|"
        for peer in ("func", "rows", "points"):
            least = 1 if peer == "points" else 3
            compare(f"{what}, n={large}", Determinant(large, trained), peer, least)
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
