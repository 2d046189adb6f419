"""The experiment on small sizes: splits, tuning, divergence, rows."""

from dataclasses import replace

import pytest
import torch
from eigenworks import Lines, Trial
from gcp_riemann.experiments import heads
from gcp_riemann.experiments.protocol import (
    NAMES,
    Images,
    PooledClassifier,
    Setting,
    Split,
    train,
    tune,
)
from torch import nn

SMALL = {
    "data": "digits",
    "images": (6, 3, 5),
    "dim": 4,
    "lr": (0.01, 0.1),
    "weight_decay": (1e-4,),
    "trial_epochs": 1,
    "epochs": 2,
    "fine_tuning_epochs": 1,
    "batch": 20,
}


def stripes():
    """Two classes of 6 x 6 images that differ in the direction of their stripes."""
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    line = torch.sin(2 * torch.arange(6.0))
    x = torch.where(y[:, None, None] == 0, line[None, :, None], line[None, None, :])
    x = x.expand(40, 6, 6)[:, None]
    return Images(x + 0.1 * torch.randn(40, 1, 6, 6, generator=draws), y)


def trunk():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())


def fit(name, images, setting, epochs=6):
    torch.manual_seed(0)
    model = PooledClassifier(name, trunk(), 8, 4, 2)
    course = train(
        model, images, images, setting, epochs=epochs, batch=10,
        generator=torch.Generator().manual_seed(0), every_epoch=True,
    )  # fmt: skip
    return model, course


@pytest.mark.parametrize("name", NAMES)
def test_every_head_learns(name):
    images = stripes()
    course = fit(name, images, Setting(0.05, 1e-4))[1]
    assert len(course.hits) == 6
    assert course.hits[-1] > 35
    assert course.seconds > 0


def test_divergence_is_told_and_not_hidden():
    images = stripes()
    broken = Images(images.x.clone(), images.y)
    broken.x[3] = float("inf")
    for name in ("average pooling", "PowEMLR"):
        course = fit(name, broken, Setting(0.05, 1e-4))[1]
        assert course.diverged
        assert course.hits == (0,) * 6


def test_tuning_takes_the_best_setting_and_the_earlier_of_equals():
    images = stripes()
    split = Split.draw(images.y, (10, 5, 5), torch.Generator().manual_seed(0))

    def make():
        return PooledClassifier("PowEMLR", trunk(), 8, 4, 2)

    settings = [Setting(1e-7, 0.0), Setting(0.05, 0.0), Setting(0.05, 0.0)]
    found = tune(make, images, split, settings, epochs=6, batch=10, seed=0)
    assert found.setting is settings[1]
    assert found.diverged == 0


def test_splits_are_disjoint_and_balanced():
    y = torch.arange(60) % 3
    split = Split.draw(y, (10, 4, 6), torch.Generator().manual_seed(1))
    parts = (split.train, split.validation, split.test)
    assert torch.cat(parts).unique().numel() == 60
    assert [torch.bincount(y[part]).tolist() for part in parts] == [[10] * 3, [4] * 3, [6] * 3]
    other = Split.draw(y, (10, 4, 6), torch.Generator().manual_seed(2))
    assert not torch.equal(split.test, other.test)
    with pytest.raises(ValueError, match="sizes must add up to at most 20"):
        Split.draw(y, (10, 4, 7), torch.Generator())


def test_rows_of_the_quick_size():
    torch.manual_seed(0)
    rows = list(heads.run(Trial(0, SMALL)))
    accuracies = {row.label: row for row in rows if row.metric == "accuracy"}
    assert set(accuracies) == set(NAMES)
    assert all(0 <= row.value <= 100 and row.interval for row in accuracies.values())
    (plot,) = accuracies[NAMES[0]].plots
    assert isinstance(plot, Lines)
    assert [curve.name for curve in plot.curves] == list(NAMES)
    assert {row.metric for row in rows} >= {"tuned learning rate", "time of an epoch"}


def test_last_stage_is_trained_after_the_heads(monkeypatch):
    images = heads.digits().images
    stage = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)).eval()
    before = stage[0].state_dict()["weight"].clone()
    with torch.no_grad():
        maps = Images(stage(images.x), images.y)
    problem = heads.Problem(maps, 6, nn.Identity, images.x, stage)
    monkeypatch.setitem(heads.PROBLEMS, "staged", lambda: problem)
    rows = list(heads.run(Trial(0, SMALL | {"data": "staged"})))
    labels = [row.label for row in rows if row.metric == "accuracy"]
    assert len(labels) == 2 * len(NAMES)
    assert "PowEMLR, last stage trained" in labels
    # Each head trains a copy, without moving the statistics of the stage.
    assert torch.equal(stage[0].state_dict()["weight"], before)
    assert stage[1].state_dict()["num_batches_tracked"] == 0


def test_cropping_takes_the_middle():
    pixels = torch.arange(230 * 224 * 3).reshape(230, 224, 3)
    assert torch.equal(heads.cropped(pixels)[:, 0, 0], pixels[3, 0])


def test_full_and_quick_sizes_have_the_same_parameters():
    sizes = heads.experiment.quick.parameters, heads.experiment.full.parameters
    assert set(sizes[0]) == set(sizes[1]) == set(SMALL)
    assert len(heads.experiment.full.seeds) >= 5
    assert replace(heads.experiment, version=2).name == "gcp-riemann/heads"
