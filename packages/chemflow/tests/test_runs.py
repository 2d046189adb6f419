"""Batches over processes and in a folder: the same results to the bit."""

import json
import subprocess
import sys
import tracemalloc
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from chemflow.draws import normal_rows
from chemflow.oracles import LOGP
from chemflow.runs import Run, fingerprint
from chemflow.tasks import optimize


class Line:
    """Decodes the first number of a code to a chain of carbons."""

    latent_size = 3

    def __repr__(self):
        return "Line()"  # the module has another name as a script

    def encode_smiles(self, smiles):
        return torch.tensor([[float(one.count("C")), 0, 0] for one in smiles])

    def decode_smiles(self, z):
        return ["C" * int(a * 3 + 5.5) for a, _, _ in z.tolist()]


class Noise:
    """Moves by draws of the row and the step."""

    oracle_calls = 0

    def __repr__(self):
        return "Noise()"

    def step(self, z, t, rows=None):
        assert rows is not None
        return z + normal_rows(5, rows, 3, step=t)

    def reset(self):
        pass


def run(**more):
    return optimize(Line(), Noise(), LOGP, start=22, steps=3, batch=4, **more)


def told(found):
    """All but how many evaluations were saved by remembering, which each process does by itself."""
    calls = {key: value for key, value in found.calls.items() if key != "evaluated"}
    return json.dumps({**found.to_json(), "calls": calls}, sort_keys=True)


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_give_the_same(world, tmp_path):
    # Processes that run this file: what spawns them by name cannot import a test.
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(world), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    want = told(run())
    assert " at 0x" not in want
    for rank in range(world):
        assert (tmp_path / f"rank{rank}.json").read_text() == want
    assert len(list((tmp_path / "run").glob("batch-*.json"))) == 6
    # One process goes on from what the others left.
    (tmp_path / "run" / "batch-000002.json").unlink()
    assert told(run(folder=tmp_path / "run")) == want


def test_random_draws_do_not_depend_on_the_batch():
    want = run()
    for batch in (1, 22):
        found = optimize(Line(), Noise(), LOGP, start=22, steps=3, batch=batch)
        assert found.records == want.records


def test_memory_does_not_grow_with_the_length():
    def peak(steps):
        tracemalloc.start()
        optimize(Line(), Noise(), LOGP, start=10, steps=steps, keep_rows=False, snapshots=())
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    peak(5)
    short, long = peak(20), peak(320)
    # The sums of a step are a few kilobytes, whatever the number of rows.
    assert long - short < 300 * 8000


def test_settings_and_fingerprints(tmp_path):
    Run({"a": 1, "b": (1, 2)}, tmp_path)
    Run({"a": 1, "b": (1, 2)}, tmp_path)
    with pytest.raises(ValueError, match=r"b is \[1, 2\] there and \(1, 3\) here"):
        Run({"a": 1, "b": (1, 3)}, tmp_path)
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 2)
    first = fingerprint(layer)
    assert fingerprint(layer) == first
    with torch.no_grad():
        layer.weight[0, 0] += 1
    assert fingerprint(layer) != first
    assert fingerprint(object()) == "builtins.object"
    assert fingerprint(Noise()) == "Noise()"
    # Where a function lies in memory is no setting.
    assert " at 0x" not in fingerprint(LOGP)
    assert "name='logp'" in fingerprint(LOGP)


def test_a_batch_file_is_whole_or_absent(tmp_path):
    def work(number, first, stop):
        if number == 2:
            raise RuntimeError("dies")
        return {"number": number, "rows": [first, stop]}

    with pytest.raises(RuntimeError, match="dies"):
        Run({}, tmp_path).batches(10, 4, work)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "batch-000000.json", "batch-000001.json", "run.json",
    ]  # fmt: skip
    seen = []
    whole = Run({}, tmp_path).batches(
        10, 4, lambda number, first, stop: seen.append(number) or {"rows": [first, stop]}
    )
    assert seen == [2]
    assert [one["rows"] for one in whole] == [[0, 4], [4, 8], [8, 10]]


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=120), world, rank)
    (folder / f"rank{rank}.json").write_text(told(run(folder=folder / "run")))
    dist.barrier()
    dist.destroy_process_group()
