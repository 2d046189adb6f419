"""Riemannian multinomial logistic regression in PyTorch."""

__all__: list[str] = []
