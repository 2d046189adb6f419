"""One step of every layer, detector and stepper, to be taken over and over."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import asvd
import chemflow
import flowfactor
import gcp_riemann
import householder_gan
import liebn
import potential_flows
import rankfeat
import rmlr
import spd_metrics
import torch
from chemflow import vae
from chemflow.surrogate import Config as SurrogateConfig
from eigenworks.data import EFFICIENTNET_LITE0
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
            elif name == "ode_path":
                step_of(potential, z, torch.tensor([0.0, 0.1]), tol=1e-2)
            elif name == "inverse_euler_step":
                step_of(potential, 0.1 * z, 0.0, 0.1)
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


def factor_trainer(prior: Any) -> Callable[[], Step]:
    def ready() -> Step:
        images = flowfactor.TransformedImages(
            torch.zeros(4, 1, 8, 8, dtype=torch.uint8), [flowfactor.Rotation()], steps=2
        )
        config = flowfactor.Config(shape=(1, 8, 8), flows=1, dim=4, hidden=(8,), prior=prior)
        options = flowfactor.Options(iterations=10**6, batch=2)
        updates = flowfactor.Trainer(config.build(), images, options).updates()
        return lambda: next(updates)

    return ready


def generator(kind: Any, *sizes: Any, **options: Any) -> Callable[[], Step]:
    def ready() -> Step:
        torch.manual_seed(0)
        G = kind(*sizes, **options)
        size = sizes[0] if isinstance(G, householder_gan.DCGAN) else G.z_dim
        return trained(G, torch.randn(2, size, generator=g()))

    return ready


def compared() -> Step:
    network = householder_gan.EfficientNetLite0(EFFICIENTNET_LITE0.load(), 32, (0,))
    return trained(network, *torch.randn(2, 1, 3, 8, 8, generator=g()))


def pooled_network() -> Step:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    return trained(
        gcp_riemann.gcp_head(backbone, 3, 2, layers="1", image_size=8),
        torch.randn(2, 3, 8, 8, generator=g()),
    )


class Molecules:
    """What a navigator asks of a model: codes of four numbers, and a chain for each."""

    latent_size = 4

    def probabilities(self, z: Tensor) -> Tensor:
        return torch.stack((z, -z), -1).softmax(-1)

    def encode_smiles(self, smiles: Sequence[str]) -> Tensor:
        return torch.tensor([[float(len(one))] * 4 for one in smiles])

    def decode_smiles(self, z: Tensor) -> list[str]:
        return ["C" * (1 + len(row)) for row in z]


MOLECULES: Any = Molecules()


def chem_trainer(make: Callable[[], Any]) -> Callable[[], Step]:
    def ready() -> Step:
        torch.manual_seed(0)
        task = make()
        steps = chemflow.Trainer(task, chemflow.Options(10**6, 4)).steps()
        return lambda: next(steps)

    return ready


def molecule_vae() -> Any:
    tokens = chemflow.Vocabulary.of(["[C]", "[O]"])
    config = vae.Config(6, latent=4, embedding=2, hidden=(8, 8), state=6)
    ids = torch.tensor([[1, 2, 1, 0, 0, 0], [2, 1, 0, 0, 0, 0]] * 4)
    return chemflow.VAETask(chemflow.MoleculeVAE(config, tokens), ids, 0.1)


def surrogate() -> Any:
    config = SurrogateConfig("height", width=8, members=2)
    return chemflow.Surrogate(MOLECULES, config, (4, 2))


def climbed() -> Step:
    z = torch.randn(3, 4, generator=g())
    one = surrogate().eval()

    def step() -> None:
        one.predict(z.clone().requires_grad_()).sum().backward()
        one.zero_grad()

    return step


def steps_of(kind: Any, **options: Any) -> Any:
    return kind([chemflow.GradientFlow(HEIGHT), chemflow.RandomDirection()], **options)


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
    "PowerEuclidean": spd_metrics.PowerEuclidean(),
    "GeneralizedBuresWasserstein": spd_metrics.GeneralizedBuresWasserstein(torch.eye(4, dtype=F64)),
    "BuresWassersteinCholesky": spd_metrics.BuresWassersteinCholesky(),
}
GROUPS = {
    "AffineInvariantGroup": liebn.AffineInvariantGroup(),
    "LogEuclideanGroup": liebn.LogEuclideanGroup(),
    "LogCholeskyGroup": liebn.LogCholeskyGroup(),
    "CholeskyRightInvariantGroup": liebn.CholeskyRightInvariantGroup(),
    "PowerCholeskyGroup": liebn.PowerCholeskyGroup(),
    "BuresWassersteinCholeskyGroup": liebn.BuresWassersteinCholeskyGroup(),
}
STEPS: dict[str, Callable[[], Step]] = {
    "spd_metrics.BiMap": lambda: trained(spd_metrics.BiMap(4, 3, dtype=F64), spd(5, 4)),
    "spd_metrics.ReEig": lambda: trained(spd_metrics.ReEig(1.5), spd(5, 4)),
    "spd_metrics.LogEig": lambda: trained(spd_metrics.LogEig(), spd(5, 4)),
    "spd_metrics.CovPool": lambda: trained(
        spd_metrics.CovPool(), torch.randn(5, 4, 9, dtype=F64, generator=g())
    ),
    "spd_metrics.SPDParameter": lambda: trained(spd_metrics.SPDParameter(4)),
    "spd_metrics.SPDParameter, Cholesky": lambda: trained(
        spd_metrics.SPDParameter(4, parametrization=spd_metrics.CholeskyExp())
    ),
    "spd_metrics.RiemannianResidual": lambda: trained(
        spd_metrics.RiemannianResidual(
            spd_metrics.AffineInvariant(), spd_metrics.SpectralField(4, dtype=F64)
        ),
        spd(5, 4),
    ),
    "spd_metrics.SPDNet": lambda: trained(spd_metrics.SPDNet((4, 3), 2, dtype=F64), spd(5, 4)),
    "gcp_riemann.GCPNetwork": pooled_network,
    "gcp_riemann.LogCholesky": lambda: trained(gcp_riemann.LogCholesky(), spd(5, 4)),
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
    "liebn.SyncLieBatchNorm": lambda: trained(
        liebn.SyncLieBatchNorm(liebn.AffineInvariantGroup(), 4, dtype=F64), spd(5, 4)
    ),
    "asvd.LowRankLinear": low_rank,
    "householder_gan.HouseholderProjector": lambda: trained(
        householder_gan.HouseholderProjector(6, 5, 2), torch.randn(3, 6, generator=g())
    ),
    "householder_gan.FineTuner": fine_tuned,
    "flowfactor.LatentFlow": latent_flow,
    "householder_gan.PartialIsometry": lambda: trained(
        householder_gan.PartialIsometry(6, 5, 2),
        *householder_gan.PartialIsometry(6, 5, 2).right_inverse(
            torch.randn(6, 5, generator=g())
        ),
    ),
    "householder_gan.EfficientNetLite0": compared,
    "householder_gan.DCGAN": generator(householder_gan.DCGAN, 4, (4, 4)),
    "householder_gan.StyleGAN2": generator(householder_gan.StyleGAN2, 8, 4, 1, {4: 4, 8: 4}),
    "householder_gan.StyleGAN3": generator(
        householder_gan.StyleGAN3, 16, 4, 4, layers=3, channel_base=64, channel_max=4
    ),
    "flowfactor.HeatPrior": factor_trainer("heat"),
    "flowfactor.OfficialPrior": factor_trainer("official"),
    "flowfactor.FlowClassifier": lambda: trained(
        flowfactor.FlowClassifier(nn.Flatten(), 8, 2, 2), torch.randn(3, 2, 1, 2, 2, generator=g())
    ),
    "rankfeat.RankFeat": detector(lambda m: rankfeat.RankFeat(m, ["0"])),
    "rankfeat.ReAct": detector(lambda m: rankfeat.ReAct(m, ["2"])),
    "rankfeat.ASH": detector(lambda m: rankfeat.ASH(m, ["2"])),
    "rankfeat.LogitDetector": detector(rankfeat.LogitDetector),
    "rankfeat.ViM": detector(lambda m: rankfeat.ViM(m, "4", d=1)),
    "rankfeat.KNN": detector(lambda m: rankfeat.KNN(m, "4", k=2)),
    "rankfeat.RankWeight": rank_weight,
    "chemflow.GradientFlow": navigated(lambda: chemflow.GradientFlow(HEIGHT)),
    "chemflow.Langevin": navigated(lambda: chemflow.Langevin(HEIGHT)),
    "chemflow.Evolution": navigated(
        lambda: chemflow.Evolution(MOLECULES, lambda smiles: [float(len(one)) for one in smiles])
    ),
    "chemflow.Weighted": navigated(lambda: steps_of(chemflow.Weighted)),
    "chemflow.Sequential": navigated(lambda: steps_of(chemflow.Sequential)),
    "chemflow.MinNorm": navigated(lambda: steps_of(chemflow.MinNorm)),
    "chemflow.FokkerPlanckFlow": lambda: walked(
        lambda latent: chemflow.FokkerPlanckFlow(latent, HEIGHT)
    ),
    "chemflow.MoleculeVAE": chem_trainer(molecule_vae),
    "chemflow.LatentPrior": chem_trainer(
        lambda: chemflow.PriorTask(
            chemflow.LatentPrior(4, 8, 1), torch.randn(8, 4, generator=g())
        )
    ),
    "chemflow.FlowTask": chem_trainer(
        lambda: chemflow.FlowTask(
            chemflow.WaveFlow(4), MOLECULES, torch.randn(8, 4, generator=g()), HEIGHT
        )
    ),
    "chemflow.Surrogate": climbed,
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
for _name in ("LogEMLR", "PowEMLR", "ScalePowEMLR", "PowTMLR", "ChoTMLR", "PEMMLR", "LEMMLR"):
    STEPS[f"gcp_riemann.{_name}"] = head(getattr(gcp_riemann, _name))
for _name in ("WaveFlow", "HamiltonJacobiFlow", "HeatFlow"):
    STEPS[f"chemflow.{_name}"] = partial(walked, getattr(chemflow, _name))
for _name in (
    "euler_step", "euler_step_logabsdet", "euler_path", "ode_path", "langevin_step",
    "inverse_euler_step",
):  # fmt: skip
    STEPS[f"potential_flows.{_name}"] = partial(stepped, _name)
