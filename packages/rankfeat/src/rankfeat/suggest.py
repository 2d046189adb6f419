"""Layers for RankFeat from in-distribution data alone.

The papers give no rule, and the choice decides everything. Where removal leaves the classifier
next to nothing, what is scored is noise. The rule here: the deepest layer at which removal keeps
the class of a given share of ID samples. No out-of-distribution data are used.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rankfeat.detector import inputs_of, logits_of
from rankfeat.hooks import Hooks, find_layers
from rankfeat.rank_feat import RankFeat
from rankfeat.removal import Layout, matrices

_CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True)
class Candidate:
    """What removal does at one layer, on ID data."""

    layer: str
    shape: tuple[int, ...]
    """Of one sample's features."""
    agreement: float
    """Share of samples whose class stays."""
    share: float
    """Mean of s1² / Σ s_i², the part of the features that is removed."""
    ratio: float
    """Mean of s2 / s1; near 1 the component that is removed is hardly determined."""


@dataclass(frozen=True)
class Suggestion:
    """Layers in the order of the model, and what they were chosen from."""

    layers: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    """In the order in which they run."""
    skipped: dict[str, str]
    """Layers that cannot be edited, and why."""
    samples: int

    def table(self) -> str:
        """The candidates as text; * marks what is suggested."""
        width = max([5, *(len(one.layer) for one in self.candidates)])
        lines = [f"  {'layer':{width}}  {'features':>14}  class kept  s1^2 share  s2/s1"]
        for one in self.candidates:
            mark = "*" if one.layer in self.layers else " "
            shape = "x".join(map(str, one.shape))
            lines.append(
                f"{mark} {one.layer:{width}}  {shape:>14}  {100 * one.agreement:8.1f} %"
                f"  {100 * one.share:8.1f} %  {one.ratio:5.2f}"
            )
        return "\n".join(lines)


def singular_values(
    model: nn.Module, layer: str, batches: Iterable[Any], layout: Layout = "auto"
) -> Float[Tensor, "samples values"]:
    """Singular values of each sample's features at a layer, largest first."""
    found: list[Tensor] = []
    (module,) = find_layers(model, [layer]).values()

    def keep(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        F = output[0] if isinstance(output, (tuple, list)) else output
        found.append(torch.linalg.svdvals(matrices(F, layout).float()).cpu())

    with Hooks() as hooks, torch.no_grad():
        hooks.add(module, keep)
        for batch in batches:
            args, kwargs = inputs_of(batch)
            model(*args, **kwargs)
    if not found:
        raise ValueError("batches must hold at least one sample, got none")
    return torch.cat(found)


def _order(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Outputs of the layers that run once, in order; of several with one output the outermost."""
    seen: list[tuple[str, Any]] = []
    with Hooks() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                hooks.add(module, lambda _m, _i, out, name=name: seen.append((name, out)))
        logits_of(model(*args, **kwargs))
    runs: dict[str, int] = {}
    outermost: dict[int, str] = {}
    outputs: dict[str, Tensor] = {}
    for name, output in seen:
        runs[name] = runs.get(name, 0) + 1
        F = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(F, Tensor) and F.ndim in (3, 4) and 1 not in matrices(F).shape[1:]:
            inner = outermost.get(id(F))
            if inner is not None:
                del outputs[inner]
            outermost[id(F)] = name
            outputs[name] = F
    return {name: F for name, F in outputs.items() if runs[name] == 1}


def _blocks(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those with parts of their own, and single layers that stand among such."""
    modules = dict(model.named_modules())

    def plain(name: str) -> bool:
        above = name.rpartition(".")[0]
        return not above or (isinstance(modules[above], _CONTAINERS) and plain(above))

    return [name for name in names if any(True for _ in modules[name].children()) or plain(name)]


def _measure(model: nn.Module, layer: str, batches: Sequence[Any], layout: Layout) -> Candidate:
    kept = samples = 0
    shares, ratios, shape = [], [], ()
    with RankFeat(model, [layer], layout=layout) as detector, Hooks() as hooks:

        def look(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal shape
            F = output[0] if isinstance(output, (tuple, list)) else output
            # The detector's own hook ran before, and its branch is the second half.
            F = F[: len(F) // 2]
            shape = tuple(F.shape[1:])
            values = torch.linalg.svdvals(matrices(F, layout).float())
            squares = values.square()
            shares.append(squares[:, 0] / squares.sum(1))
            ratios.append(values[:, 1] / values[:, 0])

        hooks.add(detector.model.get_submodule(layer), look)
        for batch in batches:
            args, kwargs = inputs_of(batch)
            scored = detector(*args, **kwargs)
            kept += int((scored.edited_logits.argmax(1) == scored.label).sum())
            samples += len(scored.label)
    share, ratio = (float(torch.cat(one).mean()) for one in (shares, ratios))
    return Candidate(layer, shape, kept / samples, share, ratio)


@torch.no_grad()
def suggest_layers(
    model: nn.Module,
    id_data: Iterable[Any],
    *,
    candidates: Sequence[str] | None = None,
    agreement: float = 0.5,
    layout: Layout = "auto",
) -> Suggestion:
    """The deepest layer at which removal keeps the class of at least `agreement` of ID samples.

    A `UserWarning` says when there is none: removal then destroys this classifier wherever it is
    done, and RankFeat should not be used on it; the layer of the highest agreement is returned.

    Args:
        model: A classifier in eval mode.
        id_data: In-distribution batches of two samples or more, about 100 in all; they are kept
            in memory. Labels are not used.
        candidates: Names of layers; by default all blocks whose output nothing bypasses, such as
            the stages and blocks of a residual network but not the layers inside a block.
        agreement: Share of samples that must keep their class.
        layout: As in `remove_feature`.

    Raises:
        ValueError: No data, or no layer can be edited; `agreement` is outside [0, 1].
    """
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement must lie in [0, 1], got {agreement}")
    batches = list(id_data)
    if not batches:
        raise ValueError("id_data must hold at least one batch, got none")
    outputs = _order(model, *inputs_of(batches[0]))
    names = _blocks(model, outputs) if candidates is None else list(find_layers(model, candidates))
    measured, skipped = [], {}
    for name in names:
        if name not in outputs:
            skipped[name] = "has no map or sequence of two positions and channels, or ran twice"
            continue
        try:
            measured.append(_measure(model, name, batches, layout))
        except (RuntimeError, ValueError, TypeError) as error:
            # Something bypasses the layer: its unedited output meets the enlarged batch.
            skipped[name] = str(error).splitlines()[0]
    if not measured:
        raise ValueError(f"no layer of {type(model).__name__} can be edited: {skipped}")
    samples = sum(len(next(iter(_tensors(batch)))) for batch in batches)
    good = [one for one in measured if one.agreement >= agreement]
    if good:
        chosen = good[-1]
    else:
        chosen = max(measured, key=lambda one: one.agreement)
        warnings.warn(
            f"removing rank one destroys this classifier at every layer: the class of at most"
            f" {100 * chosen.agreement:.1f} % of {samples} ID samples is kept (at"
            f" {chosen.layer!r}, {100 * chosen.share:.1f} % of whose squared norm is removed);"
            " use another detector",
            stacklevel=2,
        )
    return Suggestion((chosen.layer,), tuple(measured), skipped, samples)


def _tensors(batch: Any) -> Iterable[Tensor]:
    args, kwargs = inputs_of(batch)
    return (one for one in (*args, *kwargs.values()) if isinstance(one, Tensor))
