"""Batch normalisation with statistics of each domain (DSMLieBN): sessions, subjects, machines.

Bias and scale are shared. A domain has statistics for training, which normalise in training,
and others that follow with a momentum of their own and normalise in eval mode. Source: Kobler
et al., NeurIPS 2022, and Chen et al., ICLR 2024, Appendix E.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from linalg_kernels.precision import full_precision
from torch import Tensor, nn

from liebn.batch_norm import check_eps, check_momentum, check_steps
from liebn.functional import Normalisation, Statistics, centre, mean
from liebn.group import LieGroup
from liebn.layer import GroupLayer
from liebn.pool import ChannelPool, DomainPool

Label = int | str
_BUFFERS = ("running_mean", "running_var", "running_mean_test", "running_var_test")


class DomainLieBatchNorm(GroupLayer):
    """Moves each domain to mean B and variance s², a domain by its own statistics.

    Args:
        group: The Lie group.
        shape: (*channels, n, n), or n; input is (batch, ..., *shape), see `LieBatchNorm`.
        domains: Labels known from the start, numbers or strings. A new label in training, or
            in `refit`, adds a domain; the others are not touched.
        momentum: Weight of a batch in the statistics that normalise in training; 1 takes the
            batch's own. `MomentumSchedule` changes both momenta from epoch to epoch.
        test_momentum: Weight of a batch in the statistics that normalise in eval mode.
        eps: Added to the variance.
        karcher_steps: Steps to means without a closed form; None iterates to convergence.
        trivialized: See `LieBatchNorm`.

    In training a domain's mean moves to that of its part of the batch, and its variance to the
    mean squared distance from the moved mean. One matrix alone says nothing about variance,
    and leaves it as it is. Statistics are constants to autograd. Buffers have the domains, in
    the order of `domains`, along dimension 0.
    """

    running_mean: Tensor
    running_var: Tensor
    running_mean_test: Tensor
    running_var_test: Tensor

    def __init__(
        self,
        group: LieGroup,
        shape: int | Sequence[int],
        domains: Sequence[Label] = (),
        momentum: float = 1.0,
        test_momentum: float = 0.1,
        eps: float = 1e-5,
        karcher_steps: int | None = 1,
        *,
        trivialized: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(group, shape, trivialized=trivialized, dtype=dtype, device=device)
        check_momentum(momentum)
        check_momentum(test_momentum, "test_momentum")
        check_eps(eps)
        check_steps(karcher_steps)
        self.momentum, self.test_momentum = momentum, test_momentum
        self.eps, self.karcher_steps = eps, karcher_steps
        self.refits = False
        self._slots: dict[Label, int] = {}
        dtype = self.neutral(dtype, device).dtype
        for name in _BUFFERS:
            shape = self.shape if "mean" in name else self.shape[:-2]
            self.register_buffer(name, torch.empty(0, *shape, dtype=dtype, device=device))
        for label in domains:
            self.add_domain(label)

    @property
    def domains(self) -> tuple[Label, ...]:
        """The labels that are known."""
        return tuple(self._slots)

    @torch.no_grad()
    def add_domain(self, label: Label) -> None:
        """A domain of neutral means and variances 1. Raises ValueError if the label is known."""
        if isinstance(label, bool) or not isinstance(label, (int, str)):
            raise TypeError(f"a domain's label must be int or str, got {type(label).__name__}")
        if label in self._slots:
            raise ValueError(f"domain {label!r} is there already")
        self._slots[label] = len(self._slots)
        E = self.neutral(self.running_mean.dtype, self.running_mean.device)
        one = self.running_var.new_ones(1, *self.shape[:-2])
        for name in _BUFFERS:
            row = E.expand(1, *self.shape) if "mean" in name else one
            setattr(self, name, torch.cat([getattr(self, name), row]))

    @full_precision
    def forward(
        self, X: Float[Tensor, "b *rest n n"], domains: Label | Sequence[Label] | Tensor
    ) -> Float[Tensor, "b *rest n n"]:
        """The normalised matrices of one domain, or of as many labels as X has entries.

        Raises ValueError in eval mode for a domain without statistics.
        """
        self.require_input(X, self.running_mean)
        if X.ndim == len(self.shape):
            raise ValueError(f"X must have a batch dimension, got {tuple(X.shape)}")
        slots = self._read_domains(domains, len(X), new=self.training or self.refits)
        Y = self.group.chart(X)
        if self.training:
            return self.group.chart_inverse(self._trained(Y, slots))
        if self.refits:
            self._refit(Y, slots)
        statistics = self.running_mean_test, self.running_var_test
        kept = self.kept_normalisation(statistics, lambda: self._normalisation(X.ndim), X.ndim)
        return self.group.chart_inverse(kept[slots](Y))

    @torch.no_grad()
    def refit(self, label: Label, X: Float[Tensor, "b *rest n n"]) -> None:
        """Sets the statistics of one domain that normalise in eval mode to those of X.

        X (b, ..., *shape) is input of this layer, without labels: what adapts a network to a
        new domain. A label that is new is added. See `refitting` for layers inside networks.
        """
        self.require_input(X, self.running_mean)
        self._refit(self.group.chart(X), self._read_domains(label, len(X), new=True))

    def _trained(self, Y: Tensor, slots: Tensor) -> Tensor:
        present, pool = self._pool(Y, slots)
        group = self.group
        M = mean(group, Y, pool, self.karcher_steps)
        inner = [1] * (M.ndim - 1 - len(self.shape))

        def moved(name: str, t: float) -> Tensor:
            rows = getattr(self, f"running_mean{name}")
            flat = group.geodesic(rows[present], M.reshape(-1, *self.shape), t)
            rows[present] = flat
            return flat.reshape(-1, *inner, *self.shape)

        def weighed(name: str, t: float, var: Tensor) -> Tensor:
            rows = getattr(self, f"running_var{name}")
            old = rows[present]
            new = torch.lerp(old, var.reshape(old.shape), t)
            rows[present] = new = torch.where(_several(pool, Y, old), new, old)
            return new.reshape(-1, *inner, *self.shape[:-2], 1, 1)

        with torch.no_grad():
            means = moved("", self.momentum), moved("_test", self.test_momentum)
            found = centre(group, Y.detach(), means[1], pool)
            weighed("_test", self.test_momentum, found.var)
        polar, var = centre(group, Y, means[0], pool)
        with torch.no_grad():
            var = weighed("", self.momentum, var)
        factor = self.scale_matrix() / torch.sqrt(pool.spread(var) + self.eps)
        return polar.moved(factor, self.bias_translation())

    @torch.no_grad()
    def _refit(self, Y: Tensor, slots: Tensor) -> None:
        present, pool = self._pool(Y, slots)
        M = mean(self.group, Y, pool, self.karcher_steps)
        old = self.running_var_test[present]
        var = centre(self.group, Y, M, pool).var.reshape(old.shape)
        self.running_mean_test[present] = M.reshape(-1, *self.shape)
        self.running_var_test[present] = torch.where(_several(pool, Y, old), var, old)

    def _pool(self, X: Tensor, slots: Tensor) -> tuple[Tensor, DomainPool]:
        present, index = torch.unique(slots, return_inverse=True)
        dims = self.pooled_dims(X)
        return present, DomainPool(index, len(present), ChannelPool(dims[1:]))

    def _normalisation(self, ndim: int) -> Normalisation:
        """Of every domain, in eval mode, for input of `ndim` dimensions."""
        inner = [1] * (ndim - 1 - len(self.shape))
        M = self.running_mean_test.reshape(-1, *inner, *self.shape)
        var = self.running_var_test.reshape(-1, *inner, *self.shape[:-2], 1, 1)
        forth, scale = self.bias_translation(), self.scale_matrix()
        return Normalisation.of(self.group, Statistics(M, var), forth, scale, self.eps)

    def _read_domains(
        self, domains: Label | Sequence[Label] | Tensor, count: int, *, new: bool
    ) -> Int64[Tensor, " b"]:
        """The slot of each entry; with `new` labels that are not known are added."""
        if isinstance(domains, Tensor):
            domains = domains.tolist()
        labels = [domains] * count if isinstance(domains, (int, str)) else list(domains)
        if len(labels) != count:
            raise ValueError(f"domains must be one label or {count}, got {len(labels)}")
        for label in dict.fromkeys(labels):
            if label in self._slots:
                continue
            if not new:
                raise ValueError(
                    f"domain {label!r} has no statistics, only {list(self._slots)}; "
                    "refit(label, X) makes them from unlabelled matrices"
                )
            self.add_domain(label)
        slots = [self._slots[label] for label in labels]
        return torch.tensor(slots, device=self.running_mean.device)

    def get_extra_state(self) -> list[Label]:
        """The labels, for the state dict."""
        return list(self._slots)

    def set_extra_state(self, state: list[Label]) -> None:
        """Labels from a state dict."""
        self._slots = {label: i for i, label in enumerate(state)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in _BUFFERS:
            stored = state_dict.get(prefix + name)
            buffer = getattr(self, name)
            if stored is not None and stored.shape[1:] == buffer.shape[1:]:
                setattr(self, name, buffer.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Options."""
        return (
            f"{self.group}, {self.shape}, domains={list(self._slots)}, "
            f"momentum={self.momentum}, test_momentum={self.test_momentum}, eps={self.eps}, "
            f"karcher_steps={self.karcher_steps}"
        )


def _several(pool: DomainPool, X: Tensor, var: Tensor) -> Tensor:
    """Whether each set has at least two matrices, in the shape of `var` (sets, ...)."""
    each = math.prod(X.shape[dim] for dim in pool.channels.dims)
    return (pool.sizes() * each > 1).reshape(-1, *[1] * (var.ndim - 1))


@contextmanager
def refitting(model: nn.Module) -> Generator[None]:
    """Inside, every `DomainLieBatchNorm` of the model in eval mode refits the domains it meets.

    One pass of a domain's unlabelled data through the model then adapts all of its layers,
    each to what the adapted ones before it give.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, DomainLieBatchNorm)]
    for layer in layers:
        layer.refits = True
    try:
        yield
    finally:
        for layer in layers:
            layer.refits = False
