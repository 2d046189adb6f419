"""The experiment: that a small run measures everything, and is the same from what it kept."""

import pytest
import torch
from chemflow.experiments.moses import experiment, run
from eigenworks import Trial

FEW = {
    "rows": 120, "held": 40, "epochs": 1, "labels": 120, "members": 2, "width": 8,
    "surrogate_epochs": 1, "flow_epochs": 0.1, "flow_codes": 80, "free_flows": 2,
    "matching_codes": 4, "steps": (1, 2), "codes": 6, "evolution_codes": 2, "samples": 20,
    "ar_epochs": (1, 1), "prior_epochs": 1, "prior_width": 16,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_small_run_measures_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    # What walks need is a model that decodes to molecules: an untrained one does.
    parameters = {**experiment.quick.parameters, **FEW}
    rows = list(run(Trial(seed=0, parameters=parameters)))
    labels = {(row.label, row.metric) for row in rows}
    assert len(labels) == len(rows)
    for name in ("logP-SA", "QED"):
        for label in ("gradient", "Langevin", "Adam", "wave", "Hamilton-Jacobi", "heat",
                      "Fokker-Planck", "linear, boundary", "linear, ridge", "random",
                      "random 1-D", "wave, unsupervised", "top Jacobian"):  # fmt: skip
            assert (f"{name}, {label}, 2 steps", "mean") in labels
        assert (f"{name}, evolutionary, 1 steps", "improved") in labels
    for label in ("tiny, N(0, I)", "tiny, learned prior", "ar, N(0, I)", "ar, learned prior"):
        assert (f"samples of {label}", "FCD, 20 molecules") in labels
    again = list(run(Trial(seed=0, parameters=parameters)))
    assert [row.value for row in again] == [row.value for row in rows]


def test_figures_are_of_rows_that_there_are():
    metrics = {"mean", "improved", "exact reconstruction", "distance of mean QED"}
    for figure in experiment.figures:
        assert figure.metric in metrics or figure.metric.startswith("FCD")
    assert any("10 steps" in figure.label for figure in experiment.figures)
