"""Experiments of flowfactor for the `eigenworks` command (extra `experiments`)."""
