"""One run over a model: the spectra of its layers, plans for targets, and their application.

The stages of `compress`, `sweep` and `probe`, which differ in what they do with them.
"""

import hashlib
import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from asvd import sequential
from asvd.allocate import Allocation, allocate, parameters_of
from asvd.blocks import Batch, BlockWalk, Loss, causal_loss
from asvd.decompose import Decomposition, Fuse, factors
from asvd.distributed import processes, share
from asvd.layers import factor, matrix, replace, set_matrix
from asvd.perplexity import perplexity, perplexity_of
from asvd.report import CompressionReport, LayerReport, parameters
from asvd.search import RATIOS, RankList, uniform
from asvd.sensitivity import over_processes, perplexity_sensitivity, stable_rank_sensitivity
from asvd.spectra import Method, Metric, Spectra
from asvd.spill import Folder, fingerprint
from asvd.statistics import Statistic

AllocationName = Literal["auto", "uniform", "greedy", "fisher", "strs", "stable_rank"]
Progress = Callable[[float, str], None]


def silent(_fraction: float, _what: str) -> None:
    """What `progress` is when nobody asked for it."""


@dataclass(frozen=True)
class Target:
    """What is asked for: exactly one of the three."""

    ratio: float | None = None
    perplexity: float | None = None
    kv_ratio: float | None = None

    def __str__(self) -> str:
        if self.ratio is not None:
            return f"ratio {self.ratio}"
        if self.perplexity is not None:
            return f"perplexity {self.perplexity}"
        return f"cache ratio {self.kv_ratio}"


@dataclass(frozen=True)
class Options:
    """The arguments of `compress` that say how, as documented there."""

    method: Method = "sequential"
    allocation: AllocationName = "auto"
    statistic: Statistic = "abs_mean"
    alpha: float = 0.5
    align: int = 1
    least: float = 0.0
    fuse: Fuse = "balanced"
    decomposition: Decomposition = "auto"
    candidates: Sequence[float] = RATIOS
    isotonic: bool = False
    probe_batches: int | None = None
    ridge: float = 0.1
    loss: Loss = causal_loss
    progress: Progress = silent

    @property
    def metric(self) -> Metric:
        return Metric(self.method, self.statistic, self.alpha, self.allocation == "fisher")


