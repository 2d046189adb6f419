"""Sequences of transformed images, of grids of factors, and of scenes rendered here."""

import h5py
import numpy as np
import pytest
import torch
from flowfactor import FactorImages, Hue, Rotation, Scale, TransformedImages, red_digits, split
from flowfactor.data import SHAPES3D_SIZES, ComposableSource, SequenceSource, shapes3d
from flowfactor.synthetic import RoomImages, rooms, sprites


def digits(count=10):
    g = torch.Generator().manual_seed(0)
    grey = torch.randint(256, (count, 8, 8), generator=g, dtype=torch.uint8)
    return TransformedImages(red_digits(grey), steps=4)


def test_frames():
    source = digits()
    assert isinstance(source, ComposableSource)
    assert source.names == ("scale", "rotation", "hue")
    assert (source.size, source.shape, source.steps) == (10, (3, 8, 8), 4)
    rows, k = torch.tensor([3, 7, 3, 1]), torch.tensor([0, 2, 1, 0])
    frames = source.frames(rows, k)
    assert frames.shape == (4, 5, 3, 8, 8)
    x = source.images[rows].float() / 255
    torch.testing.assert_close(frames[:, 0], x, rtol=1e-5, atol=1e-5)
    for i, kind in enumerate((Scale(), Hue(), Rotation(), Scale())):
        for t in range(5):
            want = kind(x[i : i + 1], torch.tensor([float(t)]))[0]
            torch.testing.assert_close(frames[i, t], want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(source.frames(rows, k, 6)[:, :5], frames, rtol=1e-5, atol=1e-5)
    assert (x[:, 1:] == 0).all()


def test_composed():
    source, rows = digits(), torch.tensor([3, 7])
    frames = source.composed(rows, [1, 1, 0])
    x, two = source.first(rows), torch.full((2,), 2.0)
    torch.testing.assert_close(frames[:, 2], Rotation()(x, two))
    torch.testing.assert_close(frames[:, 3], Scale()(Rotation()(x, two), two / 2))
    torch.testing.assert_close(frames[:, 0], x)
    torch.testing.assert_close(
        source.composed(rows, [0, 0]), source.frames(rows, torch.zeros(2).long(), 2)
    )


def test_split():
    source = digits()
    train, held = split(source, 0.3, seed=1)
    assert isinstance(held, SequenceSource)
    assert (train.size, held.size) == (7, 3)
    assert sorted(torch.cat((train.rows, held.rows)).tolist()) == list(range(10))
    again = split(source, 0.3, seed=1)[1]
    assert torch.equal(held.rows, again.rows)
    assert not torch.equal(held.rows, split(source, 0.3, seed=2)[1].rows)
    k = torch.tensor([2])
    torch.testing.assert_close(held.frames(torch.tensor([1]), k), source.frames(held.rows[1:2], k))
    torch.testing.assert_close(
        held.composed(torch.tensor([1]), [0]), source.composed(held.rows[1:2], [0])
    )
    with pytest.raises(ValueError, match="held_out must be between 0 and 1, got 1"):
        split(source, 1.0, 0)


def grid():
    """Images whose pixels say which values their factors have."""
    sizes = (2, 3, 5)
    values = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, 3)
    return FactorImages(
        np.broadcast_to(values[:, None, None].astype(np.uint8), (30, 4, 4, 3)),
        sizes,
        ("a", "b", "c"),
        ("b", "c"),
        2,
    )


def test_factors():
    source = grid()
    assert (source.size, source.names, source.shape) == (30, ("b", "c"), (3, 4, 4))
    rows, k = torch.arange(30), torch.arange(30) % 2
    frames = (255 * source.frames(rows, k)[..., 0, 0]).round().long()
    values = torch.from_numpy(np.asarray(source.images[:, 0, 0]).astype(int))
    for i in range(30):
        for t in range(3):
            want = values[i].clone()
            want[1 + k[i]] = t
            assert frames[i, t].tolist() == want.tolist()
    # Factor c has five values, b only three.
    assert source.frames(rows, torch.ones(30).long(), 4).shape[1] == 5
    with pytest.raises(ValueError, match="steps must be below the 3 values of b, got 3"):
        source.frames(rows, k, 3)
    with pytest.raises(TypeError, match="FactorImages has no composed sequences"):
        split(source, 0.5, 0)[0].composed(rows[:1], [0])


