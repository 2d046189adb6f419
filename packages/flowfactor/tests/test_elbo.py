"""The bound: every term by itself, and what must hold between them."""

import pytest
import torch
from flowfactor import Config, Objective, sequence_bound
from flowfactor.posterior import gaussian_log_prob, sample_gaussian


def model(frames=0, **options):
    torch.manual_seed(0)
    config = Config((3, 4, 4), 2, 4, hidden=(8,), potential_hidden=6, frames=frames, **options)
    return config.build().double()


def batch(rows=5, T=3):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(rows, T + 1, 3, 4, 4, dtype=torch.float64, generator=g)
    noise = torch.randn(rows, 4, dtype=torch.float64, generator=g)
    return x, torch.arange(rows) % 2, noise


def close(got, want, rtol=1e-10, atol=1e-10):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def test_every_term():
    net, (x, k, noise) = model(), batch()
    bound = sequence_bound(net, x, k, Objective(weight=2.0), noise=noise)
    mean, log_var = net.encode(x[:, 0])
    z0 = sample_gaussian(mean, log_var, noise)
    path = net.flow.transport(z0, k, 3)
    for t in range(4):
        p = net.decode(path.z[t])
        entropy = torch.nn.functional.binary_cross_entropy(p, x[:, t], reduction="sum") / 5
        close(bound.log_likelihood[t], -entropy)
    log_q = gaussian_log_prob(z0, mean, log_var)
    r = [log_q - net.prior.log_prob(z0, 0.0, k)]
    for t in range(1, 4):
        log_q = log_q - path.logabsdet[t - 1]
        r.append(log_q - net.prior.log_prob(path.z[t], float(t), k))
    r = torch.stack(r).mean(-1)
    close(bound.kl_steps, r.diff())
    close(bound.elbo, bound.log_likelihood.sum() - bound.kl_0 - bound.kl_steps.sum())
    square = torch.stack(
        [net.flow.hamilton_jacobi_square(path.z[t], float(t + 1), k) for t in range(3)]
    )
    close(bound.constraint, square.mean(-1))
    close(bound.initial, net.flow.velocity(z0, 0.0, k).square().sum(-1).mean())
    close(bound.transport, path.z.diff(dim=0).square().sum(-1).mean(-1) / 2)
    close(bound.loss, -bound.elbo + 2 * (bound.constraint.sum() + bound.initial))
    assert bound.kl_flow == 0


def test_reductions_and_weights():
    net, (x, k, noise) = model(), batch()
    plain = sequence_bound(net, x, k, Objective(), noise=noise)
    mean = sequence_bound(net, x, k, Objective(reduction="mean", transport=3.0), noise=noise)
    close(mean.elbo, plain.elbo)
    close(
        mean.loss,
        -plain.elbo + plain.constraint.mean() + plain.initial + 3 * plain.transport.mean(),
    )
    heavy = sequence_bound(net, x, k, Objective(beta=4.0), noise=noise)
    close(plain.elbo - heavy.elbo, 3 * (plain.kl_0 + plain.kl_steps.sum()))
    wave = sequence_bound(net, x, k, Objective(constraint="wave"), noise=noise)
    assert not torch.allclose(wave.constraint, plain.constraint)


def test_ways_to_count_the_divergence():
    net, (x, k, noise) = model(), batch()
    bounds = {
        kl: sequence_bound(net, x, k, Objective(kl=kl), noise=noise)
        for kl in ("telescoped", "marginals", "shared")
    }
    steps = bounds["telescoped"].kl_steps
    mean, log_var = net.encode(x[:, 0])
    z0 = sample_gaussian(mean, log_var, noise)
    r0 = (gaussian_log_prob(z0, mean, log_var) - net.prior.log_prob(z0, 0.0, k)).mean()
    close(bounds["marginals"].kl_steps, r0 + steps.cumsum(0))
    assert not bounds["shared"].kl_steps.any()
    close(bounds["shared"].log_likelihood, bounds["telescoped"].log_likelihood)


