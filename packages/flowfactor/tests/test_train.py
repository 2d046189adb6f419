"""Training: what resumes, what is shared among processes, what is saved."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import torch
from flowfactor import (
    Config,
    Objective,
    Options,
    Trainer,
    TransformedImages,
    train_vae,
)
from flowfactor.baselines import (
    laplace_kl,
    linear_directions,
    with_directions,
    with_wave_potentials,
)
from flowfactor.checkpoint import load_model, load_run, save_model, save_run


def source(count=40):
    """Blobs: two bumps whose places differ from image to image."""
    g = torch.Generator().manual_seed(0)
    grid = torch.arange(8) - 3.5
    x0, y0 = (3 * torch.rand(2, count, 2, generator=g) - 1.5).unbind(0)
    bumps = torch.exp(
        -(grid - x0[..., None])[:, :, None].square() - (grid - y0[..., None])[..., None].square()
    )
    images = torch.zeros(count, 3, 8, 8)
    images[:, 0] = bumps.amax(1)
    return TransformedImages((255 * images).byte(), steps=3)


CONFIG = Config((3, 8, 8), 3, 6, hidden=(32,), potential_hidden=8)
OPTIONS = Options(12, 6, 3e-3, objective=Objective(weight=0.1), seed=3)


def fresh(**options):
    torch.manual_seed(0)
    trainer = Trainer(CONFIG.build(), source(), dataclasses.replace(OPTIONS, **options))
    return trainer, trainer.model


def weights(model):
    return torch.cat([w.flatten() for w in model.state_dict().values()])


@pytest.mark.parametrize("options", [{}, {"objective": Objective(subset=1)}])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, options):
    whole, model = fresh(**options)
    whole.run()
    first, _ = fresh(**options)
    first.run(until=5)
    save_run(tmp_path / "state.pt", first)
    torch.manual_seed(99)
    second, resumed = fresh(**options)
    load_run(tmp_path / "state.pt", second)
    assert second.iteration == 5
    second.run()
    assert torch.equal(weights(model), weights(resumed))
    # Another seed is another run.
    other, different = fresh(**options, seed=4)
    other.run()
    assert not torch.equal(weights(model), weights(different))


# Two processes ---------------------------------------------------------------------------------

WORKER = """
import sys
import torch
from torch import distributed
from flowfactor import Config, Objective, Options, Trainer, TransformedImages

rank, folder, one_flow = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
images = torch.load(f"{folder}/images.pt", weights_only=True)
torch.manual_seed(rank)  # each process starts elsewhere; the first one's weights count
model = Config((3, 8, 8), 3, 6, hidden=(32,), potential_hidden=8).build()
if rank == 0:
    model.load_state_dict(torch.load(f"{folder}/start.pt", weights_only=True))
