"""Moments of a block's layers over the calibration batches, gathered by hooks."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from asvd.blocks import BlockWalk, Loss, token_mask
from asvd.distributed import sum_moments
from asvd.statistics import GradientMoments, InputMoments


@dataclass
class BlockMoments:
    """Moments of the layers of one block.

    Attributes:
        groups: Names of layers that read the same tensor (query, key and value; gate and up),
            in the order in which the block calls them.
        inputs: Moments of the inputs, one object for a whole group.
        gradients: Moments of the output gradients; empty where none were asked for.
    """

    groups: list[list[str]] = field(default_factory=list)
    inputs: dict[str, InputMoments] = field(default_factory=dict)
    gradients: dict[str, GradientMoments] = field(default_factory=dict)

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, for safetensors; shared ones once."""
        flat: dict[str, Tensor] = {}
        for g, group in enumerate(self.groups):
            for name, tensor in self.inputs[group[0]].state().items():
                flat[f"inputs/{g}/{name}"] = tensor
            flat[f"group/{g}"] = torch.tensor(list("\n".join(group).encode()), dtype=torch.uint8)
        for layer, moments in self.gradients.items():
            flat |= {f"gradients/{layer}/{name}": t for name, t in moments.state().items()}
        return flat

    @classmethod
    def from_state(cls, flat: dict[str, Tensor]) -> "BlockMoments":
        """The inverse of `state`."""
        moments = cls()
        for g in range(sum(key.startswith("group/") for key in flat)):
            group = bytes(flat[f"group/{g}"].tolist()).decode().split("\n")
            shared = InputMoments.from_state(_under(flat, f"inputs/{g}/"))
            moments.groups.append(group)
            moments.inputs |= dict.fromkeys(group, shared)
        layers = {key.split("/")[1] for key in flat if key.startswith("gradients/")}
        for layer in sorted(layers):
            moments.gradients[layer] = GradientMoments.from_state(
                _under(flat, f"gradients/{layer}/")
            )
        return moments


@contextmanager
def inputs_of(model: nn.Module, names: Sequence[str]) -> Generator[dict[str, list[Tensor]]]:
    """While it lasts, the tensors that each named layer is called with, detached."""
    seen: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        for name in names:

            def hook(_module: nn.Module, args: tuple, name: str = name) -> None:
                seen.setdefault(name, []).append(args[0].detach())

            stack.callback(model.get_submodule(name).register_forward_pre_hook(hook).remove)
        yield seen


def tokens(X: Tensor, mask: Tensor | None) -> Tensor:
    """X (..., n) as rows, without those of padding where the mask fits its leading shape."""
    if mask is not None and X.shape[:-1] == mask.shape:
        return X[mask]
    return X.reshape(-1, X.shape[-1])


@torch.no_grad()
def input_moments(walk: BlockWalk, i: int, names: Sequence[str], gram: bool) -> BlockMoments:
    """Input moments of the layers `names` of block i over all batches and processes.

    Raises ValueError for a layer that no batch reaches, NonFiniteActivationError (with the
    layer's name) for activations that are NaN or infinite.
    """
    moments = BlockMoments()
    for j in range(len(walk.batches)):
        mask = token_mask(walk.batches[j])
        with inputs_of(walk.model, names) as seen:
            walk.run(i, j, walk.hidden(i, j))
        if not moments.groups:
            moments.groups = grouped(seen)
            for group in moments.groups:
                n = seen[group[0]][0].shape[-1]
                device = seen[group[0]][0].device
                shared = InputMoments.zero(n, gram, device)
                moments.inputs |= dict.fromkeys(group, shared)
        for group in moments.groups:
            for X in seen.get(group[0], ()):
                moments.inputs[group[0]].add(tokens(X, mask), group[0])
    for name in names:
        if name not in moments.inputs:
            raise ValueError(f"layer {name!r} saw no calibration token; leave it out with skip=")
    for group in moments.groups:
        sum_moments(moments.inputs[group[0]])
    return moments


def gradient_moments(
    walk: BlockWalk, i: int, names: Sequence[str], loss: Loss, fisher: bool
) -> dict[str, GradientMoments]:
    """Output-gradient moments of the layers of block i; blocks must be asked last to first.

    The gradient by the block's input is left in the folder for the block before. The one that
    this block needed is left too: it may go when the moments have been kept.
    """
    found: dict[str, GradientMoments] = {}
    for j, batch in enumerate(walk.batches):
        h = walk.hidden(i, j)
        if h is not None:
            h.requires_grad_()
        with _outputs_of(walk.model, names) as seen, torch.enable_grad():
            out = walk.run(i, j, h)
            layers = [(name, X, Y) for name, pairs in seen.items() for X, Y in pairs]
            wanted = [Y for _, _, Y in layers]
            if h is None:
                slopes = torch.autograd.grad(loss(out, batch), wanted, allow_unused=True)
            else:
                above = _gradient_above(walk, i, j, loss)
                below, *slopes = torch.autograd.grad(out, [h, *wanted], above, allow_unused=True)
                walk.folder.save(f"gradient/{i}-{j}", {"g": below})
        mask = token_mask(batch)
        for (name, X, Y), slope in zip(layers, slopes, strict=True):
            if name not in found:
                found[name] = GradientMoments.zero(Y.shape[-1], X.shape[-1], Y.device, fisher)
            if slope is not None:
                found[name].add(tokens(slope, mask), tokens(X, mask), name)
    for moments in found.values():
        sum_moments(moments)
    return found


def _gradient_above(walk: BlockWalk, i: int, j: int, loss: Loss) -> Tensor:
    if i + 1 == len(walk):
        return walk.loss_gradient(loss, j)
    return walk.folder.load(f"gradient/{i + 1}-{j}")["g"]


@contextmanager
def _outputs_of(
    model: nn.Module, names: Sequence[str]
) -> Generator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """While it lasts, (input, output) of each call of each named layer, output with its graph."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with ExitStack() as stack:
        for name in names:

            def hook(_module: nn.Module, args: tuple, out: Tensor, name: str = name) -> Tensor:
                # A model whose parameters are frozen has no graph before the first layer.
                out = out if out.requires_grad else out.detach().requires_grad_()
                seen.setdefault(name, []).append((args[0].detach(), out))
                return out

            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield seen


def grouped(seen: dict[str, list[Tensor]]) -> list[list[str]]:
    """Layers by the tensor that they read; all tensors are alive, so that addresses differ."""
    groups: dict[tuple, list[str]] = {}
    for name, calls in seen.items():
        key = tuple((X.data_ptr(), X.shape, X.stride()) for X in calls)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _under(flat: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in flat.items() if key.startswith(prefix)}
