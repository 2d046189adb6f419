"""What the parts of a walk ask of one another, so that a user's own fit in.

A task needs a `LatentModel`, which turns molecules into codes and back, and a `Navigator`, which
moves codes. A navigator that follows a property asks a `Surrogate` for it. Codes are row by row:
what happens to a row depends on its values, on its row number and on the seed, never on which
other rows are in the batch. Models are in evaluation mode, and hold no graph between steps.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class LatentModel(Protocol):
    """Molecules and their codes: a VAE, or anything else that has both directions."""

    @property
    def latent_size(self) -> int:
        """D, numbers in a code."""
        ...

    def encode_smiles(self, smiles: Sequence[str]) -> Float[Tensor, "b d"]:
        """Posterior means, not samples. Raises ValueError naming a molecule that has no code."""
        ...

    def decode_smiles(self, z: Float[Tensor, "b d"]) -> list[str]:
        """The most likely molecule of each code as SMILES; "" where nothing decodes."""
        ...


@runtime_checkable
class Navigator(Protocol):
    """Moves codes one step."""

    @property
    def oracle_calls(self) -> int:
        """Molecules that the navigator itself had scored by the oracle, not by a surrogate."""
        ...

    def step(
        self, z: Float[Tensor, "b d"], t: int, rows: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b d"]:
        """The codes after step t = 0, 1, …, without a graph.

        `rows` are the numbers of the rows in the whole run (0 … b-1 if None). Random draws are
        a function of (seed, row, t), so that batches and shards do not change them.
        """
        ...

    def reset(self) -> None:
        """Forgets what it carries from step to step, as Adam's moments."""
        ...


@runtime_checkable
class Surrogate(Protocol):
    """A differentiable guess of a property, in the property's own units."""

    def predict(self, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Mean of the ensemble. Differentiable in z."""
        ...

    def std(self, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Standard deviation over the ensemble; zeros for an ensemble of one."""
        ...
