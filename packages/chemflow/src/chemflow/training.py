"""Training of whatever has a loss: one seed decides everything, a stopped run goes on bit for bit.

The order of the rows and all noise are functions of (seed, update), so that weights, the moments
of the optimiser and the number of the update are all that a run consists of.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from .checkpoint import read_checkpoint, write_checkpoint

FORMAT = "chemflow run 1"
FILE = "run.safetensors"


class Losses(NamedTuple):
    """What is minimised, and its parts by name."""

    loss: Tensor
    parts: dict[str, Tensor]


class Task(nn.Module):
    """Something to train: its parameters that require a gradient, on rows 0 … size - 1."""

    size: int

    def loss(self, rows: Int64[Tensor, " b"], generator: torch.Generator, share: float) -> Losses:
        """Of some rows; noise comes from the generator, `share` of all updates is done."""
        raise NotImplementedError

    def settings(self) -> dict[str, object]:
        """Plain values that a run cannot go on with if they are others."""
        return {}


@dataclasses.dataclass(frozen=True)
class Options:
    """AdamW and its schedule.

    Args:
        epochs: Passes over the rows; may be a fraction.
        batch: Rows an update; a last incomplete batch of an epoch is left out.
        learning_rate: The highest.
        weight_decay: Of AdamW.
        schedule: "cosine" to 0 after a warm-up of 2 %, "restarts" as ChemFlow's (after 10, 30,
            70, 150 … epochs, to 1e-6), "constant".
        clip: Largest norm of the gradient; None for none.
        average: Decay of an exponential average of the weights, which is what training leaves; 0
            for the last weights.
        seed: Of rows and noise.
    """

    epochs: float | int
    batch: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "restarts", "constant"] = "cosine"
    clip: float | None = None
    average: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.epochs > 0 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError(f"epochs, batch and learning_rate must be positive, got {self}")
        if self.schedule not in ("cosine", "restarts", "constant"):
            raise ValueError(
                f"schedule must be 'cosine', 'restarts' or 'constant', got {self.schedule!r}"
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be in [0, 1), got {self.average}")


class Progress(NamedTuple):
    """After an update."""

    update: int
    updates: int
    seconds: float
    loss: float
    parts: dict[str, float]


class Trainer:
    """Updates the parameters of a task.

    Args:
        task: Trained in place.
        options: See there.
        folder: Where the run is kept; one that is there already is gone on with. None keeps none.
        save_every: Seconds between two writes.

    Raises ValueError if the folder holds a run of other options or settings, naming both.
    """

    def __init__(
        self,
        task: Task,
        options: Options,
        folder: Path | None = None,
        *,
        save_every: float = 60.0,
    ) -> None:
        if task.size < 1:
            raise ValueError(f"task must have at least one row, got {task.size}")
        self.task = task
        self.options = options
        self.folder = folder
        self.save_every = save_every
        self.batch = min(options.batch, task.size)
        self.per_epoch = task.size // self.batch
        self.updates = max(1, round(options.epochs * self.per_epoch))
        self.update = 0
        self.named = {n: p for n, p in task.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.named.values(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.averages = (
            {n: p.detach().clone() for n, p in self.named.items()} if options.average else {}
        )
        self._order: tuple[int, Tensor] | None = None
        self._whole = True
        if folder is not None and (folder / FILE).exists():
            self._read(folder / FILE)

    def learning_rate(self) -> float:
        """Of the next update."""
        full, done = self.options.learning_rate, self.update / self.updates
        if self.options.schedule == "constant":
            return full
        if self.options.schedule == "cosine":
            warm = 0.02
            if done < warm:
                return full * (self.update + 1) / (warm * self.updates + 1)
            return full * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
        epoch, length = self.update // self.per_epoch, 10
        while epoch >= length:
            epoch, length = epoch - length, 2 * length
        return 1e-6 + (full - 1e-6) * 0.5 * (1 + math.cos(math.pi * epoch / length))

    def run(self, report: Callable[[Progress], object] | None = None) -> Task:
        """All updates that are left; the task in evaluation mode, with averaged weights if asked.

        Interrupted between two updates, it writes the run first; within one, what was written
        last stands, as weights and statistics are then half of one update and half of another.
        """
        try:
            for progress in self.steps():
                if report is not None:
                    report(progress)
        finally:
            if self.folder is not None and self._whole:
                self._write(self.folder / FILE)
        with torch.no_grad():
            for name, average in self.averages.items():
                self.named[name].copy_(average)
        return self.task

    def steps(self) -> Iterator[Progress]:
        """One update at a time."""
        begin = written = time.monotonic()
        self.task.train()
        try:
            while self.update < self.updates:
                self._whole = False
                losses = self._step()
                self.update += 1
                self._whole = True
                now = time.monotonic()
                if self.folder is not None and now - written > self.save_every:
                    self._write(self.folder / FILE)
                    written = now
                yield Progress(
                    self.update,
                    self.updates,
                    now - begin,
                    losses.loss.item(),
                    {name: part.item() for name, part in losses.parts.items()},
                )
        finally:
            self.task.eval()

    def _step(self) -> Losses:
        epoch, place = divmod(self.update, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, torch.randperm(self.task.size, generator=self._generator(1, epoch))
        rows = self._order[1][place * self.batch : (place + 1) * self.batch]
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.task.loss(rows, self._generator(0, self.update), self.update / self.updates)
        losses.loss.backward()
        parameters = list(self.named.values())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not bool(norm.isfinite()):
            raise FloatingPointError(
                f"update {self.update}: the gradient is not finite (loss {losses.loss.item():.4g})"
            )
        if self.options.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.options.clip, norm)
        self.optimizer.step()
        with torch.no_grad():
            for name, average in self.averages.items():
                # The first updates count fully: an average that starts slow is of noise.
                decay = min(self.options.average, (1 + self.update) / (10 + self.update))
                average.lerp_(self.named[name], 1 - decay)
        return losses

    def _generator(self, stream: int, number: int) -> torch.Generator:
        seed = (self.options.seed << 32) ^ (stream << 31) ^ number
        return torch.Generator().manual_seed(seed)

    def _about(self) -> dict[str, object]:
        return {
            "options": dataclasses.asdict(self.options),
            "size": self.task.size,
            "task": self.task.settings(),
        }

    def _write(self, path: Path) -> None:
        tensors = {f"task.{n}": p for n, p in self.task.state_dict().items()}
        tensors |= {f"average.{n}": p for n, p in self.averages.items()}
        for name, parameter in self.named.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        write_checkpoint(path, FORMAT, self._about() | {"update": self.update}, tensors)

    def _read(self, path: Path) -> None:
        about, tensors = read_checkpoint(path, FORMAT)
        self.update = about.pop("update")
        if about != json.loads(json.dumps(self._about())):
            raise ValueError(f"{path}: expected a run of {self._about()}, got {about}")
        groups: dict[str, dict[str, Tensor]] = {"task": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            groups[kind][rest] = tensor
        self.task.load_state_dict(groups["task"])
        for name, average in self.averages.items():
            average.copy_(groups["average"][name])
        for name, tensor in groups["optimizer"].items():
            key, _, owner = name.partition(".")
            parameter = self.named[owner]
            kept = tensor if key == "step" else tensor.to(parameter.device)
            self.optimizer.state[parameter][key] = kept
