"""The learned prior."""

import pytest
import torch
from chemflow.prior import LatentPrior, PriorTask
from chemflow.training import Options, Trainer


def trained(codes, spread=None, epochs=40, seed=0):
    torch.manual_seed(seed)
    prior = LatentPrior(codes.shape[1], hidden=64, blocks=2)
    Trainer(PriorTask(prior, codes, spread), Options(epochs, 200, 3e-3, average=0.99)).run()
    return prior.eval()


def ring(n: int) -> torch.Tensor:
    """Far from the origin and small, with nothing at the mean."""
    torch.manual_seed(1)
    angle = 2 * torch.pi * torch.rand(n)
    return 100 + 0.01 * torch.stack((angle.cos(), angle.sin()), -1)


def test_samples_lie_where_codes_lie():
    radius = (trained(ring(2000)).sample(torch.arange(2000), seed=0) - 100).norm(dim=-1) / 0.01
    # A Gaussian of the same spread has 56 % there, and 15 % in the middle.
    assert ((radius - 1).abs() < 0.4).float().mean() > 0.85
    assert (radius < 0.4).float().mean() < 0.04


def test_a_row_s_code_depends_on_row_and_seed_only():
    prior = trained(ring(400), epochs=2).double()
    rows = torch.arange(20)
    z = prior.sample(rows, seed=1)
    torch.testing.assert_close(prior.sample(rows[[5, 3]], seed=1), z[[5, 3]])
    assert not torch.allclose(prior.sample(rows, seed=2), z)
    assert prior.sample(rows[:0], seed=1).shape == (0, 2)


def test_posterior_spread_widens_the_samples():
    codes = torch.randn(1000, 2)
    narrow = trained(codes, epochs=20).sample(torch.arange(1000), 0)
    wide = trained(codes, torch.full_like(codes, 2.0), epochs=20).sample(torch.arange(1000), 0)
    assert narrow.std().item() == pytest.approx(1, abs=0.15)
    assert wide.std().item() == pytest.approx(5**0.5, abs=0.3)


def test_a_dimension_without_spread_stays_where_it_is():
    codes = torch.cat((torch.randn(500, 1), torch.full((500, 1), 7.0)), 1)
    z = trained(codes, epochs=30).sample(torch.arange(100), 0)
    assert torch.equal(z[:, 1], torch.full((100,), 7.0))
