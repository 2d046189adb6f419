"""What compression needs beside the model does not grow with its depth."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import asvd
import pytest
import torch
from torch import Tensor, nn

WIDTH, INNER, TOKENS = 192, 1024, 512


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        mixed = torch.tril(mask) @ h / h.shape[1]
        return h + self.down(torch.relu(self.up(mixed)))


class Model(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(depth)])
        self.head = nn.Linear(WIDTH, 16)

    def forward(self, ids: Tensor) -> SimpleNamespace:
        h = self.embedding(ids)
        mask = torch.ones(ids.shape[1], ids.shape[1])
        for block in self.blocks:
            h = block(h, mask)
        return SimpleNamespace(logits=self.head(h))


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise AssertionError(name)


def measure(depth: int, folder: str) -> None:
    """Prints the peak above the loaded model of a compression with its work in the folder."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # A first small run loads the libraries of LAPACK and of the file format.
    asvd.compress(
        Model(1), torch.randint(0, 16, (1, 8)), 0.6, "sequential", layers="blocks.*",
        run_folder=f"{folder}/first",
    )  # fmt: skip
    model = Model(depth)
    calibration = torch.randint(0, 16, (4, TOKENS))
    loaded = resident("VmRSS")
    # Resets the peak (man proc_pid_clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    asvd.compress(
        model, calibration, 0.6, "sequential", layers="blocks.*", run_folder=f"{folder}/run"
    )
    print(json.dumps(resident("VmHWM") - loaded))


@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read in /proc")
def test_peak_does_not_grow_with_depth(tmp_path: Path) -> None:
    peaks = {}
    # glibc takes freed large blocks into its heap and keeps them in pieces, up to 50 MB here; with
    # fixed thresholds every freed tensor goes back to the system and the peak is what is in use.
    fixed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for depth in (3, 12):
        folder = tmp_path / str(depth)
        folder.mkdir()
        command = [sys.executable, __file__, str(depth), str(folder)]
        found = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=400, env=os.environ | fixed
        )
        peaks[depth] = json.loads(found.stdout)
    # One block's Gram matrices in float64 take 8.7 MB, its hidden states 1.6 MB, its weights
    # 1.6 MB: kept for nine more blocks any of them shows as 14 MB or more.
    assert peaks[12] - peaks[3] < 1e7, peaks


if __name__ == "__main__":
    measure(int(sys.argv[1]), sys.argv[2])
