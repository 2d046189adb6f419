"""Adaptive paths against exact flows."""

import sys

import pytest
import torch
from potential_flows import MLPPotential, euler_path, ode_path

K = torch.tensor([0.5, -1.0, 0.7], dtype=torch.float64)


def points(*batch, n=3):
    return torch.randn(*batch, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def growing(z, t):
    """dz/dt = (1 + t) z, whose flow is exp(t + t²/2)."""
    return (1 + t) * z.square().sum(-1) / 2


def grown(z, times):
    return torch.exp(times + times**2 / 2)[..., None] * z


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_exact_flow_at_irregular_times(method):
    z, times = points(4), torch.tensor([0.0, 0.1, 1.0, 0.5, 0.5], dtype=torch.float64)
    path = ode_path(growing, z, times, tol=1e-9, method=method)
    assert path.shape == (5, 4, 3)
    assert torch.equal(path[0], z)
    torch.testing.assert_close(path, grown(z, times[:, None]), rtol=1e-7, atol=1e-9)


def test_each_row_has_its_own_times():
    z = points(2, 4)
    times = torch.rand(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    want = grown(z / grown(torch.ones_like(z), times[0]), times)
    torch.testing.assert_close(ode_path(growing, z, times, tol=1e-10), want, rtol=1e-8, atol=1e-9)
    shared = ode_path(growing, z, times[:, :1, :1], tol=1e-10)
    assert shared.shape == (3, 2, 4, 3)


@pytest.mark.parametrize("unit", [1e-12, 1e6])
def test_the_tolerance_is_relative(unit):
    z, times = points(4), torch.tensor([0.0, 1.0], dtype=torch.float64)
    scaled = ode_path(growing, unit * z, times) / unit
    torch.testing.assert_close(scaled, ode_path(growing, z, times), rtol=1e-12, atol=0)
    # With a looser tolerance it is looser, so that it is the tolerance that decides.
    loose = (ode_path(growing, z, times, tol=1e-2) - grown(z, times[:, None])).abs().max()
    tight = (ode_path(growing, z, times, tol=1e-8) - grown(z, times[:, None])).abs().max()
    assert tight < loose / 100


def test_it_is_the_limit_of_euler_paths_and_trains():
    torch.manual_seed(0)
    u = MLPPotential(3, 8).double()
    z, times = points(4), torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    exact = ode_path(u, z, times, tol=1e-9)
    errors = [(euler_path(u, z, times, m) - exact).abs().max() for m in (20, 40)]
    assert abs(errors[0] / errors[1] - 2) < 0.1
    slope = torch.autograd.grad(exact[-1].sum(), u.space.weight)[0]
    fine = torch.autograd.grad(euler_path(u, z, times, 400)[-1].sum(), u.space.weight)[0]
    torch.testing.assert_close(slope, fine, rtol=1e-2, atol=1e-5)


def test_gradients_in_points_and_times():
    z = points(2).requires_grad_()
    times = torch.tensor([0.0, 0.7], dtype=torch.float64, requires_grad=True)
    end = ode_path(growing, z, times, tol=1e-10)[1]
    by_z, by_times = torch.autograd.grad(end.sum(), (z, times))
    want = grown(torch.ones_like(z), times[1].detach())
    torch.testing.assert_close(by_z, want, rtol=1e-7, atol=0)
    # ∂z(t₁)/∂t₁ is the velocity there.
    torch.testing.assert_close(by_times[1], (1.7 * end).sum().detach(), rtol=1e-7, atol=0)


def test_what_is_at_rest_stays():
    assert not ode_path(growing, torch.zeros(2, 3), torch.tensor([0.0, 1.0])).any()
    assert ode_path(growing, torch.zeros(2, 3), torch.zeros(1)).shape == (1, 2, 3)


def test_without_torchdiffeq(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"potential-flows\[ode\]"):
        ode_path(growing, points(2), torch.zeros(1, dtype=torch.float64))


@pytest.mark.bad_input
def test_bad_input():
    z = points(2)
    with pytest.raises(ValueError, match=r"times must be \(T, ...\) with T >= 1, got \(0,\)"):
        ode_path(growing, z, z.new_zeros(0))
    with pytest.raises(ValueError, match="tol must be positive, got 0"):
        ode_path(growing, z, z.new_zeros(2), tol=0.0)
    with pytest.raises(TypeError, match="z and times must have one dtype"):
        ode_path(growing, z, torch.zeros(2))
