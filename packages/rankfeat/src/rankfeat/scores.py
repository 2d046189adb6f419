"""Scores of logits. The larger, the more in-distribution: the sign of the paper.

pytorch-ood has the other sign. Half precision is computed and returned in float32.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def _check_temperature(temperature: float) -> None:
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be finite and > 0, got {temperature}")


def _read(logits: Tensor) -> Tensor:
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim < 1 or logits.shape[-1] == 0:
        raise ValueError(f"logits must be (..., classes), got {tuple(logits.shape)}")
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


@dataclass(frozen=True)
class Energy:
    """Negative free energy: S = T log Σ_q exp(y_q / T), in the units of the logits.

    Source: Liu et al. (NeurIPS 2020), arXiv 2010.03759, whose energy is -S.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def __call__(self, logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
        y = _read(logits)
        return self.temperature * torch.logsumexp(y / self.temperature, dim=-1)


@dataclass(frozen=True)
class MSP:
    """Maximum softmax probability: S = max_q softmax(y / T)_q, in (0, 1].

    Source: Hendrycks and Gimpel (ICLR 2017), arXiv 1610.02136.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def __call__(self, logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
        return torch.softmax(_read(logits) / self.temperature, dim=-1).amax(-1)


@dataclass(frozen=True)
class MaxLogit:
    """Maximum logit: S = max_q y_q, in the units of the logits.

    Source: Hendrycks et al. (ICML 2022), arXiv 1911.11132.
    """

    def __call__(self, logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
        return _read(logits).amax(-1)


Score = Energy | MSP | MaxLogit
