"""Layers, detectors and steppers used over and over: nothing piles up, no hook stays behind.

The cycle collector is off while they run. A tensor that only it could free would be counted, and
so would one that something remembers.
"""

import gc
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

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
import torch
from linalg_kernels.testing import random_spd
from torch import Tensor, nn

Step = Callable[[], Any]
F64 = torch.float64


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spd(*shape: int) -> Tensor:
    return random_spd(*shape, cond=10.0, generator=g())


def trained(layer: Any, *inputs: Tensor) -> Step:
    """Forward, backward and an update of what can learn."""
    parameters = [p for p in layer.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 1e-6) if parameters else None

    def step() -> None:
        leaves = [x.clone().requires_grad_() for x in inputs]
        layer(*leaves).square().sum().backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def head(kind: Any, **options: Any) -> Callable[[], Step]:
    return lambda: trained(kind(4, 3, **options).double(), spd(5, 4))


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)
    ).eval()


X = torch.randn(6, 2, 4, 4, generator=g())


def detector(make: Callable[[nn.Module], Any]) -> Callable[[], Step]:
    def ready() -> Step:
        one = make(classifier())
        one.fit([X])
        return lambda: one.score(X)

    return ready


def rank_weight() -> Step:
    model = classifier()

    def step() -> None:
        with rankfeat.RankWeight(model, ["4"]):
            model(X)

    return step


def low_rank() -> Step:
    return trained(asvd.LowRankLinear(6, 5, 2), torch.randn(3, 6, generator=g()))


def batch_norm(group: Any, **options: Any) -> Callable[[], Step]:
    return lambda: trained(liebn.LieBatchNorm(group, 4, dtype=F64, **options), spd(5, 4))


def domains() -> Step:
    layer = liebn.DomainLieBatchNorm(liebn.AffineInvariantGroup(), 4, dtype=F64)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    P = spd(6, 4)
    return lambda: layer(P.clone().requires_grad_(), labels).sum().backward()


def walked(kind: Any) -> Step:
    flow = kind(4).eval()
    z = torch.randn(3, 4, generator=g())
    return lambda: flow.step(z, 1)


class _Height(nn.Module):
    def predict(self, z: Tensor) -> Tensor:
        return -z.square().sum(-1)

    forward = predict


HEIGHT: Any = _Height()


def navigated(make: Callable[[], Any]) -> Callable[[], Step]:
    def ready() -> Step:
        one = make()
        z, rows = torch.randn(3, 4, generator=g()), torch.arange(3)

        def step() -> None:
            one.reset()
            one.step(z, 0, rows)

        return step

    return ready


def stepped(name: str) -> Step:
    torch.manual_seed(0)
    potential = potential_flows.MLPPotential(4, 8)
    z = torch.randn(3, 4, generator=g())

    def step() -> None:
        step_of = getattr(potential_flows, name)
        with torch.no_grad():
            if name == "euler_path":
                step_of(potential, z, torch.tensor([0.0, 1.0]))
            elif name == "langevin_step":
                step_of(potential, z, 0.0, 0.1, generator=g())
            else:
                step_of(potential, z, 0.0)
        loss = potential_flows.hamilton_jacobi_residual(potential, z, 0.5).square().sum()
        loss.backward()
        potential.zero_grad()

    return step


def latent_flow() -> Step:
    flow = flowfactor.LatentFlow(4, 2)
    z, k = torch.randn(3, 4, generator=g()), torch.tensor([0, 1, 0])

    def step() -> None:
        flow.step(z.clone().requires_grad_(), 1.0, k).sum().backward()
        flow.zero_grad()

    return step


def trainer() -> Step:
    images = flowfactor.TransformedImages(
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8), [flowfactor.Rotation()], steps=2
    )
    model = flowfactor.Config(shape=(1, 8, 8), flows=1, dim=4, hidden=(8,)).build()
    one = flowfactor.Trainer(model, images, flowfactor.Options(iterations=10**6, batch=2))
    updates = one.updates()
    return lambda: next(updates)


def fine_tuned() -> Step:
    torch.manual_seed(0)
    widths = {4: 4, 8: 4}
    G = householder_gan.StyleGAN2(8, 4, 1, widths)
    householder_gan.householderize(G, rank=2)
    recipe = householder_gan.Recipe(batch=2, r1_every=2, path_every=2)
    run = householder_gan.FineTuner(G, householder_gan.Discriminator(8, widths), recipe)
    data = householder_gan.of_images(torch.randn(4, 3, 8, 8, generator=g()))
    return lambda: run.step(data)


