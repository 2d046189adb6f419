"""What guides walks in the experiment: labels, surrogates, linear directions, trained flows."""

from collections.abc import Mapping
from typing import Any

import torch
from eigenworks import Trial
from torch import Tensor

from chemflow.checkpoint import read_checkpoint, write_checkpoint
from chemflow.directions import boundary_direction, jacobian_directions, ridge_direction
from chemflow.experiments.artefacts import bar, fingerprint, folder, posterior
from chemflow.flow_task import FlowObjective, FlowTask
from chemflow.flows import FILE as FLOW
from chemflow.flows import (
    FokkerPlanckFlow,
    HamiltonJacobiFlow,
    HeatFlow,
    PotentialFlow,
    WaveFlow,
    load_flow,
    save_flow,
)
from chemflow.labels import Labelled, label, start_codes
from chemflow.molecules import Molecules
from chemflow.navigators import (
    AdamAscent,
    Evolution,
    GradientFlow,
    Langevin,
    LinearDirection,
    RandomCoordinate,
    RandomDirection,
)
from chemflow.pace import Pace
from chemflow.protocol import Navigator
from chemflow.scoring import Scorer
from chemflow.surrogate import FILE as SURROGATE
from chemflow.surrogate import Config, Surrogate, fit_surrogate, load_surrogate, save_surrogate
from chemflow.training import Options, Trainer
from chemflow.vae import MoleculeVAE

FORMAT = "chemflow labels 1"


def labelled(
    model: MoleculeVAE, data: Molecules, rows: int, number: int, scorer: Scorer
) -> Labelled:
    """Codes of the prior and of molecules with the oracles' values, from their folder if there."""
    codes = start_codes(number, model.latent_size, 1000, posterior(model, data, min(rows, 10**4)))
    made_from = fingerprint(model, codes)
    place = folder("labels", made_from=made_from, of=scorer.names) / "labels.safetensors"
    if not place.exists():
        known = label(model, codes, scorer)
        write_checkpoint(place, FORMAT, {}, {"codes": known.codes, "values": known.values})
    _, found = read_checkpoint(place, FORMAT)
    return Labelled(found["codes"], found["values"])


def surrogate(
    trial: Trial,
    model: MoleculeVAE,
    known: Labelled,
    column: int,
    name: str,
    span: tuple[float, float],
) -> Surrogate:
    """Of one property, from its folder if there."""
    p = trial.parameters
    config = Config(name, "sequence", p["members"], p["width"], 3)
    options = Options(p["surrogate_epochs"], 128, 2e-3, seed=0)
    values = known.values[:, column]
    place = folder(
        "surrogate", made_from=fingerprint(model, known.codes, values), config=str(config),
        options=str(options),
    )  # fmt: skip
    if not (place / SURROGATE).exists():
        torch.manual_seed(0)
        made = Surrogate(model, config, (model.config.length, len(model.vocabulary)))
        fit_surrogate(
            made, known.codes, values, options,
            folder=place / "run", report=bar(trial, span, f"surrogate of {name}"),
        )  # fmt: skip
        save_surrogate(place, made)
    return load_surrogate(place, model)


def flow(
    trial: Trial,
    equation: str,
    model: MoleculeVAE,
    guide: Surrogate | None,
    span: tuple[float, float],
) -> PotentialFlow:
    """A trained flow; without a guide several that are unsupervised."""
    p = trial.parameters
    pace, latent = Pace(p["step"]), model.latent_size
    # The Laplacian of a surrogate costs ten times what the other equations do.
    costly = equation == "fp"
    epochs = p["flow_epochs"] / (4 if costly else 1)
    options = Options(epochs, 64, 3e-3, clip=10.0, seed=0)
    name = "" if guide is None else guide.config.property
    objective = FlowObjective(times=1 if costly else 2)
    codes = start_codes(p["flow_codes"], latent, 2000)
    place = folder(
        "flow", made_from=fingerprint(model, codes, *([] if guide is None else [guide])),
        equation=equation, flows=p["free_flows"], options=str(options), pace=str(pace),
        objective=str(objective),
    )  # fmt: skip
    if not (place / FLOW).exists():
        torch.manual_seed(0)
        made: PotentialFlow
        if equation == "fp":
            assert guide is not None
            made = FokkerPlanckFlow(latent, guide, strength=1 / float(guide.scale), pace=pace)
        else:
            kind = {"wave": WaveFlow, "hj": HamiltonJacobiFlow, "heat": HeatFlow}[equation]
            made = kind(latent, 1 if guide is not None else p["free_flows"], pace=pace)
        task = FlowTask(made, model, codes, guide, objective=objective)
        report = bar(trial, span, f"{equation} flow {name}".rstrip())
        Trainer(task, options, place / "run").run(report)
        save_flow(place, made, {"property": name})
    return load_flow(place, drift=guide)[0]


