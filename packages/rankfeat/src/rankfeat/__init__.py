"""Out-of-distribution detection by removing the rank-1 feature or weight."""

from rankfeat.adapters import from_openood, from_pytorch_ood, to_openood, to_pytorch_ood
from rankfeat.baselines import ASH, KNN, LogitDetector, ReAct, ViM
from rankfeat.detector import Detector, Scored
from rankfeat.drift import Drift, check_drift
from rankfeat.evaluate import Evaluation, evaluate, shard
from rankfeat.metrics import OPENOOD, PAPER, Convention, aupr, auroc, fpr95
from rankfeat.rank_feat import RankFeat
from rankfeat.rank_weight import RankWeight
from rankfeat.removal import (
    remove_effective_weight,
    remove_feature,
    remove_weight,
    standardize,
)
from rankfeat.roll_call import LostProcessError
from rankfeat.scores import MSP, Energy, MaxLogit
from rankfeat.streaming import ScoreCounter
from rankfeat.suggest import Suggestion, singular_values, suggest_layers

__all__ = [
    # on a model, layers by name
    "RankFeat", "Scored", "RankWeight",
    # other detectors, and what all of them are
    "LogitDetector", "ReAct", "ASH", "ViM", "KNN", "Detector",
    "from_pytorch_ood", "to_pytorch_ood", "from_openood", "to_openood",
    # removals, on tensors
    "remove_feature", "remove_weight", "remove_effective_weight", "standardize",
    # scores of logits, larger = more in-distribution
    "Energy", "MSP", "MaxLogit",
    # metrics of two samples of scores
    "auroc", "fpr95", "aupr", "Convention", "PAPER", "OPENOOD", "ScoreCounter",
    # on data
    "suggest_layers", "Suggestion", "singular_values",
    "evaluate", "Evaluation", "shard", "LostProcessError", "check_drift", "Drift",
]  # fmt: skip
