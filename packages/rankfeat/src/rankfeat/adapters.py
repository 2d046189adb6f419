"""Detectors of pytorch-ood and OpenOOD as ours, and ours as theirs.

pytorch-ood scores are larger for out-of-distribution, those of OpenOOD and ours for
in-distribution; the adapters turn the sign. Both libraries are imported when they are asked for.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from rankfeat.detector import Detector


class _FromPytorchOOD:
    def __init__(self, detector: Any) -> None:
        self.detector = detector

    def fit(self, batches: Iterable[Any]) -> "_FromPytorchOOD":
        """Fit it, if it needs that. Its loaders give pairs of inputs and labels."""
        if getattr(self.detector, "requires_fit", True):
            self.detector.fit(batches)
        return self

    @torch.no_grad()
    def score(self, *args: Any) -> Tensor:
        """-predict(x)."""
        return -self.detector.predict(*args)


def from_pytorch_ood(detector: Any) -> Detector:
    """A pytorch-ood detector for `evaluate`; score = -predict(x)."""
    return _FromPytorchOOD(detector)


def to_pytorch_ood(detector: Detector) -> Any:
    """A `pytorch_ood.api.Detector` whose predict(x) is -score(x) of this one.

    ImportError without pytorch-ood.
    """
    from pytorch_ood.api import Detector as Theirs

    class ToPytorchOOD(Theirs):
        # Fitting does nothing where there is nothing to fit.
        requires_fit = bool(getattr(detector, "STATISTICS", ()))

        def __init__(self) -> None:
            # Under this name .to(device) moves it, and .device finds where it is.
            self.detector = detector

        def fit(self, data_loader: Iterable[Any]) -> "ToPytorchOOD":
            detector.fit(data_loader)
            return self

        def fit_features(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("rankfeat's detectors are fitted on inputs: call fit")

        def predict(self, x: Tensor) -> Tensor:
            return -detector.score(x)

        def predict_features(self, *args: Any, **kwargs: Any) -> Tensor:
            raise NotImplementedError("rankfeat's detectors score inputs: call predict")

    return ToPytorchOOD()


class _FromOpenOOD:
    def __init__(self, postprocessor: Any, net: nn.Module) -> None:
        self.postprocessor, self.net = postprocessor, net

    def fit(self, batches: Iterable[Any]) -> "_FromOpenOOD":
        """setup(net, {"train": ..., "main_train": ..., "val": ...}, {}) on batches as OpenOOD's."""
        told = [_as_openood(batch) for batch in batches]
        self.postprocessor.setup(self.net, dict.fromkeys(("train", "main_train", "val"), told), {})
        return self

    @torch.no_grad()
    def score(self, *args: Any) -> Tensor:
        """The confidence of postprocess(net, data)."""
        _, confidence = self.postprocessor.postprocess(self.net, *args)
        return confidence


def _as_openood(batch: Any) -> dict[str, Any]:
    if isinstance(batch, Mapping):
        return dict(batch)
    if isinstance(batch, (tuple, list)):
        return {"data": batch[0], "label": batch[1]} if len(batch) > 1 else {"data": batch[0]}
    return {"data": batch}


def from_openood(postprocessor: Any, net: nn.Module) -> Detector:
    """An OpenOOD postprocessor for `evaluate`; score = confidence of postprocess(net, x).

    Batches that it is fitted on become mappings with "data" and "label".
    """
    return _FromOpenOOD(postprocessor, net)


def to_openood(detector: Detector) -> Any:
    """An OpenOOD postprocessor that scores with this detector.

    It derives from `openood.postprocessors.BasePostprocessor` where that is installed, as OpenOOD's
    evaluator demands. `setup` fits the detector on the training data; the class is that of the
    unedited logits of `net`, which must be the model of the detector.
    """
    try:
        # By name: OpenOOD is no requirement that an index could resolve.
        Base: Any = import_module("openood.postprocessors").BasePostprocessor
    except ImportError:
        Base = object

    class ToOpenOOD(Base):
        # Nothing here is tuned by OpenOOD.
        APS_mode = False
        hyperparam_search_done = True

        def __init__(self) -> None:
            self.config = None

        def setup(
            self, net: nn.Module, id_loader_dict: Mapping[str, Any], ood_loader_dict: Any
        ) -> None:
            del net, ood_loader_dict
            if getattr(detector, "STATISTICS", ()):
                detector.fit(batch["data"] for batch in id_loader_dict["train"])

        @torch.no_grad()
        def postprocess(self, net: nn.Module, data: Any) -> tuple[Tensor, Tensor]:
            if isinstance(detector, nn.Module):
                scored = detector(data)
                return scored.label, scored.score
            return net(data).argmax(1), detector.score(data)

        def inference(self, net: nn.Module, data_loader: Any, progress: bool = True) -> Any:
            """Classes, scores and labels of a loader, as arrays; on the device of `net`."""
            del progress
            device = next((p.device for p in net.parameters()), torch.device("cpu"))
            classes, scores, labels = [], [], []
            for batch in data_loader:
                label, score = self.postprocess(net, batch["data"].to(device))
                classes.append(label.cpu())
                scores.append(score.cpu())
                labels.append(torch.as_tensor(batch["label"]).cpu())
            return tuple(torch.cat(one).numpy() for one in (classes, scores, labels))

    return ToOpenOOD()
