"""Fine-tuning: the losses, going on after an interruption, several processes."""

import subprocess
import sys

import pytest
import torch
from householder_gan import (
    DCGAN,
    Discriminator,
    FineTuner,
    Recipe,
    StyleGAN2,
    codes,
    finetune,
    hessian_penalty,
    householderize,
    of_generator,
    of_images,
    path_lengths,
    r1_penalty,
)
from householder_gan.finetune import frame_parameters
from householder_gan.generators.discriminator import DCGANDiscriminator
from torch import nn

WIDTHS = {4: 8, 8: 8, 16: 6}


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def networks(seed=0, make=None):
    torch.manual_seed(seed)
    G = StyleGAN2(16, 8, 2, WIDTHS) if make is None else make()
    householderize(G, rank=3)
    return G, Discriminator(16, WIDTHS)


def images(count=32, seed=5):
    return torch.tanh(random(count, 3, 16, 16, seed=seed))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_r1_of_a_quadratic():
    x = random(3, 2, 4, 4)
    # D = ‖x‖², whose gradient is 2 x.
    expected = 4 * x.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(r1_penalty(lambda y: y.square().sum((1, 2, 3)), x), expected)


def test_path_length_of_a_linear_map():
    A = random(3 * 8 * 8, 5)
    ws = random(400, 1, 5, seed=1).requires_grad_()
    torch.manual_seed(0)
    lengths = path_lengths(lambda w: (w[:, 0] @ A.mT).view(-1, 3, 8, 8), ws)
    # ‖Aᵀy‖² has the mean ‖A‖²/64 over y ~ N(0, I/64).
    assert float(lengths.square().mean()) == pytest.approx(float(A.square().sum() / 64), rel=0.05)
    assert lengths.shape == (400,)
    slots = path_lengths(
        lambda w: (w.sum(1) @ A.mT).view(-1, 3, 8, 8), random(400, 4, 5).requires_grad_()
    )
    # The mean over slots, each of which has the whole effect.
    assert float(slots.square().mean()) == pytest.approx(float(A.square().sum() / 64), rel=0.05)


def test_hessian_penalty_of_a_quadratic_form():
    H = random(4, 4, dtype=torch.float64)
    H = H + H.mT
    z = random(1, 4, seed=1, dtype=torch.float64)

    def quadratic(z):
        return ((z @ H) * z).sum(1) / 2

    # Var over signs of xᵀHx is twice the sum of squares off the diagonal.
    expected = 2 * (H.square().sum() - H.diagonal().square().sum())
    rng = torch.Generator().manual_seed(0)
    found = hessian_penalty(quadratic, z, probes=4000, rng=rng)
    assert float(found) == pytest.approx(float(expected), rel=0.05)
    diagonal = hessian_penalty(lambda z: (z * z * H.diagonal()).sum(1), z)
    assert float(diagonal) == pytest.approx(0, abs=1e-12)
    # Of sin(z_0) z_1 it is cos(z_0)² times the variance of signs: its logarithm has the slope
    # -2 tan(z_0).
    z.requires_grad_()
    loss = hessian_penalty(lambda z: z.sin()[:, 0] * z[:, 1], z, probes=8, rng=rng)
    (slope,) = torch.autograd.grad(loss, z)
    assert float(loss.detach()) > 0
    assert float(slope[0, 0] / loss.detach()) == pytest.approx(
        -2 * float(z[0, 0].detach().tan()), rel=0.05
    )
    with pytest.raises(ValueError, match="probes must be >= 2 for a variance, got 1"):
        hessian_penalty(quadratic, z, probes=1)


def test_the_hessian_penalty_reaches_the_weights():
    found = []
    for weight in (0.0, 10.0):
        G, D = networks()
        run = FineTuner(G, D, Recipe(batch=2, path_every=0, r1_every=0, hessian_weight=weight))
        losses = run.step(of_images(images()))
        assert ("hessian" in losses) == (weight > 0)
        found.append(state(G))
    assert not equal(found[0], found[1])


def test_lazy_regularisers_come_every_so_many_steps():
    G, D = networks()
    run = FineTuner(G, D, Recipe(batch=4, r1_every=3, path_every=2))
    data = of_images(images())
    seen = [set(run.step(data)) for _ in range(6)]
    both = {"generator", "discriminator"}
    assert seen == [
        both | {"r1", "path length"}, both, both | {"path length"}, both | {"r1"},
        both | {"path length"}, both,
    ]  # fmt: skip
    group = run.optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(2e-3 * 2 / 3)
    assert group["betas"] == (0.0, pytest.approx(0.99 ** (2 / 3)))
    assert run.critic_optimizer.param_groups[0]["lr"] == pytest.approx(2e-3 * 3 / 4)
    assert run.mean_path > 0


