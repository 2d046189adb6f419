"""A generator from whatever file it lies in."""

import json
from pathlib import Path

from .checkpoints import load_generator, load_nvlabs, load_rosinality, read_checkpoint
from .files import WRONG, reason
from .generators.dcgan import DCGAN, load_dcgan
from .generators.stylegan2 import StyleGAN2
from .generators.stylegan3 import StyleGAN3

Known = DCGAN | StyleGAN2 | StyleGAN3


def read_generator(path: str | Path) -> Known:
    """A generator from our own file, an NVlabs .pkl, a rosinality .pt or a DCGAN state.

    Raises ValueError for anything else, naming the file.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_generator(path)
    if path.suffix == ".pkl":
        return load_nvlabs(path)
    held = read_checkpoint(path)
    if isinstance(held, dict) and "g_ema" in held:
        return load_rosinality(path)
    if isinstance(held, dict):
        state = held.get("netG_state_dict", held)
        if isinstance(state, dict) and "main.0.weight" in state:
            try:
                return load_dcgan(state).eval()
            except WRONG as error:
                raise ValueError(f"{path}: no whole DCGAN: {reason(error)}") from error
    raise ValueError(f"{path}: expected a generator of DCGAN, StyleGAN2 or StyleGAN3")


def read_labels(path: str | Path) -> dict[str, dict[str, str]]:
    """What the page of directions saves: {layer: {number: name}}.

    Raises ValueError for any other file, naming it.
    """
    try:
        held = json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {reason(error)}") from error
    layers = held.values() if isinstance(held, dict) else [None]
    for names in layers:
        if not isinstance(names, dict) or not all(
            j.isdecimal() and isinstance(text, str) for j, text in names.items()
        ):
            raise ValueError(f"{path}: must hold {{layer: {{number: name}}}}")
    return held
