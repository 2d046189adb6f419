"""Flow-factorised representation learning."""

__all__: list[str] = []
