"""Detectors on in- and out-of-distribution data: scores, figures in both conventions, intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset, Subset

from rankfeat.bootstrap import Interval, interval, resample
from rankfeat.calibration import fingerprint
from rankfeat.detector import Detector, ModelDetector, inputs_of
from rankfeat.metrics import OPENOOD, PAPER, Convention, Counts, counted
from rankfeat.roll_call import roll_call

FIGURES = ("fpr95", "auroc", "aupr_in", "aupr_out")
CONVENTIONS = (PAPER, OPENOOD)
MEAN = "mean"


@dataclass(frozen=True)
class Row:
    """Figures in [0, 1] of one detector on one OOD set, or means over sets."""

    detector: str
    ood: str
    """Name of the OOD set or of a group of them, or "mean" of all."""
    convention: str
    id_samples: int
    ood_samples: int
    figures: Mapping[str, float]
    intervals: Mapping[str, Interval]
    """Central 95 % of the bootstrap, for each figure."""


@dataclass(frozen=True)
class Accuracy:
    """Shares of labelled ID samples classified right: by the model, and by the edited logits."""

    samples: int
    model: float
    edited: float


@dataclass(frozen=True)
class Gain:
    """By how much one detector is better than another, in the unit of the figure."""

    ood: str
    value: float
    interval: Interval
    """Central 95 % of the paired bootstrap."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. Written out by `rankfeat.report`."""

    id_scores: Mapping[str, Float[Tensor, " _"]]
    ood_scores: Mapping[str, Mapping[str, Float[Tensor, " _"]]]
    groups: Mapping[str, tuple[str, ...]]
    rows: tuple[Row, ...]
    accuracy: Mapping[str, Accuracy]
    weights: Mapping[str, str]
    """SHA-256 of the weights of each detector's model, where it has one."""
    resamples: int
    seed: int
    drawn: Mapping[str, Any] = field(repr=False)
    """Resampled figures by convention, detector, set and figure."""

    def row(self, detector: str, ood: str = MEAN, convention: Convention = PAPER) -> Row:
        """The row of these names. KeyError if there is none."""
        for row in self.rows:
            if (row.detector, row.ood, row.convention) == (detector, ood, convention.name):
                return row
        raise KeyError(f"no row of {detector!r} on {ood!r} in the convention {convention.name!r}")

    def gain(
        self, detector: str, over: str, figure: str = "fpr95", convention: Convention = PAPER
    ) -> tuple[Gain, ...]:
        """Gain over another detector on each set, group and the mean, with paired intervals.

        Positive is better, also for FPR95.
        """
        sign = -1 if figure == "fpr95" else 1
        drawn = self.drawn[convention.name]
        found = []
        for name, sets in _unions(tuple(self.ood_scores[over]), self.groups).items():
            ends = [
                torch.stack([drawn[one][ood][figure] for ood in sets]).mean(0)
                for one in (detector, over)
            ]
            values = [self.row(one, name, convention).figures[figure] for one in (detector, over)]
            paired = interval(sign * (ends[0] - ends[1]))
            # + 0.0 turns -0 into 0.
            found.append(Gain(name, sign * (values[0] - values[1]) + 0.0, paired))
        return tuple(found)


def shard(data: Dataset, rank: int, processes: int) -> Subset:
    """Every `processes`-th sample from `rank` on: no sample twice, unlike `DistributedSampler`."""
    if not 0 <= rank < processes:
        raise ValueError(f"rank must lie in [0, {processes}), got {rank}")
    return Subset(data, range(rank, len(data), processes))  # ty: ignore[invalid-argument-type]


def evaluate(
    detectors: Detector | Mapping[str, Detector],
    id_data: Iterable[Any],
    ood_data: Mapping[str, Iterable[Any]],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    process_group: "dist.ProcessGroup | None" = None,
    progress: Callable[[str, int], None] | None = None,
) -> Evaluation:
    """Score data with each detector and compare: FPR95, AUROC, AUPR, with bootstrap intervals.

    Every batch is read once, for all detectors; of each sample only its scores are kept. The two
    conventions that are in use (`rankfeat.PAPER`, `rankfeat.OPENOOD`) give different figures, so
    both are reported.

    Args:
        detectors: Detectors by name, fitted; or one.
        id_data, ood_data: Batches, as in `RankFeat.calibrate`. Where ID batches are pairs of
            inputs and labels, accuracies are found too of detectors that return `Scored` when
            called, as those of this package.
        groups: Names of OOD sets, e.g. {"near": [...], "far": [...]}, whose figures are averaged.
        resamples, seed: Of the bootstrap.
        process_group: Processes of torch.distributed that each hold a part of the data (see
            `shard`), e.g. `torch.distributed.group.WORLD`. Each returns the figures of all parts,
            which are those of one process.
        progress: Called with the name of the set and the number of its samples so far.

    Raises:
        ValueError: No detector; no ID or OOD set, or an empty one; a name is taken twice; a score
            is NaN.
        LostProcessError: Another process died or stalled; it is named.
    """
    named = detectors if isinstance(detectors, Mapping) else {type(detectors).__name__: detectors}
    if not named:
        raise ValueError("detectors must hold at least one detector, got none")
    if not ood_data:
        raise ValueError("ood_data must hold at least one set: both ID and OOD are needed")
    grouped = {name: tuple(sets) for name, sets in (groups or {}).items()}
    _require_names(tuple(ood_data), grouped)
    id_scores, hits = _scores("ID", id_data, named, process_group, progress, labelled=True)
    by_set = {
        name: _scores(name, data, named, process_group, progress)[0]
        for name, data in ood_data.items()
    }
    ood_scores = {one: {name: by_set[name][one] for name in by_set} for one in named}
    pairs = {one: (id_scores[one], ood_scores[one]) for one in named}

    def both(counts: Counts) -> dict[str, Tensor]:
        return {
            f"{c.name}/{key}": value
            for c in CONVENTIONS
            for key, value in c.figures(counts).items()
        }

    drawn = resample(pairs, both, resamples, seed)
    exact = {
        one: {name: both(counted(mine, other)) for name, other in sets.items()}
        for one, (mine, sets) in pairs.items()
    }
    rows, kept = [], {}
    for c in CONVENTIONS:
        kept[c.name] = {
            one: {name: {key: found[f"{c.name}/{key}"] for key in FIGURES}
                  for name, found in sets.items()}
            for one, sets in drawn.items()
        }  # fmt: skip
        for one in named:
            for union, sets in _unions(tuple(ood_data), grouped).items():
                means, ends = {}, {}
                for key in FIGURES:
                    values = [float(exact[one][name][f"{c.name}/{key}"]) for name in sets]
                    means[key] = sum(values) / len(values)
                    lots = torch.stack([kept[c.name][one][name][key] for name in sets])
                    ends[key] = interval(lots.mean(0))
                count = sum(len(ood_scores[one][name]) for name in sets)
                rows.append(Row(one, union, c.name, len(id_scores[one]), count, means, ends))
    return Evaluation(
        id_scores=id_scores,
        ood_scores=ood_scores,
        groups=grouped,
        rows=tuple(rows),
        accuracy=hits,
        weights={
            name: fingerprint(one.model)
            for name, one in named.items()
            if isinstance(one, ModelDetector)
        },
        resamples=resamples,
        seed=seed,
        drawn=kept,
    )


