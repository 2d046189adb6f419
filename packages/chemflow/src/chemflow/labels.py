"""Codes with the oracle's word on what they decode to: what surrogates learn from.

Wei et al. 2024, appendix D.5, label draws from N(0, I). Half of ours are codes of molecules, where
walks from molecules start.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .draws import normal_rows
from .prior import standard_sample

_SPREAD = 19


@runtime_checkable
class Values(Protocol):
    """What a scorer gives back."""

    @property
    def values(self) -> Float64[np.ndarray, "n k"]:
        """A column for each property; NaN for what is no molecule."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """What labelling asks of a model."""

    @property
    def latent_size(self) -> int:
        """D."""
        ...

    def decode_smiles(self, z: Float[Tensor, "b d"]) -> list[str]:
        """One a row."""
        ...


class Labelled(NamedTuple):
    """Codes, and a column of values for each property; NaN for what is no molecule."""

    codes: Float[Tensor, "n d"]
    values: Float64[Tensor, "n k"]


def start_codes(
    number: int,
    size: int,
    seed: int,
    posterior: tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]] | None = None,
) -> Float[Tensor, "n d"]:
    """Draws from N(0, I), and where there is a posterior as many of every second row from it.

    Args:
        number: n.
        size: D.
        seed: Of the draws.
        posterior: Means and standard deviations of q(z | x) of some molecules.
    """
    z = standard_sample(torch.arange(number), size, seed)
    if posterior is None:
        return z
    mu, spread = (part.cpu() for part in posterior)
    rows = torch.arange(1, number, 2)
    chosen = torch.randint(len(mu), (len(rows),), generator=torch.Generator().manual_seed(seed))
    noise = normal_rows(seed, rows, size, purpose=_SPREAD)
    z[rows] = (mu[chosen] + spread[chosen] * noise).to(z)
    return z


@torch.no_grad()
def label(
    model: Decoder,
    codes: Float[Tensor, "n d"],
    scorer: Callable[[Sequence[str]], Values],
    *,
    batch: int = 1000,
    progress: Callable[[int], object] | None = None,
) -> Labelled:
    """Decodes and scores, a batch at a time.

    Args:
        model: Decodes.
        codes: Where.
        scorer: `chemflow.scoring.Scorer`, or what gives back the same.
        batch: Codes at a time.
        progress: Called with the number of codes that are done.
    """
    values: list[Tensor] = []
    done = 0
    for part in codes.split(batch):
        values.append(torch.from_numpy(np.asarray(scorer(model.decode_smiles(part)).values)))
        done += len(part)
        if progress is not None:
            progress(done)
    return Labelled(codes, torch.cat(values))
