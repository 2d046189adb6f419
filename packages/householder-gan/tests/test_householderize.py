"""Projectors in generators: which layers, what is kept, and the way back."""

import copy
import re

import pytest
import torch
from householder_gan import (
    DCGAN,
    StyleGAN2,
    StyleGAN3,
    directions,
    fold,
    householderize,
    recalibrate,
    register_householder,
)
from householder_gan.householderize import as_matrix, isometry_of
from householder_gan.layouts import find_sites, slot_of
from torch import nn

WIDTHS = {4: 12, 8: 12, 16: 8, 32: 6}


def stylegan2(seed=0):
    torch.manual_seed(seed)
    return StyleGAN2(32, 16, 2, WIDTHS).eval()


def stylegan3(seed=0):
    torch.manual_seed(seed)
    return StyleGAN3(16, 8, 8, layers=6, critical=2, channel_base=128, channel_max=12).eval()


def dcgan(seed=0):
    torch.manual_seed(seed)
    return DCGAN(10, (12, 8)).eval()


GENERATORS = [stylegan2, stylegan3, dcgan]


def codes_for(generator, batch=2):
    return torch.randn(batch, generator.z_dim, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("sigma", ["identity", "fixed", "learned"])
def test_fold_gives_a_plain_generator_of_the_same_images(make, sigma):
    G = make()
    plain_names = set(G.state_dict())
    z = codes_for(G)
    original = G(z)
    householderize(G, rank=4, sigma=sigma)
    changed = G(z)
    assert (changed - original).abs().max() > 1e-4
    F = fold(G)
    assert set(F.state_dict()) == plain_names
    assert type(F.get_submodule(find_sites(F)[0].name)) is type(
        make().get_submodule(find_sites(F)[0].name)
    )
    torch.testing.assert_close(F(z), changed, rtol=0, atol=0)
    torch.testing.assert_close(G(z), changed, rtol=0, atol=0)  # the original is untouched
    householderize(F, rank=4, sigma=sigma)
    torch.testing.assert_close(F(z), changed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", GENERATORS)
def test_moving_off_the_rows_changes_nothing_and_along_them_something(make):
    G = make()
    householderize(G, rank=3)
    one = directions(G).layers[0]
    z = codes_for(G)
    w = G.mapping(z)
    ws = w[:, None].expand(-1, G.slots, -1)
    V = one.vectors
    off = codes_for(G, 1)[0]
    off = off - V.mT @ (V @ off)
    slot = one.slot or 0

    def moved(step):
        moved = ws.clone()
        moved[:, slot] += step
        return G.synthesis(moved)

    if make is dcgan:
        torch.testing.assert_close(moved(off), G.synthesis(ws), rtol=1e-4, atol=1e-5)
    else:
        # The slot also feeds layers without projector, as ToRGB: look at the layer itself.
        layer = G.get_submodule(one.layer)
        torch.testing.assert_close(layer(w + off), layer(w), rtol=1e-4, atol=1e-5)
    assert (moved(3 * V[0]) - G.synthesis(ws)).abs().max() > 1e-3


def test_published_layers_and_slots():
    G = stylegan2()
    assert [(s.name, s.slot) for s in find_sites(G)] == [
        ("convs.0.conv.modulation", 1),
        ("convs.2.conv.modulation", 3),
        ("convs.4.conv.modulation", 5),
    ]
    torch.manual_seed(0)
    G3 = StyleGAN3(16, 8, 8, channel_base=128, channel_max=8)
    found = [(s.name.split("_")[0], s.slot) for s in find_sites(G3)]
    assert found == [
        ("synthesis.L0", 1), ("synthesis.L4", 5), ("synthesis.L8", 9), ("synthesis.L12", 13)
    ]  # fmt: skip
    site = find_sites(dcgan())[0]
    assert (site.name, site.axis, site.slot) == ("main.0", 0, None)


def test_slots_feed_the_layers_that_they_are_said_to_feed():
    G, G3 = stylegan2(), stylegan3()
    for generator in (G, G3):
        w = generator.mapping(codes_for(generator, 1))
        named = [n for n, _ in generator.named_modules() if slot_of(n) is not None]
        assert len(named) > 5
        for name in named:
            seen = []
            hook = generator.get_submodule(name).register_forward_pre_hook(
                lambda _m, inputs, seen=seen: seen.append(inputs[0])
            )
            ws = w[:, None].repeat(1, generator.slots, 1)
            ws[:, slot_of(name)] += 1
            generator.synthesis(ws)
            hook.remove()
            torch.testing.assert_close(seen[0], w + 1)


class NVlabsBlock(nn.Module):
    def __init__(self, first):
        super().__init__()
        for name in ("conv1", "torgb") if first else ("conv0", "conv1", "torgb"):
            layer = nn.Module()
            layer.affine = nn.Linear(16, 12)
            self.add_module(name, layer)


def test_nvlabs_stylegan2_layout():
    G = nn.Module()
    synthesis = G.synthesis = nn.Module()
    for size in (4, 8, 16, 64):
        synthesis.add_module(f"b{size}", NVlabsBlock(size == 4))
    assert [(s.name, s.slot) for s in find_sites(G)] == [
        ("synthesis.b8.conv0.affine", 1),
        ("synthesis.b16.conv0.affine", 3),
        ("synthesis.b64.conv0.affine", 7),
    ]
    assert slot_of("synthesis.b4.conv1.affine") == 0
    assert slot_of("synthesis.b4.torgb.affine") == 1
    assert slot_of("synthesis.b64.torgb.affine") == 9
    report = householderize(G, rank=5)
    assert [layer.slot for layer in report.layers] == [1, 3, 7]


def test_layers_by_glob_expression_and_predicate():
    G = stylegan2()
    by = [
        ["convs.*.conv.modulation"],
        [re.compile(r"convs\.\d\.conv\.modulation")],
        [lambda name, _: name.startswith("convs.") and name.endswith("modulation")],
    ]
    names = [[site.name for site in find_sites(G, layers)] for layers in by]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 6


@pytest.mark.parametrize("make", GENERATORS)
def test_report(make):
    G = make()
    site = find_sites(G)[0]
    A = as_matrix(G.get_submodule(site.name).weight.detach(), site.axis).double()
    S = torch.linalg.svdvals(A)
    before = copy.deepcopy(G.state_dict())
    report = householderize(G, rank="energy:0.6", dry_run=True)
    assert all(torch.equal(before[k], v) for k, v in G.state_dict().items())
    one = report.layers[0]
    energy = S.square().cumsum(0) / S.square().sum()
    assert one.energy == pytest.approx(float(energy[one.rank - 1]))
    assert one.energy >= 0.6 > float(energy[one.rank - 2])
    assert one.ratio == pytest.approx(float(S[0] / S[one.rank - 1]))
    assert f"{one.energy:.1%}" in str(report)
    assert householderize(G, rank="energy:1", dry_run=True).layers[0].rank == len(S)


def test_gain_keeps_the_size_of_the_styles():
    G = stylegan2()
    layer = G.convs[0].conv.modulation
    A = layer.weight.detach().double()
    householderize(G, rank=4)
    S, now = torch.linalg.svdvals(A), torch.linalg.svdvals(layer.weight.detach().double())
    assert now[:4].tolist() == pytest.approx([float(S[:4].mean())] * 4, rel=1e-5)
    assert now[4:].abs().max() < 1e-5 * float(S[0])
    # Of all multiples of partial isometries of this rank, the nearest.
    best = (A - layer.weight).norm()
    for factor in (0.9, 1.1):
        assert best < (A - factor * layer.weight).norm()


def test_ranks_by_layer():
    G = stylegan2()
    ranks = {site.name: k + 2 for k, site in enumerate(find_sites(G))}
    householderize(G, rank=ranks)
    assert [len(one) for one in directions(G)] == [2, 3, 4]


def test_batch_statistics_are_measured_anew():
    G = dcgan()
    G.train()
    with torch.no_grad():
        for seed in range(30):
            G(torch.randn(64, 10, generator=torch.Generator().manual_seed(seed)))
    G.eval()
    householderize(G, rank=3)
    assert recalibrate(G, 2048) == 2
    outputs = []
    hook = G.main[0].register_forward_hook(lambda _m, _i, y: outputs.append(y.detach()))
    z = torch.randn(4096, 10, generator=torch.Generator().manual_seed(5))
    G(z)
    hook.remove()
    variance = outputs[0].transpose(0, 1).flatten(1).var(1)
    torch.testing.assert_close(G.main[1].running_var, variance, rtol=0.15, atol=0)
    assert not G.training
    assert G.main[1].momentum == 0.1
    assert recalibrate(stylegan2()) == 0


def test_errors_name_the_layer_and_change_nothing():
    G = stylegan2()
    before = set(G.state_dict())
    with pytest.raises(ValueError, match=r"rank of 'convs.4.conv.modulation' must lie in \[0, 8\]"):
        householderize(G, rank=10)
    with pytest.raises(ValueError, match=r"nothing with a weight matches 'conv9\*'"):
        householderize(G, ["conv9*"])
    with pytest.raises(ValueError, match=r"rank must name every layer, got none for 'convs.2"):
        householderize(G, rank={"convs.0.conv.modulation": 3})
    with pytest.raises(ValueError, match=r"rank must be a number, .* got 'energy:1.5'"):
        householderize(G, rank="energy:1.5")
    with pytest.raises(ValueError, match=r"axis must say which dimension of 'style.1'"):
        householderize(G, ["style.1"], rank=2)
    G.convs[0].conv.modulation.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"weight of 'convs.0.conv.modulation' must be finite"):
        householderize(G, rank=2)
    assert set(G.state_dict()) == before
    G = stylegan2()
    householderize(G, rank=2)
    with pytest.raises(ValueError, match=r"'convs.0.conv.modulation' must not be parametrised"):
        householderize(G, rank=2)


def test_a_layer_of_another_class_with_its_axis():
    G = stylegan2()
    report = householderize(G, ["style.1"], rank=2, axis=1)
    assert (report.layers[0].rows, report.layers[0].columns) == (16, 16)
    conv = nn.Conv2d(6, 4, 3)
    isometry = register_householder(conv, 2)
    assert (isometry.rows, isometry.columns) == (4 * 9, 6)
    assert conv.weight.shape == (4, 6, 3, 3)
    assert isometry_of(conv) is isometry
    assert isometry_of(nn.Linear(2, 2)) is None
