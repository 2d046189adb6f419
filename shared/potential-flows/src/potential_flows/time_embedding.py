"""Sinusoidal embedding of real times."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sinusoidal_embedding(
    t: Float[Tensor, "*batch"], dim: int, max_period: float = 1e4
) -> Float[Tensor, "*batch {dim}"]:
    """[sin ω_j t, cos ω_j t] with ω_j = max_period^(-j/(m-1)), j = 0 … m-1, m = dim/2.

    Frequencies fall from 1 to 1/max_period radians per unit of t, and are not trained. Vaswani
    et al. 2017, section 3.5, with sines before cosines. (ChemFlow's released code leaves out
    the exponential, which makes the frequencies negative and grow linearly.)

    Args:
        t: Times; any real number.
        dim: Size of the embedding, even and at least 4; ValueError otherwise.
        max_period: Ratio of the highest to the lowest frequency, greater than 1.
    """
    phase = t[..., None] * _frequencies(t, dim, max_period)
    return torch.cat((phase.sin(), phase.cos()), -1)


def embedding_with_rate(t: Tensor, dim: int, scale: float) -> tuple[Tensor, Tensor]:
    """`sinusoidal_embedding` of scale · t, and its derivative in t."""
    omega = _frequencies(t, dim, 1e4)
    phase = (scale * t)[..., None] * omega
    sine, cosine = phase.sin(), phase.cos()
    omega = scale * omega
    return torch.cat((sine, cosine), -1), torch.cat((omega * cosine, -omega * sine), -1)


def _frequencies(t: Tensor, dim: int, max_period: float) -> Tensor:
    if dim < 4 or dim % 2:
        raise ValueError(f"dim must be even and at least 4, got {dim}")
    if not max_period > 1:
        raise ValueError(f"max_period must be greater than 1, got {max_period}")
    half = dim // 2
    # Made anew in the dtype of t: a stored float32 buffer would stay rounded after .double().
    steps = torch.arange(half, dtype=t.dtype, device=t.device)
    return torch.exp(steps * (-math.log(max_period) / (half - 1)))
