"""Exponential and logarithm between skew-symmetric and rotation matrices, so(n) and SO(n).

A real skew S turns planes: S a = θ b, S b = -θ a in orthonormal bases (a, b). Its exponential
is a rotation with the same planes, by the angles θ; the principal logarithm takes angles in
[0, π) back. In the eigenbasis V of the Hermitian matrix iS, with eigenvalues ±θ, the
derivative of the exponential is

    dR = R^1/2 D_S(dS) R^1/2,   D_S(X) = V (sin δ_ij / δ_ij ∘ V^H X V) V^H,  δ_ij = (w_i - w_j) / 2

and that of the logarithm its inverse, a product with δ / sin δ: no threshold decides which
angles are equal, and all derivatives are finite at θ = 0.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from linalg_kernels import errors
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.stumpff import stumpff
from linalg_kernels.transforms import batch_first, inspect

# A skew matrix is refused beyond the relative difference at which `errors` refuses a symmetric
# one, a rotation beyond half the digits of its dtype: more is not rounding.
_ASYMMETRY = 0.02


def _skew(M: Tensor) -> Tensor:
    return (M - M.mT) / 2


def _check_skew(S: Tensor) -> None:
    errors.check_finite(S, "S")
    if S.numel() == 0:
        return
    bad = (S + S.mT).abs().amax((-2, -1)) > _ASYMMETRY * S.abs().amax((-2, -1))
    if bool(bad.any()):
        raise ValueError(
            f"S{errors.element(bad)} must be skew-symmetric; take (S - S.mT) / 2 if that is meant"
        )


def _check_rotation(R: Tensor) -> None:
    errors.check_finite(R, "R")
    n = R.shape[-1]
    if R.numel() == 0:
        return
    eye = torch.eye(n, dtype=R.dtype, device=R.device)
    error = (R.mT @ R - eye).abs().amax((-2, -1))
    bad = error > n * math.sqrt(torch.finfo(R.dtype).eps)
    if bool(bad.any()):
        raise ValueError(
            f"R{errors.element(bad)} must be orthogonal, but an entry of R^T R - I is "
            f"{error[bad][0].item():.2g}; see polar for the nearest orthogonal matrix"
        )
    bad = torch.linalg.det(R) < 0
    if bool(bad.any()):
        raise ValueError(f"R{errors.element(bad)} must be a rotation, but has determinant -1")


# --- so(3) as vectors -----------------------------------------------------------------------


def _vee(S: Tensor) -> Tensor:
    """(*batch, 3, 3) skew -> (*batch, 3), S x = vee(S) × x."""
    return torch.stack([S[..., 2, 1], S[..., 0, 2], S[..., 1, 0]], -1)


def _hat(v: Tensor) -> Tensor:
    """The inverse of `_vee`."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


# --- exponential ----------------------------------------------------------------------------


def _exp(S: Tensor) -> Tensor:
    """exp of an exactly skew matrix, with derivatives of every order."""
    n = S.shape[-1]
    eye = torch.eye(n, dtype=S.dtype, device=S.device)
    if n < 2:
        return S + eye
    if n == 2:
        angle = S[..., 1, 0, None, None]
        quarter = torch.tensor([[0, -1], [1, 0]], dtype=S.dtype, device=S.device)
        return torch.cos(angle) * eye + torch.sin(angle) * quarter
    if n == 3:
        v = _vee(S)
        x = (v * v).sum(-1)[..., None, None]
        square = v[..., :, None] * v[..., None, :] - x * eye
        return eye + stumpff(x, 1) * S + stumpff(x, 2) * square
    return torch.linalg.matrix_exp(S)


@full_precision
def so_exp(
    S: Float[Tensor, "*batch n n"], *, check: bool = True, upcast: bool = False
) -> Float[Tensor, "*batch n n"]:
    """Rotation exp(S) of a real skew-symmetric S, whose entries are angles in radians.

    S stands for (S - S^T)/2. Closed forms for n <= 3 (Rodrigues), else
    `torch.linalg.matrix_exp`. With `check`, NaN or Inf raises `LinAlgError` and an S that is
    far from skew `ValueError`, naming the batch element. `upcast`: see
    `linalg_kernels.spectral`.
    """
    S, dtype = promote(S, upcast)
    errors.require_float(S, "S")
    errors.require_real(S, "S")
    errors.require_square(S, "S")
    if check:
        S = inspect(S, _check_skew)
    return restore(_exp(_skew(S)), dtype)


