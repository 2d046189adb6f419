"""The exported graph against the detector, run by ONNX's reference implementation."""

import warnings

import pytest
import torch
from rankfeat import LogitDetector, RankFeat
from rankfeat.onnx import export_onnx
from torch import nn


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(path, x):
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(path))
    return [torch.from_numpy(one) for one in session.run(None, {"input0": x.numpy()})]


def export(detector, x, path):
    with warnings.catch_warnings():
        # The exporter's own.
        warnings.simplefilter("ignore")
        export_onnx(detector, (x,), path)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    ).eval()  # fmt: skip


@pytest.mark.compile
def test_scores_classes_and_decisions_at_another_batch_size(net, tmp_path):
    detector = RankFeat(net, ["1", "3"])
    detector.calibrate([draw(20, 3, 15, 15, seed=1)], tpr=0.5)
    export(detector, draw(3, 3, 15, 15), tmp_path / "graph.onnx")
    x = draw(7, 3, 15, 15, seed=2)
    score, label, logits, ood = run(tmp_path / "graph.onnx", x)
    want = detector(x)
    torch.testing.assert_close(score, want.score.detach(), rtol=1e-4, atol=1e-4)
    assert label.tolist() == want.label.tolist()
    torch.testing.assert_close(logits, want.logits.detach())
    assert ood.tolist() == detector.predict(x).tolist()
    assert set(ood.tolist()) == {True, False}


@pytest.mark.compile
@pytest.mark.slow
def test_many_positions_and_channels(tmp_path):
    # More than linalg_kernels squares: by Lanczos steps that are products alone.
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 300, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(4800, 4)
    ).eval()
    detector = RankFeat(net, ["1"])
    export(detector, draw(2, 3, 20, 20), tmp_path / "graph.onnx")
    x = draw(3, 3, 20, 20, seed=2)
    score, label, _ = run(tmp_path / "graph.onnx", x)
    torch.testing.assert_close(score, detector.score(x), rtol=1e-4, atol=1e-4)
    assert label.tolist() == net(x).argmax(1).tolist()


def test_wrong_arguments(net, tmp_path):
    with pytest.raises(ValueError, match=r"example must hold two samples or more, got \[\(1, 3"):
        export_onnx(LogitDetector(net), (draw(1, 3, 15, 15),), tmp_path / "graph.onnx")
