"""Experiments of spd-metrics for the `eigenworks` command (extra `experiments`)."""
