import copy
from functools import partial

import pytest
import torch
from liebn import (
    AffineInvariantGroup,
    DomainLieBatchNorm,
    LieBatchNorm,
    LogEuclideanGroup,
    MomentumSchedule,
    momenta,
    refitting,
)
from linalg_kernels.testing import random_spd
from torch import nn
from torch.testing import assert_close

close = partial(assert_close, rtol=1e-10, atol=1e-10)


def layer_of(group, shape, domains=(), **options):
    return DomainLieBatchNorm(group, shape, domains, dtype=torch.float64, **options)


def mixed(draw):
    return draw(9), torch.tensor([5, 7, 5, 5, 7, 7, 5, 7, 5])


def test_each_domain_as_if_alone(group, draw):
    X, domains = mixed(draw)
    layer = layer_of(group, X.shape[-1])
    with torch.no_grad():
        Y = layer(X, domains)
        for label in (5, 7):
            own = domains == label
            alone = LieBatchNorm(group, X.shape[-1], dtype=torch.float64)
            close(Y[own], alone(X[own]))
            again = layer_of(group, X.shape[-1])
            close(again(X[own], label), Y[own])
            slot = layer.domains.index(label)
            close(again.running_mean_test[0], layer.running_mean_test[slot])
            close(again.running_var_test[0], layer.running_var_test[slot])
    assert layer.domains == (5, 7)


def test_channels_and_time(group, draw):
    X, domains = draw(6, 2, 3), [0, 1, 0, 1, 1, 0]
    n = X.shape[-1]
    layer = layer_of(group, (2, 1, n, n))
    with torch.no_grad():
        Y = layer(X, domains)
        own = torch.tensor(domains) == 1
        assert_close(
            Y[own],
            LieBatchNorm(group, (2, 1, n, n), dtype=torch.float64)(X[own]),
        )
        layer.test_momentum = 1.0
        layer(X, domains)
        close(layer.eval()(X, domains), Y)
        close(layer(X[own], 1), Y[own])


def test_other_domains_are_not_touched(group, draw):
    X = draw(6)
    layer = layer_of(group, X.shape[-1], domains=("a", "b"))
    with torch.no_grad():
        layer(X, ["a", "b"] * 3)
        before = {name: buffer[0].clone() for name, buffer in layer.named_buffers()}
        layer(draw(4, seed=1), "b")
        layer(draw(4, seed=2), "unseen")
        layer.refit("also unseen", draw(4, seed=3))
        layer.refit("b", draw(4, seed=3))
    assert layer.domains == ("a", "b", "unseen", "also unseen")
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer[0], before[name])


def test_refit_gives_normalised_output(group, draw):
    X = draw(8)
    layer = layer_of(group, X.shape[-1]).eval()
    layer.refit("new", X)
    expected = LieBatchNorm(group, X.shape[-1], dtype=torch.float64)(X)
    close(layer(X, "new"), expected)


def test_one_matrix_leaves_the_variance(group, draw):
    X = draw(1)
    layer = layer_of(group, X.shape[-1], domains=("one",))
    with torch.no_grad():
        layer.running_var.fill_(0.5)
        layer.running_var_test.fill_(0.25)
        Y = layer(X, "one")
        E = torch.eye(X.shape[-1], dtype=X.dtype)
        close(Y[0], E)
        layer.refit("one", X)
    assert float(layer.running_var) == 0.5
    assert float(layer.running_var_test) == 0.25


def test_one_matrix_may_not_blow_up_gradients():
    X = random_spd(1, 3).requires_grad_()
    layer = layer_of(AffineInvariantGroup(), 3)
    layer(X, 0).sum().backward()
    assert X.grad is not None
    assert float(X.grad.norm()) < 10


def test_running_statistics_normalise_below_momentum_one():
    X, Z = random_spd(2, 6, 3, generator=torch.Generator().manual_seed(0))
    group = LogEuclideanGroup()
    layer = layer_of(group, 3, momentum=0.25)
    with torch.no_grad():
        layer(X, 0)
        mean, var = layer.running_mean[0].clone(), layer.running_var[0].clone()
        Y = layer(Z, 0)
        L = group.chart(Z)
        M = 0.75 * mean + 0.25 * L.mean(0)
        v = 0.75 * var + 0.25 * (L - M).square().sum((-2, -1)).mean()
    assert_close(layer.running_mean[0], M)
    assert_close(layer.running_var[0], v)
    assert_close(group.chart(Y), (L - M) / torch.sqrt(v + 1e-5))


