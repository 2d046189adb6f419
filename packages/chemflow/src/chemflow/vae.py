"""The molecule VAE: SELFIES tokens to codes and back.

Wei et al. 2024 (ChemFlow), appendix D.5, after LIMO (Eckmann et al. 2022).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .autoregressive import AutoregressiveDecoder
from .checkpoint import no_more_than, read_checkpoint, write_checkpoint
from .draws import uniform_rows
from .files import WRONG, reason
from .molecules import to_selfies
from .one_shot import OneShotDecoder, encoder_layers
from .prior import LatentPrior, standard_sample
from .standardise import Standardiser
from .vocabulary import Vocabulary

FORMAT = "chemflow vae 1"
FILE = "model.safetensors"
_TOKENS = 5
"""Purpose of the draws of tokens."""
Preset = Literal["tiny", "paper", "ar"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of a model.

    Args:
        length: L, longest string in tokens.
        latent: D, size of a code.
        embedding: Size of a token's vector in the encoder.
        hidden: Widths of the encoder; a one-shot decoder has them backwards.
        state: Width of the recurrent state of an autoregressive decoder; 0 for the one-shot.
        decoder_embedding: Size of a token's vector in an autoregressive decoder.
    """

    length: int
    latent: int = 128
    embedding: int = 16
    hidden: tuple[int, ...] = (768, 384)
    state: int = 0
    decoder_embedding: int = 64

    def __post_init__(self) -> None:
        sizes = (self.length, self.latent, self.embedding, self.decoder_embedding, *self.hidden)
        if min(sizes) < 1 or not self.hidden or self.state < 0:
            raise ValueError(f"sizes must be positive, and state not negative, got {self}")


def preset(name: Preset, length: int) -> Config:
    """`tiny`: 2.4 million parameters, minutes on a CPU. `paper`: 134 million at L = 72, V = 244.
    `ar`: the tiny encoder with a recurrent decoder, whose samples look like molecules.

    Raises ValueError for another name.
    """
    if name == "tiny":
        return Config(length)
    if name == "paper":
        return Config(length, latent=1024, embedding=128, hidden=(4096, 2048, 1024))
    if name == "ar":
        return Config(length, state=512)
    raise ValueError(f"preset must be 'tiny', 'paper' or 'ar', got {name!r}")


