"""Generators against definitions written out, and their files."""

import argparse
import io
import math
import os
import pickle

import numpy as np
import pytest
import scipy.signal
import torch
from householder_gan import (
    DCGAN,
    Discriminator,
    Generator,
    StyleGAN2,
    StyleGAN3,
    adapt_nvlabs,
    adapt_rosinality,
    codes,
    directions,
    export_reflectors,
    householderize,
    import_reflectors,
    load_generator,
    load_nvlabs,
    load_rosinality,
    nvlabs_to_rosinality,
    rosinality_to_nvlabs,
    save_generator,
)
from householder_gan.generators.discriminator import DCGANDiscriminator, minibatch_deviation
from householder_gan.generators.resample import binomial_kernel, resample
from householder_gan.generators.stylegan2 import ModulatedConv, default_channels
from householder_gan.generators.stylegan3 import bands, lowpass
from householder_gan.restricted_pickle import RefusedPickleError, read_pickle
from torch import nn
from torch.nn import functional

WIDTHS = {4: 12, 8: 10, 16: 8}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stylegan2(seed=0):
    torch.manual_seed(seed)
    G = StyleGAN2(16, 16, 3, WIDTHS).eval()
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith("noise.weight"):
                parameter.fill_(0.3)
    return G


def stylegan3(seed=0, **options):
    torch.manual_seed(seed)
    return StyleGAN3(
        16, 8, 8, layers=6, critical=2, channel_base=128, channel_max=12, **options
    ).eval()


def test_every_generator_is_one():
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
def test_stylegan3_moves_the_image_with_its_input(options):
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


def test_rosinality_checkpoint(tmp_path):
    G = stylegan2()
    held = {
        "g_ema": G.state_dict(),
        "g": stylegan2(1).state_dict(),
        "args": argparse.Namespace(size=16),
    }
    torch.save(held, tmp_path / "G.pt")
    z = random(2, 16)
    torch.testing.assert_close(load_rosinality(tmp_path / "G.pt")(z), G(z), rtol=0, atol=0)
    with pytest.raises(ValueError, match="must hold 'ema', got"):
        load_rosinality(tmp_path / "G.pt", "ema")
    held["g_ema"].pop("conv1.conv.weight")
    torch.save(held, tmp_path / "G.pt")
    with pytest.raises(ValueError, match=r"conv1\.conv\.weight"):
        load_rosinality(tmp_path / "G.pt")


def test_rosinality_layout():
    # Names and shapes of the published 256x256 files, written down, not derived.
    G = StyleGAN2(256, 512, 8, default_channels(256))
    shapes = {name: tuple(value.shape) for name, value in G.state_dict().items()}
    assert shapes["style.8.weight"] == (512, 512)
    assert shapes["input.input"] == (1, 512, 4, 4)
    assert shapes["conv1.conv.weight"] == (1, 512, 512, 3, 3)
    assert shapes["conv1.noise.weight"] == (1,)
    assert shapes["conv1.activate.bias"] == (512,)
    assert shapes["to_rgb1.bias"] == (1, 3, 1, 1)
    assert shapes["to_rgb1.conv.modulation.bias"] == (512,)
    assert shapes["convs.10.conv.weight"] == (1, 128, 256, 3, 3)
    assert shapes["convs.10.conv.blur.kernel"] == (4, 4)
    assert shapes["convs.10.conv.modulation.weight"] == (256, 512)
    assert shapes["to_rgbs.5.conv.weight"] == (1, 3, 128, 1, 1)
    assert shapes["to_rgbs.5.upsample.kernel"] == (4, 4)
    assert shapes["noises.noise_12"] == (1, 1, 256, 256)
    # Mapping 16, constant 1, 13 convolutions of 5 (6 with filter 1 more), 7 ToRGB of 4 (6 with
    # filter 1 more), noise 13.
    assert len(shapes) == 16 + 1 + 13 * 5 + 6 + 7 * 4 + 6 + 13


class _Rebuilt:
    """Pickles as NVlabs' decorator makes its objects: a call with a description."""

    def __init__(self, meta):
        self.meta = meta

    def __reduce__(self):
        return _reconstruct, (self.meta,)


def _reconstruct(_meta):
    raise AssertionError("the function of that name is never called")


_reconstruct.__module__ = "torch_utils.persistence"
_reconstruct.__qualname__ = _reconstruct.__name__ = "_reconstruct_persistent_obj"