class Job:
    """The layers of a model and what is known of them, in a run folder."""

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        names: Sequence[str],
        options: Options,
        folder: Folder,
    ) -> None:
        self.model = model
        # Names and not modules: a dense layer that was replaced must not stay in memory.
        self.names = list(names)
        self.options = options
        self.shapes = {name: _shape(model.get_submodule(name)) for name in names}
        self.seconds: dict[str, float] = {}
        self._folder = folder
        self._dense_size = parameters(model)
        self._walk = BlockWalk(model, share(batches) if batches else [], folder, self.names)
        self._spectra = Spectra(
            self._walk, self.names, folder, options.metric, options.loss, options.decomposition
        )

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._folder.path

    def decompose(self, targets: Sequence[Target]) -> None:
        """The dense pass and the spectra that plans for the targets need."""
        options = self.options
        metric = options.metric
        if metric.needs_inputs or options.allocation == "strs":
            with self._stage("dense pass"):
                self._walk.capture()
        if metric.needs_gradients:
            with self._stage("gradients") as tell:
                self._spectra.gather_gradients(tell)
        with self._stage("decompose") as tell:
            self._spectra.decompose(self._needed(targets), tell)

    def plan(self, target: Target) -> Allocation:
        """The ranks within the target. Raises ValueError where there are none."""
        if target.perplexity is not None:
            return self._plan_for_perplexity(target.perplexity)
        if target.kv_ratio is not None:
            return self._plan_for_cache(target.kv_ratio)
        assert target.ratio is not None
        if target.ratio == 1 or self.options.allocation == "uniform":
            return uniform(self.shapes, target.ratio, self.options.align)
        if self.options.allocation in ("greedy", "fisher"):
            return self._allocate(target.ratio)
        ranked = self.ranked()
        return ranked.allocation(ranked.for_ratio(target.ratio))

    def ranked(self) -> RankList:
        """The search list of the layers, by stable rank or by measured perplexities."""
        options = self.options
        if options.allocation == "stable_rank":
            sensitivity = stable_rank_sensitivity(self.model, self.names, options.candidates)
        else:
            with self._stage("probe") as tell:
                sensitivity = perplexity_sensitivity(
                    self.model, self.shapes, self._spectra.load, self._perplexity_behind,
                    options.candidates, align=options.align, fuse=options.fuse,
                    log=self._folder.path / "probes.jsonl",
                    progress=lambda fraction, _what: tell(fraction),
                )  # fmt: skip
        return RankList(sensitivity, self.shapes, options.align, options.isotonic)

    def apply(self, plan: Allocation) -> None:
        """Puts the factored layers of the plan in place."""
        # Of a sweep each point is reported with its own time.
        self.seconds.pop("factor", None)
        self.seconds.pop("update", None)
        if self.options.method != "sequential":
            with self._stage("factor"):
                self._install(plan.ranks)
            return
        options = self.options
        with self._stage("update") as tell:
            sequential.walk_through(
                self._walk, self.names, plan.ranks, self._steps(plan),
                self._spectra.output_root, options.fuse, options.ridge, options.decomposition, tell,
            )  # fmt: skip

    @contextmanager
    def applied(self, plan: Allocation) -> Generator[None]:
        """The model with the plan's layers while it lasts, and then as it was."""
        corrected: list[str] = []
        if self.options.method == "sequential":
            # Layers that stay dense are corrected in place.
            corrected = [name for name, rank in plan.ranks.items() if rank is None]
        for name in corrected:
            weight = matrix(self.model.get_submodule(name))
            self._folder.save(f"dense/{name}", {"W": weight})
        try:
            with self._dense_after():
                self.apply(plan)
                yield
        finally:
            for name in corrected:
                layer = self.model.get_submodule(name)
                set_matrix(layer, self._folder.load(f"dense/{name}", matrix(layer).device)["W"])
                self._folder.remove(f"dense/{name}")
        self._steps(plan).clear()

    def report(self, plan: Allocation, target: Target) -> CompressionReport:
        """What the layers of the model got, for a model that the plan was applied to."""
        layers = []
        for name, shape in self.shapes.items():
            rank = plan.ranks[name]
            layers.append(LayerReport(name, shape, rank, self._spectra.lost(name, rank)))
        return CompressionReport(
            self.options.method, self.options.allocation, str(target), plan.ratio,
            parameters(self.model) / self._dense_size, tuple(layers), dict(self.seconds),
        )  # fmt: skip

    @contextmanager
    def _stage(self, name: str) -> Generator[Callable[[float], None]]:
        """Times a stage; what it yields moves the progress of the stage."""
        start = time.perf_counter()
        self.options.progress(0.0, name)
        yield lambda fraction: self.options.progress(fraction, name)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _needed(self, targets: Sequence[Target]) -> dict[str, int]:
        """How many triples of each layer the plans can ask for."""
        options = self.options
        needed = {name: min(shape) for name, shape in self.shapes.items()}
        fixed: list[Mapping[str, int | None]] = []
        if options.allocation in ("strs", "stable_rank"):
            fixed = [uniform(self.shapes, r, options.align).ranks for r in options.candidates]
        elif options.allocation == "uniform" and all(t.perplexity is None for t in targets):
            fixed = [self.plan(target).ranks for target in targets]
        if fixed:
            for name in needed:
                needed[name] = max(ranks[name] or 0 for ranks in fixed)
        return needed

    def _allocate(self, ratio: float, unit: Literal["weights", "cache"] = "weights") -> Allocation:
        losses = {}
        for name in self.names:
            squares = (
                self._spectra.fisher(name)
                if self.options.allocation == "fisher"
                else self._spectra.squares(name)
            ).cpu()
            total = squares.sum()
            if self.options.allocation == "greedy" and float(total) > 0:
                squares = squares / total
            losses[name] = squares.numpy()
        return allocate(losses, self.shapes, ratio, self.options.align, self.options.least, unit)

    def _plan_for_cache(self, kv_ratio: float) -> Allocation:
        """Ranks within a share of the numbers that the outputs of the layers take for a token."""
        if self.options.allocation != "uniform":
            return self._allocate(kv_ratio, "cache")
        align = self.options.align
        ranks: dict[str, int | None] = {}
        for name, (m, n) in self.shapes.items():
            rank = int(m * kv_ratio + 1e-9) // align * align
            ranks[name] = rank if rank < m and rank <= n else None
        taken = sum(parameters_of(self.shapes[n], rank, "cache") for n, rank in ranks.items())
        return Allocation(ranks, taken, sum(m for m, _ in self.shapes.values()), float("nan"))

    def _plan_for_perplexity(self, budget: float) -> Allocation:
        """The least ratio whose one-shot model keeps the calibration perplexity within budget."""
        dense = self._perplexity()
        if dense > budget:
            raise ValueError(
                f"perplexity_budget must be at least that of the dense model, {dense:.4f}, "
                f"got {budget}"
            )
        best = uniform(self.shapes, 1.0)
        low, high = 0.0, 1.0
        with self._stage("search") as tell:
            while high - low > 0.005:
                middle = (low + high) / 2
                plan = (
                    uniform(self.shapes, middle, self.options.align)
                    if self.options.allocation == "uniform"
                    else self._allocate(middle)
                )
                with self._dense_after():
                    self._install(plan.ranks)
                    value = self._perplexity()
                if value <= budget:
                    best, high = plan, middle
                else:
                    low = middle
                tell(1 - (high - low))
        return best

    def _perplexity(self) -> float:
        batches = self._walk.batches
        return over_processes(perplexity(self.model, batches), len(batches))

    def _perplexity_behind(self, layer: str) -> float:
        """On the probes, run from the layer's block on; blocks before it are dense."""
        walk = self._walk
        batches = walk.batches[: self.options.probe_batches]
        first = walk.index(layer)
        outputs = (walk.output_from(first, j).logits for j in range(len(batches)))
        return over_processes(perplexity_of(outputs, batches), len(batches))

    def _install(self, ranks: Mapping[str, int | None]) -> None:
        for name, rank in ranks.items():
            if rank is not None:
                W = matrix(self.model.get_submodule(name))
                found = self._spectra.load(name)
                factor(self.model, name, *factors(W, found, rank, self.options.fuse))

    @contextmanager
    def _dense_after(self) -> Generator[None]:
        """Puts the layers that are there now back in the end."""
        layers = {name: self.model.get_submodule(name) for name in self.names}
        try:
            yield
        finally:
            for name, layer in layers.items():
                replace(self.model, name, layer)

    def _steps(self, plan: Allocation) -> Folder:
        """Where the walk of a plan keeps what it has done."""
        options = self.options
        what = [sorted(plan.ranks.items()), options.fuse, options.ridge, options.decomposition]
        digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        return self._folder.under(f"walk-{digest}")


