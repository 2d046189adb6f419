"""Training as in the paper, on one process or many (extra `training`):

    torchrun --nproc-per-node 4 -m gcp_riemann.train cub --data DIR --out DIR --head pow-emlr

SGD with momentum 0.9, weight decay 1e-4, gradients clipped to norm 5, learning rate times 0.1
at each of `decay_at`; the classifier's learning rate is `factor` times that of the rest. A run
that is started again with the same --out goes on after its last whole epoch. The paper has no
validation split; accuracies are of the test split after each epoch, written to log.jsonl.

Differences to the official scripts: one setting for every head (there PowTMLR has others on
CUB and Cars), test images are not flipped, batch normalisation sees the batch of its own
process. Settings of ImageNet are not in their repository; those here are of its predecessor
DifferentiableSVD.
"""

import argparse
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from gcp_riemann.data import Name, View, load
from gcp_riemann.files import load_tensors
from gcp_riemann.network import HEADS, GCPNetwork, gcp_head


@dataclass(frozen=True)
class Config:
    """One training run. `batch` is over all processes; `dim` None keeps the backbone's channels."""

    data: Name
    classes: int
    backbone: str
    view: View
    epochs: int
    decay_at: tuple[int, ...]
    lr: float
    batch: int
    factor: float
    dim: int | None = 256
    weight_decay: float = 1e-4


CONFIGS = {
    "imagenet": Config(
        "imagenet", 1000, "resnet18", View(256, 224, random_crop=True),
        epochs=60, decay_at=(30, 45), lr=0.0794, batch=256, factor=1.0,
    ),
    "aircraft": Config(
        "aircraft", 100, "resnet50", View((512, 512), 448),
        epochs=50, decay_at=(21,), lr=5e-3, batch=8, factor=5.0,
    ),
    "cub": Config(
        "cub", 200, "resnet50", View(448, 448),
        epochs=100, decay_at=(50,), lr=5e-2, batch=10, factor=10.0,
    ),
    "cars": Config(
        "cars", 196, "resnet50", View((448, 448), 448),
        epochs=100, decay_at=(50,), lr=5e-2, batch=10, factor=10.0,
    ),
    "generated": Config(
        "generated", 4, "resnet18", View(32, 32),
        epochs=2, decay_at=(1,), lr=1e-2, batch=16, factor=1.0, dim=8,
    ),
}  # fmt: skip


def build(config: Config, head: str, options: dict[str, Any]) -> GCPNetwork:
    """The network, from scratch as in the paper. ValueError for an unknown torchvision model."""
    from torchvision.models import get_model

    backbone = get_model(config.backbone, weights=None, num_classes=config.classes)
    return gcp_head(
        backbone, config.classes, config.dim, head, image_size=config.view.crop, **options
    )


def optimiser(network: GCPNetwork, config: Config) -> torch.optim.SGD:
    """SGD with `factor` times the learning rate for the classifier."""
    classifier = {id(p) for p in network.head.parameters()}
    learned = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if id(p) not in classifier]},
        {
            "params": [p for p in learned if id(p) in classifier],
            "lr": config.factor * config.lr,
        },
    ]
    return torch.optim.SGD(groups, config.lr, momentum=0.9, weight_decay=config.weight_decay)


def accuracy(network: nn.Module, loader: DataLoader, device: torch.device) -> dict[str, float]:
    """Top-1 and top-5 in per cent over all processes, for one view and for image and mirror image.

    Each process counts its own part of the images, whatever remainder it has.
    """
    network.eval()
    counts = torch.zeros(5, dtype=torch.float64, device=device)
    with torch.no_grad():
        for x, y in loader:
            x, y = x.to(device), y.to(device)
            plain = network(x)
            both = plain.softmax(-1) + network(x.flip(-1)).softmax(-1)
            for place, scores in enumerate((plain, both)):
                top = scores.topk(min(5, scores.shape[-1])).indices == y[:, None]
                counts[2 * place] += top[:, 0].sum()
                counts[2 * place + 1] += top.sum()
            counts[4] += len(y)
    if dist.is_initialized():
        dist.all_reduce(counts)
    names = ("top1", "top5", "top1_flip", "top5_flip")
    return {
        name: float(100 * count / counts[4]) for name, count in zip(names, counts, strict=False)
    }


