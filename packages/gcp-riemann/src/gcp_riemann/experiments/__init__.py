"""Experiments of the workspace's command; they need the extra `experiments`."""
