"""Experiments on real data (extra `experiments`); nothing else in the package imports them."""
