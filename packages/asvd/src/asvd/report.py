"""What a compression did: target and realised size, and what each layer got."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class LayerReport:
    """One layer: its shape (out, in), its rank (None: dense) and its truncation loss.

    `loss` is the share of the weight's squared norm, in the metric of the method, that the
    truncation gave up; NaN where the method did not measure it.
    """

    name: str
    shape: tuple[int, int]
    rank: int | None
    loss: float

    @property
    def ratio(self) -> float:
        """Kept share of the layer's parameters."""
        m, n = self.shape
        return 1.0 if self.rank is None else self.rank * (m + n) / (m * n)


@dataclass(frozen=True)
class CompressionReport:
    """Sizes count weights of the layers that were asked for (`layers`) and of the whole model.

    Attributes:
        method, allocation: As given to `compress`.
        target: What was asked for, in words (`ratio 0.8`).
        ratio: Kept share of the parameters of `layers`.
        model_ratio: Kept share of all parameters, embeddings and norms included.
        seconds: Time of each stage.
    """

    method: str
    allocation: str
    target: str
    ratio: float
    model_ratio: float
    layers: tuple[LayerReport, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        data = asdict(self)
        for entry, layer in zip(data["layers"], self.layers, strict=True):
            entry["shape"] = list(layer.shape)
            entry["ratio"] = layer.ratio
            entry["loss"] = layer.loss if layer.loss == layer.loss else None
        return data


def from_json(data: Mapping[str, Any]) -> CompressionReport:
    """The inverse of `CompressionReport.to_json`. KeyError or TypeError for anything else."""
    layers = tuple(
        LayerReport(
            entry["name"], (entry["shape"][0], entry["shape"][1]), entry["rank"],
            float("nan") if entry["loss"] is None else entry["loss"],
        )
        for entry in data["layers"]
    )  # fmt: skip
    rest = {name: data[name] for name in ("method", "allocation", "target", "ratio", "model_ratio")}
    return CompressionReport(**rest, layers=layers, seconds=data["seconds"])


_ATTRIBUTE = "_asvd_report"


def attach(model: nn.Module, report: CompressionReport) -> None:
    """Keeps the report with the model for `report`."""
    object.__setattr__(model, _ATTRIBUTE, report)


def report(model: nn.Module) -> CompressionReport:
    """The report of the last `compress` of this model object.

    Raises ValueError for a model that was not compressed in this process.
    """
    found = getattr(model, _ATTRIBUTE, None)
    if found is None:
        raise ValueError("model must have been compressed in this process by asvd.compress")
    return found


def parameters(model: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())
