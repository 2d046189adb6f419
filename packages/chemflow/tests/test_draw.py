"""Pictures: what is on them, and that they are the same for the same run."""

import math

import numpy as np
import pytest
import torch
from chemflow import plots
from chemflow.draw import aligned, chosen, legend, save_strip, strip
from chemflow.oracles import LOGP, SA
from chemflow.report import write_report
from chemflow.standardise import parse
from chemflow.tasks import optimize
from chemflow.trajectory import Point, read


def point(step, smiles, value=1.0, **more):
    return Point(0, step, smiles, smiles, {"logp": value}, more, 0.5, 1.0)


PATH = ["Cc1ccccc1", "Cc1ccccc1", "", "Cc1ccccc1O", "Cc1ccc(F)cc1O", "Cc1ccc(F)cc1O", "CCO"]


def test_points_that_show_a_path():
    points = [point(t, smiles) for t, smiles in enumerate(PATH)]
    assert [one.step for one in chosen(points)] == [0, 3, 4, 6]
    assert [one.step for one in chosen(points, 2)] == [0, 6]
    assert [one.step for one in chosen(points, 1)] == [6]
    assert chosen([point(0, "")]) == []
    with pytest.raises(ValueError, match="count"):
        chosen(points, 0)


def test_changed_atoms_and_common_layout():
    mols = [parse(smiles) for smiles in ("Cc1ccccc1", "Cc1ccccc1O", "CCO")]
    changed = aligned(mols)
    assert changed[0] == []
    assert [mols[1].GetAtomWithIdx(i).GetSymbol() for i in changed[1]] == ["O"]
    match = mols[1].GetSubstructMatch(mols[0])
    for was, now in enumerate(match):
        before = mols[0].GetConformer().GetAtomPosition(was)
        after = mols[1].GetConformer().GetAtomPosition(now)
        assert (before - after).Length() < 0.1


def test_strips(tmp_path):
    points = [point(0, "Cc1ccccc1"), point(1, "Cc1ccccc1O", 2.0, logp=3.0)]
    assert legend(points[0]) == "step 0  sim 0.50  logp 1.00"
    assert legend(points[1]) == "step 1  sim 0.50  logp 2.00|3.00"
    drawn = strip(points)
    assert b"<svg" in drawn
    assert b"width='440px'" in drawn
    assert b"#FFD384" in drawn  # the new oxygen
    assert b"#FFD384" not in strip(points[:1])
    assert strip(points) == drawn
    save_strip(tmp_path / "a.png", points)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    save_strip(tmp_path / "a.svg", points)
    assert (tmp_path / "a.svg").read_bytes() == drawn
    with pytest.raises(ValueError, match="svg or png"):
        save_strip(tmp_path / "a.gif", points)
    with pytest.raises(ValueError, match="row 0, step 1 cannot be drawn"):
        strip([points[0], point(1, "")])
    with pytest.raises(ValueError, match="points"):
        strip([])


def test_the_density_is_scipys():
    from scipy.stats import gaussian_kde

    values = np.random.default_rng(0).standard_normal(200)
    points = np.linspace(-3, 3, 20)
    with_nan = np.append(values, math.nan)
    np.testing.assert_allclose(
        plots.density(with_nan, points), gaussian_kde(values)(points), rtol=1e-10
    )
    assert not plots.density(np.ones(5), points).any()
    assert not plots.density(np.ones(0), points).any()


def test_a_page(chains, towards, tmp_path):
    start = torch.tensor([[3.0, -1, 0, 0], [4.0, 1, 0, 0], [2.0, 1, 0, 0]])
    found = optimize(
        chains, towards(1.0, 0.0, 1.5, 0.0), LOGP, also=[SA], start=start, steps=4,
        folder=tmp_path, trajectories=True,
    )  # fmt: skip
    points = list(read(*tmp_path.glob("trajectories-*.jsonl")))
    paths = [[p for p in points if p.row == row] for row in (0, 1)]
    for name in ("a", "b"):
        write_report(tmp_path / f"{name}.html", found, paths)
    page = (tmp_path / "a.html").read_text()
    assert page == (tmp_path / "b.html").read_text()
    assert 'src="' not in page
    assert 'href="http' not in page
    assert page.count("<svg") == 2 + 2 + 1 + 2
    assert "Row 1" in page
    assert found.best[0].smiles in page
    assert "Towards([1.0, 0.0, 1.5, 0.0])" in page
    with pytest.raises(ValueError, match="property must be"):
        plots.densities(found, "qed")
    with pytest.raises(ValueError, match="column must be"):
        plots.running_best(found, "qed")


def test_curves_are_the_results(chains, towards):
    start = torch.tensor([[3.0, -1, 0, 0], [4.0, -1, 0, 0]])
    found = optimize(chains, towards(1.0, 0.0, 0.0, 0.0), LOGP, start=start, steps=3)
    axes = plots.running_best(found).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), found.improvements[1].curve)
    axes = plots.oracle_and_surrogate(found, "logp").axes[0]
    assert len(axes.lines) == 1  # no surrogate
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [s.mean["logp"] for s in found.steps])
