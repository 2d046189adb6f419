"""`compress`: calibrate, decompose, allocate, and put the factored layers in place."""

import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from asvd import sequential
from asvd.allocate import Allocation, allocate, parameters_of
from asvd.blocks import Batch, BlockWalk, Loss, causal_loss
from asvd.calibration import BlockMoments, gradient_moments, input_moments
from asvd.decompose import Fuse, Spectrum, factors, root, spectrum
from asvd.distributed import from_owner, is_mine, processes, share
from asvd.layers import factor, linear_layers, matrix, replace
from asvd.report import CompressionReport, LayerReport, attach, parameters
from asvd.search import RATIOS, RankList, uniform
from asvd.sensitivity import mean_perplexity, perplexity_sensitivity, stable_rank_sensitivity
from asvd.spill import Folder, fingerprint
from asvd.statistics import Statistic, scaling

Method = Literal["svd", "asvd", "whiten", "sequential"]
ProbeMethod = Literal["svd", "asvd", "whiten"]
AllocationName = Literal["auto", "uniform", "greedy", "fisher", "strs", "stable_rank"]
Progress = Callable[[float, str], None]

METHODS = ("svd", "asvd", "whiten", "sequential")
ALLOCATIONS = ("auto", "uniform", "greedy", "fisher", "strs", "stable_rank")
OUTPUT_RIDGE = 1e-4
"""Of the output metric, relative to each output: directions that no gradient reached are cheap
and not free."""


def _silent(_fraction: float, _what: str) -> None:
    """What `progress` is when nobody asked for it."""


@dataclass
class _Work:
    """The arguments of one `compress`, and what its stages leave for each other."""

    model: nn.Module
    walk: BlockWalk
    folder: Folder
    layers: Mapping[str, nn.Module]
    shapes: Mapping[str, tuple[int, int]]
    method: Method
    allocation: str
    statistic: Statistic
    alpha: float
    fuse: Fuse
    align: int
    loss: Loss
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    spectra: dict[str, Tensor] = field(default_factory=dict)
    fisher: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Generator[Callable[[float], None]]:
        """Times a stage; what it yields moves the progress of the stage."""
        start = time.perf_counter()
        self.progress(0.0, name)
        yield lambda fraction: self.progress(fraction, name)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @property
    def needs_gradients(self) -> bool:
        fisher = self.statistic.startswith("fisher") and self.method == "asvd"
        return self.method == "sequential" or self.allocation == "fisher" or fisher

    @property
    def needs_gram(self) -> bool:
        whole = self.method in ("whiten", "sequential") or self.allocation == "fisher"
        return whole or (self.method == "asvd" and self.statistic == "rms")


