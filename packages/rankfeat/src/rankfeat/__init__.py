"""Out-of-distribution detection by removing the rank-1 feature or weight."""

__all__: list[str] = []
