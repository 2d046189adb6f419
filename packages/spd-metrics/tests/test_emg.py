"""The EMG experiment gives pyRiemann's accuracies."""

import pytest
from eigenworks import Row, Trial
from spd_metrics import AffineInvariant, LogEuclidean
from spd_metrics.experiments import emg


def test_figures_of_pyriemann(monkeypatch):
    compared = {"affine-invariant": AffineInvariant(), "log-Euclidean": LogEuclidean()}
    monkeypatch.setattr(emg, "metrics", lambda _: compared)
    rows = {row.label: row for row in emg.run(Trial(seed=0, parameters={}))}
    assert len(rows) == 2 * 12
    for figure in emg.experiment.figures:
        assert rows[figure.label].value == pytest.approx(figure.value, abs=0.005), figure.label
    gain = rows["affine-invariant, mg s1→s2, re-centred"].value
    gain -= rows["affine-invariant, mg s1→s2"].value
    assert 8 < gain < 10
    assert any(row.plots for row in rows.values())
    assert all(isinstance(row, Row) for row in rows.values())
