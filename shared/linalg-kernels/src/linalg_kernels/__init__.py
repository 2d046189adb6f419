"""Batched, differentiable matrix functions and factorisations for PyTorch."""

__all__: list[str] = []
