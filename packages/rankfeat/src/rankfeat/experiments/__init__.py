"""Experiments of rankfeat for the `eigenworks` command (extra `experiments`)."""
