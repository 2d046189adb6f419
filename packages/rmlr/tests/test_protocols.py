"""Configurations of the papers' data sets, on random matrices: it is the way there that counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from linalg_kernels import so_exp
from linalg_kernels.testing import random_spd
from rmlr.experiments import protocols
from rmlr.experiments.protocols import PROTOCOLS
from rmlr.experiments.rotations import LIE, LOG
from rmlr.experiments.training import Budget
from rmlr.rotations import skew

ONE = Budget(epochs=1, batch=20)


def write(folder, n, count=12, **more):
    P = random_spd(count, n, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez(folder / "covariances.npz", P=P, label=np.arange(count) % 3, **more)


@pytest.mark.parametrize("name", [n for n, p in PROTOCOLS.items() if p.file == "covariances"])
def test_every_method_of_a_protocol_runs(name, tmp_path):
    protocol = PROTOCOLS[name]
    write(tmp_path, protocol.sizes[0])
    # All of them where matrices are small, two elsewhere.
    methods = list(protocol.published)[: None if name == "radar" else 2]
    found = protocols.run(replace(protocol, budget=ONE), tmp_path, (0,), methods)
    assert list(found) == methods
    assert set(protocol.published) <= {protocols.LOG_EIG, *protocols.METRICS}
    assert all(0 <= values[0] <= 100 for values in found.values())


def test_rotations_run(tmp_path):
    turns = 0.5 * torch.randn(12, 4, 8, 3, generator=torch.Generator().manual_seed(0)).double()
    np.savez(tmp_path / "rotations.npz", P=so_exp(skew(turns)).numpy(), label=np.arange(12) % 2)
    found = protocols.run(replace(PROTOCOLS["g3d"], budget=ONE), tmp_path, (0, 1))
    assert {name: len(values) for name, values in found.items()} == {LOG: 2, LIE: 2}


def test_who_tests(tmp_path):
    protocol = replace(PROTOCOLS["radar"], held_out=0.25)

    def tests(**more):
        write(tmp_path, 20, **more)
        made = protocols.split(protocols.read_labelled(tmp_path, "covariances", 3), protocol, 0)
        return len(made.train), len(made.test)

    assert tests() == (9, 3)
    assert tests(domain=np.arange(12) // 3) == (9, 3)
    assert tests(test=np.arange(12) < 2) == (10, 2)
    with pytest.raises(ValueError, match="got 12 of 12"):
        tests(test=np.ones(12, bool))


def test_balanced_accuracy_is_the_mean_over_classes():
    y = torch.tensor([0, 0, 0, 1])
    guess = torch.tensor([0, 0, 0, 0])
    assert protocols.accuracy(guess, y, balanced=False) == 75
    assert protocols.accuracy(guess, y, balanced=True) == 50


def test_another_order_is_refused(tmp_path):
    write(tmp_path, 5)
    with pytest.raises(ValueError, match="order 20, got 5"):
        protocols.run(PROTOCOLS["radar"], tmp_path, (0,))
