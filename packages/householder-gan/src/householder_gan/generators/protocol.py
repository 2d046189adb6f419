"""What directions, traversals and metrics ask of a generator; adapters for others' modules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Generator(Protocol):
    """z -> w by `mapping`, w+ (batch, slots, w_dim) -> images in -1..1 by `synthesis`.

    `space` is the space that directions live in: "w", or "z" where mapping is the identity.
    `synthesis` must be deterministic in evaluation mode.
    """

    @property
    def z_dim(self) -> int: ...
    @property
    def w_dim(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def space(self) -> str: ...
    @property
    def mapping(self) -> Callable[[Tensor], Tensor]: ...
    @property
    def synthesis(self) -> Callable[[Tensor], Tensor]: ...


@dataclass(frozen=True)
class Adapter:
    """A `Generator` made of two functions, for modules of other projects."""

    mapping: Callable[[Tensor], Tensor]
    synthesis: Callable[[Tensor], Tensor]
    z_dim: int
    w_dim: int
    slots: int
    space: str = "w"


def adapt_rosinality(generator: nn.Module) -> Adapter:
    """A StyleGAN2 `Generator` of rosinality's stylegan2-pytorch, with its stored noise."""
    style = generator.get_submodule("style")
    dim, slots = (getattr(generator, name) for name in ("style_dim", "n_latent"))

    def render(ws: Tensor) -> Tensor:
        return generator([ws], input_is_latent=True, randomize_noise=False)[0]

    return Adapter(style, render, dim, dim, slots)


def adapt_nvlabs(generator: nn.Module) -> Adapter:
    """An unconditional `Generator` of NVlabs' stylegan2-ada-pytorch or stylegan3."""
    mapping, synthesis = (generator.get_submodule(name) for name in ("mapping", "synthesis"))
    z_dim, w_dim, slots = (getattr(generator, name) for name in ("z_dim", "w_dim", "num_ws"))

    def code(z: Tensor) -> Tensor:
        return mapping(z, None)[:, 0]

    def render(ws: Tensor) -> Tensor:
        return synthesis(ws, noise_mode="const")

    return Adapter(code, render, z_dim, w_dim, slots)


def codes(generator: Generator, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch slots w"]:
    """w+ of z: its w in every slot."""
    return generator.mapping(z)[:, None].expand(-1, generator.slots, -1)


def device_of(generator: Generator) -> torch.device:
    """Where the generator's first parameter lies; the CPU for a generator that is no module."""
    if isinstance(generator, nn.Module):
        for parameter in generator.parameters():
            return parameter.device
    return torch.device("cpu")


def draw(
    generator: Generator, samples: int, rng: torch.Generator | None = None
) -> Float[Tensor, "samples z"]:
    """Standard normal z, drawn on the CPU so that a seed means the same on every device."""
    return torch.randn(samples, generator.z_dim, generator=rng).to(device_of(generator))


def mean_latent(
    generator: Generator, samples: int = 4096, rng: torch.Generator | None = None
) -> Float[Tensor, " w"]:
    """The mean of w over samples of z, which truncation draws towards."""
    with torch.no_grad():
        return generator.mapping(draw(generator, samples, rng)).mean(0)


def truncate(
    ws: Float[Tensor, "... w"], mean: Float[Tensor, " w"], psi: float
) -> Float[Tensor, "... w"]:
    """mean + psi (w - mean)."""
    return mean + psi * (ws - mean)
