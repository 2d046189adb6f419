"""Models as safetensors with what they are built from, and the state of a training run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .files import WRONG, load_tensors, no_more_than, reason, whole
from .model import Config, FlowFactorVAE
from .train import Trainer

FORMAT = "flowfactor 1"


def save_model(path: Path, model: FlowFactorVAE, config: Config, about: dict[str, Any]) -> None:
    """Weights, and `config` and `about` (plain values) as JSON in the file's header."""
    header = {
        "format": FORMAT,
        "config": json.dumps(dataclasses.asdict(config)),
        "about": json.dumps(about),
    }
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole(path) as part:
        save_file(weights, part, header)


def load_model(path: Path) -> tuple[FlowFactorVAE, Config, dict[str, Any]]:
    """The model, what it was built from, and `about`. ValueError for any other file."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (*WRONG, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file: {reason(error)}") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a model of {FORMAT!r}, got {header.get('format')!r}")
    try:
        fields = json.loads(header["config"])
        for name in ("shape", "hidden"):
            fields[name] = tuple(fields[name])
        config = Config(**fields)
        with no_more_than(weights):
            model = config.build()
        model.load_state_dict(weights)
        return model.eval(), config, json.loads(header["about"])
    except WRONG as error:
        raise ValueError(f"{path}: weights do not fit its config: {reason(error)}") from error


def save_run(path: Path, trainer: Trainer) -> None:
    """All that the rest of a run depends on; replaces the file in one step."""
    with whole(path) as part:
        torch.save(trainer.state_dict(), part)


def load_run(path: Path, trainer: Trainer) -> None:
    """Goes on from `save_run`, bit for bit; runs no code from the file.

    Raises ValueError naming a file that is cut short or holds more than tensors and numbers.
    """
    try:
        state = load_tensors(path)
        trainer.load_state_dict(state)
    except (*WRONG, OSError) as error:
        raise ValueError(f"{path}: not the state of this run: {reason(error)}") from error
