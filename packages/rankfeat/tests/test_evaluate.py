"""evaluate, its reports, the bootstrap, counting in fixed memory, and drift."""

import csv
import io
import itertools
import json
import math
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from rankfeat import (
    OPENOOD,
    PAPER,
    LogitDetector,
    RankFeat,
    ScoreCounter,
    aupr,
    auroc,
    check_drift,
    evaluate,
    fpr95,
    shard,
)
from rankfeat.bootstrap import interval, resample
from rankfeat.calibration import Calibration
from rankfeat.drift import drift_of
from rankfeat.metrics import auroc_of
from rankfeat.report import to_csv, to_html, to_json, to_text, write
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class First:
    """Scores an input by its first entry."""

    def fit(self, batches):  # noqa: ARG002
        return self

    def score(self, x):
        return x[:, 0]


class Rounded(First):
    def score(self, x):
        return x[:, 0].mul(2).round()


ID, NEAR, FAR = draw(60, 2) + 1, draw(50, 2, seed=1), draw(40, 2, seed=2) - 1
SETS = {"near set": NEAR.split(20), "far set": FAR.split(20)}


@pytest.fixture(scope="module")
def found():
    groups = {"all": ["near set", "far set"], "far": ["far set"]}
    detectors = {"first": First(), "rounded": Rounded()}
    return evaluate(detectors, ID.split(7), SETS, groups=groups, resamples=300)


def test_figures_of_both_conventions(found):
    for ood, data in (("near set", NEAR), ("far set", FAR)):
        pair = Rounded().score(ID), Rounded().score(data)
        row = found.row("rounded", ood)
        assert row.figures == pytest.approx({
            "fpr95": fpr95(*pair), "auroc": auroc(*pair),
            "aupr_in": aupr(*pair), "aupr_out": aupr(*pair, "ood"),
        })  # fmt: skip
        row = found.row("rounded", ood, OPENOOD)
        assert row.figures == pytest.approx({
            "fpr95": fpr95(*pair, "ood", "geq"), "auroc": auroc(*pair),
            "aupr_in": aupr(*pair, "id", "trapezoid"), "aupr_out": aupr(*pair, "ood", "trapezoid"),
        })  # fmt: skip
        assert (row.id_samples, row.ood_samples) == (60, len(data))


def test_means_and_groups(found):
    near, far, mean, every, group = (
        found.row("first", one).figures["fpr95"]
        for one in ("near set", "far set", "mean", "all", "far")
    )
    assert mean == pytest.approx((near + far) / 2)
    assert every == mean
    assert group == far
    low, high = found.row("first").intervals["fpr95"]
    assert low < mean < high


def test_gain_is_paired_and_positive_is_better(found):
    gains = {one.ood: one for one in found.gain("first", "rounded")}
    assert set(gains) == {"near set", "far set", "all", "far", "mean"}
    values = [found.row(one).figures["fpr95"] for one in ("first", "rounded")]
    assert gains["mean"].value == pytest.approx(values[1] - values[0])
    same = found.gain("first", "first", "auroc")
    assert all(one.value == 0 and one.interval == (0, 0) for one in same)


def test_bootstrap_against_resampling_by_hand():
    scores = {"one": (ID[:, 0], {"set": NEAR[:, 0]})}
    got = resample(scores, lambda c: {"auroc": auroc_of(c)}, resamples=400, seed=3)
    values = got["one"]["set"]["auroc"]
    generator = torch.Generator().manual_seed(9)
    by_hand = torch.tensor([
        auroc(ID[torch.randint(60, (60,), generator=generator), 0],
              NEAR[torch.randint(50, (50,), generator=generator), 0])
        for _ in range(400)
    ])  # fmt: skip
    assert float(values.mean()) == pytest.approx(float(by_hand.mean()), abs=0.006)
    assert float(values.std()) == pytest.approx(float(by_hand.std()), rel=0.15)
    low, high = interval(values)
    assert (low, high) == pytest.approx(
        (float(values.quantile(0.025)), float(values.quantile(0.975)))
    )


def test_the_same_in_every_chunk_and_every_run(monkeypatch):
    scores = {"one": (ID[:, 0], {"set": NEAR[:, 0]})}
    run = lambda: resample(scores, PAPER.figures, resamples=20)["one"]["set"]["fpr95"]  # noqa: E731
    assert torch.equal(run(), run())
    monkeypatch.setattr("rankfeat.bootstrap._CHUNK", 500)
    assert len(run()) == 20


