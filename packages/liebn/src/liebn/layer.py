"""What normalisation layers share: shapes, bias and scale, and what is kept between calls."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from linalg_kernels import errors
from torch import Tensor, nn
from torch.nn.utils import parametrize

from liebn.functional import Normalisation
from liebn.group import LieGroup
from liebn.parametrize import Lifted, Positive


def read_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    """(*channels, n, n) of an order n or of the shape itself. Raises ValueError for others."""
    read = (shape, shape) if isinstance(shape, int) else tuple(shape)
    if len(read) < 2 or read[-1] != read[-2] or min(read) < 1:
        raise ValueError(f"shape must be n or (*channels, n, n), got {shape}")
    return read


class _Kept(NamedTuple):
    """What was made of `state`. Holding that, no later tensor can be taken for one of it."""

    state: tuple[Tensor, ...]
    versions: tuple
    made: Normalisation


class GroupLayer(nn.Module):
    """Bias B in the group and scale s > 0, one of each a channel, starting at E and 1.

    Args:
        group: Where the matrices live.
        shape: (*channels, n, n), or n.
        trivialized: Parametrise both by unconstrained tensors. With False they are plain
            parameters: for Riemannian optimisers, which keep B in the group, and for s < 0.
    """

    bias: Tensor
    scale: Tensor

    def __init__(
        self,
        group: LieGroup,
        shape: int | Sequence[int],
        *,
        trivialized: bool,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        self.group, self.shape = group, read_shape(shape)
        channels, n = self.shape[:-2], self.shape[-1]
        E = self.neutral(dtype, device)
        self.bias = nn.Parameter(group.chart_inverse(E).expand(*channels, n, n).clone())
        self.scale = nn.Parameter(torch.ones(channels, dtype=dtype, device=device))
        if trivialized:
            parametrize.register_parametrization(self, "bias", Lifted(group))
            parametrize.register_parametrization(self, "scale", Positive())
        self._kept: _Kept | None = None

    def neutral(
        self, dtype: torch.dtype | None, device: torch.device | str | None
    ) -> Float[Tensor, "n n"]:
        """Coordinates of the neutral element."""
        dtype = torch.get_default_dtype() if dtype is None else dtype
        return self.group.neutral(self.shape[-1]).to(dtype=dtype, device=device)

    def bias_translation(self) -> Float[Tensor, "*channels n n"]:
        """What the group's `act` takes to translate by the bias."""
        if not parametrize.is_parametrized(self, "bias"):
            return self.group.translation(self.group.chart(self.bias, "bias"))
        return self.group.lift(self._original("bias"))

    def scale_matrix(self) -> Float[Tensor, "*channels 1 1"]:
        """The scale, ready to multiply matrices."""
        # Not by the parametrisation: what torch adds to a call of it costs more than exp.
        plain = not parametrize.is_parametrized(self, "scale")
        scale = self.scale if plain else torch.exp(self._original("scale"))
        return scale[..., None, None]

    def _original(self, name: str) -> Tensor:
        lists = cast(nn.ModuleDict, self.parametrizations)
        return cast(Tensor, lists[name].original)

    def require_input(self, X: Tensor, like: Tensor) -> None:
        """ValueError or TypeError unless X is (..., *shape) in the dtype of `like`."""
        errors.require_float(X, "X")
        errors.require_real(X, "X")
        ends = X.shape[max(0, X.ndim - len(self.shape)) :]
        fits = len(ends) == len(self.shape) and all(
            want in (1, got) for want, got in zip(self.shape[:-2], ends[:-2], strict=True)
        )
        if not fits or ends[-2:] != self.shape[-2:]:
            told = ", ".join(map(str, self.shape))
            raise ValueError(f"X must be (..., {told}), got {tuple(X.shape)}")
        errors.require_same_kind(X, like, ("X", "running_mean"))

    def pooled_dims(self, X: Tensor) -> tuple[int, ...]:
        """Dimensions of X over which statistics are taken: all in front of `shape`, and those
        where `shape` has 1."""
        extra = X.ndim - len(self.shape)
        ones = (extra + i for i, size in enumerate(self.shape[:-2]) if size == 1)
        return (*range(extra), *ones)

    def kept_normalisation(
        self, statistics: Sequence[Tensor], make: Callable[[], Normalisation], variant: int = 0
    ) -> Normalisation:
        """`make()`, or what it gave last time if nothing it depends on has changed since.

        Derivatives with respect to bias and scale are not kept: where one may be asked for,
        it is made anew. What differs by more than these tensors differs in `variant`.
        """
        parameters = tuple(self.parameters())
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return make()
        state = (*statistics, *parameters)
        if any(t.is_inference() for t in state):
            return make()
        versions = (variant, *((t.data_ptr(), t._version) for t in state))
        kept = self._kept
        if (
            kept is None
            or kept.versions != versions
            or any(old is not new for old, new in zip(kept.state, state, strict=True))
        ):
            # What is kept must serve autograd later, wherever it was made.
            with torch.inference_mode(False), torch.no_grad():
                kept = self._kept = _Kept(state, versions, make())
        return kept.made

    def train(self, mode: bool = True) -> "GroupLayer":
        """Also forgets what was kept."""
        self._kept = None
        super().train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Moving to a device or dtype changes parameters behind their versions.
        self._kept = None
        return super()._apply(fn, recurse)
