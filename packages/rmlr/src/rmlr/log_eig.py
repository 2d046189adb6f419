"""LogEig classification: the matrix logarithm and a linear layer (Huang and Van Gool 2017)."""

import torch
from jaxtyping import Float
from linalg_kernels import logm, vech
from spd_metrics import LogEuclidean
from torch import Tensor, nn

from rmlr.mlr import RiemannianMLR


class LogEigMLR(nn.Module):
    """Logits W vech(log S) + b of SPD matrices, entries off the diagonal times √2.

    The functions are those of `RiemannianMLR(n, classes, LogEuclidean())`; `from_mlr` converts.
    Training them is not the same. What Proposition 5.1 of Chen et al., CVPR 2024, equates is
    the classifier ⟨log S - log P, A⟩ under Riemannian SGD in the log-Euclidean metric for P and
    ⟨log S - Z, A⟩ under plain SGD for Z. With a bias b = -⟨Z, A⟩ in place of Z a step of SGD
    differs, as it does for geoopt's affine-invariant steps of P.

    Args:
        n: Size of the matrices.
        classes: Number of classes.
    """

    def __init__(
        self,
        n: int,
        classes: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(n * (n + 1) // 2, classes, dtype=dtype, device=device)

    @staticmethod
    def from_mlr(mlr: RiemannianMLR) -> "LogEigMLR":
        """The layer with the logits of a log-Euclidean classifier, of any alpha and beta."""
        if type(mlr.metric) is not LogEuclidean:
            raise TypeError(f"mlr must have the metric LogEuclidean, got {mlr.metric!r}")
        made = LogEigMLR(mlr.n, mlr.classes, dtype=mlr.normal.dtype, device=mlr.normal.device)
        with torch.no_grad():
            identity = torch.eye(mlr.n, dtype=mlr.normal.dtype, device=mlr.normal.device)
            alpha, beta = mlr.metric.alpha, mlr.metric.beta
            A = mlr.A
            trace = A.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
            made.linear.weight.copy_(vech(alpha * A + beta * trace * identity, weighted=True))
            made.linear.bias.copy_(mlr(identity))
        return made

    def features(self, S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch m"]:
        """vech(log S), of which logits are linear functions."""
        return vech(logm(S, nonpos="raise", name="S"), weighted=True, check=False)

    def logits(self, F: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch c"]:
        """Logits of samples with the features F."""
        return self.linear(F)

    def forward(self, S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch c"]:
        """Logits. Raises LinAlgError naming the element that is not positive definite."""
        return self.logits(self.features(S))