def test_shapes3d(tmp_path):
    path = tmp_path / "3dshapes.h5"
    with h5py.File(path, "w") as file:
        # Nothing but the rows that are asked for is written.
        images = file.create_dataset(
            "images", (480_000, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3)
        )
        base = np.ravel_multi_index((3, 4, 0, 2, 1, 6), SHAPES3D_SIZES)
        stride = np.ravel_multi_index((0, 0, 1, 0, 0, 0), SHAPES3D_SIZES)
        for t in range(8):
            images[base + t * stride, 0, 0] = (10 * t, 1, 2)
    source = shapes3d(str(path))
    assert source.names == ("floor hue", "wall hue", "object hue", "scale", "orientation")
    row = int(np.ravel_multi_index((3, 4, 5, 2, 1, 6), SHAPES3D_SIZES))
    frames = source.frames(torch.tensor([row]), torch.tensor([2]))
    assert frames.shape == (1, 8, 3, 64, 64)
    assert (255 * frames[0, :, 0, 0, 0]).round().tolist() == [10 * t for t in range(8)]
    source.images.file.close()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"expected images \(480000, 64, 64, 3\), got \(2, 2\)"):
        shapes3d(str(tmp_path / "other.h5"))


@pytest.mark.parametrize("make", [sprites, rooms])
def test_scenes(make):
    source = make(3, 16)
    assert isinstance(source, SequenceSource)
    K = len(source.names)
    g = torch.Generator().manual_seed(0)
    rows = torch.randint(source.size, (K,), generator=g)
    frames = source.frames(rows, torch.arange(K))
    assert frames.shape == (K, 4, 3, 16, 16)
    assert frames.min() >= 0
    assert frames.max() <= 1
    assert frames.std((-1, -2)).amax((1, 2)).min() > 0.01
    # Every factor shows.
    assert (frames.diff(dim=1).abs().amax((-1, -2, -3)) > 0.05).all()
    torch.testing.assert_close(source.frames(rows, torch.arange(K)), frames)


def test_what_sprites_show():
    source = sprites(8, 64)
    base = np.ravel_multi_index((0, 3, 0, 8, 8), source.images.sizes)
    row = torch.tensor([int(base)])
    area = [source.frames(row, torch.tensor([k]))[0, :, 0].sum((-1, -2)) for k in range(4)]
    # A square of side 1.6 (0.2 + 0.2 s) on a canvas of side 2.
    s = torch.arange(9) / 9
    want = (1.6 * (0.2 + 0.2 * s) * 32) ** 2
    assert (area[0] / want - 1).abs().max() < 0.08
    for other in area[1:]:
        assert (other / other[0] - 1).abs().max() < 0.1
    right = source.frames(row, torch.tensor([2]))[0, :, 0].sum(-2)
    centre = (right * torch.arange(64)).sum(-1) / right.sum(-1)
    assert ((centre.diff() - 0.9 / 15 * 32).abs() < 0.3).all()


def test_what_rooms_show():
    images = RoomImages(32)
    place = {name: i for i, name in enumerate(images.names)}

    def shown(**values):
        index = [values.get(name.replace(" ", "_"), 0) for name in images.names]
        return images.render(torch.tensor([int(np.ravel_multi_index(index, images.sizes))]))[0]

    assert set(place) == set(images.names)
    ground, blue = shown(), shown(floor_hue=5)
    assert ground[-1, 0].tolist() == [255, 0, 0]
    assert blue[-1, 0].tolist() == [0, 255, 255]
    assert torch.equal(ground[0], blue[0])
    sizes = [
        (shown(object_hue=3, scale=s).long() - ground.long()).abs().amax(-1) > 20 for s in (0, 7)
    ]
    assert 0 < int(sizes[0].sum()) * 2 < int(sizes[1].sum())
    shapes = [shown(object_hue=3, scale=7, shape=s).long() for s in range(3)]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert (shapes[a] - shapes[b]).abs().max() > 50
    # Seen from the other side the picture is mirrored, but for the light on the object.
    left, right = shown(orientation=0, scale=0), shown(orientation=14, scale=0)
    assert (left[:8].flip(1).long() - right[:8].long()).abs().max() <= 1


@pytest.mark.bad_input
def test_images_of_another_shape():
    with pytest.raises(ValueError, match=r"images must be uint8 \(images, C, H, W\)"):
        TransformedImages(torch.zeros(2, 3, 8, dtype=torch.uint8))


def test_wrong_grids():
    with pytest.raises(ValueError, match="transformations must be at least one"):
        TransformedImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ())
    values = np.zeros((6, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="images must have 4 rows, one a combination, got 6"):
        FactorImages(values, (2, 2), ("a", "b"), ("a",), 1)
    with pytest.raises(ValueError, match=r"moving must name factors of \('a', 'b'\), got 'c'"):
        FactorImages(values, (2, 3), ("a", "b"), ("c",), 1)
    with pytest.raises(ValueError, match="a must have more than 2 values to be moved"):
        FactorImages(values, (2, 3), ("a", "b"), ("a",), 2)
    with pytest.raises(ValueError, match="side must be at least 8, got 4"):
        RoomImages(4)
