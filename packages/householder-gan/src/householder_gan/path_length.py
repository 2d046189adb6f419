"""Perceptual path lengths: PPL between two codes, PIPL along directions.

PPL (Karras et al., CVPR 2019) is the mean of d(G(w_t), G(w_{t+ε}))/ε² on the line between two
codes; PIPL (Song et al., ICCV 2023) that of d(G(w_t), G(w_t + ε v))/ε² for directions v of the
model. Both drop samples outside the 1st and 99th percentile. The distance d is the caller's and
named in the result: published figures are of LPIPS with VGG-16, and no other compares with them.
"""

from collections.abc import Generator as Steps
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from householder_gan.directions import DirectionSet
from householder_gan.features import Distance
from householder_gan.generators.protocol import Generator, codes, draw

Slots = Literal["layer", "all"]


def lerp(
    a: Float[Tensor, "*#batch d"], b: Float[Tensor, "*#batch d"], t: Float[Tensor, "*#batch 1"]
) -> Float[Tensor, "*batch d"]:
    """a + t (b - a)."""
    return a + t * (b - a)


def slerp(
    a: Float[Tensor, "*#batch d"], b: Float[Tensor, "*#batch d"], t: Float[Tensor, "*#batch 1"]
) -> Float[Tensor, "*batch d"]:
    """The point at angle t·∠(a, b) from a on the great circle of the directions of a and b."""
    a, b = (functional.normalize(x, dim=-1) for x in (a, b))
    cosine = (a * b).sum(-1, keepdim=True).clamp(-1, 1)
    angle = t * cosine.acos()
    across = functional.normalize(b - cosine * a, dim=-1)
    return functional.normalize(a * angle.cos() + across * angle.sin(), dim=-1)


def within_percentiles(distances: Float[Tensor, " n"]) -> Float[Tensor, " kept"]:
    """Those from the 1st percentile (the sample below it) to the 99th (the sample above it)."""
    low = distances.quantile(0.01, interpolation="lower")
    high = distances.quantile(0.99, interpolation="higher")
    return distances[(distances >= low) & (distances <= high)]


@dataclass(frozen=True)
class PathLength:
    """A mean of `samples` distances over ε², `kept` of them after the percentiles."""

    value: float
    standard_error: float
    samples: int
    kept: int
    distance: str
    convention: str

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return (
            f"{self.value:.4g} ± {self.standard_error:.2g} ({self.convention}; d: {self.distance})"
        )


def _summary(scaled: Tensor, distance: Distance, convention: str) -> PathLength:
    kept = within_percentiles(scaled)
    error = float(kept.std() / len(kept) ** 0.5) if len(kept) > 1 else float("nan")
    return PathLength(float(kept.mean()), error, len(scaled), len(kept), distance.name, convention)


@contextmanager
def evaluating(generator: Generator, *, gradients: bool = False) -> Steps[None]:
    """Evaluation mode, without gradients if not asked for; the mode is put back afterwards."""
    training = isinstance(generator, nn.Module) and generator.training
    if isinstance(generator, nn.Module):
        generator.eval()
    try:
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        if isinstance(generator, nn.Module):
            generator.train(training)


def _seen(images: Tensor, crop: bool) -> Tensor:
    """The published crop to the middle of a face, and bilinear reduction from 512 on to 256."""
    if crop:
        unit = images.shape[-2] // 8
        images = images[..., 3 * unit : 7 * unit, 2 * unit : 6 * unit]
    if images.shape[-2] // 256 > 1:
        images = functional.interpolate(images, (256, 256), mode="bilinear")
    return images


def _require(samples: int, epsilon: float, batch: int) -> None:
    if samples < 1 or batch < 1:
        raise ValueError(f"samples and batch must be >= 1, got {samples} and {batch}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be > 0, got {epsilon}")


