"""One of three processes dies or stalls: the others say which, in time, and asvd goes on later."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

WORLD, LOST = 3, 2
TIMEOUT = 8.0
"""Of the process group, in seconds: how long a process that is silent is waited for."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return h + torch.cumsum(torch.tanh(self.key(h)) * self.value(h), 1) / h.shape[1]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 8)
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.head = nn.Linear(8, 13)

    def forward(self, ids: Tensor) -> SimpleNamespace:
        h = self.embedding(ids)
        for block in self.blocks:
            h = block(h)
        return SimpleNamespace(logits=self.head(h))


def calibrate(folder: str) -> Tensor:
    """asvd: moments summed over processes, layers decomposed by one each."""
    import asvd

    torch.manual_seed(0)
    model = Model().double().eval()
    ids = torch.randint(0, 13, (6, 10), generator=torch.Generator().manual_seed(1))
    asvd.compress(model, ids, 0.7, layers="blocks.*", run_folder=f"{folder}/run")
    with torch.no_grad():
        return model(ids).logits


class Sum:
    def fit(self, batches: Any) -> None:
        pass

    def score(self, *args: Any, **_: Any) -> Tensor:
        return args[0].sum(1)


def evaluate(_folder: str) -> Tensor:
    """rankfeat: scores gathered from processes."""
    import rankfeat

    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(dist.get_rank()))
    sets: dict[str, Any] = {name: [x + i] for i, name in enumerate("abc")}
    found = rankfeat.evaluate(Sum(), [x], sets, resamples=2, process_group=dist.group.WORLD)
    return found.id_scores["Sum"]


def normalise(_folder: str) -> Tensor:
    """LieBN: statistics over processes, in a few steps of training."""
    from liebn import AffineInvariantGroup, SyncLieBatchNorm
    from linalg_kernels.testing import random_spd

    layer = SyncLieBatchNorm(AffineInvariantGroup(), 3, dtype=torch.float64)
    for step in range(4):
        generator = torch.Generator().manual_seed(10 * step + dist.get_rank())
        layer(random_spd(4, 3, generator=generator)).square().sum().backward()
    return layer.running_mean


TASKS: dict[str, Callable[[str], Tensor]] = {
    "calibrate": calibrate,
    "evaluate": evaluate,
    "normalise": normalise,
}


def work(rank: int, folder: str, task: str, fault: str, at: int) -> None:
    """The task in one process; the lost one dies or stalls before its collective number `at`."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD,
        timeout=timedelta(seconds=TIMEOUT),
    )  # fmt: skip
    if rank == LOST and fault != "none":
        left = at

        def failing(collective: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    Path(folder, "lost").touch()
                    os.kill(os.getpid(), signal.SIGKILL if fault == "dies" else signal.SIGSTOP)
                return collective(*given, **named)

            return call

        for name in ("all_reduce", "all_gather", "broadcast"):
            setattr(dist, name, failing(getattr(dist, name)))
    try:
        torch.save(TASKS[task](folder), f"{folder}/found-{rank}.pt")
    except RuntimeError:
        Path(folder, f"ended-{rank}").touch()
        raise
    dist.barrier()
    dist.destroy_process_group()


def run(folder: Path, task: str, fault: str = "none", at: int = 1) -> list[tuple[int, str, float]]:
    """Exit status, what was printed, and the seconds from the fault to the error, of each process.

    The seconds are 0 where there was none.
    """
    for left in (*folder.glob("meet"), *folder.glob("lost"), *folder.glob("ended-*")):
        left.unlink()
    given = [str(folder), task, fault, str(at)]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), *given], stderr=subprocess.PIPE, text=True
        )
        for rank in range(WORLD)
    ]
    found = []
    try:
        for rank, process in enumerate(processes):
            if rank == LOST and fault == "stalls":
                process.kill()
            told = process.communicate(timeout=240)[1]
            lost, ended = folder / "lost", folder / f"ended-{rank}"
            seconds = ended.stat().st_mtime - lost.stat().st_mtime if ended.exists() else 0.0
            found.append((process.returncode, told, seconds))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return found


def check(task: str, fault: str, at: int, folder: Path) -> None:
    for rank, (status, told, seconds) in enumerate(run(folder, task, fault, at)):
        if rank == LOST:
            assert status == -signal.SIGKILL
            continue
        assert status == 1, told
        last = told.strip().splitlines()[-1]
        assert "LostProcessError" in last, told
        # Who has not noticed yet may be named too.
        named = re.search(rf"process ([\d, ]+) of {WORLD} died or does not answer", last)
        assert named is not None, told
        assert str(LOST) in named[1], told
        # A process that is gone is noticed at once, one that is silent after the timeout; then
        # the others have half as long to say that they are there. The rest is for a slow machine.
        assert seconds < 1.5 * TIMEOUT + 4, told


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "task",
    ["evaluate", *(pytest.param(t, marks=pytest.mark.slow) for t in ("calibrate", "normalise"))],
)
def test_a_dead_process_is_named(task: str, tmp_path: Path) -> None:
    check(task, "dies", 3, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", TASKS)
def test_a_silent_process_is_named(task: str, tmp_path: Path) -> None:
    check(task, "stalls", 4, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_calibration_goes_on(tmp_path: Path) -> None:
    """Whichever collective the process died in, also between what others kept and it did not."""
    (tmp_path / "whole").mkdir()
    assert [status for status, *_ in run(tmp_path / "whole", "calibrate")] == [0] * WORLD
    expected = torch.load(tmp_path / "whole" / "found-0.pt")
    for at in (2, 17, 44):
        folder = tmp_path / str(at)
        folder.mkdir()
        check("calibrate", "dies", at, folder)
        for status, told, _ in run(folder, "calibrate"):
            assert status == 0, (at, told)
        for rank in range(WORLD):
            assert torch.equal(torch.load(folder / f"found-{rank}.pt"), expected), (at, rank)


if __name__ == "__main__":
    work(int(sys.argv[1]), *sys.argv[2:5], at=int(sys.argv[5]))
