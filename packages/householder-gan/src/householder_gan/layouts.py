"""Where a latent code enters a generator: names of layers in the layouts that people have.

rosinality's StyleGAN2 (`convs.0.conv.modulation`), NVlabs' StyleGAN2 (`synthesis.b8.conv0.affine`)
and StyleGAN3 (`synthesis.L4_52_1024.affine`). Slots count the codes of w+: in StyleGAN2 slot 0 is
the 4x4 convolution and block k has slots 2k + 1 and 2k + 2, of which the first also feeds the
ToRGB before it; in StyleGAN3 slot 0 is the input and slot i + 1 layer i.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Pattern = str | re.Pattern[str] | Callable[[str, nn.Module], bool]
"""A glob on a layer's name, a compiled expression that matches all of it, or a predicate."""

Layers = Literal["auto"] | Sequence[Pattern]

_ROSINALITY = re.compile(r"(?:conv1|to_rgb1|(convs|to_rgbs)\.(\d+))\.conv\.modulation")
_NVLABS2 = re.compile(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.affine")
_NVLABS3 = re.compile(r"synthesis\.(?:input|L(\d+)_\d+_\d+)\.affine")
_UP = {
    "rosinality": re.compile(r"convs\.\d*[02468]\.conv\.modulation"),
    "nvlabs2": re.compile(r"synthesis\.b(?!4\.)\d+\.conv0\.affine"),
    "nvlabs3": re.compile(r"synthesis\.L(\d+)_\d+_\d+\.affine"),
}


@dataclass(frozen=True)
class Site:
    """A layer whose weight is linear in the latent code.

    `axis` is the dimension of the weight that the code is contracted with; `slot` the place in
    w+ that feeds the layer, None in a generator of one code.
    """

    name: str
    axis: int
    slot: int | None


def slot_of(name: str) -> int | None:
    """The slot of w+ that feeds the layer of this name, None in no known layout."""
    if match := _ROSINALITY.fullmatch(name):
        kind, number = match.groups()
        if kind is None:
            return 0 if name.startswith("conv1") else 1
        return int(number) + 1 if kind == "convs" else 2 * int(number) + 3
    if match := _NVLABS2.fullmatch(name):
        block = int(match[1]).bit_length() - 3  # 4x4 is block 0
        offset = {"conv0": -1, "conv1": 0, "torgb": 1}[match[2]]
        return 2 * block + offset
    if match := _NVLABS3.fullmatch(name):
        return 0 if match[1] is None else int(match[1]) + 1
    return None


def latent_axis(name: str, module: nn.Module, axis: int | None = None) -> int:
    """The dimension of `module.weight` that the latent code is contracted with.

    Known for torch's linear and convolution layers and for the layouts above. Raises ValueError
    for others unless `axis` says it: an orientation is declared, not guessed.
    """
    weight = module.weight
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        raise ValueError(f"layer {name!r} must have a weight of 2 or more dimensions")
    if axis is not None:
        if not -weight.ndim <= axis < weight.ndim:
            raise ValueError(f"axis must lie within the {weight.ndim} of {name!r}, got {axis}")
        return axis % weight.ndim
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    if isinstance(module, transposed):
        return 0
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return 1
    if slot_of(name) is not None:
        return 1
    raise ValueError(
        f"axis must say which dimension of {name!r} ({type(module).__name__}, "
        f"{tuple(weight.shape)}) the latent code is contracted with"
    )


def _matches(pattern: Pattern, name: str, module: nn.Module) -> bool:
    if isinstance(pattern, str):
        return fnmatch.fnmatchcase(name, pattern)
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(name) is not None
    return pattern(name, module)


def _has_weight(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2


def _automatic(named: dict[str, nn.Module]) -> list[str]:
    for layout, pattern in _UP.items():
        found = [(name, match) for name in named if (match := pattern.fullmatch(name))]
        if layout == "nvlabs3":
            last = max((int(match[1]) for _, match in found), default=0)
            # The last layer is ToRGB.
            found = [(n, m) for n, m in found if int(m[1]) % 4 == 0 and int(m[1]) != last]
        if found:
            return [name for name, _ in found]
    linear = (nn.Linear, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return [name for name, module in named.items() if isinstance(module, linear)][:1]


def find_sites(
    generator: nn.Module, layers: Layers = "auto", axis: int | None = None
) -> tuple[Site, ...]:
    """The layers that a projector or a factorisation is to act on, in the generator's order.

    "auto" takes the published choice: in StyleGAN2 the first convolution of each block from 8x8
    up, in StyleGAN3 layers 0, 4, 8, …, and in other generators the first linear or transposed
    convolution layer in order of registration, as SeFa does in PGGAN. Raises ValueError where
    nothing is found, naming a pattern without a match.
    """
    named = {name: m for name, m in generator.named_modules() if _has_weight(m)}
    if isinstance(layers, str):
        if layers != "auto":
            raise ValueError(f"layers must be 'auto' or a list of patterns, got {layers!r}")
        chosen = _automatic(named)
        if not chosen:
            raise ValueError(
                f"layers 'auto' knows no layer of {type(generator).__name__}: name the layers "
                "that the latent code enters"
            )
    else:
        for pattern in layers:
            if not any(_matches(pattern, name, m) for name, m in named.items()):
                raise ValueError(f"layers: nothing with a weight matches {pattern!r}")
        chosen = [n for n, m in named.items() if any(_matches(p, n, m) for p in layers)]
        if not chosen:
            raise ValueError("layers must name at least one layer, got none")
    return tuple(Site(n, latent_axis(n, named[n], axis), slot_of(n)) for n in chosen)
