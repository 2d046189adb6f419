"""The experiments, small, and what is known of their generators."""

import pytest
import torch
from eigenworks import Row, Trial
from eigenworks.data import EFFICIENTNET_LITE0, FACES
from householder_gan import (
    EfficientNetLite0,
    displacement,
    householderize,
    load_dcgan,
    recalibrate,
    sefa,
)
from householder_gan.directions import directions
from householder_gan.experiments import faces, stylegan2


@pytest.fixture(scope="module")
def original():
    return load_dcgan(FACES.load()).eval()


@pytest.fixture(scope="module")
def net():
    return EfficientNetLite0(EFFICIENTNET_LITE0.load())


def test_efficientnet_is_the_published_network(original, net):
    # Trained features of the stem and nine blocks tell faces from noise; a layer that is wrong
    # (padding, stride, a missing shortcut) shifts the ranges of the normalised activations.
    z = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = original(z)
        maps = net.maps(images)
        noise = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
        assert [tuple(m.shape[1:]) for m in maps] == [(24, 24, 24), (40, 12, 12), (112, 6, 6)]
        same, other = net(images, images), net(images, images.flip(0))
        assert same.abs().max() < 1e-6
        assert other.min() > 0.1
        shifted = net(images, images.roll(1, -1))
        assert (shifted < other).all()
        assert net(images, noise).mean() > other.mean()
    assert net.vectors(images).shape == (8, 112)
    assert net.name == "lpips-like (EfficientNet-Lite0 blocks 2, 4, 8 at 96 px)"


def test_spread_of_the_faces(original, net):
    found = sefa(original)
    effect = displacement(original, found, net, samples=12)[0]
    assert effect.variation == pytest.approx(0.54, abs=0.06)
    assert found.layers[0].sigma[0] == pytest.approx(14.1, abs=0.05)
    generator = load_dcgan(FACES.load()).eval()
    report = householderize(generator, rank=10)
    assert report.layers[0].energy == pytest.approx(0.51, abs=0.005)
    recalibrate(generator, 256)
    even = displacement(generator, directions(generator), net, samples=12)[0]
    assert even.variation < 0.3


def test_faces():
    parameters = {
        "ranks": (10,), "tuned": (10,), "codes": 2, "pairs": 4, "images": 16, "steps": 1,
        "rate": 1e-4, "teacher_images": 16, "evenness": 1.0,
    }  # fmt: skip
    rows = {(row.label, row.metric): row for row in faces.run(Trial(0, parameters))}
    assert all(isinstance(row, Row) for row in rows.values())
    cosine = "mean |cos| of direction j with itself"
    assert rows["r = 10, read out twice by projector", cosine].value == pytest.approx(1, abs=1e-5)
    assert rows["r = 10, read out twice by SVD", cosine].value < 0.9
    for how in ("projector", "SVD"):
        overlap = rows[f"r = 10, read out twice by {how}", "overlap of the spans"].value
        assert overlap == pytest.approx(1, abs=1e-4)
    spread = "spread of ten directions (CV)"
    assert rows["r = 10, nearest", spread].value < rows["original, SeFa", spread].value
    assert ("r = 10, fine-tuned", "Fréchet distance") in rows
    assert rows["original, SeFa", spread].plots
    labels = {label for label, _ in rows}
    assert {figure.label for figure in faces.experiment.figures} - labels == {
        "r = 50, nearest", "r = 100, nearest"
    }  # fmt: skip


def test_stylegan2_of_digits():
    images = stylegan2.digits()
    assert images.shape == (1797, 1, 32, 32)
    assert (float(images.min()), float(images.max())) == (-1.0, 1.0)
    parameters = {"steps": 2, "more": 1, "samples": 4, "real": 16}
    rows = {(row.label, row.metric): row.value for row in stylegan2.run(Trial(0, parameters))}
    names = ("trained, SeFa", "projector, nearest", "projector, fine-tuned", "trained on, SeFa")
    for name in names:
        assert (name, "PPL (squared pixels)") in rows
        for size in (8, 16, 32):
            label = f"{name}, up-convolution to {size}"
            assert (label, "spread of ten directions (CV)") in rows
    assert 0 < rows["projector, up-convolution to 8", "energy kept"] < 100