def test_unknown_domain_in_eval_mode():
    layer = layer_of(LogEuclideanGroup(), 3, domains=(1, 2)).eval()
    with pytest.raises(ValueError, match=r"domain 3 has no statistics, only \[1, 2\]; refit"):
        layer(random_spd(4, 3), [1, 2, 3, 3])


@pytest.mark.bad_input
def test_labels_are_checked():
    layer = layer_of(LogEuclideanGroup(), 3, domains=(1,))
    with pytest.raises(ValueError, match="one label or 4, got 2"):
        layer(random_spd(4, 3), [1, 1])
    with pytest.raises(ValueError, match="domain 1 is there already"):
        layer.add_domain(1)
    with pytest.raises(TypeError, match="int or str, got float"):
        layer.add_domain(1.5)
    with pytest.raises(ValueError, match="X must have a batch dimension"):
        layer(torch.eye(3).double(), 1)


def test_state_dict_carries_domains(group, draw, tmp_path):
    X, domains = mixed(draw)
    layer = layer_of(group, X.shape[-1])
    with torch.no_grad():
        layer(X, domains)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = layer_of(group, X.shape[-1], domains=(1, 2, 3))
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert other.domains == (5, 7)
    assert torch.equal(other.eval()(X, domains), layer.eval()(X, domains))
    assert copy.deepcopy(layer).to(torch.float32).running_mean.dtype == torch.float32


def test_eval_notices_changes():
    X = random_spd(6, 3, generator=torch.Generator().manual_seed(0))
    layer = layer_of(AffineInvariantGroup(), 3, domains=(0,)).eval()
    with torch.no_grad():
        first = layer(X, 0)
        layer.refit(0, X)
        second = layer(X, 0)
        layer.refit(1, 2 * X)
        assert torch.equal(layer(X, 0), second)
        assert_close(layer(2 * X, 1), second)
    assert not torch.allclose(first, second)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = layer_of(AffineInvariantGroup(), 3)
        self.second = layer_of(LogEuclideanGroup(), 3)

    def forward(self, X, domain):
        return self.second(self.first(X, domain) + torch.eye(3, dtype=X.dtype), domain)


def test_refitting_adapts_layer_after_layer():
    X = random_spd(8, 3, generator=torch.Generator().manual_seed(0))
    network = Pair().eval()
    with torch.no_grad():
        with refitting(network):
            adapted = network(X, "new")
        assert_close(network(X, "new"), adapted)
        logs = LogEuclideanGroup().chart(adapted)
    assert_close(logs.mean(0), torch.zeros(3, 3).double(), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="no statistics"):
        network(X, "newer")


def test_momenta_follow_the_schedule():
    """η from 1 to fraction, test momentum from 0.15 to 1 - 0.85^fraction = 0.032."""
    train, test = zip(*(momenta(k, 40, 0.2) for k in range(1, 51)), strict=True)
    assert train[0] == 1
    assert test[0] == pytest.approx(0.15)
    assert train[39:] == pytest.approx([0.2] * 11)
    assert test[39:] == pytest.approx([1 - 0.85**0.2] * 11)
    assert sorted(train, reverse=True) == list(train)
    # The formula as it is printed, with ρ = fraction^(1/E).
    rho = 0.2 ** (1 / 40)
    assert train[9] == pytest.approx(1 - rho ** (40 * 30 / 39) + rho**40)
    with pytest.raises(ValueError, match="epochs >= 2"):
        momenta(1, 1, 0.5)


def test_schedule_sets_every_layer():
    network = Pair()
    schedule = MomentumSchedule(network, 10, 0.5)
    assert network.second.momentum == 1
    for _ in range(9):
        schedule.step()
    assert network.first.momentum == pytest.approx(0.5)
    assert network.first.test_momentum == pytest.approx(1 - 0.85**0.5)
