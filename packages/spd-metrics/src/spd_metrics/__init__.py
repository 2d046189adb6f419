"""Riemannian metrics on SPD and Cholesky manifolds, gyro operations, means and SPD network layers for PyTorch."""

__all__: list[str] = []
