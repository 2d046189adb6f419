"""A decoder that writes a string token by token, each seeing the code and those before it.

A one-shot decoder draws positions independently of one another, so that a code between two
molecules decodes to a mixture of both strings. A recurrent one writes one of them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .draws import drawn

END = 0
"""The padding token starts a string and ends it."""


class AutoregressiveDecoder(nn.Module):
    """Gated recurrent units (Cho et al. 2014) that start from the code and see it at every step.

    Args:
        latent: D, size of a code.
        embedding: Size of a token's vector, and of the code's share of the input.
        state: Width of the recurrent state.
        length: L, longest string.
        vocabulary: V, tokens.
    """

    def __init__(
        self, latent: int, embedding: int, state: int, length: int, vocabulary: int
    ) -> None:
        super().__init__()
        self.length = length
        self.vocabulary = vocabulary
        self.tokens = nn.Embedding(vocabulary, embedding)
        self.start = nn.Linear(latent, state)
        self.condition = nn.Linear(latent, embedding)
        self.recurrence = nn.GRU(embedding, state, batch_first=True)
        self.head = nn.Linear(state, vocabulary)

    def logits(self, z: Float[Tensor, "b d"], ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        """Of each position given the true tokens before it."""
        before = nn.functional.pad(ids[:, :-1], (1, 0), value=END)
        inputs = self.tokens(before) + self.condition(z)[:, None]
        return self.head(self.recurrence(inputs, self._state(z))[0])

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "b d"]) -> Int64[Tensor, "b l"]:
        """Greedy: the most likely token, given those chosen before it; padding after the end."""
        return self._write(z, lambda logits, i: logits.argmax(-1))  # noqa: ARG005

    @torch.no_grad()
    def draw(
        self, z: Float[Tensor, "b d"], uniform: Float[Tensor, "b l"], temperature: float
    ) -> Int64[Tensor, "b l"]:
        """Tokens drawn one after another, each by one number of (0, 1)."""
        return self._write(z, lambda logits, i: drawn(logits / temperature, uniform[:, i]))

    def _write(self, z: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Int64[Tensor, "b l"]:
        condition, state = self.condition(z)[:, None], self._state(z)
        token = torch.full((len(z),), END, dtype=torch.int64, device=z.device)
        ended = torch.zeros(len(z), dtype=torch.bool, device=z.device)
        ids = torch.full((len(z), self.length), END, dtype=torch.int64, device=z.device)
        for i in range(self.length):
            output, state = self.recurrence(self.tokens(token)[:, None] + condition, state)
            token = choose(self.head(output[:, 0]), i).masked_fill(ended, END)
            ended |= token == END
            ids[:, i] = token
            if bool(ended.all()):
                break
        return ids

    def probabilities(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b l v"]:
        """Of each token given the greedy tokens before it, and certainty of padding after the end.

        Differentiable in z with the greedy tokens held fixed.
        """
        ids = self.decode(z)
        found = self.logits(z, ids).softmax(-1)
        certain = nn.functional.one_hot(torch.full_like(ids, END), self.vocabulary).to(found)
        return torch.where(counted(ids)[..., None], found, certain)

    def log_weights(self, ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """Which positions count in the likelihood: tokens and the first padding, the end."""
        return counted(ids).float()

    def _state(self, z: Tensor) -> Tensor:
        return self.start(z).tanh()[None]


def counted(ids: Int64[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
    """True at tokens and at the first padding."""
    return nn.functional.pad(ids[:, :-1] != END, (1, 0), value=True).cumprod(-1).bool()
