"""RankWeight: once, undone to the bit, and the weights that layers really use."""

import copy

import pytest
import torch
from linalg_kernels.errors import LinAlgError
from rankfeat import Energy, RankFeat, RankWeight, remove_weight, standardize
from torch import nn
from torch.nn.functional import conv2d
from torch.nn.utils.parametrizations import weight_norm


class StandardizedConv2d(nn.Conv2d):
    """Standardises its weight when it runs, as in BiT."""

    def forward(self, input):
        return self._conv_forward(input, standardize(self.weight), self.bias)


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        StandardizedConv2d(6, 8, 3, padding=1, padding_mode="reflect", groups=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    return layers.double().eval()


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_once_and_undone_to_the_bit(net):
    before = state(net)
    surgery = RankWeight(net, ["0", "5"])
    assert not surgery.applied
    for _ in range(2):
        assert surgery.apply() is surgery
        assert surgery.applied
        for name, tensor in net.state_dict().items():
            changed = name in ("0.weight", "5.weight")
            want = remove_weight(before[name]) if changed else before[name]
            assert torch.equal(tensor, want), name
    for _ in range(2):
        surgery.restore()
        assert not surgery.applied
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    with surgery:
        assert surgery.applied
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_two_on_one_layer_are_refused_also_on_a_copy(net):
    first, before = RankWeight(net, ["5"]).apply(), state(net)
    for model in (net, copy.deepcopy(net)):
        with pytest.raises(RuntimeError, match="layer '5' is without its rank-one part already"):
            RankWeight(model, ["0", "5"]).apply()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    first.restore()
    assert RankWeight(net, ["0", "5"]).apply().applied


def test_a_weight_that_changed_is_not_discarded(net):
    surgery = RankWeight(net, ["0", "5"]).apply()
    kept = state(net)
    with torch.no_grad():
        net[5].weight[0, 0] += 1
    with pytest.raises(RuntimeError, match="weight of layer '5' was changed since apply"):
        surgery.restore()
    assert torch.equal(net[0].weight, kept["0.weight"])


def test_restored_in_another_precision(net):
    before = state(net)
    surgery = RankWeight(net, ["5"]).apply()
    net.float()
    surgery.restore()
    assert torch.equal(net[5].weight, before["5.weight"].float())


def test_raw_weight_of_a_standardised_layer(net, x):
    layer, before = net[2], net[2].weight.detach().clone()
    F = net[:2](x)
    with RankWeight(net, ["2"]):
        left = standardize(remove_weight(before, groups=2))
        assert torch.equal(layer(F), layer._conv_forward(F, left, layer.bias))


@pytest.mark.parametrize("bias", [True, False])
def test_effective_weight_of_a_standardised_layer(net, x, bias):
    layer = net[2]
    if not bias:
        layer.bias = None
    F, want = net[:2](x), net(x)
    left = remove_weight(standardize(layer.weight.detach()), groups=2)
    with RankWeight(net, ["2"], effective=standardize):
        got = layer(F)
    # Reflected by hand, so that the padding is seen to be kept.
    padded = nn.functional.pad(F, (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(got, conv2d(padded, left, layer.bias, groups=2))
    torch.testing.assert_close(net(x), want, rtol=0, atol=0)


def test_effective_weight_of_a_linear_layer():
    class StandardizedLinear(nn.Linear):
        def forward(self, input):
            return nn.functional.linear(input, standardize(self.weight), self.bias)

    torch.manual_seed(0)
    layer = StandardizedLinear(6, 4, dtype=torch.float64)
    left = remove_weight(standardize(layer.weight.detach()))
    tokens = torch.randn(2, 3, 6, dtype=torch.float64)
    with RankWeight(nn.Sequential(layer), ["0"], effective=standardize):
        torch.testing.assert_close(layer(tokens), nn.functional.linear(tokens, left, layer.bias))


def test_under_rank_feat(net, x):
    detector = RankFeat(net, ["0"])
    before = detector.score(x)
    with RankWeight(net, ["5"]):
        got = detector.score(x)
        assert torch.equal(got, Energy()(detector(x).edited_logits))
    assert not torch.allclose(got, before)
    torch.testing.assert_close(detector.score(x), before, rtol=0, atol=0)


def test_no_weight_changes_where_one_is_bad(net):
    with torch.no_grad():
        net[5].weight[1, 1] = torch.nan
    kept = net[0].weight.detach().clone()
    with pytest.raises(LinAlgError, match="weight contains NaN or Inf"):
        RankWeight(net, ["0", "5"]).apply()
    assert torch.equal(net[0].weight, kept)


def test_wrong_layers(net):
    with pytest.raises(TypeError, match=r"layer '1' must be one of Linear, Conv1d.* got ReLU"):
        RankWeight(net, ["1"])
    with pytest.raises(ValueError, match="has no layer 'fc'"):
        RankWeight(net, ["fc"])
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="layers '0' and '1' share one weight"):
        RankWeight(tied, ["0", "1"])
    with pytest.raises(TypeError, match="layer '0' must hold its weight as a parameter"):
        RankWeight(nn.Sequential(weight_norm(nn.Linear(3, 3))), ["0"])
