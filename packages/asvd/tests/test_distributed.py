"""Calibration and decomposition shared by processes give the model of one process."""

import subprocess
import sys
from pathlib import Path

import asvd
import pytest
import torch
import torch.distributed as dist
from asvd.spectra import Method
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

CONFIGURATION = LlamaConfig(
    vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
)  # fmt: skip


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(CONFIGURATION).double().eval()


def tokens() -> Tensor:
    return torch.randint(0, 31, (6, 12), generator=torch.Generator().manual_seed(1))


def compressed(method: Method) -> Tensor:
    found = asvd.compress(model(), tokens(), 0.7, method)
    with torch.no_grad():
        return found(tokens()).logits


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    for method in ("asvd", "whiten", "sequential"):
        torch.save(compressed(method), Path(folder) / f"{method}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_equal_to_one_process(world: int, tmp_path: Path) -> None:
    command = [sys.executable, __file__]
    processes = [
        subprocess.Popen([*command, str(rank), str(world), str(tmp_path)]) for rank in range(world)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * world
    for method in ("asvd", "whiten", "sequential"):
        expected = compressed(method)
        for rank in range(world):
            found = torch.load(tmp_path / f"{method}-{rank}.pt", weights_only=True)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
