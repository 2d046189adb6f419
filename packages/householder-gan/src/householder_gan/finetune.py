"""Fine-tuning a generator with projectors by the published recipe: StyleGAN2's, nothing added.

Non-saturating loss, R1 and path length every few steps, style mixing, an exponential moving
average of the weights; the frames of the projectors in a parameter group of their own. What a
step draws depends on (seed, step, process) alone, so that a run that was interrupted goes on to
the very weights of one that was not. Under an initialised `torch.distributed` group, gradients
are averaged over the processes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from collections.abc import Generator as Steps
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from householder_gan import processes
from householder_gan.files import WRONG, load_tensors, reason, whole
from householder_gan.generators.protocol import Generator, codes, device_of
from householder_gan.householderize import WeightIsometry
from householder_gan.penalties import hessian_penalty, path_lengths, r1_penalty
from householder_gan.projector import HouseholderProjector
from householder_gan.regularisers import Regulariser

FORMAT = "householder-gan finetune 1"

Data = Callable[[int, int], Tensor]
"""(number, batch) -> real images (batch, c, h, w) in -1..1, the same for the same number."""


@dataclass(frozen=True)
class Recipe:
    """The published schedule; `every` of 0 leaves a regulariser out.

    `rate`, `frame_rate` and `critic_rate` are Adam's for the generator, its projectors and the
    discriminator, multiplied as its betas (0, 0.99) are raised by k/(k + 1) for a regulariser
    every k steps. For the first `critic_first` steps the discriminator alone learns, for want of
    one that was trained with the generator. `r1_weight` γ weighs γ/2 R1. Path lengths are of
    batch/`path_shrink` images. `average_images` is the half life of the moving average, in
    images. `frames_only` trains the projectors and leaves all else of the generator.
    `hessian_weight` adds the Hessian penalty, a baseline, with step `hessian_epsilon`. All rates
    fall to 0 along half a cosine from step `falls_from` to step `falls_to`, or never for 0.
    """

    batch: int = 8
    rate: float = 2e-3
    frame_rate: float = 2e-3
    critic_rate: float = 2e-3
    critic_first: int = 0
    r1_weight: float = 10.0
    r1_every: int = 16
    path_weight: float = 2.0
    path_every: int = 4
    path_shrink: int = 2
    path_decay: float = 0.01
    mixing: float = 0.9
    average_images: float = 10_000.0
    flip: bool = True
    frames_only: bool = False
    hessian_weight: float = 0.0
    hessian_epsilon: float = 1.0
    falls_from: int = 0
    falls_to: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.path_shrink < 1:
            raise ValueError(
                f"batch and path_shrink must be >= 1, got {self.batch} and {self.path_shrink}"
            )
        for name in ("rate", "frame_rate", "critic_rate", "average_images", "hessian_epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("r1_weight", "r1_every", "path_weight", "path_every", "hessian_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not (self.falls_to == 0 or 0 <= self.falls_from < self.falls_to):
            raise ValueError(
                "falls_from and falls_to must be steps one after the other, got "
                f"{self.falls_from} and {self.falls_to}"
            )

    def share(self, step: int) -> float:
        """What is left of the rates in a step."""
        if self.falls_to == 0 or step <= self.falls_from:
            return 1.0
        way = (step - self.falls_from) / (self.falls_to - self.falls_from)
        return (1 + math.cos(math.pi * min(way, 1.0))) / 2


def of_images(images: Float[Tensor, "n c h w"], seed: int = 0) -> Data:
    """Batches drawn from given images with replacement."""

    def batch(number: int, size: int) -> Tensor:
        rng = torch.Generator().manual_seed(_mixed(seed, number))
        return images[torch.randint(len(images), (size,), generator=rng)]

    return batch


def of_generator(generator: Generator, seed: int = 0) -> Data:
    """Images of a trained generator, which makes fine-tuning a distillation."""

    def batch(number: int, size: int) -> Tensor:
        rng = torch.Generator().manual_seed(_mixed(seed, number))
        z = torch.randn(size, generator.z_dim, generator=rng).to(device_of(generator))
        with torch.no_grad():
            return generator.synthesis(codes(generator, z))

    return batch


def _mixed(*numbers: int) -> int:
    """A seed of several numbers, by multiplications with odd constants modulo 2⁶³."""
    state = 0x2545F4914F6CDD1D
    for number in numbers:
        state = ((state ^ (number + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9) % 2**63
        state ^= state >> 31
    return state


def frame_parameters(generator: nn.Module) -> list[nn.Parameter]:
    """The reflectors (and learned σ) of every projector."""
    found: list[nn.Parameter] = []
    for module in generator.modules():
        if isinstance(module, HouseholderProjector):
            found += [p for p in (module.U, module.V, module.log_sigma) if p is not None]
        elif isinstance(module, nn.utils.parametrize.ParametrizationList) and isinstance(
            module[0], WeightIsometry
        ):
            found += list(module.parameters())
    return found


def _adam(groups: list[dict[str, object]], every: int) -> torch.optim.Adam:
    ratio = every / (every + 1) if every else 1.0
    for group in groups:
        rate = group["lr"]
        assert isinstance(rate, float)
        group["lr"] = rate * ratio
    return torch.optim.Adam(groups, betas=(0.0, 0.99**ratio))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Steps[None]:
    """Global random numbers from a seed, and afterwards as if nothing had been drawn."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


