"""The row that an experiment names for the table of all is one that it measures."""

import pytest
from eigenworks.discover import Broken, discover
from eigenworks.record import read_record

OFFERS = {offer.name: offer for offer in discover()}


@pytest.mark.parametrize("name", OFFERS)
def test_headline_is_a_row_of_the_recorded_run(name):
    experiment = OFFERS[name].load()
    assert not isinstance(experiment, Broken), experiment
    units = read_record(OFFERS[name], experiment)
    if not units or not experiment.headline:
        pytest.skip("nothing recorded, or no headline")
    rows = {(row.label, row.metric) for row in units[0].rows}
    assert rows & set(experiment.headline)
