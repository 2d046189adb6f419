"""Runs the experiments of the eigenworks packages on real data and writes one report."""

__all__: list[str] = []