class MoleculeVAE(nn.Module):
    """q(z | x) = N(μ(x), σ²(x)) and p(x | z) over SELFIES tokens.

    Functions that turn codes to molecules and back need evaluation mode, which is what
    `load_model` and training leave: with the statistics of a batch a molecule's path would depend
    on its neighbours.

    Args:
        config: Sizes; `preset` has three.
        vocabulary: Tokens; the first is the padding.
    """

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        c, tokens = config, len(vocabulary)
        self.config = config
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(tokens, c.embedding, padding_idx=0)
        self.encoder = encoder_layers(c.length * c.embedding, c.hidden, c.latent)
        self.decoder: OneShotDecoder | AutoregressiveDecoder
        if c.state:
            self.decoder = AutoregressiveDecoder(
                c.latent, c.decoder_embedding, c.state, c.length, tokens
            )
        else:
            self.decoder = OneShotDecoder(c.latent, c.hidden[::-1], c.length, tokens)
        self.prior: LatentPrior | None = None
        """Where codes come from, once it is trained; N(0, I) until then."""

    @property
    def latent_size(self) -> int:
        """D."""
        return self.config.latent

    def encode(
        self, ids: Int64[Tensor, "b l"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """μ and log σ² of q(z | x)."""
        if ids.ndim != 2 or ids.shape[1] != self.config.length:
            raise ValueError(f"ids must be (b, {self.config.length}), got {tuple(ids.shape)}")
        mu, log_var = self.encoder(self.embedding(ids).flatten(1)).chunk(2, -1)
        return mu, log_var

    def sample(
        self, ids: Int64[Tensor, "b l"], noise: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """μ + σ noise."""
        mu, log_var = self.encode(ids)
        return mu + (log_var / 2).exp() * noise

    def log_probabilities(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b l v"]:
        """log p of every token at every position of the one-shot decoder.

        Of an autoregressive one, given the most likely tokens before it.
        """
        ids = self.decoder.decode(z)
        return self.decoder.logits(z, ids).log_softmax(-1)

    def probabilities(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b l v"]:
        """What surrogates read; see the decoders. Differentiable in z."""
        return self.decoder.probabilities(z)

    @torch.no_grad()
    def decode_ids(self, z: Float[Tensor, "b d"]) -> Int64[Tensor, "b l"]:
        """The most likely tokens."""
        self._check_codes(z)
        parts = [self.decoder.decode(part) for part in self._parts(z)]
        return torch.cat(parts) if parts else z.new_empty(0, self.config.length, dtype=torch.int64)

    def decode_smiles(self, z: Float[Tensor, "b d"]) -> list[str]:
        """The most likely molecule of each code as SMILES, "" where there is none."""
        return self.vocabulary.decode(self.decode_ids(z).cpu().numpy())

    def encode_smiles(self, smiles: Sequence[str]) -> Float[Tensor, "b d"]:
        """Posterior means of standardised molecules.

        Raises MoleculeError naming the first molecule that has none: a ValueError.
        """
        self._check_mode()
        standardise = Standardiser()
        ids = [
            self.vocabulary.encode(to_selfies(standardise(one)), self.config.length)
            for one in smiles
        ]
        return self.encode_ids(torch.tensor(ids, dtype=torch.int64).view(-1, self.config.length))

    def sample_codes(self, rows: Int64[Tensor, " b"], seed: int) -> Float[Tensor, "b d"]:
        """Codes of the learned prior, or of N(0, I) where there is none; by row number and seed."""
        if self.prior is not None:
            return self.prior.sample(rows, seed)
        return standard_sample(rows, self.latent_size, seed).to(self.embedding.weight)

    @torch.no_grad()
    def sample_smiles(
        self, rows: Int64[Tensor, " b"], seed: int, temperature: float = 1.0
    ) -> list[str]:
        """Molecules drawn from the model: a code for each row, then tokens given the code.

        The draws depend on the row and the seed alone. Below a temperature of 1 likely tokens are
        preferred; `decode_smiles(sample_codes(rows, seed))` is the limit 0, which for a recurrent
        decoder is not a sample of p(x | z) but its most likely continuation at every token.
        "" where there is no molecule. Raises ValueError unless temperature > 0.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        self._check_mode()
        ids = [
            self.decoder.draw(
                self.sample_codes(some, seed),
                uniform_rows(seed, some, self.config.length, purpose=_TOKENS),
                temperature,
            )
            for some in rows.split(1024)
            if len(some)
        ]
        return self.vocabulary.decode(torch.cat(ids).cpu().numpy()) if ids else []

    @torch.no_grad()
    def encode_ids(self, ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        """Posterior means of tokens."""
        self._check_mode()
        device = self.embedding.weight.device
        parts = [self.encode(part.to(device))[0] for part in ids.split(1024) if len(part)]
        if not parts:
            return self.embedding.weight.new_empty(0, self.latent_size)
        return torch.cat(parts)

    def _check_mode(self) -> None:
        if self.training:
            raise RuntimeError("the model is in training mode: call eval() first")

    def _check_codes(self, z: Tensor) -> None:
        self._check_mode()
        if z.ndim != 2 or z.shape[1] != self.latent_size:
            raise ValueError(f"z must be (b, {self.latent_size}), got {tuple(z.shape)}")
        bad = ~z.isfinite().all(-1)
        if bool(bad.any()):
            raise ValueError(f"z must be finite, got {z[bad][0]} in row {int(bad.nonzero()[0])}")

    def _parts(self, z: Tensor) -> Iterator[Tensor]:
        return (part for part in z.split(1024) if len(part))


def save_model(folder: Path, model: MoleculeVAE) -> None:
    """Weights, sizes and tokens, with the prior if there is one."""
    about = {
        "config": dataclasses.asdict(model.config),
        "tokens": list(model.vocabulary.tokens),
        "prior": None if model.prior is None else model.prior.config(),
    }
    write_checkpoint(folder / FILE, FORMAT, about, model.state_dict())


def load_model(folder: Path, device: torch.device | str = "cpu") -> MoleculeVAE:
    """In evaluation mode and frozen. Raises ValueError for any other file, naming it."""
    about, weights = read_checkpoint(folder / FILE, FORMAT)
    try:
        with no_more_than(weights):
            model = _built(about)
        model.load_state_dict(weights)
    except WRONG as error:
        told = f"{folder / FILE}: weights do not fit its head: {reason(error)}"
        raise ValueError(told) from error
    return model.to(device).eval().requires_grad_(False)


def _built(about: dict[str, Any]) -> MoleculeVAE:
    config = Config(**about["config"] | {"hidden": tuple(about["config"]["hidden"])})
    model = MoleculeVAE(config, Vocabulary(tuple(about["tokens"])))
    if about["prior"] is not None:
        model.prior = LatentPrior(**about["prior"])
    return model
