"""Files of generators: read without running anything, and written whole."""

import argparse
import io
import os
import pickle

import numpy as np
import pytest
import torch
from householder_gan import (
    StyleGAN2,
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
from householder_gan.generators.stylegan2 import default_channels
from householder_gan.restricted_pickle import RefusedPickleError, read_pickle
from torch import nn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rosinality_checkpoint(tmp_path, stylegan2):
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


def test_nvlabs_stylegan2_pickle_is_read_and_not_run(dump, stylegan2):
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


def test_nvlabs_stylegan2_names(stylegan2):
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
def test_nvlabs_stylegan3_pickle(dump, options, stylegan3):
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


def test_refusals_say_what_was_asked_for(dump, tmp_path, stylegan3):
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


@pytest.mark.parametrize("name", ["stylegan2", "stylegan3", "dcgan"])
@pytest.mark.parametrize("sigma", ["identity", "learned"])
def test_own_files(name, sigma, tmp_path, request):
    G = request.getfixturevalue(name)()
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


def test_official_reflectors_both_ways(stylegan2):
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
