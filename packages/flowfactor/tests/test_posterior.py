"""Gaussians, the Gumbel-softmax and divergences against torch.distributions."""

import pytest
import torch
from flowfactor import Temperature, gumbel_softmax, match_flows
from flowfactor.posterior import gaussian_log_prob, sample_gaussian, standard_normal_kl, uniform_kl
from torch.distributions import Categorical, Normal, kl_divergence


def close(got, want, rtol=1e-10, atol=1e-12):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def gaussians():
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(5, 3, dtype=torch.float64, generator=g)
    return mean, torch.randn(5, 3, dtype=torch.float64, generator=g)


def test_gaussian():
    mean, log_var = gaussians()
    q = Normal(mean, (log_var / 2).exp())
    z = q.sample((4,))
    close(gaussian_log_prob(z, mean, log_var), q.log_prob(z).sum(-1))
    p = Normal(torch.zeros_like(mean), 1.0)
    close(standard_normal_kl(mean, log_var), kl_divergence(q, p).sum(-1))
    torch.manual_seed(0)
    many = sample_gaussian(mean.expand(50000, 5, 3), log_var.expand(50000, 5, 3))
    assert ((many.mean(0) - mean).abs() < 5 * q.scale / 50000**0.5).all()
    assert (many.std(0) / q.scale - 1).abs().max() < 0.02


def test_divergence_from_uniform():
    logits = gaussians()[0]
    close(
        uniform_kl(logits),
        kl_divergence(Categorical(logits=logits), Categorical(torch.ones(3).double())),
    )
    assert uniform_kl(torch.zeros(2, 4)).abs().max() < 1e-6
    close(uniform_kl(torch.tensor([[800.0, 0.0]])), torch.tensor([2.0]).log())


@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.05])
def test_gumbel_softmax(temperature):
    logits, _ = gaussians()
    u = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    soft = gumbel_softmax(logits, temperature, uniform=u)
    close(soft, ((logits - torch.log(-torch.log(u))) / temperature).softmax(-1))
    logits.requires_grad_()
    hard = gumbel_softmax(logits, temperature, hard=True, uniform=u)
    assert torch.equal(hard, torch.nn.functional.one_hot(soft.argmax(-1), 3).double())
    # The gradient is that of the soft draw.
    weights = torch.randn(5, 3, dtype=torch.float64)
    ours = torch.autograd.grad((hard * weights).sum(), logits)[0]
    soft = gumbel_softmax(logits, temperature, uniform=u)
    close(ours, torch.autograd.grad((soft * weights).sum(), logits)[0])


def test_gumbel_draws_are_categorical():
    torch.manual_seed(0)
    logits = torch.tensor([1.0, 0.0, -1.0])
    draws = gumbel_softmax(logits.expand(40000, 3), 0.7, hard=True)
    assert (draws.mean(0) - logits.softmax(-1)).abs().max() < 0.01
    soft = gumbel_softmax(logits.expand(40000, 3), 0.7)
    assert soft.isfinite().all()


def test_temperature():
    schedule = Temperature()
    assert schedule(0) == schedule(99) == 1.0
    assert schedule(100) == pytest.approx(torch.tensor(-3e-3).exp().item())
    assert schedule(10**6) == 0.05


def test_matching():
    # Flow 2 is transformation 0, flow 0 is 1, flow 1 is 2; one row of ten is wrong.
    k = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    inferred = torch.tensor([2, 2, 2, 1, 0, 0, 0, 1, 1, 1])
    logits = 5 * torch.nn.functional.one_hot(inferred, 3).float()
    assert match_flows(logits, k) == ((2, 0, 1), 0.9)


@pytest.mark.bad_input
def test_bad_input():
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        gumbel_softmax(torch.zeros(2), 0.0)
