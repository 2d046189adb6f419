"""The Householder projector: a weight of rank r whose r singular values are one number.

P = g U diag(σ) Vᵀ with orthonormal frames U (c, r) and V (d, r) that are products of Householder
reflections (`frames`), so that an optimiser's step keeps them orthonormal. The columns v_j of V
are the directions: parameters, and so reproducible, which singular vectors of P are not, since
with σ = 1 any orthonormal basis of their span is one. Song et al., "Householder Projector for
Unsupervised Latent Semantics Discovery", ICCV 2023, arXiv:2307.08012.
"""

from typing import Literal

import torch
from jaxtyping import Float
from linalg_kernels.errors import LinAlgError, check_finite, require_matrix
from torch import Tensor, nn

from householder_gan.frames import frame, full_reflectors, thin_reflectors, unit_trapezoidal

Sigma = Literal["identity", "fixed", "learned"]
Reflectors = Literal["thin", "full"]


def nearest_factors(
    A: Float[Tensor, "*batch c d"], rank: int
) -> tuple[Float[Tensor, "*batch c r"], Float[Tensor, "*batch k"], Float[Tensor, "*batch d r"]]:
    """U_r, all singular values in descending order and V_r of A = U Σ Vᵀ, in float64.

    U_r V_rᵀ is the partial isometry of rank r nearest to A in the Frobenius norm, unique where
    σ_r > σ_{r+1}. Raises LinAlgError for NaN or Inf, naming the element.
    """
    check_finite(A, "A")
    U, S, Vh = torch.linalg.svd(A.detach().double(), full_matrices=False)
    return U[..., :rank], S, Vh[..., :rank, :].mT


