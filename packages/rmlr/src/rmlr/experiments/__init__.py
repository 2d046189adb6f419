"""Experiments of rmlr, for `eigenworks run rmlr`."""
