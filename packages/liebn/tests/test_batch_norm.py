import copy
import math
from functools import partial

import pytest
import torch
from liebn import (
    AffineInvariantGroup,
    LieBatchNorm,
    LogCholeskyGroup,
    LogEuclideanGroup,
    RotationGroup,
)
from liebn.group import compose, dist2, inverse
from liebn.pool import ChannelPool
from linalg_kernels import LinAlgError
from linalg_kernels.testing import random_spd
from torch import nn
from torch.testing import assert_close

close = partial(assert_close, rtol=1e-10, atol=1e-10)


def layer_of(group, shape, **options):
    return LieBatchNorm(group, shape, dtype=torch.float64, **options)


def spread(group, X, M):
    back = group.inverse_translation(M)
    return group.polar(back, X, constant=True).dist2().mean()


# --- what the layer promises ----------------------------------------------------------------


def test_mean_becomes_bias_and_variance_scale(group, draw):
    """Proposition 4.2 of the paper, with a converged mean."""
    X, B = draw(12), draw(1, seed=9)[0]
    layer = layer_of(group, X.shape[-1], karcher_steps=None)
    s = 0.3
    with torch.no_grad():
        layer.bias, layer.scale = B, torch.tensor(s, dtype=X.dtype)
        Y = group.chart(layer(X))
    pool = ChannelPool((0,))
    M = group.mean(Y, pool, None)
    close(M[0], group.chart(B))
    Z = group.chart(X)
    variance = spread(group, Z, group.mean(Z, pool, None))
    close(spread(group, Y, M), s**2 * variance / (variance + layer.eps))


def test_invariant_under_left_translation(group, name, draw):
    if name == "so3-right":
        pytest.skip("translates from the right")
    X, Q = draw(8), draw(1, seed=4)
    layer = layer_of(group, X.shape[-1], karcher_steps=None)
    moved = compose(group, group.chart(Q), group.chart(X))
    with torch.no_grad():
        assert_close(layer(group.chart_inverse(moved)), layer(X), rtol=1e-8, atol=1e-8)


def test_eval_repeats_training_at_momentum_one(group, draw):
    X = draw(8)
    layer = layer_of(group, X.shape[-1], momentum=1.0)
    trained = layer(X)
    close(layer.eval()(X), trained)


def test_identical_matrices_become_bias(group, draw):
    X = draw(1).expand(5, -1, -1).clone().requires_grad_()
    layer = layer_of(group, X.shape[-1])
    B = draw(1, seed=3)[0]
    with torch.no_grad():
        layer.bias = B
    Y = layer(X)
    Y.sum().backward()
    assert_close(Y.detach(), B.expand(Y.shape), rtol=1e-8, atol=1e-8)
    assert bool(X.grad.isfinite().all())


