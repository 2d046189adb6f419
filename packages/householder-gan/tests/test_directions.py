"""Directions, their files, and what is measured along them, on generators whose answer is known."""

import math

import pytest
import torch
from householder_gan import (
    DCGAN,
    DirectionSet,
    LayerDirections,
    PixelDistance,
    StyleGAN2,
    directions,
    displacement,
    frechet,
    ganspace,
    householderize,
    identifiability,
    lerp,
    load_directions,
    pipl,
    ppl,
    project,
    rank_directions,
    sefa,
    slerp,
    traverse,
    within_percentiles,
)
from householder_gan.frechet import frechet_of_features, sampled_images
from householder_gan.generators.protocol import codes, mean_latent, truncate
from torch import nn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """Images (batch, 1, 4, 4) = A w, w = z: every distance has a closed form."""

    z_dim = w_dim = 6
    slots = 1
    space = "z"

    def __init__(self, seed=0):
        super().__init__()
        self.layer = nn.Linear(6, 16, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(random(16, 6, seed=seed))

    def mapping(self, z):
        return z

    def synthesis(self, ws):
        return self.layer(ws[:, 0]).view(-1, 1, 4, 4)


class Slots(nn.Module):
    """Two slots, of which the image has one row each."""

    z_dim = w_dim = 4
    slots = 2
    space = "w"

    def mapping(self, z):
        return 2 * z

    def synthesis(self, ws):
        return ws[:, None]


def stylegan2(seed=0):
    torch.manual_seed(seed)
    return StyleGAN2(16, 16, 2, {4: 12, 8: 12, 16: 8}).eval()


def along(generator, V, slot=None, layer="layer"):
    one = LayerDirections(layer, slot, V, torch.ones(len(V)), "user", generator.space)
    return DirectionSet((one,))


def test_sefa_are_the_singular_vectors():
    G = Linear()
    found = sefa(G, ["layer"], 4).layers[0]
    U, S, Vh = torch.linalg.svd(G.layer.weight.detach())
    assert (found.vectors @ Vh[:4].mT).abs().diagonal().tolist() == pytest.approx([1] * 4, abs=1e-5)
    assert found.sigma.tolist() == pytest.approx(S[:4].tolist(), rel=1e-5)
    largest = found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    assert U.shape == (16, 16)


def test_directions_of_a_projector_are_its_parameters_and_equal_in_effect():
    G = Linear()
    householderize(G, ["layer"], rank=3)
    found = directions(G)
    one = found.layers[0]
    W = G.layer.weight.detach()
    assert (W @ one.vectors.mT).norm(dim=0).tolist() == pytest.approx(one.sigma.tolist(), rel=1e-5)
    response = displacement(G, found, PixelDistance(), step=2.0, samples=5)[0]
    expected = (2.0 * one.sigma[0]) ** 2 / 16
    assert response.values.tolist() == pytest.approx([float(expected)] * 3, rel=1e-4)
    assert response.spread == pytest.approx(1, abs=1e-4)
    assert response.variation == pytest.approx(0, abs=1e-4)
    # Of SeFa the effect is σ_j².
    G = Linear()
    found = sefa(G, ["layer"], 3)
    response = displacement(G, found, PixelDistance(), samples=5)[0]
    sigma = found.layers[0].sigma
    assert response.values.tolist() == pytest.approx((sigma**2 / 16).tolist(), rel=1e-4)
    assert response.spread == pytest.approx(float((sigma[0] / sigma[2]) ** 2), rel=1e-4)


def test_sigma_is_the_response_with_the_scale_of_the_layer():
    G = stylegan2()
    householderize(G, rank=4)
    one = directions(G)["convs.2.conv.modulation"]
    layer = G.convs[2].conv.modulation
    w = random(1, 16)
    moved = (layer(w + one.vectors) - layer(w)).norm(dim=1)
    assert moved.tolist() == pytest.approx(one.sigma.tolist(), rel=1e-4)
    with pytest.raises(KeyError, match="no directions of layer 'no', only of"):
        directions(G)["no"]
    with pytest.raises(ValueError, match="Linear has no Householder projector"):
        directions(Linear())


def test_ganspace_of_codes_and_of_a_layer():
    G = Slots()
    scale = torch.tensor([3.0, 2.0, 1.0, 0.5])
    G.mapping = lambda z: z * scale
    found = ganspace(G, 3, 4000).layers[0]
    assert found.slot is None
    assert found.vectors.diagonal().tolist() == pytest.approx([1, 1, 1], abs=0.01)
    assert found.sigma.tolist() == pytest.approx([3, 2, 1], rel=0.05)
    # z of unit variance before a linear layer: principal components of its output, taken back,
    # are its right singular vectors.
    G = Linear()
    found = ganspace(G, 3, 4000, layer="layer").layers[0]
    Vh = torch.linalg.svd(G.layer.weight.detach()).Vh
    assert (found.vectors * Vh[:3]).sum(1).abs().tolist() == pytest.approx([1] * 3, abs=0.01)


def test_files_and_labels(tmp_path):
    G = stylegan2()
    householderize(G, rank=3)
    found = directions(G).labelled({"convs.0.conv.modulation": {"2": "smile"}})
    found.save(tmp_path / "d.safetensors")
    again = load_directions(tmp_path / "d")
    assert len(again) == 6
    for one, two in zip(found, again, strict=True):
        assert (one.layer, one.slot, one.source, one.space, one.labels) == (
            two.layer, two.slot, two.source, two.space, two.labels
        )  # fmt: skip
        assert torch.equal(one.vectors, two.vectors)
        assert torch.equal(one.sigma, two.sigma)
    assert again.layers[0].labels == {2: "smile"}
    with pytest.raises(ValueError, match="labels name layers"):
        found.labelled({"no": {}})
    with pytest.raises(ValueError, match=r"must be of 0\.\.2"):
        found.labelled({"convs.0.conv.modulation": {"3": "x"}})
    (tmp_path / "d.json").write_text('{"format": "x"}')
    with pytest.raises(ValueError, match=r"d\.safetensors: not a set of directions: format"):
        load_directions(tmp_path / "d")


def test_traversal_moves_one_slot_or_all():
    G, V = Slots(), torch.eye(4)[1:3]
    one = along(G, V, slot=1).layers[0]
    w = random(2, 4)
    steps = torch.tensor([-1.0, 0.0, 2.0])
    images = traverse(G, w, one, 0, steps)
    assert images.shape == (2, 3, 1, 2, 4)
    expected = w[:, None, None, None].repeat(1, 3, 1, 2, 1)
    expected[:, :, 0, 1, 1] += steps
    torch.testing.assert_close(images, expected)
    everywhere = traverse(G, w, one, 0, steps, slots="all")
    expected[:, :, 0, 0, 1] += steps
    torch.testing.assert_close(everywhere, expected)
    torch.testing.assert_close(traverse(G, w, one, 0, steps, slots=[0, 1]), everywhere)
    mean = torch.ones(4)
    halfway = traverse(G, w, one, 0, [0.0], truncation=0.5, mean=mean)
    torch.testing.assert_close(halfway[:, 0, 0, 0], (w + 1) / 2)
    torch.testing.assert_close(truncate(w, mean, 0.0), mean.expand(2, 4))
    assert mean_latent(G, 20_000).abs().max() < 0.06


@pytest.mark.bad_input
def test_a_direction_of_another_space_is_refused():
    G = stylegan2()
    w = random(1, 16)
    other = along(Linear(), torch.eye(16)).layers[0]
    with pytest.raises(
        ValueError, match="direction must be of 'w' with 16 entries, got one of 'z'"
    ):
        traverse(G, w, other, 0)
    with pytest.raises(ValueError, match="live in 'z', the generator's codes in 'w'"):
        pipl(G, DirectionSet((other,)), PixelDistance(), samples=2)
    one = along(G, torch.eye(16), slot=1).layers[0]
    with pytest.raises(IndexError, match=r"must lie in \[0, 15\], got 16"):
        traverse(G, w, one, 16)
    with pytest.raises(ValueError, match="slots must be 'layer', 'all' or numbers, got 'some'"):
        traverse(G, w, one, 0, slots="some")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match=r"slot of 'layer' must lie in \[0, 5\], got 9"):
        pipl(G, along(G, torch.eye(16), slot=9), PixelDistance(), samples=2)


