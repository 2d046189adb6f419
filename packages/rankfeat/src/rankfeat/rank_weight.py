"""RankWeight: a model whose deep weights are without their rank-one part."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rankfeat.hooks import Hooks, find_layers
from rankfeat.removal import remove_effective_weight, remove_weight

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# On the layer, not its weight: a copy of the model then carries it too.
_MARK = "_rankweight_removed"


def _require_plain(name: str, layer: nn.Module) -> None:
    if not isinstance(layer, _KINDS):
        kinds = ", ".join(one.__name__ for one in _KINDS)
        raise TypeError(f"layer {name!r} must be one of {kinds}, got {type(layer).__name__}")
    if not isinstance(layer.weight, nn.Parameter) or parametrize.is_parametrized(layer, "weight"):
        raise TypeError(
            f"layer {name!r} must hold its weight as a parameter, but computes it; make it one"
            " first (torch.nn.utils.parametrize.remove_parametrizations)"
        )


def _rescale(gain: Tensor, layer: Any, _inputs: Any, output: Tensor) -> Tensor:
    """(output - bias) * gain + bias, channel by channel."""
    behind = 0 if isinstance(layer, nn.Linear) else layer.weight.ndim - 2
    shape = (-1,) + (1,) * behind
    gain = gain.to(output).reshape(shape)
    if layer.bias is None:
        return output * gain
    bias = layer.bias.to(output).reshape(shape)
    return (output - bias) * gain + bias


class RankWeight:
    """Removal of the rank-one part of the weights of some layers of a model, in place.

    W' = W - s1 u1 v1^T, see `remove_weight`; biases stay. `apply` does it once however often it is
    called, `restore` undoes it to the bit; a context does both. The official code removes a
    further rank each time a data set is scored. Any score can be taken of the model; statistics
    of other methods, and a threshold, must be found after `apply`. One or two layers near the end
    is what the paper uses.

    Args:
        model: Any module.
        layers: Names of linear or convolution layers, as in `model.named_modules()`.
        effective: For layers that standardise their weight when they run, that map, e.g.
            `standardize`: the rank-one part of what it gives is removed, by a hook on the layer.
            Without it, as in the paper's code, that of the raw weight.

    Raises:
        TypeError: A layer is not linear or a convolution, or computes its weight.
        ValueError: An unknown name, or two layers share one weight.

    Source: Song, Sebe and Wang, RankFeat & RankWeight (TPAMI 2024), arXiv 2311.13959.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        *,
        effective: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._layers: dict[str, Any] = find_layers(model, layers)
        self._effective = effective
        self._weights: dict[str, tuple[Tensor, Tensor]] = {}  # original, removed
        self._hooks = Hooks()
        owners: dict[int, str] = {}
        for name, layer in self._layers.items():
            _require_plain(name, layer)
            other = owners.setdefault(id(layer.weight), name)
            if other != name:
                raise ValueError(f"layers {other!r} and {name!r} share one weight: name one")

    @property
    def applied(self) -> bool:
        """Whether the weights are without their rank-one part now."""
        return bool(self._weights)

    @torch.no_grad()
    def apply(self) -> "RankWeight":
        """Remove the rank-one part of each weight, unless that is done.

        Raises:
            RuntimeError: Another RankWeight is applied to one of the layers.
            LinAlgError: A weight contains NaN or Inf. No weight is changed then.
        """
        if self.applied:
            return self
        for name, layer in self._layers.items():
            if hasattr(layer, _MARK):
                raise RuntimeError(f"layer {name!r} is without its rank-one part already")
        removed, gains = {}, {}
        for name, layer in self._layers.items():
            groups = getattr(layer, "groups", 1)
            if self._effective is None:
                removed[name] = remove_weight(layer.weight, groups)
            else:
                removed[name], gains[name] = remove_effective_weight(
                    layer.weight, self._effective, groups
                )
        for name, layer in self._layers.items():
            self._weights[name] = layer.weight.detach().clone(), removed[name]
            layer.weight.copy_(removed[name])
            setattr(layer, _MARK, True)
            if name in gains:
                self._hooks.add(layer, partial(_rescale, gains[name]))
        return self

    @torch.no_grad()
    def restore(self) -> None:
        """Put the original weights back, to the bit, unless that is done.

        Raises:
            RuntimeError: A weight was changed since `apply`, which restoring would discard.
        """
        for name, (_, removed) in self._weights.items():
            weight = self._layers[name].weight
            if not torch.equal(weight, removed.to(weight)):
                raise RuntimeError(f"the weight of layer {name!r} was changed since apply")
        for name, (original, _) in self._weights.items():
            layer = self._layers[name]
            layer.weight.copy_(original)
            delattr(layer, _MARK)
        self._weights.clear()
        self._hooks.close()

    def __enter__(self) -> "RankWeight":
        return self.apply()

    def __exit__(self, *_: object) -> None:
        self.restore()
