import numpy as np
import pytest
import torch
from eigenworks import Trial
from eigenworks.data import DataError
from liebn.experiments import emg, imu, protocols, skeletons
from liebn.experiments.brooks import SPDNetBN
from liebn.experiments.compare import ADAPTED, NEAREST
from liebn.experiments.methods import METHODS, NONE, specific
from liebn.experiments.network import (
    NormalisedSPDNet,
    Recipe,
    Samples,
    accuracy,
    guesses,
    train,
)
from liebn.groups import LogEuclideanGroup
from linalg_kernels import expm
from linalg_kernels.testing import random_spd
from spd_metrics import AffineInvariant
from torch.testing import assert_close


def shifted(seed, domain):
    """Two classes that differ in a direction, seen through amplifiers of the domain's own."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(60) % 2
    Z = 0.3 * torch.randn(60, 3, 3, dtype=torch.float64, generator=generator)
    Z[:, 0, 1] += 2 * (label - 0.5)
    A = torch.diag(torch.exp(domain * torch.tensor([1.0, -1.0, 0.0]).double()))
    return Samples(A @ expm((Z + Z.mT) / 2) @ A.mT, label, torch.full((60,), domain))


def test_adaptation_undoes_a_shift():
    known, test = shifted(6, 0), shifted(7, 1)
    found = {}
    for name, normalisation in ((NONE, None), ("adapted", specific(LogEuclideanGroup()))):
        torch.manual_seed(0)
        network = NormalisedSPDNet((3, 3), 2, normalisation)
        train(network, known, Recipe(epochs=40, batch=20, rate=2e-2))
        assert accuracy(guesses(network, known), known.label) > 85
        found[name] = accuracy(guesses(network, test), test.label)
    assert found["adapted"] > found[NONE] + 10


def test_brooks_moves_the_mean_to_the_bias():
    X = random_spd(12, 3, cond=5.0, generator=torch.Generator().manual_seed(0))
    layer = SPDNetBN(3, momentum=1.0, dtype=torch.float64)
    B = random_spd(1, 3, cond=3.0, generator=torch.Generator().manual_seed(1))[0]
    with torch.no_grad():
        layer.bias.weight = B
        Y = layer(X)
        # One Karcher step is not the mean itself.
        assert_close(AffineInvariant().mean(Y), B, rtol=0.05, atol=0.05)
        assert_close(layer.eval()(X), Y)


@pytest.mark.parametrize("module", [emg, imu])
def test_runs_on_real_data(module, monkeypatch):
    try:
        module.experiment.data[0].load()
    except DataError as error:
        pytest.skip(str(error))
    kept = {name: METHODS[name] for name in (NONE, ADAPTED)}
    for name in set(METHODS) - set(kept):
        monkeypatch.delitem(METHODS, name)
    parameters = {**module.experiment.quick.parameters, "epochs": 1}
    rows = list(module.run(Trial(seed=0, parameters=parameters)))
    keys = {(row.label.partition(",")[0], row.metric) for row in rows}
    assert {(NONE, "accuracy"), (ADAPTED, "accuracy"), (ADAPTED, "gain over none")} <= keys
    assert any(NEAREST in row.label for row in rows)
    assert all(0 < row.value <= 100 for row in rows if row.metric == "accuracy")
    # Better than guessing, after one epoch, with an adapted metric classifier.
    assert min(row.value for row in rows if NEAREST in row.label and row.unit == "%") > 50


def test_skeletons_say_where_they_are_looked_for(monkeypatch):
    monkeypatch.delenv("EIGENWORKS_DATA", raising=False)
    with pytest.raises(DataError, match="EIGENWORKS_DATA"):
        skeletons.sequences()


def test_figures_name_rows_that_exist():
    for module, splits in ((emg, emg.SPLITS), (imu, [imu.SPLIT]), (skeletons, [skeletons.SPLIT])):
        names = {f"{name}, {split}" for name in (*METHODS, NEAREST) for split in splits}
        assert {figure.label for figure in module.experiment.figures} <= names


def test_protocols_run_on_a_folder(tmp_path):
    """On random covariances of the right order: it is the way there that is tested."""
    P = random_spd(40, 20, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez(tmp_path / "covariances.npz", P=P, label=np.arange(40) % 3)
    radar = protocols.PROTOCOLS["radar"]
    short = protocols.Protocol(radar.sizes, Recipe(epochs=1), radar.held_out, radar.published)
    found = protocols.run(short, tmp_path, (0,), ("SPDNet", "SPDNetBN", "LEM"))
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(
        ("SPDNet", "SPDNetBN", "LEM"), 1
    )
    with pytest.raises(ValueError, match="order 93, got 20"):
        protocols.run(protocols.PROTOCOLS["hdm05"], tmp_path, (0,), ("LEM",))
    with pytest.raises(DataError, match=r"must hold covariances\.npz"):
        protocols.read(tmp_path / "empty")


def test_protocols_hold_out_whole_domains(tmp_path):
    P = random_spd(20, 40, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez(tmp_path / "covariances.npz", P=P, label=np.arange(20) % 2, domain=np.arange(20) // 10)
    samples, test = protocols.read(tmp_path)
    held = protocols.split(samples, test, protocols.PROTOCOLS["hinss2021-session"], 0)
    assert held.tolist() == [False] * 10 + [True] * 10
    short = protocols.Protocol((40, 20), Recipe(1, 10, fraction=0.2, settled=2), 0.5, {}, True)
    assert len(protocols.run(short, tmp_path, (0,), ("AIM-(1)",))["AIM-(1)"]) == 1
