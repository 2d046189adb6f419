"""Networks from a string's probabilities, or from a code, to one number."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """F(x) + S(x): F = BN, Mish, Linear, BN, Mish, Linear; S a linear map where widths differ.

    Wei et al. 2024, appendix D.5; parameters are named as in the released code.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.BatchNorm1d(before),
            nn.Mish(),
            nn.Linear(before, after),
            nn.BatchNorm1d(after),
            nn.Mish(),
            nn.Linear(after, after),
        )
        self.skip = nn.Identity() if before == after else nn.Linear(before, after, bias=False)

    def forward(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b m"]:
        """F(x) + S(x)."""
        return self.block(x) + self.skip(x)


class ResidualNetwork(nn.Module):
    """Residual blocks and a linear map: the paper's surrogate.

    Args:
        width: Numbers in the input, all of a row after its first dimension.
        hidden: Widths of the blocks.
    """

    def __init__(self, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        blocks = [ResidualBlock(before, after) for before, after in pairwise((width, *hidden))]
        self.mlp = nn.Sequential(*blocks, nn.Linear(hidden[-1], 1))

    def forward(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, " b"]:
        """One number a row."""
        return self.mlp(x.flatten(1))[:, 0]


class SequenceNetwork(nn.Module):
    """Dilated convolutions over the positions of a string, pooled over those that hold a token.

    What a token does to a property depends on its neighbours much more than on its place, which a
    network over all probabilities at once has to learn for each place anew.

    Args:
        vocabulary: V.
        width: Channels.
        depth: Convolutions, each over 5 positions that lie 1, 2, 4, … apart.
    """

    def __init__(self, vocabulary: int, width: int, depth: int) -> None:
        super().__init__()
        self.input = nn.Linear(vocabulary, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, 5, padding=2 * 2**i, dilation=2**i) for i in range(depth)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, p: Float[Tensor, "b l v"]) -> Float[Tensor, " b"]:
        """One number a row."""
        x = self.input(p).mT
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # On a CPU a fifth of the time of Mish.
            x = x + nn.functional.silu(norm(convolution(x)))
        # How much of a token each position holds; the first token of a vocabulary is padding.
        held = (1 - p[..., 0])[:, None]
        total = (x * held).sum(-1)
        # Sums grow with the molecule, as logP does; means do not, as QED.
        mean = total / held.sum(-1).clamp_min(torch.finfo(p.dtype).eps)
        return self.head(torch.cat((total / p.shape[1], mean), -1))[:, 0]
