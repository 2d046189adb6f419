"""Metrics of generated sets after MOSES (Polykovskiy et al. 2020), GuacaMol (Brown et al. 2019).

Every figure states on how many molecules it rests: several of them, FCD above all, depend on it.
Needs the extra `metrics`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from chemflow.describe import CONTINUOUS, DISCRETE, PROPERTIES, Described, describe

MOSES_TRAIN = {
    "valid": 1.0, "unique@1000": 1.0, "unique@10000": 1.0, "FCD/Test": 0.008, "SNN/Test": 0.6419,
    "Frag/Test": 1.0, "Scaf/Test": 0.9907, "FCD/TestSF": 0.4755, "SNN/TestSF": 0.5859,
    "Frag/TestSF": 0.9986, "Scaf/TestSF": 0.0, "IntDiv": 0.8567, "IntDiv2": 0.8508,
    "filters": 1.0, "novelty": 1.0,
}  # fmt: skip
"""The row "Train" of the MOSES README: what its own training set scores. `filters` there also has
a list of medicinal chemistry that RDKit lacks."""


@dataclass(frozen=True)
class Figure:
    """A value, and how many generated and reference molecules it rests on."""

    value: float
    generated: int
    reference: int = 0


def evaluate(
    generated: Sequence[str],
    reference: Sequence[str],
    *,
    train: Iterable[str] | None = None,
    scaffolds: Sequence[str] | None = None,
    filters: Iterable[str] = (),
    fcd: bool = True,
    workers: int = 1,
    device: str = "cpu",
) -> dict[str, Figure]:
    """All figures, by name.

    valid, unique@1000, unique@10000, novelty (with `train`: any iterable of canonical SMILES),
    IntDiv, IntDiv2, filters; SNN, Frag, Scaf and FCD of `reference` ("/Test") and, if given, of
    `scaffolds` ("/TestSF"); Wasserstein distances of logP, SA, QED and weight; GuacaMol's KL score
    and FCD score. Duplicates stay in, as in both benchmarks, but for uniqueness and novelty.

    Raises ValueError for a set without molecules.
    """
    told = describe(generated, filters=filters, workers=workers)
    if not len(told):
        raise ValueError(f"generated must have molecules, got {len(generated)} strings of none")
    n = len(told)
    figures = {"valid": Figure(n / len(generated), len(generated))}
    for k in (1000, 10000):
        part = told.canonical[:k]
        figures[f"unique@{k}"] = Figure(len(set(part)) / len(part), len(part))
    different = set(told.canonical)
    if train is not None:
        known, size = set(), 0
        for one in train:
            size += 1
            if one in different:
                known.add(one)
        share = 1 - len(known) / len(different)
        figures["novelty"] = Figure(share, len(different), size)
    figures["IntDiv"] = Figure(internal_diversity(told.fingerprints), n)
    figures["IntDiv2"] = Figure(internal_diversity(told.fingerprints, 2), n)
    figures["filters"] = Figure(sum(told.clean) / n, n)
    network = ChemNet(device) if fcd else None
    activations = network(told.canonical) if network is not None else None
    for label, other in (("Test", reference), ("TestSF", scaffolds)):
        if other is None:
            continue
        ref = describe(other, workers=workers)
        if not len(ref):
            raise ValueError(f"the set of {label} must have molecules, got {len(other)} strings")
        m = len(ref)
        figures[f"SNN/{label}"] = Figure(nearest(told.fingerprints, ref.fingerprints), n, m)
        figures[f"Frag/{label}"] = Figure(
            cosine(_counts(told.fragments), _counts(ref.fragments)), n, m
        )
        figures[f"Scaf/{label}"] = Figure(
            cosine(_scaffolds(told.scaffolds), _scaffolds(ref.scaffolds)), n, m
        )
        if network is not None and activations is not None:
            value = frechet(activations, network(ref.canonical))
            figures[f"FCD/{label}"] = Figure(value, n, m)
        if label == "Test":
            figures |= _distributions(told, ref)
            if "FCD/Test" in figures:
                score = math.exp(-0.2 * figures["FCD/Test"].value)
                figures["FCD score"] = Figure(score, n, m)
    return figures


def table(figures: dict[str, Figure]) -> str:
    """For a terminal."""
    width = max(len(name) for name in figures)
    return "\n".join(
        f"{name:<{width}}  {one.value:>9.4f}  of {one.generated:,}"
        + (f" and {one.reference:,}" if one.reference else "")
        for name, one in figures.items()
    )


def _distributions(told: Described, ref: Described) -> dict[str, Figure]:
    from scipy.stats import wasserstein_distance

    n, m = len(told), len(ref)
    found = {
        f"W1 {name}": Figure(float(wasserstein_distance(told.values[name], ref.values[name])), n, m)
        for name in PROPERTIES
    }
    for name in PROPERTIES:
        found[f"mean {name}"] = Figure(float(told.values[name].mean()), n)
        found[f"mean {name} of the reference"] = Figure(float(ref.values[name].mean()), m)
    found["KL score"] = Figure(kl_score(told, ref), n, m)
    return found


def _bits(packed: UInt8[np.ndarray, "n bytes"]) -> torch.Tensor:
    return torch.from_numpy(np.unpackbits(packed, axis=-1)).float()


def _similar(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Tanimoto of rows of bits, all pairs; counts below 2**24 are exact in float32."""
    both = a @ b.T
    either = a.sum(-1)[:, None] + b.sum(-1) - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def internal_diversity(packed: UInt8[np.ndarray, "n bytes"], p: int = 1) -> float:
    """1 - (mean of T(a, b)^p over all pairs, each with itself included)^(1/p)."""
    bits = _bits(packed)
    total = 0.0
    for block in bits.split(1024):
        total += float(_similar(block, bits).double().pow(p).sum())
    return 1 - (total / len(bits) ** 2) ** (1 / p)


