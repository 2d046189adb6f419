"""Errors, bounds, scores and costs where their values are known."""

import math

import pytest
import torch
from flowfactor import (
    Config,
    FlowFactorVAE,
    Gaussian,
    LatentFlow,
    TransformedImages,
    Translation,
    commutator,
    compare,
    compare_schedule,
    dci,
    displacements,
    equivariance_error,
    log_likelihood,
    mutual_information_gap,
    path_cost,
    squared_wasserstein,
    transport_excess,
    vp_score,
)
from flowfactor.baselines import LinearPotential, with_directions
from torch import nn


def close(got, want, rtol=1e-10, atol=1e-12):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def straight(*directions):
    """Flows that add a direction at each step."""
    potentials = [LinearPotential(len(d)).double() for d in directions]
    for potential, direction in zip(potentials, directions, strict=True):
        potential.direction.data = torch.tensor(direction, dtype=torch.float64)
    forces = [LinearPotential(len(d)) for d in directions]
    return LatentFlow(len(directions[0]), len(directions), potentials=potentials, forces=forces)


class Expand(nn.Module):
    """z to an image whose pixels all are z."""

    def forward(self, z):
        return z[..., None, None].expand(*z.shape, 2, 2)


def test_equivariance_error():
    flow = straight([0.1, 0.0, 0.0], [0.0, 0.2, 0.0])
    z0 = torch.zeros(2, 3, dtype=torch.float64)
    frames = torch.zeros(2, 5, 3, 2, 2, dtype=torch.float64)
    # After t steps one channel of 4 pixels is 0.1 t too high.
    error = equivariance_error(Expand(), flow, z0, frames)
    close(error.per_step, 0.4 * torch.arange(1, 5, dtype=torch.float64))
    assert float(error) == error.total == pytest.approx(4.0)
    assert error.per_pixel == pytest.approx(4.0 / (4 * 12))
    official = equivariance_error(Expand(), flow, z0, frames, steps="official")
    assert official.total == pytest.approx(2.4)
    assert official.per_pixel == pytest.approx(2.4 / (3 * 12))
    other = equivariance_error(Expand(), flow, z0, frames, k=1)
    assert other.total == pytest.approx(8.0)
    mixed = equivariance_error(Expand(), flow, z0, frames, k=torch.tensor([0, 1]))
    assert mixed.total == pytest.approx(6.0)
    true = frames.clone()
    true[:, :, 0] = 0.1 * torch.arange(5, dtype=torch.float64)[:, None, None]
    assert equivariance_error(Expand(), flow, z0, true).total < 1e-12
    often = equivariance_error(Expand(), flow, z0.repeat(3, 1), frames.repeat(3, 1, 1, 1, 1), k=1)
    assert often.total == pytest.approx(other.total)
    with pytest.raises(ValueError, match="frames must hold x_0 and two more"):
        equivariance_error(Expand(), flow, z0, frames[:, :2], steps="official")


def moving_model():
    """Latents are the column sums of an image; a flow that shifts them knows translation."""

    class Encoder(nn.Module):
        def forward(self, x):
            return x[:, 0, 0], torch.full_like(x[:, 0, 0], -50.0)

    class Decoder(nn.Module):
        def forward(self, z):
            return z[:, None, None, :].expand(-1, 1, 4, -1)

    class Shift(nn.Module):
        """u = z₀ z₁: ∇u exchanges two coordinates."""

        def forward(self, z, t):
            return 0.0 * t + z[..., 0] * (z[..., 1] - z[..., 0])

    flow = LatentFlow(4, 1, potentials=[Shift()], forces=[Shift()])
    model = FlowFactorVAE(Encoder(), Decoder(), flow, observation=Gaussian())
    model.register_parameter("nothing", nn.Parameter(torch.zeros(())))
    return model


def test_comparison_with_answers_that_do_nothing():
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    images[..., 0] = 255
    source = TransformedImages(images, [Translation()], steps=1)
    found = compare(moving_model(), source, 0)
    # The column moves from 0 to 1; repeating frame 0 is wrong in two columns of four.
    assert found.repeat.total == pytest.approx(8.0, abs=1e-4)
    assert found.reencode.total == pytest.approx(0.0, abs=1e-4)
    # z = (1, 0, 0, 0) gets ∇u = (-2, 1, 0, 0): columns -1, 1.
    assert found.flow.total == pytest.approx(4.0, abs=1e-4)
    assert found.reconstruction == pytest.approx(0.0, abs=1e-4)
    again = compare_schedule(moving_model(), source, [0], restart=True)
    assert again.flow.total == pytest.approx(found.flow.total)
    part = compare(moving_model(), source, 0, rows=torch.tensor([2, 2, 1]))
    assert part.flow.total == pytest.approx(found.flow.total)


