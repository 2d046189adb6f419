"""The objective: against torch's own distributions, and the released code's weights."""

import pytest
import torch
from chemflow.elbo import kl_to_standard_normal, negative_elbo, official_beta, official_loss
from torch.distributions import Categorical, Normal, kl_divergence


def random_case(b: int = 3, length: int = 7, tokens: int = 5, latent: int = 4):
    torch.manual_seed(0)
    logits = torch.randn(b, length, tokens, dtype=torch.float64, requires_grad=True)
    mu = torch.randn(b, latent, dtype=torch.float64, requires_grad=True)
    log_var = torch.randn(b, latent, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(tokens, (b, length)), mu, log_var


def test_terms_are_those_of_distributions():
    logits, ids, mu, log_var = random_case()
    found = negative_elbo(logits, ids, mu, log_var, 0.3)
    nll = -Categorical(logits=logits).log_prob(ids).sum(-1).mean()
    kl = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(found.nll, nll)
    torch.testing.assert_close(kl_to_standard_normal(mu, log_var), kl)
    torch.testing.assert_close(found.loss, nll + 0.3 * kl.mean())


def test_weights_leave_positions_out():
    logits, ids, mu, log_var = random_case()
    weights = torch.zeros(3, 7)
    weights[:, :2] = 1
    some = negative_elbo(logits, ids, mu, log_var, 1.0, weights)
    torch.testing.assert_close(
        some.nll, negative_elbo(logits[:, :2], ids[:, :2], mu, log_var, 1.0).nll
    )


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_official_weight_is_a_beta(p):
    # Same gradient up to one factor: the two objectives are one.
    logits, ids, mu, log_var = random_case()
    inputs = (logits, mu, log_var)
    official = torch.autograd.grad(official_loss(logits, ids, mu, log_var, p).loss, inputs)
    beta = official_beta(p, 7, 5)
    ours = torch.autograd.grad(negative_elbo(logits, ids, mu, log_var, beta).loss, inputs)
    for a, b in zip(official, ours, strict=True):
        torch.testing.assert_close(a * 7 / (1 - p), b)


def test_paper_s_beta():
    assert official_beta(0.1, 72, 244) == pytest.approx(0.0328, abs=5e-5)
    with pytest.raises(ValueError, match="got 1"):
        official_beta(1.0, 72, 244)
