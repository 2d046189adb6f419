"""Runs the experiments of the eigenworks packages on real data and writes one report."""

from eigenworks.experiment import Claim, Experiment, Figure, Row, Size, Trial
from eigenworks.plots import Bars, Curve, HeatMap, Lines, Picture
from eigenworks.statistics import Interval, wilson

__all__ = [
    "Claim",
    "Experiment",
    "Figure",
    "Row",
    "Size",
    "Trial",
    "Bars",
    "Curve",
    "HeatMap",
    "Lines",
    "Picture",
    "Interval",
    "wilson",
]
