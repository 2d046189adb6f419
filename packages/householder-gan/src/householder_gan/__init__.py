"""Householder projectors: disentangled low-rank orthogonal directions in generators."""

__all__: list[str] = []
