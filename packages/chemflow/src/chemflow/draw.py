"""Strips of molecules along a path, as the paper's Figures 11 to 16, drawn by RDKit."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdDepictor, rdFMCS
from rdkit.Chem.Draw import rdMolDraw2D

from chemflow.files import write_bytes
from chemflow.standardise import Mol, MoleculeError, parse
from chemflow.trajectory import Point

PANEL = (220, 200)
"""Pixels of one molecule, legend included."""

_CHANGED = (1.0, 0.83, 0.52)
_PATIENCE = 2
"""Seconds for a common substructure."""


def chosen(points: Sequence[Point], count: int = 6) -> list[Point]:
    """About `count` valid points of one path that show it: first, last, and even in between.

    Neighbours that are the same molecule are shown once.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    valid = [point for point in points if point.canonical]
    different = [
        point
        for place, point in enumerate(valid)
        if place == 0 or point.canonical != valid[place - 1].canonical
    ]
    if len(different) <= count:
        return different
    if count == 1:
        return different[-1:]
    step = (len(different) - 1) / (count - 1)
    return [different[round(step * place)] for place in range(count)]


def common(one: Mol, other: Mol) -> Mol | None:
    """Their largest common substructure with whole rings; None for fewer than three atoms."""
    found = rdFMCS.FindMCS(
        [one, other], ringMatchesRingOnly=True, completeRingsOnly=True, timeout=_PATIENCE
    )
    return Chem.MolFromSmarts(found.smartsString) if found.numAtoms >= 3 else None


def aligned(mols: Sequence[Mol]) -> list[list[int]]:
    """Lays each molecule out like the one before it; returns the atoms that differ from that.

    The coordinates are put into the molecules.
    """
    changed: list[list[int]] = []
    for place, mol in enumerate(mols):
        rdDepictor.Compute2DCoords(mol)
        before = mols[place - 1] if place else None
        core = common(before, mol) if before is not None else None
        if before is None or core is None:
            changed.append([] if place == 0 else list(range(mol.GetNumAtoms())))
            continue
        was, now = before.GetSubstructMatch(core), mol.GetSubstructMatch(core)
        rdDepictor.GenerateDepictionMatching2DStructure(
            mol, before, list(zip(was, now, strict=True))
        )
        changed.append([atom for atom in range(mol.GetNumAtoms()) if atom not in now])
    return changed


def legend(point: Point) -> str:
    """Step, similarity and oracle values; the surrogate's after a bar."""
    parts = [f"step {point.step}"]
    if math.isfinite(point.similarity):
        parts.append(f"sim {point.similarity:.2f}")
    for name, value in point.values.items():
        guess = f"|{point.predicted[name]:.2f}" if name in point.predicted else ""
        parts.append(f"{name} {value:.2f}{guess}")
    return "  ".join(parts)


def strip(points: Sequence[Point], kind: str = "svg") -> bytes:
    """One picture of all points, side by side, as SVG or PNG. Changed atoms are coloured.

    Raises ValueError for no points, for a point that is no molecule, and for another kind.
    """
    if kind not in ("svg", "png"):
        raise ValueError(f"kind must be svg or png, got {kind!r}")
    if not points:
        raise ValueError("points must not be empty")
    mols = []
    for point in points:
        try:
            mols.append(parse(point.canonical))
        except MoleculeError as error:
            where = f"row {point.row}, step {point.step}"
            raise ValueError(f"{where} cannot be drawn: {error}") from None
    changed = aligned(mols)
    width, height = PANEL
    draw: Any = rdMolDraw2D.MolDraw2DSVG if kind == "svg" else rdMolDraw2D.MolDraw2DCairo
    canvas = draw(width * len(mols), height, width, height)
    options = canvas.drawOptions()
    options.setHighlightColour(_CHANGED)
    options.legendFontSize = 13
    canvas.DrawMolecules(mols, highlightAtoms=changed, legends=[legend(one) for one in points])
    canvas.FinishDrawing()
    drawn = canvas.GetDrawingText()
    return drawn.encode() if isinstance(drawn, str) else drawn


def save_strip(path: str | Path, points: Sequence[Point]) -> None:
    """As SVG or PNG by the name's end. Raises ValueError for another end."""
    path = Path(path)
    write_bytes(path, strip(points, path.suffix.removeprefix(".")))
