"""Latent flows: the released code's paths, exact flows, and what must hold for any flow."""

from pathlib import Path

import numpy as np
import potential_flows as pf
import pytest
import torch
from flowfactor import HeatPrior, LatentFlow, OfficialPrior
from flowfactor.posterior import gaussian_log_prob, sample_gaussian
from linalg_kernels import ConvergenceWarning
from torch import nn

# Two flows of size 8 with their forces, and what latent-flow as released makes of four points
# (z, rho_t, rho), or dense autograd on it (logdet, logq_exact, residual).
GOLDEN = {
    key: torch.from_numpy(array)
    for key, array in np.load(Path(__file__).with_name("golden.npz")).items()
}
LAYERS = {
    "space": "layer_x",
    "time.0": "layer_time",
    "time.2": "layer_time2",
    "fusion": "layer_fusion",
    "head": "layer_out",
}


def released(**options):
    def network(kind, k):
        u = pf.MLPPotential(8, 8, time_dim=8, output=torch.tanh).double()
        u.load_state_dict(
            {
                f"{ours}.{part}": GOLDEN[f"w.{kind}.{k}.{theirs}.{part}"]
                for ours, theirs in LAYERS.items()
                for part in ("weight", "bias")
            }
        )
        return u

    flow = LatentFlow(
        8,
        2,
        potentials=[network("MLP_SET", k) for k in range(2)],
        forces=[network("FORCE_SET", k) for k in range(2)],
        **options,
    )
    return flow.requires_grad_(False)


def bent(dim=4, flows=3, **options):
    """A flow whose Hessians are of size 0.1 to 1."""
    torch.manual_seed(0)
    flow = LatentFlow(dim, flows, 6, **options).double()
    with torch.no_grad():
        for u in flow.potentials:
            for layer in ("space", "fusion", "head"):
                u.get_parameter(f"{layer}.weight").mul_(1.5)
    return flow