def test_ranking_by_effect_keeps_labels_with_their_direction():
    G = Linear()
    Vh = torch.linalg.svd(G.layer.weight.detach()).Vh
    backwards = along(G, Vh.flip(0)).labelled({"layer": {"5": "strongest"}})
    ranked = rank_directions(backwards, displacement(G, backwards, PixelDistance(), samples=3))
    torch.testing.assert_close(ranked.layers[0].vectors, Vh)
    assert ranked.layers[0].labels == {0: "strongest"}
    with pytest.raises(ValueError, match="responses must be those of the same layers"):
        rank_directions(backwards, displacement(G, along(G, Vh[:2]), PixelDistance(), samples=3))


def test_identifiability_tells_bases_from_spans():
    G = Linear()
    householderize(G, ["layer"], rank=4)
    read = directions(G)
    W = G.layer.weight.detach().double()
    assert identifiability(read, directions(G))[0].matched == pytest.approx(1)
    # Singular vectors of the same weight, after perturbations of 1e-5 of its size.
    noisy = torch.linalg.svd(W + 1e-5 * random(16, 6, seed=1).double()).Vh[:4]
    other = torch.linalg.svd(W + 1e-5 * random(16, 6, seed=2).double()).Vh[:4]
    found = identifiability(along(G, noisy), along(G, other))[0]
    assert found.subspace == pytest.approx(1, abs=1e-6)
    assert found.matched < 0.95
    with pytest.raises(ValueError, match=r"must be \(4, 6\) in both, got \(2, 6\)"):
        identifiability(along(G, noisy), along(G, noisy[:2]))


