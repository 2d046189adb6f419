"""Walks through the codes of MOSES molecules: every navigator on paths of one length.

And how good the codes are to begin with: what a one-shot and an autoregressive decoder make of
draws from N(0, I) and from a learned prior.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from eigenworks import Claim, Curve, Experiment, Figure, Lines, Row, Size, Trial
from eigenworks.data import MOSES, ZINC_LOW_PLOGP

from chemflow.experiments.artefacts import bar, molecules, trained_vae, with_prior
from chemflow.experiments.guides import labelled, supervised, surrogate
from chemflow.metrics import fcd
from chemflow.molecules import Molecules
from chemflow.navigators import GradientFlow, Langevin, RandomDirection
from chemflow.oracles import LOGP_MINUS_SA, QED, plogp
from chemflow.pace import Pace
from chemflow.prior import standard_sample
from chemflow.protocol import Navigator
from chemflow.scoring import Scorer
from chemflow.standardise import MoleculeError, Standardiser
from chemflow.surrogate import Surrogate
from chemflow.training import Options
from chemflow.vae import MoleculeVAE, preset

PROPERTIES = ("logP-SA", "QED")


def run(trial: Trial) -> Iterator[Row]:
    """Models, walks from codes of N(0, I), walks from molecules, samples."""
    p = trial.parameters
    workers = max(1, trial.threads)
    trial.progress(0.0, "molecules")
    data = molecules("moses", p["rows"], p["held"], workers)
    tiny = trained_vae(
        data, p["rows"], preset("tiny", data.ids.shape[1]), Options(p["epochs"], 512, 1e-3), 0.03,
        0.0, bar(trial, (0.05, 0.25), "tiny"),
    )  # fmt: skip
    yield from reconstruction("tiny", tiny, data, p["rows"])
    with Scorer((LOGP_MINUS_SA, QED), workers) as scorer:
        trial.progress(0.25, "labels")
        known = labelled(tiny, data, p["rows"], p["labels"], scorer)
        guides = []
        for column, name in enumerate(PROPERTIES):
            begin = 0.3 + 0.2 * column
            guide = surrogate(trial, tiny, known, column, name, (begin, begin + 0.05))
            guides.append(guide)
            assert guide.quality is not None
            yield Row(f"surrogate of {name}", "held-out r", guide.quality.r, better="higher")
            span = (begin + 0.05, begin + 0.15)
            chosen = supervised(trial, tiny, scorer, column, known, guide, span)
            trial.progress(begin + 0.15, f"walks, {name}")
            yield from walks(trial, tiny, scorer, column, name, guide, chosen)
        if p["constrained_steps"] and ZINC_LOW_PLOGP.available():
            trial.progress(0.7, "walks from molecules")
            yield from constrained(trial, tiny, guides[0], workers)
        yield from samples(trial, tiny, data, scorer)


@torch.no_grad()
def reconstruction(name: str, model: MoleculeVAE, data: Molecules, rows: int) -> Iterator[Row]:
    """How many held-out molecules come back."""
    ids = torch.from_numpy(data.ids[rows:]).long()
    same = (model.decode_ids(model.encode_ids(ids)) == ids).all(1).double().mean().item()
    yield Row(f"{name}, held-out molecules", "exact reconstruction", 100 * same, "%", "higher")


def walks(
    trial: Trial,
    model: MoleculeVAE,
    scorer: Scorer,
    column: int,
    name: str,
    guide: Surrogate,
    navigators: dict[str, Navigator],
) -> Iterator[Row]:
    """Means, best three and improved share of the oracle's values, and the surrogate's mean."""
    p = trial.parameters
    rows = torch.arange(p["codes"])
    # Of N(0, I), as the figures that are compared with.
    start = standard_sample(rows, model.latent_size, 5000 + trial.seed)
    begin = scorer(model.decode_smiles(start)).values[:, column]
    metric = "mean"
    yield Row(f"{name}, start", metric, float(np.nanmean(begin)))
    yield Row(f"{name}, start", "best three, mean", best_three(begin))
    curves, asked = [], 0
    for label, navigator in navigators.items():
        costly = label == "evolutionary"
        z = start[: p["evolution_codes"]] if costly else start
        means = [float(np.nanmean(begin[: len(z)]))]
        reached = [0]
        for t in range(p["steps"][0] if costly else p["steps"][-1]):
            z = navigator.step(z, t, rows[: len(z)])
            if t + 1 not in p["steps"]:
                continue
            values = scorer(model.decode_smiles(z)).values[:, column]
            means.append(float(np.nanmean(values)))
            reached.append(t + 1)
            where = f"{name}, {label}, {t + 1} steps"
            # What is no molecule has not improved.
            improved = float((values > begin[: len(z)]).mean())
            yield Row(where, metric, means[-1], better="higher")
            yield Row(where, "improved", 100 * improved, "%", "higher")
            yield Row(where, "best three, mean", best_three(values), better="higher")
            yield Row(where, "surrogate says", float(guide.predict(z).detach().mean()))
        asked += navigator.oracle_calls
        curves.append(Curve(label, reached, means))
    picture = Lines(f"Mean {name} along paths of one length", "steps", name, tuple(curves))
    yield Row(f"{name}, evolutionary", "molecules scored on the way", asked, plots=(picture,))


def best_three(values: np.ndarray) -> float:
    """Mean of the three highest."""
    return float(np.sort(values[np.isfinite(values)])[-3:].mean())


def constrained(trial: Trial, model: MoleculeVAE, guide: Surrogate, workers: int) -> Iterator[Row]:
    """Penalised logP of the 800 low molecules, against the true input molecule."""
    from chemflow.tasks import optimize

    p = trial.parameters
    standardise = Standardiser(stereo=False, neutralise=True, fragments="largest")
    inputs: list[str] = []
    for one in ZINC_LOW_PLOGP.load():
        smiles = standardise(one)
        try:
            model.encode_smiles([smiles])
        except MoleculeError:
            continue
        inputs.append(smiles)
    yield Row("800 low molecules", "have a code in MOSES' tokens", len(inputs))
    pace = Pace(p["step"])
    chosen = {
        "gradient": GradientFlow(guide, pace),
        "Langevin": Langevin(guide, pace, seed=trial.seed),
        "random": RandomDirection(pace, seed=trial.seed),
    }
    for label, navigator in chosen.items():
        found = optimize(
            model, navigator, plogp("normalised"), start=inputs, steps=p["constrained_steps"],
            seed=trial.seed, workers=workers, keep_rows=False,
        )  # fmt: skip
        for threshold in (0.0, 0.2, 0.4, 0.6):
            gain = found.improvement(threshold, reference="input")
            where = f"similarity ≥ {threshold:g}, {label}"
            yield Row(where, "success", 100 * gain.success, "%", "higher")
            if math.isfinite(gain.mean):
                yield Row(where, "improvement of plogP", gain.mean, better="higher")


def samples(trial: Trial, tiny: MoleculeVAE, data: Molecules, scorer: Scorer) -> Iterator[Row]:
    """Draws of both decoders from both priors, beside held-out molecules."""
    p = trial.parameters
    trial.progress(0.8, "autoregressive decoder")
    config = preset("ar", data.ids.shape[1])
    many, few = p["ar_epochs"]
    precise = trained_vae(
        data, p["rows"], config, Options(many, 64, 1.5e-3, clip=5.0, average=0.999), 0.2, 0.1,
        bar(trial, (0.8, 0.87), "ar"),
    )  # fmt: skip
    yield from reconstruction("ar, β = 0.2", precise, data, p["rows"])
    # With a small β the codes of molecules fill little of N(0, I): draws of it lie beside them.
    recurrent = trained_vae(
        data, p["rows"], config, Options(few, 64, 1e-3, clip=5.0, seed=1), 0.7, 0.0,
        bar(trial, (0.87, 0.9), "ar, β = 0.7"), precise,
    )  # fmt: skip
    yield from reconstruction("ar", recurrent, data, p["rows"])
    n = p["samples"]
    held = data.smiles(p["rows"], p["rows"] + 2 * n)
    reference, other = held[:n], held[n:]
    expected = float(np.nanmean(scorer(reference).values[:, 1]))
    yield from judged("held-out molecules", other, reference, expected, scorer)
    train = set(data.smiles(0, p["rows"]))
    rows = torch.arange(n)
    for name, model in (("tiny", tiny), ("ar", recurrent)):
        codes = standard_sample(rows, model.latent_size, 6000 + trial.seed)
        plain = model.decode_smiles(codes)
        yield from judged(f"{name}, N(0, I)", plain, reference, expected, scorer, train)
        learned = with_prior(
            model, data, p["rows"], Options(p["prior_epochs"], 512, 1e-3, average=0.999),
            p["prior_width"], bar(trial, (0.9, 0.95), f"prior of {name}"),
        )  # fmt: skip
        seed = 6000 + trial.seed
        likely = learned.decode_smiles(learned.sample_codes(rows, seed))
        yield from judged(
            f"{name}, learned prior, likeliest tokens", likely, reference, expected, scorer, train
        )
        drawn = learned.sample_smiles(rows, seed)
        yield from judged(f"{name}, learned prior", drawn, reference, expected, scorer, train)


def judged(
    label: str,
    smiles: Sequence[str],
    reference: Sequence[str],
    expected: float,
    scorer: Scorer,
    train: set[str] | None = None,
) -> Iterator[Row]:
    """Fréchet ChemNet distance to as many held-out molecules, QED, and how many are molecules."""
    scored = scorer(smiles)
    valid = [one for one in scored.canonical if one]
    n = len(smiles)
    yield Row(
        f"samples of {label}", f"FCD, {n} molecules", fcd(valid, reference).value, better="lower"
    )
    qed = float(np.nanmean(scored.values[:, 1]))
    yield Row(f"samples of {label}", "QED", qed)
    yield Row(f"samples of {label}", "distance of mean QED", abs(qed - expected), better="lower")
    yield Row(f"samples of {label}", "valid", 100 * len(valid) / n, "%", "higher")
    yield Row(f"samples of {label}", "different", 100 * len(set(valid)) / n, "%", "higher")
    if train is not None:
        new = sum(one not in train for one in set(valid)) / max(1, len(set(valid)))
        yield Row(f"samples of {label}", "new", 100 * new, "%", "higher")


_BEFORE = (
    "a SELFIES VAE of 2.4 million parameters and a surrogate on probabilities, of these sizes; "
    "150 codes, one seed"
)

experiment = Experiment(
    name="chemflow/moses",
    title="Walks through the codes of molecules",
    claim=Claim(
        "The gradient of a surrogate on decoded probabilities improves molecules; flows of "
        "potentials do not dominate it at equal path length",
        source="Wei et al., NeurIPS 2024, sections 4.2 and 4.4",
    ),
    run=run,
    quick=Size(
        seconds=100,
        seeds=(0,),
        parameters={
            "rows": 9000,
            "held": 1000,
            "epochs": 6,
            "labels": 1500,
            "members": 1,
            "width": 32,
            "surrogate_epochs": 8,
            "flow_epochs": 1,
            "flow_codes": 1280,
            "free_flows": 2,
            "matching_codes": 12,
            "step": 0.2,
            "steps": (10,),
            "codes": 60,
            "evolution_codes": 10,
            "constrained_steps": 0,
            "samples": 300,
            "ar_epochs": (1, 1),
            "prior_epochs": 4,
            "prior_width": 128,
        },
    ),
    full=Size(
        seconds=500,
        seeds=(0, 1, 2),
        parameters={
            "rows": 50000,
            "held": 5000,
            "epochs": 24,
            "labels": 10000,
            "members": 2,
            "width": 32,
            "surrogate_epochs": 8,
            "flow_epochs": 2,
            "flow_codes": 6400,
            "free_flows": 4,
            "matching_codes": 32,
            "step": 0.2,
            "steps": (10, 40),
            "codes": 200,
            "evolution_codes": 50,
            "constrained_steps": 10,
            "samples": 1500,
            "ar_epochs": (14, 4),
            "prior_epochs": 30,
            "prior_width": 256,
        },
    ),
    data=(MOSES,),
    figures=(
        Figure("logP-SA, start", "mean", -2.47, _BEFORE, 0.5),
        Figure("logP-SA, gradient, 10 steps", "mean", -0.36, _BEFORE, 0.0, "at least"),
        Figure("logP-SA, gradient, 10 steps", "improved", 81.0, _BEFORE, 0.0, "at least"),
        Figure("QED, start", "mean", 0.40, _BEFORE, 0.05),
        Figure("QED, gradient, 10 steps", "mean", 0.48, _BEFORE, 0.0, "at least"),
        Figure("tiny, held-out molecules", "exact reconstruction", 71.5, _BEFORE, 2.0),
        Figure(
            "samples of ar, learned prior, likeliest tokens",
            "FCD, 1500 molecules",
            8.0,
            "this project's aim",
            0.0,
            "at most",
        ),
        Figure(
            "samples of ar, learned prior, likeliest tokens",
            "distance of mean QED",
            0.05,
            "this project's aim",
            0.0,
            "at most",
        ),
    ),
    headline=(("logP-SA, gradient, 10 steps", "mean"),),
    notes="A step moves every code by 0.2 with every navigator; codes of N(0, I) have a norm of "
    "11.3. Values are the oracle's of decoded molecules, the surrogate's stand beside them. "
    "Models, surrogates and flows are those of seed 0 and are kept between runs; seeds draw "
    "start codes, noise and random directions, so that intervals do not cover training. "
    "Evolution asks the oracle on its way and takes part with fewer codes and ten steps. Walks "
    "from molecules need "
    "EIGENWORKS_DATA; charges and stereochemistry, which MOSES' tokens cannot write, are removed "
    "first, and what still has no code takes no part. Tables of the paper are for other data and a "
    "model of 134 million parameters, and are not compared.",
)
