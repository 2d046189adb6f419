"""Scores of what latent displacements say of the transformation: VP, MIG, DCI.

The paper's flows share all n coordinates, so scores that want one coordinate a factor (MIG,
DCI) are taken of displacements here, which is a choice of this package, not of the paper.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .data import SequenceSource
from .model import FlowFactorVAE


@torch.no_grad()
def displacements(
    model: FlowFactorVAE, source: SequenceSource, count: int, seed: int
) -> tuple[Float[Tensor, "count n"], Int64[Tensor, "count flows"]]:
    """Displacements μ(x_t) - μ(x_0), and how many steps of each transformation made them.

    Each has one transformation and t between 1 and T.
    """
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(source.size, (count,), generator=g)
    k = torch.randint(len(source.names), (count,), generator=g)
    t = torch.randint(1, source.steps + 1, (count,), generator=g)
    frames = source.frames(rows, k).to(next(model.parameters()))
    last = frames[torch.arange(count), t]
    codes = model.encode(last)[0] - model.encode(frames[:, 0])[0]
    amounts = torch.zeros(count, len(source.names), dtype=torch.int64)
    amounts[torch.arange(count), k] = t
    return codes, amounts


def mutual_information_gap(
    codes: Float[Tensor, "count n"], factors: Int64[Tensor, "count factors"], bins: int = 20
) -> float:
    """Mean over factors of (I(c₁; v) - I(c₂; v)) / H(v), c₁ and c₂ the two best coordinates.

    Chen et al. 2018. Coordinates are cut into bins of equal width; a factor that does not vary
    counts 0.
    """
    binned = _bins(codes, bins)
    gaps = []
    for v in factors.T:
        _, v = v.unique(return_inverse=True)
        entropy = _entropy(v.bincount())
        if entropy == 0:
            gaps.append(0.0)
            continue
        info = torch.stack([_mutual_information(c, v) for c in binned.T]).sort().values
        second = info[-2] if len(info) > 1 else info.new_zeros(())
        gaps.append(((info[-1] - second) / entropy).item())
    return sum(gaps) / len(gaps)


@dataclass(frozen=True)
class DCI:
    """Eastwood and Williams 2018: each between 0 and 1, 1 the best."""

    disentanglement: float
    completeness: float
    informativeness: float


def dci(
    codes: Float[Tensor, "count n"], factors: Int64[Tensor, "count factors"], seed: int = 0
) -> DCI:
    """Importances R_ij of coordinate i for factor j by random forests; needs scikit-learn.

    Disentanglement weighs 1 - H(R_i·)/log K by the coordinate's share of importance,
    completeness is the mean of 1 - H(R_·j)/log n, informativeness the accuracy on the half of
    the rows that the forests have not seen.
    """
    from sklearn.ensemble import RandomForestClassifier

    x, half = codes.cpu().numpy(), len(codes) // 2
    columns, hits = [], []
    for v in factors.T.cpu().numpy():
        # All coordinates at each split: otherwise idle ones share in the importance.
        forest = RandomForestClassifier(50, max_depth=8, max_features=None, random_state=seed)
        forest.fit(x[:half], v[:half])
        columns.append(torch.from_numpy(forest.feature_importances_))
        hits.append(float((forest.predict(x[half:]) == v[half:]).mean()))
    R = torch.stack(columns, 1)

    def clear(p: Tensor, dim: int) -> Tensor:
        total = p.sum(dim, keepdim=True)
        share = p / total.where(total > 0, 1.0)
        entropy = -torch.special.xlogy(share, share).sum(dim)
        return 1 - entropy / torch.tensor(p.shape[dim]).log().clamp_min(1e-300)

    weight = R.sum(1) / R.sum()
    return DCI(
        (weight * clear(R, 1)).sum().item(), clear(R, 0).mean().item(), sum(hits) / len(hits)
    )


def vp_score(
    model: FlowFactorVAE,
    source: SequenceSource,
    *,
    count: int = 1000,
    train_share: float = 0.1,
    iterations: int = 300,
    seed: int = 0,
) -> float:
    """Variation predictability: how well a small network names k from pairs of decoded images.

    Zhu et al. 2020. Pairs (decode(z_0), decode(z_T)) of each flow; an MLP learns from a share
    of them (0.01 or 0.1 in the literature) and is scored on the rest.

    Args:
        count: Pairs of each flow.
        train_share: Share of the pairs that is learned from.

    Returns the accuracy, between 0 and 1.
    """
    g = torch.Generator().manual_seed(seed)
    pairs, labels = [], []
    with torch.no_grad():
        for k in range(model.flow.flows):
            rows = torch.randint(source.size, (count,), generator=g)
            for chunk in rows.split(250):
                none = torch.zeros(len(chunk), dtype=torch.int64)
                x = source.frames(chunk, none, 0)[:, 0].to(next(model.parameters()))
                path = model.flow.rollout(model.encode(x)[0], k, source.steps)
                pairs.append(model.decode(path[[0, -1]]).transpose(0, 1).flatten(1))
                labels.append(torch.full((len(chunk),), k))
    x, y = torch.cat(pairs), torch.cat(labels).to(pairs[0].device)
    order = torch.randperm(len(x), generator=g).to(x.device)
    learned = order[: max(model.flow.flows, round(train_share * len(x)))]
    held = order[len(learned) :]
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, model.flow.flows))
    net = net.to(x)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(iterations):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[learned]), y[learned]).backward()
        optimizer.step()
    with torch.no_grad():
        return (net(x[held]).argmax(-1) == y[held]).double().mean().item()


def _bins(codes: Tensor, bins: int) -> Tensor:
    low, high = codes.amin(0), codes.amax(0)
    width = (high - low).where(high > low, 1.0)
    return ((codes - low) / width * bins).long().clamp(max=bins - 1)


def _entropy(counts: Tensor) -> Tensor:
    p = counts.double() / counts.sum()
    return -torch.special.xlogy(p, p).sum()


def _mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """I(a; b) = H(a) + H(b) - H(a, b) of two lists of small whole numbers, in nats."""
    joint = (a * (int(b.max()) + 1) + b).bincount()
    return _entropy(a.bincount()) + _entropy(b.bincount()) - _entropy(joint)
