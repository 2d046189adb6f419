"""Flows beside what else moves the latents of a VAE, on the same networks and data.

Every model sees as many frames in as many updates: the labelled flow model; VAE, beta-VAE and
SlowVAE, whose latents are moved along the linear direction that least squares finds for each
transformation; and PoFlow's equation, fitted to the frozen VAE.
"""

from collections.abc import Callable, Iterator

import torch
from eigenworks import Claim, Experiment, Row, Size, Trial
from eigenworks.data import DIGITS

from flowfactor.baselines import (
    Kind,
    linear_directions,
    train_vae,
    with_directions,
    with_wave_potentials,
)
from flowfactor.data import Held, split
from flowfactor.elbo import Objective
from flowfactor.equivariance import compare
from flowfactor.experiments.digits import STEPS, source
from flowfactor.model import Config, FlowFactorVAE
from flowfactor.train import Options, Trainer

VAES: dict[Kind, str] = {"vae": "VAE", "beta-vae": "beta-VAE (β = 4)", "slow-vae": "SlowVAE"}
FLOWS = "flow, labelled"
WAVES = "VAE, wave equation (PoFlow)"


def models(trial: Trial, train: Held) -> Iterator[tuple[str, FlowFactorVAE]]:
    """Each method's name and trained model."""
    p = trial.parameters
    options = Options(
        p["iterations"],
        p["batch"],
        objective=Objective(kl="shared", weight=p["weight"]),
        half=True,
        seed=trial.seed,
    )
    count = len(VAES) + 2

    def tell(number: int, what: str) -> Callable[[int, float], None]:
        return lambda i, _loss: trial.progress((number + i / p["iterations"]) / count, what)

    def fresh() -> FlowFactorVAE:
        torch.manual_seed(trial.seed)
        return Config(train.shape, len(train.names)).build()

    model = fresh()
    told = tell(0, FLOWS)
    for progress in Trainer(model, train, options).updates():
        told(progress.iteration, 0.0)
    yield FLOWS, model
    trained: dict[Kind, FlowFactorVAE] = {}
    for number, (kind, name) in enumerate(VAES.items(), 1):
        trained[kind] = model = fresh()
        train_vae(model, train, kind, options, report=tell(number, name))
        directions = linear_directions(model, train, torch.arange(min(train.size, 2000)))
        yield f"{name}, linear directions", with_directions(model, directions)
    trial.progress(1 - 1 / count, WAVES)
    yield WAVES, with_wave_potentials(trained["vae"], train, options)


def run(trial: Trial) -> Iterator[Row]:
    """Equivariance errors of each method, and of the first frame shown throughout."""
    train, held = split(source(trial.parameters["data"]), 0.2, seed=trial.seed)
    for method, model in models(trial, train):
        for k, name in enumerate(held.names):
            found = compare(model, held, k)
            if method == FLOWS:
                label = f"repeat frame 0, {name}"
                yield Row(label, "equivariance error", found.repeat.total, "L1")
            yield Row(
                f"{method}: {name}", "equivariance error", found.flow.total, "L1", better="lower"
            )
        yield Row(method, "reconstruction error of x_0", found.reconstruction, "L1", "lower")


experiment = Experiment(
    name="flowfactor/baselines",
    title="Flows beside linear directions and PoFlow, on the same networks",
    claim=Claim(
        "Flows trained with the representation follow transformations more closely than "
        "directions or flows found afterwards",
        source="Song et al., NeurIPS 2023, section 4",
    ),
    run=run,
    quick=Size(
        seconds=90,
        seeds=(0,),
        parameters={"data": "digits", "iterations": 300, "batch": 32, "weight": 0.1},
    ),
    full=Size(
        seconds=900,
        seeds=(0, 1, 2),
        parameters={"data": "mnist", "iterations": 1000, "batch": 64, "weight": 0.1},
    ),
    data=(DIGITS,),
    headline=((f"{FLOWS}: rotation", "equivariance error"),),
    notes=f"A third of the updates of flowfactor/digits' full size, for every method alike. The "
    f"error is summed over t = 1 … {STEPS} and the 3 x 28 x 28 values of an image, on held-out "
    "digits. The VAEs are trained on all frames of the sequences, the flow model encodes first "
    "frames only. PoFlow finds its directions without labels; here its equation is fitted to "
    "labelled sequences, so that it is compared on the same task.",
)