def test_rates_fall_along_a_cosine_and_go_on_falling_after_a_checkpoint(tmp_path):
    recipe = Recipe(batch=2, r1_every=0, path_every=0, critic_rate=4e-3, falls_from=1, falls_to=4)
    run = FineTuner(*networks(), recipe)
    data = of_images(images())
    seen = []
    for number in range(6):
        if number == 3:
            run.save(tmp_path / "state")
            run = FineTuner(*networks(), recipe)
            run.load(tmp_path / "state")
        before = state(run.generator)
        run.step(data)
        seen.append(run.optimizer.param_groups[0]["lr"] / 2e-3)
        assert run.critic_optimizer.param_groups[0]["lr"] == pytest.approx(2 * 2e-3 * seen[-1])
        still = all(torch.equal(before[k], p) for k, p in run.generator.named_parameters())
        assert still == (number >= 4)
    assert seen == pytest.approx([1, 1, 0.75, 0.25, 0, 0])
    with pytest.raises(ValueError, match="falls_from and falls_to"):
        Recipe(falls_from=3, falls_to=3)


def test_frames_stay_orthonormal_and_are_a_group_of_their_own():
    G, D = networks()
    recipe = Recipe(batch=4, rate=1e-3, frame_rate=5e-3, r1_every=2, path_every=2)
    run = FineTuner(G, D, recipe)
    before = G.convs[0].conv.modulation.weight.detach().clone()
    frames = frame_parameters(G)
    assert [id(p) for p in run.optimizer.param_groups[0]["params"]] == [id(p) for p in frames]
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(5e-3 * 2 / 3)
    for _ in range(8):
        run.step(of_images(images()))
    W = G.convs[0].conv.modulation.weight.detach()
    assert (W - before).abs().max() > 1e-4
    gain = torch.linalg.svdvals(W)[0]
    W = W / gain
    assert (W @ W.mT @ W - W).abs().max() < 1e-5


