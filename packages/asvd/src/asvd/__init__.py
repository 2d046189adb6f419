"""Activation-aware SVD compression of language models."""

__all__: list[str] = []
