"""Flow factorized representation learning (Song, Keller, Sebe, Welling; NeurIPS 2023)."""

from .baselines import linear_directions, train_vae, with_directions, with_wave_potentials
from .data import (
    FactorImages,
    Held,
    TransformedImages,
    red_digits,
    shapes3d,
    split,
)
from .disentanglement import dci, displacements, mutual_information_gap, vp_score
from .elbo import Bound, Objective, sequence_bound
from .equivariance import (
    Comparison,
    EquivarianceError,
    commutator,
    compare,
    compare_schedule,
    equivariance_error,
)
from .flow import LatentFlow, Path
from .likelihood import log_likelihood
from .model import Config, FlowFactorVAE
from .networks import Bernoulli, Gaussian
from .posterior import FlowClassifier, Temperature, gumbel_softmax, match_flows
from .prior import HeatPrior, OfficialPrior
from .train import Options, Progress, Trainer
from .transforms import Hue, Rotation, Scale, Shear, Transformation, Translation
from .transport import path_cost, squared_wasserstein, transport_excess

__all__ = [
    "FlowFactorVAE", "Config", "LatentFlow", "Path",
    "HeatPrior", "OfficialPrior", "Bernoulli", "Gaussian",
    "FlowClassifier", "Temperature", "gumbel_softmax", "match_flows",
    "sequence_bound", "Bound", "Objective",
    "Trainer", "Options", "Progress",
    "TransformedImages", "FactorImages", "Held", "split", "red_digits", "shapes3d",
    "Transformation", "Scale", "Rotation", "Hue", "Shear", "Translation",
    "equivariance_error", "EquivarianceError", "compare", "compare_schedule", "Comparison",
    "commutator", "log_likelihood",
    "path_cost", "squared_wasserstein", "transport_excess",
    "vp_score", "displacements", "mutual_information_gap", "dci",
    "train_vae", "linear_directions", "with_directions", "with_wave_potentials",
]  # fmt: skip
