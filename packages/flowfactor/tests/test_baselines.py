"""The comparison with other ways to move latents: that a small run measures each."""

from eigenworks import Trial
from flowfactor.experiments.baselines import FLOWS, VAES, WAVES, experiment, run


def test_a_small_run_measures_every_method():
    few = {"iterations": 3, "batch": 4}
    rows = list(run(Trial(seed=0, parameters={**experiment.quick.parameters, **few})))
    found = {(row.label, row.metric): row.value for row in rows}
    assert len(found) == len(rows)
    methods = (FLOWS, WAVES, *(f"{name}, linear directions" for name in VAES.values()))
    for method in methods:
        for name in ("scale", "rotation", "hue"):
            assert found[f"{method}: {name}", "equivariance error"] > 0
    # Potentials move the latents of the plain VAE, whose decoder they leave as it is.
    error = "reconstruction error of x_0"
    assert found[WAVES, error] == found["VAE, linear directions", error]
    assert found[FLOWS, error] != found["VAE, linear directions", error]
