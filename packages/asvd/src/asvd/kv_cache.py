"""A cache that keeps rank coordinates instead of keys and values.

A factored projection gives k = A (B x) + b; the cache keeps B x, of rank numbers a token, for all
tokens, and multiplies by A when attention asks. Keys are rotated by their positions after the
projection, so that the coordinates are kept before the rotation and the keys are rotated anew at
each step; cosines and sines are kept once for all layers.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from asvd.layers import LowRankLinear


@dataclass
class _Step:
    """What the projections and the rotation gave in the forward pass that is going on."""

    keys: Tensor | None = None
    values: Tensor | None = None
    rotation: tuple[Tensor, Tensor] | None = None


class LowRankLayer(DynamicLayer):
    """One layer of the cache: coordinates (batch, 1, tokens, rank) of keys and of values.

    Where a projection is dense its heads are kept as they are, (batch, heads, tokens, head_dim).
    """

    def __init__(self, cache: "LowRankCache", attention: Any) -> None:
        super().__init__()
        self._cache = cache
        self._attention = attention
        self.step = _Step()

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values up to now, after the new tokens were added."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        step, self.step = self.step, _Step()
        keys = _grown(self.keys, key_states if step.keys is None else step.keys[:, None])
        values = _grown(self.values, value_states if step.values is None else step.values[:, None])
        self.keys, self.values = keys, values
        heads = key_states.shape[-1]
        if step.keys is not None:
            keys = self._expanded(self._attention.k_proj, keys, heads)
            if getattr(self._attention, "k_norm", None) is not None:
                keys = self._attention.k_norm(keys)
            if step.rotation is not None:
                keys = self._rotated(keys, *self._cache.rotation(self, step.rotation))
        if step.values is not None:
            values = self._expanded(self._attention.v_proj, values, value_states.shape[-1])
        return keys, values

    def _expanded(self, projection: LowRankLinear, z: Tensor, head_dim: int) -> Tensor:
        """(batch, heads, tokens, head_dim) from coordinates (batch, 1, tokens, rank)."""
        full = projection.ALinear(z[:, 0])
        return full.unflatten(-1, (-1, head_dim)).transpose(1, 2)

    def _rotated(self, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        module = sys.modules[type(self._attention).__module__]
        return module.apply_rotary_pos_emb(keys, keys, cos, sin)[1]


class LowRankCache(DynamicCache):
    """A cache for `model.generate(..., past_key_values=cache)` of a compressed model.

    Works for attention with projections `k_proj` and `v_proj` that hands its keys to the cache
    after the rotary embedding of its own module (Llama, Mistral, Qwen, …) or without one (OPT).
    It listens to the model while it is open: use it as a context manager, or `close` it.

    Raises ValueError for a model without such projections, or with none of them factored.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        found = [
            module
            for module in model.modules()
            if hasattr(module, "k_proj") and hasattr(module, "v_proj")
        ]
        if not any(
            isinstance(projection, LowRankLinear)
            for attention in found
            for projection in (attention.k_proj, attention.v_proj)
        ):
            raise ValueError("model must have a factored k_proj or v_proj; compress with kv_ratio")
        if getattr(model.config.get_text_config(), "sliding_window", None) is not None:
            raise ValueError("model must attend to all tokens, got one with a sliding window")
        self.layer_class_to_replicate = None
        self._coordinates = [LowRankLayer(self, attention) for attention in found]
        self.layers = list(self._coordinates)
        self._rotation: tuple[Tensor, Tensor] | None = None
        self._handles: list[Any] = []
        for layer, attention in zip(self._coordinates, found, strict=True):
            self._listen(layer, attention)

    def __enter__(self) -> "LowRankCache":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening to the model. What is cached stays readable."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def numbers(self) -> int:
        """How many numbers the cache holds for the tokens that it has seen."""
        kept = [
            t for layer in self._coordinates for t in (layer.keys, layer.values) if t is not None
        ]
        return sum(tensor.numel() for tensor in (*kept, *(self._rotation or ())))

    def rotation(self, layer: LowRankLayer, new: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Cosines and sines of all tokens; the first layer of a pass adds those of the new ones."""
        if layer is self._coordinates[0] or self._rotation is None:
            seen = self._rotation
            self._rotation = (
                new if seen is None else (_joined(seen[0], new[0]), _joined(seen[1], new[1]))
            )
        return self._rotation

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Removes tokens at the end, as transformers does."""
        super().crop(*args, **kwargs)
        length = self.get_seq_length()
        self._over_rotation(lambda t: t[:, :length])

    def reset(self) -> None:
        """Forgets all tokens."""
        super().reset()
        self._rotation = None

    def reorder_cache(self, beam_idx: Any) -> None:
        """Picks the rows of a beam search."""
        super().reorder_cache(beam_idx)
        self._over_rotation(lambda t: t if len(t) == 1 else t.index_select(0, beam_idx))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each row."""
        super().batch_repeat_interleave(repeats)
        self._over_rotation(lambda t: t if len(t) == 1 else t.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps the rows of the indices."""
        super().batch_select_indices(indices)
        self._over_rotation(lambda t: t if len(t) == 1 else t[indices])

    def _over_rotation(self, change: Any) -> None:
        if self._rotation is not None:
            self._rotation = (change(self._rotation[0]), change(self._rotation[1]))

    def _listen(self, layer: LowRankLayer, attention: Any) -> None:
        def rotation(_module: nn.Module, _args: Sequence[Any], kwargs: dict[str, Any]) -> None:
            if kwargs.get("past_key_values") is self:
                layer.step.rotation = kwargs.get("position_embeddings")

        self._handles.append(
            attention.register_forward_pre_hook(rotation, with_kwargs=True, prepend=True)
        )
        for name in ("keys", "values"):
            projection = attention.k_proj if name == "keys" else attention.v_proj
            if not isinstance(projection, LowRankLinear):
                continue

            def coordinates(_module: nn.Module, _args: Any, z: Tensor, name: str = name) -> None:
                setattr(layer.step, name, z)

            self._handles.append(projection.BLinear.register_forward_hook(coordinates))


def _grown(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None or old.numel() == 0 else torch.cat([old, new], dim=-2)


def _joined(old: Tensor, new: Tensor) -> Tensor:
    rows = max(len(old), len(new))
    return torch.cat([old.expand(rows, -1, -1), new.expand(rows, -1, -1)], dim=1)
