"""The projector against its definition, the official arrays and the invariants of the method."""

import pytest
import torch
from householder_gan import HouseholderProjector
from householder_gan.frames import frame, full_reflectors, thin_reflectors, unit_trapezoidal
from linalg_kernels.errors import LinAlgError
from torch.nn.utils import parametrize

SHAPES = [(8, 5, 5), (5, 8, 5), (5, 5, 5), (6, 4, 2), (4, 6, 2), (1, 1, 1), (1, 4, 1), (6, 7, 0)]
KINDS = [
    (sigma, reflectors)
    for sigma in ("identity", "fixed", "learned")
    for reflectors in ("thin", "full")
]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def projector(c, d, r, seed=0, dtype=torch.float64, **options):
    P = HouseholderProjector(d, c, r, **options).to(dtype)
    P.weight = random(c, d, seed=seed, dtype=dtype)
    return P


def reflection_by_reflection(V):
    n = V.shape[0]
    Q = torch.eye(n, dtype=V.dtype)
    for v in V.unbind(1):
        Q = Q @ (torch.eye(n, dtype=V.dtype) - 2 * torch.outer(v, v) / (v @ v))
    return Q


@pytest.mark.parametrize(("sigma", "reflectors"), KINDS)
@pytest.mark.parametrize(("c", "d", "r"), SHAPES)
def test_assigning_a_weight_gives_the_nearest_projector(c, d, r, sigma, reflectors):
    A = random(c, d)
    P = projector(c, d, r, sigma=sigma, reflectors=reflectors)
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    scale = torch.ones(r, dtype=A.dtype) if sigma == "identity" else S[:r]
    expected = (U[:, :r] * scale) @ Vh[:r]
    assert (P.weight - expected).norm() <= 1e-12 * max(r, 1) ** 0.5
    # Each frame, not their product alone: two errors of sign could cancel.
    assert (P.directions - Vh[:r].mT).norm() <= 1e-12
    P.weight = P.weight.detach()
    assert (P.weight - expected).norm() <= 1e-12 * max(r, 1) ** 0.5


def test_no_partial_isometry_is_nearer():
    A = random(6, 4)
    best = (A - projector(6, 4, 2).weight).norm()
    for seed in range(1, 50):
        assert best <= (A - projector(6, 4, 2, seed=seed).weight).norm()


@pytest.mark.parametrize("reflectors", ["thin", "full"])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_weight_is_a_partial_isometry_whatever_the_parameters(reflectors, scale):
    P = HouseholderProjector(20, 12, 7, reflectors=reflectors)
    with torch.no_grad():
        P.U.copy_(scale * random(*P.U.shape, dtype=torch.float32))
        P.V.copy_(scale * random(*P.V.shape, seed=1, dtype=torch.float32))
    W = P.weight.detach()
    assert (W @ W.mT @ W - W).abs().max() < 1e-5
    assert torch.linalg.svdvals(W)[:7] == pytest.approx(torch.ones(7).tolist(), abs=1e-5)
    assert torch.linalg.svdvals(W)[7:].abs().max() < 1e-5


def test_directions_are_what_the_map_responds_to_equally():
    P = projector(12, 9, 4, gain=2.5)
    V = P.directions.detach()
    torch.testing.assert_close(V.mT @ V, torch.eye(4, dtype=V.dtype))
    w = random(9, seed=3)
    for a in (0.1, 20.0):
        response = (P(w + a * V.mT) - P(w)).norm(dim=1)
        torch.testing.assert_close(response, torch.full_like(response, 2.5 * a))
    orthogonal = w - V @ (V.mT @ w)
    assert P(orthogonal).norm() < 1e-13


@pytest.mark.parametrize(("sigma", "reflectors"), KINDS)
def test_apply_form_is_the_product_with_the_weight(sigma, reflectors):
    P = projector(7, 5, 3, sigma=sigma, reflectors=reflectors, bias=True, gain=0.3)
    assert P.bias is not None
    with torch.no_grad():
        P.bias.copy_(random(7, seed=4))
    for x in (random(5), random(2, 5), random(2, 3, 5), random(0, 5)):
        torch.testing.assert_close(P(x), x @ P.weight.mT + P.bias)


