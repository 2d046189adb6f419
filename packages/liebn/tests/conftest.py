"""Groups that tests run over, and matrices of each."""

import pytest
import torch
from liebn import (
    AffineInvariantGroup,
    BuresWassersteinCholeskyGroup,
    CholeskyRightInvariantGroup,
    LogCholeskyGroup,
    LogEuclideanGroup,
    PowerCholeskyGroup,
    RotationGroup,
)
from linalg_kernels import so_exp
from linalg_kernels.testing import random_spd

GROUPS = {
    "aim": AffineInvariantGroup(),
    "aim-deformed": AffineInvariantGroup(theta=1.5, alpha=2.0, beta=0.3),
    "aim-negative": AffineInvariantGroup(theta=-0.5),
    "lem": LogEuclideanGroup(),
    "lem-weighted": LogEuclideanGroup(alpha=2.0, beta=0.3),
    "lcm": LogCholeskyGroup(),
    "lcm-deformed": LogCholeskyGroup(theta=0.5),
    "crim": CholeskyRightInvariantGroup(),
    "crim-deformed": CholeskyRightInvariantGroup(theta=0.5),
    "pcm": PowerCholeskyGroup(theta=0.5),
    "bwcm": BuresWassersteinCholeskyGroup(theta=0.5, weight=0.7),
    "so3": RotationGroup(),
    "so3-right": RotationGroup(left=False),
    "so4": RotationGroup(),
}


@pytest.fixture(params=GROUPS)
def name(request):
    return request.param


@pytest.fixture
def group(name):
    return GROUPS[name]


@pytest.fixture
def draw(name):
    """draw(*batch, seed=0): matrices of the group, moderately spread."""

    def rotations(*batch, seed=0):
        n = 4 if name == "so4" else 3
        generator = torch.Generator().manual_seed(seed)
        Z = torch.randn(*batch, n, n, dtype=torch.float64, generator=generator)
        return so_exp(0.25 * (Z - Z.mT) + so_exp_centre(n, seed))

    def so_exp_centre(n, seed):
        generator = torch.Generator().manual_seed(1000 + seed)
        Z = torch.randn(n, n, dtype=torch.float64, generator=generator)
        return 0.1 * (Z - Z.mT)

    def definite(*batch, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return random_spd(*batch, 3, cond=5.0, generator=generator)

    return rotations if name.startswith("so") else definite
