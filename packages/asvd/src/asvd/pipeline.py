"""`compress`, `sweep` and `probe`: their arguments, and the stages that each goes through."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from asvd.allocate import check_share
from asvd.blocks import Batch, Loss, causal_loss
from asvd.decompose import Decomposition, Fuse
from asvd.distributed import spread
from asvd.job import AllocationName, Options, Progress, Target, opened, silent
from asvd.layers import linear_layers
from asvd.report import CompressionReport, attach, from_json
from asvd.search import RATIOS, RankList
from asvd.spectra import Method
from asvd.spill import write_bytes, write_json
from asvd.statistics import Statistic

ProbeMethod = Literal["svd", "asvd", "whiten"]

METHODS = ("svd", "asvd", "whiten", "sequential")
ALLOCATIONS = ("auto", "uniform", "greedy", "fisher", "strs", "stable_rank")


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
    decomposition: Decomposition = "auto",
    ratios: Sequence[float] = RATIOS,
    isotonic: bool = False,
    probe_batches: int | None = None,
    ridge: float = 0.1,
    loss: Loss = causal_loss,
    run_folder: Path | str | None = None,
    progress: Progress = silent,
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
        decomposition: "exact", "randomized", or "auto", which is randomized where a layer needs
            less than a quarter of its triples; see `spectrum`.
        ratios, isotonic: Candidates of "strs" and "stable_rank"; see `RankList`.
        probe_batches: "strs" measures on so many calibration batches, on all if None.
        ridge: Of "sequential", how strongly a weight stays where it was; see `correction`.
        loss: Scalar loss of (output, batch) whose gradients weigh the outputs.
        run_folder: Keeps intermediate results; the same call goes on from them after an
            interruption, and one for another target or allocation begins with the spectra that
            are there. Another model, method, calibration or choice of layers is refused
            (StaleRunError). Temporary if None.
        progress: Called with (fraction of the stage, name of the stage).

    Raises ValueError for arguments out of range, and NonFiniteActivationError with the layer's
    name for activations that are not finite. After an exception the model may be half done.
    """
    target = Target(ratio, perplexity_budget, kv_ratio)
    _check(method, allocation, [target], calibration)
    if kv_ratio is not None:
        layers = ("*.k_proj", "*.v_proj") if layers is None else layers
    options = Options(
        method, _resolved(allocation, method), statistic, alpha, align, least, fuse, decomposition,
        ratios, isotonic, probe_batches, ridge, loss, progress,
    )  # fmt: skip
    chosen = list(linear_layers(model, layers, skip))
    with opened(model, _batches(calibration), chosen, options, run_folder) as job:
        job.decompose([target])
        plan = job.plan(target)
        job.apply(plan)
        attach(model, job.report(plan, target))
    if "transformers" in sys.modules:
        from asvd import hf

        hf.annotate(model)
    return model


@dataclass(frozen=True)
class Point:
    """One model of a sweep: what was asked for, what each layer got, and the value measured."""

    ratio: float
    report: CompressionReport
    value: float


