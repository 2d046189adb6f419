"""Arrays of the official code: products of reflections, projectors, initialisation, PPL."""

from pathlib import Path

import numpy as np
import pytest
import torch
from householder_gan import HouseholderProjector, lerp, slerp, within_percentiles
from householder_gan.frames import frame

GOLDEN = {
    name: torch.from_numpy(value)
    for name, value in np.load(Path(__file__).with_name("golden.npz")).items()
}


def of(case):
    return {k.removeprefix(case + "/"): v for k, v in GOLDEN.items() if k.startswith(case + "/")}


@pytest.mark.parametrize("n", [4, 8])
def test_products_and_their_gradient(n):
    held = of(f"accumulate_n{n}")
    V = held["vectors"].clone().requires_grad_()
    Q = frame(V, torch.ones(n, dtype=V.dtype))
    torch.testing.assert_close(Q, held["Q_loop"], rtol=0, atol=1e-13)
    (Q * held["cotangent"]).sum().backward()
    torch.testing.assert_close(V.grad, held["grad_vectors"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", ["projector_o8_i16_r3", "projector_o8_i8_r4"])
def test_projector(case):
    held = of(case)
    c, d = held["weight"].shape
    P = HouseholderProjector(d, c, int(held["rank"]), reflectors="full").double()
    with torch.no_grad():
        P.U.copy_(held["U"])
        P.V.copy_(held["V"].flip(-1))  # the official factor is Q_V, not its transpose
        P.isometry.sign_U.fill_(1)
        P.isometry.sign_V.fill_(1)
    torch.testing.assert_close(P.weight, held["weight"], rtol=0, atol=1e-13)
    rows = held["identified_directions_rows_of_QV"]
    torch.testing.assert_close(P.directions, rows, rtol=0, atol=1e-13)
    # Their singular vectors span the same space and are another basis of it.
    theirs = held["official_directions"]
    torch.testing.assert_close(theirs @ theirs.mT, rows @ rows.mT, rtol=0, atol=1e-12)
    (P.weight * held["cotangent"]).sum().backward()
    torch.testing.assert_close(P.U.grad, held["grad_U"], rtol=1e-11, atol=1e-12)
    assert P.V.grad is not None
    torch.testing.assert_close(P.V.grad.flip(-1), held["grad_V"], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("reflectors", ["thin", "full"])
def test_initialisation_is_the_intended_and_not_the_official_one(reflectors):
    held = of("init_o8_i8_r4")
    P = HouseholderProjector(8, 8, 4, reflectors=reflectors).double()
    P.weight = held["A"]
    torch.testing.assert_close(P.weight, held["weight_intended"], rtol=0, atol=1e-12)
    W = P.weight.detach()
    error = float((held["weight_official"] - W).norm() / W.norm())
    assert error == pytest.approx(float(held["relerr_official_vs_intended"]), abs=1e-9)
    assert error > 1.3


def test_pieces_of_ppl():
    held = of("ppl_pieces")
    t = held["t"][:, None]
    torch.testing.assert_close(slerp(held["a"], held["b"], t), held["slerp"], rtol=0, atol=1e-14)
    torch.testing.assert_close(lerp(held["a"], held["b"], t), held["lerp"], rtol=0, atol=1e-14)
    kept = within_percentiles(held["distances"])
    torch.testing.assert_close(kept.mean(), held["filtered_mean"])
    assert kept.min() == held["lo"]
    assert kept.max() == held["hi"]