R = torch.linalg.matrix_exp(torch.randn(5, 3, 3, dtype=F64, generator=g()).tril(-1) * 0.3)
ROTATIONS = torch.linalg.qr(R)[0]
METRICS = {
    "LogEuclidean": spd_metrics.LogEuclidean(),
    "AffineInvariant": spd_metrics.AffineInvariant(),
    "LogCholesky": spd_metrics.LogCholesky(),
    "BuresWasserstein": spd_metrics.BuresWasserstein(),
    "PowerCholesky": spd_metrics.PowerCholesky(0.5),
}
GROUPS = {
    "AffineInvariantGroup": liebn.AffineInvariantGroup(),
    "LogEuclideanGroup": liebn.LogEuclideanGroup(),
    "LogCholeskyGroup": liebn.LogCholeskyGroup(),
}
STEPS: dict[str, Callable[[], Step]] = {
    "spd_metrics.BiMap": lambda: trained(spd_metrics.BiMap(4, 3, dtype=F64), spd(5, 4)),
    "spd_metrics.ReEig": lambda: trained(spd_metrics.ReEig(1.5), spd(5, 4)),
    "spd_metrics.LogEig": lambda: trained(spd_metrics.LogEig(), spd(5, 4)),
    "spd_metrics.CovPool": lambda: trained(
        spd_metrics.CovPool(), torch.randn(5, 4, 9, dtype=F64, generator=g())
    ),
    "spd_metrics.SPDParameter": lambda: trained(spd_metrics.SPDParameter(4)),
    "spd_metrics.RiemannianResidual": lambda: trained(
        spd_metrics.RiemannianResidual(
            spd_metrics.AffineInvariant(), spd_metrics.SpectralField(4, dtype=F64)
        ),
        spd(5, 4),
    ),
    "gcp_riemann.CovariancePooling": lambda: trained(
        gcp_riemann.CovariancePooling(), torch.randn(2, 3, 4, 4, generator=g())
    ),
    "gcp_riemann.MatrixPower": lambda: trained(gcp_riemann.MatrixPower(), spd(5, 4)),
    "gcp_riemann.MatrixLog": lambda: trained(gcp_riemann.MatrixLog(), spd(5, 4)),
    "rmlr.LogEigMLR": lambda: trained(rmlr.LogEigMLR(4, 3, dtype=F64), spd(5, 4)),
    "rmlr.LieMLR": lambda: trained(rmlr.LieMLR(3, 2, dtype=F64), ROTATIONS),
    "liebn.RotationGroup": lambda: trained(
        liebn.LieBatchNorm(liebn.RotationGroup(), 3, dtype=F64), ROTATIONS
    ),
    "liebn.DomainLieBatchNorm": domains,
    "asvd.LowRankLinear": low_rank,
    "householder_gan.HouseholderProjector": lambda: trained(
        householder_gan.HouseholderProjector(6, 5, 2), torch.randn(3, 6, generator=g())
    ),
    "householder_gan.FineTuner": fine_tuned,
    "flowfactor.LatentFlow": latent_flow,
    "flowfactor.Trainer": trainer,
    "rankfeat.RankFeat": detector(lambda m: rankfeat.RankFeat(m, ["0"])),
    "rankfeat.ReAct": detector(lambda m: rankfeat.ReAct(m, ["2"])),
    "rankfeat.ASH": detector(lambda m: rankfeat.ASH(m, ["2"])),
    "rankfeat.LogitDetector": detector(rankfeat.LogitDetector),
    "rankfeat.ViM": detector(lambda m: rankfeat.ViM(m, "4", d=1)),
    "rankfeat.KNN": detector(lambda m: rankfeat.KNN(m, "4", k=2)),
    "rankfeat.RankWeight": rank_weight,
    "chemflow.GradientFlow": navigated(lambda: chemflow.GradientFlow(HEIGHT)),
    "chemflow.Langevin": navigated(lambda: chemflow.Langevin(HEIGHT)),
    "chemflow.AdamAscent": navigated(lambda: chemflow.AdamAscent(HEIGHT)),
    "chemflow.RandomDirection": navigated(chemflow.RandomDirection),
    "chemflow.RandomCoordinate": navigated(chemflow.RandomCoordinate),
    "chemflow.LinearDirection": navigated(lambda: chemflow.LinearDirection(torch.ones(4))),
}  # fmt: skip
for _name, _metric in METRICS.items():
    STEPS[f"rmlr.RiemannianMLR {_name}"] = partial(
        lambda metric: trained(rmlr.RiemannianMLR(4, 3, metric, dtype=F64), spd(5, 4)), _metric
    )