def test_interpolation():
    a, b = random(5, 8), random(5, 8, seed=1)
    for t in (0.0, 0.3, 1.0):
        at = torch.full((5, 1), t)
        torch.testing.assert_close(lerp(a, b, at), (1 - t) * a + t * b)
        c = slerp(a, b, at)
        u, v = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
        angle = (u * v).sum(1).acos()
        torch.testing.assert_close(c.norm(dim=1), torch.ones(5))
        torch.testing.assert_close((u * c).sum(1).clamp(-1, 1).acos(), t * angle, atol=1e-3, rtol=0)
    kept = within_percentiles(torch.arange(1000.0))
    assert (float(kept.min()), float(kept.max())) == (9.0, 990.0)


def test_ppl_of_a_linear_generator():
    G = Linear()
    A = G.layer.weight.detach().double()
    rng = torch.Generator().manual_seed(3)
    first, second = torch.randn(400, 6, generator=rng), torch.randn(400, 6, generator=rng)
    exact = ((second - first).double() @ A.mT).square().mean(1)
    expected = float(within_percentiles(exact).mean())
    for sampling, batch in (("full", 64), ("end", 400)):
        found = ppl(G, PixelDistance(), samples=400, epsilon=1e-2, sampling=sampling, batch=batch,
                    seed=3)  # fmt: skip
        assert found.value == pytest.approx(expected, rel=1e-3)
        assert (found.samples, found.kept) == (400, len(within_percentiles(exact)))
        assert found.distance == "squared pixels"
        error = within_percentiles(exact).std() / math.sqrt(found.kept)
        assert found.standard_error == pytest.approx(float(error), rel=1e-2)
    assert "squared pixels" in str(found)
    assert "ε=0.01" in str(found)
    # On the sphere the speed is the angle between unit vectors.
    G.layer.weight.data = torch.eye(16)[:, :6].clone()
    first, second = (x / x.norm(dim=1, keepdim=True) for x in (first, second))
    angle = (first * second).sum(1).acos()
    found = ppl(G, PixelDistance(), samples=400, epsilon=1e-2, space="z", seed=3)
    expected = within_percentiles(angle.double() ** 2 / 16).mean()
    assert found.value == pytest.approx(float(expected), rel=1e-2)