def _unions(sets: tuple[str, ...], groups: Mapping[str, tuple[str, ...]]) -> dict[str, tuple]:
    """Each set, each group and the mean, with the sets in them."""
    return {**{name: (name,) for name in sets}, **groups, MEAN: sets}


def _require_names(sets: tuple[str, ...], groups: Mapping[str, tuple[str, ...]]) -> None:
    for name in (*sets, *groups):
        if name == MEAN or (name in sets and name in groups):
            raise ValueError(f"the name {name!r} of a set or group is taken")
    for name, members in groups.items():
        missing = [one for one in members if one not in sets]
        if missing or not members:
            raise ValueError(f"group {name!r} must name sets of ood_data, got {list(members)}")


def _labels(batch: Any) -> Tensor | None:
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return batch[1]
    return None


@torch.no_grad()
def _scores(
    name: str,
    data: Iterable[Any],
    detectors: Mapping[str, Detector],
    process_group: "dist.ProcessGroup | None",
    progress: Callable[[str, int], None] | None,
    labelled: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Accuracy]]:
    """Scores of all samples by detector, in double precision; accuracies where there are labels."""
    found: dict[str, list[Tensor]] = {one: [] for one in detectors}
    hits = {one: torch.zeros(3, dtype=torch.long) for one in detectors}
    samples = 0
    for batch in data:
        args, kwargs = inputs_of(batch)
        labels = _labels(batch) if labelled else None
        for one, detector in detectors.items():
            if labels is not None and callable(detector):
                scored: Any = detector(*args, **kwargs)
                scores, classes = scored.score, scored.edited_logits.argmax(1)
                right = [(guess.cpu() == labels.cpu()).sum() for guess in (scored.label, classes)]
                hits[one] += torch.stack([torch.tensor(len(labels)), *right])
            else:
                scores = detector.score(*args, **kwargs)
            if scores.ndim != 1:
                raise ValueError(f"{one} must score (b,), got {tuple(scores.shape)}")
            bad = scores.isnan()
            if bool(bad.any()):
                raise ValueError(
                    f"{one} scored sample {samples + int(bad.nonzero()[0])} of {name} NaN"
                )
            found[one].append(scores.detach().double().cpu())
        samples += len(found[next(iter(detectors))][-1])
        if progress is not None:
            progress(name, samples)
    joined = {one: torch.cat([torch.zeros(0, dtype=torch.double), *parts])
              for one, parts in found.items()}  # fmt: skip
    if process_group is not None:
        with roll_call(f"scores of {name}", process_group):
            joined = {one: _gathered(scores, process_group) for one, scores in joined.items()}
            for count in hits.values():
                dist.all_reduce(count, group=process_group)
    for one, scores in joined.items():
        if len(scores) == 0:
            raise ValueError(f"the set {name} has no samples for {one}: both ID and OOD are needed")
    shares = {
        one: Accuracy(int(n), int(model) / int(n), int(edited) / int(n))
        for one, (n, model, edited) in hits.items()
        if int(n)
    }
    return joined, shares


def _gathered(scores: Tensor, process_group: "dist.ProcessGroup") -> Tensor:
    """The scores of all processes in one order, that of the samples as `shard` gave them out."""
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(dist.get_world_size(process_group))]
    dist.all_gather(sizes, torch.tensor([len(scores)]), group=process_group)
    most = int(torch.stack(sizes).max())
    padded = torch.full((most,), torch.nan, dtype=torch.double)
    padded[: len(scores)] = scores
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=process_group)
    # Sample i of process r is sample r + i * processes.
    woven = torch.stack(parts, 1).flatten()
    return woven[~woven.isnan()]
