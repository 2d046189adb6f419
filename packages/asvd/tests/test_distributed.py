"""Calibration and decomposition shared by processes give the model of one process."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import asvd
import pytest
import torch
import torch.distributed as dist
from asvd.spectra import Method
from torch import Tensor, nn

METHODS: tuple[Method, ...] = ("asvd", "whiten", "sequential")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, h: Tensor) -> Tensor:
        h = h + torch.cumsum(torch.tanh(self.key(h)) * self.value(h), 1) / h.shape[1]
        return h + self.down(torch.relu(self.up(h)))


class Model(nn.Module):
    """A causal model that needs no transformers, whose import takes each process seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(31, 16)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(16, 31)

    def forward(self, ids: Tensor) -> SimpleNamespace:
        h = self.embedding(ids)
        for block in self.blocks:
            h = block(h)
        return SimpleNamespace(logits=self.head(h))


def tokens() -> Tensor:
    return torch.randint(0, 31, (6, 12), generator=torch.Generator().manual_seed(1))


def compressed(method: Method) -> Tensor:
    torch.manual_seed(0)
    model = Model().double().eval()
    asvd.compress(model, tokens(), 0.7, method, layers="blocks.*")
    with torch.no_grad():
        return model(tokens()).logits


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    for method in METHODS:
        torch.save(compressed(method), Path(folder) / f"{method}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", [2, 3])
def test_equal_to_one_process(world: int, tmp_path: Path) -> None:
    command = [sys.executable, __file__]
    processes = [
        subprocess.Popen([*command, str(rank), str(world), str(tmp_path)]) for rank in range(world)
    ]
    try:
        assert [process.wait(timeout=800) for process in processes] == [0] * world
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for method in METHODS:
        expected = compressed(method)
        for rank in range(world):
            found = torch.load(tmp_path / f"{method}-{rank}.pt", weights_only=True)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
