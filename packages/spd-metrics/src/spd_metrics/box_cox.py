"""Powers of eigenvalues as they go over into the logarithm (Box and Cox 1964)."""

from dataclasses import dataclass

import torch
from linalg_kernels import scalar
from linalg_kernels.scalar import ScalarFunction
from torch import Tensor


@dataclass(frozen=True)
class BoxCox:
    """(w^theta - 1)/theta = expm1(theta log w)/theta, and log w for theta = 0.

    Accurate for small theta,
    where w^theta/theta is not.
    """

    theta: float
    name: str = "box_cox"

    def _exponent(self, w: Tensor) -> Tensor:
        return torch.full((), self.theta, dtype=w.dtype, device=w.device)

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.theta == 0:
            return torch.log(w)
        return torch.expm1(self.theta * torch.log(w)) / self.theta

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.theta == 0:
            return scalar.LOG.first(a, b, None)
        return scalar.POWER.first(a, b, self._exponent(a)) / self.theta

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.theta == 0:
            return scalar.LOG.second(a, b, c, None)
        return scalar.POWER.second(a, b, c, self._exponent(a)) / self.theta

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.theta == 0:
            return scalar.LOG.third(a, b, c, d, None)
        return scalar.POWER.third(a, b, c, d, self._exponent(a)) / self.theta

    def inverse(self, x: Tensor) -> Tensor:
        if self.theta == 0:
            return torch.exp(x)
        return torch.exp(torch.log1p(self.theta * x) / self.theta)

    def by_exponent(self) -> ScalarFunction:
        raise TypeError("the exponent of a chart is fixed")


@dataclass(frozen=True)
class InverseBoxCox:
    """g = `BoxCox`^-1: g[x, y] = 1/f[u, v], g[x, y, z] = -f[u, v, w]/(f[u,v] f[u,w] f[v,w]).

    u = g(x), v = g(y), w = g(z), and the third difference likewise: differences of x and y,
    which small theta makes close to each other, are not formed.
    """

    theta: float
    name: str = "inverse_box_cox"

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return BoxCox(self.theta).inverse(w)

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        f = BoxCox(self.theta)
        return 1 / f.first(f.inverse(a), f.inverse(b), None)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        f = BoxCox(self.theta)
        u, v, w = f.inverse(a), f.inverse(b), f.inverse(c)
        slopes = f.first(u, v, None) * f.first(u, w, None) * f.first(v, w, None)
        return -f.second(u, v, w, None) / slopes

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        f = BoxCox(self.theta)
        s, t, u, v = (f.inverse(x) for x in (a, b, c, d))
        st, su, sv = (f.first(s, x, None) for x in (t, u, v))
        tu, tv, uv = f.first(t, u, None), f.first(t, v, None), f.first(u, v, None)
        bend = f.second(s, t, v, None) * su + tv * f.second(s, u, v, None)
        top = f.second(t, u, v, None) * bend - f.third(s, t, u, v, None) * tv * uv
        return top / (st * su * sv) / (tu * tv * uv)

    def by_exponent(self) -> ScalarFunction:
        raise TypeError("the exponent of a chart is fixed")