def test_schedules_of_flows():
    torch.manual_seed(0)
    model = Config((3, 8, 8), 2, 4, hidden=(8,), potential_hidden=6).build().eval()
    with torch.no_grad():
        for u in model.flow.potentials:
            u.get_parameter("head.weight").mul_(20)
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    source = TransformedImages(images, steps=2)
    rows = torch.arange(5)
    frames = source.composed(rows, [1, 0])
    with torch.no_grad():
        z0 = model.encode(frames[:, 0])[0]
        first = model.flow.rollout(z0, 1, 1)
        for restart, start in ((True, 0), (False, 1)):
            found = compare_schedule(model, source, [1, 0], restart=restart)
            z2 = model.flow.rollout(first[1], 0, 1, start=start)[1]
            error = (model.decode(z2) - frames[:, 2]).abs().sum((-1, -2, -3)).mean()
            assert found.flow.per_step[1].item() == pytest.approx(error.item(), rel=1e-4)


def test_commutator():
    z = torch.randn(6, 2, dtype=torch.float64)
    assert commutator(straight([1.0, 0.0], [0.3, 2.0]), z, 0, 1, 3).max() < 1e-12
    rest = straight([0.0, 0.0], [0.0, 0.0])
    assert not commutator(rest, z, 0, 1, 3).any()

    class Quadratic(nn.Module):
        def __init__(self, A):
            super().__init__()
            self.A = torch.tensor(A, dtype=torch.float64)

        def forward(self, z, t):
            return ((z @ self.A) * z).sum(-1) / 2 + 0 * t

    A, B = [[0.5, 0.0], [0.0, -0.5]], [[0.0, 0.5], [0.5, 0.0]]
    flow = LatentFlow(
        2, 2, potentials=[Quadratic(A), Quadratic(B)], forces=[nn.Identity(), nn.Identity()]
    )
    eye = torch.eye(2, dtype=torch.float64)
    a, b = eye + torch.tensor(A).double(), eye + torch.tensor(B).double()
    ab, ba = z @ b @ a, z @ a @ b
    length = ((ab - z).norm(dim=-1) + (ba - z).norm(dim=-1)) / 2
    close(commutator(flow, z, 0, 1, 1), (ab - ba).norm(dim=-1) / length)


def linear_gaussian(exact):
    """x = W z + noise, with the exact posterior as the encoder, or a wider one."""
    g = torch.Generator().manual_seed(0)
    W = torch.randn(4, 2, dtype=torch.float64, generator=g)
    # Orthogonal columns make the posterior diagonal.
    W = torch.linalg.qr(W)[0] * torch.tensor([1.5, 0.7], dtype=torch.float64)
    variance = 1 / (1 + W.square().sum(0) / 0.25)

    class Encoder(nn.Module):
        def forward(self, x):
            mean = (x.flatten(1) @ W) / 0.25 * variance
            spread = variance if exact else 4 * variance
            return mean, spread.log().expand_as(mean)

    class Decoder(nn.Module):
        def forward(self, z):
            return (z @ W.T).reshape(-1, 1, 2, 2)

    flow = straight([0.5, 0.0], [0.0, 0.5])
    model = FlowFactorVAE(Encoder(), Decoder(), flow, observation=Gaussian(0.5))
    return model, W


def test_likelihood_of_a_linear_gaussian():
    model, W = linear_gaussian(exact=True)
    x = torch.randn(5, 1, 1, 2, 2, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(4, dtype=torch.float64), W @ W.T + 0.25 * torch.eye(4, dtype=torch.float64)
    )
    want = marginal.log_prob(x.flatten(1))
    for samples in (1, 7, 25):
        close(log_likelihood(model, x, samples=samples), want, rtol=1e-10)
    # With a wider posterior the bound is below and rises towards it.
    wide, _ = linear_gaussian(exact=False)
    torch.manual_seed(0)
    many = x.repeat(400, 1, 1, 1, 1)
    bounds = [log_likelihood(wide, many, samples=s).reshape(400, 5).mean(0) for s in (1, 10, 200)]
    assert (bounds[0] < bounds[1]).all()
    assert (bounds[1] < bounds[2]).all()
    assert (bounds[2] <= want + 0.01).all()
    assert (bounds[2] > want - 0.02).all()