def compress(
    model: nn.Module,
    calibration: Tensor | Sequence[Batch] | None = None,
    ratio: float | None = None,
    method: Method = "sequential",
    *,
    perplexity_budget: float | None = None,
    kv_ratio: float | None = None,
    allocation: AllocationName = "auto",
    statistic: Statistic = "abs_mean",
    alpha: float = 0.5,
    layers: str | Sequence[str] | None = None,
    skip: str | Sequence[str] = (),
    align: int = 1,
    least: float = 0.0,
    fuse: Fuse = "balanced",
    ratios: Sequence[float] = RATIOS,
    isotonic: bool = False,
    ridge: float = 0.1,
    loss: Loss = causal_loss,
    run_folder: Path | str | None = None,
    progress: Progress = _silent,
) -> nn.Module:
    """Replaces linear layers by products of two smaller ones, in place, and returns the model.

    Each weight W becomes A B of rank k with A B = P W, a projection of the layer's outputs;
    the methods differ in what the projection is best for:

    - "svd": ‖W - A B‖, without data.
    - "asvd": ‖(W - A B) diag(s)‖, s from a statistic of the input channels (ASVD eq. 8).
    - "whiten": ‖(W - A B) X‖ on the calibration inputs X, exactly (ASVD eq. 9).
    - "sequential": ‖R^T (M - A B) X'‖ with the inputs X' of the model as compressed so far, M the
      weight that gives the dense outputs from them, and R R^T the moment of the loss gradients at
      the outputs, so that errors count by what they do to the loss. Layers that stay dense take
      their M too.

    `asvd.report(model)` says what each layer got. In a process group each process passes the same
    calibration and reads its share of it; all end with the same model.

    Args:
        calibration: Batches of what the model is called with, token ids (batch, T) or
            dictionaries of tensors (`attention_mask` leaves padding out); or one tensor of
            token ids (N, T), a sequence at a time. "svd" needs none.
        ratio: Kept share of the weights of the chosen layers, in (0, 1]. Never exceeded.
        perplexity_budget: In place of a ratio, the largest calibration perplexity; the least
            ratio that meets it, to 0.005, with the factors of one decomposition.
        kv_ratio: In place of a ratio, the kept share of the numbers that keys and values take in
            the cache for each token. Only key and value projections are compressed
            (`layers`, "*.k_proj" and "*.v_proj" by default), and the model has to be run with
            a `LowRankCache` to save them.
        allocation: "uniform"; "greedy", least total loss, each layer's relative to its outputs;
            "fisher", least estimated rise of the training loss; "strs", the paper's search over
            measured perplexities; "stable_rank", the same without forward passes. "auto" is
            "fisher" for sequential and "uniform" else.
        statistic, alpha: Of "asvd", see `scaling`.
        layers, skip: Shell patterns of layer names; see `linear_layers`.
        align: Ranks are multiples of it.
        least: No layer keeps less than this share ("greedy" and "fisher").
        fuse: See `factors`.
        ratios, isotonic: Candidates of "strs" and "stable_rank"; see `RankList`.
        ridge: Of "sequential", how strongly a weight stays where it was; see `updated`.
        loss: Scalar loss of (output, batch) whose gradients weigh the outputs.
        run_folder: Keeps intermediate results; the same call goes on from them after an
            interruption, another call is refused (StaleRunError). Temporary if None.
        progress: Called with (fraction of the stage, name of the stage).

    Raises ValueError for arguments out of range, and NonFiniteActivationError with the layer's
    name for activations that are not finite. After an exception the model may be half done.
    """
    _check(method, allocation, ratio, perplexity_budget, kv_ratio, calibration)
    if allocation == "auto":
        allocation = "fisher" if method == "sequential" else "uniform"
    if kv_ratio is not None:
        layers = ("*.k_proj", "*.v_proj") if layers is None else layers
    chosen = linear_layers(model, layers, skip)
    shapes = {name: _shape(layer) for name, layer in chosen.items()}
    batches = _batches(calibration)
    question = {
        "method": method, "allocation": allocation, "statistic": statistic, "alpha": alpha,
        "ratio": ratio, "perplexity_budget": perplexity_budget, "kv_ratio": kv_ratio,
        "layers": list(chosen),
        "align": align, "least": least, "fuse": fuse, "ratios": list(ratios),
        "isotonic": isotonic, "ridge": ridge, "processes": processes()[1],
        "model": fingerprint(dict(model.named_parameters())),
        "calibration": fingerprint(_flat(batches)),
    }  # fmt: skip
    folder = None if run_folder is None else Path(run_folder) / f"process-{processes()[0]}"
    dense_size = parameters(model)
    with _evaluated(model), Folder(folder, question) as opened:
        walk = BlockWalk(model, share(batches) if batches else [], opened, list(chosen))
        work = _Work(
            model, walk, opened, chosen, shapes, method, allocation, statistic, alpha, fuse, align,
            loss, progress,
        )  # fmt: skip
        if batches:
            with work.stage("dense pass"):
                work.walk.capture()
        _decompose(work)
        if perplexity_budget is not None:
            plan = _plan_for_perplexity(work, perplexity_budget, least)
        elif kv_ratio is not None:
            plan = _plan_for_cache(work, kv_ratio, least)
        else:
            plan = _plan(work, cast(float, ratio), least, ratios, isotonic, opened)
        if method == "sequential":
            with work.stage("update") as tell:
                sequential.walk_through(
                    work.walk, list(chosen), plan.ranks, opened, fuse, ridge, tell
                )
        else:
            with work.stage("factor"):
                _install(work, plan.ranks)
    targets = {"ratio": ratio, "perplexity": perplexity_budget, "cache ratio": kv_ratio}
    target = next(f"{name} {value}" for name, value in targets.items() if value is not None)
    attach(
        model,
        CompressionReport(
            method, allocation, target, plan.ratio, parameters(model) / dense_size,
            tuple(_layer_report(work, name, plan.ranks[name]) for name in chosen), work.seconds,
        ),
    )  # fmt: skip
    if "transformers" in sys.modules:
        from asvd import hf

        hf.annotate(model)
    return model


