"""The spectra of all layers in the metric of a method, found one block at a time.

What is found lies in a folder: a second call goes on from it, and so does one for another ratio.
Of all layers only singular values stay in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from asvd.blocks import BlockWalk, Loss
from asvd.calibration import BlockMoments, gradient_moments, input_moments
from asvd.decompose import Decomposition, Spectrum, root, spectrum
from asvd.distributed import from_owner, is_mine
from asvd.layers import matrix
from asvd.spill import Folder
from asvd.statistics import Statistic, scaling

Method = Literal["svd", "asvd", "whiten", "sequential"]
Tell = Callable[[float], None]

OUTPUT_RIDGE = 1e-4
"""Of the output metric, relative to each output: directions that no gradient reached are cheap
and not free."""


@dataclass(frozen=True)
class Metric:
    """What a truncation is measured by.

    Attributes:
        method, statistic, alpha: As given to `compress`.
        fisher: Whether the loss that "fisher" allocates by is wanted beside the method's own.
    """

    method: Method
    statistic: Statistic
    alpha: float
    fisher: bool

    @property
    def needs_gradients(self) -> bool:
        scaled = self.method == "asvd" and self.statistic.startswith("fisher")
        return self.method == "sequential" or self.fisher or scaled

    @property
    def needs_inputs(self) -> bool:
        return self.method != "svd" or self.fisher

    @property
    def needs_gram(self) -> bool:
        whole = self.method in ("whiten", "sequential") or self.fisher
        return whole or (self.method == "asvd" and self.statistic == "rms")


class Spectra:
    """Finds and keeps the spectra of the layers of a model.

    Args:
        walk: Has captured the calibration data, if the metric needs any.
        names: The layers, dense as long as they are decomposed or loaded.
    """

    def __init__(
        self,
        walk: BlockWalk,
        names: Sequence[str],
        folder: Folder,
        metric: Metric,
        loss: Loss,
        decomposition: Decomposition,
    ) -> None:
        self._names = list(names)
        self._walk = walk
        self._folder = folder
        self._metric = metric
        self._loss = loss
        self._decomposition: Decomposition = decomposition
        self._squares: dict[str, Tensor] = {}
        self._fisher: dict[str, Tensor] = {}
        self._energy: dict[str, float] = {}

    def gather_gradients(self, tell: Tell) -> None:
        """Moments of the output gradients of all blocks, last to first."""
        walk, folder = self._walk, self._folder
        for i in reversed(range(len(walk))):
            if not folder.shared(f"gradients/{i}"):
                inside = walk.layers(i, self._names)
                fisher = self._metric.statistic.startswith("fisher")
                found = gradient_moments(walk, i, inside, self._loss, fisher)
                moments = BlockMoments(gradients=found)
                folder.save(f"gradients/{i}", moments.state() | {"done": torch.ones(1)})
            for j in range(len(walk.batches)):
                folder.remove(f"gradient/{i + 1}-{j}")
            tell(1 - i / len(walk))

    def decompose(self, ranks: Mapping[str, int], tell: Tell) -> None:
        """Spectra of all blocks, of each layer at least `ranks[layer]` triples."""
        walk = self._walk
        for i in range(len(walk)):
            inside = walk.layers(i, self._names)
            missing = [
                name
                for name in inside
                if not self._folder.shared(f"spectrum/{name}", self._is_kept(name, ranks[name]))
            ]
            if missing:
                self._find(i, missing, ranks)
            for name in inside:
                self._read(name)
            tell((i + 1) / len(walk))

    def squares(self, name: str) -> Tensor:
        """Squared singular values (r), descending: what the truncation of each loses."""
        return self._squares[name]

    def fisher(self, name: str) -> Tensor:
        """The same in the metric that weighs outputs by the gradients of the loss."""
        return self._fisher[name]

    def lost(self, name: str, rank: int | None) -> float:
        """Share of the layer's squared norm, in the metric, that truncation at `rank` loses."""
        energy = self._energy[name]
        if rank is None or energy <= 0:
            return 0.0
        return max(1 - float(self._squares[name][:rank].sum()) / energy, 0.0)

    def load(self, name: str) -> Spectrum:
        """The spectrum of a layer, on the layer's device."""
        device = matrix(self._walk.model.get_submodule(name)).device
        kept = self._folder.load(f"spectrum/{name}", device)
        return Spectrum(kept["U"], kept["sigma"], kept.get("output"), float(kept["energy"]))

    def output_root(self, name: str) -> Tensor:
        """The root of the layer's output metric (method "sequential")."""
        return self._folder.load(f"spectrum/{name}")["output"]

    def _is_kept(self, name: str, rank: int) -> bool:
        if not self._folder.has(f"spectrum/{name}"):
            return False
        kept = self._folder.load(f"spectrum/{name}")
        has_fisher = self._metric.method == "sequential" or "fisher" in kept
        return len(kept["sigma"]) >= rank and (has_fisher or not self._metric.fisher)

    def _read(self, name: str) -> None:
        kept = self._folder.load(f"spectrum/{name}")
        self._squares[name] = kept["sigma"].double().square()
        self._energy[name] = float(kept["energy"])
        # The own metric of "sequential" is the one that weighs outputs by gradients.
        self._fisher[name] = kept.get("fisher", kept["sigma"]).double().square()

    def _find(self, i: int, names: Sequence[str], ranks: Mapping[str, int]) -> None:
        moments = BlockMoments()
        if self._metric.needs_inputs:
            moments = input_moments(self._walk, i, names, self._metric.needs_gram)
        if self._metric.needs_gradients:
            stored = self._folder.load(f"gradients/{i}", self._walk.device(i))
            stored.pop("done")
            moments.gradients = BlockMoments.from_state(stored).gradients
        roots: dict[int, Tensor] = {}
        for position, name in enumerate(names):
            self._folder.save(
                f"spectrum/{name}", self._one(moments, name, ranks[name], position, roots)
            )

    def _one(
        self, moments: BlockMoments, name: str, rank: int, position: int, roots: dict[int, Tensor]
    ) -> dict[str, Tensor]:
        W = matrix(self._walk.model.get_submodule(name))
        S, R = self._roots(moments, name, roots)
        dtype = torch.float64 if W.dtype == torch.float64 else torch.float32
        small = min(W.shape)
        U, sigma = W.new_zeros(len(W), rank, dtype=dtype), W.new_zeros(rank, dtype=dtype)
        energy = W.new_zeros((), dtype=torch.float64)
        fisher = W.new_zeros(small, dtype=dtype)
        fisher_too = self._metric.fisher and self._metric.method != "sequential"
        if is_mine(position):
            found = spectrum(W, S, R, rank, self._decomposition)
            U, sigma = found.U.contiguous(), found.sigma.contiguous()
            energy.fill_(found.energy)
            if fisher_too:
                S = _root_of(moments, name, roots)
                R2 = root(moments.gradients[name].gram, OUTPUT_RIDGE)
                fisher = spectrum(W, S, R2, decomposition="exact").sigma.contiguous()
        from_owner((U, sigma, energy, fisher), position)
        tensors = {"U": U, "sigma": sigma, "energy": energy}
        if fisher_too:
            tensors["fisher"] = fisher
        if R is not None:
            tensors["output"] = R.to(dtype)
        return tensors

    def _roots(
        self, moments: BlockMoments, name: str, roots: dict[int, Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        """(input root or diagonal, output root) of the method for the layer."""
        metric = self._metric
        if metric.method == "svd":
            return None, None
        if metric.method == "asvd":
            gradients = moments.gradients.get(name)
            return scaling(moments.inputs[name], metric.statistic, metric.alpha, gradients), None
        S = _root_of(moments, name, roots)
        if metric.method == "whiten":
            return S, None
        return S, root(moments.gradients[name].gram, OUTPUT_RIDGE)


def _root_of(moments: BlockMoments, name: str, roots: dict[int, Tensor]) -> Tensor:
    """The input root of the layer, factored once for a group that shares its input."""
    shared = moments.inputs[name]
    if id(shared) not in roots:
        assert shared.gram is not None
        roots[id(shared)] = root(shared.gram)
    return roots[id(shared)]
