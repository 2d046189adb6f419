"""How fast are codes decoded and scored, beside the released code's way?

The released way (Wei et al. 2024), written anew from its description: codes are decoded together,
then strings are made and scored one by one in one process, each property reading the SMILES
anew. Ours: the same strings by `Vocabulary.decode` and by `Scorer` with two processes, which
parses a molecule once. Both do the work of the tiny preset's decoder and go on with given strings,
as a decoder that was not trained writes no molecules: some known ones, joined and with tokens
changed at random, so that no two rows need be equal. Properties: QED, SA and logP. Medians of
each way in turns, and their ratio.
"""

from pathlib import Path

import numpy as np
import torch
from chemflow.molecules import encode
from chemflow.oracles import LOGP, QED, SA
from chemflow.scoring import Scorer
from chemflow.vae import MoleculeVAE, preset
from eigenworks.timing import arguments, in_turns, medians, write_rows
from rdkit import Chem, RDConfig
from rdkit.Chem import QED as RDKIT_QED
from rdkit.Chem.rdMolDescriptors import CalcCrippenDescriptors
from rdkit.rdBase import BlockLogs
from selfies import decoder as from_selfies

QUESTION = "How fast are codes decoded and scored, beside the released code's way?"
SEEDS = (
    "CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "O=C(Nc1ccccc1)c1ccc(F)cc1", "CCN(CC)CCNC(=O)c1ccc(N)cc1", "Clc1ccc(cc1)C(c1ccccc1)N1CCNCC1",
    "COc1ccc2cc(ccc2c1)C(C)C(=O)O", "NC(=O)c1cnccn1", "CC1CCCN(C1)S(=O)(=O)c1ccccc1",
)  # fmt: skip


class Fixed:
    """The tiny preset's decoder, whose output is thrown away, and strings in its place."""

    def __init__(self, rows: int) -> None:
        torch.manual_seed(0)
        joined = [a + b for a in SEEDS for b in SEEDS]
        grown = [one for one in joined if Chem.MolFromSmiles(one)]
        known = encode([*SEEDS, *grown], max_tokens=None)
        self.vocabulary, length = known.vocabulary, known.ids.shape[1]
        self.model = MoleculeVAE(preset("tiny", length), self.vocabulary).eval()
        generator = np.random.default_rng(0)
        ids = known.ids[generator.integers(len(known), size=rows)].astype(np.int64)
        # A changed token here and there: no two rows are the same molecule.
        places = generator.integers(1, 12, size=(rows, 3))
        ids[np.arange(rows)[:, None], places] = generator.integers(
            1, len(self.vocabulary), size=(rows, 3)
        )
        self.ids = torch.from_numpy(ids)
        self.codes = torch.randn(rows, self.model.latent_size)

    def decode_ids(self, z: torch.Tensor) -> torch.Tensor:
        """The strings of the list, after the decoder's work."""
        self.model.decode_ids(z)
        return self.ids[: len(z)]


def logp(molecule: Chem.Mol) -> float:
    """Crippen's."""
    return CalcCrippenDescriptors(molecule)[0]


def released(fixed: Fixed) -> np.ndarray:
    """One by one, each property from the SMILES."""
    import sys

    sys.path.append(str(Path(RDConfig.RDContribDir) / "SA_Score"))
    import sascorer  # ty: ignore[import-not-found]

    tokens = fixed.vocabulary.tokens
    found = []
    for row in fixed.decode_ids(fixed.codes).tolist():
        smiles = from_selfies("".join(tokens[i] for i in row if i))
        values = []
        for score in (RDKIT_QED.qed, sascorer.calculateScore, logp):
            molecule = Chem.MolFromSmiles(smiles)
            valid = molecule is not None and molecule.GetNumAtoms()
            values.append(score(molecule) if valid else np.nan)
        found.append(values)
    return np.array(found, dtype=float)


def ours(fixed: Fixed, scorer: Scorer) -> np.ndarray:
    """Together, with two processes."""
    return scorer(fixed.vocabulary.decode(fixed.decode_ids(fixed.codes).numpy())).values


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.repeats = 100, 1
    torch.set_num_threads(1)
    block = BlockLogs()
    fixed = Fixed(options.rows)
    # Nothing remembered: each repeat scores all molecules.
    with Scorer((QED, SA, LOGP), workers=2, remember=0) as scorer:
        expected, found = released(fixed), ours(fixed, scorer)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        calls = {
            "released way": lambda: released(fixed),
            "chemflow": lambda: ours(fixed, scorer),
        }
        taken = medians(in_turns(calls, least=options.repeats))
    del block
    ratio = taken["released way"] / taken["chemflow"]
    for name, seconds in taken.items():
        print(f"{name:14s} {seconds:7.2f} s  {options.rows / seconds:7.0f} molecules/s")
    print(f"ratio {ratio:.2f}")
    row = {
        "label": f"{options.rows} codes, two processes",
        "metric": "speed over the released way",
        "value": ratio,
        "unit": "x",
        "better": "higher",
        "molecules per second": options.rows / taken["chemflow"],
    }
    write_rows(options.out, QUESTION, [row])


if __name__ == "__main__":
    main()
