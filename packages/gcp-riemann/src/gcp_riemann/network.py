"""A backbone with a covariance head in place of its average pooling, by the names of its layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcp_riemann.heads import LEMMLR, PEMMLR, ChoTMLR, LogEMLR, PowEMLR, PowTMLR, ScalePowEMLR
from gcp_riemann.pooling import CovariancePooling

HEADS: Mapping[str, type[nn.Module]] = {
    "log-emlr": LogEMLR,
    "pow-emlr": PowEMLR,
    "scale-pow-emlr": ScalePowEMLR,
    "pow-tmlr": PowTMLR,
    "cho-tmlr": ChoTMLR,
    "pem-mlr": PEMMLR,
    "lem-mlr": LEMMLR,
}
_POWERS = ("pow-emlr", "scale-pow-emlr", "pow-tmlr", "pem-mlr")


class Tap:
    """A forward hook that keeps what its layer gave last."""

    def __init__(self) -> None:
        self.value: Any = None

    def __call__(self, _layer: nn.Module, _inputs: object, output: Any) -> None:
        self.value = output

    def take(self, name: str) -> Tensor:
        """The output, once. RuntimeError if there is none, ValueError if it is no feature map."""
        value, self.value = self.value, None
        if value is None:
            raise RuntimeError(f"layer {name!r} took no part in the backbone's forward pass")
        if not isinstance(value, Tensor) or value.ndim != 4:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"layer {name!r} must give (batch, C, h, w), got {got}")
        return value


@dataclass
class Alone:
    """Whether the checkpoint that is being loaded is one of the backbone alone."""

    value: bool = False


def reduction(channels: int, dim: int) -> nn.Sequential:
    """1x1 convolution without bias, batch normalisation, ReLU: the C0 -> C of the paper."""
    convolution = nn.Conv2d(channels, dim, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(dim), nn.ReLU())


class GCPNetwork(nn.Module):
    """Backbone, reductions, covariance pooling and head; made by `gcp_head`.

    The whole backbone is kept under `backbone`, so its checkpoints fit: `load_state_dict` takes
    one of the network, or one of the backbone alone, with the backbone's own names, and then
    leaves reductions and head as they are. What lies behind the last layer that is read is
    computed and not used; its parameters do not ask for gradients.
    """

    def __init__(
        self,
        backbone: nn.Module,
        layers: Sequence[str],
        reductions: Sequence[nn.Module],
        head: nn.Module,
        *,
        check: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.layers = backbone, tuple(layers)
        self.reductions = nn.ModuleList(reductions)
        self.pooling = CovariancePooling(check=check)
        self.head = head
        self._alone = Alone()
        self._taps = [Tap() for _ in self.layers]
        for name, tap in zip(self.layers, self._taps, strict=True):
            backbone.get_submodule(name).register_forward_hook(tap)
        self.register_load_state_dict_pre_hook(_name_backbone)
        self.register_load_state_dict_post_hook(_allow_backbone)

    def covariance(self, image: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch n n"]:
        """The covariance that the head classifies."""
        self.backbone(image)
        maps = [tap.take(name) for name, tap in zip(self.layers, self._taps, strict=True)]
        reduced = [reduce(X) for reduce, X in zip(self.reductions, maps, strict=True)]
        return self.pooling(*reduced)

    def forward(self, image: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        return self.head(self.covariance(image))


def _name_backbone(network: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """A checkpoint of the backbone alone gets the prefix under which the network has it."""
    assert isinstance(network, GCPNetwork)
    own = {prefix + name for name in network.backbone.state_dict()}
    found = {name for name in state_dict if name.startswith(prefix)}
    network._alone.value = bool(found) and found <= own
    if network._alone.value:
        for name in sorted(found):
            state_dict[f"{prefix}backbone.{name.removeprefix(prefix)}"] = state_dict.pop(name)


def _allow_backbone(network: nn.Module, incompatible: Any) -> None:
    """Reductions and head may be missing in a checkpoint of the backbone."""
    assert isinstance(network, GCPNetwork)
    if network._alone.value:
        kept = [key for key in incompatible.missing_keys if ".reductions." not in f".{key}"]
        incompatible.missing_keys[:] = [key for key in kept if ".head." not in f".{key}"]


def _probe(backbone: nn.Module, size: int) -> dict[str, Tensor]:
    """Outputs (1, C, h, w) of the layers that give one, in the order in which they finish."""
    found: dict[str, Tensor] = {}
    handles = []

    def watch(name: str) -> Any:
        def hook(_layer: nn.Module, _inputs: object, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                found.pop(name, None)
                found[name] = output

        return hook

    for name, layer in backbone.named_modules():
        if name:
            handles.append(layer.register_forward_hook(watch(name)))
    parameter = next(backbone.parameters(), torch.empty(0))
    training = {layer for layer in backbone.modules() if layer.training}
    backbone.eval()
    try:
        image = torch.zeros(1, 3, size, size, dtype=parameter.dtype, device=parameter.device)
        with torch.enable_grad():
            backbone(image)
    finally:
        for layer in training:
            layer.training = True
        for handle in handles:
            handle.remove()
    return found


def _last_map(found: Mapping[str, Tensor]) -> str:
    """The layer that is last to give more than one position."""
    wide = [name for name, X in found.items() if X.shape[-2] * X.shape[-1] > 1]
    if not wide:
        raise ValueError("backbone must have a layer that gives (batch, C, h, w), got none")
    return wide[-1]


def gcp_head(
    backbone: nn.Module,
    classes: int,
    dim: int | None = 256,
    head: str = "pow-emlr",
    *,
    layers: str | Sequence[str] | None = None,
    image_size: int = 224,
    check: bool = True,
    **options: Any,
) -> GCPNetwork:
    """Make a GCP network of any image classifier, without touching its code or its checkpoints.

    Args:
        backbone: From torchvision, timm or elsewhere; takes images (batch, 3, h, w). It becomes
            part of the network.
        classes: Number of logits.
        dim: Channels after the 1x1 reduction of each layer; None leaves them as they are.
        head: "log-emlr", "pow-emlr", "scale-pow-emlr", "pow-tmlr", "cho-tmlr", "pem-mlr" or
            "lem-mlr". The power heads take "newton_schulz" unless `method` says otherwise: it is
            fast on every device and in ONNX, which has no eigendecomposition of its own.
        layers: Names of the layers to pool, as in `backbone.named_modules()`; several are
            pooled together. None: the last one that gives more than one position.
        image_size: Of the zero image with which the layers' channels are found out.
        check: Raise an error that names the image whose covariance is bad.
        options: Of the head.

    ValueError for a layer that is not there or gives no map, and for an unknown head.
    """
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(map(repr, HEADS))}, got {head!r}")
    found = _probe(backbone, image_size)
    names = (
        [_last_map(found)] if layers is None else [layers] if isinstance(layers, str) else layers
    )
    for name in names:
        if name not in dict(backbone.named_modules()):
            raise ValueError(f"layers must name modules of the backbone, got {name!r}")
        if name not in found:
            raise ValueError(f"layer {name!r} must give (batch, C, h, w), but does not")
    if not names:
        raise ValueError("layers must name at least one module, got none")
    maps = [found[name] for name in names]
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    if parameters and any(X.requires_grad for X in maps):
        total = torch.stack([X.sum() for X in maps]).sum()
        reached = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, slope in zip(parameters, reached, strict=True):
            if slope is None:
                parameter.requires_grad_(False)
    reductions = [nn.Identity() if dim is None else reduction(X.shape[1], dim) for X in maps]
    n = sum(X.shape[1] if dim is None else dim for X in maps)
    if head in _POWERS:
        options.setdefault(
            "method", "newton_schulz" if options.get("theta", 0.5) == 0.5 else "eigh"
        )
    network = GCPNetwork(
        backbone, names, reductions, HEADS[head](n, classes, check=check, **options), check=check
    )
    first = next(backbone.parameters(), None)
    return network if first is None else network.to(first.device, first.dtype)