def test_reports_say_the_same(found, tmp_path):
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    told = json.loads(to_json(found))
    assert len(rows) == len(told["rows_percent"]) == len(found.rows) == 2 * 5 * 2
    for row, read, other in zip(found.rows, rows, told["rows_percent"], strict=True):
        assert (read["detector"], read["ood"]) == (row.detector, row.ood)
        assert float(read["fpr95"]) == pytest.approx(100 * row.figures["fpr95"], rel=1e-5)
        assert other["auroc_interval"] == pytest.approx([100 * x for x in row.intervals["auroc"]])
    text, page = to_text(found), to_html(found)
    for convention in (PAPER, OPENOOD):
        assert convention.name in text
        assert convention.name in page
    mean = f"{100 * found.row('rounded').figures['fpr95']:.2f}"
    assert mean in text
    assert mean in page
    # Histograms of two detectors and curves of two sets.
    assert page.count("<svg") == 4
    for ending in ("csv", "json", "html", "txt", "pt"):
        write(found, tmp_path / f"report.{ending}")
        assert (tmp_path / f"report.{ending}").stat().st_size > 0
    scores = torch.load(tmp_path / "report.pt")
    assert torch.equal(scores["ood"]["first"]["far set"], FAR[:, 0].double())
    with pytest.raises(ValueError, match=r"path must end in \.csv, .*, got 'report.xls'"):
        write(found, tmp_path / "report.xls")


def test_what_cannot_be_evaluated():
    with pytest.raises(ValueError, match="ood_data must hold at least one set: both ID and OOD"):
        evaluate(First(), [ID], {})
    with pytest.raises(ValueError, match="the set ID has no samples for First: both ID and OOD"):
        evaluate(First(), [], SETS)
    with pytest.raises(ValueError, match="the set empty has no samples"):
        evaluate(First(), [ID], {"empty": []})
    with pytest.raises(ValueError, match="First scored sample 22 of bad NaN"):
        evaluate(First(), [ID], {"bad": [NEAR[:20], torch.tensor([[0.0], [1.0], [math.nan]])]})
    with pytest.raises(ValueError, match="the name 'mean' of a set or group is taken"):
        evaluate(First(), [ID], {"mean": [NEAR]})
    with pytest.raises(ValueError, match="group 'near' must name sets of ood_data"):
        evaluate(First(), [ID], SETS, groups={"near": ["other"]})
    with pytest.raises(ValueError, match="detectors must hold at least one detector"):
        evaluate({}, [ID], SETS)


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    ).eval()


IMAGES = TensorDataset(draw(24, 3, 9, 9, seed=4), torch.arange(24) % 4)
OTHERS = TensorDataset(2 * draw(16, 3, 9, 9, seed=5))


def test_accuracy_of_the_model_and_of_the_edited_logits():
    net = model()
    detectors = {"energy": LogitDetector(net), "rank": RankFeat(net, ["0"])}
    seen = []
    found = evaluate(
        detectors, DataLoader(IMAGES, 10), {"set": DataLoader(OTHERS, 10)}, resamples=10,
        progress=lambda name, samples: seen.append((name, samples)),
    )  # fmt: skip
    x, y = IMAGES.tensors
    right = float((net(x).argmax(1) == y).double().mean())
    edited = float((detectors["rank"](x).edited_logits.argmax(1) == y).double().mean())
    assert found.accuracy["energy"].model == found.accuracy["rank"].model == right
    assert found.accuracy["energy"].edited == right
    assert found.accuracy["rank"].edited == edited
    assert seen == [("ID", 10), ("ID", 20), ("ID", 24), ("set", 10), ("set", 16)]
    assert len(set(found.weights.values())) == 1


def one_process(rank, processes, port, folder):
    group = None
    if processes > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
        group = dist.group.WORLD
    net = model()
    parts = [DataLoader(shard(data, rank, processes), 1) for data in (IMAGES, OTHERS)]
    found = evaluate(
        {"rank": RankFeat(net, ["0"]), "energy": LogitDetector(net)},
        parts[0], {"set": parts[1]}, resamples=50, process_group=group,
    )  # fmt: skip
    counter = ScoreCounter()
    for data, ood in zip(parts, (False, True), strict=True):
        for x, *_ in data:
            counter.update(LogitDetector(net).score(x), ood)
    if group is not None:
        counter.all_reduce(group)
        dist.destroy_process_group()
    figures = {key: float(value) for key, value in PAPER.figures(counter.counts()).items()}
    told = [to_json(found), figures, found.accuracy["rank"].samples]
    torch.save(told, f"{folder}/{processes}-{rank}.pt")


