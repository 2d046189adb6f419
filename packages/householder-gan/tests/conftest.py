"""Small generators with random weights."""

import pytest
import torch
from householder_gan import DCGAN, StyleGAN2, StyleGAN3


@pytest.fixture
def stylegan2():
    def make(seed=0):
        torch.manual_seed(seed)
        G = StyleGAN2(16, 16, 3, {4: 12, 8: 10, 16: 8}).eval()
        with torch.no_grad():
            for name, parameter in G.named_parameters():
                if name.endswith("noise.weight"):
                    parameter.fill_(0.3)
        return G

    return make


@pytest.fixture
def stylegan3():
    def make(seed=0, **options):
        torch.manual_seed(seed)
        return StyleGAN3(
            16, 8, 8, layers=6, critical=2, channel_base=128, channel_max=12, **options
        ).eval()

    return make


@pytest.fixture
def dcgan():
    def make(seed=0):
        torch.manual_seed(seed)
        return DCGAN(10, (12, 8)).eval()

    return make
