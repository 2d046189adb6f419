import math

import mpmath
import pytest
import scipy.linalg
import torch
from linalg_kernels.rotations import so_exp, so_log
from linalg_kernels.stumpff import stumpff
from torch.autograd import gradcheck, gradgradcheck
from torch.linalg import LinAlgError

ANGLES = [1e-12, 1e-6, 1e-3, 1.0, 3.0, math.pi - 1e-3, math.pi - 1e-7, math.pi - 1e-11]


def skew(n, *, angle=1.0, batch=(), dtype=torch.float64, seed=0):
    """Skew matrices whose largest angle is `angle`."""
    g = torch.Generator().manual_seed(seed)
    S = torch.randn(*batch, n, n, dtype=torch.float64, generator=g)
    S = S - S.mT
    return (S * (angle / torch.linalg.matrix_norm(S, 2))[..., None, None]).to(dtype)


def half_turn(n, seed=0):
    """A rotation by π in one plane and by 1 in another one if there is room."""
    Q, _ = torch.linalg.qr(
        torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )
    R = torch.eye(n, dtype=torch.float64)
    R[0, 0] = R[1, 1] = -1
    if n > 3:
        R[2:4, 2:4] = so_exp(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
    return Q @ R @ Q.mT


@pytest.mark.parametrize("k", range(1, 8))
def test_stumpff_functions_agree_with_mpmath(k):
    xs = [0.0, 1e-300, 1e-20, 1e-8, 0.1, 1.0, 3.99, 4.0, 4.01, 9.8, 30.0, 99.0]
    with mpmath.workdps(60):
        exact = [
            float(mpmath.nsum(lambda j, x=x: (-mpmath.mpf(x)) ** j / mpmath.factorial(k + 2 * j),
                              [0, mpmath.inf], method="d"))
            for x in xs
        ]  # fmt: skip
    computed = stumpff(torch.tensor(xs, dtype=torch.float64), k)
    expected = torch.tensor(exact, dtype=torch.float64)
    torch.testing.assert_close(computed, expected, rtol=1e-13, atol=1e-16)


def test_stumpff_derivatives_at_zero():
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(stumpff(x, 1), x, create_graph=True)
    (second,) = torch.autograd.grad(first, x, create_graph=True)
    (third,) = torch.autograd.grad(second, x)
    torch.testing.assert_close(
        torch.stack([first.detach(), second.detach(), third]),
        torch.tensor([-1 / 6, 2 / 120, -6 / 5040], dtype=torch.float64),
    )


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exp_agrees_with_matrix_exp(n, dtype):
    for angle in (1e-9, 1.0, 3.0, 20.0):
        S = skew(n, angle=angle, batch=(5,), dtype=dtype)
        eps = torch.finfo(dtype).eps
        expected = torch.linalg.matrix_exp(S.double()).to(dtype)
        torch.testing.assert_close(so_exp(S), expected, rtol=0, atol=20 * (1 + angle) * eps)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("angle", ANGLES)
def test_log_inverts_exp_up_to_a_half_turn(n, angle):
    S = skew(n, angle=angle, batch=(20,))
    error = (so_log(so_exp(S)) - S).abs().amax((-2, -1))
    assert float(error.max()) < 30 * torch.finfo(torch.float64).eps * angle


@pytest.mark.parametrize("n", [2, 3, 4, 6])
@pytest.mark.parametrize("angle", [1e-6, 1.0, 3.0])
def test_log_inverts_exp_in_single_precision(n, angle):
    S = skew(n, angle=angle, batch=(20,), dtype=torch.float32)
    error = (so_log(so_exp(S)) - S).abs().amax((-2, -1))
    assert float(error.max()) < 30 * torch.finfo(torch.float32).eps * angle


@pytest.mark.parametrize("n", [4, 5])
def test_log_agrees_with_scipy(n):
    R = so_exp(skew(n, angle=2.5))
    torch.testing.assert_close(so_log(R), torch.from_numpy(scipy.linalg.logm(R.numpy()).real))


@pytest.mark.parametrize(
    "angles", [(1.0, 1.0), (0.0, 0.0), (2.0, math.pi - 2.0), (3.1, 3.1), (1, 0)]
)
@pytest.mark.parametrize("n", [4, 5])
def test_log_where_angles_or_their_sines_coincide(angles, n):
    S = torch.zeros(n, n, dtype=torch.float64)
    S[1, 0], S[3, 2] = angles
    S = S - S.mT
    Q = so_exp(skew(n, angle=2.0, seed=3))
    S = Q @ S @ Q.mT
    torch.testing.assert_close(so_log(so_exp(S)), S, rtol=0, atol=1e-14)


def test_arccos_formula_would_lose_half_the_digits():
    S = skew(3, angle=1e-9)
    R = so_exp(S)
    error = torch.linalg.norm(so_log(R) - S) / torch.linalg.norm(S)
    by_trace = torch.acos(((torch.trace(R) - 1) / 2).clamp(-1, 1))
    assert float(error) < 1e-15
    assert abs(float(by_trace) / 1e-9 - 1) > 1e-3


@pytest.mark.parametrize("n", [2, 3])
def test_a_half_turn_has_a_logarithm_with_finite_derivatives(n):
    R = half_turn(n).requires_grad_()
    S = so_log(R)
    torch.testing.assert_close(so_exp(S.detach()), R.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.linalg.matrix_norm(S, 2).item(), math.pi)
    (g,) = torch.autograd.grad(S, R, skew(n))
    assert torch.isfinite(g).all()
    assert g.abs().max() > 0.1


def test_branch_at_a_half_turn_of_space():
    for axis in ([-0.6, 0.0, 0.8], [0.0, -1.0, 0.0], [0.48, -0.6, 0.64]):
        u = torch.tensor(axis, dtype=torch.float64)
        R = 2 * torch.outer(u, u) - torch.eye(3, dtype=torch.float64)
        S = so_log(R)
        v = torch.stack([S[2, 1], S[0, 2], S[1, 0]]) / math.pi
        torch.testing.assert_close(v, u * u[u.abs().argmax()].sign())


@pytest.mark.parametrize("n", [4, 5, 8])
@pytest.mark.parametrize("seed", range(6))
def test_a_half_turn_in_higher_dimensions_is_refused(n, seed):
    R = torch.stack([torch.eye(n, dtype=torch.float64), half_turn(n, seed)])
    with pytest.raises(LinAlgError, match=r"R\[1\] turns a plane by π"):
        so_log(R)
    S = so_log(R, check=False)
    torch.testing.assert_close(S[0], torch.zeros_like(S[0]))
    assert torch.isnan(S[1]).all()


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("angle", [0.0, 1e-5, 1.0, 3.0, math.pi - 1e-4])
def test_derivatives_of_the_logarithm(n, angle):
    base = so_exp(skew(n, angle=angle))
    motions = [skew(n, seed=4), skew(n, seed=5)]

    def f(*t):
        return so_log(base @ so_exp(sum(x * M for x, M in zip(t, motions, strict=True))))

    t = tuple(torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in motions)
    assert gradcheck(f, t, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, t, check_fwd_over_rev=True, atol=2e-5)


@pytest.mark.parametrize("n", [3, 5])
def test_gradient_is_tangent(n):
    R = so_exp(skew(n, angle=2.0)).requires_grad_()
    (g,) = torch.autograd.grad(so_log(R), R, torch.ones(n, n, dtype=torch.float64).tril())
    M = R.detach().mT @ g
    torch.testing.assert_close(M, -M.mT)


def test_derivative_along_a_plane_is_one_also_next_to_a_half_turn():
    for n in (3, 4, 5):
        J = torch.zeros(n, n, dtype=torch.float64)
        J[1, 0], J[0, 1] = 1, -1
        Q = so_exp(skew(n, angle=2.0, seed=1))
        J = Q @ J @ Q.mT
        R = so_exp((math.pi - 1e-12) * J)
        dS = torch.func.jvp(so_log, (R,), (R @ J,))[1]
        torch.testing.assert_close(dS, J, rtol=0, atol=1e-13)


def test_third_derivative_is_not_cut_off():
    base, M = so_exp(skew(5, angle=2.0)), skew(5, seed=4)
    G = skew(5, seed=7)

    def f(t):
        return (so_log(base @ so_exp(t * M)) * G).sum()

    d = f
    for _ in range(3):
        d = torch.func.grad(d)
    second = torch.func.grad(torch.func.grad(f))
    zero, h = torch.zeros((), dtype=torch.float64), 1e-4
    difference = (second(zero + h) - second(zero - h)) / (2 * h)
    torch.testing.assert_close(d(zero), difference, rtol=1e-6, atol=1e-7)


@pytest.mark.bad_input
def test_what_is_not_a_rotation_is_refused_by_name():
    eye = torch.eye(3).repeat(2, 1, 1)
    reflection = eye.clone()
    reflection[1, 0, 0] = -1
    with pytest.raises(ValueError, match=r"R\[1\] must be a rotation, but has determinant -1"):
        so_log(reflection)
    with pytest.raises(ValueError, match=r"R\[0\] must be orthogonal"):
        so_log(1.01 * eye)
    so_log(eye + 1e-5)
    with pytest.raises(ValueError, match=r"S\[0\] must be skew-symmetric"):
        so_exp(eye)
    with pytest.raises(TypeError, match="must be real"):
        so_exp(eye.to(torch.complex64))
    with pytest.raises(ValueError, match=r"must be \(\.\.\., n, n\)"):
        so_log(torch.ones(2, 3))
    with pytest.raises(TypeError, match="upcast=True"):
        so_exp(eye.half())


@pytest.mark.parametrize("n", [2, 3, 5])
def test_non_finite_elements(n):
    S = skew(n, batch=(3,))
    R = so_exp(S)
    S[1, 0, 1] = math.nan
    R[1, 0, 0] = math.inf
    with pytest.raises(LinAlgError, match=r"S\[1\] contains NaN or Inf"):
        so_exp(S)
    with pytest.raises(LinAlgError, match=r"R\[1\] contains NaN or Inf"):
        so_log(R)
    for T in (so_exp(S, check=False), so_log(R, check=False)):
        assert torch.isfinite(T).flatten(1).all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("fn", [so_exp, so_log])
def test_degenerate_sizes(fn):
    eye = torch.eye(1) if fn is so_log else torch.zeros(1, 1)
    assert torch.equal(fn(eye), torch.eye(1) - eye)
    for shape in [(0, 0), (3, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4), (2, 0, 5, 5)]:
        assert fn(torch.zeros(shape)).shape == shape


def test_half_precision_is_upcast_when_asked():
    S = skew(3, dtype=torch.float32).bfloat16()
    R = so_exp(S, upcast=True)
    assert R.dtype == torch.bfloat16
    assert so_log(R, check=False, upcast=True).dtype == torch.bfloat16
