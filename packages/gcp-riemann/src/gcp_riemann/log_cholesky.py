"""The log-Cholesky map: ⌊L⌋ + ⌊L⌋ᵀ + 2 log diag L of Σ = L Lᵀ.

It is the logarithm at I of the log-Cholesky metric, and costs one Cholesky factorisation. With
H the lower triangle of G + Gᵀ, its diagonal divided by that of L, and Φ, which takes the lower
triangle and halves its diagonal, the gradient is the symmetric part of L^-T Φ(Lᵀ H) L^-1.
"""

import torch
from jaxtyping import Float
from linalg_kernels import cholesky_ex, errors, powm
from linalg_kernels.transforms import inspect
from torch import Tensor, nn

from gcp_riemann import inputs, onnx_eigen
from gcp_riemann.shift import default_shift, shifted


def _plain(S: Tensor, theta: float, shift: float, absolute_shift: float) -> Tensor:
    """The definition, for any θ and whatever transforms look on."""
    P = shifted((S + S.mT) / 2, shift, absolute_shift)
    if onnx_eigen.exporting():
        P = P if theta == 1 else onnx_eigen.spectral(P, lambda w: w**theta)
        L = onnx_eigen.cholesky(P)
    else:
        P = P if theta == 1 else powm(P, theta, check=False, nonpos="raise", name="P")
        L, info = cholesky_ex(P, name="P")
        # Also on a GPU, where `cholesky(check=False)` waits for nothing and gives NaN.
        inspect(info, lambda found: errors.check_info(found, "P"))
    lower = L.tril(-1)
    X = lower + lower.mT + torch.diag_embed(2 * L.diagonal(dim1=-2, dim2=-1).log())
    return X if theta == 1 else X / theta


class _LogCholesky(torch.autograd.Function):
    """Σ (*batch, n, n), symmetrised -> ⌊L⌋ + ⌊L⌋ᵀ + 2 log diag L of its shift."""

    @staticmethod
    def forward(ctx, S, shift, absolute_shift):
        L = (S + S.mT).mul_(0.5)
        n = S.shape[-1]
        trace = inputs.trace(S)[..., 0]
        lift = shift * trace / n + absolute_shift
        zero = (trace == 0) & (lift == 0)
        L.diagonal(dim1=-2, dim2=-1).add_(torch.where(zero, 1, lift))
        L, info = torch.linalg.cholesky_ex(L)
        errors.check_info(info, "P")
        ctx.save_for_backward(S, L, zero)
        ctx.shift, ctx.absolute_shift = shift, absolute_shift
        X = L + L.mT
        X.diagonal(dim1=-2, dim2=-1).copy_(2 * L.diagonal(dim1=-2, dim2=-1).log())
        return X

    @staticmethod
    def backward(ctx, G):
        S, L, zero = ctx.saved_tensors
        with inputs.full_precision(S.device):
            if torch.is_grad_enabled():
                # Of this derivative another one is wanted: leave the whole to autograd.
                X = _plain(S, 1.0, ctx.shift, ctx.absolute_shift)
                return torch.autograd.grad(X, S, G, create_graph=True)[0], None, None
            H = (G + G.mT).tril_()
            H.diagonal(dim1=-2, dim2=-1).div_(L.diagonal(dim1=-2, dim2=-1))
            M = (L.mT @ H).tril_()
            M.diagonal(dim1=-2, dim2=-1).mul_(0.5)
            M = torch.linalg.solve_triangular(L.mT, M, upper=True)
            M = torch.linalg.solve_triangular(L, M, upper=False, left=False)
            g = (M + M.mT).mul_(0.5)
            # The shift grows with the trace.
            g.diagonal(dim1=-2, dim2=-1).add_((ctx.shift / S.shape[-1]) * inputs.trace(g)[..., 0])
            return g.masked_fill_(zero[..., None], 0), None, None


def log_cholesky(
    P: Float[Tensor, "*batch n n"],
    theta: float = 1.0,
    *,
    shift: float | None = None,
    absolute_shift: float = 0.0,
    check: bool = True,
) -> Float[Tensor, "*batch n n"]:
    """(1/θ)(⌊L⌋ + ⌊L⌋ᵀ + 2 log diag L) with L Lᵀ = (P + s (tr P / n) I)^θ.

    The logarithm at I of the log-Cholesky metric `spd_metrics.LogCholesky(theta)`; zero for
    P = 0, with derivative zero. Raises LinAlgError naming the element that is not positive
    definite in spite of the shift s (see `gcp_riemann.shift`).

    Source: Chen et al., ICLR 2025, Tab. 2; the official code shifts by 1e-6 whatever the unit,
    which is `shift=0.0, absolute_shift=1e-6`.
    """
    inputs.require_positive(theta, "theta")
    with inputs.full_precision(P.device):
        P = inputs.matrices(P, check, symmetrise=False)
        shift = default_shift(P.shape[-1], P.dtype) if shift is None else shift
        if theta == 1 and not inputs.traced() and errors.can_read(P):
            return _LogCholesky.apply(P, shift, absolute_shift)
        return _plain(P, theta, shift, absolute_shift)


class LogCholesky(nn.Module):
    """(1/θ)(⌊L⌋ + ⌊L⌋ᵀ + 2 log diag L) with L Lᵀ = (P + s (tr P / n) I)^θ.

    Args:
        theta: θ > 0; 1 costs one Cholesky factorisation.
        shift: s >= 0; None: see `gcp_riemann.shift`.
        absolute_shift: Added to the diagonal whatever the unit of P, as the official code does.
        check: Raise an error that names the bad element.
    """

    def __init__(
        self,
        theta: float = 1.0,
        shift: float | None = None,
        *,
        absolute_shift: float = 0.0,
        check: bool = True,
    ) -> None:
        super().__init__()
        inputs.require_positive(theta, "theta")
        if shift is not None:
            inputs.require_not_negative(shift, "shift")
        inputs.require_not_negative(absolute_shift, "absolute_shift")
        self.theta, self.shift, self.check = theta, shift, check
        self.absolute_shift = absolute_shift

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """See `log_cholesky`."""
        return log_cholesky(
            P,
            self.theta,
            shift=self.shift,
            absolute_shift=self.absolute_shift,
            check=self.check,
        )

    def extra_repr(self) -> str:
        """Options."""
        return f"{self.theta}, shift={self.shift}, absolute_shift={self.absolute_shift}"
