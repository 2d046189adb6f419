"""The scoring graph as an ONNX file: inputs -> score, label, logits."""

from pathlib import Path

import torch
from torch import Tensor, nn

from rankfeat.detector import ModelDetector


class _Graph(nn.Module):
    """score, label, logits as plain outputs, and the decision where there is a threshold."""

    def __init__(self, detector: ModelDetector) -> None:
        super().__init__()
        self.detector = detector
        # In the graph it is a constant, so that a service needs nothing beside the file.
        self.threshold = detector.calibration.threshold if detector.calibration else None

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        scored = self.detector(*args)
        outputs = (scored.score, scored.label, scored.logits)
        if self.threshold is None:
            return outputs
        return (*outputs, ~(scored.score >= self.threshold))


def export_onnx(detector: ModelDetector, example: tuple[Tensor, ...], path: str | Path) -> None:
    """Write the detector with its model as ONNX: score, label, logits and, if calibrated, ood.

    The batch may have any size later. While it is traced, the removal makes exactly `iters` steps
    and checks nothing: features with NaN give a score of NaN, which is out-of-distribution.

    Args:
        detector: E.g. a `RankFeat`.
        example: Arguments of the model, with a batch of two samples or more.
        path: Of the file.

    Raises:
        ImportError: onnxscript is not installed: `pip install "rankfeat[onnx]"`.
        ValueError: The batch of the example is smaller than two.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export_onnx needs onnx and onnxscript: pip install 'rankfeat[onnx]'"
        ) from error
    if any(one.shape[0] < 2 for one in example):
        raise ValueError(
            f"example must hold two samples or more, got {[tuple(one.shape) for one in example]}"
        )
    names = ["score", "label", "logits"] + ["ood"] * (detector.calibration is not None)
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        _Graph(detector).eval(),
        example,
        str(path),
        dynamo=True,
        input_names=[f"input{index}" for index in range(len(example))],
        output_names=names,
        dynamic_shapes=(tuple({0: batch} for _ in example),),
        external_data=False,
        verbose=False,
    )
