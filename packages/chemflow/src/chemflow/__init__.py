"""Latent flows through chemical space."""

from chemflow.directions import boundary_direction, jacobian_directions, ridge_direction
from chemflow.flow_task import FlowObjective, FlowTask
from chemflow.flows import (
    FokkerPlanckFlow,
    HamiltonJacobiFlow,
    HeatFlow,
    PotentialFlow,
    WaveFlow,
)
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
from chemflow.prior import LatentPrior, PriorTask
from chemflow.surrogate import Surrogate, fit_surrogate
from chemflow.training import Options, Trainer
from chemflow.vae import MoleculeVAE, load_model, save_model
from chemflow.vae_task import VAETask

__all__ = [
    "MoleculeVAE", "VAETask", "load_model", "save_model", "LatentPrior", "PriorTask",
    "Surrogate", "fit_surrogate", "Trainer", "Options",
    "Pace", "GradientFlow", "Langevin", "RandomDirection", "RandomCoordinate", "LinearDirection",
    "AdamAscent", "Evolution",
    "PotentialFlow", "WaveFlow", "HamiltonJacobiFlow", "HeatFlow", "FokkerPlanckFlow",
    "FlowTask", "FlowObjective",
    "boundary_direction", "ridge_direction", "jacobian_directions",
]  # fmt: skip
