"""Generators from the files that people have, and our own files.

rosinality `.pt` (weights_only), NVlabs `.pkl` (`restricted_pickle`), DCGAN state dictionaries,
official HouseholderGAN reflectors, and `save_generator`'s safetensors.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from householder_gan.files import WRONG, load_tensors, no_more_than, reason, whole
from householder_gan.generators.dcgan import DCGAN
from householder_gan.generators.resample import binomial_kernel
from householder_gan.generators.stylegan2 import StyleGAN2
from householder_gan.generators.stylegan3 import StyleGAN3
from householder_gan.householderize import isometry_of, originals_of, register_householder
from householder_gan.restricted_pickle import Persistent, RefusedPickleError, read_pickle

FORMAT = "householder-gan generator 1"
_KINDS = {"DCGAN": DCGAN, "StyleGAN2": StyleGAN2, "StyleGAN3": StyleGAN3}


def _load(generator: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    try:
        generator.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ValueError(f"{what}: {error}") from error


def stylegan2_of_rosinality(state: Mapping[str, Tensor], mlp_rate: float = 0.01) -> StyleGAN2:
    """The generator of a rosinality state dictionary, its sizes read from the shapes.

    Noise buffers that older files lack stay random. Raises ValueError for other names or shapes.
    """
    for name in ("style.1.weight", "input.input", "to_rgb1.conv.weight", "to_rgbs.0.bias"):
        if name not in state:
            raise ValueError(f"state must be of rosinality's StyleGAN2, but has no {name!r}")
    blocks = sum(bool(re.fullmatch(r"to_rgbs\.\d+\.bias", name)) for name in state)
    channels = {4: state["input.input"].shape[1]}
    for k in range(blocks):
        channels[8 * 2**k] = state[f"convs.{2 * k}.conv.weight"].shape[1]
    generator = StyleGAN2(
        4 * 2**blocks,
        state["style.1.weight"].shape[1],
        sum(bool(re.fullmatch(r"style\.\d+\.weight", name)) for name in state),
        channels,
        image_channels=state["to_rgb1.conv.weight"].shape[1],
        mlp_rate=mlp_rate,
    )
    own = generator.state_dict()
    noises = {name: value for name, value in own.items() if name.startswith("noises.")}
    _load(generator, {**noises, **state}, "state")
    return generator.eval()


def read_checkpoint(path: str | Path) -> Any:
    """What a .pt file holds: tensors, numbers and the arguments of a command, no other objects.

    Raises ValueError naming a file that is cut short or has other content.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return load_tensors(path)
    except FileNotFoundError:
        raise
    except (*WRONG, OSError) as error:
        raise ValueError(f"{path}: not a checkpoint of tensors: {reason(error)}") from error


def load_rosinality(path: str | Path, key: str = "g_ema") -> StyleGAN2:
    """The generator of a rosinality checkpoint; only tensors, numbers and the arguments are read.

    Raises ValueError for a file without `key`, cut short, or with other content.
    """
    held = read_checkpoint(path)
    if not isinstance(held, dict) or key not in held:
        names = sorted(map(str, held)) if isinstance(held, dict) else type(held).__name__
        raise ValueError(f"{path}: must hold {key!r}, got {names}")
    try:
        return stylegan2_of_rosinality(held[key])
    except WRONG as error:
        raise ValueError(f"{path}: {key!r} is no StyleGAN2: {error}") from error


