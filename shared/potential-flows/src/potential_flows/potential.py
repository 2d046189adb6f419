"""A smooth scalar potential u(z, t), with its space derivatives in closed form."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from linalg_kernels import errors
from torch import Tensor, nn
from torch.func import grad

from .inputs import as_time, check_points, check_same_shape
from .time_embedding import embedding_with_rate, sinusoidal_embedding
from .volume import check_regular, outer_logabsdet

Elementwise = Callable[[Tensor], Tensor]
Time = Float[Tensor, "*#batch"] | float | int


def _identity(s: Tensor) -> Tensor:
    return s


# Any f in reverse mode, because forward mode has gaps: silu, for one, has none of its
# derivative. The defaults are written out: small networks spend most of their time in autograd.
def _value_slope(f: Elementwise, x: Tensor) -> tuple[Tensor, Tensor]:
    if f is torch.tanh:
        value = x.tanh()
        return value, 1 - value**2
    if f is _identity:
        return x, torch.ones_like(x)

    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        value = f(x)
        return value.sum(), value

    slope, value = grad(total, has_aux=True)(x)
    return value, slope


def _value_slope_curvature(f: Elementwise, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if f is torch.tanh:
        value = x.tanh()
        slope = 1 - value**2
        return value, slope, -2 * value * slope
    if f is _identity:
        return x, torch.ones_like(x), torch.zeros_like(x)

    def total(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        value, slope = _value_slope(f, x)
        return slope.sum(), (value, slope)

    curvature, (value, slope) = grad(total, has_aux=True)(x)
    return value, slope, curvature


def _check_elementwise(f: Elementwise, name: str) -> None:
    """ValueError unless f acts on each number by itself and its f'' is not zero everywhere."""
    x = torch.linspace(-2.9, 3.1, 13, device="cpu")
    with torch.no_grad():
        _, _, curvature = _value_slope_curvature(f, x)
        alone = torch.cat([f(x[i : i + 1]) for i in range(len(x))])
        together = f(x)
    if together.shape != x.shape or not torch.allclose(together, alone):
        raise ValueError(f"{name} must act on each number by itself, got {f}")
    if not bool(curvature.isfinite().all()) or not bool(curvature.any()):
        raise ValueError(
            f"{name} must be smooth, as tanh, silu and softplus are, got {f}, whose second "
            "derivative is zero: so would be every Hessian and Laplacian"
        )


class _Jet(NamedTuple):
    """What the space derivatives of u = o(s) are made of, x = W1 z + b1, e = W2ᵀ(w a'(y)).

    ∇u = o' W1ᵀ q, and ∇²u = W1ᵀ M W1 with
    M = diag(inner) + diag(κ) W2ᵀ diag(outer) W2 diag(κ) + curvature q qᵀ.
    """

    slope: Tensor  # o'(s)
    curvature: Tensor  # o''(s)
    kappa: Tensor  # a'(x)
    q: Tensor  # e a'(x)
    inner: Tensor  # o' e a''(x)
    outer: Tensor  # o' w a''(y)


class MLPPotential(nn.Module):
    """u(z, t) = o(w·a(W2 (a(W1 z + b1) + τ(t)) + b2) + b), with τ = Linear GELU Linear of PE(t).

    The potential of Song et al. 2023 (Flow Factorized Representation Learning) with
    `hidden=time_dim=dim, output=torch.tanh`, which keeps |u| < 1; that of Wei et al. 2024
    (ChemFlow) with `hidden=512`, but smooth: with their ReLU every second derivative is zero.

    `gradient`, `hessian`, `laplacian`, `hessian_product`, `spacetime_gradient` and
    `step_logabsdet` are closed forms, trained through with one backward pass; the functions of
    the same names take any potential and use these for this class. (A subclass goes by autograd:
    it may have changed `forward`.)

    Args:
        dim: n, the size of z.
        hidden: Width of both hidden layers.
        time_dim: Size of the time embedding, even and at least 4.
        time_scale: The embedding is of time_scale · t; its fastest wave has period 2π.
        activation: a, elementwise and twice differentiable; ValueError if a'' is zero.
        output: o, as `activation`; None for the identity.
    """

    def __init__(
        self,
        dim: int,
        hidden: int = 128,
        *,
        time_dim: int = 64,
        time_scale: float = 1.0,
        activation: Elementwise = torch.tanh,
        output: Elementwise | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("dim", dim), ("hidden", hidden)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if time_dim < 4 or time_dim % 2:
            raise ValueError(f"time_dim must be even and at least 4, got {time_dim}")
        _check_elementwise(activation, "activation")
        if output is not None:
            _check_elementwise(output, "output")
        self.dim = dim
        self.time_dim = time_dim
        self.time_scale = time_scale
        self.activation = activation
        self.output = _identity if output is None else output
        self.space = nn.Linear(dim, hidden)
        self.time = nn.Sequential(nn.Linear(time_dim, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.fusion = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, z: Float[Tensor, "*batch n"], t: Time) -> Float[Tensor, "*batch"]:
        """u(z, t); t is a number or one time a row."""
        t = self._check(z, t)
        hidden = self.activation(self.space(z)) + self._time_branch(t)
        s = self.head(self.activation(self.fusion(hidden)))[..., 0]
        return self.output(s)

    def gradient(self, z: Float[Tensor, "*batch n"], t: Time) -> Float[Tensor, "*batch n"]:
        """∇u = o'(s) W1ᵀ(e a'(x)), e = W2ᵀ(w a'(y)); products of vectors elementwise."""
        t = self._check(z, t)
        s, e, kappa = self._first(z, self._time_branch(t))
        return self._gradient(s, e, kappa)[0]

    def spacetime_gradient(
        self, z: Float[Tensor, "*batch n"], t: Time
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch"]]:
        """∇u and ∂u/∂t = o'(s) e·τ'(t)."""
        t = self._check(z, t)
        tau, rate = self._time_branch_with_rate(t)
        s, e, kappa = self._first(z, tau)
        gradient, slope = self._gradient(s, e, kappa)
        return gradient, slope * (e * rate).sum(-1)

    def hessian(self, z: Float[Tensor, "*batch n"], t: Time) -> Float[Tensor, "*batch n n"]:
        """o' W1ᵀ[diag(e a'') + diag(a'(x)) W2ᵀ diag(w a''(y)) W2 diag(a'(x))]W1 + o'' ∇s ∇sᵀ."""
        jet = self._second(z, self._check(z, t))
        R, d = self._outer_products(jet)
        W1 = self.space.weight
        H = (R * d[..., None]).mT @ R + (W1.mT * jet.inner[..., None, :]) @ W1
        return (H + H.mT) / 2

    def laplacian(self, z: Float[Tensor, "*batch n"], t: Time) -> Float[Tensor, "*batch"]:
        """The trace of `hessian`, without forming it."""
        jet = self._second(z, self._check(z, t))
        W1, W2 = self.space.weight, self.fusion.weight
        rows = (W2 * jet.kappa[..., None, :]) @ W1
        trace = jet.inner @ W1.square().sum(-1) + (jet.outer * rows.square().sum(-1)).sum(-1)
        return trace + jet.curvature * (jet.q @ W1).square().sum(-1)

    def hessian_product(
        self, z: Float[Tensor, "*batch n"], t: Time, v: Float[Tensor, "*batch n"]
    ) -> Float[Tensor, "*batch n"]:
        """H v, in the time of a few forward passes."""
        t = self._check(z, t)
        check_same_shape(v, z, "v")
        jet = self._second(z, t)
        W1, W2 = self.space.weight, self.fusion.weight
        moved = v @ W1.mT
        through = (jet.outer * ((jet.kappa * moved) @ W2.mT)) @ W2
        along = jet.curvature * (jet.q * moved).sum(-1)
        return (jet.inner * moved + jet.kappa * through + along[..., None] * jet.q) @ W1

    def step_logabsdet(
        self, z: Float[Tensor, "*batch n"], t: Time, step: float = 1.0, *, check: bool = True
    ) -> Float[Tensor, "*batch"]:
        """log|det(I + step ∇²u)| in nats; arguments as of the function of this name."""
        jet = self._second(z, self._check(z, t))
        R, d = self._outer_products(jet)
        found = outer_logabsdet(
            R.reshape(-1, *R.shape[-2:]),
            step * d.reshape(-1, d.shape[-1]),
            self.space.weight,
            step * jet.inner.reshape(-1, jet.inner.shape[-1]),
        ).reshape(z.shape[:-1])
        return check_regular(found) if check else found

    def _check(self, z: Tensor, t: Tensor | float) -> Tensor:
        check_points(z)
        if z.shape[-1] != self.dim:
            raise ValueError(f"z must be (..., n) with n={self.dim}, got {tuple(z.shape)}")
        errors.require_same_kind(z, self.head.weight, ("z", "the weights"))
        return as_time(z, t)

    def _time_branch(self, t: Tensor) -> Tensor:
        return self.time(sinusoidal_embedding(self.time_scale * t, self.time_dim))

    def _time_branch_with_rate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """τ(t) and τ'(t)."""
        waves, rates = embedding_with_rate(t, self.time_dim, self.time_scale)
        first, gelu, last = self.time
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        x = first(waves)
        # GELU is x Φ(x), Φ the standard normal distribution, and its derivative Φ + x Φ'.
        normal = 0.5 + 0.5 * torch.erf(x * math.sqrt(0.5))
        density = math.sqrt(0.5 / math.pi) * torch.exp(-x.square() / 2)
        return last(gelu(x)), ((normal + x * density) * (rates @ first.weight.mT)) @ last.weight.mT

    def _first(self, z: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s, e and a'(x)."""
        h, kappa = _value_slope(self.activation, self.space(z))
        g, slope = _value_slope(self.activation, self.fusion(h + tau))
        return self.head(g)[..., 0], (self.head.weight[0] * slope) @ self.fusion.weight, kappa

    def _gradient(self, s: Tensor, e: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """∇u, and o'(s)."""
        _, slope = _value_slope(self.output, s)
        return slope[..., None] * ((e * kappa) @ self.space.weight), slope

    def _second(self, z: Tensor, t: Tensor) -> _Jet:
        a, w = self.activation, self.head.weight[0]
        h, kappa, bend = _value_slope_curvature(a, self.space(z))
        g, steep, curve = _value_slope_curvature(a, self.fusion(h + self._time_branch(t)))
        e = (w * steep) @ self.fusion.weight
        _, slope, curvature = _value_slope_curvature(self.output, self.head(g)[..., 0])
        return _Jet(
            slope=slope,
            curvature=curvature,
            kappa=kappa,
            q=e * kappa,
            inner=slope[..., None] * e * bend,
            outer=slope[..., None] * w * curve,
        )

    def _outer_products(self, jet: _Jet) -> tuple[Tensor, Tensor]:
        """∇²u = Σ_i d_i r_i r_iᵀ + Σ_j inner_j w_j w_jᵀ with the rows w_j of W1.

        The r_i are the rows of W2 diag(κ) W1, and ∇s.
        """
        W1, W2 = self.space.weight, self.fusion.weight
        through = (W2 * jet.kappa[..., None, :]) @ W1
        R = torch.cat((through, (jet.q @ W1)[..., None, :]), -2)
        return R, torch.cat((jet.outer, jet.curvature[..., None]), -1)
