"""K latent flows, each along the gradient of its own potential u^k(z, t)."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import potential_flows as pf
import torch
from jaxtyping import Float, Int64
from linalg_kernels import logabsdet_sym
from torch import Tensor, nn

LogDet = Literal["exact", "laplacian", "hutchinson", "official"]
Time = Float[Tensor, "*#batch"] | float | int
Flow = int | Int64[Tensor, "*batch"] | Float[Tensor, "*batch flows"]
"""Which flow moves a row: one for all, one a row, or weights (*batch, K) of a mixture."""
Rows = int | Tensor
"""The same without its shape, which `LatentFlow` checks."""
Linear = Callable[[pf.Potential, Tensor, Tensor], Tensor]


class Path(NamedTuple):
    """Latents z_0 … z_T, and log|det ∂z_t/∂z_{t-1}| of each step in nats."""

    z: Float[Tensor, "times *batch n"]
    logabsdet: Float[Tensor, "steps *batch"]


class LatentFlow(nn.Module):
    """z_t = z_{t-1} + ∇u^k(z_{t-1}, t), t = 1, 2, … (Song et al. 2023, section 3).

    Args:
        dim: n, the size of z; even and at least 4 unless `potentials` and `forces` are given.
        flows: K, the number of flows, at least 1.
        hidden: Width of potentials and forces; n by default, as in the released code.
        output: Map at the end of each potential, by default tanh (|u| < 1); None for none.
        substeps: Parts of each step, z <- z + ∇u(z, t)/m; with m = 1 the paper's.
        logdet: How `logabsdet` is computed. "exact": log|det(I + H)|, H = ∇²u. "laplacian":
            log|1 + Δu|, as the paper writes. "hutchinson": the same of an unbiased estimate
            of Δu. "official": Σ_i log|1 + (H 1)_i| of the released code, row sums of H.
        potentials: K networks u(z, t) of your own, (*batch, n) and (*batch) to (*batch).
        forces: K networks F(z, t) of your own; None for those of the paper.
    """

    def __init__(
        self,
        dim: int,
        flows: int,
        hidden: int | None = None,
        *,
        output: Callable[[Tensor], Tensor] | None = torch.tanh,
        substeps: int = 1,
        logdet: LogDet = "exact",
        potentials: Sequence[nn.Module] | None = None,
        forces: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if flows < 1:
            raise ValueError(f"flows must be at least 1, got {flows}")
        if substeps < 1:
            raise ValueError(f"substeps must be at least 1, got {substeps}")
        if logdet not in get_args(LogDet):
            raise ValueError(f"logdet must be one of {get_args(LogDet)}, got {logdet!r}")
        for name, given in (("potentials", potentials), ("forces", forces)):
            if given is not None and len(given) != flows:
                raise ValueError(f"{name} must be {flows}, one for each flow, got {len(given)}")
        self.dim = dim
        self.substeps = substeps
        self.logdet: LogDet = logdet

        def network(output: Callable[[Tensor], Tensor] | None) -> nn.Module:
            width = dim if hidden is None else hidden
            return pf.MLPPotential(dim, width, time_dim=dim, output=output)

        self.potentials = nn.ModuleList(potentials or [network(output) for _ in range(flows)])
        self.forces = nn.ModuleList(forces or [network(output) for _ in range(flows)])

    @property
    def flows(self) -> int:
        """K."""
        return len(self.potentials)

    def velocity(self, z: Float[Tensor, "*batch n"], t: Time, k: Flow) -> Float[Tensor, "*batch n"]:
        """∇u^k(z, t), or Σ_k y_k ∇u^k(z, t) for weights y."""
        return self._of_potentials(pf.gradient, z, t, k)

    def hessian(
        self, z: Float[Tensor, "*batch n"], t: Time, k: Flow
    ) -> Float[Tensor, "*batch n n"]:
        """The symmetric Jacobian of `velocity`."""
        return self._of_potentials(pf.hessian, z, t, k)

    def hamilton_jacobi_square(
        self, z: Float[Tensor, "*batch n"], t: Time, k: Flow
    ) -> Float[Tensor, "*batch"]:
        """r² of each row, r = ∂u/∂t + |∇u|²/2 + F(z, t)²: the force f = -F² is not positive.

        For weights y it is Σ_k y_k r_k².
        """

        def square(j: int, z: Tensor, t: Tensor) -> Tensor:
            u, force = self.potentials[j], self.forces[j]
            return pf.hamilton_jacobi_residual(u, z, t, force=lambda z, t: -(force(z, t) ** 2)) ** 2

        return self._each(square, z, t, k)

    def wave_square(
        self, z: Float[Tensor, "*batch n"], t: Time, k: Flow, speed: float = 1.0
    ) -> Float[Tensor, "*batch"]:
        """r² of each row, r = ∂²u/∂t² - c² Δu: the constraint of PoFlow (ICML 2023)."""
        return self._each(
            lambda j, z, t: pf.wave_residual(self.potentials[j], z, t, speed=speed) ** 2, z, t, k
        )

    def initial_square(self, z: Float[Tensor, "*batch n"], k: Flow) -> Float[Tensor, "*batch"]:
        """|∇u^k(z, 0)|² of each row, Σ_k y_k |∇u^k|² for weights: zero where z_0 is at rest."""
        return self._each(
            lambda j, z, t: pf.gradient(self.potentials[j], z, t).square().sum(-1), z, 0.0, k
        )

    def logabsdet(self, z: Float[Tensor, "*batch n"], t: Time, k: Flow) -> Float[Tensor, "*batch"]:
        """log|det ∂z_t/∂z_{t-1}| of one undivided step of length 1/substeps, by `logdet`."""
        part = 1 / self.substeps
        if self.logdet == "exact":
            if isinstance(k, Tensor) and k.is_floating_point():
                return logabsdet_sym(part * self.hessian(z, t, k))

            def own(j: int, z: Tensor, t: Tensor) -> Tensor:
                return pf.step_logabsdet(self.potentials[j], z, t, part)

            return self._each(own, z, t, k)
        if self.logdet == "laplacian":
            return (1 + part * self._of_potentials(pf.laplacian, z, t, k)).abs().log()
        if self.logdet == "hutchinson":
            signs = torch.randint_like(z, 2) * 2 - 1
            return (1 + part * (signs * self._product(z, t, k, signs)).sum(-1)).abs().log()
        rows = self._product(z, t, k, torch.ones_like(z))
        return (1 + part * rows).abs().log().sum(-1)

    def step(self, z: Float[Tensor, "*batch n"], t: Time, k: Flow) -> Float[Tensor, "*batch n"]:
        """z_t from z_{t-1}."""
        for _ in range(self.substeps):
            z = z + self.velocity(z, t, k) / self.substeps
        return z

    def inverse(
        self, z: Float[Tensor, "*batch n"], t: Time, k: Flow, *, max_iter: int = 200
    ) -> pf.Inverse:
        """z_{t-1} from z_t by fixed point, with its report (`pf.inverse_euler_step`).

        The step is a diffeomorphism where ‖H‖/substeps < 1. Rows that do not converge are
        reported and warned of.
        """

        def value(j: int, z: Tensor, t: Tensor) -> Tensor:
            return self.potentials[j](z, t)

        def own(z: Tensor, t: Tensor) -> Tensor:
            return self._each(value, z, t, k)

        u = self.potentials[k] if isinstance(k, int) else own
        return pf.inverse_euler_step(u, z, t, 1.0, self.substeps, max_iter=max_iter)

    def rollout(
        self, z: Float[Tensor, "*batch n"], k: Flow | Sequence[Flow], steps: int, start: int = 0
    ) -> Float[Tensor, "times *batch n"]:
        """z_start … z_{start+steps}; a list of `steps` flows switches between them.

        Args:
            z: Latents at time `start`.
            k: The flow, or one for each step.
            steps: At least 0.
            start: Time of z; the first step has the time start + 1.
        """
        path = [z]
        for i, flow in enumerate(_schedule(k, steps)):
            z = self.step(z, float(start + i + 1), flow)
            path.append(z)
        return torch.stack(path)

    def transport(
        self, z: Float[Tensor, "*batch n"], k: Flow | Sequence[Flow], steps: int, start: int = 0
    ) -> Path:
        """`rollout` with the log-determinant of each step; arguments as there.

        By the change of variables log q_t(z_t) = log q_{t-1}(z_{t-1}) - logabsdet_t.
        """
        path = self.rollout(z, k, steps, start)
        if steps == 0:
            return Path(path, z.new_zeros(0, *z.shape[:-1]))
        schedule = _schedule(k, steps)
        times = torch.arange(start + 1, start + steps + 1, dtype=z.dtype, device=z.device)
        times = times.reshape(-1, *(1,) * (z.ndim - 1))
        flow = _along(schedule, z.shape[:-1])
        now, total = path[:-1], z.new_zeros(steps, *z.shape[:-1])
        for part in range(self.substeps):
            # All steps in one call: the points are known from the rollout.
            total = total + self.logabsdet(now, times, flow)
            if part + 1 < self.substeps:
                now = now + self.velocity(now, times, flow) / self.substeps
        return Path(path, total)

    def _product(self, z: Tensor, t: Tensor | float, k: Rows, v: Tensor) -> Tensor:
        # v rides along with z, so that rows are gathered together.
        n = z.shape[-1]

        def product(u: pf.Potential, zv: Tensor, t: Tensor) -> Tensor:
            return pf.hessian_product(u, zv[..., :n], t, zv[..., n:])

        return self._of_potentials(product, torch.cat((z, v), -1), t, k)

    def _of_potentials(self, f: Linear, z: Tensor, t: Tensor | float, k: Rows) -> Tensor:
        """f of the flow's potential; f is linear in u, so mixtures are sums."""
        return self._each(lambda j, z, t: f(self.potentials[j], z, t), z, t, k)

    def _each(
        self, f: Callable[[int, Tensor, Tensor], Tensor], z: Tensor, t: Tensor | float, k: Rows
    ) -> Tensor:
        """f(j, rows of z, their times) for each row's own flow j, or its weighted sum."""
        batch = z.shape[:-1]
        times = torch.as_tensor(t, dtype=z.dtype, device=z.device)
        if isinstance(k, int):
            if not 0 <= k < self.flows:
                raise ValueError(f"k must be in 0 … {self.flows - 1}, got {k}")
            return f(k, z, times)
        self._check(k, batch)
        if k.is_floating_point():
            terms = [f(j, z, times) for j in range(self.flows)]
            stacked = torch.stack(terms, -1)
            weights = k.reshape(*batch, *(1,) * (terms[0].ndim - len(batch)), self.flows)
            return (weights * stacked).sum(-1)
        index, rows = k.reshape(-1), z.reshape(-1, z.shape[-1])
        # One time for all rows is embedded once.
        times = times if times.ndim == 0 else times.expand(batch).reshape(-1)
        order = index.argsort(stable=True)
        counts = torch.bincount(index, minlength=self.flows).tolist()
        parts, begin = [], 0
        for j, count in enumerate(counts):
            own = order[begin : begin + count]
            begin += count
            if count:
                parts.append(f(j, rows[own], times[own] if times.ndim else times))
        if not parts:
            return f(0, rows, times).reshape(*batch, *f(0, rows, times).shape[1:])
        found = torch.cat(parts)[order.argsort()]
        return found.reshape(*batch, *found.shape[1:])

    def _check(self, k: Tensor, batch: tuple[int, ...]) -> None:
        if k.is_floating_point():
            want = (*batch, self.flows)
            if k.shape != want:
                raise ValueError(f"weights k must be {tuple(want)}, got {tuple(k.shape)}")
            return
        if k.dtype != torch.int64:
            raise TypeError(f"k must be an int, int64 indices or weights, got {k.dtype}")
        if k.shape != batch:
            raise ValueError(
                f"k must be {tuple(batch)}, one for each row of z, got {tuple(k.shape)}"
            )
        wrong = (k < 0) | (k >= self.flows)
        if bool(wrong.any()):
            at = int(wrong.reshape(-1).nonzero()[0])
            raise ValueError(
                f"k must be in 0 … {self.flows - 1}, got {int(k.reshape(-1)[at])} in row {at}"
            )


def _schedule(k: Rows | Sequence[Rows], steps: int) -> list[Rows]:
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    if isinstance(k, int | Tensor):
        return [k] * steps
    if len(k) != steps:
        raise ValueError(f"k must be one flow or {steps}, one for each step, got {len(k)}")
    return list(k)


def _along(schedule: list[Rows], batch: tuple[int, ...]) -> Rows:
    """The flows of all steps as one: (steps, *batch) indices or (steps, *batch, K) weights."""
    if all(isinstance(k, int) and k == schedule[0] for k in schedule):
        return schedule[0]
    kinds = {isinstance(k, Tensor) and k.is_floating_point() for k in schedule}
    if len(kinds) > 1:
        raise TypeError("k must be indices in every step or weights in every step")
    rows = [k if isinstance(k, Tensor) else torch.as_tensor(k).expand(batch) for k in schedule]
    return torch.stack(rows)
