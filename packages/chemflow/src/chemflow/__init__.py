"""Latent flows through chemical space."""

from chemflow.candidates import Candidate
from chemflow.directions import boundary_direction, jacobian_directions, ridge_direction
from chemflow.flow_task import FlowObjective, FlowTask
from chemflow.flows import (
    FokkerPlanckFlow,
    HamiltonJacobiFlow,
    HeatFlow,
    PotentialFlow,
    WaveFlow,
)
from chemflow.manipulation import Manipulation, manipulate
from chemflow.matching import Matching, match_directions
from chemflow.molecules import Molecules, encode
from chemflow.multi_objective import MinNorm, Sequential, Weighted
from chemflow.navigators import (
    AdamAscent,
    Evolution,
    GradientFlow,
    Langevin,
    LinearDirection,
    RandomCoordinate,
    RandomDirection,
)
from chemflow.objective import Objective, weighted
from chemflow.optimization import Optimization, load_optimization
from chemflow.oracles import (
    LOGP,
    LOGP_MINUS_SA,
    MPO,
    QED,
    SA,
    Desirability,
    Oracle,
    Property,
    Similarity,
    plogp,
)
from chemflow.pace import Pace
from chemflow.prior import LatentPrior, PriorTask
from chemflow.protocol import LatentModel, Navigator
from chemflow.scoring import Scorer, tanimoto
from chemflow.standardise import MoleculeError, Standardiser, canonical
from chemflow.statistics import Interval, over_seeds, wilson
from chemflow.surrogate import Surrogate, fit_surrogate
from chemflow.tasks import optimize
from chemflow.training import Options, Trainer
from chemflow.vae import MoleculeVAE, load_model, save_model
from chemflow.vae_task import VAETask
from chemflow.vocabulary import Vocabulary

__all__ = [
    "MoleculeVAE", "VAETask", "load_model", "save_model", "LatentPrior", "PriorTask",
    "Surrogate", "fit_surrogate", "Trainer", "Options",
    "Pace", "GradientFlow", "Langevin", "RandomDirection", "RandomCoordinate", "LinearDirection",
    "AdamAscent", "Evolution",
    "PotentialFlow", "WaveFlow", "HamiltonJacobiFlow", "HeatFlow", "FokkerPlanckFlow",
    "FlowTask", "FlowObjective",
    "encode", "Molecules", "Vocabulary", "Standardiser", "MoleculeError", "canonical",
    "Oracle", "Property", "QED", "SA", "LOGP", "LOGP_MINUS_SA", "plogp", "Similarity",
    "Desirability", "MPO", "Scorer", "tanimoto",
    "optimize", "Optimization", "load_optimization", "Candidate", "Objective", "weighted",
    "manipulate", "Manipulation", "match_directions", "Matching",
    "Weighted", "Sequential", "MinNorm", "LatentModel", "Navigator",
    "Interval", "wilson", "over_seeds",
    "boundary_direction", "ridge_direction", "jacobian_directions",
]  # fmt: skip