# --- logarithm: values ----------------------------------------------------------------------


def _log2(R: Tensor) -> Tensor:
    angle = torch.atan2(R[..., 1, 0] - R[..., 0, 1], R[..., 0, 0] + R[..., 1, 1])
    zero = torch.zeros_like(angle)
    return torch.stack([zero, -angle, angle, zero], -1).unflatten(-1, (2, 2))


def _log3(R: Tensor) -> Tensor:
    """By the unit quaternion (w, v): accurate at 0, where tr R is flat, and at π."""
    a, b, c = R.diagonal(dim1=-2, dim2=-1).unbind(-1)
    odd = [R[..., i, j] - R[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))]
    xy, xz, yz = (R[..., i, j] + R[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    # 4 q q^T; its row of the largest diagonal entry is the quaternion without cancellation.
    diagonal = torch.stack([1 + a + b + c, 1 + a - b - c, 1 - a + b - c, 1 - a - b + c], -1)
    rows = [
        [diagonal[..., 0], *odd],
        [odd[0], diagonal[..., 1], xy, xz],
        [odd[1], xy, diagonal[..., 2], yz],
        [odd[2], xz, yz, diagonal[..., 3]],
    ]
    outer = torch.stack([torch.stack(row, -1) for row in rows], -2)
    pivot = diagonal.argmax(-1)[..., None, None]
    q = outer.gather(-2, pivot.expand(*pivot.shape[:-1], 4)).squeeze(-2)
    # The same rotation, by at most π. At π itself the largest component of the axis is > 0.
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    size = v.abs().amax(-1, keepdim=True)
    still = size == 0
    length = size * torch.linalg.vector_norm(v / torch.where(still, 1, size), dim=-1, keepdim=True)
    turn = torch.where(still, 0, 2 * torch.atan2(length, w) / torch.where(still, 1, length))
    return _hat(turn * v)


def _widest_gap(cosines: Tensor) -> Tensor:
    """An angle in [0, π] far from every eigenvalue e^±iθ, from the cosines in ascending order."""
    angles = torch.acos(cosines.clamp(-1, 1)).flip(-1)
    first, last = angles[..., :1], angles[..., -1:]
    gaps = torch.cat([2 * first, angles.diff(dim=-1), 2 * (math.pi - last)], -1)
    middles = torch.cat(
        [torch.zeros_like(first), (angles[..., 1:] + angles[..., :-1]) / 2, torch.pi + 0 * last], -1
    )
    return middles.gather(-1, gaps.argmax(-1, keepdim=True)).squeeze(-1)


def _planes(V: Tensor) -> Tensor:
    """Real orthonormal bases (*batch, n, n) of planes a_1, b_1, a_2, b_2, ... (and an axis).

    `V` (*batch, n, n // 2) are eigenvectors (a + ib)/√2 of iS by falling angle θ >= 0. Those of
    angles at 0 span no planes of their own, and those at π are mixed with their conjugates
    by rounding; orthogonalising real and imaginary parts in this order repairs both.
    """
    n = V.shape[-2]
    pairs = torch.stack([V.real, V.imag], -1).flatten(-2)
    Q, T = torch.linalg.qr(pairs, mode="complete")
    signs = torch.where(T.diagonal(dim1=-2, dim2=-1) < 0, -1, 1)
    if n % 2:
        signs = torch.nn.functional.pad(signs, (0, 1), value=1)
    return Q * signs[..., None, :]


def _skew_from_planes(Q: Tensor, angles: Tensor) -> Tensor:
    """Σ_k θ_k (b_k a_k^T - a_k b_k^T)."""
    half = Q.shape[-1] // 2
    a, b = Q[..., 0 : 2 * half : 2], Q[..., 1 : 2 * half : 2]
    M = (b * angles[..., None, :]) @ a.mT
    return M - M.mT


def _log_general(R: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log R, bases of its planes, their angles, and whether it is defined, for any n.

    e^-iθ -> cot((θ - φ)/2) maps the eigenvalues of R one to one to those of a Hermitian matrix
    of size at most about n, as φ lies in the widest gap between the angles. So only angles that
    are close have eigenvectors that mix. One Newton step makes small angles relatively exact.
    """
    n = R.shape[-1]
    gap = _widest_gap(reference.eigvalsh(reference.hermitian(R)))
    eye = torch.eye(n, dtype=R.dtype, device=R.device)
    pole = torch.polar(torch.ones_like(gap), -gap)[..., None, None] * eye
    H, _ = torch.linalg.solve_ex(pole - R, pole + R)
    _, V = reference.eigh(reference.hermitian(1j * H))
    # R v = e^-iθ v
    angles = -torch.angle((V.conj() * (R.to(V.dtype) @ V)).sum(-2))
    # A plane turned by π to working precision has no orientation. NaN counts as such.
    defined = math.pi - angles.abs().amax(-1) > 16 * n * torch.finfo(R.dtype).eps
    angles, order = angles.sort(-1, descending=True)
    V = V.gather(-1, order[..., None, :].expand_as(V))
    half = n // 2
    Q, angles = _planes(V[..., :half]), angles[..., :half]
    S = _skew_from_planes(Q, angles)
    back = _exp(-S / 2)
    return S + _divide_by_sinc(_skew(back @ R @ back), Q, angles), Q, angles, defined


def _divide_by_sinc(E: Tensor, Q: Tensor, angles: Tensor) -> Tensor:
    """V (δ_ij / sin δ_ij ∘ V^H E V) V^H for skew E, from the planes of S and their angles."""
    half = angles.shape[-1]
    a, b, axis = Q[..., 0 : 2 * half : 2], Q[..., 1 : 2 * half : 2], Q[..., 2 * half :]
    plus = torch.complex(a, b) / math.sqrt(2)
    V = torch.cat([plus, plus.conj(), axis.to(plus.dtype)], -1)
    w = torch.cat([angles, -angles, torch.zeros_like(axis[..., 0, :])], -1)
    delta = (w[..., :, None] - w[..., None, :]) / 2
    # For the two eigenvectors v, v* of one plane δ is the angle itself, so that sin δ / δ
    # vanishes towards π. Their entry v^H E v* is 0 for skew E; its rounding contributes a
    # multiple of v v^T, which is symmetric and taken off.
    sinc = torch.sinc(delta / math.pi)
    return _skew((V @ ((V.mH @ E.to(V.dtype) @ V) / sinc) @ V.mH).real)


# --- logarithm: derivatives -----------------------------------------------------------------


def _exp_derivative(S: Tensor, X: Tensor) -> Tensor:
    """Dexp(S)[X] = ∫₀¹ e^uS X e^(1-u)S du, the corner of exp [[S, X], [0, S]]."""
    n = S.shape[-1]
    top = torch.cat([S, X], -1)
    bottom = torch.cat([torch.zeros_like(S), S], -1)
    return torch.linalg.matrix_exp(torch.cat([top, bottom], -2))[..., :n, n:]


def _exp_derivative2(S: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """D²exp(S)[X, Y], the corner of the derivative of exp [[S, X], [0, S]] in its S."""
    n = S.shape[-1]
    zero = torch.zeros_like(S)
    both = torch.cat([torch.cat([S, X], -1), torch.cat([zero, S], -1)], -2)
    along = torch.cat([torch.cat([Y, zero], -1), torch.cat([zero, Y], -1)], -2)
    return _exp_derivative(both, along)[..., :n, n:]


class _InverseD(Function):
    """(S, E) -> X with D_S(X) = E for skew E, from the planes (Q, angles) of S, n >= 4."""

    @staticmethod
    def forward(_S, E, Q, angles):
        return _divide_by_sinc(E, Q, angles)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    @full_precision
    def backward(ctx, G):
        S, _, Q, angles, X = ctx.saved_tensors
        Z = _inverse_d_general(S, _skew(G), Q, angles)
        gS = None
        if ctx.needs_input_grad[0]:
            # <Z, D_S(X)> = <Z, W L W> with L = Dexp(S)[X] and W = e^(-S/2), differentiated in S.
            W, L = _exp(-S / 2), _exp_derivative(S, X)
            outer = _exp_derivative(-S / 2, Z.mT @ W @ L + L @ W @ Z.mT) / 2
            inner = _exp_derivative2(-S, X, W.mT @ Z @ W.mT)
            gS = _skew(inner - outer)
        return gS, Z, None, None

    @staticmethod
    def vmap(info, in_dims, *args):
        return _inverse_d_general(*batch_first(info.batch_size, in_dims, args)), 0


class _InverseDEager(_InverseD):
    @staticmethod
    @full_precision
    def jvp(ctx, dS, dE, *_):
        S, E, Q, angles, X = ctx.saved_tensors
        right = torch.zeros_like(E) if dE is None else dE
        if dS is not None:
            W, L, dW = _exp(-S / 2), _exp_derivative(S, X), -_exp_derivative(-S / 2, dS) / 2
            change = dW @ L @ W + W @ _exp_derivative2(S, X, dS) @ W + W @ L @ dW
            right = right - change
        return _inverse_d_general(S, _skew(right), Q, angles)


def _inverse_d_general(S: Tensor, E: Tensor, Q: Tensor, angles: Tensor) -> Tensor:
    rule = _InverseD if torch.compiler.is_compiling() else _InverseDEager
    return rule.apply(S, E, Q, angles)


def _inverse_d(S: Tensor, E: Tensor, Q: Tensor | None, angles: Tensor | None) -> Tensor:
    """X with D_S(X) = E for skew E, with derivatives of every order."""
    if S.shape[-1] < 3:
        return E
    if Q is not None and angles is not None:
        return _inverse_d_general(S, E, Q, angles)
    v, e = _vee(S), _vee(E)
    quarter = (v * v).sum(-1, keepdim=True) / 4
    c1, c3 = stumpff(quarter, 1), stumpff(quarter, 3)
    return _hat((e - c3 / 4 * (v * e).sum(-1, keepdim=True) * v) / c1)


class _Log(Function):
    """R -> log R, with the planes of R and their angles where n >= 4."""

    @staticmethod
    def forward(R, check):
        n = R.shape[-1]
        if n < 2:
            return R - R, None, None
        if n < 4:
            S = (_log2 if n == 2 else _log3)(R)
            return torch.where(errors.finite_elements(R)[..., None, None], S, math.nan), None, None
        S, Q, angles, defined = _log_general(R)
        if check and errors.can_read(R) and not bool(defined.all()):
            raise errors.LinAlgError(
                f"R{errors.element(~defined)} turns a plane by π to working precision, so it has "
                "no principal logarithm"
            )
        return torch.where(defined[..., None, None], S, math.nan), Q, angles

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        S, Q, angles = output
        if Q is not None:
            ctx.mark_non_differentiable(Q, angles)
        ctx.save_for_backward(S, Q, angles)
        ctx.save_for_forward(S, Q, angles)

    @staticmethod
    @full_precision
    def backward(ctx, G, *_):
        S, Q, angles = ctx.saved_tensors
        root = _exp(S / 2)
        return root @ _inverse_d(S, _skew(G), Q, angles) @ root, None

    @staticmethod
    def vmap(info, dims, R, check):
        (R,) = batch_first(info.batch_size, dims[:1], (R,))
        out = _log(R, check)
        return out, tuple(None if T is None else 0 for T in out)


class _LogEager(_Log):
    @staticmethod
    @full_precision
    def jvp(ctx, dR, _):
        S, Q, angles = ctx.saved_tensors
        back = _exp(-S / 2)
        return _inverse_d(S, _skew(back @ dR @ back), Q, angles), None, None


def _log(R: Tensor, check: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    rule = _Log if torch.compiler.is_compiling() else _LogEager
    return rule.apply(R, check)


@full_precision
def so_log(
    R: Float[Tensor, "*batch n n"], *, check: bool = True, upcast: bool = False
) -> Float[Tensor, "*batch n n"]:
    """Principal logarithm of a rotation: the skew S with exp(S) = R and angles in [0, π), radians.

    Equivalent to the real part of `scipy.linalg.logm(R)`. Accurate at angle 0 and up to π. A
    rotation by π has several logarithms. For n = 2 it is ±π by the sign of R_21 - R_12 (a
    zero has one too), for n = 3 that whose axis has a positive largest component, both with
    the finite derivatives of that branch. For n >= 4 it is refused: `LinAlgError` naming the
    element with `check=True`, else NaN.

    Only the tangential part of a gradient or a tangent at R counts: derivatives are those of
    the logarithm on SO(n), and motions that leave the rotations have derivative 0.

    With `check`, NaN or Inf raises `LinAlgError`; an R that is not orthogonal (to half the
    digits of its dtype) or has determinant -1 `ValueError`, naming the batch element.
    `upcast`: see `linalg_kernels.spectral`.
    """
    R, dtype = promote(R, upcast)
    errors.require_float(R, "R")
    errors.require_real(R, "R")
    errors.require_square(R, "R")
    if check:
        R = inspect(R, _check_rotation)
    return restore(_log(R, check)[0], dtype)
