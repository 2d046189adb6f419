"""Any metric as a geoopt manifold, for geoopt's Riemannian optimisers (extra `geoopt`)."""

import torch
from geoopt.manifolds.base import Manifold
from linalg_kernels import cholesky_ex
from torch import Tensor

from spd_metrics.metric import Pullback


class GeooptManifold(Manifold):
    """A manifold whose points are SPD matrices (Cholesky factors) under `metric`.

    Steps are geodesics. An incomplete metric should be given `domain="clamp"`, as an optimiser
    may step beyond the boundary.
    """

    name = "spd_metrics"
    ndim = 2
    reversible = True

    def __init__(self, metric: Pullback) -> None:
        super().__init__()
        self.metric = metric

    @property
    def _lower(self) -> bool:
        return self.metric.chart.kind == "lower"

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        """g_x(u, v)."""
        value = self.metric.inner(x, u, u if v is None else v)
        return value[..., None, None] if keepdim else value

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Geodesic distance."""
        value = self.metric.dist(x, y)
        return value[..., None, None] if keepdim else value

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Exp_x(u)."""
        return self.metric.exp(x, u)

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """Exp_x(u)."""
        return self.metric.exp(x, u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Log_x(y)."""
        return self.metric.log(x, y)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Parallel transport of v from x to y."""
        return self.metric.transport(x, y, v)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:  # noqa: ARG002
        """The symmetric (lower triangular) part of u."""
        return u.tril() if self._lower else (u + u.mT) / 2

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        """The Riemannian gradient for the Euclidean gradient u."""
        return self.metric.gradient(x, u)

    def projx(self, x: Tensor) -> Tensor:
        """The nearest point of the closure, pushed inside by √eps of the largest eigenvalue.

        For factors: the lower triangle with a diagonal of at least √eps of its largest entry.
        """
        tiny = torch.finfo(x.dtype).eps ** 0.5
        if self._lower:
            diagonal = x.diagonal(dim1=-2, dim2=-1)
            floor = tiny * diagonal.abs().amax(-1, keepdim=True)
            return x.tril(-1) + torch.diag_embed(torch.maximum(diagonal, floor))
        w, V = torch.linalg.eigh((x + x.mT) / 2)
        w = torch.maximum(w, tiny * w.abs().amax(-1, keepdim=True))
        return (V * w[..., None, :]) @ V.mT

    def origin(
        self,
        *size: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        seed: int | None = 42,  # noqa: ARG002
    ) -> Tensor:
        """The identity matrix."""
        return torch.eye(size[-1], dtype=dtype, device=device).expand(*size).clone()

    def _check_point_on_manifold(
        self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        if self._lower:
            if bool((x.triu(1).abs() > atol).any()):
                return False, "x must be lower triangular"
            positive = bool((x.diagonal(dim1=-2, dim2=-1) > 0).all())
            return positive, None if positive else "x must have a positive diagonal"
        if not torch.allclose(x, x.mT, atol=atol, rtol=rtol):
            return False, "x must be symmetric"
        positive = not bool(cholesky_ex(x).info.any())
        return positive, None if positive else "x must be positive definite"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        if torch.allclose(u, self.proju(x, u), atol=atol, rtol=rtol):
            return True, None
        return False, "u must be " + ("lower triangular" if self._lower else "symmetric")
