"""Global covariance pooling and its Riemannian classifiers in PyTorch."""

__all__: list[str] = []