def probe(
    model: nn.Module,
    calibration: Tensor | Sequence[Batch],
    method: ProbeMethod = "asvd",
    *,
    statistic: Statistic = "abs_mean",
    alpha: float = 0.5,
    layers: str | Sequence[str] | None = None,
    skip: str | Sequence[str] = (),
    align: int = 1,
    fuse: Fuse = "balanced",
    ratios: Sequence[float] = RATIOS,
    isotonic: bool = False,
    run_folder: Path | str | None = None,
    progress: Progress = _silent,
) -> RankList:
    """The paper's sensitivities, ready to be cut at any ratio; the model is left as it was.

    Arguments as in `compress`. Every probe is kept in the run folder.
    """
    _check(method, "strs", 1.0, None, None, calibration)
    chosen = linear_layers(model, layers, skip)
    shapes = {name: _shape(layer) for name, layer in chosen.items()}
    batches = _batches(calibration)
    question = {
        "probe": method, "statistic": statistic, "alpha": alpha, "layers": list(chosen),
        "align": align, "ratios": list(ratios), "processes": processes()[1],
        "model": fingerprint(dict(model.named_parameters())),
        "calibration": fingerprint(_flat(batches)),
    }  # fmt: skip
    folder = None if run_folder is None else Path(run_folder) / f"process-{processes()[0]}"
    with _evaluated(model), Folder(folder, question) as opened:
        walk = BlockWalk(model, share(batches), opened, list(chosen))
        work = _Work(
            model, walk, opened, chosen, shapes, method, "strs", statistic, alpha, fuse, align,
            causal_loss, progress,
        )  # fmt: skip
        work.walk.capture()
        _decompose(work)
        return _ranked(work, ratios, isotonic, opened)


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


def _check(
    method: str,
    allocation: str,
    ratio: float | None,
    perplexity_budget: float | None,
    kv_ratio: float | None,
    calibration: Any,
) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    if allocation not in ALLOCATIONS:
        names = ", ".join(map(repr, ALLOCATIONS))
        raise ValueError(f"allocation must be one of {names}, got {allocation!r}")
    if sum(target is not None for target in (ratio, perplexity_budget, kv_ratio)) != 1:
        raise ValueError("give one of ratio, perplexity_budget and kv_ratio")
    for name, target in (("ratio", ratio), ("kv_ratio", kv_ratio)):
        if target is not None and not 0 < target <= 1:
            raise ValueError(f"{name} must lie in (0, 1], got {target}")
    if kv_ratio is not None and allocation in ("strs", "stable_rank"):
        raise ValueError(
            f"allocation must be 'uniform', 'greedy' or 'fisher' with kv_ratio, got {allocation!r}"
        )
    needs = method != "svd" or allocation in ("fisher", "strs") or perplexity_budget is not None
    if needs and calibration is None:
        raise ValueError(f"calibration must be given for method {method!r} with {allocation!r}")


def _batches(calibration: Tensor | Sequence[Batch] | None) -> list[Batch]:
    if calibration is None:
        return []
    if isinstance(calibration, Tensor):
        if calibration.ndim != 2 or len(calibration) == 0:
            raise ValueError(
                f"calibration must be token ids (N, T), N >= 1, or a sequence of batches, "
                f"got a tensor {tuple(calibration.shape)}"
            )
        return [row[None] for row in calibration]
    batches = list(calibration)
    if not batches:
        raise ValueError("calibration must hold at least one batch, got none")
    return batches


