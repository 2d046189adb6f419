"""Directions in latent space: rows of projectors, SeFa, GANSpace."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from linalg_kernels import svd_topk
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from householder_gan.files import WRONG, reason, whole, write_text
from householder_gan.generators.protocol import Generator, draw
from householder_gan.householderize import as_matrix, factors_of, isometry_of
from householder_gan.layouts import Layers, find_sites, slot_of
from householder_gan.projector import HouseholderProjector, nearest_factors

FORMAT = "householder-gan directions 1"


@dataclass(frozen=True)
class LayerDirections:
    """Unit vectors (r, d), one direction of latent space a row, and where they come from.

    `sigma` (r,) is the response ‖A v_j‖ of the layer to a unit step. `slot` is the place of w+
    that feeds the layer, None where every slot is meant. `labels` are names given by people, by
    the number of the direction.
    """

    layer: str
    slot: int | None
    vectors: Float[Tensor, "r d"]
    sigma: Float[Tensor, " r"]
    source: str
    space: str
    labels: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class DirectionSet:
    """Directions of one or several layers; `found["layer"]` are those of a layer."""

    layers: tuple[LayerDirections, ...]

    def __len__(self) -> int:
        return sum(len(one) for one in self.layers)

    def __iter__(self) -> Iterator[LayerDirections]:
        return iter(self.layers)

    def __getitem__(self, layer: str) -> LayerDirections:
        for one in self.layers:
            if one.layer == layer:
                return one
        raise KeyError(
            f"no directions of layer {layer!r}, only of {[o.layer for o in self.layers]}"
        )

    def require(self, generator: Generator) -> None:
        """ValueError unless these are directions of the generator's latent space."""
        for one in self.layers:
            if one.space != generator.space:
                raise ValueError(
                    f"directions of {one.layer!r} live in {one.space!r}, the generator's codes "
                    f"in {generator.space!r}"
                )
            if one.vectors.shape[-1] != generator.w_dim:
                raise ValueError(
                    f"directions of {one.layer!r} must have {generator.w_dim} entries, got "
                    f"{one.vectors.shape[-1]}"
                )
            if one.slot is not None and not 0 <= one.slot < generator.slots:
                raise ValueError(
                    f"slot of {one.layer!r} must lie in [0, {generator.slots - 1}], got {one.slot}"
                )

    def save(self, path: str | Path) -> None:
        """Vectors to `path` (safetensors), all else to the JSON file of the same stem."""
        path = Path(path).with_suffix(".safetensors")
        tensors, described = {}, []
        for i, one in enumerate(self.layers):
            tensors[f"{i}.vectors"] = one.vectors.detach().cpu().contiguous()
            tensors[f"{i}.sigma"] = one.sigma.detach().cpu().contiguous()
            described.append(
                {
                    "layer": one.layer,
                    "slot": one.slot,
                    "source": one.source,
                    "space": one.space,
                    "labels": {str(j): text for j, text in sorted(one.labels.items())},
                }
            )
        with whole(path) as part:
            save_file(tensors, part)
        held = {"format": FORMAT, "layers": described}
        write_text(path.with_suffix(".json"), json.dumps(held, indent=1) + "\n")

    def labelled(self, labels: Mapping[str, Mapping[str, str]]) -> "DirectionSet":
        """With the names that the browser saves: {layer: {number: name}}.

        Raises ValueError for a layer or a number that there is none of.
        """
        unknown = set(labels) - {one.layer for one in self.layers}
        if unknown:
            raise ValueError(f"labels name layers {sorted(unknown)}, which are not there")
        layers = []
        for one in self.layers:
            names = {int(j): text for j, text in labels.get(one.layer, {}).items()}
            if any(not 0 <= j < len(one) for j in names):
                raise ValueError(f"labels of {one.layer!r} must be of 0..{len(one) - 1}")
            layers.append(replace(one, labels={**one.labels, **names}))
        return DirectionSet(tuple(layers))


def load_directions(path: str | Path) -> DirectionSet:
    """What `DirectionSet.save` wrote. Raises ValueError for any other file, naming it."""
    path = Path(path).with_suffix(".safetensors")
    try:
        held = json.loads(path.with_suffix(".json").read_text("utf-8"))
        if held.get("format") != FORMAT:
            raise ValueError(f"format must be {FORMAT!r}, got {held.get('format')!r}")
        with safe_open(path, "pt") as file:
            return DirectionSet(
                tuple(
                    LayerDirections(
                        one["layer"],
                        one["slot"],
                        file.get_tensor(f"{i}.vectors"),
                        file.get_tensor(f"{i}.sigma"),
                        one["source"],
                        one["space"],
                        {int(j): text for j, text in one["labels"].items()},
                    )
                    for i, one in enumerate(held["layers"])
                )
            )
    except WRONG as error:
        raise ValueError(f"{path}: not a set of directions: {reason(error)}") from error


def _gain(module: nn.Module) -> float:
    """What a layer multiplies its weight with, `scale` (rosinality) or `weight_gain` (NVlabs)."""
    return float(getattr(module, "scale", getattr(module, "weight_gain", 1.0)))


