"""Batch normalisation on Lie groups: SPD matrices and rotations, in PyTorch."""

__all__: list[str] = []
