"""What calibration data say about a layer: moments of its inputs and of its output gradients.

All of them are sums over tokens, so that splitting the data into batches or between processes
changes nothing but the order of additions, and two parts merge by addition.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Statistic = Literal["abs_mean", "abs_max", "rms", "fisher", "fisher_abs_mean"]


class NonFiniteActivationError(ValueError):
    """Activations or gradients that are NaN or infinite; the message names the layer."""


@dataclass
class InputMoments:
    """Sums over tokens x of the inputs of a layer.

    Attributes:
        count: Number of tokens, a float64 scalar.
        total: Σ x (n), float64.
        abs_total: Σ |x| (n), float64.
        abs_max: max |x| (n), float64.
        gram: Σ x x^T (n, n), float64; None where only the vectors are wanted.
    """

    count: Tensor
    total: Tensor
    abs_total: Tensor
    abs_max: Tensor
    gram: Tensor | None

    @classmethod
    def zero(cls, n: int, gram: bool, device: torch.device | str = "cpu") -> "InputMoments":
        """Of no tokens at all."""
        empty = torch.zeros(n, dtype=torch.float64, device=device)
        square = torch.zeros(n, n, dtype=torch.float64, device=device) if gram else None
        count = torch.zeros((), dtype=torch.float64, device=device)
        return cls(count, empty, empty.clone(), empty.clone(), square)

    def add(self, X: Float[Tensor, "tokens n"], name: str = "X") -> None:
        """Adds tokens. Raises NonFiniteActivationError that names the layer `name`."""
        _require_finite(X, name, "input")
        if not len(X):
            return
        size = X.abs()
        self.count += len(X)
        self.total += X.sum(0, dtype=torch.float64)
        self.abs_total += size.sum(0, dtype=torch.float64)
        torch.maximum(self.abs_max, size.amax(0).double(), out=self.abs_max)
        if self.gram is not None:
            self.gram += second_moment(X, X)

    def merge(self, other: "InputMoments") -> "InputMoments":
        """The moments of both sets of tokens."""
        gram = None if self.gram is None or other.gram is None else self.gram + other.gram
        return InputMoments(
            self.count + other.count,
            self.total + other.total,
            self.abs_total + other.abs_total,
            torch.maximum(self.abs_max, other.abs_max),
            gram,
        )

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name, for safetensors."""
        return _state(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "InputMoments":
        """The inverse of `state`."""
        vectors = {name: state[name] for name in ("count", "total", "abs_total", "abs_max")}
        return cls(**vectors, gram=state.get("gram"))


@dataclass
class GradientMoments:
    """Sums over tokens of the gradient g of the loss by the outputs of a layer.

    Attributes:
        count: Number of tokens, a float64 scalar.
        gram: Σ g g^T (m, m), float64: the output side of the layer's Fisher information in
            Kronecker form (K-FAC, Martens and Grosse 2015).
        fisher: Σ over batches of the mean over rows of (∂L/∂W)² (n), float64: the weight's own
            Fisher information by input channel (FWSVD); None where it is not wanted.
        batches: Number of batches in `fisher`, a float64 scalar.
    """

    count: Tensor
    gram: Tensor
    fisher: Tensor | None
    batches: Tensor

    @classmethod
    def zero(
        cls, m: int, n: int, device: torch.device | str = "cpu", fisher: bool = True
    ) -> "GradientMoments":
        """Of no tokens at all."""

        def empty(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(empty(), empty(m, m), empty(n) if fisher else None, empty())

    def add(
        self, gradient: Float[Tensor, "tokens m"], X: Float[Tensor, "tokens n"], name: str = "g"
    ) -> None:
        """Adds the tokens of one batch with the inputs that they came from."""
        _require_finite(gradient, name, "output gradient")
        self.count += len(gradient)
        self.gram += second_moment(gradient, gradient)
        if self.fisher is not None:
            self.fisher += second_moment(gradient, X).square().mean(0)
        self.batches += 1

    def merge(self, other: "GradientMoments") -> "GradientMoments":
        """The moments of both sets of tokens."""
        both = self.fisher is not None and other.fisher is not None
        return GradientMoments(
            self.count + other.count,
            self.gram + other.gram,
            self.fisher + other.fisher if both else None,
            self.batches + other.batches,
        )

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name, for safetensors."""
        return _state(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "GradientMoments":
        """The inverse of `state`."""
        needed = {name: state[name] for name in ("count", "gram", "batches")}
        return cls(**needed, fisher=state.get("fisher"))


def scaling(
    inputs: InputMoments,
    statistic: Statistic = "abs_mean",
    alpha: float = 0.5,
    gradients: GradientMoments | None = None,
    floor: float = 1e-6,
) -> Float[Tensor, " n"]:
    """The diagonal s of ASVD's transform: s_i = a_i^alpha + floor · mean(a^alpha).

    a_i is a statistic of the input channel i over the calibration tokens (paper eq. 8 for
    abs_mean). The floor is relative: the absolute 1e-6 of the official code makes the result
    depend on the unit of the activations.

    Args:
        statistic: "abs_mean", "abs_max", "rms", "fisher" (root of the mean squared gradient of
            the channel's weights) or "fisher_abs_mean" (product of both powers).
        alpha: Exponent; 0 gives plain SVD.
        gradients: Needed for the two Fisher statistics.

    Raises ValueError for an unknown statistic, Fisher without gradients, or no tokens.
    """
    if float(inputs.count) == 0:
        raise ValueError("inputs must hold at least one token, got none")
    parts: list[Tensor] = []
    if statistic in ("abs_mean", "fisher_abs_mean"):
        parts.append(inputs.abs_total / inputs.count)
    elif statistic == "abs_max":
        parts.append(inputs.abs_max)
    elif statistic == "rms":
        if inputs.gram is None:
            raise ValueError("statistic 'rms' needs inputs with their Gram matrix")
        parts.append((inputs.gram.diagonal() / inputs.count).sqrt())
    elif statistic != "fisher":
        names = "'abs_mean', 'abs_max', 'rms', 'fisher', 'fisher_abs_mean'"
        raise ValueError(f"statistic must be one of {names}, got {statistic!r}")
    if statistic in ("fisher", "fisher_abs_mean"):
        if gradients is None or gradients.fisher is None:
            raise ValueError(f"statistic {statistic!r} needs gradients with their fisher")
        parts.append((gradients.fisher / gradients.batches).sqrt())
    s = torch.stack([part**alpha for part in parts]).prod(0)
    mean = s.mean()
    return s + floor * torch.where(mean > 0, mean, torch.ones_like(mean))


def second_moment(X: Float[Tensor, "tokens n"], Y: Float[Tensor, "tokens p"]) -> Tensor:
    """Σ x y^T over tokens (n, p), float64: products in float32, or in float64 if X is.

    Both are scaled to largest entries of 1, so that no unit overflows or is lost.
    """
    work = torch.float64 if X.dtype == torch.float64 else torch.float32
    (X, a), (Y, b) = _scaled(X.to(work)), _scaled(Y.to(work))
    return (X.T @ Y).double() * (a * b)


def _scaled(X: Tensor) -> tuple[Tensor, Tensor]:
    """X over its largest entry, and that entry in float64."""
    if not X.numel():
        return X, torch.ones((), dtype=torch.float64, device=X.device)
    largest = X.abs().amax()
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    return X / largest, largest.double()


def _require_finite(X: Tensor, name: str, what: str) -> None:
    if X.numel() and not bool(torch.isfinite(X.abs().amax())):
        raise NonFiniteActivationError(f"the {what} of layer {name!r} holds NaN or Inf")


def _state(moments: InputMoments | GradientMoments) -> dict[str, Tensor]:
    return {
        field.name: value.contiguous()
        for field in fields(moments)
        if (value := getattr(moments, field.name)) is not None
    }
