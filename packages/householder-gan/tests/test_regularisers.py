"""Losses of fine-tuning beside the published ones."""

import pytest
import torch
from householder_gan import (
    DCGAN,
    EvenResponses,
    FineTuner,
    MomentMatching,
    PixelDistance,
    Recipe,
    StyleGAN2,
    directions,
    displacement,
    householderize,
    of_images,
)
from householder_gan.frechet import frechet_of_features
from householder_gan.generators.discriminator import Discriminator

WIDTHS = {4: 8, 8: 8, 16: 6}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def maps(images):
    return [images, 5 * images.square()[:, :2]]


def means(images):
    return [x.mean((-2, -1)) for x in maps(images)]


def scaled(images, real):
    parts = zip(means(images), means(real), strict=True)
    return torch.cat([x / y.var(0).sum().sqrt() for x, y in parts], 1)


def loss_of(regulariser, images=None, step=0, generator=None):
    """The loss where there has to be one."""
    images = torch.zeros(0) if images is None else images
    loss = regulariser.loss(DCGAN(8, (6, 4)) if generator is None else generator, images, step)
    assert loss is not None
    return loss


def comes(regulariser, images, step, generator):
    return regulariser.loss(generator, images, step) is not None


def test_the_distance_is_that_of_features_of_equal_weight():
    real, fake = random(200, 3, 4, 4), 0.5 + random(200, 3, 4, 4, seed=1)
    matching = MomentMatching(maps, real, decay=0.0, batch=64)
    expected = frechet_of_features(scaled(fake, real), scaled(real, real))
    # Running moments are those of the sample, and the others' covariance is of n - 1.
    assert float(loss_of(matching, fake)) == pytest.approx(float(expected), rel=0.01)
    same = MomentMatching(maps, real, decay=0.0)
    assert float(loss_of(same, real)) < 1e-4


def test_moments_are_averages_over_batches():
    real, fake = random(200, 3, 4, 4), random(120, 3, 4, 4, seed=1)
    matching = MomentMatching(maps, real, decay=0.9)
    for part in fake[:80].split(10):
        matching.observe(part)
    G = DCGAN(8, (6, 4))
    assert [comes(matching, part, 0, G) for part in fake[80:100].split(10)] == [False, True]
    X = scaled(fake[:100], real)
    torch.testing.assert_close(matching.state_dict()["mean"], X.mean(0))
    torch.testing.assert_close(matching.state_dict()["second"], X.mT @ X / 100)
    # From here on the newest batch counts a tenth.
    loss_of(matching, fake[100:110])
    last = scaled(fake[100:110], real).mean(0)
    torch.testing.assert_close(matching.state_dict()["mean"], 0.9 * X.mean(0) + 0.1 * last)


def test_the_gradient_is_that_of_the_average_at_full_weight():
    real, fake = random(200, 3, 4, 4), random(60, 3, 4, 4, seed=1)
    matching = MomentMatching(maps, real, decay=0.9)
    for part in fake[:50].split(5):
        matching.observe(part)
    held = matching.state_dict()
    shift = torch.zeros(3, 1, 1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss_of(matching, fake[50:] + shift), shift)

    def moved(by):
        again = MomentMatching(maps, real, decay=0.9)
        again.load_state_dict(held)
        return float(loss_of(again, fake[50:] + by))

    for channel in range(3):
        step = torch.zeros_like(shift).detach()
        step[channel] = 1e-5
        # A tenth of a shift of the batch arrives in the average.
        difference = 10 * (moved(step) - moved(-step)) / 2e-5
        assert float(gradient[channel]) == pytest.approx(difference, rel=1e-5)


def test_there_is_no_loss_of_an_average_of_few():
    matching = MomentMatching(maps, random(50, 3, 4, 4), decay=0.75)
    G = DCGAN(8, (6, 4))
    found = [comes(matching, random(20, 3, 4, 4, seed=k), k, G) for k in range(6)]
    assert found == [False, False, False, True, True, True]
    assert matching.seen == 6


def test_descent_reaches_the_moments():
    real = 1 + 0.5 * random(400, 3, 2, 2)
    matching = MomentMatching(maps, real, decay=0.8)
    G = DCGAN(8, (6, 4))
    mean = torch.zeros(3, 1, 1, dtype=torch.float64, requires_grad=True)
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam((mean, log_scale), lr=2e-2)
    for k in range(300):
        optimizer.zero_grad()
        images = mean + torch.exp(log_scale) * random(50, 3, 2, 2, seed=k)
        loss = matching.loss(G, images, k)
        if loss is not None:
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(mean.detach(), torch.ones_like(mean), rtol=0, atol=0.06)
    assert float(torch.exp(log_scale.detach())) == pytest.approx(0.5, abs=0.06)


# Even responses --------------------------------------------------------------------------------


def generator(rank=5):
    """One whose directions have uneven effects: some channels of the first layer weigh more."""
    torch.manual_seed(0)
    G = DCGAN(8, (6, 4))
    householderize(G, rank=rank)
    scale = G.get_parameter("main.1.weight")
    with torch.no_grad():
        scale[:2] = 8.0
    return G


def test_unevenness_is_that_of_displacements():
    G, distance = generator(), PixelDistance()
    G.eval()
    even = EvenResponses(distance, every=1, codes=2000, count=5, step=0.5, decay=0.0)
    effect = displacement(G, directions(G), distance, step=0.5, samples=4000)[0]
    assert float(loss_of(even, generator=G).detach()) == pytest.approx(effect.variation**2, rel=0.1)
    assert loss_of(even, step=1, generator=G).requires_grad
    every_third = EvenResponses(distance, every=3)
    found = [comes(every_third, torch.zeros(0), k, G) for k in range(5)]
    assert found == [True, False, False, True, False]