def test_two_processes_give_the_figures_of_one(tmp_path, unused_tcp_port_number):
    one_process(0, 1, 0, tmp_path)
    arguments = ["2", str(unused_tcp_port_number), str(tmp_path)]
    started = [
        subprocess.Popen([sys.executable, __file__, str(rank), *arguments]) for rank in range(2)
    ]
    assert [one.wait(120) for one in started] == [0, 0]
    want = torch.load(tmp_path / "1-0.pt")
    assert want[2] == 24
    for rank in range(2):
        assert torch.load(tmp_path / f"2-{rank}.pt") == want


@pytest.fixture
def unused_tcp_port_number():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_shards_hold_each_sample_once():
    parts = [list(shard(IMAGES, rank, 5).indices) for rank in range(5)]
    assert sorted(itertools.chain(*parts)) == list(range(24))
    with pytest.raises(ValueError, match=r"rank must lie in \[0, 2\), got 2"):
        shard(IMAGES, 2, 2)


def test_counting_in_fixed_memory():
    scores, others = 30 * draw(5000, seed=6), 30 * draw(4000, seed=7) - 20
    counter, second = ScoreCounter(), ScoreCounter()
    counter.update(scores, ood=False)
    second.update(others, ood=True)
    counter.merge(second)
    # Rounded down to 12 significant bits, by hand.
    rounded = []
    for one in (scores, others):
        fraction, exponent = torch.frexp(one.double())
        rounded.append(torch.ldexp(torch.floor(fraction * 4096) / 4096, exponent))
    for convention in (PAPER, OPENOOD):
        got = convention.figures(counter.counts())
        want = evaluate(First(), [rounded[0][:, None]], {"set": [rounded[1][:, None]]},
                        resamples=2).row("First", "set", convention)  # fmt: skip
        assert {key: float(value) for key, value in got.items()} == pytest.approx(want.figures)
    assert float(auroc_of(counter.counts())) == pytest.approx(auroc(scores, others), abs=1e-3)


def test_counting_edges():
    counter = ScoreCounter()
    with pytest.raises(ValueError, match="both ID and OOD scores are needed, got no ID score"):
        counter.counts()
    with pytest.raises(ValueError, match=r"scores\[1\] is NaN"):
        counter.update(torch.tensor([0.0, math.nan]), ood=True)
    counter.update(torch.tensor([math.inf, 0.0, -1.0]), ood=False)
    counter.update(torch.tensor([-0.0, -math.inf, -1.5]), ood=True)
    # In order: inf, the two zeros together, -1, -1.5, -inf.
    id_counts, ood_counts = counter.counts()
    assert id_counts.tolist() == [1, 1, 1, 0, 0]
    assert ood_counts.tolist() == [0, 1, 0, 1, 1]


def test_drift():
    calibration = Calibration(draw(2000), 0.95, "")
    same = drift_of(calibration, draw(500, seed=1))
    assert not same.drifted
    assert same.interval.low <= 0.95 <= same.interval.high
    moved = drift_of(calibration, draw(500, seed=1) - 0.5)
    assert moved.drifted
    assert moved.accepted < 0.92
    # Narrower: nearly all are accepted, but the distribution is another.
    narrow = drift_of(calibration, draw(500, seed=1) / 3)
    assert narrow.drifted
    assert narrow.accepted > 0.99
    with pytest.raises(ValueError, match=r"scores must be \(n,\) with n >= 1, got \(0,\)"):
        drift_of(calibration, torch.zeros(0))


def test_drift_against_scipy():
    from scipy.stats import kstest, norm

    old, new = draw(300), draw(80, seed=1) * 1.2
    got = drift_of(Calibration(old, 0.9, ""), new)
    want = kstest(old.numpy(), new.numpy(), method="asymp")
    assert got.distance == pytest.approx(want.statistic, abs=1e-12)
    assert got.p_value == pytest.approx(want.pvalue, rel=0.25)
    # Wilson's interval solves |p - share| = z sqrt(p (1 - p) / n).
    z = norm.ppf(0.975)
    for p in got.interval:
        assert abs(p - got.accepted) == pytest.approx(z * math.sqrt(p * (1 - p) / 80))


def test_drift_of_a_detector():
    net = model()
    detector = LogitDetector(net)
    with pytest.raises(RuntimeError, match="has no threshold: call calibrate"):
        check_drift(detector, [])
    loader = DataLoader(IMAGES, 8)
    detector.calibrate(loader)
    again = check_drift(detector, loader)
    assert (again.samples, again.distance, again.accepted) == (24, 0, again.expected)


if __name__ == "__main__":
    rank, processes, port, folder = sys.argv[1:]
    one_process(int(rank), int(processes), int(port), folder)