class FineTuner:
    """The state of a run: networks, moving average, optimisers, number of steps done.

    `generator` and `discriminator` are trained in place; `average` is the generator to use.
    `regularisers`, no part of the published recipe, are losses of the generator beside it.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        recipe: Recipe | None = None,
        *,
        regularisers: Sequence[Regulariser] = (),
    ) -> None:
        if not isinstance(generator, Generator):
            raise TypeError(
                "generator must have mapping, synthesis, z_dim, w_dim, slots and space, got "
                f"{type(generator).__name__}"
            )
        recipe = Recipe() if recipe is None else recipe
        self.generator, self.discriminator, self.recipe = generator, discriminator, recipe
        self.regularisers = {one.name: one for one in regularisers}
        if len(self.regularisers) < len(regularisers):
            raise ValueError(f"regularisers must differ by name, got {list(self.regularisers)}")
        processes.synchronise(generator)
        processes.synchronise(discriminator)
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        frames = frame_parameters(generator)
        known = {id(p) for p in frames}
        others = [p for p in generator.parameters() if id(p) not in known]
        if recipe.frames_only and not frames:
            raise ValueError("frames_only needs a generator with projectors, got none")
        self.trained = frames if recipe.frames_only else [*others, *frames]
        groups: list[dict[str, object]] = []
        if frames:
            groups.append({"params": frames, "lr": recipe.frame_rate})
        if others and not recipe.frames_only:
            groups.append({"params": others, "lr": recipe.rate})
        self.optimizer = _adam(groups, recipe.path_every)
        self.critic = list(discriminator.parameters())
        self.critic_optimizer = _adam(
            [{"params": self.critic, "lr": recipe.critic_rate}], recipe.r1_every
        )
        self._rates = [[group["lr"] for group in groups] for groups in self._groups()]
        self.mean_path = 0.0
        self.step_number = 0

    def _groups(self) -> tuple[list[dict[str, Any]], ...]:
        return self.optimizer.param_groups, self.critic_optimizer.param_groups

    def _codes(self, batch: int) -> Tensor:
        """w+ of random z, with style mixing: from a random slot on, the codes of other z."""
        generator = self.generator
        assert isinstance(generator, Generator)
        z = torch.randn(2, batch, generator.z_dim).to(device_of(generator))
        first = codes(generator, z[0])
        if generator.slots == 1 or float(torch.rand(())) >= self.recipe.mixing:
            return first
        cut = int(torch.randint(1, generator.slots, ()))
        return torch.cat((first[:, :cut], codes(generator, z[1])[:, cut:]), 1)

    def _descend(
        self, loss: Tensor, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        for parameter in parameters:
            parameter.grad = None
        loss.backward(inputs=parameters)
        processes.average_gradients(parameters)
        optimizer.step()

    def _critic_step(self, real: Tensor) -> dict[str, float]:
        recipe, generator = self.recipe, self.generator
        assert isinstance(generator, Generator)
        with torch.no_grad():
            fake = generator.synthesis(self._codes(recipe.batch))
        if self.step_number < recipe.critic_first:
            for one in self.regularisers.values():
                one.observe(fake)
        # Two passes: the deviation of a batch is of real images or of generated ones.
        loss = functional.softplus(-self.discriminator(real)).mean()
        loss = loss + functional.softplus(self.discriminator(fake)).mean()
        self._descend(loss, self.critic, self.critic_optimizer)
        found = {"discriminator": float(loss.detach())}
        if recipe.r1_every and self.step_number % recipe.r1_every == 0:
            penalty = r1_penalty(self.discriminator, real)
            self._descend(
                recipe.r1_weight / 2 * recipe.r1_every * penalty, self.critic, self.critic_optimizer
            )
            found["r1"] = float(penalty.detach())
        return found

    def _generator_step(self) -> dict[str, float]:
        recipe, generator = self.recipe, self.generator
        assert isinstance(generator, Generator)
        images = generator.synthesis(self._codes(recipe.batch))
        loss = functional.softplus(-self.discriminator(images)).mean()
        found = {"generator": float(loss.detach())}
        for name, one in self.regularisers.items():
            value = one.loss(generator, images, self.step_number)
            if value is not None:
                loss = loss + one.weight * value.to(loss)
                found[name] = float(value.detach())
        if recipe.hessian_weight:
            z = torch.randn(recipe.batch, generator.z_dim).to(device_of(generator))
            penalty = hessian_penalty(
                lambda z: generator.synthesis(codes(generator, z)),
                z,
                epsilon=recipe.hessian_epsilon,
            )
            loss = loss + recipe.hessian_weight * penalty
            found["hessian"] = float(penalty.detach())
        self._descend(loss, self.trained, self.optimizer)
        if recipe.path_every and self.step_number % recipe.path_every == 0:
            ws = self._codes(max(1, recipe.batch // recipe.path_shrink))
            # Without a mapping network nothing else asks for the gradient of the codes.
            ws = ws if ws.requires_grad else ws.requires_grad_()
            lengths = path_lengths(generator.synthesis, ws)
            mean = processes.mean(lengths.detach().mean())
            self.mean_path += recipe.path_decay * (float(mean) - self.mean_path)
            penalty = (lengths - self.mean_path).square().mean()
            weight = recipe.path_weight * recipe.path_every
            self._descend(weight * penalty, self.trained, self.optimizer)
            found["path length"] = float(mean)
        return found

    def _update_average(self) -> None:
        images = self.recipe.batch * processes.place()[1]
        keep = 0.5 ** (images / self.recipe.average_images)
        with torch.no_grad():
            now = dict(self.generator.named_parameters())
            for name, parameter in self.average.named_parameters():
                parameter.lerp_(now[name], 1 - keep)
            held = dict(self.generator.named_buffers())
            for name, buffer in self.average.named_buffers():
                buffer.copy_(held[name])

    def step(self, data: Data) -> dict[str, float]:
        """One step of the discriminator and one of the generator; the losses by name.

        Raises FloatingPointError where a loss is NaN or infinite, naming it and the step.
        """
        recipe = self.recipe
        process, count = processes.place()
        device = next(self.generator.parameters()).device
        self.generator.train()
        self.discriminator.train()
        for groups, rates in zip(self._groups(), self._rates, strict=True):
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * recipe.share(self.step_number)
        with _seeded(_mixed(recipe.seed, self.step_number, process), device):
            real = data(self.step_number * count + process, recipe.batch).to(device)
            if recipe.flip:
                turned = torch.rand(len(real), 1, 1, 1).to(device) < 0.5
                real = torch.where(turned, real.flip(-1), real)
            losses = self._critic_step(real)
            if self.step_number >= recipe.critic_first:
                losses |= self._generator_step()
        for name, value in losses.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value} in step {self.step_number}")
        if self.step_number >= recipe.critic_first:
            self._update_average()
        self.step_number += 1
        return losses

    def save(self, path: str | Path) -> None:
        """Everything that going on needs, written whole or not at all; by process 0 alone."""
        if processes.place()[0]:
            return
        state = {
            "format": FORMAT,
            "recipe": asdict(self.recipe),
            "step": self.step_number,
            "mean_path": self.mean_path,
            "regularisers": {k: one.state_dict() for k, one in self.regularisers.items()},
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
        }
        with whole(path) as part:
            torch.save(state, part)

    def load(self, path: str | Path) -> None:
        """Go on from `save`. Raises ValueError for another file, recipe or network."""
        try:
            held = load_tensors(path)
        except FileNotFoundError:
            raise
        except (*WRONG, OSError) as error:
            raise ValueError(f"{path}: not a state of fine-tuning: {reason(error)}") from error
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            raise ValueError(f"{path}: not a state of fine-tuning")
        written = held.get("recipe")
        if written != asdict(self.recipe):
            known = written if isinstance(written, dict) else {}
            differing = [k for k, v in asdict(self.recipe).items() if known.get(k) != v]
            raise ValueError(f"{path}: written under another recipe, which differs in {differing}")
        beside = held.get("regularisers")
        if not isinstance(beside, dict) or beside.keys() != self.regularisers.keys():
            known = list(beside) if isinstance(beside, dict) else beside
            raise ValueError(
                f"{path}: written with the regularisers {known}, not {[*self.regularisers]}"
            )
        try:
            for name in ("generator", "average", "discriminator"):
                getattr(self, name).load_state_dict(held[name])
            self.optimizer.load_state_dict(held["optimizer"])
            self.critic_optimizer.load_state_dict(held["critic_optimizer"])
            for name, one in self.regularisers.items():
                one.load_state_dict(beside[name])
            self.mean_path, self.step_number = float(held["mean_path"]), int(held["step"])
        except WRONG as error:
            raise ValueError(f"{path}: of another network: {error}") from error


def finetune(
    generator: nn.Module,
    discriminator: nn.Module,
    data: Data,
    steps: int,
    recipe: Recipe | None = None,
    *,
    regularisers: Sequence[Regulariser] = (),
    checkpoint: str | Path | None = None,
    every: int = 1000,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> nn.Module:
    """Train for `steps` in all and return the moving average of the generator.

    Goes on from `checkpoint` where that file exists, writes it every so many steps and at the
    end. `watch` is called with the steps done and the losses of the last one.
    """
    if steps < 0 or every < 1:
        raise ValueError(f"steps must be >= 0 and every >= 1, got {steps} and {every}")
    run = FineTuner(generator, discriminator, recipe, regularisers=regularisers)
    if checkpoint is not None and Path(checkpoint).exists():
        run.load(checkpoint)
    while run.step_number < steps:
        losses = run.step(data)
        if watch is not None:
            watch(run.step_number, losses)
        if checkpoint is not None and (run.step_number % every == 0 or run.step_number == steps):
            run.save(checkpoint)
    return run.average