def steadiest(
    navigators: Mapping[str, Navigator],
    model: MoleculeVAE,
    scorer: Scorer,
    column: int,
    codes: Tensor,
    steps: int,
) -> str:
    """The name of the navigator along which a property rises most steadily (section 3.2)."""
    from chemflow.matching import correlation

    found = {}
    for name, navigator in navigators.items():
        z, values = codes, []
        for t in range(steps + 1):
            values.append(torch.from_numpy(scorer(model.decode_smiles(z)).values[:, column]))
            z = navigator.step(z, t)
        r = correlation(torch.stack(values, -1).numpy())
        found[name] = float(torch.from_numpy(r).nan_to_num().mean())
    return max(found, key=lambda name: found[name])


def supervised(
    trial: Trial,
    model: MoleculeVAE,
    scorer: Scorer,
    column: int,
    known: Labelled,
    guide: Surrogate,
    span: tuple[float, float],
) -> dict[str, Navigator]:
    """Navigators of one property, by the names of the table."""
    p = trial.parameters
    pace = Pace(p["step"])
    values = known.values[:, column]
    equations = ("wave", "hj", "heat", "fp")
    share = (span[1] - span[0]) / len(equations)
    flows = {
        equation: flow(
            trial, equation, model, guide,
            (span[0] + i * share, span[0] + (i + 1) * share),
        )
        for i, equation in enumerate(equations)
    }  # fmt: skip

    def oracle(smiles: Any) -> Any:
        return scorer(smiles).values[:, column]

    return {
        "gradient": GradientFlow(guide, pace),
        "Langevin": Langevin(guide, pace, seed=trial.seed),
        "Adam": AdamAscent(guide, pace),
        "wave": flows["wave"],
        "Hamilton-Jacobi": flows["hj"],
        "heat": flows["heat"],
        "Fokker-Planck": flows["fp"],
        "linear, boundary": LinearDirection(boundary_direction(known.codes, values), pace),
        "linear, ridge": LinearDirection(ridge_direction(known.codes, values), pace),
        "random": RandomDirection(pace, seed=trial.seed),
        "random 1-D": RandomCoordinate(pace, seed=trial.seed),
        "evolutionary": Evolution(model, oracle, pace, seed=trial.seed),
        **_unsupervised(trial, model, scorer, column, span),
    }


def _unsupervised(
    trial: Trial, model: MoleculeVAE, scorer: Scorer, column: int, span: tuple[float, float]
) -> dict[str, Navigator]:
    """Unsupervised flows, and top Jacobian directions, matched to the property on other codes."""
    p = trial.parameters
    pace = Pace(p["step"])
    waves: dict[str, Navigator] = {}
    for k in range(p["free_flows"]):
        one = flow(trial, "wave", model, None, span)
        one.index = k
        waves[str(k)] = one
    top, _ = jacobian_directions(model, start_codes(64, model.latent_size, 3000), p["free_flows"])
    lines: dict[str, Navigator] = {}
    for k, direction in enumerate(top):
        lines[f"{k}+"] = LinearDirection(direction, pace)
        lines[f"{k}-"] = LinearDirection(direction, pace, minimise=True)
    codes = start_codes(p["matching_codes"], model.latent_size, 4000)
    return {
        "wave, unsupervised": waves[steadiest(waves, model, scorer, column, codes, 5)],
        "top Jacobian": lines[steadiest(lines, model, scorer, column, codes, 5)],
    }