def test_one_map_for_prior_and_posterior_keeps_the_divergence():
    """r_t is the same for all t when log p moves as log q does: the change of variables."""
    net, (x, k, noise) = model(), batch()

    class Moved(torch.nn.Module):
        def path_log_prob(self, path, k):
            logabsdet = net.flow.transport(path[0], k, len(path) - 1).logabsdet
            start = net.prior.log_prob(path[0], 0.0, k)
            return torch.cat((start[None], start - logabsdet.cumsum(0)))

    heat = sequence_bound(net, x, k, noise=noise)
    assert heat.kl_steps.abs().max() > 1e-4
    shared = sequence_bound(net, x, k, Objective(kl="shared"), noise=noise)
    other = model()
    other.prior = Moved()
    moved = sequence_bound(other, x, k, noise=noise)
    assert moved.kl_steps.abs().max() < 1e-12
    close(moved.elbo, shared.elbo)


def test_the_bound_does_not_depend_on_repetition():
    net, (x, k, noise) = model(), batch()
    once = sequence_bound(net, x, k, noise=noise)
    often = sequence_bound(net, x.repeat(3, 1, 1, 1, 1), k.repeat(3), noise=noise.repeat(3, 1))
    for a, b in zip(once, often, strict=True):
        close(a, b)


def test_inferred_flows():
    net, (x, k, noise) = model(frames=4), batch()
    u = torch.rand(5, 2, dtype=torch.float64)
    soft = sequence_bound(net, x, None, noise=noise, temperature=0.7, uniform=u)
    logits = net.flow_logits(x)
    from flowfactor import gumbel_softmax

    y = gumbel_softmax(logits, 0.7, uniform=u)
    known = sequence_bound(net, x, y, noise=noise)
    q = logits.softmax(-1)
    kl = (q * (q * 2).log()).sum(-1).mean()
    close(soft.kl_flow, kl)
    close(soft.elbo, known.elbo - kl)
    close(soft.imbalance, (q.mean(0) * (2 * q.mean(0)).log()).sum())
    balanced = sequence_bound(
        net, x, None, Objective(balance=10.0), noise=noise, temperature=0.7, uniform=u
    )
    close(balanced.loss, soft.loss + 10 * soft.imbalance)
    # Certain of one flow each, it is the supervised bound less log K.
    y = torch.nn.functional.one_hot(k, 2).double()
    net.classifier.forward = lambda _frames: 1e4 * y
    certain = sequence_bound(net, x, None, noise=noise, temperature=0.1, uniform=u)
    labelled = sequence_bound(net, x, k, noise=noise)
    close(certain.elbo, labelled.elbo - torch.tensor(2.0).double().log())
    close(certain.constraint, labelled.constraint)


def test_a_subset_of_frames_is_unbiased():
    net, (x, k, noise) = model(), batch()
    whole = sequence_bound(net, x, k, noise=noise)
    found = []
    for seed in range(60):
        torch.manual_seed(seed)
        part = sequence_bound(net, x, k, Objective(subset=1), noise=noise)
        assert int(part.log_likelihood.isnan().sum()) == 2
        found.append(part.elbo)
    values = torch.stack(found)
    assert values.unique().numel() == 3
    # Each of three frames stands for all: the mean of the three values is the whole.
    close(values.unique().mean(), whole.elbo)


def test_later_frames_encoded_too():
    net, (x, k, noise) = model(), batch()
    plain = sequence_bound(net, x, k, noise=noise)
    torch.manual_seed(0)
    more = sequence_bound(net, x, k, Objective(encoded=0.5), noise=noise)
    close(more.loss, plain.loss - 0.5 * more.encoded)
    torch.manual_seed(0)
    mean, log_var = net.encode(x[:, 1:])
    z = sample_gaussian(mean, log_var)
    each = net.observation.log_prob(net.raw(z), x[:, 1:])
    kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)
    close(more.encoded, (each - kl).sum(1).mean())


def test_single_images_are_a_plain_vae():
    net, (x, _, noise) = model(), batch()
    bound = sequence_bound(net, x[:, :1], 0, noise=noise)
    close(bound.loss, -(bound.log_likelihood.sum() - bound.kl_0))


@pytest.mark.bad_input
def test_bad_input():
    net, (x, k, noise) = model(), batch()
    with pytest.raises(ValueError, match="has no classifier of the flow: give k"):
        sequence_bound(net, x, None)
    with pytest.raises(ValueError, match=r"frames must be \(batch, 4, ...\), got \(5, 3,"):
        sequence_bound(model(frames=4), x[:, :3], None)
    for name in ("kl", "constraint", "reduction"):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            Objective(**{name: "other"})  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="subset must be at least 1, got 0"):
        sequence_bound(net, x, k, Objective(subset=0), noise=noise)
