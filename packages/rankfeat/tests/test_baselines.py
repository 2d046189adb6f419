"""MSP, MaxLogit, Energy, ReAct, ASH, ViM, KNN and RankFeat against pytorch-ood 0.4.0."""

import pytest
import torch
from pytorch_ood import detector as theirs
from rankfeat import ASH, KNN, MSP, Energy, LogitDetector, MaxLogit, RankFeat, ReAct, ViM
from torch import nn


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """Maps, their mean, and a linear head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(12, 5)
        self.eval()

    def features(self, x):
        return self.maps(x).mean((2, 3))

    def head(self, F):
        return self.fc(F.mean((2, 3)))

    def forward(self, x):
        return self.fc(self.features(x))


X = draw(9, 3, 12, 12)
ID = draw(60, 3, 12, 12, seed=1)
LOADER = [(batch, torch.zeros(len(batch), dtype=torch.long)) for batch in ID.split(25)]


def pairs(net):
    """Ours and theirs by name."""
    map_of = {"backbone": net.maps, "head": net.head}
    layer = ["maps"]
    return {
        "MSP": (LogitDetector(net, MSP()), theirs.MaxSoftmax(net)),
        "MaxLogit": (LogitDetector(net, MaxLogit()), theirs.MaxLogit(net)),
        "Energy": (LogitDetector(net, Energy(2.0)), theirs.EnergyBased(net, t=2.0)),
        "ReAct": (ReAct(net, layer, percentile=0.7), theirs.ReAct(**map_of, percentile=0.7)),
        **{
            f"ASH-{one}": (
                ASH(net, layer, share=0.55, shaping=one),
                theirs.ASH(**map_of, variant=f"ash-{one}", percentile=0.55),
            )
            for one in ("p", "b", "s")
        },
        "ViM": (
            ViM(net, "fc", d=5),
            theirs.ViM(net.features, d=5, w=net.fc.weight, b=net.fc.bias),
        ),
        "KNN": (KNN(net, "fc", k=7), theirs.KNN(net.features, k=7)),
        "RankFeat": (RankFeat(net, layer), theirs.RankFeat(**map_of)),
    }  # fmt: skip


NAMES = list(pairs(Net()))


@pytest.mark.parametrize("name", NAMES)
def test_scores_as_in_pytorch_ood(name):
    ours, other = pairs(Net())[name]
    ours.fit(LOADER)
    if other.requires_fit:
        other.to("cpu").fit(LOADER)
    with torch.no_grad():
        want = -other.predict(X)
    torch.testing.assert_close(ours.score(X), want.to(X.dtype), rtol=2e-5, atol=2e-5)
    assert ours(X).label.tolist() == Net()(X).argmax(1).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_saved_with_what_was_fitted(name, tmp_path):
    ours, _ = pairs(Net())[name]
    ours.fit(LOADER).calibrate(LOADER)
    ours.save(tmp_path / "detector.safetensors")
    loaded = type(ours).load(tmp_path / "detector.safetensors", Net())
    assert loaded.threshold == ours.threshold
    torch.testing.assert_close(loaded.score(X), ours.score(X), rtol=0, atol=0)


def test_load_refuses_another_detector(tmp_path):
    ours, _ = pairs(Net())["Energy"]
    ours.calibrate(LOADER)
    ours.save(tmp_path / "detector.safetensors")
    with pytest.raises(ValueError, match="must hold a RankFeat, got a LogitDetector"):
        RankFeat.load(tmp_path / "detector.safetensors", Net())


@pytest.mark.parametrize("name", ["ReAct", "ViM", "KNN"])
def test_scoring_before_fitting(name):
    ours, _ = pairs(Net())[name]
    with pytest.raises(RuntimeError, match=f"this {name} is not fitted: call fit on ID data"):
        ours.score(X)
    with pytest.raises(ValueError, match="batches must hold at least one sample, got none"):
        ours.fit([])


def test_one_threshold_for_each_layer_of_react():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(864, 3))
    net.eval()
    detector = ReAct(net, ["1", "0"]).fit([ID])
    with torch.no_grad():
        want = [torch.quantile(F.flatten()[:100000], 0.9) for F in (net[:2](ID), net[0](ID))]
    torch.testing.assert_close(detector.clip, torch.stack(want))
    with torch.no_grad():
        first = net[1:](net[0](X).clamp(max=want[1]))
        second = net[2:](net[:2](X).clamp(max=want[0]))
    torch.testing.assert_close(detector.score(X), Energy()((first + second) / 2))


def test_vim_and_knn_on_a_convolution_as_head():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    net.eval()
    F = net[0](ID).mean((2, 3))
    linear = nn.Sequential(nn.Linear(8, 5)).eval()
    convolution = net[1].state_dict()
    linear[0].load_state_dict({**convolution, "weight": convolution["weight"].flatten(1)})
    for make in (lambda net, head: ViM(net, head, d=3), lambda net, head: KNN(net, head, k=4)):
        want = make(linear, "0").fit([F.detach()]).score(F[:4].detach())
        torch.testing.assert_close(make(net, "1").fit([ID]).score(ID[:4]), want)


def test_a_map_of_zeros_stays_zero_in_ash():
    net = Net()
    for parameter in net.maps.parameters():
        nn.init.constant_(parameter, -1.0)
    assert not bool(net.maps(X.abs()).any())
    assert bool(ASH(net, ["maps"]).score(X.abs()).isfinite().all())


def test_predict_one_is_predict():
    net = Net()
    detector = RankFeat(net, ["maps"])
    detector.calibrate([ID], tpr=0.5)
    flags = [detector.predict_one(x[None]) for x in X]
    assert flags == detector.predict(X).tolist()
    assert set(flags) == {True, False}
    with pytest.raises(ValueError, match="predict_one takes a batch of one sample, got 9"):
        detector.predict_one(X)


def test_one_layer_scores_without_an_unedited_branch():
    seen = []
    net = Net()
    net.fc.register_forward_hook(lambda _layer, inputs, _output: seen.append(len(inputs[0])))
    detector = RankFeat(net, ["maps"])
    detector.score(X)
    detector(X)
    assert seen == [len(X), 2 * len(X)]


def test_wrong_arguments():
    net = Net()
    with pytest.raises(ValueError, match=r"percentile must lie in \[0, 1\], got 90"):
        ReAct(net, ["maps"], percentile=90.0)
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\), got 1"):
        ASH(net, ["maps"], share=1.0)
    with pytest.raises(ValueError, match=r"d must lie in \(0, 12\).*got 12"):
        ViM(net, "fc", d=12)
    with pytest.raises(TypeError, match="head must be linear or a convolution, got Sequential"):
        ViM(net, "maps")
    with pytest.raises(ValueError, match="head must be a 1 x 1 convolution"):
        ViM(net, "maps.0")
    with pytest.raises(ValueError, match="at least k=50 samples, got 9"):
        KNN(net, "fc").fit([X])
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        KNN(net, "fc", k=0)
