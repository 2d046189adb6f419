"""Bootstrap intervals of detection figures: ID and OOD samples are drawn again with replacement.

One draw of the ID samples serves all OOD sets and all detectors, so that means over sets and
differences of two detectors are those of paired draws.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rankfeat.metrics import Counts

# Entries of the counts of one chunk of resamples.
_CHUNK = 4_000_000


class Interval(NamedTuple):
    """A central interval of the resampled figures."""

    low: float
    high: float


def interval(values: Float[Tensor, " resamples"], level: float = 0.95) -> Interval:
    """The central share `level` of the values."""
    tail = (1 - level) / 2
    ends = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=values.dtype))
    return Interval(float(ends[0]), float(ends[1]))


def _drawn(size: int, count: int, generator: torch.Generator) -> Int[Tensor, "count size"]:
    """How often each of `size` samples is drawn in `count` resamples of that size."""
    place = torch.randint(size, (count, size), generator=generator)
    weight = torch.zeros(count, size, dtype=torch.long)
    return weight.scatter_add_(1, place, torch.ones_like(place))


class _Order:
    """The thresholds of a pair of samples, for counting weights at them."""

    def __init__(self, id_scores: Tensor, ood_scores: Tensor) -> None:
        pooled = torch.cat([id_scores, ood_scores]).double()
        values, place = torch.unique(pooled, return_inverse=True)
        self.size = len(values)
        # The largest score first.
        place = self.size - 1 - place
        self.id_place, self.ood_place = place[: len(id_scores)], place[len(id_scores) :]

    def counts(self, id_weight: Tensor, ood_weight: Tensor) -> Counts:
        empty = torch.zeros(len(id_weight), self.size, dtype=torch.long)
        return (
            empty.index_add(1, self.id_place, id_weight),
            empty.index_add(1, self.ood_place, ood_weight),
        )


def resample(
    scores: Mapping[str, tuple[Tensor, Mapping[str, Tensor]]],
    figures: Callable[[Counts], Mapping[str, Tensor]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Float[Tensor, " resamples"]]]]:
    """Figures of resamples by detector, OOD set and figure.

    Args:
        scores: For each detector its ID scores and its scores of each OOD set, of the same
            samples in the same order for every detector.
        figures: The figures of counts, as `Convention.figures`.
        resamples: Number of draws.
        seed: Of the draws.

    Raises:
        ValueError: Detectors scored different numbers of samples, or `resamples` is below 2.
    """
    if resamples < 2:
        raise ValueError(f"resamples must be >= 2, got {resamples}")
    sizes = [
        (len(one), {name: len(s) for name, s in sets.items()}) for one, sets in scores.values()
    ]
    if any(size != sizes[0] for size in sizes):
        raise ValueError(f"detectors must have scored the same samples, got {sizes}")
    (id_size, set_sizes), generator = sizes[0], torch.Generator().manual_seed(seed)
    orders = {
        detector: {name: _Order(one, other) for name, other in sets.items()}
        for detector, (one, sets) in scores.items()
    }
    largest = id_size + max(set_sizes.values())
    parts: dict[str, dict[str, list[Mapping[str, Tensor]]]] = {
        detector: {name: [] for name in sets} for detector, sets in orders.items()
    }
    for count in _chunks(resamples, max(1, _CHUNK // largest)):
        id_weight = _drawn(id_size, count, generator)
        for name, size in set_sizes.items():
            ood_weight = _drawn(size, count, generator)
            for detector, sets in orders.items():
                counts = sets[name].counts(id_weight, ood_weight)
                parts[detector][name].append(figures(counts))
    return {
        detector: {
            name: {key: torch.cat([one[key] for one in found]) for key in found[0]}
            for name, found in sets.items()
        }
        for detector, sets in parts.items()
    }


def _chunks(total: int, most: int) -> Iterator[int]:
    while total > 0:
        yield min(most, total)
        total -= most
