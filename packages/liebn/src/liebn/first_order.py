"""Rules of autograd that give first derivatives say so when a second one is asked for."""

import torch


def refuse_second_derivative(what: str) -> None:
    """NotImplementedError in a backward pass that builds a graph of itself."""
    if torch.is_grad_enabled():
        raise NotImplementedError(f"{what} has first derivatives only, not those of create_graph")
