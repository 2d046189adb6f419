"""Projectors in place of the weights by which a latent code enters a generator, and back."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from householder_gan.layouts import Layers, find_sites, latent_axis
from householder_gan.projector import PartialIsometry, Reflectors, Sigma

Rank = int | str | Mapping[str, int]


def as_matrix(weight: Tensor, axis: int) -> Tensor:
    """A weight as A (c, d), d being the dimension `axis` and c all others."""
    moved = weight.movedim(axis, -1)
    return moved.reshape(-1, moved.shape[-1])


class WeightIsometry(PartialIsometry):
    """`PartialIsometry` of a layer's weight of any shape, such as a transposed convolution's."""

    def __init__(
        self,
        shape: tuple[int, ...],
        axis: int,
        rank: int,
        *,
        sigma: Sigma = "identity",
        reflectors: Reflectors = "thin",
        gain: float | Literal["mean"] = 1.0,
    ) -> None:
        self.axis = axis
        self.kept = tuple(n for i, n in enumerate(shape) if i != axis)
        rows, columns = math.prod(self.kept), shape[axis]
        super().__init__(rows, columns, rank, sigma=sigma, reflectors=reflectors, gain=gain)

    def forward(self, U: Tensor, V: Tensor, log_sigma: Tensor | None = None) -> Tensor:
        P = super().forward(U, V, log_sigma)
        return P.reshape(*self.kept, self.columns).movedim(-1, self.axis)

    def right_inverse(self, A: Tensor) -> tuple[Tensor, ...]:
        return super().right_inverse(as_matrix(A, self.axis))


def register_householder(
    module: nn.Module,
    rank: int,
    *,
    axis: int | None = None,
    sigma: Sigma = "identity",
    reflectors: Reflectors = "thin",
    gain: float | Literal["mean"] = 1.0,
) -> WeightIsometry:
    """Make `module.weight` a projector, at the one nearest to the weight that it has.

    `module.weight = A` from then on puts the projector nearest to A there. The layer's bias,
    equalised learning rate and own gain stay as they are. `axis` is the dimension of the weight
    that the latent code is contracted with, which must be given for layers other than torch's.
    Raises ValueError for a weight that is parametrised already.
    """
    if parametrize.is_parametrized(module, "weight"):
        raise ValueError(f"weight of {type(module).__name__} must not be parametrised already")
    axis = latent_axis(type(module).__name__, module, axis)
    weight = module.weight
    assert isinstance(weight, Tensor)
    isometry = WeightIsometry(
        tuple(weight.shape), axis, rank, sigma=sigma, reflectors=reflectors, gain=gain
    ).to(weight)
    parametrize.register_parametrization(module, "weight", isometry)
    return isometry


def _chains(module: nn.Module) -> nn.ModuleDict:
    held = module.parametrizations
    assert isinstance(held, nn.ModuleDict)
    return held


def isometry_of(module: nn.Module) -> WeightIsometry | None:
    """The projector that a layer's weight is, None if it is none."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    chain = _chains(module)["weight"]
    assert isinstance(chain, parametrize.ParametrizationList)
    return chain[0] if isinstance(chain[0], WeightIsometry) else None


def originals_of(module: nn.Module) -> list[Tensor]:
    """U, V and, if it is learned, log σ of a layer made by `register_householder`."""
    isometry = isometry_of(module)
    if isometry is None:
        raise ValueError(f"weight of {type(module).__name__} must be a Householder projector")
    chain = _chains(module)["weight"]
    count = 3 if isometry.sigma_kind == "learned" else 2
    return [getattr(chain, f"original{i}") for i in range(count)]


