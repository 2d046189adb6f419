"""Out-of-distribution detection by removing the rank-1 feature or weight."""

from rankfeat.metrics import aupr, auroc, fpr95
from rankfeat.rank_feat import RankFeat, Scored
from rankfeat.rank_weight import RankWeight
from rankfeat.removal import (
    remove_effective_weight,
    remove_feature,
    remove_weight,
    standardize,
)
from rankfeat.scores import MSP, Energy, MaxLogit

__all__ = [
    # on a model, layers by name
    "RankFeat", "Scored", "RankWeight",
    # removals, on tensors
    "remove_feature", "remove_weight", "remove_effective_weight", "standardize",
    # scores of logits, larger = more in-distribution
    "Energy", "MSP", "MaxLogit",
    # metrics of two samples of scores
    "auroc", "fpr95", "aupr",
]  # fmt: skip