def points(*batch, n=4, seed=0):
    return torch.randn(
        *batch, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


class Quadratic(nn.Module):
    """u = zᵀAz/2."""

    def __init__(self, A):
        super().__init__()
        self.A = A

    def forward(self, z, t):
        return ((z @ self.A) * z).sum(-1) / 2 + 0 * t


def close(got, want, rtol=1e-10, atol=1e-12):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


@pytest.mark.parametrize("k", [0, 1])
def test_released_paths(k):
    z0 = sample_gaussian(GOLDEN["mean"], GOLDEN["log_var"], GOLDEN["eps"])
    close(z0, GOLDEN["z0"])
    path = released().transport(z0, k, 8)
    close(path.z, GOLDEN[f"k{k}.z"])
    close(path.logabsdet, GOLDEN[f"k{k}.logdet"])
    log_q = gaussian_log_prob(z0, GOLDEN["mean"], GOLDEN["log_var"])
    log_q = torch.cat((log_q[None], log_q - path.logabsdet.cumsum(0)))
    close(log_q, GOLDEN[f"k{k}.logq_exact"])


@pytest.mark.parametrize("k", [0, 1])
def test_official_density(k):
    """Row sums and the rescaled prior: options that exist for comparison only."""
    lost = released(logdet="official").transport(GOLDEN["z0"], k, 8).logabsdet
    close(lost, -GOLDEN[f"k{k}.rho_t"].diff(dim=0))
    prior = OfficialPrior(2, 8).double()
    prior.sigma.data = torch.stack([GOLDEN[f"prior.MLP_SET.{j}.sigma"][:, 0] for j in range(2)])
    log_p = prior.path_log_prob(GOLDEN[f"k{k}.z"], k)
    close(log_p - log_p[0], GOLDEN[f"k{k}.rho"] - GOLDEN[f"k{k}.rho"][0])
    rows = prior.path_log_prob(GOLDEN[f"k{k}.z"], torch.full((4,), k))
    close(rows, log_p)


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("t", [1, 3])
def test_released_constraint(k, t):
    square = released().hamilton_jacobi_square(GOLDEN["z"], float(t), k)
    close(square, GOLDEN[f"k{k}_t{t}.residual"] ** 2)


def test_the_default_is_the_published_potential():
    flow = LatentFlow(8, 2)
    u = flow.potentials[0]
    assert [tuple(w.shape) for w in u.state_dict().values()] == [
        tuple(w.shape) for w in released().potentials[0].state_dict().values()
    ]
    assert u.output is torch.tanh


def test_constant_potential():
    flow = LatentFlow(
        3, 1, potentials=[Quadratic(torch.zeros(3, 3).double())], forces=[nn.Identity()]
    )
    path = flow.transport(points(5, n=3), 0, 4)
    assert torch.equal(path.z, points(5, n=3).expand(5, 5, 3))
    assert not path.logabsdet.any()


@pytest.mark.parametrize("substeps", [1, 3])
def test_quadratic_potential(substeps):
    A = torch.tensor([[0.3, 0.2], [0.2, -0.4]], dtype=torch.float64)
    make = lambda logdet: LatentFlow(  # noqa: E731
        2, 1, potentials=[Quadratic(A)], forces=[nn.Identity()], substeps=substeps, logdet=logdet
    )
    z = points(6, n=2)
    part = torch.eye(2, dtype=torch.float64) + A / substeps
    whole = torch.linalg.matrix_power(part, substeps)
    path = make("exact").transport(z, 0, 2)
    close(path.z[2], z @ whole @ whole)
    close(path.logabsdet, torch.linalg.slogdet(whole)[1].expand(2, 6))
    trace = substeps * torch.log(1 + A.diagonal().sum() / substeps)
    close(make("laplacian").transport(z, 0, 2).logabsdet, trace.expand(2, 6))
    # To first order in A all agree.
    small = [
        LatentFlow(2, 1, potentials=[Quadratic(1e-4 * A)], forces=[nn.Identity()], logdet=logdet)
        .transport(z, 0, 1)
        .logabsdet
        for logdet in ("exact", "laplacian")
    ]
    close(small[0], small[1], rtol=0, atol=1e-7)
    # A Gaussian stays one, whose density is known.
    log_q = -0.5 * z.square().sum(-1) - np.log(2 * np.pi) - path.logabsdet.sum(0)
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(2, dtype=torch.float64), whole @ whole @ whole @ whole
    )
    close(log_q, normal.log_prob(path.z[2]))


def test_logabsdet_is_that_of_the_composed_jacobian():
    for substeps in (1, 2):
        flow, z = bent(substeps=substeps), points(3)
        path = flow.transport(z, 1, 4)
        for i in range(3):
            J = torch.autograd.functional.jacobian(
                lambda x, flow=flow: flow.rollout(x, 1, 4)[-1], z[i]
            )
            close(path.logabsdet.sum(0)[i], torch.linalg.slogdet(J)[1], rtol=1e-9)
        assert path.logabsdet.abs().amax() > 0.05


def test_velocity_is_a_gradient():
    """The velocity has no curl: its Jacobian is symmetric."""
    flow, z = bent(), points()
    J = torch.autograd.functional.jacobian(lambda x: flow.velocity(x, 2.0, 0), z)
    close(J, J.mT)
    close(J, flow.hessian(z, 2.0, 0))


def test_hutchinson_is_unbiased():
    flow, z = bent(logdet="hutchinson"), points(1)
    torch.manual_seed(0)
    estimates = flow.logabsdet(z.expand(20000, 4), 1.0, 2).exp()
    exact = (1 + flow._of_potentials(pf.laplacian, z, torch.tensor(1.0).double(), 2)).abs()
    assert abs(estimates.mean() / exact - 1) < 4 * estimates.std() / 20000**0.5 / exact
    assert estimates.std() > 1e-3