for _name, _group in GROUPS.items():
    STEPS[f"liebn.{_name}"] = batch_norm(_group)
for _name in ("LogEMLR", "PowEMLR", "ScalePowEMLR", "PowTMLR", "ChoTMLR"):
    STEPS[f"gcp_riemann.{_name}"] = head(getattr(gcp_riemann, _name))
for _name in ("WaveFlow", "HamiltonJacobiFlow", "HeatFlow"):
    STEPS[f"chemflow.{_name}"] = partial(walked, getattr(chemflow, _name))
for _name in ("euler_step", "euler_step_logabsdet", "euler_path", "langevin_step"):
    STEPS[f"potential_flows.{_name}"] = partial(stepped, _name)


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


def check(name: str, warm: int, count: int) -> int:
    """Bytes that the process grew by over `count` steps after `warm` ones."""
    step = STEPS[name]()
    for _ in range(warm):
        step()
    with without_collector():
        before, memory = tensors(), resident()
        for _ in range(count):
            step()
        assert tensors() <= before, f"{tensors() - before} tensors more after {count} steps"
        return resident() - memory


@pytest.mark.parametrize("name", STEPS)
def test_no_tensor_is_left(name: str) -> None:
    check(name, 3, 12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STEPS)
def test_memory_is_flat(name: str) -> None:
    """A tensor of 16 numbers a step would be 3 MB."""
    grown = check(name, 1000, 10_000)
    assert grown < 2 * 2**20, f"{grown / 2**20:.1f} MiB more after 10,000 steps"


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(one, kind)) for one in model.modules() for kind in kinds)


class BreaksError(Exception):
    pass


class Breaks(nn.Module):
    """Works as often as it is told to, and then raises."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise BreaksError
        return x


DETECTORS: dict[str, Callable[[nn.Module], Any]] = {
    "RankFeat": lambda m: rankfeat.RankFeat(m, ["0"]),
    "ReAct": lambda m: rankfeat.ReAct(m, ["2"]),
    "ASH": lambda m: rankfeat.ASH(m, ["2"]),
    "ViM": lambda m: rankfeat.ViM(m, "4", d=1),
    "KNN": lambda m: rankfeat.KNN(m, "4", k=2),
}


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("left", [0, 1, 2, 9])
def test_detectors_leave_no_hook(name: str, left: int) -> None:
    """After use, after an error in calibration or in a score, and after close."""
    model = classifier()
    model.append(Breaks(left)).eval()
    with suppress(BreaksError), DETECTORS[name](model) as one:
        one.fit([X])
        one.score(X)
        one.score(X)
    assert hooks(model) == 0


@pytest.mark.parametrize("left", range(0, 12, 3))
@pytest.mark.parametrize("method", ["svd", "asvd", "whiten", "sequential"])
def test_compression_leaves_no_hook(method: Any, left: int) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(4, 4), Breaks(left), nn.Linear(4, 4)) for _ in range(2)
            )
            self.head = nn.Linear(4, 7)

        def forward(self, ids: Tensor) -> Any:
            h = self.embedding(ids)
            for block in self.blocks:
                h = h + block(h)
            return type("Output", (), {"logits": self.head(h)})

    torch.manual_seed(0)
    model = Model().eval()
    ids = torch.randint(0, 7, (4, 5), generator=g())
    with suppress(BreaksError):
        asvd.compress(model, ids, 0.7, method, layers="blocks.*")
    assert hooks(model) == 0
    assert all("forward" not in vars(module) for module in model.modules())


def test_rank_weight_is_undone_after_an_error() -> None:
    model = classifier()
    before = model(X)
    with suppress(BreaksError), rankfeat.RankWeight(model, ["4"]):
        raise BreaksError
    assert hooks(model) == 0
    assert torch.equal(model(X), before)