def test_frames_only():
    G, D = networks()
    before = state(G)
    finetune(G, D, of_images(images()), 2, Recipe(batch=2, frames_only=True))
    changed = {
        name for name, value in G.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed
    assert all(".parametrizations.weight.original" in name for name in changed)
    with pytest.raises(ValueError, match="frames_only needs a generator with projectors"):
        FineTuner(StyleGAN2(16, 8, 2, WIDTHS), D, Recipe(frames_only=True))


def test_moving_average():
    G, D = networks()
    start = state(G)
    recipe = Recipe(batch=4, average_images=4.0, path_every=0)
    run = FineTuner(G, D, recipe)
    run.step(of_images(images()))
    now = state(G)
    for name, parameter in run.average.named_parameters():
        # One half life.
        torch.testing.assert_close(parameter, (start[name] + now[name]) / 2)
    assert not run.average.training


def test_the_discriminator_first():
    G, D = networks()
    before, critic = state(G), state(D)
    run = FineTuner(G, D, Recipe(batch=2, critic_first=2))
    data = of_images(images())
    for _ in range(2):
        assert "generator" not in run.step(data)
    assert equal(state(G), before)
    assert equal(state(run.average), before)
    assert not equal(state(D), critic)
    run.step(data)
    assert not equal(state(G), before)


@pytest.mark.parametrize("make", [None, lambda: DCGAN(6, (8, 6))])
def test_an_interrupted_run_ends_at_the_same_weights(make, tmp_path):
    recipe = Recipe(batch=4, r1_every=2, path_every=2)
    ends = []
    for pieces in ((5,), (2, 5), (3, 4, 5)):
        path = tmp_path / f"{len(pieces)}.pt"
        for steps in pieces:
            # Every piece is another process, with other networks until the state is read.
            G, D = networks(seed=0 if steps == pieces[0] else 9, make=make)
            torch.manual_seed(steps)
            average = finetune(G, D, of_images(images()), steps, recipe, checkpoint=path)
        ends.append((state(G), state(D), state(average)))
    for other in ends[1:]:
        assert all(equal(a, b) for a, b in zip(ends[0], other, strict=True))


def test_a_state_of_another_run_is_refused(tmp_path):
    G, D = networks()
    finetune(G, D, of_images(images()), 1, Recipe(batch=2), checkpoint=tmp_path / "s.pt")
    with pytest.raises(ValueError, match=r"another recipe, which differs in \['batch'\]"):
        finetune(G, D, of_images(images()), 1, Recipe(batch=3), checkpoint=tmp_path / "s.pt")
    torch.manual_seed(0)
    other = StyleGAN2(16, 8, 2, WIDTHS)
    with pytest.raises(ValueError, match=r"s\.pt: of another network"):
        finetune(other, D, of_images(images()), 1, Recipe(batch=2), checkpoint=tmp_path / "s.pt")
    torch.save({"a": 1}, tmp_path / "s.pt")
    with pytest.raises(ValueError, match=r"s\.pt: not a state of fine-tuning"):
        finetune(G, D, of_images(images()), 1, Recipe(batch=2), checkpoint=tmp_path / "s.pt")


def test_random_numbers_of_the_caller_are_left_alone():
    G, D = networks()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    FineTuner(G, D, Recipe(batch=2)).step(of_images(images()))
    assert torch.equal(torch.rand(3), expected)


def test_data():
    held = images()
    data = of_images(held, seed=3)
    assert torch.equal(data(4, 6), data(4, 6))
    assert not torch.equal(data(4, 6), data(5, 6))
    drawn = torch.cat([data(i, 32) for i in range(20)]).flatten(1)
    counts = (drawn[:, None] == held.flatten(1)[None]).all(2).sum(0)
    assert int(counts.min()) >= 5
    assert int(counts.max()) <= 45
    G, _ = networks()
    G.eval()
    teacher = of_generator(G)
    assert torch.equal(teacher(1, 3), teacher(1, 3))
    assert not torch.equal(teacher(1, 3), teacher(2, 3))
    assert not teacher(1, 3).requires_grad


def test_a_loss_that_is_no_number_is_an_error():
    G, D = networks()
    run = FineTuner(G, D, Recipe(batch=2))
    with pytest.raises(FloatingPointError, match="discriminator is nan in step 0"):
        run.step(lambda _, batch: torch.full((batch, 3, 16, 16), float("nan")))


class Blob(nn.Module):
    """Images of one colour, c = b + A w: two numbers that training has to move."""

    z_dim = w_dim = 2
    slots = 1
    space = "z"

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def mapping(self, z):
        return z

    def synthesis(self, ws):
        return self.layer(ws[:, 0])[:, :, None, None].expand(-1, -1, 16, 16)


def test_training_learns_the_distribution():
    torch.manual_seed(0)
    G = Blob()
    with torch.no_grad():
        G.layer.bias.fill_(-0.5)
    target = torch.tensor([0.6, -0.2, 0.3])
    real = (target + 0.1 * random(256, 3))[:, :, None, None].expand(-1, -1, 16, 16)
    D = DCGANDiscriminator(16, 8)
    recipe = Recipe(batch=16, rate=1e-2, critic_rate=5e-3, path_every=0, r1_weight=1.0,
                    average_images=160.0)  # fmt: skip
    average = finetune(G, D, of_images(real), 250, recipe)
    assert isinstance(average, Blob)
    z = random(256, 2, seed=3)
    colours = average.synthesis(codes(average, z))[:, :, 0, 0].detach()
    assert (colours.mean(0) - target).abs().max() < 0.25


# Two processes ---------------------------------------------------------------------------------

WORKER = """
import sys
import torch
from torch import distributed, nn
from householder_gan import (
    Discriminator, EvenResponses, FineTuner, MomentMatching, PixelDistance, Recipe, StyleGAN2,
    householderize, of_images
)
from householder_gan.processes import average_gradients

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
parameters[0].grad = torch.tensor([1.0, 3.0]) + 2 * rank
parameters[1].grad = torch.ones(1) if rank else None
average_gradients(parameters)
torch.manual_seed(rank)  # each process starts elsewhere; the first one's weights count
widths = {4: 8, 8: 8, 16: 6}
G = StyleGAN2(16, 8, 2, widths)
householderize(G, rank=3)
rng = torch.Generator().manual_seed(5)
real = torch.tanh(torch.randn(32, 3, 16, 16, generator=rng))
beside = MomentMatching(lambda x: [x], real, decay=0.5), EvenResponses(PixelDistance(), codes=2)
run = FineTuner(
    G, Discriminator(16, widths), Recipe(batch=2, r1_every=2, path_every=2), regularisers=beside
)
data = of_images(real)
for _ in range(3):
    run.step(data)
run.save(f"{folder}/state-{rank}.pt")
held = {
    "gradients": [p.grad for p in parameters],
    "generator": G.state_dict(),
    "average": run.average.state_dict(),
    "critic": run.discriminator.state_dict(),
    "mean_path": run.mean_path,
    "regularisers": {k: v for one in beside for k, v in one.state_dict().items()},
}
torch.save(held, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER, "utf-8")
    running = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path)])
        for rank in range(2)
    ]
    try:
        assert [process.wait(240) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["gradients"][0].tolist() == [2.0, 4.0]
    assert first["gradients"][1].tolist() == [0.5]
    for name in ("generator", "average", "critic"):
        assert equal(first[name], second[name])
    assert first["mean_path"] == second["mean_path"]
    assert equal(first["regularisers"], second["regularisers"])
    assert (tmp_path / "state-0.pt").exists()
    assert not (tmp_path / "state-1.pt").exists()
    # And it is not what one process learns alone.
    G, D = networks()
    finetune(G, D, of_images(images()), 3, Recipe(batch=2, r1_every=2, path_every=2))
    assert not equal(first["generator"], state(G))