def part_of(data: Any, rank: int, world: int) -> torch.utils.data.Subset:
    """Every image exactly once among the processes, none repeated to make parts equal."""
    return torch.utils.data.Subset(data, range(rank, len(data), world))


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a whole file or none. Raises OSError where it cannot be written."""
    half = path.with_suffix(".part")
    try:
        torch.save(state, half)
        half.replace(path)
    except RuntimeError as error:
        half.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error}") from error


def device_of(rank: int) -> torch.device:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `train` wrote after an epoch. Raises ValueError naming any other file."""
    try:
        state = load_tensors(path, device)
    except FileNotFoundError:
        raise
    except Exception as error:
        # A changed file makes torch.load fail in any way.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a whole checkpoint: {reason}") from error
    needed = {"head", "network", "optimiser", "schedule", "epoch", "log"}
    if not isinstance(state, dict) or not needed <= state.keys():
        raise ValueError(f"{path}: a checkpoint must have {sorted(needed)}")
    return state


def train(
    config: Config,
    head: str,
    data: Path,
    out: Path,
    *,
    seed: int = 42,
    workers: int = 4,
    options: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Trains or goes on; returns the log, one entry an epoch. Every process calls it."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    if config.batch % world:
        raise ValueError(f"batch must be a multiple of {world} processes, got {config.batch}")
    device = device_of(int(os.environ.get("LOCAL_RANK", "0")))
    random.seed(seed)
    torch.manual_seed(seed)
    network = build(config, head, options or {}).to(device)
    steps = optimiser(network, config)
    schedule = torch.optim.lr_scheduler.MultiStepLR(steps, list(config.decay_at), gamma=0.1)
    checkpoint, log = out / "checkpoint.pt", []
    first = 0
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, device)
        if state["head"] != head:
            raise ValueError(f"out holds a run of head {state['head']!r}, got head {head!r}")
        network.load_state_dict(state["network"])
        steps.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first, log = state["epoch"], state["log"]
    model = DistributedDataParallel(network) if world > 1 else network
    images = load(config.data, data, config.view, config.classes, train=True)
    sampler = DistributedSampler(images, world, rank, shuffle=True, seed=seed, drop_last=True)
    loader = DataLoader(
        images, config.batch // world, sampler=sampler, num_workers=workers, drop_last=True
    )
    test = part_of(load(config.data, data, config.view, config.classes, train=False), rank, world)
    test_loader = DataLoader(test, config.batch // world, num_workers=workers)
    for epoch in range(first, config.epochs):
        # An epoch draws the same numbers whether the run was interrupted before it or not.
        torch.manual_seed(seed + world * epoch + rank)
        sampler.set_epoch(epoch)
        model.train()
        total = torch.zeros(2, dtype=torch.float64, device=device)
        for x, y in loader:
            loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
            steps.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            steps.step()
            total += torch.stack([loss.detach().double() * len(y), _count(y, device)])
        if world > 1:
            dist.all_reduce(total)
        schedule.step()
        entry = {"epoch": epoch + 1, "loss": float(total[0] / total[1])}
        entry |= accuracy(network, test_loader, device)
        log.append(entry)
        if rank == 0:
            out.mkdir(parents=True, exist_ok=True)
            state = {
                "network": network.state_dict(),
                "optimiser": steps.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
                "log": log,
                "head": head,
            }
            save(checkpoint, state)
            lines = "".join(json.dumps(line) + "\n" for line in log)
            half = out / "log.part"
            half.write_text(lines, "utf-8")
            half.replace(out / "log.jsonl")
            print(json.dumps(entry), flush=True)
    return log


def _count(y: Tensor, device: torch.device) -> Tensor:
    return torch.tensor(len(y), dtype=torch.float64, device=device)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: python -m gcp_riemann.train, or torchrun -m gcp_riemann.train."""
    parser = argparse.ArgumentParser(prog="gcp_riemann.train", description=__doc__)
    parser.add_argument("config", choices=CONFIGS)
    parser.add_argument("--data", type=Path, default=Path(), help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--head", choices=HEADS, default="pow-emlr")
    parser.add_argument("--epochs", type=int, help="fewer or more than the configuration has")
    parser.add_argument("--lr", type=float, help="another learning rate")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--workers", type=int, default=4, help="loading processes")
    chosen = parser.parse_args(arguments)
    config = CONFIGS[chosen.config]
    changes = {name: getattr(chosen, name) for name in ("epochs", "lr")}
    config = replace(config, **{k: v for k, v in changes.items() if v is not None})
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        train(
            config, chosen.head, chosen.data, chosen.out, seed=chosen.seed, workers=chosen.workers
        )
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