def test_frames_by_every_route():
    V = random(6, 4, seed=5)
    signs = torch.tensor([1.0, -1, -1, 1]).double()
    expected = reflection_by_reflection(V)[:, :4] * signs
    torch.testing.assert_close(frame(V, signs), expected)
    packed, found = thin_reflectors(expected)
    torch.testing.assert_close(frame(packed, found), expected)
    assert (packed - unit_trapezoidal(packed)).abs().max() == 0
    assert packed.abs().max() <= 1 + 1e-12
    torch.testing.assert_close(frame(full_reflectors(packed), found), expected)
    # LAPACK's own product, as an oracle.
    tau = 2 / packed.square().sum(0)
    theirs = torch.linalg.householder_product(packed.contiguous(), tau) * found
    torch.testing.assert_close(theirs, expected)


def test_reversed_reflectors_give_the_transpose_and_lengths_do_not_matter():
    V, ones = random(6, 6, seed=7), torch.ones(6).double()
    Q = frame(V, ones)
    torch.testing.assert_close(frame(V.flip(-1), ones), Q.mT)
    torch.testing.assert_close(frame(V * random(6, seed=8), ones), Q)
    for k in (1, 2, 5):
        H = frame(torch.cat((V[:, :k], torch.zeros(6, 6 - k).double()), 1), ones)
        assert float(torch.linalg.det(H)) == pytest.approx((-1) ** k)


def test_a_zero_reflector_is_the_identity_and_never_nan():
    P = HouseholderProjector(5, 5, 2, reflectors="full").double()
    with torch.no_grad():
        P.U[:, 1] = 0
    P.weight.sum().backward()
    assert P.weight.isfinite().all()
    assert P.U.grad is not None
    assert P.U.grad.isfinite().all()
    assert P.U.grad[:, 1].abs().max() == 0


