"""Plots with matplotlib (extra `plots`): score histograms, ROC curves, spectra."""

import io
from collections.abc import Mapping

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from rankfeat.evaluate import Evaluation
from rankfeat.metrics import counted


def histograms(evaluation: Evaluation, detector: str, bins: int = 40) -> Figure:
    """Densities of the scores of ID and of every OOD set."""
    sets = {"ID": evaluation.id_scores[detector], **evaluation.ood_scores[detector]}
    everything = torch.cat(list(sets.values()))
    low, high = float(everything.min()), float(everything.max())
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for name, scores in sets.items():
        axes.hist(
            scores.numpy(),
            bins=bins,
            range=(low, high),
            density=True,
            label=name,
            histtype="stepfilled" if name == "ID" else "step",
            alpha=0.35 if name == "ID" else 1.0,
        )
    axes.set(xlabel=f"score of {detector}, larger = more in-distribution", ylabel="density")
    axes.legend()
    return figure


def roc(evaluation: Evaluation, ood: str) -> Figure:
    """Share of ID accepted over the share of OOD accepted, of every detector, with 95 % marked."""
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for detector, sets in evaluation.ood_scores.items():
        id_counts, ood_counts = counted(evaluation.id_scores[detector], sets[ood])
        recall, wrong = ((c.cumsum(0) / c.sum()).tolist() for c in (id_counts, ood_counts))
        axes.plot([0.0, *wrong], [0.0, *recall], label=detector)
    axes.axhline(0.95, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel=f"share of {ood} accepted", ylabel="share of ID accepted")
    axes.legend(loc="lower right")
    return figure


def spectra(values: Mapping[str, Float[Tensor, "_ _"]], most: int = 20) -> Figure:
    """Mean singular values of features, for each set (samples, values), largest first.

    `rankfeat.suggest.singular_values` gives them.
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for name, one in values.items():
        mean = one[:, :most].mean(0)
        axes.plot(range(1, len(mean) + 1), mean.numpy(), marker="o", label=name)
    axes.set(xlabel="singular value", ylabel="mean over samples", yscale="log")
    axes.legend()
    return figure


def svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
