"""log|det(I + H)| where H is a sum of weighted outer products, with the gradient by hand.

Autograd through such a sum makes each product twice and keeps a dozen matrices a row; by hand
it is one. Where more than a gradient is asked for (a second derivative, a torch.func transform,
a trace) the same is written in plain operations.
"""

from collections.abc import Callable, Iterator

import torch
from linalg_kernels import errors, logabsdet_sym
from linalg_kernels.logabsdet import logabsdet_with_inverse
from linalg_kernels.precision import full_precision
from linalg_kernels.transforms import EagerRule, differentiated, inspect, transformed
from torch import Tensor

# Numbers worked on at a time: they then stay in the cache.
_BLOCK = 2**19


@full_precision
def outer_logabsdet(R: Tensor, d: Tensor, W: Tensor, a: Tensor) -> Tensor:
    """log|det(I + Σ_i d_i r_i r_iᵀ + Σ_j a_j w_j w_jᵀ)| of each row of a batch.

    Args:
        R: Vectors r_i of each row, (rows, p, n).
        d: Their weights, (rows, p).
        W: Vectors w_j that all rows share, (m, n).
        a: Their weights, (rows, m).
    """
    # On a GPU to ask which rows have Cholesky factors would wait for it.
    if transformed() or R.is_cuda or not errors.can_read(R):
        return _by_definition(R, d, W, a)
    if differentiated(R, d, W, a):
        return _OuterLogAbsDet.apply(R, d, W, a)
    value = a.new_empty(len(a))
    for part in _parts(R):
        value[part] = logabsdet_sym(_matrix(R, d, W, a, part), symmetrize=False, check=False)
    return value


def check_regular(logabsdet: Tensor) -> Tensor:
    """The same; LinAlgError naming the first row that is singular or not finite."""

    def look(values: Tensor) -> None:
        if bool(torch.isfinite(values.sum())):
            return
        for bad, what in (
            (values == -torch.inf, "is singular, so log|det| is -inf there"),
            (~values.isfinite(), "contains NaN or Inf"),
        ):
            if bool(bad.any()):
                raise errors.LinAlgError(f"I + step ∇²u{errors.element(bad)} {what}")

    return inspect(logabsdet, look)


def _by_definition(R: Tensor, d: Tensor, W: Tensor, a: Tensor) -> Tensor:
    H = (R * d[..., None]).mT @ R + (W.mT * a[..., None, :]) @ W
    return torch.linalg.slogdet(torch.eye(H.shape[-1], dtype=H.dtype, device=H.device) + H)[1]


def _parts(R: Tensor) -> Iterator[slice]:
    rows, p, n = R.shape
    size = max(1, _BLOCK // max(1, n * max(n, p)))
    return (slice(begin, begin + size) for begin in range(0, rows, size))


def _matrix(R: Tensor, d: Tensor, W: Tensor, a: Tensor, part: slice) -> Tensor:
    own = R[part]
    H = torch.bmm((own * d[part, :, None]).mT, own)
    shared = W.mT.contiguous() * a[part, None, :]
    return H.view(-1, H.shape[-1]).addmm_(shared.view(-1, len(W)), W).view(H.shape)


class _OuterLogAbsDet(EagerRule):
    @staticmethod
    def forward(ctx, R, d, W, a):
        rows, _, n = R.shape
        value, P = a.new_empty(rows), R.new_empty(rows, n, n)
        for part in _parts(R):
            H = _matrix(R, d, W, a, part)
            value[part], P[part] = logabsdet_with_inverse(H, symmetrize=False)
        ctx.save_for_backward(R, d, W, a, P)
        return value

    @staticmethod
    def backward(ctx, g):
        *inputs, P = ctx.saved_tensors
        if _more_is_asked(g):
            return _again(_by_definition, inputs, g)
        # tr(P dH) with P = (I + H)⁻¹.
        R, d, W, a = inputs
        dR, dd, da, WT = torch.empty_like(R), torch.empty_like(d), torch.empty_like(a), W.mT
        WT = WT.contiguous()
        dWT = torch.zeros_like(WT)
        twice_d, twice_a = 2 * g[:, None] * d, 2 * g[:, None] * a
        for part in _parts(R):
            RP = torch.bmm(R[part], P[part])
            dd[part] = torch.linalg.vecdot(R[part], RP)
            torch.mul(RP, twice_d[part, :, None], out=dR[part])
            PW = (P[part].view(-1, len(WT)) @ WT).view(-1, *WT.shape)
            da[part] = (PW * WT).sum(1)
            PW *= twice_a[part, None, :]
            dWT += PW.sum(0)
        return dR, g[:, None] * dd, dWT.mT, g[:, None] * da


def _more_is_asked(g: Tensor) -> bool:
    """Of a backward pass: a second derivative, or the gradients of several values at once."""
    batched = torch._C._functorch.is_legacy_batchedtensor(g)
    return batched or torch.is_grad_enabled() or transformed()


def _again(f: Callable[..., Tensor], inputs: list[Tensor], g: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient by plain operations, to be differentiated once more or under vmap."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Inputs depend on each other; their stand-ins do not, so each has its own share.
        stand_ins = [x.view_as(x) for x in inputs]
        value = f(*stand_ins)
    wanted = [x for x in stand_ins if x.requires_grad]
    found = iter(torch.autograd.grad(value, wanted, g, create_graph=again))
    return tuple(next(found) if x.requires_grad else None for x in inputs)
