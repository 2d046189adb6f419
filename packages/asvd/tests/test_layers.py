"""The factored layer, and finding the layers of a model."""

import asvd
import pytest
import torch
from asvd.layers import install, is_linear, matrix, set_matrix
from torch import nn
from transformers.pytorch_utils import Conv1D


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=False))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank", [0, 1, 4])
def test_forward_is_the_product(rank: int, bias: bool) -> None:
    A, B = torch.randn(4, rank), torch.randn(rank, 6)
    b = torch.randn(4) if bias else None
    layer = asvd.LowRankLinear.from_factors(A, B, b)
    x = torch.randn(2, 3, 6)
    expected = x @ (A @ B).T + (0 if b is None else b)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.to_linear()(x), expected)
    assert (layer.in_features, layer.out_features, layer.rank) == (6, 4, rank)


@pytest.mark.bad_input
@pytest.mark.parametrize("rank", [-1, 5])
def test_ranks_that_no_matrix_has(rank: int) -> None:
    with pytest.raises(ValueError, match=r"rank must lie in \[0, 4\] for \(4, 6\), got"):
        asvd.LowRankLinear(6, 4, rank)


def test_a_layer_that_was_never_filled_gives_its_bias() -> None:
    layer = asvd.LowRankLinear(6, 4, 2)
    assert torch.equal(layer(torch.randn(3, 6)), torch.zeros(3, 4))


def test_factors_are_not_factored_again() -> None:
    net = model()
    install(net, {"0": 2})
    assert list(asvd.linear_layers(net)) == ["2"]


def test_conv1d_is_linear_and_transposed() -> None:
    layer = Conv1D(5, 3)
    assert is_linear(layer)
    W = matrix(layer).clone()
    x = torch.randn(2, 3)
    torch.testing.assert_close(layer(x), x @ W.T + layer.bias)
    set_matrix(layer, 2 * W)
    torch.testing.assert_close(matrix(layer), 2 * W)


def test_layers_by_pattern() -> None:
    net = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "k_proj": nn.Linear(2, 2), "act": nn.ReLU()})
    assert list(asvd.linear_layers(net)) == ["q_proj", "k_proj"]
    assert list(asvd.linear_layers(net, "q_*")) == ["q_proj"]
    assert list(asvd.linear_layers(net, skip="q_*")) == ["k_proj"]


@pytest.mark.bad_input
def test_a_pattern_without_a_layer_is_named() -> None:
    with pytest.raises(ValueError, match=r"no linear layer matches 'o_proj'; there is 0, 2"):
        asvd.linear_layers(model(), ["0", "o_proj"])
    with pytest.raises(ValueError, match="a linear layer to compress"):
        asvd.linear_layers(model(), skip="*")


@pytest.mark.bad_input
def test_install_refuses_what_is_no_layer() -> None:
    with pytest.raises(ValueError, match="no linear layer '1'"):
        install(model(), {"1": 1})
    with pytest.raises(ValueError, match=r"no linear layer 'a\.b'"):
        install(model(), {"a.b": 1})


def test_merging_keeps_the_function() -> None:
    net = model()
    asvd.compress(net, ratio=0.6, method="svd")
    x = torch.randn(3, 6)
    before = net(x)
    asvd.merge_to_dense(net)
    torch.testing.assert_close(net(x), before)
    assert not asvd.low_rank_layers(net)
