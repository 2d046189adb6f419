"""Densities of a property along the walk, and running bests (the paper's Figures 3 to 6).

Needs the extra `draw`; no display.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from chemflow.optimization import Optimization

_INK = "#1b1b1b"


def density(
    values: Float64[np.ndarray, " n"], points: Float64[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    """Gaussian kernel density with Scott's bandwidth, of the finite values.

    Equivalent to `scipy.stats.gaussian_kde`. Zeros for fewer than two or for equal values.
    """
    kept = values[np.isfinite(values)]
    if len(kept) < 2 or np.ptp(kept) == 0:
        return np.zeros(len(points))
    width = kept.std(ddof=1) * len(kept) ** -0.2
    total = np.zeros(len(points))
    for part in np.array_split(kept, max(len(kept) // 4096, 1)):
        total += np.exp(-0.5 * ((points[:, None] - part) / width) ** 2).sum(-1)
    return total / (len(kept) * width * np.sqrt(2 * np.pi))


def _axes(width: float = 6.0, height: float = 3.4) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    return figure, axes


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](share) for share in np.linspace(0.05, 0.9, count)]


def densities(found: Optimization, name: str) -> Any:
    """A matplotlib figure: the density of a property over valid rows after the kept steps."""
    if name not in found.names:
        raise ValueError(f"property must be one of {found.names}, got {name!r}")
    column = found.names.index(name)
    series = {t: values[column] for t, values in found.snapshots.items()}
    every = np.concatenate([np.zeros(0), *series.values()])
    every = every[np.isfinite(every)]
    figure, axes = _axes()
    axes.set(xlabel=name, ylabel="density")
    if len(every):
        margin = 0.1 * (np.ptp(every) or 1.0)
        points = np.linspace(every.min() - margin, every.max() + margin, 300)
        for colour, (t, values) in zip(_colours(len(series)), series.items(), strict=True):
            valid = np.isfinite(values).mean() if len(values) else 0.0
            axes.plot(
                points, density(values, points), color=colour, label=f"{t} ({valid:.0%} valid)"
            )
        axes.legend(title="step", fontsize="small", frameon=False)
    return figure


def running_best(found: Optimization, column: str = "objective") -> Any:
    """A matplotlib figure: mean over all rows of the best improvement so far, for each δ."""
    if column not in found.columns:
        raise ValueError(f"column must be one of {found.columns}, got {column!r}")
    figure, axes = _axes()
    of = [one for one in found.improvements if one.column == column]
    references = list(dict.fromkeys(one.reference for one in of))
    thresholds = sorted({one.threshold for one in of})
    colours = dict(zip(thresholds, _colours(len(thresholds)), strict=True))
    styles = dict(zip(references, ("-", ":"), strict=False))
    for one in of:
        label = f"{one.threshold:g}, from the {one.reference}"
        axes.plot(one.curve, styles[one.reference], color=colours[one.threshold], label=label)
    axes.set(xlabel="step", ylabel=f"mean best improvement of {column}")
    if of:
        axes.legend(title="similarity at least", fontsize="small", frameon=False)
    return figure


def oracle_and_surrogate(found: Optimization, name: str) -> Any:
    """A matplotlib figure: means by step of what the surrogate says and of what is so."""
    figure, axes = _axes()
    steps = [one.step for one in found.steps]
    axes.plot(steps, [one.mean[name] for one in found.steps], color=_INK, label="oracle")
    guesses = [one.predicted.get(name, np.nan) for one in found.steps]
    if np.isfinite(guesses).any():
        axes.plot(steps, guesses, "--", color="#b5651d", label="surrogate")
    axes.set(xlabel="step", ylabel=f"mean {name}")
    axes.legend(fontsize="small", frameon=False)
    return figure


def svg(figure: Any) -> str:
    """A figure as text for a page, the same for the same figure."""
    from matplotlib import rc_context

    written = io.StringIO()
    metadata: Mapping[str, None] = {"Date": None, "Creator": None}
    with rc_context({"svg.hashsalt": "chemflow", "svg.fonttype": "path"}):
        figure.savefig(written, format="svg", metadata=metadata)
    return written.getvalue()[written.getvalue().index("<svg") :]
