"""suggest_layers: which layers it looks at, what it finds there, and its warning."""

import pytest
import torch
from rankfeat import RankFeat, remove_feature, singular_values, suggest_layers
from torch import nn


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """A residual block: nothing inside it can be edited in one pass."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x):
        return x + self.act(self.conv(x))


class Net(nn.Module):
    """Reads off the class from single positions, so that little depends on the rank-one part."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3)
        self.stages = nn.Sequential(Block(6), nn.Sequential(Block(6), Block(6)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 4)
        self.eval()

    def forward(self, x):
        return self.fc(self.pool(self.stages(self.stem(x))).flatten(1))


X = draw(40, 3, 10, 10)


def test_candidates_are_blocks_that_nothing_bypasses():
    net = Net()
    found = suggest_layers(net, X.split(16), agreement=0.0)
    # `stages` and its last part give one output, under the outermost name.
    assert [one.layer for one in found.candidates] == ["stem", "stages.0", "stages.1.0", "stages"]
    assert found.layers == ("stages",)
    assert found.samples == 40
    assert not any(module._forward_hooks for module in net.modules())


def test_figures_by_hand():
    net = Net()
    found = {one.layer: one for one in suggest_layers(net, X.split(16), agreement=0.0).candidates}
    F = net.stages[0](net.stem(X)).detach()
    edited = net.fc(net.pool(net.stages[1](remove_feature(F))).flatten(1)).argmax(1)
    values = torch.linalg.svdvals(F.flatten(2))
    one = found["stages.0"]
    assert one.shape == (6, 8, 8)
    assert one.agreement == pytest.approx(float((edited == net(X).argmax(1)).double().mean()))
    assert one.share == pytest.approx(float((values[:, 0] ** 2 / values.square().sum(1)).mean()))
    assert one.ratio == pytest.approx(float((values[:, 1] / values[:, 0]).mean()), rel=1e-5)
    torch.testing.assert_close(singular_values(net, "stages.0", X.split(9)), values)


def test_the_deepest_that_keeps_the_class():
    net = Net()
    every = suggest_layers(net, X.split(16), agreement=0.0).candidates
    for level in sorted({one.agreement for one in every}):
        good = [one.layer for one in every if one.agreement >= level]
        assert suggest_layers(net, X.split(16), agreement=level).layers == (good[-1],)


def test_named_candidates_and_why_some_are_skipped():
    found = suggest_layers(
        Net(), X.split(16), candidates=["stages.0", "stages.0.conv", "fc"], agreement=0.0
    )
    assert [one.layer for one in found.candidates] == ["stages.0"]
    assert set(found.skipped) == {"stages.0.conv", "fc"}
    assert "size of tensor" in found.skipped["stages.0.conv"]
    assert "* stages.0" in found.table()


class Pooled(nn.Module):
    """The mean of what is one vector at all positions: nothing is left of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(12, 8)
        self.spread = nn.Unflatten(1, (8, 1, 1))
        self.mix = nn.Upsample(scale_factor=5)
        self.fc = nn.Linear(8, 4)
        self.eval()

    def forward(self, x):
        return self.fc(self.mix(self.spread(self.embed(x))).mean((2, 3)))


def test_warns_where_removal_destroys_the_classifier():
    net = Pooled()
    nn.init.constant_(net.fc.bias, 0.0)
    with pytest.warns(UserWarning, match="removing rank one destroys this classifier at every"):
        found = suggest_layers(net, [draw(30, 12)], candidates=["mix"], agreement=0.95)
    assert found.layers == ("mix",)
    assert found.candidates[0].share == pytest.approx(1)


def test_suggested_layers_can_be_used():
    net = Net()
    found = suggest_layers(net, [X], agreement=0.0)
    assert RankFeat(net, found.layers).score(X).shape == (40,)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="id_data must hold at least one batch, got none"):
        suggest_layers(Net(), [])
    with pytest.raises(ValueError, match=r"agreement must lie in \[0, 1\], got 50"):
        suggest_layers(Net(), [X], agreement=50.0)
    with pytest.raises(ValueError, match="no layer of Net can be edited"):
        suggest_layers(Net(), [X], candidates=["fc"])
