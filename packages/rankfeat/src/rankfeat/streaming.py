"""Scores counted in fixed memory, exactly but for a rounding of the scores to 11 bits.

The bits of a floating-point number, read as an integer, are in the order of the numbers. A
counter for each pattern of the leading 20 bits (sign, exponent, 11 bits of the fraction) needs no
range chosen beforehand, and counters of several processes add up to those of one.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from rankfeat.metrics import Counts
from rankfeat.roll_call import roll_call

_BITS = 20


class ScoreCounter:
    """Counts scores of ID and of OOD samples, in 16 MiB however many there are.

    Scores are rounded down, by at most a relative 2^-11, and then counted exactly: figures of
    `counts()` are those of the rounded scores.
    """

    def __init__(self) -> None:
        self._counts = torch.zeros(2, 2**_BITS, dtype=torch.long)

    def update(self, scores: Float[Tensor, " n"], ood: bool) -> None:
        """Count scores, larger = more in-distribution. ValueError for NaN."""
        if bool(scores.isnan().any()):
            raise ValueError(f"scores[{int(scores.isnan().nonzero()[0])}] is NaN")
        # + 0.0 makes -0 and 0 one number.
        bits = (scores.detach().float().cpu() + 0.0).view(torch.int32).long()
        ordered = torch.where(bits >= 0, bits, -(bits & 0x7FFFFFFF) - 1)
        place = (ordered >> (32 - _BITS)) + 2 ** (_BITS - 1)
        self._counts[int(ood)] += torch.bincount(place, minlength=2**_BITS)

    def merge(self, other: "ScoreCounter") -> None:
        """Add the counts of another."""
        self._counts += other._counts

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Add up the counts of all processes, in each. LostProcessError names one that died."""
        with roll_call("counts of scores", group):
            dist.all_reduce(self._counts, group=group)

    def counts(self) -> Counts:
        """ID and OOD samples at each rounded score, the largest first. ValueError without one."""
        for row, name in enumerate(("ID", "OOD")):
            if not bool(self._counts[row].any()):
                raise ValueError(f"both ID and OOD scores are needed, got no {name} score")
        used: Int[Tensor, " thresholds"] = self._counts.sum(0).nonzero()[:, 0].flip(0)
        id_counts, ood_counts = self._counts[:, used]
        return id_counts, ood_counts
