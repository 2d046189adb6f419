"""How much the model suffers from each layer alone, for the rank search."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from asvd.decompose import Fuse, Spectrum, factors, pays, rank_for_ratio
from asvd.distributed import processes, spread, sum_scalars
from asvd.layers import factor, matrix, replace
from asvd.search import Sensitivity


def perplexity_sensitivity(
    model: nn.Module,
    shapes: Mapping[str, tuple[int, int]],
    spectrum_of: Callable[[str], Spectrum],
    measure: Callable[[str], float],
    ratios: Sequence[float],
    *,
    align: int = 1,
    fuse: Fuse = "balanced",
    log: Path | None = None,
    progress: Callable[[float, str], None] = lambda _fraction, _what: None,
) -> Sensitivity:
    """Calibration perplexity with one layer at a time at each candidate ratio (paper §3.4).

    One decomposition of a layer serves all its ratios. Every probe is a line of JSON in `log`,
    and those that are there already are not measured again.

    Args:
        measure: The perplexity of the model as it is, of which only the named layer may differ
            from the dense one.
    """
    # The first process keeps the log, and all must agree on what is left to be measured.
    known = _read(log)
    told = [json.dumps([[*key, value] for key, value in known.items()]).encode()]
    spread(processes()[0] == 0, lambda: told[0], told.append)
    known = {(layer, rank): value for layer, rank, value in json.loads(told[-1])}
    probes = len(shapes) * len(ratios)
    base = None
    found: dict[str, dict[float, float]] = {}
    for layer, (m, n) in shapes.items():
        found[layer] = {}
        ranks = {ratio: rank_for_ratio(m, n, ratio, align) for ratio in ratios}
        missing = any((layer, rank) not in known for rank in ranks.values())
        spectrum = spectrum_of(layer) if missing else None
        for ratio, rank in ranks.items():
            if (layer, rank) not in known:
                assert spectrum is not None
                if pays(m, n, rank):
                    value = _probe(model, measure, layer, spectrum, rank, fuse)
                else:
                    base = measure(layer) if base is None else base
                    value = base
                known[layer, rank] = value
                _append(log, layer, rank, value)
            found[layer][ratio] = known[layer, rank]
            done = sum(len(values) for values in found.values())
            progress(done / probes, f"probe {done} of {probes}")
    return found


def stable_rank_sensitivity(
    model: nn.Module, layers: Sequence[str], ratios: Sequence[float]
) -> Sensitivity:
    """-√(‖W‖_F² / ‖W‖₂²) · ratio^0.1: no forward pass; flat spectra suffer most."""
    found: dict[str, dict[float, float]] = {}
    for layer in layers:
        W = matrix(model.get_submodule(layer)).float()
        stable = float(W.norm() / torch.linalg.matrix_norm(W, 2))
        found[layer] = {ratio: -stable * ratio**0.1 for ratio in ratios}
    return found


def _probe(
    model: nn.Module,
    measure: Callable[[str], float],
    layer: str,
    spectrum: Spectrum,
    rank: int,
    fuse: Fuse,
) -> float:
    dense = model.get_submodule(layer)
    factor(model, layer, *factors(matrix(dense), spectrum, rank, fuse))
    try:
        return measure(layer)
    finally:
        replace(model, layer, dense)


def over_processes(value: float, batches: int) -> float:
    """The geometric mean of the perplexities of all processes, by number of batches."""
    logarithm = math.log(value) if 0 < value < math.inf else value
    total, count = sum_scalars(logarithm * batches, float(batches))
    return math.exp(mean) if (mean := total / count) < 700 else mean


def _read(log: Path | None) -> dict[tuple[str, int], float]:
    """The probes of the log; a last line that was cut short is not one."""
    if log is None or not log.is_file():
        return {}
    known = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            known[entry["layer"], entry["rank"]] = float(entry["perplexity"])
        except (ValueError, KeyError, TypeError):
            continue
    return known


def _append(log: Path | None, layer: str, rank: int, value: float) -> None:
    if log is None or processes()[0] != 0:
        return
    # A leading newline ends a line that an interruption cut short.
    lead = "\n" if log.is_file() and not log.read_bytes().endswith(b"\n") else ""
    with log.open("a", encoding="utf-8") as file:
        file.write(lead + json.dumps({"layer": layer, "rank": rank, "perplexity": value}) + "\n")