def _space(generator: nn.Module) -> str:
    return getattr(generator, "space", "w")


def directions(generator: nn.Module) -> DirectionSet:
    """The columns v_j of V of every projector: parameters of the model, in their order.

    Raises ValueError for a generator without projectors (see `householderize`, `sefa`).
    """
    found = []
    for name, module in generator.named_modules():
        if isometry_of(module) is not None:
            _, sigma, V = factors_of(module)
            isometry = isometry_of(module)
            dtype = torch.float32 if isometry is None else isometry.sigma.dtype
            vectors, response = V.detach().mT.to(dtype), sigma.detach().to(dtype)
        elif isinstance(module, HouseholderProjector) and not module.isometry.batch:
            _, sigma, _ = module.isometry.factors(module.U, module.V, module.log_sigma)
            vectors, response = module.directions.detach().mT, sigma.detach()
        else:
            continue
        scale = _gain(module)
        found.append(
            LayerDirections(
                name, slot_of(name), vectors, scale * response, "projector", _space(generator)
            )
        )
    if not found:
        raise ValueError(f"{type(generator).__name__} has no Householder projector")
    return DirectionSet(tuple(found))


def _upright(V: Tensor) -> Tensor:
    """Rows with the entry of largest size positive, since a singular vector has no sign."""
    largest = V.gather(-1, V.abs().argmax(-1, keepdim=True))
    return torch.where(largest < 0, -V, V)


def sefa(
    generator: nn.Module, layers: Layers = "auto", count: int = 10, *, axis: int | None = None
) -> DirectionSet:
    """The leading right singular vectors of each layer's weight (Shen and Zhou, CVPR 2021).

    Raises ValueError for a count above the least dimension of a weight.
    """
    modules = dict(generator.named_modules())
    found = []
    for site in find_sites(generator, layers, axis):
        module = modules[site.name]
        weight = module.weight
        assert isinstance(weight, Tensor)
        A = as_matrix(weight.detach(), site.axis)
        if not 1 <= count <= min(A.shape):
            raise ValueError(
                f"count must lie in [1, {min(A.shape)}] for {site.name!r}, got {count}"
            )
        _, S, V = nearest_factors(A, count)
        scale = _gain(module)
        found.append(
            LayerDirections(
                site.name,
                site.slot,
                _upright(V.mT).to(A.dtype),
                (scale * S[:count]).to(A.dtype),
                "sefa",
                _space(generator),
            )
        )
    return DirectionSet(tuple(found))


def ganspace(
    generator: Generator,
    count: int = 10,
    samples: int = 10_000,
    *,
    layer: str | None = None,
    rng: torch.Generator | None = None,
) -> DirectionSet:
    """Principal components of sampled codes (Härkönen et al., NeurIPS 2020).

    Without `layer` those of w, for every slot; `sigma` is the deviation along each. With `layer`
    those of all entries of that layer's output, each taken back to latent space by least
    squares, as for generators whose z is what enters the first layer.
    Raises ValueError for fewer samples than directions, or a layer that is not there.
    """
    if not 1 <= count <= generator.w_dim or samples <= generator.w_dim:
        raise ValueError(
            f"count must lie in [1, {generator.w_dim}] and samples above {generator.w_dim}, got "
            f"{count} and {samples}"
        )
    outputs: list[Tensor] = []
    hook = None
    if layer is not None:
        modules = dict(generator.named_modules()) if isinstance(generator, nn.Module) else {}
        if layer not in modules:
            raise ValueError(f"layer must name a module of the generator, got {layer!r}")
        hook = modules[layer].register_forward_hook(
            lambda _module, _inputs, output: outputs.append(output.detach().flatten(1))
        )
    w = []
    try:
        with torch.no_grad():
            for begin in range(0, samples, 256):
                z = draw(generator, min(256, samples - begin), rng)
                w.append(generator.mapping(z))
                if layer is not None:
                    generator.synthesis(w[-1][:, None].expand(-1, generator.slots, -1))
    finally:
        if hook is not None:
            hook.remove()
    W = torch.cat(w).double()
    W = W - W.mean(0)
    if layer is None:
        _, S, Vh = torch.linalg.svd(W, full_matrices=False)
        vectors, sigma, slot = Vh[:count], S[:count] / (samples - 1) ** 0.5, None
    else:
        X = torch.cat(outputs).double()
        X = X - X.mean(0)
        if count > min(X.shape):
            raise ValueError(
                f"count must be at most {min(X.shape)} for layer {layer!r}, got {count}"
            )
        U, S, _ = svd_topk(X, count)
        # The left vectors are orthonormal, so the least-squares solution is a product.
        vectors = U.mT @ W
        sigma, slot = S / (samples - 1) ** 0.5, slot_of(layer)
    vectors = _upright(vectors / vectors.norm(dim=-1, keepdim=True))
    one = LayerDirections(
        layer or "w", slot, vectors.to(w[0].dtype), sigma.to(w[0].dtype), "ganspace",
        generator.space,
    )  # fmt: skip
    return DirectionSet((one,))