def nearest(
    generated: UInt8[np.ndarray, "n bytes"], reference: UInt8[np.ndarray, "m bytes"]
) -> float:
    """SNN: mean over generated molecules of the similarity to the nearest reference molecule."""
    bits, other = _bits(generated), _bits(reference)
    total = 0.0
    for block in bits.split(1024):
        best = torch.zeros(len(block))
        for part in other.split(8192):
            best = torch.maximum(best, _similar(block, part).amax(-1))
        total += float(best.double().sum())
    return total / len(bits)


def _counts(fragments: Iterable[Iterable[str]]) -> Counter[str]:
    return Counter(one for several in fragments for one in several)


def _scaffolds(scaffolds: Iterable[str]) -> Counter[str]:
    return Counter(one for one in scaffolds if one)


def cosine(a: Counter[str], b: Counter[str]) -> float:
    """Of two vectors of counts; NaN if one is empty."""
    if not a or not b:
        return math.nan
    inner = sum(count * b[name] for name, count in a.items())
    square = [math.fsum(count * count for count in one.values()) for one in (a, b)]
    return inner / math.sqrt(square[0] * square[1])


def kl_score(generated: Described, reference: Described) -> float:
    """GuacaMol's: mean of exp(-KL(reference ‖ generated)) over descriptors and inner similarity.

    Continuous ones by Gaussian kernel densities at 1,000 points, discrete ones by ten bins of the
    reference. NaN where there are too few molecules for a density.
    """
    a, b = reference.values, generated.values
    scores = [_kl_continuous(a[name], b[name]) for name in CONTINUOUS]
    scores.extend(_kl_discrete(a[name], b[name]) for name in DISCRETE)
    scores.append(_kl_continuous(*(_inner(one.fingerprints) for one in (reference, generated))))
    return float(np.mean(np.exp(-np.array(scores))))


_TINY = 1e-10
"""Added to densities by GuacaMol, so that an empty bin is not infinitely far."""


def _kl_continuous(p: Float64[np.ndarray, " n"], q: Float64[np.ndarray, " m"]) -> float:
    from scipy.stats import entropy, gaussian_kde

    if min(len(p), len(q)) < 3 or np.ptp(p) == 0 or np.ptp(q) == 0:
        return math.nan
    points = np.linspace(min(p.min(), q.min()), max(p.max(), q.max()), 1000)
    return float(entropy(gaussian_kde(p)(points) + _TINY, gaussian_kde(q)(points) + _TINY))