def test_likelihood_of_sequences():
    """One step adds 0.5 to z₁: the marginal of (x_0, x_1) is Gaussian too."""
    model, W = linear_gaussian(exact=False)
    x = torch.randn(3, 2, 1, 2, 2, dtype=torch.float64)
    both = torch.cat((W, W))
    shift = torch.cat((torch.zeros(4).double(), W @ torch.tensor([0.5, 0.0]).double()))
    marginal = torch.distributions.MultivariateNormal(
        shift, both @ both.T + 0.25 * torch.eye(8, dtype=torch.float64)
    )
    torch.manual_seed(0)
    found = log_likelihood(model, x, 0, samples=20000, chunk=5000)
    close(found, marginal.log_prob(x.flatten(1)), rtol=0, atol=0.05)
    noise = torch.randn(6, 3, 2, dtype=torch.float64)
    row = log_likelihood(model, x, torch.zeros(3).long(), samples=6, noise=noise, chunk=4)
    close(row, log_likelihood(model, x, 0, samples=6, noise=noise))
    with pytest.raises(ValueError, match=r"noise must be \(5, 3, 2\), got \(6, 3, 2\)"):
        log_likelihood(model, x, 0, samples=5, noise=noise)
    with pytest.raises(ValueError, match="k must be given for sequences"):
        log_likelihood(model, x)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        log_likelihood(model, x, 0, samples=0)


def test_no_bound_is_above_the_ceiling_of_a_unit_gaussian():
    torch.manual_seed(0)
    model = Config((3, 28, 28), 2, 4, hidden=(8,)).build()
    x = torch.rand(4, 3, 3, 28, 28)
    for frames, k in ((x[:, :1], None), (x, 1)):
        bound = log_likelihood(model, frames, k, samples=50, scale=1.0)
        ceiling = -0.5 * frames.shape[1] * 2352 * math.log(2 * math.pi)
        assert (bound < ceiling).all()
        assert (bound > ceiling - 1000 * frames.shape[1]).all()


def test_optimal_transport():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(60, 2, dtype=torch.float64, generator=g)
    flow = straight([0.3, 0.4], [0.0, 0.1])
    cost, end = path_cost(flow, z, 0, 4)
    # Four steps of 0.5: W₂² = 2², which a straight path attains.
    assert cost == pytest.approx(4.0)
    assert squared_wasserstein(z, end) == pytest.approx(4.0)
    assert transport_excess(flow, z, 0, 4) == pytest.approx(1.0)
    assert squared_wasserstein(z, z[torch.randperm(60)]) < 1e-12

    class Back(nn.Module):
        """Forth and back: u = ± z₁."""

        def forward(self, z, t):
            return torch.cos(torch.pi * t) * z[..., 0]

    there = LatentFlow(2, 1, potentials=[Back()], forces=[Back()])
    assert transport_excess(there, z, 0, 3) > 5


def test_scores_of_displacements():
    g = torch.Generator().manual_seed(0)
    factors = torch.randint(5, (2000, 2), generator=g)
    noise = 0.01 * torch.randn(2000, 2, generator=g)
    aligned = torch.cat((factors + noise, torch.randn(2000, 1, generator=g)), 1)
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / 2**0.5
    mixed = torch.cat(((factors + noise) @ turn, torch.randn(2000, 1, generator=g)), 1)
    assert mutual_information_gap(aligned, factors) > 0.95
    assert mutual_information_gap(mixed, factors) < 0.1
    good, bad = dci(aligned, factors), dci(mixed, factors)
    assert good.disentanglement > 0.9
    assert good.completeness > 0.9
    assert good.informativeness > 0.99
    assert bad.disentanglement < 0.3
    assert mutual_information_gap(aligned, 0 * factors) == 0
    one = mutual_information_gap(aligned[:, :1], factors[:, :1])
    assert one == pytest.approx(1.0, abs=0.05)


def test_displacements_and_predictability():
    torch.manual_seed(0)
    model = Config((3, 8, 8), 3, 4, hidden=(8,)).build().eval()
    images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8)
    source = TransformedImages(images, steps=3)
    codes, amounts = displacements(model, source, 50, seed=0)
    assert codes.shape == (50, 4)
    assert ((amounts > 0).sum(1) == 1).all()
    assert set(amounts.unique().tolist()) == {0, 1, 2, 3}
    again = displacements(model, source, 50, seed=0)
    assert torch.equal(codes, again[0])
    # Flows that go in different directions are told apart, flows that rest are not.
    far = with_directions(model, 3 * torch.eye(4)[:3])
    assert vp_score(far, source, count=200) > 0.95
    rest = with_directions(model, torch.zeros(3, 4))
    assert 0.2 < vp_score(rest, source, count=200) < 0.47


@pytest.mark.bad_input
def test_clouds_of_different_sizes():
    z = torch.zeros(60, 2)
    with pytest.raises(ValueError, match=r"b must be \(60, 2\), as a is, got \(30, 2\)"):
        squared_wasserstein(z, z[:30])
