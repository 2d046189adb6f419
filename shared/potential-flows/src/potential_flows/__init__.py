"""Smooth scalar potentials u(z, t), their derivatives, PDE residuals and steppers for PyTorch."""

__all__: list[str] = []