@contextmanager
def opened(
    model: nn.Module,
    batches: Sequence[Batch],
    names: Sequence[str],
    options: Options,
    run_folder: Path | str | None,
) -> Generator[Job]:
    """A job in its folder, the model in evaluation mode while it lasts.

    The folder is asked what its spectra depend on: a job for another ratio or another allocation
    goes on from them. Raises StaleRunError for a folder of another question.
    """
    question = {
        "method": options.method, "statistic": options.statistic, "alpha": options.alpha,
        "decomposition": options.decomposition, "layers": list(names),
        "processes": processes()[1], "model": fingerprint(dict(model.named_parameters())),
        "calibration": fingerprint(_flat(batches)),
    }  # fmt: skip
    folder = None if run_folder is None else Path(run_folder) / f"process-{processes()[0]}"
    with _evaluated(model), Folder(folder, question) as kept:
        yield Job(model, batches, names, options, kept)


@contextmanager
def _evaluated(model: nn.Module) -> Generator[None]:
    """The model in evaluation mode while it lasts, each module in its own mode after."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _flat(batches: Sequence[Batch]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for j, batch in enumerate(batches):
        parts = batch if isinstance(batch, Mapping) else {"": batch}
        flat |= {f"{j}/{name}": value for name, value in parts.items()}
    return flat


def _shape(layer: nn.Module) -> tuple[int, int]:
    m, n = matrix(layer).shape
    return m, n
