"""Experiments: splits that keep test data apart, fair choices, baselines, features of rotations."""

import numpy as np
import pytest
import torch
from eigenworks import Trial
from linalg_kernels import logm
from linalg_kernels.packed import symmetric
from linalg_kernels.testing import random_spd
from rmlr import scores
from rmlr.experiments import emg, imu, rotations
from rmlr.experiments.methods import BASELINE, METHODS, Classifier, GyroMLR
from rmlr.experiments.training import (
    Budget,
    Outcome,
    Samples,
    Split,
    evaluate,
    leave_subject_out,
    rows,
)
from spd_metrics import AffineInvariant, LogCholesky, LogEuclidean


def labelled(count=60, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    scale = torch.tensor([1.0, 4.0, 16.0], dtype=torch.float64)[y][:, None, None]
    return Samples(scale * random_spd(count, n, cond=3.0, generator=generator), y)


def test_every_method_has_three_configurations_that_learn():
    train = labelled()
    split = Split("easy", train, labelled(30, seed=1), labelled(30, seed=2), 3).in_unit_size()
    for name, configurations in METHODS.items():
        assert len(configurations) == 3
        for configuration in configurations:
            assert isinstance(configuration.make(3, 3), Classifier)
        outcome = evaluate(configurations, split, Budget(20, 20), seed=0)
        assert outcome.accuracy > 50, name
        assert outcome.chosen in {configuration.label for configuration in configurations}
    behind = evaluate(METHODS[BASELINE], split, Budget(8, 20), seed=0, inner=2)
    assert behind.accuracy > 60


def test_validation_data_choose():
    split = Split("easy", labelled(), labelled(30, seed=1), labelled(30, seed=2), 3)
    wrong = Samples(split.validation.S, (split.validation.y + 1) % 3)
    best = evaluate(METHODS[BASELINE], split, Budget(20, 20), seed=0)
    misled = Split("easy", split.train, wrong, split.test, 3)
    worst = evaluate(METHODS[BASELINE], misled, Budget(20, 20), seed=0)
    assert best.accuracy >= worst.accuracy
    assert (best.hits, best.tests) == (round(best.accuracy * 30 / 100), 30)


@pytest.mark.parametrize("metric", [LogEuclidean(), AffineInvariant(), LogCholesky()], ids=repr)
def test_gyro_classifiers_are_scores_of_other_parameters(metric):
    """Remark 4.3 of Chen et al., NeurIPS 2024."""
    torch.manual_seed(0)
    model = GyroMLR(3, 2, metric)
    S = labelled().S
    P = torch.linalg.matrix_exp(symmetric(model.location))
    W = torch.linalg.matrix_exp(symmetric(model.normal))
    if isinstance(metric, LogCholesky):
        L = torch.linalg.cholesky(W)
        half = L.tril(-1) + torch.diag_embed(torch.log(L.diagonal(dim1=-2, dim2=-1)))
        A = half + half.mT
    else:
        A = logm(W)
    torch.testing.assert_close(model(S), scores(metric, S, P, A))


def test_subjects_are_kept_apart():
    samples, subject = labelled(60), torch.arange(60) // 6 + 1
    held = torch.tensor([3, 6, 9])
    seen = set()
    for seed in range(7):
        split = leave_subject_out(samples, subject, held, seed)
        assert (len(split.train), len(split.validation), len(split.test)) == (36, 6, 18)
        size = split.test.S[0, 0, 0] / samples.S[12, 0, 0]
        assert torch.allclose(split.test.S, size * samples.S[torch.isin(subject, held)])
        seen.add(float((split.validation.S / size)[0, 0, 0]))
    assert len(seen) == 7


def test_validation_windows_are_in_one_piece():
    y, session = np.repeat([0, 1, 0, 1], 20), np.repeat([0, 1], 40)
    folds = [emg.held_out(y, session, fold) for fold in range(emg.FOLDS)]
    assert (np.sum(folds, axis=0) == 1).all()
    for mask in folds:
        for start in range(0, 80, 20):
            own = np.flatnonzero(mask[start : start + 20])
            assert len(own) == 4
            assert own[-1] - own[0] == 3


def test_rows_pair_gains_with_the_same_seed():
    found = {BASELINE: {"a": Outcome("x", 5, 10)}, "other": {"a": Outcome("y", 8, 10)}}
    made = {(row.label, row.metric): row.value for row in rows(found)}
    assert made == {
        (f"{BASELINE}, a", "accuracy"): 50,
        ("other, a", "accuracy"): 80,
        ("other, a", f"gain over {BASELINE}"): pytest.approx(30),
    }


def test_imu_windows():
    samples, subject = imu.windows()
    assert samples.S.shape[1:] == (6, 6)
    assert len(samples) == len(subject) > 1000
    assert len(subject.unique()) == 10


def test_emg_splits():
    for split in emg.splits(0):
        tests = 720 if "s1→s2" in split.name else 1440
        assert len(split.test) == tests
        assert len(split.train) + len(split.validation) == tests
        size = torch.logdet(split.train.S).mean() / 8
        assert abs(float(size)) < 1e-12


@pytest.mark.slow
def test_imu_runs():
    found = list(imu.run(Trial(0, {"epochs": 1})))
    assert len(found) == 2 * len(METHODS) - 1


def test_turning():
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    v[0], v[1] = 2 * u[0], -3 * u[1]
    R = rotations.turning(u, v)
    unit = [w / torch.linalg.vector_norm(w, dim=-1, keepdim=True) for w in (u, v)]
    torch.testing.assert_close((R @ unit[0][..., None])[..., 0], unit[1])
    torch.testing.assert_close(R.mT @ R, torch.eye(3, dtype=R.dtype).expand(6, 3, 3))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(6, dtype=R.dtype))
    # The angle is the least one: that between the directions.
    cosine = (R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    torch.testing.assert_close(cosine, (unit[0] * unit[1]).sum(-1))


def test_blocks_keep_the_frame_that_turns_further():
    torch.manual_seed(0)
    block = rotations.RotationBlock(2)
    with torch.no_grad():
        block.numbers.zero_()
    angles = torch.tensor([0.1, 0.5, 1.2, 0.3], dtype=torch.float64)
    numbers = torch.zeros(1, 2, 4, 3, dtype=torch.float64)
    numbers[..., 0] = angles
    R = rotations.so_exp(rotations.skew(numbers))
    kept = rotations.LogMap()(block(R)).view(2, 2, 3).abs().amax(-1)
    torch.testing.assert_close(kept, angles[[1, 2]].expand(2, 2))


def test_lie_nets_learn():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(30) % 3
    numbers = 0.2 * torch.randn(30, 2, 8, 3, generator=generator, dtype=torch.float64)
    numbers[..., 0] += (y - 1)[:, None, None]
    R = rotations.so_exp(rotations.skew(numbers))
    motions = Samples(R, y)
    for head in (rotations.LOG, rotations.LIE):
        hits = rotations.evaluate(head, (motions, motions, motions), Budget(10, 10), seed=0)
        assert hits > 24, head


def test_skeleton_has_a_bone_for_each_joint_but_the_hip():
    children = [child for _, child in rotations.BONES]
    assert sorted([*children, 6]) == list(range(20))
    assert len(rotations.chained()) == 16
