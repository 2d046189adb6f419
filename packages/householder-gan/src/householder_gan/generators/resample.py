"""Raising and lowering the sampling rate of images with a finite impulse response filter."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def binomial_kernel(
    taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0), gain: float = 1.0
) -> Float[Tensor, "k k"]:
    """The outer square of the taps, of sum `gain`: StyleGAN2's filter for every change of rate."""
    line = torch.tensor(taps)
    kernel = torch.outer(line, line)
    return kernel * (gain / kernel.sum())


def _along(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolution of every channel with kernel (kh, kw)."""
    weight = kernel.flip(-2, -1).to(x).expand(x.shape[1], 1, *kernel.shape)
    return functional.conv2d(x, weight, groups=x.shape[1])


def resample(
    x: Float[Tensor, "batch c h w"],
    kernel: Float[Tensor, "..."] | None,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Float[Tensor, "batch c i j"]:
    """Zeros between samples (`up`), padding, convolution with the kernel, every `down`-th sample.

    Padding is (left, right, top, bottom) at the raised rate; negative numbers crop. The kernel is
    (k, k), or (k,) of a separable one, or None for no filter.
    """
    batch, c, h, w = x.shape
    if up > 1:
        spread = x.new_zeros(batch, c, h, up, w, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.view(batch, c, h * up, w * up)
    left, right, top, bottom = padding
    x = functional.pad(x, [max(p, 0) for p in padding])
    x = x[
        ...,
        max(-top, 0) : x.shape[-2] - max(-bottom, 0),
        max(-left, 0) : x.shape[-1] - max(-right, 0),
    ]
    if kernel is not None:
        if kernel.ndim == 2:
            x = _along(x, kernel * gain)
        else:
            root = gain**0.5
            x = _along(_along(x, (kernel * root)[:, None]), (kernel * root)[None])
    elif gain != 1:
        x = x * gain
    return x[..., ::down, ::down]
