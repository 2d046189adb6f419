"""Householder projectors: disentangled low-rank orthogonal directions in generators."""

from householder_gan.projector import HouseholderProjector, PartialIsometry

__all__ = ["HouseholderProjector", "PartialIsometry"]
