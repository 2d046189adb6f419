"""Derivatives of any potential: closed forms, finite differences, each other."""

import pytest
import torch
from linalg_kernels.testing import check_forward_mode, check_grad, check_gradgrad, check_vmap
from potential_flows import (
    MLPPotential,
    gradient,
    hessian,
    hessian_product,
    hutchinson_laplacian,
    laplacian,
    spacetime_gradient,
    step_logabsdet,
    time_derivative,
)
from torch import nn


class Network(nn.Module):
    """A network of a user: another architecture, and no closed forms."""

    def __init__(self, n):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n + 1, 5), nn.SiLU(), nn.Linear(5, 5), nn.Softplus())
        self.head = nn.Linear(5, 1)

    def forward(self, z, t):
        return self.head(self.body(torch.cat((z, t[..., None]), -1)))[..., 0]


def own(n=3, **options):
    torch.manual_seed(1)
    net = MLPPotential(n, 5, time_dim=4, **options).double()
    # At the initial weights curvature is too small to be seen beside rounding.
    with torch.no_grad():
        for layer in (net.space, net.fusion, net.head):
            layer.weight.mul_(3)
    return net


def users(n=3):
    torch.manual_seed(2)
    net = Network(n).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
    return net


POTENTIALS = {
    "own": own,
    "own with silu": lambda: own(activation=nn.SiLU()),
    "own with output": lambda: own(output=torch.tanh),
    "user's": users,
}


