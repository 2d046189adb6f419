"""What a detector is, and what detectors on a model share: hooks, threshold, saving."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rankfeat.calibration import Calibration, fingerprint
from rankfeat.files import WRONG, reason, whole
from rankfeat.hooks import Hooks

_FORMAT = "rankfeat-1"


@runtime_checkable
class Detector(Protocol):
    """What `evaluate` needs: something that is fitted to ID data and scores inputs.

    Everything of this package is one, and what `from_pytorch_ood` and `from_openood` give.
    """

    def fit(self, batches: Iterable[Any]) -> object:
        """Find what the detector needs to know of in-distribution data; often nothing."""
        ...

    def score(self, *args: Any, **kwargs: Any) -> Tensor:
        """Scores (b,) of a batch, larger = more in-distribution."""
        ...


class Scored(NamedTuple):
    """Scores of a batch, larger = more in-distribution, with the class and the logits."""

    score: Float[Tensor, " b"]
    label: Int[Tensor, " b"]
    """The class, of the unedited logits: removal often destroys the classifier."""
    logits: Float[Tensor, "b classes"]
    """Those of the model itself."""
    edited_logits: Float[Tensor, "b classes"]
    """Those that the score is of: the mean over the layers of the logits after an edit there."""


def logits_of(output: Any) -> Tensor:
    """The logits (b, classes) in what a model returns. TypeError, ValueError if it has none."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise TypeError(
            "model must return logits or an object that has them as .logits,"
            f" got {type(output).__name__}"
        )
    if logits.ndim != 2:
        raise ValueError(f"model must return logits (b, classes), got {tuple(logits.shape)}")
    return logits


