"""Losses of fine-tuning beside the published ones: moments of features, even responses."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from linalg_kernels import sqrtm
from torch import Tensor

from householder_gan import processes
from householder_gan.directions import LayerDirections, directions
from householder_gan.features import Distance
from householder_gan.generators.protocol import Generator, codes, device_of
from householder_gan.path_length import evaluating

Maps = Callable[[Tensor], list[Tensor]]
"""Images (batch, c, h, w) -> feature maps (batch, k, i, j), as `EfficientNetLite0.maps`."""


@runtime_checkable
class Regulariser(Protocol):
    """A loss of the generator for `FineTuner`, of weight `weight`, with a state to go on from."""

    name: str
    weight: float

    def observe(self, images: Tensor, /) -> None:
        """See generated images while the discriminator alone learns."""

    def loss(self, generator: Generator, images: Tensor, step: int, /) -> Tensor | None:
        """The loss, of generated images with their gradient; None where there is none now."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor], /) -> None: ...


def _newest(value: Tensor, share: float) -> Tensor:
    """`value`, of an average in which the newest batch has a share, with the gradient of 1."""
    return value.detach() + (value - value.detach()) / share


def _over_processes(value: Tensor) -> Tensor:
    """The mean of all processes, with the gradient of this one's: gradients are averaged."""
    return processes.mean(value.detach()) + (value - value.detach())