class PartialIsometry(nn.Module):
    """g U diag(σ) Vᵀ as a parametrisation: reflectors -> weight, and back from any weight.

    For `torch.nn.utils.parametrize`, on a weight (*batch, rows, columns) whose columns belong to
    the latent code. σ, the gain g and the signs of the frames are buffers and so in every
    state_dict; a checkpoint of another rank is refused.

    Args:
        rows, columns: c and d of the weight.
        rank: r, at most min(c, d). 0 is the zero matrix.
        sigma: "identity" (the paper's), "fixed" (the r largest singular values of the weight
            that was put in) or "learned" (from these on, as exp of a parameter).
        reflectors: "thin", r of them for each frame, or "full", as in official checkpoints.
        gain: g. "mean" takes the mean of the r largest singular values of the weight that is put
            in, which makes P the nearest multiple of a partial isometry; for sigma "identity".
        batch: Leading dimensions, for layers of one shape in one call.
    """

    sigma: Tensor
    gain: Tensor
    sign_U: Tensor
    sign_V: Tensor

    def __init__(
        self,
        rows: int,
        columns: int,
        rank: int,
        *,
        sigma: Sigma = "identity",
        reflectors: Reflectors = "thin",
        gain: float | Literal["mean"] = 1.0,
        batch: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        if not 0 <= rank <= min(rows, columns):
            raise ValueError(
                f"rank must lie in [0, {min(rows, columns)}] for a weight ({rows}, {columns}), "
                f"got {rank}"
            )
        if sigma not in ("identity", "fixed", "learned"):
            raise ValueError(f"sigma must be 'identity', 'fixed' or 'learned', got {sigma!r}")
        if reflectors not in ("thin", "full"):
            raise ValueError(f"reflectors must be 'thin' or 'full', got {reflectors!r}")
        if isinstance(gain, str) and (gain != "mean" or sigma != "identity"):
            raise ValueError(
                f"gain must be a number, or 'mean' with sigma 'identity', got {gain!r} with "
                f"sigma {sigma!r}"
            )
        self.rows, self.columns, self.rank, self.batch = rows, columns, rank, batch
        self.sigma_kind, self.reflectors, self.mean_gain = sigma, reflectors, gain == "mean"
        self.register_buffer("sigma", torch.ones(*batch, rank))
        self.register_buffer("gain", torch.full(batch, 1.0 if gain == "mean" else float(gain)))
        self.register_buffer("sign_U", torch.ones(*batch, rank))
        self.register_buffer("sign_V", torch.ones(*batch, rank))

    def extra_repr(self) -> str:
        return (
            f"{self.rows}, {self.columns}, rank={self.rank}, sigma={self.sigma_kind!r}, "
            f"reflectors={self.reflectors!r}"
        )

    def factors(
        self, U: Tensor, V: Tensor, log_sigma: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """U_r (*batch, c, r), g σ (*batch, r) and V_r (*batch, d, r), at least in float32."""
        wide = torch.promote_types(U.dtype, torch.float32)
        with torch.autocast(U.device.type, enabled=False):
            thin = self.reflectors == "thin"
            frames = [
                frame(unit_trapezoidal(R.to(wide)) if thin else R.to(wide), sign.to(wide))
                for R, sign in ((U, self.sign_U), (V, self.sign_V))
            ]
            sigma = self.sigma.to(wide) if log_sigma is None else log_sigma.to(wide).exp()
            return frames[0], self.gain.to(wide)[..., None] * sigma, frames[1]

    def forward(self, U: Tensor, V: Tensor, log_sigma: Tensor | None = None) -> Tensor:
        """The weight (*batch, c, d) in the dtype of U, computed at least in float32."""
        left, sigma, right = self.factors(U, V, log_sigma)
        with torch.autocast(U.device.type, enabled=False):
            return ((left * sigma[..., None, :]) @ right.mT).to(U.dtype)

    def right_inverse(self, A: Tensor) -> tuple[Tensor, ...]:
        """Reflectors of the frames nearest to A (*batch, c, d); sets σ, gain and signs.

        forward(*right_inverse(A)) is g U_r V_rᵀ, or g U_r diag(σ_1 … σ_r) V_rᵀ for sigma other
        than "identity", where A = U Σ Vᵀ. Raises ValueError for another shape, LinAlgError for
        NaN, Inf, or, if σ is learned, an A of lower rank.
        """
        require_matrix(A, "A", m=self.rows, n=self.columns)
        if tuple(A.shape[:-2]) != self.batch:
            raise ValueError(
                f"A must be {(*self.batch, self.rows, self.columns)}, got {tuple(A.shape)}"
            )
        left, S, right = nearest_factors(A, self.rank)
        top = S[..., : self.rank]
        if self.sigma_kind == "learned" and self.rank:
            floor = max(self.rows, self.columns) * torch.finfo(A.dtype).eps * S[..., 0]
            if bool((top[..., -1] <= floor).any()):
                raise LinAlgError(
                    f"A must have rank {self.rank} or more for a learned sigma, which is "
                    f"positive, got {top[..., -1].tolist()} for the singular value {self.rank}"
                )
        with torch.no_grad():
            if self.mean_gain and self.rank:
                self.gain.copy_(top.mean(-1))
            packed = []
            for F, sign in ((left, self.sign_U), (right, self.sign_V)):
                reflectors, signs = thin_reflectors(F)
                sign.copy_(signs)
                full = self.reflectors == "full"
                packed.append((full_reflectors(reflectors) if full else reflectors).to(A.dtype))
            if self.sigma_kind != "identity":
                self.sigma.copy_(top)
        if self.sigma_kind != "learned":
            return tuple(packed)
        return (*packed, top.log().to(A.dtype))


class HouseholderProjector(nn.Module):
    """The linear map x -> g U diag(σ) Vᵀ x + b on the last dimension, never forming the matrix.

    Two products with skinny frames, O(B r (c + d)) for B rows of x. `weight` is the matrix
    (*batch, c, d), and assigning to it puts the nearest projector in its place. x is
    (*batch, …, d) -> (*batch, …, c). Frames are computed at least in float32.

    Args:
        in_features, out_features: d and c.
        rank: r, at most min(c, d).
        sigma, reflectors, gain, batch: As in `PartialIsometry`.
        bias: Whether b (*batch, c) is learned, from 0.

    It starts at the projector nearest to a random Gaussian matrix.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        sigma: Sigma = "identity",
        reflectors: Reflectors = "thin",
        gain: float | Literal["mean"] = 1.0,
        bias: bool = False,
        batch: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.isometry = PartialIsometry(
            out_features,
            in_features,
            rank,
            sigma=sigma,
            reflectors=reflectors,
            gain=gain,
            batch=batch,
        )
        thin = reflectors == "thin"
        self.U = nn.Parameter(torch.empty(*batch, out_features, rank if thin else out_features))
        self.V = nn.Parameter(torch.empty(*batch, in_features, rank if thin else in_features))
        self.log_sigma = nn.Parameter(torch.zeros(*batch, rank)) if sigma == "learned" else None
        self.bias = nn.Parameter(torch.zeros(*batch, out_features)) if bias else None
        self.weight = torch.randn(*batch, out_features, in_features) / max(in_features, 1) ** 0.5

    @property
    def rank(self) -> int:
        """r, the number of directions."""
        return self.isometry.rank

    @property
    def weight(self) -> Float[Tensor, "*batch c d"]:
        """g U diag(σ) Vᵀ."""
        return self.isometry(self.U, self.V, self.log_sigma)

    @weight.setter
    def weight(self, A: Float[Tensor, "*batch c d"]) -> None:
        found = self.isometry.right_inverse(A.to(self.U))
        with torch.no_grad():
            for parameter, value in zip((self.U, self.V, self.log_sigma), found, strict=False):
                if parameter is not None:
                    parameter.copy_(value)

    @property
    def directions(self) -> Float[Tensor, "*batch d r"]:
        """Orthonormal columns v_j: P v_j = g σ_j u_j, and P x = 0 for x orthogonal to them."""
        return self.isometry.factors(self.U, self.V, self.log_sigma)[2].to(self.V.dtype)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... c"]:
        """x -> P x + b. Raises ValueError for a last dimension that is not d."""
        d, lead = self.isometry.columns, len(self.isometry.batch)
        if x.ndim <= lead or x.shape[-1] != d or tuple(x.shape[:lead]) != self.isometry.batch:
            wanted = ", ".join(str(k) for k in (*self.isometry.batch, "...", d))
            raise ValueError(f"x must be ({wanted}), got {tuple(x.shape)}")
        left, sigma, right = self.isometry.factors(self.U, self.V, self.log_sigma)
        rows = x.reshape(*x.shape[:lead], -1, d)
        # Rounded only now: the frames themselves are found in float32 or better.
        code = rows @ right.to(x.dtype) * sigma[..., None, :].to(x.dtype)
        y = code @ left.mT.to(code.dtype)
        if self.bias is not None:
            y = y + self.bias[..., None, :]
        return y.reshape(*x.shape[:-1], self.isometry.rows)

    def extra_repr(self) -> str:
        return f"bias={self.bias is not None}"