def inputs_of(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the model in a batch of a loader."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (batch[0] if isinstance(batch, (tuple, list)) else batch,), {}


class ModelDetector(nn.Module):
    """A detector on a classifier, which is not changed: hooks do nothing but while it runs.

    A subclass says in `forward` how a batch is scored, in `fit` what it takes from ID data, which
    it keeps in buffers named in `STATISTICS`, and in `settings` its arguments as JSON.

    Args:
        model: A classifier in eval mode that returns logits (b, classes), or an object with
            `.logits`.
    """

    STATISTICS: tuple[str, ...] = ()

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.training = model.training
        self.model = model
        self.calibration: Calibration | None = None
        self._hooks = Hooks()
        self._closed = False
        for name in self.STATISTICS:
            self.register_buffer(name, None)

    def settings(self) -> dict[str, Any]:
        """Arguments beside the model, as JSON."""
        raise NotImplementedError

    @classmethod
    def from_settings(cls, model: nn.Module, settings: dict[str, Any]) -> "ModelDetector":
        """The detector of what `settings` gave."""
        return cls(model, **settings)

    def require_ready(self) -> None:
        """RuntimeError if the detector is closed, or the model or a part of it trains."""
        if self._closed:
            raise RuntimeError("this detector is closed: its hooks are off the model")
        for name, module in self.model.named_modules():
            if module.training:
                raise RuntimeError(f"model must be in eval mode, but {name or 'it'!r} trains")

    def require_fitted(self) -> None:
        """RuntimeError before `fit`, if there is something to fit."""
        if any(getattr(self, name) is None for name in self.STATISTICS):
            raise RuntimeError(f"this {type(self).__name__} is not fitted: call fit on ID data")

    def fit(self, batches: Iterable[Any]) -> "ModelDetector":  # noqa: ARG002
        """Find what the detector takes from ID data; nothing, unless a subclass says otherwise."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Scored:
        """Scores and classes of a batch, the arguments of the model. Carries gradients."""
        raise NotImplementedError

    @torch.no_grad()
    def score(self, *args: Any, **kwargs: Any) -> Float[Tensor, " b"]:
        """Scores of a batch without gradients, larger = more in-distribution."""
        return self(*args, **kwargs).score

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Any], tpr: float = 0.95) -> float:
        """Set the threshold that accepts at least `tpr` of in-distribution data; it is returned.

        `batches` are inputs, tuples whose first is the inputs, as a DataLoader gives them, or
        mappings of keyword arguments.

        Raises:
            ValueError: No data, `tpr` is outside (0, 1], or a score is not finite.
        """
        scores = []
        for batch in batches:
            args, kwargs = inputs_of(batch)
            scores.append(self.score(*args, **kwargs).double().cpu())
        if not scores:
            raise ValueError("batches must hold at least one sample, got none")
        self.calibration = Calibration(torch.cat(scores), tpr, fingerprint(self.model))
        return self.calibration.threshold

    @property
    def threshold(self) -> float:
        """Scores below it are out-of-distribution. RuntimeError before `calibrate`."""
        return self.require_calibrated().threshold

    def require_calibrated(self) -> Calibration:
        """The calibration. RuntimeError before `calibrate`."""
        if self.calibration is None:
            raise RuntimeError("this detector has no threshold: call calibrate on ID data first")
        return self.calibration

    def predict(self, *args: Any, **kwargs: Any) -> Bool[Tensor, " b"]:
        """Whether each sample is out-of-distribution: score < threshold, or NaN."""
        threshold = self.threshold
        return ~(self.score(*args, **kwargs) >= threshold)

    @torch.inference_mode()
    def predict_one(self, *args: Any, **kwargs: Any) -> bool:
        """Latency mode: whether a single sample is out-of-distribution. Nothing else is computed.

        Of RankFeat the unedited branch ends at the last layer, so that with one layer the model
        runs on one sample throughout.

        Raises:
            ValueError: The batch holds another number of samples than one.
        """
        threshold, score = self.threshold, self.score(*args, **kwargs)
        if score.numel() != 1:
            raise ValueError(f"predict_one takes a batch of one sample, got {score.numel()}")
        return not float(score) >= threshold

    def save(self, path: str | Path) -> None:
        """Write the detector without the model: ID scores, statistics, and settings as JSON.

        A safetensors file. RuntimeError before `calibrate`.
        """
        calibration = self.require_calibrated()
        settings = {
            **self.settings(),
            "tpr": calibration.tpr,
            "model_sha256": calibration.fingerprint,
        }
        header = {
            "format": _FORMAT,
            "detector": type(self).__name__,
            "settings": json.dumps(settings),
        }
        tensors = {name: getattr(self, name).contiguous() for name in self.STATISTICS}
        tensors["id_scores"] = calibration.id_scores.contiguous()
        with whole(path) as part:
            save_file(tensors, str(part), header)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> Any:
        """The detector that `save` wrote, on a model of the weights it was calibrated with.

        Raises:
            ValueError: The file is of another kind, or the weights differ from those that the
                threshold was found with.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
                held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except WRONG as error:
            raise ValueError(f"{path} is not a whole safetensors file: {reason(error)}") from error
        if header.get("format") != _FORMAT:
            raise ValueError(f"{path} must be a {_FORMAT} file, got {header.get('format')!r}")
        if header.get("detector") != cls.__name__:
            raise ValueError(f"{path} must hold a {cls.__name__}, got a {header.get('detector')}")
        try:
            tensors = {name: held[name] for name in ("id_scores", *cls.STATISTICS)}
            settings = json.loads(header["settings"])
            tpr, expected = float(settings.pop("tpr")), str(settings.pop("model_sha256"))
        except WRONG as error:
            raise ValueError(f"{path} lacks what a detector needs: {reason(error)}") from error
        found = fingerprint(model)
        if found != expected:
            raise ValueError(
                f"model must have the weights that {path} was calibrated with (SHA-256"
                f" {expected[:12]}), got {found[:12]}: the threshold does not hold for it"
            )
        try:
            detector = cls.from_settings(model, settings)
            detector.calibration = Calibration(tensors.pop("id_scores"), tpr, found)
        except WRONG as error:
            raise ValueError(f"{path} has settings of no detector: {reason(error)}") from error
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        for name, tensor in tensors.items():
            setattr(detector, name, tensor.to(device))
        return detector

    def close(self) -> None:
        """Take the hooks off the model. The detector cannot be used afterwards."""
        self._hooks.close()
        self._closed = True

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
