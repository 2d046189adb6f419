"""Experiments of asvd for the `eigenworks` command (extra `experiments`)."""
