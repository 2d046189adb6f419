"""Fréchet distance of two sets of images under a named feature network."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from linalg_kernels import sqrtm
from torch import Tensor

from householder_gan.features import Features
from householder_gan.generators.protocol import Generator, codes, draw
from householder_gan.path_length import evaluating


@dataclass(frozen=True)
class Frechet:
    """‖μ₁ - μ₂‖² + tr(C₁ + C₂ - 2 (C₁^½ C₂ C₁^½)^½) of `samples` feature vectors each.

    The value of two samples of one distribution is above 0 and falls as 1/samples; compare
    only figures of one sample size and one feature network. Not FID, which is of Inception-v3.
    """

    value: float
    samples: tuple[int, int]
    features: str

    def __float__(self) -> float:
        return self.value


def frechet_of_features(
    first: Float[Tensor, "m k"], second: Float[Tensor, "n k"]
) -> Float[Tensor, ""]:
    """The Fréchet distance of normal distributions with the moments of two samples."""
    moments = []
    for X in (first.double(), second.double()):
        if len(X) < 2:
            raise ValueError(f"a sample must have 2 or more feature vectors, got {len(X)}")
        centred = X - X.mean(0)
        moments.append((X.mean(0), centred.mT @ centred / (len(X) - 1)))
    (m, C), (n, D) = moments
    # Few samples leave covariances singular, and rounding puts eigenvalues of 0 on either side.
    roots = [sqrtm(K, nonpos="clamp", eps=0.0) for K in (C, D)]
    cross = torch.linalg.svdvals(roots[0] @ roots[1]).sum()
    return (m - n).square().sum() + C.trace() + D.trace() - 2 * cross


def sampled_images(
    generator: Generator, samples: int, *, batch: int = 64, seed: int = 0
) -> Float[Tensor, "samples c h w"]:
    """Images of standard normal z."""
    rng = torch.Generator().manual_seed(seed)
    with evaluating(generator):
        z = draw(generator, samples, rng)
        return torch.cat([generator.synthesis(codes(generator, part)) for part in z.split(batch)])


def sampled_features(
    generator: Generator, features: Features, samples: int, *, batch: int = 64, seed: int = 0
) -> Float[Tensor, "samples k"]:
    """Feature vectors of images of standard normal z, which are not kept."""
    rng = torch.Generator().manual_seed(seed)
    with evaluating(generator):
        parts = draw(generator, samples, rng).split(batch)
        return torch.cat(
            [features.vectors(generator.synthesis(codes(generator, part))) for part in parts]
        )


def frechet(
    first: Float[Tensor, "m c h w"], second: Float[Tensor, "n c h w"], features: Features,
    *, batch: int = 64,
) -> Frechet:  # fmt: skip
    """The Fréchet distance of two sets of images."""
    with torch.no_grad():
        found = [torch.cat([features.vectors(p) for p in X.split(batch)]) for X in (first, second)]
    value = float(frechet_of_features(found[0], found[1]))
    return Frechet(value, (len(first), len(second)), features.name)