options = Options(
    6, 6, 3e-3, objective=Objective(weight=0.1, subset=2), one_flow=one_flow, seed=3
)
trainer = Trainer(model, TransformedImages(images, steps=3), options)
trainer.run()
torch.save(model.state_dict(), f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.parametrize("one_flow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_make_the_updates_of_one(tmp_path, one_flow):
    objective = Objective(weight=0.1, subset=2)
    trainer, model = fresh(iterations=6, objective=objective, one_flow=one_flow)
    torch.save(model.state_dict(), tmp_path / "start.pt")
    torch.save(source().images, tmp_path / "images.pt")
    start = weights(model).clone()
    script = tmp_path / "worker.py"
    script.write_text(WORKER, "utf-8")
    command = [sys.executable, str(script)]
    running = [
        subprocess.Popen([*command, str(rank), str(tmp_path), str(one_flow)]) for rank in range(2)
    ]
    try:
        trainer.run()
        assert [process.wait(240) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    ends = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, weight in model.state_dict().items():
        assert torch.equal(ends[0][name], ends[1][name])
        torch.testing.assert_close(ends[0][name], weight, rtol=1e-3, atol=2e-5)
    assert (weights(model) - start).abs().max() > 1e-3


def test_training_leaves_the_global_generator_alone():
    trainer, _ = fresh()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    trainer.run(until=2)
    assert torch.equal(before, torch.get_rng_state())


def test_the_learning_rate():
    trainer, _ = fresh(iterations=100)
    rates = []
    for trainer.iteration in range(101):
        rates.append(trainer.learning_rate())
    assert rates[0] == pytest.approx(1.5e-3)
    assert rates[1] == rates[2] == pytest.approx(3e-3)
    assert rates[51] == pytest.approx(1.5e-3)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert fresh(schedule="constant")[0].learning_rate() == 3e-3


def test_half_precision():
    full, model = fresh()
    full.run()
    half, other = fresh(half=True)
    half.run()
    assert other.autocast is None
    difference = (weights(model) - weights(other)).abs().max()
    assert 0 < difference < 0.05
    assert {w.dtype for w in other.parameters()} == {torch.float32}


def test_frozen_networks_keep_their_weights():
    trainer, model = fresh(frozen=True)
    before = weights(model.encoder), weights(model.decoder), weights(model.flow)
    trainer.run()
    assert torch.equal(before[0], weights(model.encoder))
    assert torch.equal(before[1], weights(model.decoder))
    assert not torch.equal(before[2], weights(model.flow))


def test_one_flow_a_batch():
    trainer, _ = fresh(one_flow=True)
    seen = [trainer._batch()[1].unique().tolist() for _ in range(12)]
    assert all(len(flows) == 1 for flows in seen)
    assert len({flows[0] for flows in seen}) == 3


def test_a_gradient_that_is_not_finite_is_an_error():
    trainer, model = fresh()
    with torch.no_grad():
        next(model.decoder.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="iteration 0: the gradient is not finite"):
        trainer.run()


def test_models_are_saved_with_what_they_are_built_from(tmp_path):
    trainer, model = fresh()
    trainer.run(until=2)
    path = tmp_path / "model.safetensors"
    save_model(path, model, CONFIG, {"names": ["a", "b", "c"]})
    loaded, config, about = load_model(path)
    assert config == CONFIG
    assert about == {"names": ["a", "b", "c"]}
    assert torch.equal(weights(loaded), weights(model))
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.traverse(x, 1, 2), model.traverse(x, 1, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_model(path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="expected a model of 'flowfactor 1', got None"):
        load_model(path)
    header = {"format": "flowfactor 1", "config": json.dumps(dataclasses.asdict(CONFIG)),
              "about": "{}"}  # fmt: skip
    save_file({"a": torch.zeros(2)}, path, header)
    with pytest.raises(ValueError, match="weights do not fit its config"):
        load_model(path)


@pytest.mark.parametrize("kind", ["vae", "beta-vae", "slow-vae"])
def test_baselines_learn(kind):
    torch.manual_seed(0)
    model = CONFIG.build()
    losses = []
    options = dataclasses.replace(OPTIONS, iterations=60, batch=8)
    train_vae(model, source(), kind, options, report=lambda _i, loss: losses.append(loss))
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    directions = linear_directions(model, source(), torch.arange(20))
    assert directions.shape == (3, 6)
    moved = with_directions(model, directions)
    z = torch.randn(4, 6)
    torch.testing.assert_close(moved.flow.rollout(z, 1, 2)[2], z + 2 * directions[1])


def test_linear_directions_are_least_squares():
    """Where latents move along lines the direction is found exactly."""

    class Line(torch.nn.Module):
        def forward(self, x):
            return x[:, 0, 0, :2], torch.zeros(len(x), 2)

    class Frames:
        names, steps, size, shape = ("a", "b"), 3, 5, (1, 1, 2)

        def frames(self, rows, k, steps=3):
            t = torch.arange(steps + 1.0)[:, None]
            step = torch.tensor([[1.0, 2.0], [0.0, -3.0]])[k]
            return (rows[:, None, None] + t * step[:, None])[:, :, None, None]

    model = CONFIG.build()
    model.encoder, model.flow.dim = Line(), 2
    found = linear_directions(model, Frames(), torch.arange(5))
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0], [0.0, -3.0]]))


def test_divergence_from_a_laplace_distribution():
    mean = torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    log_var = torch.tensor([[-0.5, 0.4]], dtype=torch.float64)
    centre = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    x = torch.linspace(-15, 15, 200001, dtype=torch.float64)[:, None]
    q = torch.distributions.Normal(mean[0], (log_var[0] / 2).exp())
    p = torch.distributions.Laplace(centre[0], 1 / 6)
    density = q.log_prob(x).exp() * (q.log_prob(x) - p.log_prob(x))
    want = torch.trapezoid(density, x[:, 0], dim=0).sum()
    torch.testing.assert_close(laplace_kl(mean, log_var, centre, 6.0)[0], want, rtol=1e-6, atol=0)


def test_wave_potentials_on_a_frozen_vae():
    torch.manual_seed(0)
    model = CONFIG.build()
    before = weights(model.encoder)
    moved = with_wave_potentials(model, source(), dataclasses.replace(OPTIONS, iterations=3), 8)
    assert torch.equal(before, weights(model.encoder))
    assert moved.decoder is model.decoder
    assert all(p.requires_grad for p in model.parameters())
    assert math.isfinite(weights(moved.flow).sum().item())


def test_bad_options():
    with pytest.raises(ValueError, match=r"model must have one flow for each of .*, got 2"):
        Trainer(dataclasses.replace(CONFIG, flows=2).build(), source(), OPTIONS)
    with pytest.raises(ValueError, match="must have a classifier to be trained without labels"):
        Trainer(CONFIG.build(), source(), dataclasses.replace(OPTIONS, supervised=False))
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        Options(0)
    with pytest.raises(ValueError, match="schedule must be 'cosine' or 'constant', got 'step'"):
        Options(1, schedule="step")


@pytest.mark.bad_input
def test_bad_kind():
    with pytest.raises(ValueError, match="kind must be 'vae', 'beta-vae' or 'slow-vae'"):
        train_vae(CONFIG.build(), source(), "other", OPTIONS)  # ty: ignore[invalid-argument-type]