def _flat(batches: Sequence[Batch]) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for j, batch in enumerate(batches):
        parts = {"": batch} if isinstance(batch, Tensor) else batch
        flat |= {f"{j}/{name}": value for name, value in parts.items()}
    return flat


def _shape(layer: nn.Module) -> tuple[int, int]:
    m, n = matrix(layer).shape
    return m, n


def _decompose(work: _Work) -> None:
    """Moments and spectra of every block; of the spectra only singular values stay in memory."""
    walk, folder = work.walk, work.folder
    names = list(work.layers)
    if work.needs_gradients:
        with work.stage("gradients") as tell:
            for i in reversed(range(len(walk))):
                if not folder.has(f"gradients/{i}"):
                    found = gradient_moments(walk, i, walk.layers(i, names), work.loss)
                    moments = BlockMoments(gradients=found)
                    folder.save(f"gradients/{i}", moments.state() | {"done": torch.ones(1)})
                for j in range(len(walk.batches)):
                    folder.remove(f"gradient/{i + 1}-{j}")
                tell(1 - i / len(walk))
    with work.stage("decompose") as tell:
        for i in range(len(walk)):
            inside = walk.layers(i, names)
            if not all(folder.has(f"spectrum/{name}") for name in inside):
                _spectra_of(work, i, inside)
            for name in inside:
                stored = folder.load(f"spectrum/{name}")
                work.spectra[name] = stored["sigma"]
                work.fisher[name] = stored.get("fisher", stored["sigma"])
            tell((i + 1) / len(walk))


def _spectra_of(work: _Work, i: int, inside: Sequence[str]) -> None:
    folder, walk = work.folder, work.walk
    moments = BlockMoments()
    if work.method != "svd" or work.allocation == "fisher":
        moments = input_moments(walk, i, inside, work.needs_gram)
    if work.needs_gradients:
        stored = folder.load(f"gradients/{i}")
        stored.pop("done")
        moments.gradients = BlockMoments.from_state(stored).gradients
    roots: dict[int, Tensor] = {}
    for position, name in enumerate(inside):
        W = matrix(work.layers[name])
        S, R = _metric(work, moments, name, roots)
        m, n = W.shape
        dtype = torch.float64 if W.dtype == torch.float64 else torch.float32
        small = min(m, n)
        U, sigma = W.new_zeros(m, small, dtype=dtype), W.new_zeros(small, dtype=dtype)
        fisher = torch.zeros_like(sigma)
        whole = work.allocation == "fisher" and work.method != "sequential"
        if is_mine(position):
            found = spectrum(W, S, R, decomposition="exact")
            U, sigma = found.U.contiguous(), found.sigma.contiguous()
            if whole:
                S2 = _root_of(moments, name, roots)
                R2 = root(moments.gradients[name].gram, OUTPUT_RIDGE)
                fisher = spectrum(W, S2, R2, decomposition="exact").sigma.contiguous()
        from_owner((U, sigma, fisher), position)
        tensors = {"U": U, "sigma": sigma}
        if whole:
            tensors["fisher"] = fisher
        if R is not None:
            tensors["output"] = R.to(dtype)
        folder.save(f"spectrum/{name}", tensors)


def _metric(
    work: _Work, moments: BlockMoments, name: str, roots: dict[int, Tensor]
) -> tuple[Tensor | None, Tensor | None]:
    """(input root or diagonal, output root) of the method for the layer."""
    if work.method == "svd":
        return None, None
    if work.method == "asvd":
        gradients = moments.gradients.get(name)
        return scaling(moments.inputs[name], work.statistic, work.alpha, gradients), None
    S = _root_of(moments, name, roots)
    if work.method == "whiten":
        return S, None
    return S, root(moments.gradients[name].gram, OUTPUT_RIDGE)


def _root_of(moments: BlockMoments, name: str, roots: dict[int, Tensor]) -> Tensor:
    """The input root of the layer, factored once for a group that shares its input."""
    shared = moments.inputs[name]
    if id(shared) not in roots:
        assert shared.gram is not None
        roots[id(shared)] = root(shared.gram)
    return roots[id(shared)]