def network(name, state, **arguments):
    """A tree of persistent objects from a state dictionary, as an NVlabs pickle holds it."""
    parameters, children = {}, {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if rest:
            children.setdefault(head, {})[rest] = value
        else:
            parameters[head] = nn.Parameter(value.clone()) if value.is_floating_point() else value
    state = {
        "training": False,
        "_parameters": parameters,
        "_buffers": {},
        "_modules": {key: network("Layer", value) for key, value in children.items()},
        "_init_kwargs": arguments,
        # StyleGAN3's layers keep their sizes so.
        "in_size": np.array([4, 4]),
        "cutoff": np.float64(2.5),
    }
    source = "import os\nos.environ['HOUSEHOLDER_GAN_RAN'] = '1'\n"
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": name, "state": state}
    return _Rebuilt(meta)


@pytest.fixture
def dump(tmp_path, monkeypatch):
    import sys
    import types

    module = types.ModuleType("torch_utils.persistence")
    module.__dict__["_reconstruct_persistent_obj"] = _reconstruct
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)

    def write(held, protocol=4):
        path = tmp_path / "network.pkl"
        path.write_bytes(pickle.dumps(held, protocol))
        return path

    return write


def test_nvlabs_stylegan2_pickle_is_read_and_not_run(dump):
    G = stylegan2()
    state = rosinality_to_nvlabs(G.state_dict())
    state["mapping.w_avg"] = torch.zeros(16)
    path = dump({"G_ema": network("Generator", state), "training_set_kwargs": {"path": "x"}})
    z = random(2, 16)
    torch.testing.assert_close(load_nvlabs(path)(z), G(z), rtol=0, atol=0)
    assert "HOUSEHOLDER_GAN_RAN" not in os.environ
    assert b"HOUSEHOLDER_GAN_RAN" in path.read_bytes()


def test_arrays_and_numbers_of_numpy_are_read(dump):
    network_read = read_pickle(dump({"G_ema": network("G", {"a": random(2)}, z_dim=8)}))["G_ema"]
    assert network_read.state["in_size"].tolist() == [4, 4]
    assert network_read.state["cutoff"] == 2.5
    assert network_read.arguments == {"z_dim": 8}
    assert torch.equal(dict(network_read.tensors())["a"], random(2))


def test_nvlabs_stylegan2_names():
    G = stylegan2()
    state = rosinality_to_nvlabs(G.state_dict())
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes["mapping.fc2.weight"] == (16, 16)
    assert shapes["synthesis.b4.const"] == (12, 4, 4)
    assert shapes["synthesis.b4.conv1.weight"] == (12, 12, 3, 3)
    assert shapes["synthesis.b4.conv1.noise_strength"] == ()
    assert shapes["synthesis.b4.conv1.noise_const"] == (4, 4)
    assert shapes["synthesis.b8.conv0.weight"] == (10, 12, 3, 3)
    assert shapes["synthesis.b8.conv0.affine.weight"] == (12, 16)
    assert shapes["synthesis.b16.conv1.noise_const"] == (16, 16)
    assert shapes["synthesis.b16.torgb.weight"] == (3, 8, 1, 1)
    assert shapes["synthesis.b16.torgb.bias"] == (3,)
    assert shapes["synthesis.b8.resample_filter"] == (4, 4)
    back = nvlabs_to_rosinality(state)
    assert set(back) == set(G.state_dict())
    assert all(torch.equal(back[name], value) for name, value in G.state_dict().items())
    for name, value in (
        ("mapping.embed.weight", "unconditional"),
        ("synthesis.b8.skip.weight", "skip"),
    ):
        with pytest.raises(ValueError, match=value):
            nvlabs_to_rosinality({**state, name: torch.zeros(2, 2)})


@pytest.mark.parametrize("options", [{}, {"kernel": 1, "radial": True}])
def test_nvlabs_stylegan3_pickle(dump, options):
    G = stylegan3(**options)
    names = {"layers": "num_layers", "critical": "num_critical", "kernel": "conv_kernel",
             "radial": "use_radial_filters"}  # fmt: skip
    settings = {"layers": 6, "critical": 2, "channel_base": 128, "channel_max": 12, **options}
    arguments = {names.get(k, k): v for k, v in settings.items()}
    held = network("Generator", G.state_dict(), z_dim=8, w_dim=8, c_dim=0, img_resolution=16,
                   img_channels=3, mapping_kwargs={"num_layers": 2}, **arguments)  # fmt: skip
    path = dump({"G": held, "D": held, "G_ema": held})
    loaded = load_nvlabs(path)
    z = random(2, 8)
    torch.testing.assert_close(loaded(z), G(z), rtol=0, atol=0)
    assert set(loaded.state_dict()) == set(G.state_dict())
    with pytest.raises(ValueError, match=r"must hold 'H', got \['D', 'G', 'G_ema'\]"):
        load_nvlabs(path, "H")


class Attack:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