def sweep(
    model: nn.Module,
    calibration: Tensor | Sequence[Batch] | None,
    ratios: Sequence[float],
    evaluate: Callable[[nn.Module], float],
    method: Method = "sequential",
    *,
    allocation: AllocationName = "auto",
    statistic: Statistic = "abs_mean",
    alpha: float = 0.5,
    layers: str | Sequence[str] | None = None,
    skip: str | Sequence[str] = (),
    align: int = 1,
    least: float = 0.0,
    fuse: Fuse = "balanced",
    decomposition: Decomposition = "auto",
    candidates: Sequence[float] = RATIOS,
    isotonic: bool = False,
    probe_batches: int | None = None,
    ridge: float = 0.1,
    loss: Loss = causal_loss,
    run_folder: Path | str | None = None,
    progress: Progress = silent,
) -> list[Point]:
    """Compresses to each ratio in turn, evaluates, and leaves the model as it was.

    One decomposition of a layer serves all ratios. With `run_folder` a point that was measured
    is not measured again, so that the same call goes on after an interruption; `evaluate` must
    then be the same function. Arguments as in `compress`; `candidates` are its `ratios`.
    """
    targets = [Target(ratio) for ratio in ratios]
    _check(method, allocation, targets, calibration)
    options = Options(
        method, _resolved(allocation, method), statistic, alpha, align, least, fuse, decomposition,
        candidates, isotonic, probe_batches, ridge, loss, progress,
    )  # fmt: skip
    chosen = list(linear_layers(model, layers, skip))
    with opened(model, _batches(calibration), chosen, options, run_folder) as job:
        files = {
            target: job.path / "points" / f"{_name(options, target)}.json" for target in targets
        }
        known = [_shared(file) for file in files.values()]
        if not all(known):
            job.decompose(targets)
        points = []
        for target, file in files.items():
            assert target.ratio is not None
            if not known[len(points)]:
                plan = job.plan(target)
                with job.applied(plan):
                    found = job.report(plan, target)
                    value = evaluate(model)
                write_json(file, {"report": found.to_json(), "value": value})
            stored = json.loads(file.read_text(encoding="utf-8"))
            points.append(Point(target.ratio, from_json(stored["report"]), stored["value"]))
    return points


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
    decomposition: Decomposition = "auto",
    ratios: Sequence[float] = RATIOS,
    isotonic: bool = False,
    probe_batches: int | None = None,
    run_folder: Path | str | None = None,
    progress: Progress = silent,
) -> RankList:
    """The paper's sensitivities, ready to be cut at any ratio; the model is left as it was.

    Arguments as in `compress`. Every probe is kept in the run folder.
    """
    _check(method, "strs", [Target(1.0)], calibration)
    options = Options(
        method, "strs", statistic, alpha, align, fuse=fuse, decomposition=decomposition,
        candidates=ratios, isotonic=isotonic, probe_batches=probe_batches, progress=progress,
    )  # fmt: skip
    chosen = list(linear_layers(model, layers, skip))
    with opened(model, _batches(calibration), chosen, options, run_folder) as job:
        job.decompose([])
        return job.ranked()


def _shared(file: Path) -> bool:
    """Whether any process has the file; then all have it."""
    file.parent.mkdir(exist_ok=True)
    return spread(file.is_file(), file.read_bytes, lambda data: write_bytes(file, data))


def _resolved(allocation: AllocationName, method: Method) -> AllocationName:
    if allocation != "auto":
        return allocation
    return "fisher" if method == "sequential" else "uniform"


def _name(options: Options, target: Target) -> str:
    """A name for the point that its options and its ratio make."""
    what = [
        options.allocation, options.align, options.least, options.fuse, list(options.candidates),
        options.isotonic, options.probe_batches, options.ridge, target.ratio,
    ]  # fmt: skip
    return sha256(json.dumps(what).encode()).hexdigest()[:16]


def _check(method: str, allocation: str, targets: Sequence[Target], calibration: Any) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    if allocation not in ALLOCATIONS:
        names = ", ".join(map(repr, ALLOCATIONS))
        raise ValueError(f"allocation must be one of {names}, got {allocation!r}")
    for target in targets:
        given = (target.ratio, target.perplexity, target.kv_ratio)
        if sum(value is not None for value in given) != 1:
            raise ValueError("give one of ratio, perplexity_budget and kv_ratio")
        for name, share in (("ratio", target.ratio), ("kv_ratio", target.kv_ratio)):
            if share is not None:
                check_share(share, name)
        if target.kv_ratio is not None and allocation in ("strs", "stable_rank"):
            raise ValueError(
                "allocation must be 'uniform', 'greedy' or 'fisher' with kv_ratio, "
                f"got {allocation!r}"
            )
        needs = method != "svd" or allocation in ("fisher", "strs")
        if (needs or target.perplexity is not None) and calibration is None:
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