@pytest.mark.parametrize("logdet", ["exact", "laplacian", "official"])
def test_rows_with_flows_of_their_own(logdet):
    flow, z = bent(logdet=logdet), points(7)
    k = torch.tensor([2, 0, 1, 1, 0, 2, 2])
    path = flow.transport(z, k, 3)
    square = flow.hamilton_jacobi_square(z, 2.0, k)
    rest = flow.initial_square(z, k)
    for i in range(7):
        alone = flow.transport(z[i], int(k[i]), 3)
        close(path.z[:, i], alone.z)
        close(path.logabsdet[:, i], alone.logabsdet)
        close(square[i], flow.hamilton_jacobi_square(z[i], 2.0, int(k[i])))
        close(rest[i], flow.velocity(z[i], 0.0, int(k[i])).square().sum())


def test_one_hot_weights_are_indices():
    flow, z = bent(), points(5)
    k = torch.tensor([2, 0, 1, 1, 0])
    y = nn.functional.one_hot(k, 3).double()
    soft, hard = flow.transport(z, y, 3), flow.transport(z, k, 3)
    close(soft.z, hard.z)
    close(soft.logabsdet, hard.logabsdet)
    for f in (flow.hamilton_jacobi_square, flow.wave_square):
        close(f(z, 1.0, y), f(z, 1.0, k))
    close(flow.initial_square(z, y), flow.initial_square(z, k))


def test_weights_mix_velocities():
    flow, z = bent(), points(5)
    y = torch.rand(5, 3, dtype=torch.float64).softmax(-1)
    each = torch.stack([flow.velocity(z, 2.0, k) for k in range(3)], -1)
    close(flow.velocity(z, 2.0, y), (each * y[:, None]).sum(-1))
    J = torch.autograd.functional.jacobian(lambda x: flow.velocity(x, 2.0, y).sum(0), z)
    close(flow.hessian(z, 2.0, y), J.movedim(1, 0))


def test_switching_goes_on_in_time():
    flow, z = bent(), points(5)
    switched = flow.transport(z, [1, 1, 0], 3)
    first = flow.transport(z, 1, 2)
    last = flow.transport(first.z[2], 0, 1, start=2)
    close(switched.z, torch.cat((first.z, last.z[1:])))
    close(switched.logabsdet, torch.cat((first.logabsdet, last.logabsdet)))
    rows = [torch.full((5,), k) for k in (1, 1, 0)]
    close(flow.transport(z, rows, 3).logabsdet, switched.logabsdet)
    weights = [nn.functional.one_hot(k, 3).double() for k in rows]
    close(flow.transport(z, weights, 3).logabsdet, switched.logabsdet)


def test_inverse():
    flow, z = bent(substeps=4), points(6)
    for k in (1, torch.tensor([0, 1, 2, 2, 1, 0])):
        report = flow.inverse(flow.step(z, 2.0, k), 2.0, k)
        assert report.converged.all()
        close(report.z, z, rtol=1e-11)


def test_inverse_that_does_not_converge_is_reported():
    A = torch.diag(torch.tensor([-3.0, 0.1])).double()
    flow = LatentFlow(2, 1, potentials=[Quadratic(A)], forces=[nn.Identity()])
    with pytest.warns(ConvergenceWarning, match="has not converged"):
        report = flow.inverse(flow.step(points(2, n=2), 1.0, 0), 1.0, 0)
    assert not report.converged.any()


def test_constraints_do_not_depend_on_repetition_or_order():
    flow, z = bent(), points(6)
    k = torch.tensor([0, 1, 2, 0, 1, 2])
    order = torch.randperm(6)
    for f in (flow.hamilton_jacobi_square, flow.wave_square):
        close(f(z.repeat(3, 1), 1.0, k.repeat(3)).mean(), f(z, 1.0, k).mean())
        close(f(z[order], 1.0, k[order]), f(z, 1.0, k)[order])


