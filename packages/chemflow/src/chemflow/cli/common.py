"""Options and progress that the commands share."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from chemflow.files import read_smiles

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False)

Out = Annotated[Path, typer.Option(help="Folder for the results; an interrupted run goes on.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]
Batch = Annotated[int, typer.Option(min=1, help="Rows that walk together.")]


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_of(name: str) -> torch.device:
    """Raises ValueError for a device that is not there."""
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device must be one that PyTorch has here, got {name!r}") from error
    return found


@contextmanager
def bar(what: str, unit: str = "") -> Generator[Callable[[int, int | None], None]]:
    """A line with a bar, for `report(done, of)`; nothing where no terminal is."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, of: shown.update(task, completed=done, total=of)


def source(text: str, column: str | None = None) -> Iterator[str]:
    """SMILES of a file, or of a split of MOSES as moses:train, moses:test, moses:test_scaffolds.

    Raises ValueError for another split and where the wheel of MOSES is not installed.
    """
    kind, colon, split = text.partition(":")
    if kind != "moses" or not colon:
        return read_smiles(text, column)
    if split not in ("train", "test", "test_scaffolds"):
        raise ValueError(f"moses: must be of train, test or test_scaffolds, got {split!r}")
    # Its file is read; the package itself is not imported, and needs none of its requirements.
    spec = find_spec("moses")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "dataset", "data", f"{split}.csv.gz")
        if path.is_file():
            return read_smiles(path, "SMILES")
    raise ValueError(f"{text} is not here: pip install --no-deps molsets")


@contextmanager
def processes(device: str) -> Generator[bool]:
    """Joins the others if torchrun started this one. Whether this one speaks."""
    if not dist.is_torchelastic_launched():
        yield True
        return
    dist.init_process_group("nccl" if device_of(device).type == "cuda" else "gloo")
    try:
        yield dist.get_rank() == 0
    finally:
        dist.destroy_process_group()
