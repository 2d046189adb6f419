"""A small model whose molecules can be told by hand, and navigators with known steps."""

import pytest
import torch
from chemflow.vocabulary import Vocabulary


class Chains:
    """Codes of four numbers. Molecules are chains: the first number rounds to the carbons.

    The second adds an oxygen if positive; a first number below 1/2 decodes to nothing, and a third
    above 5 to what is no molecule. Encoding is its inverse.
    """

    latent_size = 4

    def __init__(self):
        self.vocabulary = Vocabulary.of(["[C]", "[O]"])

    def encode_smiles(self, smiles):
        rows = []
        for one in smiles:
            if "N" in one:
                raise ValueError(f"unknown token [N]: {one!r}")
            rows.append([float(one.count("C")), 1.0 if "O" in one else -1.0, 0.0, 0.0])
        return torch.tensor(rows)

    def decode_smiles(self, z):
        return [
            "C1CC" if c > 5 else "C" * int(a + 0.5) + ("O" if b > 0 and a >= 0.5 else "")
            for a, b, c, _ in z.tolist()
        ]


class Towards:
    """Adds the same vector at every step."""

    oracle_calls = 0

    def __init__(self, *direction):
        self.direction = torch.tensor(direction)

    def __repr__(self):
        return f"Towards({self.direction.tolist()})"

    def step(self, z, t, rows=None):  # noqa: ARG002
        return z + self.direction

    def reset(self):
        pass


@pytest.fixture
def chains():
    return Chains()


@pytest.fixture
def towards():
    return Towards
