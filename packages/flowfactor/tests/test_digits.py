"""The experiment: what it reads, and that a small run measures everything."""

import pytest
from eigenworks import Trial
from flowfactor.experiments.digits import experiment, run


def test_a_small_run_measures_everything():
    few = {"iterations": 4, "unlabelled_iterations": 3, "batch": 6}
    rows = list(run(Trial(seed=0, parameters={**experiment.quick.parameters, **few})))
    labels = {(row.label, row.metric) for row in rows}
    assert len(labels) == len(rows)
    for figure in experiment.figures:
        assert (figure.label, figure.metric) in labels
    for name in ("scale", "rotation", "hue", "rotation, then scale"):
        for answer in ("", ", repeat frame 0", ", re-encode"):
            assert (name + answer, "equivariance error") in labels
    assert ("held-out sequences, without labels", "right flow inferred") in labels


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_flows_beat_both_answers_on_digits():
    rows = {
        (row.label, row.metric): row.value
        for row in run(Trial(seed=0, parameters=experiment.quick.parameters))
    }
    error = "equivariance error"
    for name in ("scale", "rotation", "hue"):
        assert rows[name, error] < 0.6 * rows[f"{name}, repeat frame 0", error]
        assert rows[name, error] < rows[f"{name}, re-encode", error]
    assert rows["held-out sequences, without labels", "right flow inferred"] > 90