def nvlabs_to_rosinality(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A StyleGAN2 state dictionary of NVlabs' names and shapes in rosinality's.

    Raises ValueError for labels, other architectures than skip, or another filter.
    """
    blocks = sorted({int(m[1]) for name in state if (m := re.match(r"synthesis\.b(\d+)\.", name))})
    if not blocks or blocks[0] != 4:
        raise ValueError(f"state must be of NVlabs' StyleGAN2, got {sorted(state)[:4]}")
    place = {resolution: k - 1 for k, resolution in enumerate(blocks)}
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
            found[f"style.{int(match[1]) + 1}.{match[2]}"] = value
            continue
        if name == "mapping.w_avg":
            continue
        if name == "synthesis.b4.const":
            found["input.input"] = value[None]
            continue
        if name.endswith(".resample_filter"):
            if not torch.allclose(value.float().cpu(), binomial_kernel()):
                raise ValueError(f"{name} must be StyleGAN2's filter [1, 3, 3, 1]")
            continue
        match = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name)
        if match is None:
            raise ValueError(f"{name} is not of an unconditional StyleGAN2 with skip connections")
        resolution, layer, rest = int(match[1]), match[2], match[3]
        k = place[resolution]
        if layer == "torgb":
            to = "to_rgb1" if k < 0 else f"to_rgbs.{k}"
        else:
            to = "conv1" if k < 0 else f"convs.{2 * k + (layer == 'conv1')}"
        if rest == "weight":
            found[f"{to}.conv.weight"] = value[None]
        elif rest in ("affine.weight", "affine.bias"):
            found[f"{to}.conv.modulation.{rest.removeprefix('affine.')}"] = value
        elif rest == "noise_strength":
            found[f"{to}.noise.weight"] = value.reshape(1)
        elif rest == "noise_const":
            number = 0 if k < 0 else 2 * k + 1 + (layer == "conv1")
            found[f"noises.noise_{number}"] = value[None, None]
        elif rest == "bias":
            rgb = layer == "torgb"
            found[f"{to}.bias" if rgb else f"{to}.activate.bias"] = (
                value.view(1, -1, 1, 1) if rgb else value
            )
        else:
            raise ValueError(f"{name} is not of an unconditional StyleGAN2 with skip connections")
        if layer != "torgb" and k >= 0 and layer == "conv0":
            found[f"{to}.conv.blur.kernel"] = binomial_kernel(gain=4.0)
        if layer == "torgb" and k >= 0:
            found[f"{to}.upsample.kernel"] = binomial_kernel(gain=4.0)
    return found


def rosinality_to_nvlabs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `nvlabs_to_rosinality`; `mapping.w_avg` is not known and left out."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
            found[f"mapping.fc{int(match[1]) - 1}.{match[2]}"] = value
        elif name == "input.input":
            found["synthesis.b4.const"] = value[0]
        elif match := re.fullmatch(r"noises\.noise_(\d+)", name):
            i = int(match[1])
            layer = "conv1" if i == 0 or i % 2 == 0 else "conv0"
            found[f"synthesis.b{4 * 2 ** ((i + 1) // 2)}.{layer}.noise_const"] = value[0, 0]
        elif match := re.fullmatch(r"(conv1|to_rgb1|(convs|to_rgbs)\.(\d+))\.(.+)", name):
            kind, number, rest = match[2], int(match[3] or 0), match[4]
            if kind is None:
                to = f"synthesis.b4.{'conv1' if name.startswith('conv1') else 'torgb'}"
            elif kind == "convs":
                to = f"synthesis.b{8 * 2 ** (number // 2)}.conv{number % 2}"
            else:
                to = f"synthesis.b{8 * 2**number}.torgb"
            if rest == "conv.weight":
                found[f"{to}.weight"] = value[0]
            elif rest.startswith("conv.modulation."):
                found[f"{to}.affine.{rest.removeprefix('conv.modulation.')}"] = value
            elif rest == "noise.weight":
                found[f"{to}.noise_strength"] = value.reshape(())
                found[f"{to}.resample_filter"] = binomial_kernel()
            elif rest in ("activate.bias", "bias"):
                found[f"{to}.bias"] = value.reshape(-1)
            elif not rest.endswith(".kernel"):
                raise ValueError(f"{name} is not of rosinality's StyleGAN2")
        else:
            raise ValueError(f"{name} is not of rosinality's StyleGAN2")
    for size in sorted({int(m[1]) for n in found if (m := re.match(r"synthesis\.b(\d+)\.", n))}):
        found[f"synthesis.b{size}.resample_filter"] = binomial_kernel()
    return found


def stylegan3_of_nvlabs(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> StyleGAN3:
    """The generator of an NVlabs StyleGAN3 state dictionary and the arguments it was made with.

    `arguments` are those of the pickle (`z_dim`, `w_dim`, `img_resolution`, `channel_base`, …);
    what they leave out has the published default. Raises ValueError for another network, naming
    what differs.
    """
    if arguments.get("c_dim"):
        raise ValueError(f"c_dim must be 0, got {arguments['c_dim']}: labels are not read")
    synthesis = dict(arguments.get("synthesis_kwargs") or {})
    merged = {**synthesis, **arguments}
    mapping = dict(arguments.get("mapping_kwargs") or {})
    names = {
        "num_layers": "layers",
        "num_critical": "critical",
        "channel_base": "channel_base",
        "channel_max": "channel_max",
        "conv_kernel": "kernel",
        "use_radial_filters": "radial",
        "img_channels": "image_channels",
    }
    settings = {ours: merged[theirs] for theirs, ours in names.items() if theirs in merged}
    if "num_layers" in mapping:
        settings["mapping_layers"] = mapping["num_layers"]
    generator = StyleGAN3(
        int(arguments["img_resolution"]),
        int(arguments["z_dim"]),
        int(arguments["w_dim"]),
        **settings,
    )
    _load(generator, state, "state")
    return generator.eval()


def load_nvlabs(path: str | Path, key: str = "G_ema") -> StyleGAN2 | StyleGAN3:
    """The generator of an NVlabs pickle of stylegan2-ada-pytorch or stylegan3, as our own module.

    Nothing in the file is executed. Raises RefusedPickleError for a file that would have to be, and
    ValueError for a network of another kind.
    """
    networks = read_pickle(path)
    if key not in networks:
        raise ValueError(f"{path}: must hold {key!r}, got {sorted(networks)}")
    network: Persistent = networks[key]
    try:
        state = dict(network.tensors())
        if any(name.startswith("synthesis.b4.") for name in state):
            return stylegan2_of_rosinality(nvlabs_to_rosinality(state))
        if any(name.startswith("synthesis.L0_") for name in state):
            return stylegan3_of_nvlabs(state, network.arguments)
    except RefusedPickleError as error:
        raise RefusedPickleError(f"{path}: {error}") from None
    except WRONG as error:
        raise ValueError(f"{path}: {key!r} cannot be read: {reason(error)}") from error
    raise ValueError(f"{path}: {network.class_name} is neither StyleGAN2 nor StyleGAN3")


def import_reflectors(
    module: nn.Module,
    U: Float[Tensor, "c c"],
    V: Float[Tensor, "d d"],
    rank: int,
    *,
    gain: float = 1.0,
    axis: int | None = None,
) -> None:
    """Make `module.weight` the official projector Q_U S Q_V with S = diag(1 … 1, 0 … 0).

    `U` and `V` are the entries `.U` and `.V` of an official checkpoint, which does not hold the
    rank. Their second factor is Q_V, not its transpose, so that the directions are its first
    rows, the first columns of the product of the same reflections in reverse order. `gain` is
    what the official forward pass has over this layer's own: √d for our StyleGAN2, whose layers
    divide by it. Raises ValueError for shapes that are not the weight's, or a zero reflector,
    with which the official code returns NaN.
    """
    for name, R in (("U", U), ("V", V)):
        if bool((R == 0).all(0).any()):
            raise ValueError(f"{name} must have no zero column, got one at {_zero_column(R)}")
    isometry = register_householder(module, rank, axis=axis, reflectors="full", gain=gain)
    wanted = (isometry.rows, isometry.columns)
    if (len(U), len(V)) != wanted:
        raise ValueError(f"U and V must be square of order {wanted}, got {len(U)} and {len(V)}")
    with torch.no_grad():
        for original, R in zip(originals_of(module), (U, V.flip(-1)), strict=True):
            original.copy_(R)
        isometry.sign_U.fill_(1)
        isometry.sign_V.fill_(1)


def _zero_column(R: Tensor) -> int:
    return int((R == 0).all(0).nonzero()[0])


def export_reflectors(module: nn.Module) -> tuple[Tensor, Tensor]:
    """`.U` and `.V` of the official layout for a projector with σ = 1; the gain is left out.

    The official layout has no signs: a sign of column j becomes the reflector e_j among those
    after the r-th, which only thin frames with 2 r <= n surely have room for. Raises ValueError
    for a layer without projector, σ other than 1, or frames without room.
    """
    isometry = isometry_of(module)
    if isometry is None or isometry.sigma_kind != "identity":
        raise ValueError("module must have a Householder projector with sigma 'identity'")
    found = []
    both = (isometry.sign_U, isometry.sign_V)
    for R, signs in zip(originals_of(module), both, strict=True):
        R = R.detach()
        n, r = len(R), isometry.rank
        if isometry.reflectors == "full":
            if bool((signs < 0).any()):
                raise ValueError(
                    "frames of reflectors 'full' must have positive signs, as imported"
                )
            found.append(R.clone())
            continue
        negative = (signs < 0).nonzero().flatten().tolist()
        if len(negative) > n - r:
            raise ValueError(
                f"a frame of {r} columns in dimension {n} has no room for {len(negative)} signs"
            )
        eye = torch.eye(n, dtype=R.dtype, device=R.device)
        # e_j for j > r leaves the first r columns alone, and fills what room is left.
        rest = [eye[:, j] for j in negative] + [eye[:, r + i] for i in range(n - r - len(negative))]
        thin = R.tril(-1) + eye[:, :r]
        found.append(torch.cat((thin, *(v[:, None] for v in rest)), 1))
    return found[0], found[1].flip(-1)


def save_generator(path: str | Path, generator: DCGAN | StyleGAN2 | StyleGAN3) -> None:
    """Weights, settings and projectors in one safetensors file."""
    projectors = {}
    for name, module in generator.named_modules():
        isometry = isometry_of(module)
        if isometry is not None:
            projectors[name] = {
                "rank": isometry.rank,
                "axis": isometry.axis,
                "sigma": isometry.sigma_kind,
                "reflectors": isometry.reflectors,
                "mean_gain": isometry.mean_gain,
            }
    held = {
        "format": FORMAT,
        "kind": type(generator).__name__,
        "settings": generator.settings(),
        "projectors": projectors,
    }
    state = {k: v.detach().cpu().contiguous() for k, v in generator.state_dict().items()}
    with whole(path) as part:
        save_file(state, part, metadata={"householder-gan": json.dumps(held)})


def load_generator(path: str | Path) -> DCGAN | StyleGAN2 | StyleGAN3:
    """What `save_generator` wrote, in evaluation mode. Raises ValueError for any other file."""
    try:
        with safe_open(path, "pt") as file:
            held = json.loads((file.metadata() or {}).get("householder-gan", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except WRONG as error:
        raise ValueError(f"{path}: not a file of a generator: {reason(error)}") from error
    if not isinstance(held, dict):
        raise ValueError(f"{path}: its head must hold an object")
    # A list of the keys: what stands in a file need not be hashable.
    if held.get("format") != FORMAT or held.get("kind") not in list(_KINDS):
        raise ValueError(f"{path}: format must be {FORMAT!r}, got {held.get('format')!r}")
    try:
        return _built(held, state)
    except WRONG as error:
        raise ValueError(f"{path}: head and weights do not fit: {reason(error)}") from error


def _built(held: Mapping[str, Any], state: Mapping[str, Tensor]) -> DCGAN | StyleGAN2 | StyleGAN3:
    settings = dict(held["settings"])
    if isinstance(settings.get("channels"), dict):
        settings["channels"] = {int(k): v for k, v in settings["channels"].items()}
    kind = _KINDS[held["kind"]]
    with no_more_than(state):
        generator = kind(**settings)
    modules = dict(generator.named_modules())
    for name, one in held["projectors"].items():
        register_householder(
            modules[name],
            one["rank"],
            axis=one["axis"],
            sigma=one["sigma"],
            reflectors=one["reflectors"],
            gain="mean" if one["mean_gain"] else 1.0,
        )
    _load(generator, state, "weights")
    return generator.eval()
