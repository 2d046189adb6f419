"""Figures of the official code, of OpenOOD and of pytorch-ood 0.4.0.

`golden.npz`: features before (x) and after removal by SVD and by 20 official power steps;
matrices with a double largest singular value, all zero, and of rank one; score samples with
[AUROC, AUPR-In, AUPR-Out, FPR95] as the official code and as OpenOOD compute them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from rankfeat import aupr, auroc, fpr95, remove_feature

GOLDEN = {
    key: torch.from_numpy(array)
    for key, array in np.load(Path(__file__).with_name("golden.npz")).items()
}
SAMPLES = ("ties", "perfect", "reversed", "const", "tiny")


def relative(got, want):
    return float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want))


@pytest.mark.parametrize("case", ["wide", "tall"])
def test_features(case):
    got = remove_feature(GOLDEN[f"{case}/x_f64"])
    assert relative(got, GOLDEN[f"{case}/svd_f64"]) < 1e-10
    # The official iteration adds 1e-10 to each norm that it divides by.
    assert relative(got, GOLDEN[f"{case}/pi20_f64"]) < 2e-9
    assert relative(remove_feature(GOLDEN[f"{case}/x_f32"]), GOLDEN[f"{case}/svd_f32"]) < 5e-6


def test_degenerate_matrices():
    got, before = remove_feature(GOLDEN["edge/x"]), GOLDEN["edge/sv_before"]
    # Of a double largest singular value some pair is removed: the values are defined.
    left = torch.linalg.svdvals(got[0])
    torch.testing.assert_close(left[:3], before[0, 1:], rtol=1e-12, atol=0)
    assert float(left[3]) < 1e-14
    assert not bool(got[1].any())
    assert float(got[2].abs().max()) < 1e-14


def assert_all(got, want):
    assert got == pytest.approx(want.tolist(), rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("sample", SAMPLES)
def test_metrics_as_in_the_official_code(sample):
    pair = GOLDEN[f"metrics/{sample}_id"], GOLDEN[f"metrics/{sample}_ood"]
    got = [auroc(*pair), aupr(*pair), aupr(*pair, positive="ood"), fpr95(*pair)]
    assert_all(got, GOLDEN[f"metrics/{sample}_official"])


@pytest.mark.parametrize("sample", SAMPLES)
def test_metrics_as_in_openood_and_pytorch_ood(sample):
    pair = GOLDEN[f"metrics/{sample}_id"], GOLDEN[f"metrics/{sample}_ood"]
    area = [aupr(*pair, positive=one, kind="trapezoid") for one in ("id", "ood")]
    got = [auroc(*pair), *area, fpr95(*pair, positive="ood", rule="geq")]
    assert_all(got, GOLDEN[f"metrics/{sample}_openood"])
    # AUROC, AUTC, AUPR-IN, AUPR-OUT, FPR95TPR
    assert_all(got, GOLDEN[f"metrics/{sample}_pytorchood"][[0, 2, 3, 4]])
    id_positive = fpr95(*pair, positive="id", rule="geq")
    assert_all([id_positive], GOLDEN[f"metrics/{sample}_openood_fpr_id_positive"][:1])
