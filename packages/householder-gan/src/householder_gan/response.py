"""What each direction does: displacement, evenness, identifiability."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from householder_gan.directions import DirectionSet
from householder_gan.features import Distance
from householder_gan.generators.protocol import Generator, codes, draw
from householder_gan.path_length import Slots, evaluating


@dataclass(frozen=True)
class Response:
    """Mean distance (r,) between images before and after a step along each direction.

    `spread` is the largest over the smallest, `variation` the standard deviation (of n - 1) over
    the mean: 0 for directions of equal effect.
    """

    layer: str
    values: Float[Tensor, " r"]
    step: float
    distance: str

    @property
    def spread(self) -> float:
        return float(self.values.max() / self.values.min())

    @property
    def variation(self) -> float:
        return float(self.values.std() / self.values.mean())


def displacement(
    generator: Generator,
    directions: DirectionSet,
    distance: Distance,
    *,
    step: float = 1.0,
    samples: int = 64,
    slots: Slots = "layer",
    batch: int = 64,
    seed: int = 0,
) -> tuple[Response, ...]:
    """E_z d(G(w), G(w + step · v_j)) for every direction, over the same codes for all.

    Raises ValueError for directions of another space.
    """
    directions.require(generator)
    if samples < 1 or batch < 1:
        raise ValueError(f"samples and batch must be >= 1, got {samples} and {batch}")
    rng = torch.Generator().manual_seed(seed)
    totals = [torch.zeros(len(one), dtype=torch.float64) for one in directions]
    with evaluating(generator):
        z = draw(generator, samples, rng)
        for begin in range(0, samples, batch):
            ws = codes(generator, z[begin : begin + batch])
            before = generator.synthesis(ws)
            for total, one in zip(totals, directions, strict=True):
                for j, vector in enumerate(one.vectors.to(ws)):
                    moved = ws.clone()
                    if slots == "all" or one.slot is None:
                        moved += step * vector
                    else:
                        moved[:, one.slot] += step * vector
                    total[j] += float(distance(before, generator.synthesis(moved)).sum())
    return tuple(
        Response(one.layer, total / samples, step, distance.name)
        for total, one in zip(totals, directions, strict=True)
    )


def rank_directions(directions: DirectionSet, responses: Sequence[Response]) -> DirectionSet:
    """The directions of each layer in descending order of their measured effect.

    A projector's directions have no order of their own: its singular values are equal.
    Raises ValueError for responses of other layers or numbers.
    """
    if [(r.layer, len(r.values)) for r in responses] != [(d.layer, len(d)) for d in directions]:
        raise ValueError("responses must be those of the same layers and directions, in order")
    ranked = []
    for one, response in zip(directions, responses, strict=True):
        order = response.values.argsort(descending=True, stable=True)
        labels = {k: one.labels[j] for k, j in enumerate(order.tolist()) if j in one.labels}
        on = order.to(one.vectors.device)
        ranked.append(replace(one, vectors=one.vectors[on], sigma=one.sigma[on], labels=labels))
    return DirectionSet(tuple(ranked))


@dataclass(frozen=True)
class Agreement:
    """How far two sets of r orthonormal directions agree, 1 being full agreement.

    `matched` is the mean |cos| between directions of one number: whether "direction j" means the
    same in both. `best` is the mean of each direction's largest |cos| with any of the other set.
    `subspace` is ‖V₁ᵀV₂‖_F²/r, the same for every basis of the two spans.
    """

    layer: str
    matched: float
    best: float
    subspace: float


def identifiability(first: DirectionSet, second: DirectionSet) -> tuple[Agreement, ...]:
    """Agreement of two read-outs, layer by layer. Raises ValueError for other layers or shapes."""
    found = []
    if [d.layer for d in first] != [d.layer for d in second]:
        raise ValueError(
            f"second must have the layers {[d.layer for d in first]}, got "
            f"{[d.layer for d in second]}"
        )
    for one, two in zip(first, second, strict=True):
        if one.vectors.shape != two.vectors.shape:
            raise ValueError(
                f"directions of {one.layer!r} must be {tuple(one.vectors.shape)} in both, got "
                f"{tuple(two.vectors.shape)}"
            )
        cosines = (one.vectors.double().cpu() @ two.vectors.double().cpu().mT).abs()
        found.append(
            Agreement(
                one.layer,
                float(cosines.diagonal().mean()),
                float(cosines.amax(1).mean()),
                float(cosines.square().sum() / len(one)),
            )
        )
    return tuple(found)
