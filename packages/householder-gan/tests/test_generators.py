"""Generators against definitions written out."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from householder_gan import (
    DCGAN,
    Discriminator,
    Generator,
    adapt_nvlabs,
    adapt_rosinality,
    codes,
)
from householder_gan.generators.discriminator import DCGANDiscriminator, minibatch_deviation
from householder_gan.generators.resample import binomial_kernel, resample
from householder_gan.generators.stylegan2 import ModulatedConv, default_channels
from householder_gan.generators.stylegan3 import bands, lowpass
from torch import nn
from torch.nn import functional


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_generator_is_one(stylegan2, stylegan3):
    for G in (stylegan2(), stylegan3(), DCGAN(4, (8, 4))):
        assert isinstance(G, Generator)
        z = random(3, G.z_dim)
        G.eval()
        image = G(z)
        assert image.shape == (3, 3, 16, 16)
        torch.testing.assert_close(G.synthesis(codes(G, z)), image)
        torch.testing.assert_close(G(z), image, rtol=0, atol=0)


@pytest.mark.parametrize("pads", [(2, 1, 2, 1), (0, 0, 0, 0), (-1, 3, 2, -2)])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_resampling_by_its_definition(up, down, pads):
    x, kernel = random(2, 3, 5, 6), random(4, 4, seed=1)
    ours = resample(x, kernel, up=up, down=down, padding=pads, gain=3.0)
    raised = np.zeros((2, 3, 5 * up, 6 * up))
    raised[..., ::up, ::up] = x.numpy()
    left, right, top, bottom = pads
    raised = np.pad(raised, [(0, 0), (0, 0), *([(max(a, 0), max(b, 0))
                    for a, b in ((top, bottom), (left, right))])])  # fmt: skip
    rows, columns = raised.shape[2:]
    raised = raised[:, :, max(-top, 0) : rows - max(-bottom, 0)]
    raised = raised[..., max(-left, 0) : columns - max(-right, 0)]
    for n in range(2):
        for c in range(3):
            one = 3 * scipy.signal.convolve2d(raised[n, c], kernel.numpy(), "valid")
            np.testing.assert_allclose(ours[n, c], one[::down, ::down], atol=1e-5)
    line = random(4, seed=2)
    separable = resample(x, line, up=up, down=down, padding=pads, gain=3.0)
    square = resample(x, torch.outer(line, line), up=up, down=down, padding=pads, gain=3.0)
    torch.testing.assert_close(separable, square, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_with_the_weights_of_each_sample(upsample, demodulate):
    torch.manual_seed(0)
    layer = ModulatedConv(6, 4, 3, 8, demodulate=demodulate, upsample=upsample)
    x, w = random(2, 6, 5, 5), random(2, 8, seed=1)
    found = []
    for one, code in zip(x, w, strict=True):
        style = layer.modulation.weight @ code / math.sqrt(8) + layer.modulation.bias
        weight = layer.weight[0] / math.sqrt(6 * 9) * style[:, None, None]
        if demodulate:
            norm = weight.square().sum((1, 2, 3), keepdim=True).add(1e-8).sqrt()
            weight = weight / norm
        if upsample:
            y = functional.conv_transpose2d(one[None], weight.transpose(0, 1), stride=2)
            y = resample(y, binomial_kernel(gain=4.0), padding=(1, 1, 1, 1))
        else:
            y = functional.conv2d(one[None], weight, padding=1)
        found.append(y)
    torch.testing.assert_close(layer(x, w), torch.cat(found), rtol=1e-4, atol=1e-5)


def test_published_widths():
    assert default_channels(1024) == {
        4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32
    }  # fmt: skip
    assert default_channels(256, 1)[256] == 64
    for size, inputs in ((256, 362), (512, 192), (1024, 102)):
        plan = bands(size, 14, 2, 65536, 1024, 3)
        assert plan[11].channels == inputs
        assert plan[0].channels == plan[3].channels == 1024
    assert [b.size for b in bands(1024, 14, 2, 65536, 1024, 3)] == [
        36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024, 1024
    ]  # fmt: skip


def test_lowpass_is_scipys_and_radial_filters_are_symmetric():
    for taps, cutoff, width, rate in (
        (12, 2.0, 3.0, 32.0),
        (12, 4.0, 8.0, 32.0),
        (6, 1.0, 0.5, 8.0),
    ):
        expected = scipy.signal.firwin(taps, cutoff, width=width, fs=rate)
        ours = lowpass(taps, cutoff, width, rate)
        assert ours is not None
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)
    kernel = lowpass(13, 2.0, 3.0, 32.0, radial=True)
    assert kernel is not None
    torch.testing.assert_close(kernel, kernel.mT)
    torch.testing.assert_close(kernel, kernel.flip(0))
    assert float(kernel.sum()) == pytest.approx(1)
    # Unlike a separable filter it passes the same band in every direction.
    gains = []
    x = (torch.arange(13) - 6.0) / 32
    for angle in (0.0, math.pi / 4):
        phase = 2 * math.pi * 1.5 * (x[:, None] * math.cos(angle) + x * math.sin(angle))
        gains.append(float((kernel * phase.cos()).sum()))
    assert gains[0] == pytest.approx(gains[1], abs=0.02)


@pytest.mark.parametrize("options", [{}, {"kernel": 1, "radial": True}])
def test_stylegan3_moves_the_image_with_its_input(options, stylegan3):
    G = stylegan3(**options)
    z = random(2, 8)
    with torch.no_grad():
        before = G(z)
        G.synthesis.input.transform[0, 2] = 0.25  # a quarter of the image to one side
        after = G(z)
    pixels = 4
    inner = slice(pixels, -pixels)
    shifted = before.roll(-pixels, -1), before.roll(pixels, -1)
    errors = [float((after - s)[..., inner, inner].norm() / after[..., inner, inner].norm())
              for s in shifted]  # fmt: skip
    unmoved = float((after - before)[..., inner, inner].norm() / after[..., inner, inner].norm())
    assert min(errors) < 0.1
    assert unmoved > 0.3


def test_minibatch_deviation():
    x = random(6, 3, 4, 4)
    with_it = minibatch_deviation(x)
    assert with_it.shape == (6, 4, 4, 4)
    groups = x.reshape(3, 2, 3, 4, 4)
    expected = groups.var(0, unbiased=False).add(1e-8).sqrt().mean((1, 2, 3))
    torch.testing.assert_close(with_it[:, 3, 0, 0], expected.repeat(3))


def test_discriminators_see_every_pixel():
    torch.manual_seed(0)
    for D in (Discriminator(16, {4: 8, 8: 6, 16: 4}), DCGANDiscriminator(16, 4)):
        x = random(4, 3, 16, 16).requires_grad_()
        logits = D(x)
        assert logits.shape == (4,)
        (slope,) = torch.autograd.grad(logits.sum(), x)
        assert (slope.abs().sum((0, 1)) > 0).all()


# Files -----------------------------------------------------------------------------------------


class TheirStyleGAN2(nn.Module):
    """rosinality's calling convention around our network."""

    def __init__(self, G):
        super().__init__()
        self.inner, self.style, self.style_dim, self.n_latent = G, G.style, G.w_dim, G.slots

    def forward(self, styles, input_is_latent=False, randomize_noise=True):
        assert input_is_latent
        assert not randomize_noise
        return self.inner.synthesis(styles[0]), None


class TheirStyleGAN3(nn.Module):
    """NVlabs' calling convention around our network."""

    def __init__(self, G):
        super().__init__()
        self.z_dim, self.w_dim, self.num_ws = G.z_dim, G.w_dim, G.slots
        self.mapping, self.synthesis = nn.Module(), nn.Module()
        self.mapping.forward = lambda z, _c: codes(G, z)
        self.synthesis.forward = self.render
        self.render_inner = [G.synthesis]

    def render(self, ws, noise_mode):
        assert noise_mode == "const"
        return self.render_inner[0](ws)


def test_adapters(stylegan2, stylegan3):
    G, G3 = stylegan2(), stylegan3()
    for adapted, own in (
        (adapt_rosinality(TheirStyleGAN2(G)), G),
        (adapt_nvlabs(TheirStyleGAN3(G3)), G3),
    ):
        assert isinstance(adapted, Generator)
        z = random(2, own.z_dim)
        torch.testing.assert_close(adapted.synthesis(codes(adapted, z)), own(z))
