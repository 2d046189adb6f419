"""Moving codes along directions, and finding the code of a given image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from householder_gan.directions import LayerDirections
from householder_gan.features import Distance
from householder_gan.generators.protocol import Generator, codes, draw, mean_latent, truncate
from householder_gan.path_length import Slots, evaluating


def _chosen(one: LayerDirections, slots: Slots | Sequence[int], count: int) -> list[int]:
    if isinstance(slots, str):
        if slots not in ("layer", "all"):
            raise ValueError(f"slots must be 'layer', 'all' or numbers, got {slots!r}")
        return list(range(count)) if slots == "all" or one.slot is None else [one.slot]
    if any(not 0 <= slot < count for slot in slots):
        raise ValueError(f"slots must lie in [0, {count - 1}], got {list(slots)}")
    return list(slots)


def move(
    ws: Float[Tensor, "batch slots w"],
    one: LayerDirections,
    j: int,
    step: float,
    slots: Slots | Sequence[int] = "layer",
) -> Float[Tensor, "batch slots w"]:
    """w+ with step · v_j added in the layer's slot, in all, or in those that are named.

    Raises IndexError for a number of a direction that there is none of.
    """
    if not 0 <= j < len(one):
        raise IndexError(f"direction of {one.layer!r} must lie in [0, {len(one) - 1}], got {j}")
    moved = ws.clone()
    for slot in _chosen(one, slots, ws.shape[1]):
        moved[:, slot] += step * one.vectors[j].to(ws)
    return moved


def traverse(
    generator: Generator,
    ws: Float[Tensor, "batch slots w"] | Float[Tensor, "batch w"],
    direction: LayerDirections,
    j: int,
    steps: Sequence[float] | Float[Tensor, " k"] = (-20.0, -13.3, -6.7, 0.0, 6.7, 13.3, 20.0),
    *,
    slots: Slots | Sequence[int] = "layer",
    truncation: float = 1.0,
    mean: Float[Tensor, " w"] | None = None,
) -> Float[Tensor, "batch k channels height width"]:
    """Images of w + step · v_j, for codes w (batch, w) or w+ (batch, slots, w) and every step.

    Truncation draws codes towards `mean` (of 4096 codes by default) before they are moved. All
    images share one noise. Steps are lengths in latent space: ±20 is published for StyleGAN2
    at gain 1, ±200 for StyleGAN3, whose layers divide by √512.
    Raises ValueError for a direction of another space.
    """
    if direction.space != generator.space or direction.vectors.shape[-1] != generator.w_dim:
        raise ValueError(
            f"direction must be of {generator.space!r} with {generator.w_dim} entries, got one of "
            f"{direction.space!r} with {direction.vectors.shape[-1]}"
        )
    if ws.ndim == 2:
        ws = ws[:, None].expand(-1, generator.slots, -1)
    if tuple(ws.shape[1:]) != (generator.slots, generator.w_dim):
        raise ValueError(
            f"ws must be (batch, {generator.slots}, {generator.w_dim}), got {tuple(ws.shape)}"
        )
    with evaluating(generator):
        if truncation != 1.0:
            centre = mean_latent(generator, rng=torch.Generator().manual_seed(0))
            ws = truncate(ws, centre if mean is None else mean, truncation)
        return torch.stack(
            [generator.synthesis(move(ws, direction, j, float(s), slots)) for s in steps], 1
        )


@dataclass(frozen=True)
class Projection:
    """The code (1, slots, w) found for an image, the image it gives, and d at every step."""

    ws: Tensor
    image: Tensor
    losses: tuple[float, ...]


def project(
    generator: Generator,
    image: Float[Tensor, "c h w"],
    distance: Distance,
    *,
    steps: int = 300,
    rate: float = 0.05,
    starts: int = 256,
    each_slot: bool = False,
    pixel_weight: float = 1.0,
    seed: int = 0,
    watch: Callable[[int, float], None] | None = None,
) -> Projection:
    """The code whose image is nearest to a given one, as start of a traversal.

    Adam on d + pixel_weight · mean squared pixels, from the best of `starts` random codes, with
    the rate falling to 0 as a cosine; the best code of the way is kept. `each_slot` lets the
    codes of w+ differ. Raises ValueError for an image of another size.
    """
    if steps < 1 or starts < 1:
        raise ValueError(f"steps and starts must be >= 1, got {steps} and {starts}")
    rng = torch.Generator().manual_seed(seed)

    def loss_of(images: Tensor) -> Tensor:
        target = image.to(images)[None].expand_as(images)
        return distance(images, target) + pixel_weight * (images - target).square().mean((1, 2, 3))

    with evaluating(generator):
        ws = codes(generator, draw(generator, starts, rng))
        first = generator.synthesis(ws[:1])
        if first.shape[1:] != image.shape:
            raise ValueError(f"image must be {tuple(first.shape[1:])}, got {tuple(image.shape)}")
        tried = [loss_of(generator.synthesis(part)) for part in ws.split(32)]
        start = ws[int(torch.cat(tried).argmin())]
        code = (start if each_slot else start[:1]).clone()[None].requires_grad_()
        optimizer = torch.optim.Adam([code], lr=rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        losses: list[float] = []
        best = code.detach().clone()
        for number in range(steps + 1):
            with torch.enable_grad():
                full = code.expand(1, generator.slots, -1)
                loss = loss_of(generator.synthesis(full)).sum()
            losses.append(float(loss.detach()))
            if losses[-1] <= min(losses):
                best = full.detach().clone()
            if number == steps:
                break
            (code.grad,) = torch.autograd.grad(loss, code)
            optimizer.step()
            decay.step()
            if watch is not None:
                watch(number + 1, losses[-1])
        return Projection(best, generator.synthesis(best), tuple(losses))
