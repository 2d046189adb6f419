"""Layers of networks on SPD matrices `(*batch, n, n)` (Huang and Van Gool 2017)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from linalg_kernels import clamp_eigvals, covariance, eigvalsh, logm, vech
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from spd_metrics.metric import Metric
from spd_metrics.parametrize import SymmetricExp


class BiMap(nn.Module):
    """W P W^T with orthonormal rows of W, from n_in to n_out <= n_in dimensions.

    Args:
        n_in: Size of the input matrices.
        n_out: Size of the output matrices. More than `n_in` would make singular ones.
        channels: One map for each channel of (..., channels, n_in, n_in); None shares one.

    `weight` is kept orthonormal by `torch.nn.utils.parametrizations.orthogonal`; assigning to
    it sets it. It starts at random (Haar) with torch's global generator.
    """

    weight: Tensor

    def __init__(
        self,
        n_in: int,
        n_out: int,
        channels: int | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= n_out <= n_in:
            raise ValueError(f"n_out must be from 1 to n_in={n_in}, got {n_out}")
        self.n_in, self.n_out, self.channels = n_in, n_out, channels
        batch = () if channels is None else (channels,)
        weight = torch.empty(*batch, n_out, n_in, dtype=dtype, device=device)
        self.weight = nn.Parameter(nn.init.normal_(weight))
        parametrizations.orthogonal(self, "weight", orthogonal_map="householder")
        Q, _ = torch.linalg.qr(nn.init.normal_(torch.empty_like(weight)).mT)
        with torch.no_grad():
            self.weight = Q.mT

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch m m"]:
        """W P W^T."""
        expected = (*(() if self.channels is None else (self.channels,)), self.n_in, self.n_in)
        if tuple(P.shape[-len(expected) :]) != expected:
            told = ", ".join(map(str, expected))
            raise ValueError(f"P must be (..., {told}), got {tuple(P.shape)}")
        W = self.weight
        Y = W @ P @ W.mT
        return (Y + Y.mT) / 2

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.n_in}, {self.n_out}, channels={self.channels}"


class ReEig(nn.Module):
    """V max(w, threshold) V^T: eigenvalues are rectified from below.

    Args:
        threshold: In the unit of the matrices, or with `relative` in units of each matrix's
            mean eigenvalue, which makes the layer indifferent to the unit of the signal.
    """

    def __init__(self, threshold: float = 1e-4, *, relative: bool = False) -> None:
        super().__init__()
        if not threshold > 0:
            raise ValueError(f"threshold must be > 0, got {threshold}")
        self.threshold, self.relative = threshold, relative

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """P with eigenvalues of at least the threshold; clamped ones pass no gradient."""
        if not self.relative:
            return clamp_eigvals(P, self.threshold, name="P")
        mean = P.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        return mean * clamp_eigvals(P / mean, self.threshold, name="P")

    def extra_repr(self) -> str:
        """The threshold."""
        return f"{self.threshold}, relative={self.relative}"


class LogEig(nn.Module):
    """log P, as a matrix or as a vector.

    Args:
        output: "vech", the lower triangle (..., n (n + 1)/2) with entries off the diagonal
            times √2, an isometry; "full", all entries (..., n²); "matrix", (..., n, n).
    """

    def __init__(self, output: Literal["vech", "full", "matrix"] = "vech") -> None:
        super().__init__()
        if output not in ("vech", "full", "matrix"):
            raise ValueError(f"output must be 'vech', 'full' or 'matrix', got {output!r}")
        self.output = output

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Tensor:
        """Raises LinAlgError naming the element that is not positive definite."""
        X = logm(P, nonpos="raise", name="P")
        if self.output == "vech":
            return vech(X, weighted=True, check=False)
        return X.flatten(-2) if self.output == "full" else X

    def extra_repr(self) -> str:
        """The output."""
        return repr(self.output)


class CovPool(nn.Module):
    """Covariance (..., channels, channels) of signals (..., channels, samples).

    Args:
        shrinkage: Weight in [0, 1] of tr(C)/n I, or "oas" or "ledoit_wolf". 0 gives singular
            matrices for fewer samples than channels.
        ddof: Degrees of freedom taken off the number of samples.
    """

    def __init__(
        self, shrinkage: float | Literal["ledoit_wolf", "oas"] = 1e-6, *, ddof: int = 0
    ) -> None:
        super().__init__()
        self.shrinkage, self.ddof = shrinkage, ddof

    def forward(
        self, X: Float[Tensor, "*batch channels samples"]
    ) -> Float[Tensor, "*batch channels channels"]:
        """`linalg_kernels.covariance`."""
        return covariance(X, shrinkage=self.shrinkage, ddof=self.ddof)

    def extra_repr(self) -> str:
        """Options."""
        return f"shrinkage={self.shrinkage!r}, ddof={self.ddof}"


class SPDParameter(nn.Module):
    """A learnable SPD matrix (*batch, n, n), given by calling the module; starts at identity.

    Args:
        n: Its size.
        batch: Leading dimensions.
        parametrization: From unconstrained matrices to SPD ones: `SymmetricExp` (default) or
            `CholeskyExp`. Any optimiser may be used; assigning to `weight` sets the matrix.
    """

    weight: Tensor

    def __init__(
        self,
        n: int,
        batch: Sequence[int] = (),
        parametrization: nn.Module | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        identity = torch.eye(n, dtype=dtype, device=device).expand(*batch, n, n)
        self.weight = nn.Parameter(identity.clone())
        chosen = SymmetricExp() if parametrization is None else parametrization
        parametrize.register_parametrization(self, "weight", chosen)

    def forward(self) -> Float[Tensor, "*batch n n"]:
        """The matrix."""
        return self.weight


class SpectralField(nn.Module):
    """The tangent vector Q diag(f(w)) Q^T, w the eigenvalues of P, f a small network.

    Q is an orthogonal parameter. f sees log w, so that its input does not depend on the unit
    but for an offset, and its last layer starts at 0: a residual block starts as the identity.
    Source: Katsman et al., NeurIPS 2023.

    Args:
        n: Size of the matrices.
        hidden: Width of f.
    """

    weight: Tensor

    def __init__(
        self,
        n: int,
        hidden: int = 32,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        first = nn.Linear(n, hidden, dtype=dtype, device=device)
        last = nn.Linear(hidden, n, dtype=dtype, device=device)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.f = nn.Sequential(first, nn.GELU(), last)
        self.weight = nn.Parameter(torch.eye(n, dtype=dtype, device=device))
        parametrizations.orthogonal(self, "weight", orthogonal_map="householder")

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """A symmetric matrix, O(1) for P about 1."""
        w = torch.log(eigvalsh(P, name="P"))
        Q = self.weight
        V = (Q * self.f(w)[..., None, :]) @ Q.mT
        return (V + V.mT) / 2


class RiemannianResidual(nn.Module):
    """Exp_P(field(P)): a residual block on the manifold.

    Args:
        metric: Any metric. An incomplete one may leave the manifold; its `domain` decides.
        field: From points to tangent vectors, for instance `SpectralField`.

    Source: Katsman et al., NeurIPS 2023.
    """

    def __init__(self, metric: Metric, field: nn.Module) -> None:
        super().__init__()
        self.metric, self.field = metric, field

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """The end of the geodesic that leaves P along the field."""
        return self.metric.exp(P, self.field(P))

    def extra_repr(self) -> str:
        """The metric."""
        return repr(self.metric)


class SPDNet(nn.Sequential):
    """(BiMap, ReEig)*, LogEig and a linear classifier of SPD matrices (..., n, n).

    Args:
        sizes: Of the matrices from layer to layer, from the input on: [20, 16, 8].
        classes: Length of the output.
        threshold: Of `ReEig`.
        relative: Take the threshold relative to each matrix, see `ReEig`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        classes: int,
        *,
        threshold: float = 1e-4,
        relative: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if len(sizes) < 2:
            raise ValueError(f"sizes must be at least two, input and output, got {list(sizes)}")
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers.append(BiMap(n_in, n_out, dtype=dtype, device=device))
            layers.append(ReEig(threshold, relative=relative))
        features = sizes[-1] * (sizes[-1] + 1) // 2
        head = nn.Linear(features, classes, dtype=dtype, device=device)
        super().__init__(*layers, LogEig(), head)
