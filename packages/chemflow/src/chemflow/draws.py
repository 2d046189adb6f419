"""Random draws that are a function of (seed, row, step) and of nothing else.

Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror and Shaw, SC 2011): the counter
holds the row, the step and the position in the row, the key the seed and the purpose. A row gets
the same numbers in any batch, on any shard, and on any device up to the rounding of log and cos.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(
    counter: Int64[Tensor, "*batch 4"], key: tuple[int, int], rounds: int = 10
) -> Int64[Tensor, "*batch 4"]:
    """Four random words of 32 bits for each counter of four such words."""
    a, b, c, d = counter.unbind(-1)
    k0, k1 = key
    for _ in range(rounds):
        # A product of two words fills 64 bits; int64 wraps, which keeps them all.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            ((right >> 32) & _WORD) ^ b ^ k0,
            right & _WORD,
            ((left >> 32) & _WORD) ^ d ^ k1,
            left & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return torch.stack((a, b, c, d), -1)


def uniform_rows(
    seed: int, rows: Int64[Tensor, " b"], size: int, step: int = 0, purpose: int = 0
) -> Float[Tensor, "b size"]:
    """Uniform draws (b, size) from (0, 1) in float64, on the device of `rows`.

    `purpose` (0 … 2**32 - 1) keeps apart draws for different uses under one seed.

    Raises ValueError for a negative seed, row or step.
    """
    return _words(seed, rows, size, step, purpose).flatten(1)[:, :size]


def _words(
    seed: int, rows: Int64[Tensor, " b"], size: int, step: int, purpose: int
) -> Float[Tensor, "b blocks 4"]:
    """Four uniform draws for each block of four numbers of a row."""
    if not 0 <= seed < 1 << 32 or not 0 <= purpose < 1 << 32:
        raise ValueError(f"seed and purpose must be in 0 … 2**32 - 1, got {seed} and {purpose}")
    if not 0 <= step < 1 << 32 or (rows.numel() and int(rows.min()) < 0):
        raise ValueError(f"rows and step must not be negative, got step {step}, rows {rows}")
    blocks = -(-size // 4)
    counter = rows.new_empty(len(rows), blocks, 4)
    counter[..., 0] = torch.arange(blocks, device=rows.device)
    counter[..., 1] = step
    counter[..., 2] = (rows & _WORD)[:, None]
    counter[..., 3] = (rows >> 32)[:, None]
    # The middle of each of 2**32 cells: never 0, so that the logarithm is finite.
    return (philox(counter, (seed, purpose)).double() + 0.5) / 2**32


def normal_rows(
    seed: int, rows: Int64[Tensor, " b"], size: int, step: int = 0, purpose: int = 0
) -> Float[Tensor, "b size"]:
    """Standard normal draws (b, size) in float32, on the device of `rows`.

    `purpose` (0 … 2**32 - 1) keeps apart draws for different uses under one seed.

    Raises ValueError for a negative seed, row or step.
    """
    uniform = _words(seed, rows, size, step, purpose)
    radius = (-2 * uniform[..., :2].log()).sqrt()
    angle = 2 * math.pi * uniform[..., 2:]
    # Box and Muller in float64: what vector and scalar code round differently is then lost.
    pairs = torch.cat((radius * angle.cos(), radius * angle.sin()), -1)
    return pairs.flatten(1)[:, :size].float()


def drawn(
    logits: Float[Tensor, "*batch v"], uniform: Float[Tensor, "*batch"]
) -> Int64[Tensor, "*batch"]:
    """The token in whose share of (0, 1) a number falls."""
    ends = logits.double().softmax(-1).cumsum(-1)
    # The last end is 1 up to rounding: no number may lie beyond it.
    return (ends < (uniform * ends[..., -1])[..., None]).sum(-1)
