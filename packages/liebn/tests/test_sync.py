"""Statistics over processes, on the CPU by gloo."""

import copy
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from liebn import (
    AffineInvariantGroup,
    DomainLieBatchNorm,
    LieBatchNorm,
    LieGroup,
    LogCholeskyGroup,
    RotationGroup,
    SyncLieBatchNorm,
    convert_sync,
)
from linalg_kernels import so_exp
from linalg_kernels.testing import random_spd
from torch import nn
from torch.testing import assert_close

close = partial(assert_close, rtol=1e-9, atol=1e-9)
CASES: dict[str, tuple[LieGroup, dict[str, Any]]] = {
    "aim": (AffineInvariantGroup(), {}),
    "aim-converged": (AffineInvariantGroup(1.5), {"karcher_steps": None}),
    "aim-differentiable": (AffineInvariantGroup(), {"differentiable": True}),
    "lcm": (LogCholeskyGroup(), {"momentum": None}),
    "so3": (RotationGroup(), {"karcher_steps": 2}),
}
SIZES = {2: (3, 6), 3: (4, 0, 5)}
"""Of each process's batch."""


def joined(case):
    generator = torch.Generator().manual_seed(3)
    if case == "so3":
        Z = torch.randn(9, 3, 3, dtype=torch.float64, generator=generator)
        return so_exp(0.3 * (Z - Z.mT))
    return random_spd(9, 3, cond=5.0, generator=generator)


def step(layer, X):
    """Output, gradients of input and parameters, statistics of one training step."""
    leaf = X.clone().requires_grad_()
    Y = layer(leaf)
    (Y * torch.arange(9.0, dtype=X.dtype).reshape(3, 3)).sum().backward()
    parameters = [p.grad for p in layer.parameters()]
    return Y.detach(), leaf.grad, parameters, layer.running_mean, layer.running_var


def work(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    start = sum(SIZES[world][:rank])
    found = {}
    for case, (group, options) in CASES.items():
        layer = SyncLieBatchNorm(group, 3, dtype=torch.float64, **options)
        found[case] = step(layer, joined(case)[start : start + SIZES[world][rank]])
    try:
        SyncLieBatchNorm(LogCholeskyGroup(), 3)(torch.eye(3).expand(int(rank == 0), 3, 3))
    except ValueError as error:
        found["alone"] = str(error)
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("world", SIZES)
def test_equals_one_process_on_the_joined_batch(world, tmp_path):
    # Processes that run this file: what spawns them by name cannot import a test.
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(world), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for worker in workers:
        _, told = worker.communicate(timeout=240)
        assert worker.returncode == 0, told
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(world)]
    for case, (group, options) in CASES.items():
        layer = LieBatchNorm(group, 3, dtype=torch.float64, **options)
        Y, gX, parameters, mean, var = step(layer, joined(case))
        parts = [ranks[case] for ranks in found]
        close(torch.cat([part[0] for part in parts]), Y)
        close(torch.cat([part[1] for part in parts]), gX)
        for i, expected in enumerate(parameters):
            close(sum(part[2][i] for part in parts), expected)
        for part in parts:
            close(part[3], mean)
            close(part[4], var)
    assert all("got 1 in all" in ranks["alone"] for ranks in found)


def test_alone_it_is_the_plain_layer():
    X = joined("aim")
    sync, plain = (
        kind(AffineInvariantGroup(), 3, dtype=torch.float64)
        for kind in (SyncLieBatchNorm, LieBatchNorm)
    )
    assert torch.equal(sync(X), plain(X))


def test_conversion_keeps_parameters_and_options():
    X = joined("aim")
    inner = LieBatchNorm(
        AffineInvariantGroup(), 3, 0.3, 1e-3, 2, trivialized=False, dtype=torch.float64
    )
    inner(X)
    network = nn.Sequential(nn.Identity(), nn.Sequential(inner))
    before = copy.deepcopy(network)
    parameters = list(network.parameters())
    converted = convert_sync(network)
    layer = converted.get_submodule("1.0")
    assert type(layer) is SyncLieBatchNorm
    assert (layer.momentum, layer.eps, layer.karcher_steps) == (0.3, 1e-3, 2)
    for mine, theirs in zip(converted.parameters(), parameters, strict=True):
        assert mine is theirs
    assert torch.equal(converted(X), before(X))
    assert torch.equal(converted.eval()(X), before.eval()(X))
    assert converted.state_dict().keys() == before.state_dict().keys()


def test_conversion_refuses_domains():
    network = nn.Sequential(DomainLieBatchNorm(AffineInvariantGroup(), 3))
    with pytest.raises(TypeError, match="DomainLieBatchNorm cannot be synchronised"):
        convert_sync(network)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
