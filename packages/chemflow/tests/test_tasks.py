"""`optimize` on a model whose molecules can be told by hand."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from chemflow.candidates import Candidate
from chemflow.objective import weighted
from chemflow.optimization import load_optimization
from chemflow.oracles import LOGP, QED, SA, Property
from chemflow.protocol import LatentModel, Navigator
from chemflow.scoring import Scorer, tanimoto
from chemflow.statistics import over_seeds
from chemflow.tasks import optimize
from chemflow.trajectory import read, write_sdf
from rdkit import Chem

CARBONS = Property("carbons", lambda mol: sum(a.GetSymbol() == "C" for a in mol.GetAtoms()))
HEAVY = Property("heavy", lambda mol: mol.GetNumAtoms(), maximise=False)


def similarity(a, b):
    packed = Scorer([])([a, b]).fingerprints
    return float(tanimoto(packed[0], packed[1]))


def test_the_protocols(chains, towards):
    assert isinstance(chains, LatentModel)
    assert isinstance(towards(1.0, 0.0, 0.0, 0.0), Navigator)


def test_from_molecules_by_hand(chains, towards):
    found = optimize(
        chains, towards(1.0, 0.0, 0.0, 0.0), CARBONS,
        start=["OCC", "CCC", "CCN", "C1C", "CCCC"], steps=3, also=[HEAVY],
        thresholds=(0.0, 0.4, 0.9),
    )  # fmt: skip
    assert found.size == 5
    assert [(row, smiles) for row, smiles, _ in found.lost] == [(2, "CCN"), (3, "C1C")]
    assert "unknown token" in found.lost[0][2]
    assert [step.mean["carbons"] for step in found.steps] == [3, 4, 5, 6]
    assert [step.improved for step in found.steps] == [0, 1, 1, 1]
    assert [one.smiles for one in found.best[:3]] == ["CCCCCCC", "CCCCCC", "CCCCCO"]
    # Of equals the earliest row and step.
    assert [(one.row, one.step) for one in found.best[:3]] == [(4, 3), (1, 3), (0, 3)]
    assert found.best[0].start == "CCCC"
    assert [one.smiles for one in found.last] == ["CCCCCCC", "CCCCCC", "CCCCCO"]
    # At 0 all three of five improve by three carbons; heavy atoms only grow.
    whole = found.improvement(0.0, "carbons")
    assert (whole.reference, whole.success, whole.mean, whole.std) == ("input", 0.6, 3, 0)
    assert whole.curve == (0, 3 / 5, 6 / 5, 9 / 5)
    assert found.improvement(0.0, "heavy").success == 0
    assert math.isnan(found.improvement(0.0, "heavy").mean)
    # Under 0.4 by hand, from the similarities of the chains.
    gains = []
    for first in ("CCO", "CCC", "CCCC"):
        grown = ["C" * n + first for n in (1, 2, 3)]
        near = [n for n, one in enumerate(grown, 1) if similarity(first, one) >= 0.4]
        gains.append(max(near, default=0))
    won = [gain for gain in gains if gain]
    near = found.improvement(0.4, "carbons")
    assert near.success == len(won) / 5
    assert near.mean == pytest.approx(np.mean(won))
    assert near.std == pytest.approx(np.std(won, ddof=1))
    assert found.improvement(0.9, "carbons").success == 0
    record = found.records[0]
    assert (record["row"], record["input"], record["before"]) == (0, "CCO", [2, 3, 2])
    assert record["improvement"]["0"]["carbons"] == {"gain": 3, "step": 3, "smiles": "CCCCCO"}
    assert record["best"]["similarity"] == pytest.approx(similarity("CCO", "CCCCCO"))


def test_the_input_is_the_true_molecule_not_its_reconstruction(chains, towards):
    # Decodes one carbon more than was encoded: a poor reconstruction that looks like a gain.
    encode = chains.encode_smiles
    chains.encode_smiles = lambda smiles: encode(smiles) + torch.tensor([-1.0, 0.0, 0.0, 0.0])
    found = optimize(
        chains, towards(1.0, 0.0, 0.0, 0.0), CARBONS, start=["CCCC"], steps=2, thresholds=(0.0,)
    )
    assert found.improvement(0.0, "carbons", "input").mean == 1
    assert found.improvement(0.0, "carbons", "start").mean == 2
    assert found.records[0]["before"][0] == 4


def test_a_lucky_reconstruction_is_no_step(chains, towards):
    encode = chains.encode_smiles
    chains.encode_smiles = lambda smiles: encode(smiles) + torch.tensor([1.0, 0.0, 0.0, 0.0])
    go = towards(1.0, 0.0, 0.0, 0.0)
    still = optimize(chains, go, CARBONS, start=["CCCC"], steps=0, thresholds=(0.0,))
    assert still.improvement(0.0, "carbons", "input").success == 0
    moved = optimize(chains, go, CARBONS, start=["CCCC"], steps=2, thresholds=(0.0,))
    assert moved.improvement(0.0, "carbons", "input").curve == (0, 2, 3)
    assert moved.improvement(0.0, "carbons", "start").curve == (0, 1, 2)


def test_the_best_of_a_row_is_of_the_whole_path(chains):
    class Zigzag:
        oracle_calls = 0

        def step(self, z, t, rows=None):  # noqa: ARG002
            return z + torch.tensor([(3.0, -2.0, 1.0)[t], 0, 0, 0])

        def reset(self):
            pass

    start = torch.tensor([[4.0, -1, 0, 0]])
    found = optimize(chains, Zigzag(), CARBONS, start=start, steps=3, thresholds=(0.0,))
    assert [step.mean["carbons"] for step in found.steps] == [4, 7, 5, 6]
    assert (found.records[0]["best"]["step"], found.records[0]["best"]["score"]) == (1, 7)
    assert found.records[0]["last"]["score"] == 6
    assert found.improvement(0.0).curve == (0, 3, 3, 3)
    assert [one.smiles for one in found.best] == ["C" * n for n in (7, 6, 5, 4)]


def test_navigators_hear_of_steps_and_rows(chains):
    heard = []

    class Hears:
        oracle_calls = 0

        def step(self, z, t, rows=None):
            assert rows is not None
            assert not z.requires_grad
            heard.append((t, rows.tolist()))
            return z

        def reset(self):
            heard.append("reset")

    optimize(chains, Hears(), CARBONS, start=["CC", "CCN", "CCC", "CCCC"], steps=2, batch=2)
    assert heard == ["reset", (0, [0]), (1, [0]), "reset", (0, [2, 3]), (1, [2, 3])]


def test_a_similarity_of_exactly_the_threshold_is_enough(chains, towards):
    delta = similarity("CCCC", "CCCCC")
    found = optimize(
        chains, towards(1.0, 0.0, 0.0, 0.0), CARBONS, start=["CCCC"], steps=1, thresholds=(delta,)
    )
    assert found.improvement(delta).success == 1


def test_what_is_no_molecule_is_counted_and_never_scored(chains, towards):
    start = torch.tensor([[3.0, -1, 0, 0], [4.0, -1, 0, 0]])
    # After two steps the third number is 6: the model decodes a broken SMILES.
    found = optimize(chains, towards(1.0, 0.0, 3.0, 0.0), CARBONS, start=start, steps=3)
    assert [step.valid for step in found.steps] == [1, 1, 0, 0]
    assert [step.mean["carbons"] for step in found.steps[:2]] == [3.5, 4.5]
    assert math.isnan(found.steps[2].mean["carbons"])
    assert found.steps[2].improved == 0
    assert found.calls == {"asked": 8, "invalid": 4, "evaluated": 3, "navigator": 0}
    assert found.last == ()
    assert found.best[0].smiles == "CCCCC"
    assert found.records[0]["last"] is None
    assert found.improvement(0.0).mean == 1
    assert np.isnan(found.snapshots[3]).all()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["steps"][2]["valid"] == 0


def test_smaller_is_better_where_it_is(chains, towards):
    start = torch.tensor([[6.0, -1, 0, 0], [4.0, 1, 0, 0]])
    found = optimize(chains, towards(-1.0, 0.0, 0.0, 0.0), HEAVY, start=start, steps=3)
    assert [one.smiles for one in found.best[:2]] == ["CO", "CCC"]
    assert [one.values["heavy"] for one in found.best[:2]] == [2, 3]
    assert found.best[0].score == -2
    assert found.improvement(0.0, "heavy").mean == 3


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_batches_change_nothing(chains, towards, batch):
    go = towards(0.4, 0.3, 0.2, 0.0)
    want = optimize(chains, go, LOGP, start=50, steps=6, also=[QED], batch=64)
    found = optimize(chains, go, LOGP, start=50, steps=6, also=[QED], batch=batch)
    assert found.best == want.best
    assert found.last == want.last
    assert found.records == want.records
    for one, other in zip(found.steps, want.steps, strict=True):
        assert one.mean == pytest.approx(other.mean, rel=1e-12, nan_ok=True)
    assert found.improvements[0].success == want.improvements[0].success


def test_seeds_give_other_codes(chains, towards):
    go = towards(0.4, 0.3, 0.2, 0.0)
    runs = [optimize(chains, go, LOGP, start=40, steps=2, seed=seed) for seed in (0, 1, 0)]
    assert runs[0].best == runs[2].best
    assert runs[0].steps[0].norm != runs[1].steps[0].norm
    assert {one.seed for one in runs[1].best} == {1}
    figures = over_seeds([run.figures() for run in runs[:2]])
    name = "mean logp at the end"
    assert figures[name].mean == pytest.approx(
        (runs[0].steps[-1].mean["logp"] + runs[1].steps[-1].mean["logp"]) / 2
    )
    assert figures[name].low < figures[name].mean < figures[name].high


def test_the_models_own_prior(chains, towards):
    go = towards(1.0, 0.0, 0.0, 0.0)
    plain = optimize(chains, go, CARBONS, start=5, steps=0)
    chains.sample_codes = lambda rows, seed: torch.tensor([[7.0 + seed, -1, 0, 0]]).expand(
        len(rows), 4
    )
    own = optimize(chains, go, CARBONS, start=5, steps=0, seed=1)
    assert own.steps[0].mean["carbons"] == 8
    assert len(own.best) == 1  # one molecule, however often
    assert optimize(chains, go, CARBONS, start=5, steps=0, prior="normal").best == plain.best


def test_surrogate_beside_oracle(chains, towards):
    class Guess:
        def predict(self, z):
            return 2 * z[:, 0]

        def std(self, z):
            return torch.full((len(z),), 0.5)

    start = torch.tensor([[3.0, -1, 0, 0], [5.0, -1, 0, 0]])
    go = towards(1.0, 0.0, 0.0, 0.0)
    found = optimize(chains, go, CARBONS, start=start, steps=1, surrogates={"carbons": Guess()})
    assert found.steps[1].predicted == {"carbons": 10}
    assert found.steps[1].error == {"carbons": 5}
    assert found.best[0].predicted == {"carbons": 12}
    assert found.best[0].std == {"carbons": 0.5}
    assert "10.000" in found.table()
    with pytest.raises(ValueError, match="surrogates must be of"):
        optimize(chains, go, CARBONS, start=2, surrogates={"qed": Guess()})


def test_several_properties(chains, towards):
    goal = weighted([CARBONS, SA], weights=[1.0, 2.0], ranges=[(0.0, 50.0), (1.0, 10.0)])
    found = optimize(chains, towards(1.0, 0.0, 0.0, 0.0), goal, start=["CC", "CCO"], steps=4)
    one = found.best[0]
    assert one.score == pytest.approx(one.values["carbons"] / 50 - 2 * (one.values["sa"] - 1) / 9)
    points = {(c.values["carbons"], -c.values["sa"]) for c in found.front}
    assert len(points) == len(found.front) >= 1
    for a in points:
        assert not any(b[0] >= a[0] and b[1] >= a[1] and b != a for b in points)
    assert {c.column for c in found.improvements} == {"carbons", "sa", "objective"}


def test_trajectories_and_sdf(chains, towards, tmp_path):
    start = torch.tensor([[3.0, -1, 0, 0], [4.0, 1, 0, 0], [5.0, -1, 0, 0]])
    go = towards(1.0, 0.0, 2.0, 0.0)
    optimize(chains, go, CARBONS, start=start, steps=3, batch=2, folder=tmp_path, trajectories=True)
    files = sorted(tmp_path.glob("trajectories-*.jsonl"))
    assert len(files) == 2
    points = list(read(*files))
    assert len(points) == 12
    last = points[-1]
    assert (last.row, last.step, last.smiles, last.canonical) == (2, 3, "C1CC", "")
    assert math.isnan(last.values["carbons"])
    assert math.isnan(last.similarity)
    assert last.norm == pytest.approx(math.sqrt(64 + 1 + 36))
    by_place = {(p.row, p.step): p for p in points}
    assert by_place[1, 2].canonical == "CCCCCCO"
    assert by_place[1, 2].similarity == pytest.approx(similarity("CCCCO", "CCCCCCO"))
    assert write_sdf(tmp_path / "all.sdf", points) == 9
    mols = list(Chem.SDMolSupplier(str(tmp_path / "all.sdf")))
    assert [mol.GetProp("carbons") for mol in mols[:2]] == ["3.0", "4.0"]
    assert mols[0].GetNumConformers() == 1
    files[0].write_text('{"row": 1}\n')
    with pytest.raises(ValueError, match="line 1 is no step"):
        list(read(files[0]))


def test_a_run_goes_on_and_refuses_another(chains, towards, tmp_path):
    go = towards(0.4, 0.3, 0.2, 0.0)
    arguments: dict[str, Any] = {"start": 20, "steps": 3, "batch": 4}
    want = optimize(chains, go, LOGP, **arguments)
    decode, calls = chains.decode_smiles, []

    def dies(z):
        calls.append(len(z))
        if len(calls) == 11:
            raise KeyboardInterrupt
        return decode(z)

    chains.decode_smiles = dies
    with pytest.raises(KeyboardInterrupt):
        optimize(chains, go, LOGP, **arguments, folder=tmp_path, trajectories=True)
    assert len(list(tmp_path.glob("batch-*.json"))) == 2
    assert sorted(path.name for path in tmp_path.glob("*traj*")) == [
        "trajectories-000000.jsonl", "trajectories-000001.jsonl",
    ]  # fmt: skip
    assert not list(tmp_path.glob(".*"))
    calls.clear()
    chains.decode_smiles = lambda z: calls.append(len(z)) or decode(z)
    found = optimize(chains, go, LOGP, **arguments, folder=tmp_path, trajectories=True)
    assert len(calls) == 3 * 4
    assert found.best == want.best
    assert found.records == want.records
    assert found.improvements == want.improvements
    with pytest.raises(ValueError, match="holds another run: seed is 0 there and 1 here"):
        optimize(chains, go, LOGP, **arguments, folder=tmp_path, trajectories=True, seed=1)
    other = towards(0.5, 0.3, 0.2, 0.0)
    with pytest.raises(ValueError, match="navigator is"):
        optimize(chains, other, LOGP, **arguments, folder=tmp_path, trajectories=True)


def test_rows_need_not_be_kept(chains, towards):
    found = optimize(
        chains, towards(0.4, 0.3, 0.2, 0.0), LOGP, start=30, steps=3, keep_rows=False, top=2,
        batch=3,
    )  # fmt: skip
    whole = optimize(chains, towards(0.4, 0.3, 0.2, 0.0), LOGP, start=30, steps=3, top=2)
    assert found.best == whole.best
    assert found.last == whole.last
    assert found.records == ()
    assert found.snapshots == {}
    assert len(found.best) == 2


def test_arguments_that_do_not_fit(chains, towards):
    go = towards(1.0, 0.0, 0.0, 0.0)
    wrongs: dict[str, tuple[dict[str, Any], str]] = {
        "thresholds": ({"thresholds": (1.5,)}, "thresholds must be"),
        "shape": ({"start": torch.zeros(3, 5)}, r"start must be codes \(n, 4\), got \(3, 5\)"),
        "nan": ({"start": torch.full((3, 4), math.nan)}, "start must be finite"),
        "number": ({"start": -1}, "start must not be negative"),
        "steps": ({"steps": -1, "start": 1}, "steps must not be negative"),
        "batch": ({"batch": 0}, "batch must be at least 1"),
        "folder": ({"trajectories": True}, "trajectories need a folder"),
    }
    for wrong, told in wrongs.values():
        with pytest.raises(ValueError, match=told):
            optimize(chains, go, LOGP, **wrong)
    with pytest.raises(ValueError, match="row 0 is not finite after step 2"):
        optimize(chains, towards(1e38, 0.0, 0.0, 0.0), LOGP, start=torch.full((1, 4), 2e38))


def test_no_rows(chains, towards):
    found = optimize(chains, towards(1.0, 0.0, 0.0, 0.0), LOGP, start=0, steps=2)
    assert (found.size, found.best, found.records) == (0, (), ())
    lost = optimize(chains, towards(1.0, 0.0, 0.0, 0.0), LOGP, start=["CCN"], steps=2)
    assert lost.improvement(0.0).success == 0
    assert "no code" in lost.table()


def test_a_result_through_its_files(chains, towards, tmp_path):
    found = optimize(
        chains, towards(0.4, 0.3, 0.5, 0.0), LOGP, start=["CCO", "CCN", "CC"], steps=8, also=[SA]
    )
    found.save(tmp_path)
    again = load_optimization(tmp_path)
    assert repr(again.steps) == repr(found.steps)
    assert repr(again.improvements) == repr(found.improvements)
    assert again.best == found.best
    assert again.lost == found.lost
    assert again.table() == found.table()
    np.testing.assert_array_equal(again.snapshots[3], found.snapshots[3])
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(one)["row"] for one in lines] == [0, 2]
    (tmp_path / "optimization.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="expected the format"):
        load_optimization(tmp_path)


def test_candidates_through_json():
    one = Candidate("C", 1.0, {"a": math.nan}, 0, 1, 2)
    again = Candidate.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
    assert again.smiles == "C"
    assert math.isnan(again.values["a"])
    assert math.isnan(again.similarity)
