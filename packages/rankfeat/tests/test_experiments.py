"""The experiments' own parts: the decoder, crops, rows; and that both can be found."""

from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from eigenworks.data import DataError
from rankfeat import RankFeat, evaluate
from rankfeat.experiments.deep_compression import decode
from rankfeat.experiments.efficientnet import crops, images
from rankfeat.experiments.rows import gains_of, rows_of
from rankfeat.experiments.squeezenet import detectors_of, prepare, spread
from torch import nn
from torchvision.models import squeezenet1_0


def compressed(seed=0):
    """The file of sparse random weights, written by the format's description, and the weights."""
    generator = np.random.default_rng(seed)
    layers = [one for one in squeezenet1_0(weights=None).modules() if isinstance(one, nn.Conv2d)]
    counts, parts, dense = [], [], []
    for layer in layers:
        size = layer.weight.numel()
        # Every distance is at most 15 zeros; codes 0 to 255.
        steps = generator.integers(0, 16, size)
        places = np.cumsum(steps + 1) - 1
        steps, places = steps[places < size], places[places < size]
        # One weight in 8.5 is not zero; of this scale signals neither grow nor vanish.
        scale = (17 / layer.weight[0].numel()) ** 0.5
        codebook = (scale * generator.standard_normal(256)).astype("<f4")
        bias = generator.standard_normal(layer.out_channels).astype("<f4") / 50
        codes = generator.integers(0, 256, len(places)).astype("u1")
        padded = np.append(steps, 0) if len(steps) % 2 else steps
        packed = (padded[0::2] | padded[1::2] << 4).astype("u1")
        counts.append(len(places))
        parts += [codebook.tobytes(), bias.tobytes(), codes.tobytes(), packed.tobytes()]
        weight = np.zeros(size, np.float32)
        weight[places] = codebook[codes]
        dense.append((weight.reshape(layer.weight.shape), bias))
    return np.array(counts, "<u4").tobytes() + b"".join(parts), dense


@pytest.fixture(scope="module")
def file():
    return compressed()


def test_decoder(file):
    data, dense = file
    net = decode(data)
    layers = [one for one in net.modules() if isinstance(one, nn.Conv2d)]
    assert len(layers) == len(dense) == 26
    for layer, (weight, bias) in zip(layers, dense, strict=True):
        assert np.array_equal(layer.weight.detach().numpy(), weight)
        assert layer.bias is not None
        assert np.array_equal(layer.bias.detach().numpy(), bias)
    assert layers[-1].padding == (1, 1)
    assert not net.training


def test_decoder_refuses_what_is_no_such_file(file):
    data, _ = file
    with pytest.raises(DataError, match="end after 50 bytes"):
        decode(data[:50])
    with pytest.raises(DataError, match="within a layer"):
        decode(data[:-9])
    with pytest.raises(DataError, match="3 bytes are left behind"):
        decode(data + b"abc")
    far = np.frombuffer(data[:104], "<u4").copy()
    far[0] += 5000
    with pytest.raises(DataError, match="a compressed weight lies at"):
        decode(far.tobytes() + data[104:])


def test_detectors_share_passes(file):
    net = decode(file[0])
    detectors = detectors_of(net)
    x = torch.stack([prepare(np.full((9, 12, 3), 40 * i, np.uint8)) for i in range(2)])
    assert x.shape == (2, 3, 227, 227)
    assert x[1, :, 0, 0].tolist() == [40 - 104, 40 - 117, 40 - 123]
    alone = RankFeat(net, ["features.10", "features"])
    fused = detectors["RankFeat 3+4"](x)
    torch.testing.assert_close(fused.score, alone(x).score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        detectors["RankFeat 3"].score(x),
        RankFeat(net, ["features.10"]).score(x),
        rtol=1e-4,
        atol=1e-4,
    )
    torch.testing.assert_close(detectors["Energy"].score(x), torch.logsumexp(net(x), 1))
    assert not torch.allclose(detectors["RankWeight"].score(x), detectors["Energy"].score(x))


def test_spread_is_even():
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 10) == [0, 1, 2]


def test_crops_are_squares_of_the_photograph():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[..., 0] = 255
    got = crops(pixels, 3, np.random.default_rng(0))
    assert got.shape == (3, 3, 224, 224)
    assert got[:, 0].unique().tolist() == [1.0]
    assert got[:, 1].unique().tolist() == pytest.approx([-127 / 128])
    assert len(images({"a": pixels, "b": pixels}, {"a": 0, "b": 0}, 5, 0)) == 6


class First:
    """Scores an input by its first entry."""

    def fit(self, batches):  # noqa: ARG002
        return self

    def score(self, x):
        return x[:, 0]


def test_rows_are_those_of_the_evaluation():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 1, generator=generator) + 1, torch.randn(20, 1, generator=generator)
    found = evaluate({"one": First(), "two": First()}, [x], {"set": [y]}, resamples=20)
    rows = {(row.label, row.metric): row for row in rows_of(found, ("one",))}
    assert len(rows) == 2 * 2 * 3
    want = found.row("one", "set").figures
    assert rows["one, set", "FPR95"].value == pytest.approx(100 * want["fpr95"])
    assert rows["one, set", "FPR95"].plots
    assert rows["two, mean", "AUROC"].value == pytest.approx(100 * want["auroc"])
    gains = list(gains_of(found, "one", "two"))
    assert [row.value for row in gains] == [0] * 4


def test_both_are_offered():
    offered = entry_points(group="eigenworks.experiments")
    for name in ("squeezenet", "efficientnet"):
        (entry,) = (one for one in offered if one.value.startswith(f"rankfeat.experiments.{name}:"))
        assert entry.load().name == f"rankfeat/{name}"