def _plan(
    work: _Work,
    ratio: float,
    least: float,
    ratios: Sequence[float],
    isotonic: bool,
    folder: Folder,
) -> Allocation:
    if ratio == 1 or work.allocation == "uniform":
        return uniform(work.shapes, ratio, work.align)
    if work.allocation in ("greedy", "fisher"):
        return allocate(_losses(work), work.shapes, ratio, work.align, least)
    ranked = _ranked(work, ratios, isotonic, folder)
    return ranked.allocation(ranked.for_ratio(ratio))


def _ranked(work: _Work, ratios: Sequence[float], isotonic: bool, folder: Folder) -> RankList:
    """The search list of the layers, by stable rank or by measured perplexities."""
    if work.allocation == "stable_rank":
        sensitivity = stable_rank_sensitivity(work.model, list(work.layers), ratios)
    else:
        with work.stage("probe") as tell:
            sensitivity = perplexity_sensitivity(
                work.model, work.walk.batches, work.shapes, lambda name: _stored(work, name),
                ratios, align=work.align, fuse=work.fuse, log=folder.path / "probes.jsonl",
                progress=lambda fraction, _what: tell(fraction),
            )  # fmt: skip
    return RankList(sensitivity, work.shapes, work.align, isotonic)


def _plan_for_cache(work: _Work, kv_ratio: float, least: float) -> Allocation:
    """Ranks within a share of the numbers that the outputs of the layers take for each token."""
    if work.allocation != "uniform":
        return allocate(_losses(work), work.shapes, kv_ratio, work.align, least, "cache")
    ranks: dict[str, int | None] = {}
    for name, (m, n) in work.shapes.items():
        rank = int(m * kv_ratio + 1e-9) // work.align * work.align
        ranks[name] = rank if rank < m and rank <= n else None
    taken = sum(parameters_of(work.shapes[n], rank, "cache") for n, rank in ranks.items())
    return Allocation(ranks, taken, sum(m for m, _ in work.shapes.values()), float("nan"))


def _losses(work: _Work) -> dict[str, Any]:
    """Squared singular values; of "greedy" as shares of what the layer's outputs carry."""
    found = {}
    for name in work.layers:
        values = work.fisher[name] if work.allocation == "fisher" else work.spectra[name]
        squares = values.double().square().cpu()
        total = squares.sum()
        if work.allocation == "greedy" and float(total) > 0:
            squares = squares / total
        found[name] = squares.numpy()
    return found


def _plan_for_perplexity(work: _Work, budget: float, least: float) -> Allocation:
    """The least ratio whose one-shot model keeps the calibration perplexity within the budget."""
    dense = mean_perplexity(work.model, work.walk.batches)
    if dense > budget:
        raise ValueError(
            f"perplexity_budget must be at least that of the dense model, {dense:.4f}, got {budget}"
        )
    best = uniform(work.shapes, 1.0)
    low, high = 0.0, 1.0
    with work.stage("search") as tell:
        while high - low > 0.005:
            middle = (low + high) / 2
            plan = (
                uniform(work.shapes, middle, work.align)
                if work.allocation == "uniform"
                else allocate(_losses(work), work.shapes, middle, work.align, least)
            )
            _install(work, plan.ranks)
            value = mean_perplexity(work.model, work.walk.batches)
            for name, layer in work.layers.items():
                replace(work.model, name, layer)
            if value <= budget:
                best, high = plan, middle
            else:
                low = middle
            tell(1 - (high - low))
    return best


def _stored(work: _Work, name: str) -> Spectrum:
    tensors = work.folder.load(f"spectrum/{name}")
    return Spectrum(tensors["U"], tensors["sigma"], tensors.get("output"))


def _install(work: _Work, ranks: Mapping[str, int | None]) -> None:
    for name, rank in ranks.items():
        if rank is not None:
            W = matrix(work.layers[name])
            factor(work.model, name, *factors(W, _stored(work, name), rank, work.fuse))


def _layer_report(work: _Work, name: str, rank: int | None) -> LayerReport:
    squares = work.spectra[name].double().square()
    total = float(squares.sum())
    lost = 0.0 if rank is None or total == 0 else float(squares[rank:].sum()) / total
    return LayerReport(name, work.shapes[name], rank, lost)
