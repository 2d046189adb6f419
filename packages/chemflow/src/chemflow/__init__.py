"""Latent flows through chemical space."""

__all__: list[str] = []
