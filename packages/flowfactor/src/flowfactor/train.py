"""Training: one seed decides everything, and a run that was stopped goes on bit for bit."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .data import SequenceSource
from .elbo import Bound, Objective, sequence_bound
from .model import FlowFactorVAE
from .posterior import Temperature


@dataclasses.dataclass(frozen=True)
class Options:
    """How a model is trained; the defaults are for the small MLP on a CPU.

    The paper's: Adam, 1e-4 throughout, no schedule and no clipping, batch 128, 90,000
    iterations on MNIST (`Options(90_000, 128, 1e-4, schedule="constant", clip=None)`).

    Args:
        iterations: Number of updates in all.
        batch: Sequences an update, over all processes; a multiple of their number.
        learning_rate: Of Adam; with "cosine" it falls to 0 after a warm-up of 2 %.
        clip: Largest norm of the gradient; None for none.
        supervised: Whether the flow of each sequence is known.
        one_flow: Whether a batch has one flow in common, as in the released code.
        frozen: Train the flow and the prior only, on a given encoder and decoder.
        half: bfloat16 in the networks over pixels; the flow stays in full precision.
        seed: Of the rows, the flows and all noise.
    """

    iterations: int
    batch: int = 64
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    clip: float | None = 50.0
    objective: Objective = dataclasses.field(default_factory=Objective)
    supervised: bool = True
    temperature: Temperature = dataclasses.field(default_factory=Temperature)
    one_flow: bool = False
    frozen: bool = False
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be 'cosine' or 'constant', got {self.schedule!r}")


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is said after each update."""

    iteration: int
    iterations: int
    seconds: float
    bound: Bound
    gradient_norm: float


class _Loss(nn.Module):
    """The bound as a module's forward, which is what DistributedDataParallel needs."""

    def __init__(self, model: FlowFactorVAE, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(
        self,
        frames: Tensor,
        k: Tensor | None,
        noise: Tensor,
        temperature: float,
        uniform: Tensor,
    ) -> Bound:
        return sequence_bound(
            self.model,
            frames,
            k,
            self.objective,
            noise=noise,
            temperature=temperature,
            uniform=uniform,
        )


class Trainer:
    """Updates a model on sequences; `state_dict` holds all that the rest of a run depends on.

    Under `torch.distributed` each process takes its share of every batch and draws what it
    needs from the same stream, so that any number of processes makes the same updates up to
    rounding. (The balance of inferred flows is each process's own.)

    Args:
        model: Trained in place.
        source: Where the sequences come from.
        options: See there.
    """

    def __init__(self, model: FlowFactorVAE, source: SequenceSource, options: Options) -> None:
        if source.names and len(source.names) != model.flow.flows:
            raise ValueError(
                f"model must have one flow for each of {source.names}, got {model.flow.flows}"
            )
        if not options.supervised and model.classifier is None:
            raise ValueError("model must have a classifier to be trained without labels")
        self.model = model
        self.source = source
        self.options = options
        self.rank, self.world = 0, 1
        if dist.is_available() and dist.is_initialized():
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
        if options.batch % self.world:
            raise ValueError(f"batch must be a multiple of {self.world}, got {options.batch}")
        for part in (model.encoder, model.decoder):
            part.requires_grad_(not options.frozen)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=options.learning_rate, fused=True)
        self.iteration = 0
        # One generator for what is drawn here; the bound's own draws follow the global one.
        self.generator = torch.Generator().manual_seed(options.seed)
        loss: nn.Module = _Loss(model, options.objective)
        if self.world > 1:
            # Potentials' last biases and, with one flow a batch, other flows get no gradient.
            loss = DistributedDataParallel(loss, find_unused_parameters=True)
        self._loss = loss

    def learning_rate(self) -> float:
        """Of the next update."""
        full, total = self.options.learning_rate, self.options.iterations
        if self.options.schedule == "constant":
            return full
        warm = max(1, total // 50)
        if self.iteration < warm:
            return full * (self.iteration + 1) / warm
        return full * 0.5 * (1 + math.cos(math.pi * (self.iteration - warm) / (total - warm)))

    def run(
        self, until: int | None = None, report: Callable[[Progress], object] | None = None
    ) -> None:
        """Updates until `until` of them have been made in all; `iterations` by default."""
        for progress in self.updates(until):
            if report is not None:
                report(progress)

    def updates(self, until: int | None = None) -> Iterator[Progress]:
        """`run`, one update at a time."""
        until = self.options.iterations if until is None else until
        start = time.perf_counter()
        self.model.train()
        self.model.autocast = torch.bfloat16 if self.options.half else None
        try:
            while self.iteration < until:
                bound, norm = self._update()
                self.iteration += 1
                yield Progress(
                    self.iteration,
                    self.options.iterations,
                    time.perf_counter() - start,
                    bound,
                    norm,
                )
        finally:
            self.model.autocast = None
            self.model.eval()

    def _update(self) -> tuple[Bound, float]:
        frames, k, noise, uniform, seed = self._batch()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        # What the bound draws itself (a subset of frames, random signs) is the same everywhere.
        with torch.random.fork_rng(devices=_devices(frames)):
            torch.manual_seed(seed)
            temperature = self.options.temperature(self.iteration)
            bound = self._loss(frames, k, noise, temperature, uniform)
        bound.loss.backward()
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.options.clip or math.inf, error_if_nonfinite=False
        )
        if not bool(norm.isfinite()):
            raise FloatingPointError(
                f"iteration {self.iteration}: the gradient is not finite (loss "
                f"{bound.loss.item():.4g})"
            )
        self.optimizer.step()
        return bound, norm.item()

    def _batch(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, int]:
        """This process's share of the next batch, and of its noise."""
        B, g = self.options.batch, self.generator
        flows, n = self.model.flow.flows, self.model.flow.dim
        rows = torch.randint(self.source.size, (B,), generator=g)
        k = torch.randint(flows, (1 if self.options.one_flow else B,), generator=g).expand(B)
        noise = torch.randn(B, n, generator=g)
        # 0 has no logarithm; the smallest float32 stands for it.
        uniform = torch.rand(B, flows, generator=g).clamp_min(torch.finfo(torch.float32).tiny)
        seed = int(torch.randint(2**62, (), generator=g))
        mine = slice(self.rank, None, self.world)
        frames = self.source.frames(rows[mine], k[mine])
        like = next(self.model.parameters())
        frames = frames.to(like)
        known = k[mine].to(like.device) if self.options.supervised else None
        return frames, known, noise[mine].to(like), uniform[mine].to(like), seed

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, generator and position: what `load_state_dict` goes on from."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "iteration": self.iteration,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict` of a trainer with the same model, source and options."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.iteration = state["iteration"]


def _devices(frames: Float[Tensor, "..."]) -> list[torch.device]:
    return [frames.device] if frames.device.type == "cuda" else []
