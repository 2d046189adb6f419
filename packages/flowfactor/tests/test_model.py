"""Networks of the published sizes, and a model of one's own."""

import math

import pytest
import torch
from flowfactor import Bernoulli, Config, FlowFactorVAE, Gaussian, LatentFlow
from torch import nn


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("backbone", "shape", "dim", "millions"),
    [
        ("conv-a", (3, 28, 28), 324, 70.9),
        ("conv-a", (3, 64, 64), 226, 161.4),
        ("conv-b", (3, 128, 128), 324, 32.6),
    ],
)
def test_published_sizes(backbone, shape, dim, millions):
    with torch.device("meta"):
        model = Config(shape, 3, dim, backbone, potential_hidden=None, bounded=True).build()
    assert round(count(model.encoder, model.decoder) / 1e6, 1) == millions
    if dim == 324:
        assert count(model.flow.potentials[0]) == 421_525


@pytest.mark.parametrize("backbone", ["mlp", "conv-a", "conv-b"])
@pytest.mark.parametrize("frames", [0, 3])
def test_shapes_and_training(backbone, frames):
    torch.manual_seed(0)
    model = Config((3, 16, 16), 2, 4, backbone, hidden=(8,), frames=frames).build()
    x = torch.rand(5, 3, 3, 16, 16)
    mean, log_var = model.encode(x)
    assert mean.shape == log_var.shape == (5, 3, 4)
    torch.testing.assert_close(mean[2, 1], model.encode(x[2, 1])[0])
    z = torch.randn(2, 5, 4)
    shown = model.decode(z)
    assert shown.shape == (2, 5, 3, 16, 16)
    assert ((shown > 0) & (shown < 1)).all()
    torch.testing.assert_close(model.raw(z).sigmoid(), shown)
    path = model.traverse(x[:, 0], 1, 2)
    assert path.shape == (3, 5, 3, 16, 16)
    torch.testing.assert_close(path[0], model.decode(model.encode(x[:, 0])[0]))
    if frames:
        assert model.flow_logits(x).shape == (5, 2)
        model.flow_logits(x).sum().backward()
        assert model.classifier.head.weight.grad is not None  # ty: ignore[missing-union-attribute]
    else:
        with pytest.raises(ValueError, match="has no classifier"):
            model.flow_logits(x)


def test_half_precision_stays_outside_of_the_flow():
    torch.manual_seed(0)
    model = Config((3, 8, 8), 2, 4, hidden=(8,)).build()
    x = torch.rand(5, 3, 8, 8)
    full = model.encode(x)[0], model.raw(torch.ones(2, 4))
    model.autocast = torch.bfloat16
    half = model.encode(x)[0], model.raw(torch.ones(2, 4))
    for a, b in zip(full, half, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)


def test_observations():
    raw, x = torch.randn(2, 5, 3, 4, 4).double(), torch.rand(5, 3, 4, 4).double()
    want = -nn.functional.binary_cross_entropy_with_logits(
        raw, x.expand_as(raw), reduction="none"
    ).sum((-3, -2, -1))
    torch.testing.assert_close(Bernoulli().log_prob(raw, x), want)
    extreme = Bernoulli().log_prob(torch.full((1, 1, 1), 1e4), torch.zeros(1, 1, 1))
    assert extreme == -1e4
    normal = torch.distributions.Normal(raw, 0.3)
    torch.testing.assert_close(Gaussian(0.3).log_prob(raw, x), normal.log_prob(x).sum((-3, -2, -1)))
    assert torch.equal(Gaussian().mean(raw), raw)
    ceiling = Gaussian().log_prob(torch.zeros(3, 28, 28), torch.zeros(3, 28, 28))
    assert abs(ceiling + 0.5 * 2352 * math.log(2 * math.pi)) < 1e-2
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        Gaussian(0.0)


def test_networks_of_ones_own():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(48, 8)

        def forward(self, x):
            return self.layer(x.flatten(1)).chunk(2, -1)

    decoder = nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)))
    encoder = Encoder().requires_grad_(False)
    model = FlowFactorVAE(encoder, decoder, LatentFlow(4, 2), observation=Gaussian())
    assert model.traverse(torch.rand(5, 3, 4, 4), 0, 3).shape == (4, 5, 3, 4, 4)


def test_bad_sizes():
    with pytest.raises(ValueError, match="square with sides a multiple of 4, got 28 x 30"):
        Config((3, 28, 30), 2, 4, "conv-a").build()
    with pytest.raises(ValueError, match="multiple of 16, got 28 x 28"):
        Config((3, 28, 28), 2, 4, "conv-b").build()


@pytest.mark.bad_input
def test_bad_names():
    with pytest.raises(ValueError, match=r"backbone must be .* got 'resnet'"):
        Config((3, 28, 28), 2, 4, "resnet").build()  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match=r"prior must be .* got 'flat'"):
        Config((3, 28, 28), 2, 4, prior="flat").build()  # ty: ignore[invalid-argument-type]
