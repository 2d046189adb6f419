"""Which unsupervised direction changes which property (the paper's Sec. 3.2, App. D.8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from chemflow.oracles import Oracle
from chemflow.protocol import LatentModel, Navigator
from chemflow.scoring import Scorer
from chemflow.starts import Prior, Starts
from chemflow.walk import walk


@dataclass(frozen=True)
class Matching:
    """Mean correlation of property and time for each direction.

    Attributes:
        correlation: Pearson's, mean over all paths (K, P); a path without one counts 0.
        undefined: Share of paths without one: constant, or with a step that is no molecule.
        names: Of the properties.
        maximise: Whether the largest or the smallest is best.
    """

    correlation: Float64[np.ndarray, "K P"]
    undefined: Float64[np.ndarray, "K P"]
    names: tuple[str, ...]
    maximise: tuple[bool, ...]

    def best(self, name: str) -> int:
        """Number of the direction that improves the property most steadily."""
        if name not in self.names:
            raise ValueError(f"property must be one of {self.names}, got {name!r}")
        column = self.names.index(name)
        series = self.correlation[:, column]
        return int(series.argmax() if self.maximise[column] else series.argmin())

    def table(self) -> str:
        """For a terminal."""
        return "\n".join(
            f"{name}: direction {self.best(name)}, r = "
            f"{self.correlation[self.best(name), place]:.3f}, "
            f"{self.undefined[self.best(name), place]:.1%} of paths without a correlation"
            for place, name in enumerate(self.names)
        )


def correlation(values: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """Pearson's r of each row with 0, 1, …, k-1; NaN for a constant row or one with a NaN."""
    time = np.arange(values.shape[-1]) - (values.shape[-1] - 1) / 2
    centred = values - values.mean(-1, keepdims=True)
    # Constant to rounding: what is left of equal numbers less their mean is no series.
    scale = np.abs(values).max(-1) * 4 * np.finfo(np.float64).eps
    spread = np.sqrt((centred**2).sum(-1))
    length = np.sqrt((time**2).sum())
    flat = np.abs(centred).max(-1) <= scale
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(flat, np.nan, centred @ time / (spread * length))


def match_directions(
    model: LatentModel,
    directions: Sequence[Navigator],
    oracles: Sequence[Oracle],
    *,
    start: int | Sequence[str] | Float[Tensor, "n d"] = 1000,
    steps: int = 9,
    seed: int = 0,
    prior: Prior = "model",
    batch: int = 256,
    workers: int = 1,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Matching:
    """Walks every direction from the same starts and correlates every property with time."""
    if not directions or not oracles:
        raise ValueError("directions and oracles must not be empty")
    starts = Starts(model, start, seed, prior, device)
    sums = np.zeros((len(directions), len(oracles)))
    lacking: Int64[np.ndarray, "K P"] = np.zeros(sums.shape, np.int64)
    rows = 0
    with Scorer(oracles, workers) as scorer:
        for first in range(0, starts.size, batch):
            begun = starts.batch(first, min(first + batch, starts.size))
            rows += len(begun.rows)
            for number, navigator in enumerate(directions):
                steps_of = walk(model, navigator, begun, steps, scorer)
                path = np.stack([step.scored.values for step in steps_of], axis=-1)
                for column in range(len(oracles)):
                    found = correlation(path[:, column])
                    sums[number, column] += np.nansum(found)
                    lacking[number, column] += int(np.isnan(found).sum())
                if progress is not None:
                    done = first // batch * len(directions) + number + 1
                    progress(done, -(-starts.size // batch) * len(directions))
    return Matching(
        sums / max(rows, 1),
        lacking / max(rows, 1),
        scorer.names,
        tuple(oracle.maximise for oracle in oracles),
    )
