"""Experiments on real generators, run by the command `eigenworks`."""