def test_exact_solutions_have_no_constraint():
    class Fan(nn.Module):
        def forward(self, z, t):
            return z.square().sum(-1) / (2 * (t + 3))

    class Falling(nn.Module):
        def forward(self, z, t):
            return 0 * z.sum(-1) - 0.49 * t

    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, z, t):
            return self.value + 0 * z.sum(-1) + 0 * t

    flow = LatentFlow(4, 2, potentials=[Fan(), Falling()], forces=[Constant(0.0), Constant(0.7)])
    z = points(5)
    for k in (0, 1):
        assert flow.hamilton_jacobi_square(z, 1.5, k).max() < 1e-28
    assert flow.hamilton_jacobi_square(z, 1.5, torch.tensor([1, 0, 1, 0, 1])).max() < 1e-28
    assert flow.wave_square(z, 1.5, 0).min() > 1e-4


def test_nothing_to_do():
    flow, z = bent(), points(3)
    assert torch.equal(flow.rollout(z, 0, 0), z[None])
    assert flow.transport(z, 0, 0).logabsdet.shape == (0, 3)
    assert flow.velocity(z[:0], 1.0, torch.zeros(0).long()).shape == (0, 4)


def test_heat_prior():
    prior, z = HeatPrior(2, 0.3).double(), points(5)
    flat = torch.distributions.Normal(0.0, (1 + 2 * 0.3 * 2.5) ** 0.5)
    close(prior.log_prob(z, 2.5, 1), flat.log_prob(z).sum(-1), rtol=1e-6)
    density = lambda z, t: prior.log_prob(z, t, 1).exp()  # noqa: E731
    left = pf.heat_residual(density, z, 1.5, diffusivity=0.3)
    assert left.abs().max() < 1e-7 * pf.laplacian(density, z, 1.5).abs().max()
    start = prior.log_prob(z, 0.0, 0)
    close(start, -0.5 * z.square().sum(-1) - 2 * np.log(2 * np.pi))
    with torch.no_grad():
        prior.log_diffusivity[0] = -torch.inf
    close(prior.log_prob(z, 7.0, 0), start)
    path = torch.stack((z, 2 * z))
    k = torch.tensor([0, 1, 1, 0, 1])
    close(prior.path_log_prob(path, k)[1], prior.log_prob(2 * z, 1.0, k))
    y = nn.functional.one_hot(k, 2).double()
    close(prior.path_log_prob(path, y), prior.path_log_prob(path, k))
    with pytest.raises(ValueError, match="diffusivity must be positive, got 0"):
        HeatPrior(2, 0.0)


@pytest.mark.bad_input
def test_bad_input():
    flow, z = bent(), points(3)
    with pytest.raises(ValueError, match="k must be in 0 … 2, got 3"):
        flow.velocity(z, 1.0, 3)
    with pytest.raises(ValueError, match="k must be in 0 … 2, got -1 in row 1"):
        flow.velocity(z, 1.0, torch.tensor([0, -1, 2]))
    with pytest.raises(ValueError, match=r"k must be \(3,\), one for each row of z, got \(2,\)"):
        flow.velocity(z, 1.0, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"weights k must be \(3, 3\), got \(3,\)"):
        flow.velocity(z, 1.0, torch.ones(3))
    with pytest.raises(TypeError, match=r"int64 indices or weights, got torch\.int32"):
        flow.velocity(z, 1.0, torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match="k must be one flow or 2, one for each step, got 3"):
        flow.rollout(z, [0, 1, 2], 2)
    with pytest.raises(TypeError, match="indices in every step or weights in every step"):
        flow.transport(z, [0, torch.ones(3, 3).double()], 2)
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        flow.rollout(z, 0, -1)
    with pytest.raises(ValueError, match="flows must be at least 1, got 0"):
        LatentFlow(4, 0)
    with pytest.raises(ValueError, match=r"logdet must be one of .*, got 'trace'"):
        LatentFlow(4, 1, logdet="trace")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="substeps must be at least 1, got 0"):
        LatentFlow(4, 1, substeps=0)
    with pytest.raises(ValueError, match="forces must be 2, one for each flow, got 1"):
        LatentFlow(4, 2, forces=[nn.Identity()])
    with pytest.raises(ValueError, match="steps must be at most 8, got 9"):
        OfficialPrior(1, 8).path_log_prob(torch.zeros(10, 1, 4), 0)
