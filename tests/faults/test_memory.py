"""Layers, detectors and steppers used over and over: nothing piles up.

While tensors are counted the cycle collector is off, so that one that only it could free is
counted, and so is one that something remembers. Over ten thousand steps it runs as it always does:
`torch.func` leaves cycles of functions, without tensors, at each call.
"""

import gc
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import asvd
import chemflow
import flowfactor
import gcp_riemann
import householder_gan
import liebn
import potential_flows
import pytest
import rankfeat
import rmlr
import spd_metrics
from torch import Tensor, nn

from steps import STEPS, Step

WITHIN = {
    "spd_metrics.SpectralField": "spd_metrics.RiemannianResidual",
    "spd_metrics.SymmetricExp": "spd_metrics.SPDParameter",
    "spd_metrics.CholeskyExp": "spd_metrics.SPDParameter, Cholesky",
    "liebn.LieBatchNorm": "liebn.AffineInvariantGroup",
    "rmlr.RiemannianMLR": "rmlr.RiemannianMLR LogEuclidean",
    "householder_gan.Discriminator": "householder_gan.FineTuner",
    "flowfactor.FlowFactorVAE": "flowfactor.HeatPrior",
    "chemflow.VAETask": "chemflow.MoleculeVAE",
    "chemflow.PriorTask": "chemflow.LatentPrior",
    "chemflow.PotentialFlow": "chemflow.WaveFlow",
    "potential_flows.MLPPotential": "potential_flows.euler_step",
}
"""Public modules that run as parts of another's step."""

PACKAGES = (
    asvd, chemflow, flowfactor, gcp_riemann, householder_gan, liebn, potential_flows, rankfeat,
    rmlr, spd_metrics,
)  # fmt: skip


def public_modules() -> list[str]:
    return [
        f"{package.__name__}.{name}"
        for package in PACKAGES
        for name in package.__all__
        if isinstance(found := getattr(package, name), type) and issubclass(found, nn.Module)
    ]


@contextmanager
def without_collector() -> Generator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


def tensors() -> int:
    return sum(issubclass(type(one), Tensor) for one in gc.get_objects())


def resident() -> int:
    """Bytes of memory of this process, 0 where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def warmed(name: str, count: int) -> Step:
    step = STEPS[name]()
    for _ in range(count):
        step()
    return step


@pytest.mark.parametrize("name", public_modules())
def test_every_public_module_has_a_step(name: str) -> None:
    assert WITHIN.get(name, name) in STEPS


@pytest.mark.parametrize("name", STEPS)
def test_no_tensor_is_left(name: str) -> None:
    step = warmed(name, 3)
    with without_collector():
        before = tensors()
        for _ in range(12):
            step()
        assert tensors() <= before, f"{tensors() - before} tensors more after 12 steps"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STEPS)
def test_memory_is_flat(name: str) -> None:
    """A tensor of 16 numbers a step would be 3 MB."""
    step = warmed(name, 1000)
    gc.collect()
    before, memory = tensors(), resident()
    for _ in range(10_000):
        step()
    gc.collect()
    grown = resident() - memory
    assert tensors() <= before, f"{tensors() - before} tensors more after 10,000 steps"
    assert grown < 2 * 2**20, f"{grown / 2**20:.1f} MiB more after 10,000 steps"