class LoadAttack(nn.Module):
    pass


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused(dump, tmp_path, protocol):
    mark = tmp_path / "ran"
    inside = io.BytesIO()
    torch.save(Attack(os.mkdir, str(mark)), inside, _use_new_zipfile_serialization=False)
    attacks = [
        Attack(os.mkdir, str(mark)),
        Attack(eval, f"__import__('os').mkdir({str(mark)!r})"),
        # Hidden in what torch itself would load as a pickle of any content.
        Attack(torch.storage._load_from_bytes, inside.getvalue()),
        # An attribute of a known module.
        Attack(torch.hub.load, "a/b", "c"),
    ]
    for attack in attacks:
        for held in (
            {"G_ema": attack},
            attack,
            {"G_ema": network("G", {"a": random(2)}), "x": attack},
        ):
            with pytest.raises(RefusedPickleError):
                read_pickle(dump(held, protocol))
            assert not mark.exists()
    # The attack is one: what refuses it is not that it does not work.
    pickle.loads(pickle.dumps({"G_ema": attacks[0]}, protocol))
    assert mark.exists()


def test_refusals_say_what_was_asked_for(dump, tmp_path):
    with pytest.raises(RefusedPickleError, match=r"asks for builtins\.eval, which is not read"):
        read_pickle(dump({"G_ema": Attack(eval, "1")}))
    with pytest.raises(RefusedPickleError, match="holds no network, only"):
        read_pickle(dump({"a": 1}))
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps({"a": [1] * 100})[:-5])
    with pytest.raises(RefusedPickleError, match=r"cut\.pkl: not a pickle of networks"):
        read_pickle(tmp_path / "cut.pkl")
    tensorflow = b"cdnnlib.tflib.network\nNetwork\n."
    (tmp_path / "tf.pkl").write_bytes(tensorflow)
    with pytest.raises(RefusedPickleError, match="TensorFlow pickle, convert it"):
        read_pickle(tmp_path / "tf.pkl")
    held = network("Generator", stylegan3().state_dict(), z_dim=8, w_dim=8, c_dim=3,
                   img_resolution=16)  # fmt: skip
    path = dump({"G_ema": held})
    with pytest.raises(ValueError, match="c_dim must be 0, got 3"):
        load_nvlabs(path)


@pytest.mark.parametrize("make", [stylegan2, stylegan3, lambda: DCGAN(10, (12, 8)).eval()])
@pytest.mark.parametrize("sigma", ["identity", "learned"])
def test_own_files(make, sigma, tmp_path):
    G = make()
    z = random(2, G.z_dim)
    save_generator(tmp_path / "plain.safetensors", G)
    torch.testing.assert_close(load_generator(tmp_path / "plain.safetensors")(z), G(z))
    householderize(G, rank=3, sigma=sigma)
    save_generator(tmp_path / "G.safetensors", G)
    loaded = load_generator(tmp_path / "G.safetensors")
    torch.testing.assert_close(loaded(z), G(z), rtol=0, atol=0)
    ours, theirs = directions(G), directions(loaded)
    torch.testing.assert_close(ours.layers[0].vectors, theirs.layers[0].vectors, rtol=0, atol=0)
    (tmp_path / "other.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"other\.safetensors: not a file of a generator"):
        load_generator(tmp_path / "other.safetensors")


def official(V):
    """The product of the official code, one reflection at a time."""
    Q = torch.eye(len(V), dtype=V.dtype)
    for v in V.unbind(1):
        Q = Q @ (torch.eye(len(V), dtype=V.dtype) - 2 * torch.outer(v, v) / (v @ v))
    return Q


def test_official_reflectors_both_ways():
    G = stylegan2().double()
    layer = G.convs[2].conv.modulation  # (10, 16)
    U, V = random(10, 10).double(), random(16, 16, seed=1).double()
    import_reflectors(layer, U, V, 4, axis=1)
    S = torch.zeros(10, 16, dtype=U.dtype)
    S[range(4), range(4)] = 1
    torch.testing.assert_close(layer.weight, official(U) @ S @ official(V))
    found = directions(G)["convs.2.conv.modulation"]
    torch.testing.assert_close(found.vectors, official(V)[:4])
    for module, c, r in ((layer, 10, 4), (G.convs[0].conv.modulation, 12, 5)):
        if module is not layer:
            householderize(G, ["convs.0.conv.modulation"], rank=5, gain=1.0)
        U2, V2 = export_reflectors(module)
        S = torch.zeros(c, 16, dtype=U.dtype)
        S[range(r), range(r)] = 1
        torch.testing.assert_close(official(U2) @ S @ official(V2), module.weight)
    U[:, 1] = 0
    with pytest.raises(ValueError, match="U must have no zero column, got one at 1"):
        import_reflectors(G.convs[1].conv.modulation, U, V, 4, axis=1)


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


def test_adapters():
    G, G3 = stylegan2(), stylegan3()
    for adapted, own in (
        (adapt_rosinality(TheirStyleGAN2(G)), G),
        (adapt_nvlabs(TheirStyleGAN3(G3)), G3),
    ):
        assert isinstance(adapted, Generator)
        z = random(2, own.z_dim)
        torch.testing.assert_close(adapted.synthesis(codes(adapted, z)), own(z))