class MomentMatching:
    """The Fréchet distance between features of given images and of those that come, as a loss.

    Features are the channel means of each map, over the root of the map's total variance in the
    given images, so that every map weighs the same. Means and second moments of the images that
    come are running averages over batches, with the gradient of the newest one; its gradient is
    scaled up to that of the average. The average must be over several times as many images as
    there are features, batch/(1 - decay).

    Args:
        maps: Of a network that is not trained. Distances in its features are flattered.
        images: (n, c, h, w), n >= 2; a thousand or more for a few hundred features.
        weight: Of the loss.
        decay: What one batch leaves of the average before it, in 0..1.
        batch: Of given images at a time.

    Source: feature matching (Salimans et al., NeurIPS 2016) with the distance of normal
    distributions (Heusel et al., NeurIPS 2017) between the moments.
    """

    name = "moments"

    def __init__(
        self,
        maps: Maps,
        images: Float[Tensor, "n c h w"],
        *,
        weight: float = 1.0,
        decay: float = 0.95,
        batch: int = 256,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in 0..1, got {decay}")
        if len(images) < 2:
            raise ValueError(f"images must be 2 or more, got {len(images)}")
        self.maps, self.weight, self.decay, self.seen = maps, weight, decay, 0
        with torch.no_grad():
            parts = [self._means(part) for part in images.split(batch)]
        per_map = [torch.cat(means).double() for means in zip(*parts, strict=True)]
        variances = [float(X.var(0).sum()) for X in per_map]
        if not min(variances) > 0:
            raise ValueError("images must differ in every feature map, got total variances "
                             f"{variances}")  # fmt: skip
        self._scales = [variance**-0.5 for variance in variances]
        X = torch.cat([scale * X for scale, X in zip(self._scales, per_map, strict=True)], 1)
        self.mean = X.mean(0)
        self.covariance = torch.cov(X.mT)
        self._root = sqrtm(self.covariance, nonpos="clamp", eps=0.0)
        self._running = torch.zeros_like(self.mean), torch.zeros_like(self.covariance)

    def _means(self, images: Tensor) -> list[Tensor]:
        return [x.mean((-2, -1)) for x in self.maps(images)]

    def _average(self, images: Tensor) -> tuple[Tensor, Tensor, float]:
        """Mean and second moment with the gradient of a batch, and the batch's share of them."""
        means = zip(self._scales, self._means(images), strict=True)
        X = torch.cat([scale * x.to(self.mean) for scale, x in means], 1)
        # Sums at first, so that the start does not outweigh what comes.
        share = max(1 - self.decay, 1 / (self.seen + 1))
        found = []
        for before, one in zip(self._running, (X.mean(0), X.mT @ X / len(X)), strict=True):
            found.append(before + share * (_over_processes(one) - before))
        self._running = found[0].detach(), found[1].detach()
        self.seen += 1
        return found[0], found[1], share

    def observe(self, images: Float[Tensor, "batch c h w"]) -> None:
        """Count images in without asking for a gradient."""
        with torch.no_grad():
            self._average(images)

    def loss(
        self,
        generator: Generator,  # noqa: ARG002
        images: Float[Tensor, "batch c h w"],
        step: int,  # noqa: ARG002
    ) -> Float[Tensor, ""] | None:
        """The distance, counting images in; None until the average is a full one."""
        if self.seen + 1 < round(1 / (1 - self.decay)):
            self.observe(images)
            return None
        mean, second, share = self._average(images)
        C = second - mean[:, None] * mean
        if not bool(torch.isfinite(C).all()):
            # No eigenvalues: the one who asked for the loss says which loss is no number.
            return C.sum() * torch.nan
        K = self._root @ C @ self._root
        values = torch.linalg.eigvalsh((K + K.mT) / 2)
        # Where an eigenvalue is 0 but for rounding its root has no derivative.
        least = float(values.detach()[-1].clamp(min=1e-24)) * 1e-12
        cross = values.clamp(min=least).sqrt().sum()
        value = (mean - self.mean).square().sum() + C.trace() + self.covariance.trace() - 2 * cross
        return _newest(value, share)

    def state_dict(self) -> dict[str, Tensor]:
        """What going on needs."""
        return {
            "seen": torch.tensor(self.seen),
            "mean": self._running[0],
            "second": self._running[1],
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`. Raises ValueError for one of other features."""
        running = state["mean"].to(self.mean), state["second"].to(self.mean)
        if [x.shape for x in running] != [x.shape for x in self._running]:
            raise ValueError(
                f"state must be of {len(self.mean)} features, got {tuple(running[0].shape)}"
            )
        self.seen, self._running = int(state["seen"]), running


class EvenResponses:
    """How unevenly the directions of projectors change the image, as a loss.

    For every layer the squared coefficient of variation of `displacement`, the mean distance of
    images a step along each direction apart. The mean is a running average over random codes: a
    call measures `count` directions of each layer anew, by turns, with their gradient scaled up
    to that of the average. Directions count as constants. Batch normalisation is that of
    evaluation.

    Args:
        distance: Of images; a user who measures the spread later does well to take another.
        weight: Of the loss.
        every: Steps from one call to the next.
        codes: Random codes of a call, (1 + `count`) images each.
        count: Directions of a layer that a call measures.
        step: Length of a step along a direction.
        decay: What one measurement leaves of the average before it, in 0..1.
    """

    name = "unevenness"

    def __init__(
        self,
        distance: Distance,
        *,
        weight: float = 1.0,
        every: int = 2,
        codes: int = 4,
        count: int = 10,
        step: float = 1.0,
        decay: float = 0.8,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in 0..1, got {decay}")
        if every < 1 or codes < 1 or count < 2:
            raise ValueError(
                f"every, codes and count must be >= 1, 1 and 2, got {every}, {codes} and {count}"
            )
        self.distance, self.weight, self.step, self.decay = distance, weight, step, decay
        self.every, self.codes, self.count = every, codes, count
        self._running: dict[str, Tensor] = {}

    def observe(self, images: Tensor) -> None:
        """Nothing: responses are measured by images of its own."""

    def loss(
        self,
        generator: Generator,
        images: Tensor,  # noqa: ARG002
        step: int,
    ) -> Float[Tensor, ""] | None:
        """The mean over layers, every so many steps."""
        if step % self.every:
            return None
        found = [self._of_layer(generator, one, step // self.every) for one in _found(generator)]
        return torch.stack(found).mean()

    def _of_layer(self, generator: Generator, one: LayerDirections, turn: int) -> Tensor:
        many, count = len(one), min(self.count, len(one))
        if one.layer not in self._running:
            with torch.no_grad():
                whole = self._measured(generator, one, torch.arange(many))
            self._running[one.layer] = processes.mean(whole)
        running = self._running[one.layer]
        chosen = (turn * count + torch.arange(count)) % many
        now = _over_processes(self._measured(generator, one, chosen))
        running = running.to(now)  # a state that was read is on the CPU
        share = 1 - self.decay
        place = chosen.to(running.device)
        running = running.index_copy(0, place, running[place] + share * (now - running[place]))
        self._running[one.layer] = running.detach()
        return _newest(running.var() / running.mean().square(), share)

    def _measured(self, generator: Generator, one: LayerDirections, chosen: Tensor) -> Tensor:
        """Mean distance along the chosen directions, over new random codes."""
        z = torch.randn(self.codes, generator.z_dim).to(device_of(generator))
        moves = self.step * one.vectors[chosen.to(one.vectors.device)]
        with evaluating(generator, gradients=True):
            ws = codes(generator, z)
            moved = ws.repeat(len(chosen), 1, 1)
            along = moves.to(ws).repeat_interleave(self.codes, 0)
            if one.slot is None:
                moved = moved + along[:, None]
            else:
                moved[:, one.slot] += along
            images = generator.synthesis(torch.cat((ws, moved)))
        first = images[: self.codes].repeat(len(chosen), 1, 1, 1)
        return self.distance(first, images[self.codes :]).view(len(chosen), -1).mean(1).double()

    def state_dict(self) -> dict[str, Tensor]:
        """What going on needs."""
        return dict(self._running)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        self._running = dict(state)


def _found(generator: Generator) -> list[LayerDirections]:
    """Layers of several directions, of which a variance can be taken."""
    assert isinstance(generator, torch.nn.Module)
    found = [one for one in directions(generator) if len(one) > 1]
    if not found:
        raise ValueError("generator must have a projector of rank 2 or more, to be made even")
    return found
