"""Experiments on numbers that are known beforehand."""

import pytest
import torch
from eigenworks import Trial
from spd_metrics.experiments import interpolation, stability


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_stability_table():
    parameters = {"draws": (2000,), "sizes": (3,)}
    rows = {row.label: row for row in stability.run(Trial(0, parameters))}
    for figure in stability.experiment.figures:
        if "n=3" in figure.label and figure.label in rows:
            # Four standard errors of a proportion of 2000 draws, and the rounding of the table.
            spread = 4 * (max(figure.value * (100 - figure.value), 1) / 2000) ** 0.5
            assert rows[figure.label].value == pytest.approx(figure.value, abs=spread + 0.1)
    power = [row.value for label, row in rows.items() if not label.startswith("log,")]
    assert len(power) > 100
    clamped = [row for label, row in rows.items() if "clamped" in label and "log" not in label[:4]]
    assert not any(row.value for row in clamped)
    for label, row in rows.items():
        if "in logarithms" in label:
            assert row.value <= rows[label.replace("in logarithms", "as published")].value
    # What only the order of the operations lost comes back.
    lost = rows["Bures-Wasserstein, θ=0.15, as published, n=3, ε=1e-25"].value
    kept = rows["Bures-Wasserstein, θ=0.15, in logarithms, n=3, ε=1e-25"].value
    assert lost > 80
    assert kept < 20
    assert rows["power, θ=1.5, signed, n=3, ε=1e-01"].value == pytest.approx(71, abs=5)
    assert rows["log, signed, n=3, ε=1e-05"].value == pytest.approx(50, abs=5)


def test_interpolation():
    rows = {row.label: row.value for row in interpolation.run(Trial(0, {}))}
    assert rows["Euclidean, swelling"] > 10
    for name in ("affine-invariant", "log-Euclidean", "log-Cholesky"):
        assert rows[f"{name}, swelling"] == pytest.approx(1, abs=1e-9)
        assert rows[f"{name}, bend of log det"] < 1e-9
    assert rows["power-Cholesky, bend of log det"] > 0.1
    # Every metric on SPD matrices is there.
    assert len({label.rpartition(",")[0] for label in rows}) == 12
    assert rows["generalised Bures-Wasserstein, bend of log det"] > 0.1
