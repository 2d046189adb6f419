"""Experiments of chemflow, for the command `eigenworks`."""
