"""STRS, the paper's rank search over one list of (layer, ratio, sensitivity)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from asvd.allocate import Allocation, parameters_of
from asvd.decompose import pays, rank_for_ratio

RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Candidate ratios of the official code at its last commit."""

Sensitivity = Mapping[str, Mapping[float, float]]
"""sensitivity[layer][ratio]: how bad the model is with this layer alone at this ratio."""


@dataclass(frozen=True)
class Cut:
    """A position in the list: everything from it on is compressed.

    Attributes:
        position: 0 compresses every layer to its smallest candidate, the list's length none.
        ratios: Ratio by layer; None stays dense.
    """

    position: int
    ratios: Mapping[str, float | None]


class RankList:
    """The candidates of all layers, the most harmful first (paper §3.4).

    Args:
        sensitivity: By layer and candidate ratio; ratios of 1 and more are left out.
        shapes: (m, n) by layer.
        align: Ranks are rounded up to multiples of it.
        isotonic: Makes the sensitivity of a layer grow as its ratio falls. Measured ones often
            do not, and then a layer jumps to a lower ratio at once.
    """

    def __init__(
        self,
        sensitivity: Sensitivity,
        shapes: Mapping[str, tuple[int, int]],
        align: int = 1,
        isotonic: bool = False,
    ) -> None:
        if set(sensitivity) != set(shapes):
            raise ValueError("sensitivity and shapes must be of the same layers")
        if isotonic:
            sensitivity = {name: _isotonic(values) for name, values in sensitivity.items()}
        entries = [
            (layer, ratio, harm)
            for layer, values in sensitivity.items()
            for ratio, harm in values.items()
            if ratio < 1
        ]
        # sorted() is stable, so that equal sensitivities keep the order of the layers.
        self.entries = sorted(entries, key=lambda entry: -entry[2])
        self.shapes = shapes
        self.align = align

    def cut(self, position: int) -> Cut:
        """The ratios at a position: for each layer the smallest one from there on."""
        ratios: dict[str, float | None] = dict.fromkeys(self.shapes)
        for layer, ratio, _ in self.entries[position:]:
            known = ratios[layer]
            ratios[layer] = ratio if known is None else min(known, ratio)
        return Cut(position, ratios)

    def ranks(self, cut: Cut) -> dict[str, int | None]:
        """The rank of each layer; None where it stays dense, also because low rank costs more."""
        found: dict[str, int | None] = {}
        for layer, ratio in cut.ratios.items():
            m, n = self.shapes[layer]
            rank = None if ratio is None else rank_for_ratio(m, n, ratio, self.align)
            found[layer] = rank if rank is not None and pays(m, n, rank) else None
        return found

    def allocation(self, cut: Cut) -> Allocation:
        """The parameters that the cut really takes; its loss is not known (NaN)."""
        ranks = self.ranks(cut)
        taken = sum(parameters_of(self.shapes[layer], rank) for layer, rank in ranks.items())
        dense = sum(m * n for m, n in self.shapes.values())
        return Allocation(ranks, taken, dense, float("nan"))

    def nominal(self, cut: Cut) -> float:
        """The ratio as the official code counts it: ratios instead of ranks."""
        dense = sum(m * n for m, n in self.shapes.values())
        kept = sum(
            m * n * (1 if (ratio := cut.ratios[layer]) is None else ratio)
            for layer, (m, n) in self.shapes.items()
        )
        return kept / dense

    def for_ratio(self, target: float, realised: bool = True) -> Cut:
        """The least compression within the target: the largest position that fits it.

        Args:
            target: Kept share of the parameters.
            realised: Count the parameters of the ranks, not the ratios asked for.

        The share grows with the position, so that bisection is exact. Raises ValueError where
        even the strongest candidates are above the target.
        """
        measure = (lambda c: self.allocation(c).ratio) if realised else self.nominal
        slack = 1e-12
        if measure(self.cut(0)) > target + slack:
            raise ValueError(
                f"ratio must be at least {measure(self.cut(0)):.4f}, what the smallest "
                f"candidates give, got {target}"
            )
        low, high = 0, len(self.entries)
        while low < high:
            middle = (low + high + 1) // 2
            if measure(self.cut(middle)) <= target + slack:
                low = middle
            else:
                high = middle - 1
        return self.cut(low)

    def for_perplexity(self, budget: float, measure: Callable[[Cut], float]) -> Cut:
        """The strongest compression whose measured perplexity is within the budget.

        `measure` builds and evaluates the model of a cut. Bisection supposes that perplexity
        falls with the position, which holds approximately; the answer itself was measured.
        Raises ValueError where the budget is below the perplexity of the dense model.
        """
        low, high = 0, len(self.entries)
        if measure(self.cut(high)) > budget:
            raise ValueError(
                f"perplexity_budget must be at least that of the dense model, got {budget}"
            )
        while low < high:
            middle = (low + high) // 2
            if measure(self.cut(middle)) <= budget:
                high = middle
            else:
                low = middle + 1
        return self.cut(high)

    def parity_cut(self, target: float) -> Cut:
        """The cut that the official code ends at, its last probe (ASVD4LLM, 8630427).

        It may miss the target on either side. Only for reproducing published ranks.
        """
        low, high = 0, len(self.entries) - 1
        middle = high
        while low < high:
            middle = (low + high) // 2
            if self.nominal(self.cut(middle)) > target:
                high = middle
            else:
                low = middle + 1
        return self.cut(middle)


def _isotonic(values: Mapping[float, float]) -> dict[float, float]:
    """The running maximum from the largest ratio down."""
    harm = float("-inf")
    raised = {}
    for ratio in sorted(values, reverse=True):
        harm = max(harm, values[ratio])
        raised[ratio] = harm
    return {ratio: raised[ratio] for ratio in values}


def uniform(shapes: Mapping[str, tuple[int, int]], ratio: float, align: int = 1) -> Allocation:
    """The same ratio for every layer; one for which low rank does not pay stays dense."""
    layers: Sequence[str] = list(shapes)
    if ratio == 1:
        dense = sum(m * n for m, n in shapes.values())
        return Allocation(dict.fromkeys(layers), dense, dense, 0.0)
    whole = RankList({layer: {} for layer in layers}, shapes, align)
    return whole.allocation(Cut(0, dict.fromkeys(layers, ratio)))
