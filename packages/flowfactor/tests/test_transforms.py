"""Transformations against other programs, and against what must be."""

import colorsys

import numpy as np
import pytest
import torch
from flowfactor import Hue, Rotation, Scale, Shear, Transformation, Translation
from flowfactor.transforms import shear, similarity, translate, turn_hue, warp
from scipy.ndimage import map_coordinates


def images(count=3, side=12, channels=3):
    g = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, side, side, generator=g, dtype=torch.float64)


def amounts(*values):
    return torch.tensor(values, dtype=torch.float64)


def by_scipy(image, matrix):
    """p of the result from M⁻¹ p of the source, bilinear, zero outside."""
    height, width = image.shape[-2:]
    rows, columns = np.mgrid[:height, :width]
    p = np.stack((columns.ravel(), rows.ravel(), np.ones(rows.size)))
    back = np.linalg.inv(np.vstack((matrix, [0, 0, 1])))[:2] @ p
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
    return np.stack(
        [
            map_coordinates(channel, (back[1] + 2, back[0] + 2), order=1).reshape(height, width)
            for channel in padded
        ]
    )


@pytest.mark.parametrize("side", [11, 12])
def test_warps_against_scipy(side):
    x = images(side=side)
    scale, degrees = amounts(1.0, 1.4, 0.8), amounts(25.0, 0.0, 130.0)
    found = similarity(x, scale, degrees)
    for i in range(3):
        a = scale[i] * torch.cos(torch.deg2rad(degrees[i]))
        b = scale[i] * torch.sin(torch.deg2rad(degrees[i]))
        c = side / 2
        # The rotation matrix of OpenCV about (c, c), positive anticlockwise.
        matrix = np.array([[a, b, (1 - a) * c - b * c], [-b, a, b * c + (1 - a) * c]])
        np.testing.assert_allclose(found[i], by_scipy(x[i].numpy(), matrix), atol=1e-12)
    matrix = torch.tensor([[1.2, 0.3, -1.5], [-0.2, 0.9, 2.5]], dtype=torch.float64)
    found = warp(x, matrix.expand(3, 2, 3))
    np.testing.assert_allclose(found[1], by_scipy(x[1].numpy(), matrix.numpy()), atol=1e-12)


def test_right_angles_are_exact():
    x = images()
    turned = similarity(x, torch.ones(3).double(), amounts(90.0, 90.0, 90.0))
    # About (6, 6) rather than (5.5, 5.5), column 0 comes from outside.
    torch.testing.assert_close(turned[:, :, 1:, :], x.rot90(1, (-2, -1))[:, :, :-1, :])
    assert turned[:, :, 0, :].abs().max() < 1e-12


def test_translation_and_shear():
    x = images()
    moved = translate(x, amounts(2.0, 2.0, 2.0), amounts(-1.0, -1.0, -1.0))
    torch.testing.assert_close(moved[:, :, :-1, 2:], x[:, :, 1:, :-2])
    assert moved[:, :, -1].abs().max() < 1e-12
    assert moved[:, :, :, :2].abs().max() < 1e-12
    # One pixel to the right for each row above row 6.
    sheared = shear(x, amounts(1.0, 1.0, 1.0))
    torch.testing.assert_close(sheared[:, :, 6], x[:, :, 6])
    torch.testing.assert_close(sheared[:, :, 4, 2:], x[:, :, 4, :-2])


def test_hue_against_colorsys():
    x = images(side=5)
    x[0, :, 0, 0] = 0.3
    x[0, :, 0, 1] = 0.0
    x[0, :, 0, 2] = torch.tensor([0.5, 0.5, 0.1])
    degrees = amounts(37.0, 170.0, -400.0)
    found = turn_hue(x, degrees)
    for i in range(3):
        for row in range(5):
            for column in range(5):
                h, s, v = colorsys.rgb_to_hsv(*x[i, :, row, column].tolist())
                want = colorsys.hsv_to_rgb((h + degrees[i].item() / 360) % 1, s, v)
                np.testing.assert_allclose(found[i, :, row, column], want, atol=1e-12)


@pytest.mark.parametrize("kind", [Scale(), Rotation(), Hue(), Shear(), Translation()])
def test_steps(kind):
    x = images()
    assert isinstance(kind, Transformation)
    torch.testing.assert_close(kind(x, amounts(0.0, 0.0, 0.0)), x, rtol=1e-12, atol=1e-12)
    together = kind(x, amounts(1.0, 3.0, 2.0))
    for i, t in enumerate((1.0, 3.0, 2.0)):
        torch.testing.assert_close(together[i : i + 1], kind(x[i : i + 1], amounts(t)))
    assert (together - x).abs().max() > 0.1
    assert together.min() >= 0
    assert together.max() <= 1


def test_units():
    x = images()
    t = amounts(3.0, 3.0, 3.0)
    torch.testing.assert_close(Scale()(x, t), similarity(x, 1 + 0.1 * t, 0 * t))
    torch.testing.assert_close(Rotation()(x, t), similarity(x, t / t, 10 * t))
    torch.testing.assert_close(Hue()(x, t), turn_hue(x, 20 * t))
    torch.testing.assert_close(Shear()(x, t), shear(x, 0.1 * t))
    torch.testing.assert_close(Translation()(x, t), translate(x, t, 0 * t))


def test_hue_needs_colours():
    with pytest.raises(ValueError, match="images must have 3 channels for a hue, got 1"):
        Hue()(images(channels=1), amounts(1.0, 1.0, 1.0))