def test_order_of_the_batch_does_not_matter(group, draw):
    X = draw(8)
    layer = layer_of(group, X.shape[-1], karcher_steps=None)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(layer(X[order]), layer(X)[order], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("group", [LogEuclideanGroup(), LogCholeskyGroup(0.5)])
def test_negative_scale_inverts(group):
    X = random_spd(8, 3, generator=torch.Generator().manual_seed(0))
    layer = layer_of(group, 3, trivialized=False)
    with torch.no_grad():
        plain = layer(X)
        layer.scale.neg_()
        flipped = layer(X)
    assert_close(flipped, group.chart_inverse(inverse(group, group.chart(plain))))


def test_order_one_is_batch_norm_of_logarithms():
    x = torch.rand(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    ours, theirs = layer_of(LogEuclideanGroup(), 1), nn.BatchNorm1d(1, dtype=torch.float64)
    with torch.no_grad():
        ours.bias, ours.scale = torch.tensor([[2.0]]).double(), torch.tensor(0.5).double()
        theirs.bias.fill_(math.log(2))
        theirs.weight.fill_(0.5)
        assert_close(ours(x[..., None])[..., 0].log(), theirs(x.log()), rtol=1e-12, atol=1e-12)
        # Running variances: biased here, unbiased there, both from 1.
        assert theirs.running_var is not None
        biased = (theirs.running_var[0] - 0.9) * 19 / 20 + 0.9
        assert_close(ours.running_var, biased)
        assert_close(ours.running_mean[0], theirs.running_mean)


def test_small_theta_is_nearly_log_euclidean():
    X = random_spd(10, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = layer_of(LogEuclideanGroup(), 4)(X)
        near = layer_of(AffineInvariantGroup(theta=1e-3), 4)(X)
    assert 1e-7 < float((near - exact).norm() / exact.norm()) < 1e-3


def test_unit_does_not_matter():
    X = random_spd(10, 4, generator=torch.Generator().manual_seed(0))
    layer = layer_of(AffineInvariantGroup(), 4)
    with torch.no_grad():
        assert_close(layer(1e-12 * X), layer(X), rtol=1e-9, atol=1e-12)


def test_single_precision():
    X = random_spd(30, 8, generator=torch.Generator().manual_seed(0))
    for group in (AffineInvariantGroup(), LogEuclideanGroup(), LogCholeskyGroup()):
        with torch.no_grad():
            exact = layer_of(group, 8)(X)
            single = LieBatchNorm(group, 8)(X.float())
        assert_close(single.double(), exact, rtol=1e-3, atol=1e-3)


# --- shapes ---------------------------------------------------------------------------------


def test_channels_are_normalised_apart(group, draw):
    X = draw(6, 2)
    n = X.shape[-1]
    layer = layer_of(group, (2, n, n))
    with torch.no_grad():
        Y = layer(X)
        for c in range(2):
            close(Y[:, c], layer_of(group, n)(X[:, c]))
    assert layer.running_mean.shape == (2, n, n)
    assert layer.running_var.shape == (2,)


def test_time_behind_channels(group, draw):
    """Shape (C, 1, n, n): statistics over batch and time."""
    X = draw(4, 2, 3)
    n = X.shape[-1]
    layer = layer_of(group, (2, 1, n, n))
    with torch.no_grad():
        Y = layer(X)
        for c in range(2):
            flat = X[:, c].reshape(-1, n, n)
            close(Y[:, c].reshape(-1, n, n), layer_of(group, n)(flat))


@pytest.mark.bad_input
def test_shapes_are_checked():
    layer = layer_of(LogEuclideanGroup(), (2, 3, 3))
    with pytest.raises(ValueError, match=r"X must be \(\.\.\., 2, 3, 3\), got \(5, 4, 3, 3\)"):
        layer(torch.eye(3).double().expand(5, 4, 3, 3))
    with pytest.raises(ValueError, match=r"got \(3, 3\)"):
        layer(torch.eye(3).double())
    with pytest.raises(TypeError, match="float32"):
        layer(torch.eye(3).expand(5, 2, 3, 3))
    with pytest.raises(ValueError, match="shape must be n or"):
        layer_of(LogEuclideanGroup(), (2, 3))


def test_one_matrix_has_no_variance():
    layer = layer_of(LogEuclideanGroup(), (2, 3, 3))
    X = torch.eye(3).double().expand(1, 2, 3, 3)
    with pytest.raises(ValueError, match="training needs at least 2 matrices a channel"):
        layer(X)
    assert_close(layer.eval()(X), X)


@pytest.mark.parametrize(
    "group", [AffineInvariantGroup(), LogEuclideanGroup(), LogCholeskyGroup(), RotationGroup()]
)
@pytest.mark.parametrize("training", [True, False])
def test_errors_name_the_element(group, training):
    layer = layer_of(group, 3).train(training)
    X = torch.eye(3).double().repeat(4, 1, 1)
    X[2, 0, 0] = -1.0
    with pytest.raises((LinAlgError, ValueError), match=r"\[2\]"):
        layer(X)


@pytest.mark.parametrize(
    "options",
    [{"momentum": 1.5}, {"eps": -1.0}, {"karcher_steps": 0}],
    ids=lambda options: next(iter(options)),
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        layer_of(LogEuclideanGroup(), 3, **options)


# --- running statistics ---------------------------------------------------------------------


def test_running_statistics_start_at_the_neutral_element(group, draw):
    n = draw(1).shape[-1]
    layer = layer_of(group, n)
    E = torch.eye(n, dtype=torch.float64)
    assert_close(group.chart_inverse(layer.running_mean), E)
    X = draw(6)
    with torch.no_grad():
        layer(X)
    M = group.mean(group.chart(X), ChannelPool((0,)), 1)[0]
    assert_close(layer.running_mean, group.geodesic(group.chart(E), M, 0.1))
    assert_close(layer.running_var, 0.9 + 0.1 * spread(group, group.chart(X), M[None]))


def test_cumulative_momentum():
    """momentum=None: all batches alike, whatever was there before."""
    batches = [random_spd(6, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    layer = layer_of(LogEuclideanGroup(), 3, momentum=None)
    with torch.no_grad():
        for X in batches:
            layer(X)
    means = [LogEuclideanGroup().chart(X).mean(0) for X in batches]
    assert_close(layer.running_mean, sum(means) / 3)
    assert int(layer.num_batches_tracked) == 3


def test_state_dict_carries_everything(group, draw):
    X = draw(6)
    n = X.shape[-1]
    layer = layer_of(group, n)
    with torch.no_grad():
        layer.bias, layer.scale = draw(1, seed=2)[0], torch.tensor(0.8).double()
        layer(X)
    other = layer_of(group, n)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.eval()(X), layer.eval()(X))
    single = copy.deepcopy(layer).to(torch.float32)
    kinds = {t.dtype for t in single.state_dict().values() if t.is_floating_point()}
    assert kinds == {torch.float32}


def test_eval_keeps_what_the_input_does_not_change(group, draw, monkeypatch):
    X = draw(6)
    layer = layer_of(group, X.shape[-1])
    with torch.no_grad():
        layer(X)
        layer.eval()
        before = layer(X)
    made = []
    make = layer._normalisation
    monkeypatch.setattr(layer, "_normalisation", lambda: made.append(0) or make())
    with torch.no_grad():
        assert torch.equal(layer(X), before)
        assert not made
        # Whatever it depends on makes it anew: parameters, statistics, training in between.
        layer.scale = torch.tensor(0.5).double()
        after = layer(X)
        assert len(made) == 1
        assert not torch.allclose(after, before)
        layer.running_var.mul_(2)
        assert not torch.allclose(layer(X), after)
        assert len(made) == 2
        layer.train().eval()
        layer(X)
        assert len(made) == 3
    # Gradients of bias and scale need it anew as well.
    layer(X).sum().backward()
    assert len(made) == 4
    assert all(p.grad is not None for p in layer.parameters())


def test_what_is_kept_serves_autograd_and_moves_along():
    X = random_spd(6, 3, generator=torch.Generator().manual_seed(0))
    layer = layer_of(AffineInvariantGroup(), 3).eval().requires_grad_(False)
    with torch.inference_mode():
        first = layer(X)
    leaf = X.clone().requires_grad_()
    Y = layer(leaf)
    Y.sum().backward()
    assert torch.equal(Y.detach(), first)
    assert leaf.grad is not None
    assert layer.to(torch.float32)(X.float()).dtype == torch.float32


# --- parameters -----------------------------------------------------------------------------


def test_parameters_are_assigned_as_matrices(group, draw):
    B = draw(2, seed=1)
    n = B.shape[-1]
    layer = layer_of(group, (2, n, n))
    with torch.no_grad():
        layer.bias, layer.scale = B, torch.tensor([0.5, 2.0]).double()
    close(layer.bias.detach(), B)
    assert_close(layer.scale.detach(), torch.tensor([0.5, 2.0]).double())
    with pytest.raises(ValueError, match="scale must be > 0, got -1"):
        layer.scale = torch.tensor([0.5, -1.0]).double()


def test_any_optimiser_finds_the_bias():
    """Plain gradient steps on the trivialised bias reach a given output mean."""
    group = AffineInvariantGroup()
    X = random_spd(10, 3, generator=torch.Generator().manual_seed(0))
    target = random_spd(1, 3, cond=3.0, generator=torch.Generator().manual_seed(1))[0]
    layer = layer_of(group, 3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        M = LogEuclideanGroup().chart(layer(X)).mean(0)
        loss = (M - LogEuclideanGroup().chart(target)).square().sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-6
    assert float(torch.linalg.eigvalsh(layer.bias.detach()).min()) > 0


def test_riemannian_optimiser():
    geoopt = pytest.importorskip("geoopt")
    from spd_metrics import AffineInvariant
    from spd_metrics.geoopt_adapter import GeooptManifold

    layer = layer_of(AffineInvariantGroup(), 3, trivialized=False)
    manifold = GeooptManifold(AffineInvariant())
    layer.bias = geoopt.ManifoldParameter(layer.bias.detach(), manifold=manifold)
    optimizer = geoopt.optim.RiemannianSGD(layer.parameters(), lr=0.2)
    X = random_spd(10, 3, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (layer(X) - 2 * torch.eye(3).double()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert float(torch.linalg.eigvalsh(layer.bias.detach()).min()) > 0


def test_dispersion_is_measured_by_the_group(group, draw):
    X = group.chart(draw(5))
    back = group.translation(group.neutral(X.shape[-1]).to(X.dtype))
    constant = group.polar(back, X, constant=True).dist2()
    assert_close(constant, dist2(group, X.clone().requires_grad_()).detach())
