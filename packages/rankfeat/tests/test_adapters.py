"""Detectors of pytorch-ood 0.4.0 and of OpenOOD's interface as ours, and ours as theirs."""

import pytest
import torch
from pytorch_ood import detector as theirs
from pytorch_ood.api import Detector as TheirDetector
from pytorch_ood.metrics import OODMetrics
from rankfeat import (
    MSP,
    Detector,
    LogitDetector,
    RankFeat,
    ViM,
    auroc,
    from_openood,
    from_pytorch_ood,
    to_openood,
    to_pytorch_ood,
)
from torch import nn


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    ).eval()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = draw(12, 3, 9, 9)
LOADER = [(batch, torch.arange(len(batch)) % 4) for batch in draw(80, 3, 9, 9, seed=1).split(20)]


def test_theirs_as_ours(net):
    plain = from_pytorch_ood(theirs.MaxSoftmax(net))
    assert isinstance(plain, Detector)
    plain.fit([])
    torch.testing.assert_close(plain.score(X), LogitDetector(net, MSP()).score(X))
    other = theirs.Mahalanobis(net[:4]).to("cpu")
    fitted = from_pytorch_ood(other)
    fitted.fit(LOADER)
    torch.testing.assert_close(fitted.score(X), -other.predict(X))


def test_ours_as_theirs(net):
    ours = RankFeat(net, ["0"])
    adapted = to_pytorch_ood(ours)
    assert isinstance(adapted, TheirDetector)
    torch.testing.assert_close(adapted(X), -ours.score(X))
    assert adapted.fit(LOADER) is adapted
    assert str(adapted.to("cpu").device) == "cpu"
    metrics = OODMetrics()
    metrics.update(adapted(X), torch.zeros(12))
    metrics.update(adapted(3 * X), -torch.ones(12))
    want = auroc(ours.score(X), ours.score(3 * X))
    assert float(metrics.compute()["AUROC"]) == pytest.approx(want)


def test_ours_is_fitted_by_their_call(net):
    ours = ViM(net, "4", d=20)
    adapted = to_pytorch_ood(ours)
    assert adapted.requires_fit
    adapted.fit(LOADER)
    torch.testing.assert_close(adapted(X), -ViM(net, "4", d=20).fit(LOADER).score(X))


class Centroid:
    """A postprocessor of OpenOOD's interface: the distance of logits from those of ID data."""

    APS_mode = False

    def setup(self, net, id_loader_dict, ood_loader_dict):
        assert ood_loader_dict == {}
        self.centre = torch.cat([net(one["data"]) for one in id_loader_dict["train"]]).mean(0)
        self.labels = [one["label"] for one in id_loader_dict["train"]]

    def postprocess(self, net, data):
        logits = net(data)
        return logits.argmax(1), -(logits - self.centre).norm(dim=1)


def test_a_postprocessor_as_ours(net):
    postprocessor = Centroid()
    adapted = from_openood(postprocessor, net)
    assert isinstance(adapted, Detector)
    adapted.fit(LOADER)
    centre = torch.cat([net(x) for x, _ in LOADER]).mean(0)
    torch.testing.assert_close(adapted.score(X), -(net(X) - centre).norm(dim=1))
    assert len(postprocessor.labels) == len(LOADER)


def test_ours_as_a_postprocessor(net):
    loader = [{"data": x, "label": y} for x, y in LOADER]
    ours = ViM(net, "4", d=20)
    adapted = to_openood(ours)
    assert not adapted.APS_mode
    adapted.setup(net, {"train": loader}, {})
    label, score = adapted.postprocess(net, X)
    assert label.tolist() == net(X).argmax(1).tolist()
    torch.testing.assert_close(score, ViM(net, "4", d=20).fit(LOADER).score(X))
    classes, scores, labels = adapted.inference(net, loader, progress=False)
    assert labels.tolist() == torch.cat([y for _, y in LOADER]).tolist()
    assert classes.shape == scores.shape == (80,)
    assert scores[:20].tolist() == pytest.approx(ours.score(LOADER[0][0]).tolist(), rel=1e-4)


def test_a_foreign_detector_as_a_postprocessor(net):
    adapted = to_openood(from_pytorch_ood(theirs.EnergyBased(net)))
    adapted.setup(net, {"train": []}, {})
    label, score = adapted.postprocess(net, X)
    torch.testing.assert_close(score, torch.logsumexp(net(X), 1))
    assert label.tolist() == net(X).argmax(1).tolist()


def test_openood_s_class_is_the_base_where_it_is_installed(net, monkeypatch):
    import sys
    import types

    class BasePostprocessor:
        pass

    module = types.ModuleType("openood.postprocessors")
    monkeypatch.setattr(module, "BasePostprocessor", BasePostprocessor, raising=False)
    monkeypatch.setitem(sys.modules, "openood", types.ModuleType("openood"))
    monkeypatch.setitem(sys.modules, "openood.postprocessors", module)
    assert isinstance(to_openood(LogitDetector(net)), BasePostprocessor)
