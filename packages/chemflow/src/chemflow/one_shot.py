"""Encoder and one-shot decoder of LIMO and ChemFlow: all positions of a string at once.

Wei et al. 2024, appendix D.5. Layers are numbered as in the released code, so that a state dict
of it loads as it is.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .draws import drawn


def encoder_layers(width: int, hidden: Sequence[int], latent: int) -> nn.Sequential:
    """Linear, Mish; (Linear, BatchNorm, Mish) ...; Linear to mean and log variance, 2 D numbers."""
    layers: list[nn.Module] = [nn.Linear(width, hidden[0]), nn.Mish()]
    for before, after in pairwise(hidden):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.Mish()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 2 * latent))


class OneShotDecoder(nn.Sequential):
    """(Linear, BatchNorm, Mish) ...; Linear to the logits of every position.

    Args:
        latent: D, size of a code.
        hidden: Widths, from the code to the string.
        length: L, positions of a string.
        vocabulary: V, tokens.
    """

    def __init__(self, latent: int, hidden: Sequence[int], length: int, vocabulary: int) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((latent, *hidden)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.Mish()]
        super().__init__(*layers, nn.Linear(hidden[-1], length * vocabulary))
        self.shape = (length, vocabulary)

    def logits(
        self,
        z: Float[Tensor, "b d"],
        ids: Int64[Tensor, "b l"],  # noqa: ARG002 - positions do not see one another
    ) -> Float[Tensor, "b l v"]:
        """Of each position; `ids` are not looked at."""
        return self(z).unflatten(-1, self.shape)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "b d"]) -> Int64[Tensor, "b l"]:
        """The most likely token of each position."""
        return self(z).unflatten(-1, self.shape).argmax(-1)

    @torch.no_grad()
    def draw(
        self, z: Float[Tensor, "b d"], uniform: Float[Tensor, "b l"], temperature: float
    ) -> Int64[Tensor, "b l"]:
        """A token for each position, by one number of (0, 1)."""
        return drawn(self(z).unflatten(-1, self.shape) / temperature, uniform)

    def probabilities(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b l v"]:
        """Of each token at each position; differentiable in z."""
        return self(z).unflatten(-1, self.shape).softmax(-1)

    def log_weights(self, ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """Which positions count in the likelihood: all, padding too."""
        return torch.ones(ids.shape, device=ids.device)