def test_directions_come_by_turns_and_count_as_they_are_measured():
    G = generator()
    even = EvenResponses(PixelDistance(), every=2, codes=3, count=2, decay=0.5)
    loss_of(even, generator=G)
    for step, changed in ((2, {2, 3}), (4, {4, 0}), (6, {1, 2})):
        before = even.state_dict()["main.0"].clone()
        loss_of(even, step=step, generator=G)
        moved = (even.state_dict()["main.0"] != before).nonzero().flatten().tolist()
        assert set(moved) == changed


def test_the_mode_of_the_generator_and_its_statistics_stay():
    G = generator()
    G.train()
    before = {k: v.clone() for k, v in G.state_dict().items()}
    loss_of(EvenResponses(PixelDistance(), codes=2), generator=G).backward()
    assert G.training
    for name, value in G.state_dict().items():
        assert torch.equal(value, before[name])


def test_descent_makes_responses_even():
    G, distance = generator(), PixelDistance()
    before = displacement(G, directions(G), distance, samples=500)[0].variation
    even = EvenResponses(distance, every=1, codes=64, count=5, decay=0.5)
    optimizer = torch.optim.Adam([G.main[3].weight, G.main[6].weight], lr=1e-2)
    for step in range(150):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss_of(even, step=step, generator=G).backward()
        optimizer.step()
    after = displacement(G, directions(G), distance, samples=500, seed=1)[0].variation
    assert after < before / 3


# Within fine-tuning ----------------------------------------------------------------------------


def matching(maps=lambda x: [x]):
    return MomentMatching(maps, torch.tanh(random(32, 3, 16, 16)), decay=0.5)


def even():
    return EvenResponses(PixelDistance(), codes=2, count=2, weight=0.5)


def run(regularisers, path=None, steps=4):
    torch.manual_seed(0)
    recipe = Recipe(batch=4, r1_every=0, path_every=0, critic_first=2)
    G = StyleGAN2(16, 8, 2, WIDTHS)
    householderize(G, rank=3)
    tuner = FineTuner(G, Discriminator(16, WIDTHS), recipe, regularisers=regularisers)
    if path is not None and path.exists():
        tuner.load(path)
    data = of_images(torch.tanh(random(32, 3, 16, 16)).float())
    losses = {}
    while tuner.step_number < steps:
        losses |= tuner.step(data)
    return tuner, losses


def test_fine_tuning_sees_them_and_goes_on_to_the_same_weights(tmp_path):
    through, losses = run([matching(), even()])
    assert losses.keys() == {"discriminator", "generator", "moments", "unevenness"}
    assert through.regularisers["moments"].seen == 4
    first, _ = run([matching(), even()], steps=3)
    first.save(tmp_path / "state.pt")
    second, _ = run([matching(), even()], tmp_path / "state.pt")
    for name, value in through.generator.state_dict().items():
        assert torch.equal(value, second.generator.state_dict()[name])
    for others in ([matching()], [even()], []):
        found, _ = run(others)
        assert not all(
            torch.equal(value, found.generator.state_dict()[name])
            for name, value in through.generator.state_dict().items()
        )


def test_what_is_no_number_is_named():
    torch.manual_seed(0)
    G = StyleGAN2(16, 8, 2, WIDTHS)
    with torch.no_grad():
        next(iter(G.parameters())).fill_(torch.nan)
    recipe = Recipe(batch=4, r1_every=0, path_every=0)
    for regularisers in ([MomentMatching(lambda x: [x], random(32, 3, 16, 16), decay=0.0)], []):
        tuner = FineTuner(G, Discriminator(16, WIDTHS), recipe, regularisers=regularisers)
        with pytest.raises(FloatingPointError, match=r"is nan in step 0"):
            tuner.step(of_images(random(32, 3, 16, 16).float()))


def test_one_direction_is_not_even_or_uneven():
    with pytest.raises(ValueError, match="projector of rank 2 or more"):
        loss_of(EvenResponses(PixelDistance()), generator=generator(rank=1))


def test_a_state_of_other_regularisers_is_refused(tmp_path):
    path = tmp_path / "state.pt"
    run([matching()])[0].save(path)
    with pytest.raises(ValueError, match=r"state.pt: written with the regularisers \['moments'\]"):
        run([], path)
    with pytest.raises(ValueError, match=r"state must be of 5 features, got \(3,\)"):
        run([matching(maps)], path)
    run([])[0].save(path)
    with pytest.raises(ValueError, match=r"written with the regularisers \[\], not \['moments'\]"):
        run([matching()], path)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"decay must be in 0\.\.1, got 1"):
        MomentMatching(maps, random(4, 3, 2, 2), decay=1.0)
    with pytest.raises(ValueError, match="images must be 2 or more, got 1"):
        MomentMatching(maps, random(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"differ in every feature map, got .* \[0.0, 0.0\]"):
        MomentMatching(maps, torch.ones(4, 3, 2, 2))
    with pytest.raises(ValueError, match=r"decay must be in 0\.\.1, got -1"):
        EvenResponses(PixelDistance(), decay=-1.0)
    with pytest.raises(ValueError, match="every, codes and count must be >= 1, 1 and 2, got 1, 1"):
        EvenResponses(PixelDistance(), every=1, codes=1, count=1)
    with pytest.raises(ValueError, match="regularisers must differ by name"):
        run([matching(), matching()])
