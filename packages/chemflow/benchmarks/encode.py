"""How long does it take to standardise and encode molecules, and what do two processes gain?

MOSES's training set from its wheel, the first COUNT molecules (55,000 by default): RDKit reads and
writes each, SELFIES encodes it, duplicates are found, tokens are numbered. The peer does the same
one after another, as the official notebook does but for its pandarallel: RDKit canonical SMILES,
`selfies.encoder`, `split_selfies`, a dictionary. Start-up of the processes counts.
"""

import time

import selfies
from chemflow.molecules import encode
from eigenworks.data import MOSES
from eigenworks.timing import arguments, write_rows
from rdkit import Chem

QUESTION = "How long does it take to standardise and encode molecules?"


def one_by_one(smiles: list[str]) -> int:
    """The peer; the number of distinct molecules."""
    seen: dict[str, list[str]] = {}
    for one in smiles:
        text = selfies.encoder(Chem.MolToSmiles(Chem.MolFromSmiles(one)))
        seen.setdefault(text, list(selfies.split_selfies(text)))
    tokens = {token for row in seen.values() for token in row}
    numbers = {token: number for number, token in enumerate(["[nop]", *sorted(tokens)])}
    length = max(map(len, seen.values()))
    rows = [[numbers[t] for t in row] + [0] * (length - len(row)) for row in seen.values()]
    return len(rows)


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=55_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peer", type=int, default=5_000, help="molecules of the peer; 0 for none")
    options = parser.parse_args()
    if options.quick:
        options.count, options.peer = 1000, 500
    smiles = MOSES.load("train")[: options.count]
    rows = []
    for workers in options.workers:
        begin = time.perf_counter()
        found = encode(smiles, workers=workers)
        seconds = time.perf_counter() - begin
        assert found.report.kept + sum(found.report.rejected.values()) == len(smiles)
        label = f"{len(smiles):,} molecules, {workers} process{'es' * (workers > 1)}"
        print(f"{label:<40} {seconds:8.1f} s  {1e6 * seconds / len(smiles):7.0f} µs each")
        rows.append({"label": label, "metric": "seconds", "value": seconds, "unit": "s",
                     "better": "lower"})  # fmt: skip
    if options.peer:
        part = smiles[: options.peer]
        begin = time.perf_counter()
        kept = one_by_one(part)
        theirs = (time.perf_counter() - begin) / len(part)
        for row in list(rows):
            assert kept <= len(part)
            ratio = theirs * len(smiles) / row["value"]
            print(f"{row['label']:<40} {ratio:8.2f} x one by one")
            rows.append({"label": row["label"], "metric": "speed over one by one",
                         "value": ratio, "unit": "x", "better": "higher"})  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