def factors_of(module: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """U_r (c, r), g σ (r,) and V_r (d, r) of a layer made by `register_householder`."""
    originals = originals_of(module)
    isometry = isometry_of(module)
    assert isometry is not None
    return isometry.factors(*originals)


@dataclass(frozen=True)
class LayerReport:
    """What a projector keeps of a layer's weight A (rows, columns).

    `energy` is Σ_{k<=r} σ_k² / ‖A‖_F²; `gap` is (σ_r - σ_{r+1})/σ_1, 0 where the nearest
    projector is not unique; `ratio` is σ_1/σ_r, 1 afterwards if sigma is "identity".
    """

    name: str
    slot: int | None
    rows: int
    columns: int
    rank: int
    energy: float
    gap: float
    ratio: float


@dataclass(frozen=True)
class Report:
    """What `householderize` did, layer by layer; `print` gives a table."""

    layers: tuple[LayerReport, ...]

    def __str__(self) -> str:
        width = max(5, *(len(layer.name) for layer in self.layers))
        head = f"{'layer':{width}}  slot      weight  rank  energy kept  σ_1/σ_r  gap"
        lines = [
            f"{one.name:{width}}  {'-' if one.slot is None else one.slot!s:>4}  "
            f"{f'{one.rows}x{one.columns}':>10}  {one.rank:4d}  {one.energy:11.1%}  "
            f"{one.ratio:7.2f}  {one.gap:.1e}"
            for one in self.layers
        ]
        return "\n".join((head, *lines))


def _rank_for(name: str, S: Tensor, rank: Rank) -> int:
    if isinstance(rank, Mapping):
        if name not in rank:
            raise ValueError(f"rank must name every layer, got none for {name!r}")
        return rank[name]
    if isinstance(rank, int):
        return rank
    kind, _, share = rank.partition(":")
    try:
        wanted = float(share)
    except ValueError:
        wanted = math.nan
    if kind != "energy" or not 0 < wanted <= 1:
        raise ValueError(f"rank must be a number, numbers by layer or 'energy:0.9', got {rank!r}")
    energy = S.square().cumsum(0) / S.square().sum()
    # The sum of everything may round to less than 1.
    return min(int((energy < wanted).sum()) + 1, len(S))


def _layer_report(name: str, slot: int | None, A: Tensor, S: Tensor, rank: int) -> LayerReport:
    if not 0 <= rank <= len(S):
        raise ValueError(f"rank of {name!r} must lie in [0, {len(S)}], got {rank}")
    if not float(S.sum()) > 0:
        raise ValueError(f"weight of {name!r} must not be zero: no projector is nearest to it")
    after = float(S[rank]) if rank < len(S) else 0.0
    last = float(S[rank - 1]) if rank else float(S[0])
    return LayerReport(
        name=name,
        slot=slot,
        rows=A.shape[0],
        columns=A.shape[1],
        rank=rank,
        energy=float(S[:rank].square().sum() / S.square().sum()),
        gap=(last - after) / float(S[0]),
        ratio=float(S[0]) / last if last else math.inf,
    )


def householderize(
    generator: nn.Module,
    layers: Layers = "auto",
    rank: Rank = 10,
    *,
    sigma: Sigma = "identity",
    reflectors: Reflectors = "thin",
    gain: float | Literal["mean", "auto"] = "auto",
    axis: int | None = None,
    dry_run: bool = False,
) -> Report:
    """Turn weights of a trained generator into the projectors nearest to them, in place.

    Args:
        generator: A module whose layers keep their weight as `weight`.
        layers: "auto" (`layouts.find_sites`), or globs, compiled expressions or predicates.
        rank: One number, a number for each layer by name, or "energy:0.9", the least rank that
            keeps this share of ‖A‖_F².
        sigma, reflectors: As in `PartialIsometry`.
        gain: A factor on the projector, in front of the layer's own. "auto" is "mean" for sigma
            "identity", so that the styles keep their size, and 1 otherwise. The official code
            has 1 in StyleGAN3 and √d in StyleGAN2, where it leaves the layer's 1/√d out.
        axis: The latent dimension of the weights of layers that are not torch's.
        dry_run: Only report.

    Returns a report of the energy kept. Raises ValueError for a rank out of reach, a layer that
    is a projector already or an orientation that is not known, before anything is changed.
    """
    modules = dict(generator.named_modules())
    sites = find_sites(generator, layers, axis)
    chosen: float | Literal["mean"] = 1.0
    if gain != "auto":
        chosen = gain
    elif sigma == "identity":
        chosen = "mean"
    reports = []
    for site in sites:
        module = modules[site.name]
        if parametrize.is_parametrized(module, "weight"):
            raise ValueError(f"weight of {site.name!r} must not be parametrised already")
        weight = module.weight
        assert isinstance(weight, Tensor)
        A = as_matrix(weight.detach(), site.axis).double()
        if not bool(torch.isfinite(A).all()):
            raise ValueError(f"weight of {site.name!r} must be finite, got NaN or Inf")
        S = torch.linalg.svdvals(A)
        reports.append(_layer_report(site.name, site.slot, A, S, _rank_for(site.name, S, rank)))
    if not dry_run:
        for site, report in zip(sites, reports, strict=True):
            register_householder(
                modules[site.name],
                report.rank,
                axis=site.axis,
                sigma=sigma,
                reflectors=reflectors,
                gain=chosen,
            )
    return Report(tuple(reports))


def _restore(module: nn.Module) -> None:
    # torch's remove_parametrizations deletes the property from the class, which a deep copy
    # shares with its original: the copy gets its plain class back instead.
    if len(_chains(module)) > 1:
        raise ValueError(
            f"{type(module).__name__} must have no parametrised tensor but its weight, got "
            f"{sorted(_chains(module))}"
        )
    weight = module.weight
    assert isinstance(weight, Tensor)
    value = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    module.register_parameter("weight", value)


def fold(generator: nn.Module) -> nn.Module:
    """A copy with plain weights in place of projectors, of the same images to the last bit.

    Raises ValueError for a layer of which other tensors are parametrised as well.
    """
    plain = copy.deepcopy(generator)
    for module in list(plain.modules()):
        if isometry_of(module) is not None:
            _restore(module)
    return plain
