"""Layers: values, gradients, constraints, and exchange with spd-learn."""

import math

import pytest
import spd_learn.models
import spd_learn.modules
import torch
from linalg_kernels.errors import LinAlgError
from linalg_kernels.testing import check_grad, random_spd
from spd_metrics import (
    AffineInvariant,
    BiMap,
    CholeskyExp,
    CovPool,
    LogCholesky,
    LogEig,
    LogEuclidean,
    PowerCholesky,
    ReEig,
    RiemannianResidual,
    SPDNet,
    SPDParameter,
    SpectralField,
    SymmetricExp,
)
from torch import nn
from torch.nn.utils import parametrize


def draw(*shape, cond=50.0, seed=0):
    return random_spd(*shape, cond=cond, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_bimap_is_a_congruence_by_orthonormal_rows():
    layer = BiMap(6, 4, dtype=torch.float64)
    P = draw(3, 2, 6)
    W = layer.weight
    torch.testing.assert_close(W @ W.mT, torch.eye(4, dtype=W.dtype))
    torch.testing.assert_close(layer(P), W @ P @ W.mT)
    # Interlacing: no new eigenvalue leaves the range of the old ones.
    w, before = torch.linalg.eigvalsh(layer(P)), torch.linalg.eigvalsh(P)
    assert bool((w >= before[..., :1] - 1e-9).all())
    assert bool((w <= before[..., -1:] + 1e-9).all())


def test_bimap_stays_orthonormal_while_it_learns():
    layer = BiMap(6, 3, channels=2, dtype=torch.float64)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    P = draw(4, 2, 6)
    before = layer.weight.detach().clone()
    for _ in range(20):
        optimiser.zero_grad()
        torch.linalg.matrix_norm(layer(P)).sum().backward()
        optimiser.step()
    W = layer.weight
    assert W.shape == (2, 3, 6)
    torch.testing.assert_close(W @ W.mT, torch.eye(3, dtype=W.dtype).expand(2, 3, 3))
    assert bool((W - before).abs().max() > 0.1)


def test_bimap_weight_can_be_set():
    layer = BiMap(4, 2, dtype=torch.float64)
    Q, _ = torch.linalg.qr(torch.randn(4, 2, dtype=torch.float64))
    with torch.no_grad():
        layer.weight = Q.mT
    torch.testing.assert_close(layer.weight, Q.mT)


def test_bimap_names_wrong_shapes():
    with pytest.raises(ValueError, match="n_out must be from 1 to n_in=4, got 5"):
        BiMap(4, 5)
    with pytest.raises(ValueError, match=r"P must be \(..., 4, 4\), got \(2, 3, 3\)"):
        BiMap(4, 2)(torch.eye(3).repeat(2, 1, 1))
    with pytest.raises(ValueError, match=r"P must be \(..., 2, 4, 4\), got \(5, 4, 4\)"):
        BiMap(4, 2, channels=2)(torch.eye(4).repeat(5, 1, 1))


def test_reeig_rectifies():
    w = torch.tensor([1e-6, 1e-3, 2.0], dtype=torch.float64)
    P = torch.diag(w)
    torch.testing.assert_close(ReEig(1e-4)(P), torch.diag(w.clamp(min=1e-4)))
    mean = w.mean()
    torch.testing.assert_close(ReEig(1e-2, relative=True)(P), torch.diag(w.clamp(min=1e-2 * mean)))
    c = 1e-12
    torch.testing.assert_close(ReEig(1e-2, relative=True)(c * P) / c, ReEig(1e-2, relative=True)(P))
    with pytest.raises(ValueError, match="threshold must be > 0, got 0"):
        ReEig(0.0)


@pytest.mark.parametrize("output", ["vech", "full", "matrix"])
def test_logeig(output):
    P = draw(3, 4)
    w, V = torch.linalg.eigh(P)
    X = (V * w.log()[:, None, :]) @ V.mT
    got = LogEig(output)(P)
    assert got.shape == {"vech": (3, 10), "full": (3, 16), "matrix": (3, 4, 4)}[output]
    if output != "vech":
        torch.testing.assert_close(got.reshape(3, 4, 4), X)
    norms = X.flatten(1).norm(dim=1)
    torch.testing.assert_close(got.flatten(1).norm(dim=1), norms, rtol=1e-12, atol=0)
    with pytest.raises(LinAlgError, match=r"P\[2\]"):
        LogEig(output)(torch.cat([P[:2], -P[2:]]))


@pytest.mark.bad_input
def test_logeig_names_its_outputs():
    with pytest.raises(ValueError, match="output must be 'vech', 'full' or 'matrix', got 'upper'"):
        LogEig("upper")  # ty: ignore[invalid-argument-type]


def test_covpool():
    X = torch.randn(5, 3, 40, dtype=torch.float64)
    C = CovPool(0.0)(X)
    torch.testing.assert_close(C[2], torch.cov(X[2], correction=0))
    torch.testing.assert_close(CovPool(0.0, ddof=1)(X)[2], torch.cov(X[2]))
    trace = C[2].trace() * torch.eye(3, dtype=X.dtype) / 3
    torch.testing.assert_close(CovPool(0.3)(X)[2], 0.7 * C[2] + 0.3 * trace)
    singular = torch.randn(2, 8, 4, dtype=torch.float64)
    assert bool((torch.linalg.eigvalsh(CovPool(1e-3)(singular)) > 0).all())


@pytest.mark.parametrize("kind", [SymmetricExp, CholeskyExp])
def test_spd_parameter(kind):
    P = SPDParameter(3, (2,), kind(), dtype=torch.float64)
    torch.testing.assert_close(P(), torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    target = draw(2, 3)
    optimiser = torch.optim.Adam(P.parameters(), lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        (AffineInvariant().dist(P(), target) ** 2).sum().backward()
        optimiser.step()
    assert bool((AffineInvariant().dist(P(), target) < 0.05).all())
    with torch.no_grad():
        P.weight = target
    torch.testing.assert_close(P(), target)
    state = P.state_dict()
    other = SPDParameter(3, (2,), kind(), dtype=torch.float64)
    other.load_state_dict(state)
    torch.testing.assert_close(other(), target)
    with pytest.raises(LinAlgError, match=r"P\[0\]|P\[1\]"):
        P.weight = -target


def test_parametrization_of_any_module():
    layer = nn.Bilinear(3, 3, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(draw(1, 3))
    parametrize.register_parametrization(layer, "weight", SymmetricExp())
    assert bool((torch.linalg.eigvalsh(layer.weight) > 0).all())


@pytest.mark.parametrize(
    "metric",
    [AffineInvariant(), LogEuclidean(), LogCholesky(), PowerCholesky(0.5, "clamp")],
    ids=repr,
)
def test_residual_starts_as_the_identity_and_learns(metric):
    block = RiemannianResidual(metric, SpectralField(3, 8, dtype=torch.float64))
    P = draw(4, 3)
    torch.testing.assert_close(block(P), P)
    target = 2 * P
    optimiser = torch.optim.Adam(block.parameters(), lr=0.03)
    first = None
    for _ in range(40):
        optimiser.zero_grad()
        loss = (LogEuclidean().dist(block(P), target) ** 2).mean()
        first = loss.item() if first is None else first
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.6 * first


def test_a_spectral_field_acts_on_logarithms():
    field = SpectralField(3, dtype=torch.float64)
    field.f = nn.Sequential(nn.Identity())
    P = draw(2, 3)
    want = torch.diag_embed(torch.linalg.eigvalsh(P).log())
    torch.testing.assert_close(field(P), want)
    # The unit is an offset of what the network sees.
    identity = torch.eye(3, dtype=P.dtype)
    torch.testing.assert_close(field(1e-12 * P), want - 12 * math.log(10) * identity)


@pytest.mark.parametrize("relative", [False, True])
def test_spdnet_rectifies_at_its_threshold(relative):
    net = SPDNet([4, 3, 2], classes=2, threshold=5.0, relative=relative, dtype=torch.float64)
    P = draw(2, 4, cond=10.0)
    first = net[0](P)
    torch.testing.assert_close(net[1](first), ReEig(5.0, relative=relative)(first))
    second = net[2](net[1](first))
    torch.testing.assert_close(net[3](second), ReEig(5.0, relative=relative)(second))
    assert bool((net[1](first) - first).abs().max() > 0.1)


def test_spdnet_learns():
    P = torch.cat([draw(20, 6, cond=10.0), draw(20, 6, cond=1e3, seed=1)])
    y = torch.arange(40) // 20
    net = SPDNet([6, 4, 3], classes=2, dtype=torch.float64)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(P), y)
        loss.backward()
        optimiser.step()
    assert float((net(P).argmax(1) == y).double().mean()) > 0.9
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)


def test_gradients_through_a_network():
    layers = nn.Sequential(BiMap(4, 3, dtype=torch.float64), ReEig(0.5), LogEig())
    P = draw(2, 4)
    check_grad(lambda A: layers((A + A.mT) / 2), (P,))


# --- spd-learn ------------------------------------------------------------------------------


def test_same_values_as_spd_learn():
    P = draw(5, 6, cond=20.0)
    theirs = spd_learn.modules.BiMap(6, 4, dtype=torch.float64)
    ours = BiMap(6, 4, dtype=torch.float64)
    with torch.no_grad():
        ours.weight = theirs.weight[0].mT
    torch.testing.assert_close(ours(P), theirs(P))
    reeig = spd_learn.modules.ReEig(threshold=2.0, dtype=torch.float64)
    torch.testing.assert_close(ReEig(2.0)(P), reeig(P))
    logeig = spd_learn.modules.LogEig(upper=False, dtype=torch.float64)
    torch.testing.assert_close(LogEig("full")(P), logeig(P))


def test_the_same_logits_with_our_layers_in_spd_learns_network():
    net = spd_learn.models.SPDNet(input_type="cov", n_chans=6, n_outputs=3, subspacedim=4)
    P = draw(5, 6).float()
    want = net(P).detach()
    bimap = BiMap(6, 4)
    with torch.no_grad():
        bimap.weight = net.bimap.weight[0].mT
    for name, layer in {"bimap": bimap, "reeig": ReEig(1e-4)}.items():
        setattr(net, name, layer)
    torch.testing.assert_close(net(P), want, rtol=1e-4, atol=1e-4)


def test_our_layers_in_spd_learns_networks():
    net = spd_learn.models.SPDNet(input_type="cov", n_chans=6, n_outputs=3, subspacedim=4)
    for name, layer in {"bimap": BiMap(6, 4), "reeig": ReEig(1e-4), "logeig": LogEig()}.items():
        setattr(net, name, layer)
    P = draw(5, 6).float()
    net(P).sum().backward()
    assert net(P).shape == (5, 3)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    tsm = spd_learn.models.TSMNet(n_chans=4, n_outputs=2, n_spatiotemp_filters=8, n_bimap_filters=5)
    bimap = BiMap(8, 5)
    setattr(tsm, "covpool", CovPool(1e-3))  # noqa: B010
    tsm.spdnet = nn.Sequential(bimap, ReEig(1e-4))
    tsm.logeig = nn.Sequential(LogEig(), nn.Flatten(1))
    logits = tsm(torch.randn(6, 4, 100))
    logits.sum().backward()
    assert logits.shape == (6, 2)
    assert all(p.grad is not None and bool(p.grad.any()) for p in bimap.parameters())


def test_spd_learns_layers_in_our_network():
    net = SPDNet([6, 4, 3], classes=2)
    net[2] = spd_learn.modules.BiMap(4, 3)
    net[3] = spd_learn.modules.ReEig(threshold=1e-4)
    net[4] = spd_learn.modules.LogEig()
    P = draw(5, 6).float()
    net(P).sum().backward()
    assert net(P).shape == (5, 2)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
