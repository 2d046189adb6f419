"""How many parameters each layer gets: one threshold over all layers' spectra."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Unit = Literal["weights", "cache"]

_BISECTIONS = 200


@dataclass(frozen=True)
class Allocation:
    """A rank for each layer, None where it stays dense.

    Attributes:
        ranks: Rank or None by layer.
        parameters: What these layers take, dense ones included: weights, or numbers in the cache
            for each token.
        dense: What they took.
        loss: Σ of the truncation losses of the layers, in the unit of the spectra.
    """

    ranks: Mapping[str, int | None]
    parameters: int
    dense: int
    loss: float

    @property
    def ratio(self) -> float:
        """Kept share of the parameters."""
        return self.parameters / self.dense


def check_share(share: float, name: str) -> None:
    """ValueError unless share lies in (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {share}")


def prices(shape: tuple[int, int], unit: Unit = "weights") -> tuple[int, int]:
    """What one rank costs, and what the dense layer does, for a layer of the shape (m, n).

    As weights m + n and m n; in a cache of its outputs 1 and m numbers for each token.
    """
    m, n = shape
    return (m + n, m * n) if unit == "weights" else (1, m)


def parameters_of(shape: tuple[int, int], rank: int | None, unit: Unit = "weights") -> int:
    """What a layer of the shape (m, n) takes at the rank, None where it is dense."""
    step, dense = prices(shape, unit)
    return dense if rank is None else rank * step


def allocate(
    losses: Mapping[str, Float[np.ndarray, " r"]],
    shapes: Mapping[str, tuple[int, int]],
    ratio: float,
    align: int = 1,
    least: float = 0.0,
    unit: Unit = "weights",
) -> Allocation:
    """The ranks of least total loss within `ratio` of the parameters.

    `losses[l][i]` is what layer l loses by dropping its direction i (descending, the squared
    singular values of the weight in its metric). The losses of layers add up and a rank costs
    m + n, so that for a price λ of a parameter every layer chooses by itself the rank (or to
    stay dense) of least loss + λ cost; λ is bisected until the sum fits, and what is left over
    goes to the best next steps one by one. The realised ratio is never above `ratio`.

    Args:
        shapes: (m, n) by layer.
        ratio: Kept share of the parameters of all layers together, in (0, 1].
        align: Ranks are multiples of it (or the layer's smaller side).
        least: No layer below this share of its own parameters.
        unit: What is counted: "weights", or "cache", the numbers that a layer's output takes
            for each token when only its rank coordinates are kept.

    Raises ValueError for a ratio that even rank `least` everywhere exceeds.
    """
    check_share(ratio, "ratio")
    if align < 1:
        raise ValueError(f"align must be >= 1, got {align}")
    choices = {name: _choices(losses[name], shapes[name], align, least, unit) for name in shapes}
    dense = sum(prices(shape, unit)[1] for shape in shapes.values())
    budget = int(ratio * dense + 1e-9 * dense)
    least_cost = sum(int(c.cost[0]) for c in choices.values())
    if least_cost > budget:
        raise ValueError(
            f"ratio must be at least {least_cost / dense:.4f} with least={least} and "
            f"align={align}, got {ratio}"
        )
    low, high = 0.0, 1.0
    while _cost(choices, high) > budget:
        low, high = high, 4 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _cost(choices, middle) > budget else (low, middle)
    picked = {name: c.pick(high) for name, c in choices.items()}
    _spend(choices, picked, budget - _cost(choices, high))
    ranks = {name: choices[name].rank(i) for name, i in picked.items()}
    return Allocation(
        ranks,
        sum(int(choices[name].cost[i]) for name, i in picked.items()),
        dense,
        float(sum(choices[name].loss[i] for name, i in picked.items())),
    )


@dataclass(frozen=True)
class _Choices:
    """The ranks that a layer may have, by ascending cost, the last one being dense."""

    ranks: np.ndarray
    cost: np.ndarray
    loss: np.ndarray

    def pick(self, price: float) -> int:
        return int(np.argmin(self.loss + price * self.cost))

    def rank(self, i: int) -> int | None:
        return None if i == len(self.cost) - 1 else int(self.ranks[i])

    def best_step(self, i: int, room: int) -> tuple[float, int] | None:
        """(loss saved per parameter, index) of the best dearer choice that fits the room."""
        more = self.cost[i + 1 :] - self.cost[i]
        fits = int(np.searchsorted(more, room, side="right"))
        if fits == 0:
            return None
        gain = (self.loss[i] - self.loss[i + 1 : i + 1 + fits]) / more[:fits]
        best = int(np.argmax(gain))
        return float(gain[best]), i + 1 + best


def _choices(
    losses: np.ndarray, shape: tuple[int, int], align: int, least: float, unit: Unit
) -> _Choices:
    m, n = shape
    step, dense = prices(shape, unit)
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 1 or len(losses) > min(m, n) or not np.isfinite(losses).all():
        raise ValueError(
            f"losses must be at most {min(m, n)} finite numbers for a layer {shape}, "
            f"got an array {losses.shape}"
        )
    # A spectrum that is known in part loses at least its last known entry for each missing one.
    tail = np.concatenate([np.cumsum(losses[::-1])[::-1], [0.0]])
    ranks = np.arange(0, len(losses) + 1, align)
    ranks = ranks[ranks * step < dense]
    ranks = ranks[ranks * step >= (least - 1e-9) * dense]
    cost = np.append(ranks * step, dense)
    return _Choices(ranks, cost, np.append(tail[ranks], 0.0))


def _cost(choices: Mapping[str, _Choices], price: float) -> int:
    return sum(int(c.cost[c.pick(price)]) for c in choices.values())


def _spend(choices: Mapping[str, _Choices], picked: dict[str, int], room: int) -> None:
    """Takes the best next step of any layer as long as one fits, changing `picked`."""
    queue: list[tuple[float, str, int, int]] = []

    def offer(name: str) -> None:
        step = choices[name].best_step(picked[name], room)
        if step is not None:
            heapq.heappush(queue, (-step[0], name, picked[name], step[1]))

    for name in choices:
        offer(name)
    while queue:
        _, name, start, end = heapq.heappop(queue)
        if picked[name] != start:
            continue
        price = int(choices[name].cost[end] - choices[name].cost[start])
        if price > room:
            # It was good when there was more room: look again for one that fits.
            offer(name)
            continue
        picked[name] = end
        room -= price
        offer(name)