def points(*batch, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(*batch, n, dtype=torch.float64, generator=generator)
    t = 2 * torch.rand(*batch, dtype=torch.float64, generator=generator)
    return z, t


def close(got, want, rtol=1e-11, atol=1e-12):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


@pytest.fixture(params=POTENTIALS)
def u(request):
    return POTENTIALS[request.param]()


def test_against_finite_differences(u):
    z, t = points(2, 4)
    h = 1e-5
    eye = torch.eye(3, dtype=z.dtype)
    slopes = [(u(z + h * e, t) - u(z - h * e, t)) / (2 * h) for e in eye]
    close(gradient(u, z, t), torch.stack(slopes, -1), rtol=1e-7, atol=1e-8)
    rate = (u(z, t + h) - u(z, t - h)) / (2 * h)
    close(time_derivative(u, z, t), rate, rtol=1e-7, atol=1e-8)
    columns = [(gradient(u, z + h * e, t) - gradient(u, z - h * e, t)) / (2 * h) for e in eye]
    close(hessian(u, z, t), torch.stack(columns, -1), rtol=1e-7, atol=1e-7)
    second = (time_derivative(u, z, t + h) - time_derivative(u, z, t - h)) / (2 * h)
    close(time_derivative(u, z, t, order=2), second, rtol=1e-7, atol=1e-7)


def test_against_each_other(u):
    z, t = points(5)
    slope, rate = spacetime_gradient(u, z, t)
    close(slope, gradient(u, z, t))
    close(rate, time_derivative(u, z, t))
    H = hessian(u, z, t)
    assert torch.equal(H, H.mT)
    assert H.abs().amax() > 0.05
    close(laplacian(u, z, t), H.diagonal(dim1=-2, dim2=-1).sum(-1))
    v = torch.randn_like(z)
    close(hessian_product(u, z, t, v), (H @ v[..., None])[..., 0])
    eye = torch.eye(3, dtype=z.dtype)
    close(step_logabsdet(u, z, t, 0.7), torch.linalg.slogdet(eye + 0.7 * H)[1])


def test_closed_forms_against_autograd():
    """The function of the same values, without the class that has closed forms."""
    for make in ("own", "own with silu", "own with output"):
        net = POTENTIALS[make]()
        z, t = points(5)
        v = torch.randn_like(z)
        plain = lambda z, t, net=net: net(z, t)  # noqa: E731
        for f in (gradient, spacetime_gradient, hessian, laplacian):
            close(f(net, z, t), f(plain, z, t))
        close(hessian_product(net, z, t, v), hessian_product(plain, z, t, v))


def test_a_subclass_is_differentiated_as_it_is():
    class Doubled(MLPPotential):
        def forward(self, z, t):
            return 2 * super().forward(z, t)

    net, z = own(), points(4)[0]
    doubled = Doubled(3, 5, time_dim=4).double()
    doubled.load_state_dict(net.state_dict())
    close(gradient(doubled, z, 1.0), 2 * gradient(net, z, 1.0))


def test_rows_are_their_own(u):
    z, t = points(4)
    for f in (gradient, time_derivative, hessian, laplacian, step_logabsdet):
        together = f(u, z, t)
        for i in range(4):
            close(together[i], f(u, z[i], t[i]))
        repeated = f(u, torch.cat((z, z, z)), torch.cat((t, t, t)))
        close(repeated, torch.cat((together, together, together)))


def test_numbers_and_broadcast_times(u):
    z, _ = points(2, 4)
    t = torch.tensor([[0.5], [1.5]], dtype=z.dtype)
    for f in (gradient, time_derivative, hessian, laplacian):
        close(f(u, z, t), f(u, z, t.expand(2, 4)))
        close(f(u, z, 1.0), f(u, z, torch.ones(2, 4, dtype=z.dtype)))
    close(spacetime_gradient(u, z, t)[1], time_derivative(u, z, t))


def test_chunks_change_nothing():
    u, (z, t) = users(5), points(4, n=5)
    close(hessian(u, z, t, chunk_size=2), hessian(u, z, t))
    close(laplacian(u, z, t, chunk_size=2), laplacian(u, z, t))


def test_hutchinson(u):
    z, t = points(1)
    many = hutchinson_laplacian(
        u, z.expand(4000, 3), t.expand(4000), 2, generator=torch.Generator().manual_seed(0)
    )
    exact, H = laplacian(u, z, t), hessian(u, z, t)[0]
    off_diagonal = H.square().sum() - H.diagonal().square().sum()
    # The mean of 4000 estimates of 2 samples each, of variance 2 Σ H_ij² / 2.
    assert abs(many.value.mean() - exact) < 4 * (off_diagonal / 4000).sqrt()
    assert abs(many.value.std() / off_diagonal.sqrt() - 1) < 0.1
    assert many.standard_error.shape == (4000,)


def test_hutchinson_is_exact_for_a_diagonal_hessian():
    z, t = points(6)
    estimate = hutchinson_laplacian(lambda z, t: (z.cos() * t[..., None]).sum(-1), z, t)
    close(estimate.value, -(z.cos().sum(-1) * t))


def test_quadratic_potential():
    A = torch.tensor([[0.3, 0.2], [0.2, -1.7]], dtype=torch.float64)
    z, t = points(6, n=2)
    u = lambda z, t: ((z @ A) * z).sum(-1) / 2 + 0 * t  # noqa: E731
    close(gradient(u, z, t), z @ A)
    close(hessian(u, z, t), A.expand(6, 2, 2))
    close(step_logabsdet(u, z, t), torch.linalg.slogdet(torch.eye(2) + A)[1].expand(6))
    close(time_derivative(u, z, t), torch.zeros(6, dtype=torch.float64))


def test_constant_potential():
    z, t = points(6)
    zeros = lambda z, _t: z.new_zeros(z.shape[:-1])  # noqa: E731
    for f in (gradient, time_derivative, hessian, laplacian, step_logabsdet):
        assert not f(zeros, z, t).any()


@pytest.mark.parametrize("f", [gradient, hessian, laplacian, time_derivative, step_logabsdet])
def test_derivatives_of_derivatives(u, f):
    z, t = points(2)
    check_grad(lambda z, t: f(u, z, t), (z, t))
    check_gradgrad(lambda z, t: f(u, z, t), (z[:1], t[:1]))
    # torch has no forward mode for the derivatives of silu.
    if not any(isinstance(module, nn.SiLU) for module in u.modules()):
        check_forward_mode(lambda z, t: f(u, z, t), (z, t))


@pytest.mark.parametrize("f", [gradient, laplacian, step_logabsdet])
def test_training(u, f):
    z, t = points(3)
    names, weights = zip(*u.named_parameters(), strict=True)

    def of_weights(*weights):
        with torch.nn.utils.stateless._reparametrize_module(
            u, dict(zip(names, weights, strict=True))
        ):
            return f(u, z, t)

    u.requires_grad_(False)
    check_grad(of_weights, weights)
    if f is step_logabsdet:
        # The factors of the Hessian depend on each other: each has its own second derivative.
        names, weights = names[:1], weights[:1]
        check_gradgrad(of_weights, weights)


@pytest.mark.parametrize("f", [gradient, hessian, laplacian, time_derivative, step_logabsdet])
def test_vmap(u, f):
    check_vmap(lambda z, t: f(u, z, t), points(3, 2))


@pytest.mark.compile
@pytest.mark.parametrize(
    "f", [gradient, hessian, laplacian, spacetime_gradient, time_derivative, step_logabsdet]
)
def test_compile(u, f):
    torch._dynamo.reset()
    z, t = points(3)
    compiled = torch.compile(lambda z: f(u, z, t), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        close(compiled(z), f(u, z, t))


@pytest.mark.compile
@pytest.mark.parametrize("f", [gradient, laplacian, step_logabsdet])
def test_compiled_training(f):
    torch._dynamo.reset()
    u, (z, t) = own(), points(3)
    compiled = torch.compile(lambda z: f(u, z, t).square().sum(), backend="aot_eager")
    weights = [p for name, p in u.named_parameters() if name != "head.bias"]
    ours = torch.autograd.grad(compiled(z), weights)
    close(ours, torch.autograd.grad(f(u, z, t).square().sum(), weights))


def test_float32_and_no_grad(u):
    u, (z, t) = u.float(), points(4)
    with torch.no_grad():
        slope = gradient(u, z.float(), t.float())
    assert slope.dtype == torch.float32
    assert not slope.requires_grad
    torch.testing.assert_close(slope, gradient(u.double(), z, t).float(), rtol=1e-4, atol=1e-5)


def test_one_time_in_float32(u):
    u, (z, _) = u.float(), points(4)
    slope, rate = spacetime_gradient(u, z.float(), 1.0)
    assert rate.dtype == slope.dtype == torch.float32
    torch.testing.assert_close(rate, time_derivative(u, z.float(), torch.ones(4)))
    torch.testing.assert_close(spacetime_gradient(u, z[0].float(), 1.0)[0], slope[0])


def test_empty_batch(u):
    z, t = points(0)
    assert gradient(u, z, t).shape == (0, 3)
    assert hessian(u, z, t).shape == (0, 3, 3)
    assert laplacian(u, z, t).shape == (0,)


@pytest.mark.parametrize("step", [0.02, 0.8])
def test_steps_by_parts(monkeypatch, step):
    """Rows are worked on a few at a time; after a long step some have no Cholesky factor."""
    u, (z, t) = own(output=torch.tanh), points(2, 7)
    eye = torch.eye(3, dtype=z.dtype)
    definite = torch.linalg.eigvalsh(eye + step * hessian(u, z, t))[..., 0] > 0
    assert definite.any()
    assert definite.all() == (step < 0.1)
    plain = torch.linalg.slogdet(eye + step * hessian(u, z, t))[1]
    weights = [p for name, p in u.named_parameters() if name != "head.bias"]
    cotangent = torch.randn_like(plain)
    want = torch.autograd.grad(plain, weights, cotangent)
    for block in (1, 3 * 4 * 5, 10**6):
        monkeypatch.setattr("potential_flows.volume._BLOCK", block)
        found = step_logabsdet(u, z, t, step)
        close(found, plain)
        with torch.no_grad():
            close(step_logabsdet(u, z, t, step), plain)
        close(torch.autograd.grad(found, weights, cotangent), want, rtol=1e-9, atol=1e-10)


def test_a_singular_step_of_closed_forms_is_named():
    u = own()
    with torch.no_grad():
        u.head.weight.zero_()
        u.space.weight.zero_()
    z, t = points(3)
    assert step_logabsdet(u, z, t).tolist() == [0.0] * 3
    z[1, 0] = torch.nan
    with torch.no_grad():
        u.space.weight.fill_(1.0)
        u.head.weight.fill_(1.0)
    with pytest.raises(torch.linalg.LinAlgError, match=r"∇²u\[1\] contains NaN or Inf"):
        step_logabsdet(u, z, t)
    assert step_logabsdet(u, z, t, check=False).isnan().tolist() == [False, True, False]
    one = MLPPotential(1, 1, time_dim=4).double()
    with torch.no_grad():
        H = hessian(one, z[:1, 1:2], t[:1])[0, 0, 0].item()
        with pytest.raises(torch.linalg.LinAlgError, match=r"∇²u\[0\] is singular"):
            step_logabsdet(one, z[:1, 1:2], t[:1], -1 / H)


def test_a_singular_step_is_named():
    z = torch.zeros(3, 2, dtype=torch.float64)
    t = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    u = lambda z, t: -t * z.square().sum(-1) / 2  # noqa: E731
    with pytest.raises(torch.linalg.LinAlgError, match=r"\[1\]"):
        step_logabsdet(u, z, t)
    assert step_logabsdet(u, z, t, check=False).tolist()[1] == -torch.inf


@pytest.mark.bad_input
def test_bad_input(u):
    z, t = points(4)
    with pytest.raises(ValueError, match=r"broadcast to the batch \(4,\) of z, got \(4, 1\)"):
        gradient(u, z, t[:, None])
    with pytest.raises(ValueError, match=r"broadcast to the batch \(4,\) of z, got \(3,\)"):
        laplacian(u, z, t[:3])
    with pytest.raises(TypeError, match="z and t must have one dtype"):
        gradient(u, z, t.float())
    with pytest.raises(TypeError, match=r"z must be float32 or float64, got torch\.bfloat16"):
        gradient(u, z.bfloat16(), 0.0)
    with pytest.raises(TypeError, match="z must be real"):
        hessian(u, torch.complex(z, z), 0.0)
    with pytest.raises(ValueError, match=r"z must be .*, got a single number"):
        gradient(u, z[0, 0], 0.0)
    with pytest.raises(ValueError, match=r"v must be \(4, 3\), the shape of z, got \(3,\)"):
        hessian_product(u, z, t, z[0])
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        time_derivative(u, z, t, order=0)
    with pytest.raises(ValueError, match=r"one value a row, \(4,\), got \(4, 1\)"):
        gradient(lambda z, _t: z[:, :1], z, t)
