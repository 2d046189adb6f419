"""Full results that are committed belong to the experiments as they are now."""

import pytest
from eigenworks.discover import Broken, discover
from eigenworks.experiment import Experiment
from eigenworks.record import read_record, record_path

OFFERS = discover()


@pytest.mark.parametrize("offer", OFFERS, ids=[offer.name for offer in OFFERS])
def test_a_committed_record_is_of_todays_experiment(offer) -> None:
    path = record_path(offer)
    assert path is not None, "an experiment of the workspace is a file in a folder"
    if not path.is_file():
        pytest.skip("nothing is recorded yet")
    experiment = offer.load()
    assert isinstance(experiment, Experiment), (
        experiment.error if isinstance(experiment, Broken) else experiment
    )
    units = read_record(offer, experiment)
    assert units
    assert all(unit.size == "full" and unit.status == "done" for unit in units)