def _kl_discrete(p: Float64[np.ndarray, " n"], q: Float64[np.ndarray, " m"]) -> float:
    from scipy.stats import entropy

    density, edges = np.histogram(p, bins=10, density=True)
    inside = q[(q >= edges[0]) & (q <= edges[-1])]
    other = np.histogram(inside, bins=edges, density=True)[0] if len(inside) else 0 * density
    return float(entropy(density + _TINY, other + _TINY))


def _inner(packed: UInt8[np.ndarray, "n bytes"]) -> Float64[np.ndarray, " n"]:
    """Similarity of each molecule to the nearest other one of its set."""
    bits = _bits(packed)
    best = []
    for start in range(0, len(bits), 1024):
        similar = _similar(bits[start : start + 1024], bits)
        rows = torch.arange(len(similar))
        similar[rows, rows + start] = -1
        best.append(similar.amax(-1))
    return torch.cat(best).double().numpy() if best else np.zeros(0)


class ChemNet:
    """Activations of ChemNet for the Fréchet ChemNet distance, with the weights of `fcd-torch`."""

    def __init__(self, device: str = "cpu") -> None:
        try:
            from fcd_torch import FCD
        except ModuleNotFoundError as error:
            raise ImportError("FCD needs fcd-torch: pip install 'chemflow[metrics]'") from error
        self.device = torch.device(device)
        self._network: Any = FCD().model.to(self.device).eval()

    def __call__(self, smiles: Sequence[str], batch: int = 256) -> Float64[np.ndarray, "n 512"]:
        """Of canonical SMILES."""
        from fcd_torch.utils import SmilesDataset

        # Of this class because it encodes as the network was trained, with its odd scale.
        rows = SmilesDataset(list(smiles), canonize=False)
        # Strings of like length are padded alike, so that what repeats is encoded once.
        known: dict[str, int] = {}
        places = [known.setdefault(one, len(known)) for one in smiles]
        first = {place: number for number, place in reversed(list(enumerate(places)))}
        found = []
        order = [first[place] for place in range(len(known))]
        for start in range(0, len(order), batch):
            part = np.stack([rows[number] for number in order[start : start + batch]])
            given = torch.from_numpy(part).float().transpose(1, 2).to(self.device)
            with torch.no_grad():
                found.append(self._network(given).double().cpu().numpy())
        different = np.concatenate(found) if found else np.zeros((0, 512))
        return different[places] if len(places) else different


def frechet(a: Float64[np.ndarray, "n d"], b: Float64[np.ndarray, "m d"]) -> float:
    """Fréchet distance of the Gaussians that fit two sets of activations.

    ‖μ₁ - μ₂‖² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁ Σ₂)^½, the last as the sum of singular values of
    A₁ A₂ᵀ/√((n-1)(m-1)) with the centred activations: exact for singular covariances, real always.
    Larger for small sets, by about 1/n. Raises ValueError for fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"both sets must have at least 2 molecules, got {len(a)} and {len(b)}")
    difference = a.mean(0) - b.mean(0)
    first = (a - a.mean(0)) / math.sqrt(len(a) - 1)
    second = (b - b.mean(0)) / math.sqrt(len(b) - 1)
    # Through triangular factors, at most (d, d), however many molecules there are.
    left, right = (np.linalg.qr(one, "reduced").R for one in (first, second))
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    return float(difference @ difference + (first**2).sum() + (second**2).sum() - 2 * cross)


def fcd(generated: Sequence[str], reference: Sequence[str], *, device: str = "cpu") -> Figure:
    """Fréchet ChemNet distance (Preuer et al. 2018) of the valid molecules of two sets.

    It falls with the size of the sets, which the figure states; compare at equal sizes only.
    """
    from chemflow.standardise import canonical

    sets = [[one for one in map(canonical, given) if one] for given in (generated, reference)]
    network = ChemNet(device)
    value = frechet(*(network(one) for one in sets))
    return Figure(value, len(sets[0]), len(sets[1]))