def ppl(
    generator: Generator,
    distance: Distance,
    *,
    samples: int = 5000,
    epsilon: float = 1e-4,
    space: Literal["w", "z"] = "w",
    sampling: Literal["full", "end"] = "full",
    crop: bool = False,
    batch: int = 64,
    seed: int = 0,
) -> PathLength:
    """Perceptual path length.

    Args:
        generator: In evaluation mode for the time of the call, so with one noise for all.
        distance: d; part of the result's name.
        samples: Pairs of codes. epsilon: ε.
        space: "w" interpolates linearly between codes of w, "z" on the sphere in z.
        sampling: t uniform in [0, 1] ("full") or 0 ("end").
        crop: Compare the middle of the image only, as published for faces.
        batch: Pairs at a time; the value does not depend on it. seed: Of z and t.
    """
    _require(samples, epsilon, batch)
    rng = torch.Generator().manual_seed(seed)
    found = []
    with evaluating(generator):
        first, second = draw(generator, samples, rng), draw(generator, samples, rng)
        t = torch.rand(samples, 1, generator=rng).to(first)
        if sampling == "end":
            t = torch.zeros_like(t)
        for begin in range(0, samples, batch):
            part = slice(begin, begin + batch)
            a, b, at = first[part], second[part], t[part]
            if space == "z":
                ends = [codes(generator, slerp(a, b, at + s)) for s in (0.0, epsilon)]
            else:
                a, b = codes(generator, a), codes(generator, b)
                ends = [lerp(a, b, at[..., None] + s) for s in (0.0, epsilon)]
            images = [_seen(generator.synthesis(ws), crop) for ws in ends]
            found.append(distance(images[0], images[1]) / epsilon**2)
    how = f"PPL in {space}, {sampling}, ε={epsilon:g}" + (", cropped" if crop else "")
    return _summary(torch.cat(found), distance, how)


def pipl(
    generator: Generator,
    directions: DirectionSet,
    distance: Distance,
    *,
    samples: int = 5000,
    epsilon: float = 1.0,
    count: int = 10,
    slots: Slots = "all",
    per_sample: bool = False,
    crop: bool = False,
    batch: int = 64,
    seed: int = 0,
) -> PathLength:
    """Perceptual interpretable path length, from w on the line between two codes along v.

    By default the published convention: one layer and one of its first `count` directions for
    each batch, added in all slots of w+. `per_sample` draws them for every sample, of less
    variance, and slots "layer" moves the slot of the direction's layer alone. Since a direction
    that does nothing has the best value, 0, report `displacement` beside it. Other arguments as
    in `ppl`. Raises ValueError for directions of another space.
    """
    _require(samples, epsilon, batch)
    directions.require(generator)
    rng = torch.Generator().manual_seed(seed)
    found = []
    with evaluating(generator):
        first, second = draw(generator, samples, rng), draw(generator, samples, rng)
        t = torch.rand(samples, 1, 1, generator=rng).to(first)
        draws = samples if per_sample else -(-samples // batch)
        layer = torch.randint(len(directions.layers), (draws,), generator=rng)
        place = torch.rand(draws, generator=rng)
        for begin in range(0, samples, batch):
            part = slice(begin, begin + batch)
            ws = lerp(codes(generator, first[part]), codes(generator, second[part]), t[part])
            moved = ws.clone()
            for k in range(len(ws)):
                i = begin + k if per_sample else begin // batch
                one = directions.layers[int(layer[i])]
                j = int(place[i] * min(count, len(one)))
                step = epsilon * one.vectors[j].to(ws)
                if slots == "all" or one.slot is None:
                    moved[k] += step
                else:
                    moved[k, one.slot] += step
            images = [_seen(generator.synthesis(code), crop) for code in (ws, moved)]
            found.append(distance(images[0], images[1]) / epsilon**2)
    how = f"PIPL, ε={epsilon:g}, slots: {slots}, a direction each "
    how += ("sample" if per_sample else "batch") + (", cropped" if crop else "")
    return _summary(torch.cat(found), distance, how)
