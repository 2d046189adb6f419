"""The walk of method "sequential": each block is compressed on what the blocks before it give."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from asvd.blocks import BlockWalk, token_mask
from asvd.calibration import grouped, inputs_of, tokens
from asvd.decompose import Decomposition, Fuse, correction, factors, root, spectrum
from asvd.distributed import from_owner, is_mine, sum_tensors
from asvd.layers import LowRankLinear, factor, matrix, set_matrix
from asvd.spill import Folder
from asvd.statistics import second_moment


class _Reached(Exception):  # noqa: N818 - not an error: the rest of the block is not needed
    """The layer was called."""


@torch.no_grad()
def walk_through(
    walk: BlockWalk,
    names: Sequence[str],
    ranks: Mapping[str, int | None],
    folder: Folder,
    output_root: Callable[[str], Tensor],
    fuse: Fuse,
    ridge: float,
    decomposition: Decomposition,
    tell: Callable[[float], None],
) -> None:
    """Compresses the blocks in order, each group of layers on the inputs that it sees by then.

    `ranks` gives None for a layer that stays dense; it takes the updated weight. Hidden states
    of the compressed model are kept in the folder, and a block that is there already is put in
    place and not done again.

    Args:
        output_root: The root of a layer's output metric.
    """
    last = max(walk.index(name) for name in names)
    for i in range(last + 1):
        inside = walk.layers(i, names)
        if folder.shared(f"block/{i}"):
            _put_back(walk.model, folder.load(f"block/{i}"), inside, ranks)
        else:
            groups = _dense_inputs(walk, i, inside, folder)
            for g, (group, calls) in enumerate(groups):
                cross, gram = _joint_moments(walk, i, g, group[0], calls, folder)
                _compress_group(
                    walk.model, group, ranks, cross, gram, output_root, fuse, ridge, decomposition
                )
                for j in range(len(walk.batches)):
                    folder.remove(f"dense/{g}-{j}")
            if i < last:
                for j in range(len(walk.batches)):
                    h = walk.run(i, j, _hidden(walk, i, j, folder))
                    folder.save(f"compressed/{i + 1}-{j}", {"h": h})
            folder.save(f"block/{i}", _weights(walk.model, inside))
        for j in range(len(walk.batches)):
            folder.remove(f"compressed/{i}-{j}")
        tell((i + 1) / (last + 1))


def _hidden(walk: BlockWalk, i: int, j: int, folder: Folder) -> Tensor | None:
    """Hidden states of the compressed model before block i."""
    if i == 0 or walk.whole:
        return walk.hidden(i, j)
    return folder.load(f"compressed/{i}-{j}", walk.device(i))["h"]


def _dense_inputs(
    walk: BlockWalk, i: int, inside: Sequence[str], folder: Folder
) -> list[tuple[list[str], int]]:
    """Groups of layers that share an input, and how often a pass calls them.

    Keeps the dense model's inputs in the folder.
    """
    groups: list[tuple[list[str], int]] = []
    for j in range(len(walk.batches)):
        with inputs_of(walk.model, inside) as seen:
            walk.run(i, j, walk.hidden(i, j))
        if j == 0:
            groups = [(group, len(seen[group[0]])) for group in grouped(seen)]
        mask = token_mask(walk.batches[j])
        for g, (group, _) in enumerate(groups):
            rows = torch.cat([tokens(X, mask) for X in seen[group[0]]])
            folder.save(f"dense/{g}-{j}", {"x": rows})
    return groups


def _joint_moments(
    walk: BlockWalk, i: int, g: int, name: str, calls: int, folder: Folder
) -> tuple[Tensor, Tensor]:
    """(X X'^T, X' X'^T) of a layer: dense inputs X and those X' of the model as it is now."""
    cross: Tensor | None = None
    gram: Tensor | None = None
    for j in range(len(walk.batches)):
        X = folder.load(f"dense/{g}-{j}")["x"]
        now = _inputs_now(walk, i, j, name, calls, folder)
        step = second_moment(X.to(now.device), now), second_moment(now, now)
        cross = step[0] if cross is None else cross + step[0]
        gram = step[1] if gram is None else gram + step[1]
    if cross is None or gram is None:
        raise ValueError("calibration must hold at least one batch, got none")
    sum_tensors(cross, gram)
    return cross, gram


def _inputs_now(walk: BlockWalk, i: int, j: int, name: str, calls: int, folder: Folder) -> Tensor:
    """The tokens that the layer is called with in the model as it is now.

    The pass ends at the layer's last call: what comes after it is not needed.
    """
    seen: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple) -> None:
        seen.append(args[0].detach())
        if len(seen) == calls:
            raise _Reached

    handle = walk.model.get_submodule(name).register_forward_pre_hook(hook)
    try:
        walk.run(i, j, _hidden(walk, i, j, folder))
    except _Reached:
        pass
    finally:
        handle.remove()
    mask = token_mask(walk.batches[j])
    return torch.cat([tokens(X, mask) for X in seen])


def _compress_group(
    model: nn.Module,
    group: Sequence[str],
    ranks: Mapping[str, int | None],
    cross: Tensor,
    gram: Tensor,
    output_root: Callable[[str], Tensor],
    fuse: Fuse,
    ridge: float,
    decomposition: Decomposition,
) -> None:
    n = len(gram)
    S = root(gram, ridge)
    K = correction(cross, gram, ridge)
    for position, name in enumerate(group):
        dense = model.get_submodule(name)
        W = matrix(dense)
        rank = ranks[name]
        compute = torch.float64 if W.dtype == torch.float64 else torch.float32
        M = (W.to(K.dtype) @ K).to(compute) if is_mine(position) else None
        if rank is None:
            weight = torch.empty_like(W) if M is None else M.to(W.dtype).contiguous()
            from_owner((weight,), position)
            set_matrix(dense, weight)
            continue
        A, B = W.new_empty(W.shape[0], rank), W.new_empty(rank, n)
        if M is not None:
            R = output_root(name).to(M.device)
            subspace = spectrum(M, S, R, rank, decomposition)
            A, B = (F.to(W.dtype).contiguous() for F in factors(M, subspace, rank, fuse))
        from_owner((A, B), position)
        factor(model, name, A, B)


def _weights(model: nn.Module, inside: Sequence[str]) -> dict[str, Tensor]:
    """What a block was given, for a run that goes on later."""
    kept: dict[str, Tensor] = {"done": torch.ones(1)}
    for name in inside:
        layer = model.get_submodule(name)
        if isinstance(layer, LowRankLinear):
            kept[f"A/{name}"] = layer.ALinear.weight.detach()
            kept[f"B/{name}"] = layer.BLinear.weight.detach()
        else:
            kept[f"W/{name}"] = matrix(layer)
    return kept


def _put_back(
    model: nn.Module,
    kept: Mapping[str, Tensor],
    inside: Sequence[str],
    ranks: Mapping[str, int | None],
) -> None:
    for name in inside:
        if ranks[name] is None:
            set_matrix(model.get_submodule(name), kept[f"W/{name}"])
        else:
            factor(model, name, kept[f"A/{name}"], kept[f"B/{name}"])
