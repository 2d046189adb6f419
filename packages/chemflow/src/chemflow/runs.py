"""Long work in batches: over processes of torch.distributed, kept in a folder, gone on from there.

A batch is the same rows whatever the number of processes, so that one process and many give the
same results to the bit. Each batch is a file that is whole or absent, and says if it was changed.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float

from chemflow.files import read_json, write_text

Json = dict[str, Any]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(path: Path) -> Json:
    """A batch as it was written. Raises ValueError naming a file that was changed since then."""
    told = read_json(path, "sha256", "batch")
    if _digest(json.dumps(told["batch"])) != told["sha256"]:
        raise ValueError(
            f"{path} was changed since it was written; without it its batch is done anew"
        )
    return told["batch"]


def plain(array: Float[np.ndarray, "..."]) -> Any:
    """Nested lists with None for what is not finite."""
    made = array.tolist()

    def clean(value: Any) -> Any:
        if isinstance(value, list):
            return [clean(one) for one in value]
        return value if math.isfinite(value) else None

    return clean(made)


def fingerprint(thing: object) -> str:
    """A name for a model or navigator that changes with its weights and its settings.

    The digest of the state dictionary where there is one, else its `repr`, which must then state
    its settings. Addresses in it are left out; a bare `repr` is the name of the type.
    """
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if isinstance(thing, torch.nn.Module):
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(thing.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            data = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(data.view(torch.uint8).numpy() if data.numel() else b"")
        return f"{kind} {digest.hexdigest()}"
    if type(thing).__repr__ is object.__repr__:
        return kind
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


@runtime_checkable
class Fold(Protocol):
    """What keeps the best of many batches in the room of one."""

    def take(self, part: Json) -> None:
        """Takes lists out of a part, leaving them empty."""
        ...

    def lists(self) -> Json:
        """What is left of them all."""
        ...


class Run:
    """A task's folder, its settings, and its part of the batches.

    Args:
        settings: What the results depend on. A folder with other settings is refused.
        folder: None keeps nothing.
        group: Processes that share the work, each with the same arguments; None is the default
            group if torch.distributed is started, else this process alone.
    """

    def __init__(
        self,
        settings: Json,
        folder: str | Path | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.settings = settings
        self.folder = None if folder is None else Path(folder)
        self.group = group
        many = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank(group) if many else 0
        self.world = dist.get_world_size(group) if many else 1
        if self.folder is None:
            return
        path = self.folder / "run.json"
        if path.is_file():
            kept = read_json(path)
            differing = [
                key
                for key in sorted(set(kept) | set(settings))
                if kept.get(key) != json.loads(json.dumps(settings.get(key)))
            ]
            if differing:
                key = differing[0]
                raise ValueError(
                    f"{self.folder} holds another run: {key} is {kept.get(key)!r} there and "
                    f"{settings.get(key)!r} here"
                )
        elif self.rank == 0:
            write_text(path, json.dumps(settings, indent=1))

    def share(self, size: int, batch: int) -> range:
        """The numbers of this process's batches. Raises ValueError for no rows in a batch."""
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        return range(-(-size // batch))[self.rank :: self.world]

    def batches(
        self,
        size: int,
        batch: int,
        work: Callable[[int, int, int], Json],
        done: Callable[[int, int], None] | None = None,
        fold: "Fold | None" = None,
    ) -> list[Json]:
        """`work(number, first, stop)` of every batch of `batch` rows, in order, on every process.

        What it returns must be plain JSON. `done(batches, of)` hears of finished batches of this
        process. `fold` takes out of each what need not be kept batch by batch.
        """
        mine: dict[int, Json] = {}
        share = self.share(size, batch)
        for place, number in enumerate(share, 1):
            first, stop = number * batch, min((number + 1) * batch, size)
            path = None if self.folder is None else self.folder / f"batch-{number:06d}.json"
            if path is not None and path.is_file():
                mine[number] = _kept(path)
            else:
                # Through JSON in any case, so that a resumed run has the very same values.
                text = json.dumps(work(number, first, stop), allow_nan=False)
                mine[number] = json.loads(text)
                if path is not None:
                    write_text(path, json.dumps({"sha256": _digest(text), "batch": mine[number]}))
            if fold is not None:
                fold.take(mine[number])
            if done is not None:
                done(place, len(share))
        if fold is not None and mine:
            mine[share[-1]].update(fold.lists())
        if self.world > 1:
            gathered: list[dict[int, Json] | None] = [None] * self.world
            dist.all_gather_object(gathered, mine, group=self.group)
            mine = {number: one for part in gathered if part for number, one in part.items()}
        return [mine[number] for number in sorted(mine)]
