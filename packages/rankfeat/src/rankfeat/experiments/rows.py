"""Rows of a report from an evaluation."""

from collections.abc import Iterator, Mapping

from eigenworks import Curve, Interval, Lines, Row

from rankfeat.evaluate import MEAN, Evaluation
from rankfeat.metrics import OPENOOD, PAPER, counted


def _interval(ends: tuple[float, float], resamples: int) -> Interval:
    return Interval(100 * ends[0], 100 * ends[1], f"bootstrap, {resamples} resamples")


def roc(found: Evaluation, ood: str, detectors: tuple[str, ...]) -> Lines:
    """Share of ID accepted over the share of OOD accepted."""
    curves = []
    for name in detectors:
        counts = counted(found.id_scores[name], found.ood_scores[name][ood])
        recall, wrong = (c.cumsum(0) / c.sum() for c in counts)
        curves.append(Curve(name, [0.0, *wrong.tolist()], [0.0, *recall.tolist()]))
    return Lines(f"ID accepted over {ood} accepted", ood, "ID", tuple(curves))


def rows_of(found: Evaluation, drawn: tuple[str, ...]) -> Iterator[Row]:
    """FPR95 and AUROC in per cent of every detector on every set; ROC curves of some."""
    sets = (*next(iter(found.ood_scores.values())), MEAN)
    for detector in found.id_scores:
        for ood in sets:
            first = detector == next(iter(found.id_scores)) and ood != MEAN
            plots = (roc(found, ood, drawn),) if first else ()
            for convention, note in ((PAPER, ""), (OPENOOD, ", OOD positive")):
                row = found.row(detector, ood, convention)
                for key, metric, better in (
                    ("fpr95", "FPR95", "lower"), ("auroc", "AUROC", "higher"),
                ):  # fmt: skip
                    # AUROC is the same in both conventions.
                    if key == "auroc" and note:
                        continue
                    yield Row(
                        f"{detector}, {ood}",
                        metric + note,
                        100 * row.figures[key],
                        unit="%",
                        better=better,
                        interval=_interval(row.intervals[key], found.resamples),
                        plots=plots if key == "fpr95" and not note else (),
                    )


def gains_of(found: Evaluation, detector: str, over: str) -> Iterator[Row]:
    """By how many points of FPR95 and AUROC `detector` is better, with paired intervals."""
    for key, metric in (("fpr95", "FPR95"), ("auroc", "AUROC")):
        for gain in found.gain(detector, over, key):
            yield Row(
                f"{detector} over {over}, {gain.ood}",
                f"gain in {metric}",
                100 * gain.value,
                unit="%",
                better="higher",
                interval=_interval(gain.interval, found.resamples),
            )


def accuracies_of(found: Evaluation, detectors: Mapping[str, str]) -> Iterator[Row]:
    """Top-1 of the logits that are scored, under the names given."""
    for detector, label in detectors.items():
        one = found.accuracy[detector]
        yield Row(label, "ID top-1", 100 * one.edited, unit="%")