def test_ppl_crops_and_reduces_as_published():
    class Corner(nn.Module):
        z_dim = w_dim = slots = 1
        space = "z"

        def __init__(self, size, row, column):
            super().__init__()
            self.mask = torch.zeros(size, size)
            self.mask[row, column] = 1

        def mapping(self, z):
            return z

        def synthesis(self, ws):
            return ws[:, :, None] * self.mask

    assert ppl(Corner(16, 6, 4), PixelDistance(), samples=50, epsilon=0.1, crop=True).value > 0
    assert ppl(Corner(16, 5, 4), PixelDistance(), samples=50, epsilon=0.1, crop=True).value == 0
    assert ppl(Corner(16, 6, 12), PixelDistance(), samples=50, epsilon=0.1, crop=True).value == 0
    sizes = []

    class Sized(PixelDistance):
        def __call__(self, first, second):
            sizes.append(tuple(first.shape[-2:]))
            return super().__call__(first, second)

    for size in (256, 511, 512):
        ppl(Corner(size, 1, 1), Sized(), samples=2)
    assert sizes == [(256, 256), (511, 511), (256, 256)]


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("slots", ["layer", "all"])
def test_pipl_where_the_answer_is_known(per_sample, slots):
    G = Slots()
    ds = along(G, torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])), slot=1)
    found = pipl(G, ds, PixelDistance(), samples=300, epsilon=0.5, count=2, slots=slots,
                 per_sample=per_sample, batch=3)  # fmt: skip
    # 8 pixels, of which a step along j moves one for each slot by j + 1; j is 0 or 1.
    moved = 2 if slots == "all" else 1
    assert found.value == pytest.approx(moved * (1 + 4) / 2 / 8, rel=0.15)
    single = pipl(G, ds, PixelDistance(), samples=40, count=1, slots=slots)
    assert single.value == pytest.approx(moved / 8, rel=1e-5)


def test_measures_leave_the_mode_of_the_generator():
    G = stylegan2().train()
    ppl(G, PixelDistance(), samples=2)
    assert G.training
    assert all(p.grad is None for p in G.parameters())


def test_projection_finds_the_code_of_an_image():
    G = Linear()
    w = random(1, 6, seed=4)
    image = G.synthesis(w[:, None]).detach()[0]
    found = project(G, image, PixelDistance(), steps=300, rate=0.1)
    torch.testing.assert_close(found.ws[:, 0], w, atol=0.02, rtol=0)
    assert len(found.losses) == 301
    assert min(found.losses) < 1e-3 * found.losses[0]
    torch.testing.assert_close(found.image[0], image, atol=0.05, rtol=0)
    G = Slots()
    target = torch.stack((random(4, seed=5), random(4, seed=6)))[None]
    together = project(G, target, PixelDistance(), steps=200, rate=0.1)
    apart = project(G, target, PixelDistance(), steps=200, rate=0.1, each_slot=True)
    torch.testing.assert_close(together.ws[0, 0], target[0].mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(apart.ws[0], target[0], atol=0.02, rtol=0)
    with pytest.raises(ValueError, match=r"image must be \(1, 2, 4\), got \(1, 4, 4\)"):
        project(G, torch.zeros(1, 4, 4), PixelDistance())


def test_frechet_of_samples_with_known_moments():
    X = random(4000, 5).double()
    Y = 2 * random(4000, 5, seed=1).double() + 3
    X, Y = ((Z - Z.mean(0)) for Z in (X, Y))
    white = [torch.linalg.inv(torch.linalg.cholesky(Z.mT @ Z / 3999)).mT for Z in (X, Y)]
    first, second = X @ white[0], 2 * (Y @ white[1]) + 3
    # Covariances I and 4 I, means 0 and 3: 5·9 + 5·(1 + 4 - 2·2).
    assert float(frechet_of_features(first, second)) == pytest.approx(50)
    assert float(frechet_of_features(first, first)) == pytest.approx(0, abs=1e-6)
    few = frechet_of_features(first[:3], second[:4])
    assert few.isfinite()

    class Mean:
        name = "mean of each channel"

        def vectors(self, images):
            return images.mean((-2, -1))

    G = DCGAN(4, (8, 4)).eval()
    same = frechet(sampled_images(G, 64), sampled_images(G, 64), Mean())
    other = frechet(sampled_images(G, 64), sampled_images(G, 48, seed=1) + 0.5, Mean())
    assert same.value == pytest.approx(0, abs=1e-6)
    assert other.value == pytest.approx(0.75, rel=0.3)
    assert (other.samples, other.features) == ((64, 48), "mean of each channel")


def test_codes_are_one_w_in_every_slot():
    G = Slots()
    z = random(3, 4)
    torch.testing.assert_close(codes(G, z), (2 * z)[:, None].expand(3, 2, 4))