@pytest.mark.parametrize("reflectors", ["thin", "full"])
def test_derivatives(reflectors):
    P = projector(4, 3, 2, sigma="learned", reflectors=reflectors)
    x = random(2, 3).requires_grad_()
    parameters = [p.detach().clone().requires_grad_() for p in P.parameters()]
    names = [name for name, _ in P.named_parameters()]

    def value(x, *parameters):
        return torch.func.functional_call(P, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(value, (x, *parameters))
    assert torch.autograd.gradgradcheck(value, (x, *parameters))


def test_gradient_is_tangential_to_dense_reflectors():
    P = projector(6, 5, 3, reflectors="full")
    (P.weight * random(6, 5, seed=8)).sum().backward()
    for R in (P.U, P.V):
        assert R.grad is not None
        assert (R * R.grad).sum(0).abs().max() < 1e-13
        assert R.grad.abs().max() > 1e-3


def test_steps_of_an_optimiser_stay_on_the_manifold():
    P = projector(16, 12, 5, dtype=torch.float32)
    target = random(16, 12, seed=9, dtype=torch.float32)
    optimizer = torch.optim.Adam(P.parameters(), lr=0.05)
    before = (P.weight - target).square().sum().item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = (P.weight - target).square().sum()
        loss.backward()
        optimizer.step()
    W = P.weight.detach()
    assert (W @ W.mT @ W - W).norm() < 1e-5
    # The optimum is known: the nearest projector.
    P.weight = target
    nearest = (P.weight - target).square().sum().item()
    assert loss.item() - nearest < 0.05 * (before - nearest)


def test_state_has_rank_and_sigma():
    P = projector(6, 5, 3, sigma="fixed", gain=2.0)
    Q = HouseholderProjector(5, 6, 3, sigma="fixed").double()
    Q.load_state_dict(P.state_dict())
    torch.testing.assert_close(Q.weight, P.weight, rtol=0, atol=0)
    full = projector(6, 5, 3, reflectors="full").state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for isometry.sigma"):
        HouseholderProjector(5, 6, 2, reflectors="full").load_state_dict(full)


def test_layers_of_one_shape_in_one_call():
    A = random(3, 6, 5)
    P = HouseholderProjector(5, 6, 2, batch=(3,), gain="mean").double()
    P.weight = A
    x = random(3, 4, 5, seed=2)
    for k in range(3):
        one = HouseholderProjector(5, 6, 2, gain="mean").double()
        one.weight = A[k]
        torch.testing.assert_close(P.weight[k], one.weight)
        torch.testing.assert_close(P(x)[k], one(x[k]))
        S = torch.linalg.svdvals(A[k])
        torch.testing.assert_close(one.isometry.gain, S[:2].mean())


def test_half_precision_computes_frames_in_single():
    P = projector(64, 48, 10, dtype=torch.float32)
    H = HouseholderProjector(48, 64, 10).bfloat16()
    H.load_state_dict(P.state_dict())
    rounded = HouseholderProjector(48, 64, 10)
    rounded.load_state_dict({k: v.float() for k, v in H.state_dict().items()})
    # One rounding of the result, and none in between.
    torch.testing.assert_close(H.weight, rounded.weight.bfloat16(), rtol=0, atol=0)
    x = random(3, 48, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = P(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), P(x), rtol=0.02, atol=0.02)
    assert H(x.bfloat16()).dtype == torch.bfloat16
    H(x.bfloat16()).sum().backward()
    assert H.U.grad is not None
    assert H.U.grad.isfinite().all()


def test_vmap_over_codes():
    P = projector(6, 5, 3)
    x = random(7, 5)
    torch.testing.assert_close(torch.func.vmap(P)(x), P(x))


@pytest.mark.compile
def test_compiles_without_a_break():
    P = projector(6, 5, 3, sigma="learned")
    compiled = torch.compile(P, backend="aot_eager", fullgraph=True)
    x = random(4, 5)
    torch.testing.assert_close(compiled(x), P(x))
    compiled(x).sum().backward()
    assert P.U.grad is not None


def test_as_a_parametrisation_of_any_module():
    layer = torch.nn.Linear(5, 6, bias=False).double()
    A = layer.weight.detach().clone()
    parametrize.register_parametrization(
        layer, "weight", HouseholderProjector(5, 6, 2).double().isometry
    )
    P = HouseholderProjector(5, 6, 2).double()
    P.weight = A
    torch.testing.assert_close(layer.weight, P.weight)
    layer.weight = random(6, 5, seed=3)
    P.weight = random(6, 5, seed=3)
    torch.testing.assert_close(layer.weight, P.weight)


def test_rank_deficient_weights_are_completed_and_a_learned_sigma_refuses_them():
    A = torch.outer(random(6), random(5, seed=1))
    P = HouseholderProjector(5, 6, 3).double()
    P.weight = A
    first = P.weight.detach()
    assert torch.linalg.svdvals(first)[:3] == pytest.approx([1, 1, 1])
    P.weight = A
    torch.testing.assert_close(P.weight, first, rtol=0, atol=0)
    with pytest.raises(LinAlgError, match="A must have rank 3 or more for a learned sigma"):
        HouseholderProjector(5, 6, 3, sigma="learned").double().weight = A


@pytest.mark.bad_input
def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"rank must lie in \[0, 4\] for a weight \(6, 4\), got 5"):
        HouseholderProjector(4, 6, 5)
    with pytest.raises(ValueError, match="sigma must be 'identity', 'fixed' or 'learned', got 's'"):
        HouseholderProjector(4, 6, 2, sigma="s")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="reflectors must be 'thin' or 'full', got 'fat'"):
        HouseholderProjector(4, 6, 2, reflectors="fat")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="'mean' with sigma 'identity', got 'mean' with sigma"):
        HouseholderProjector(4, 6, 2, sigma="fixed", gain="mean")
    P = HouseholderProjector(4, 6, 2)
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., 4\), got \(3, 5\)"):
        P(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"A must be .*m=6.*n=4"):
        P.weight = torch.zeros(4, 6)
    with pytest.raises(LinAlgError, match="A"):
        P.weight = torch.full((6, 4), torch.nan)
