"""Primitives as operators of PyTorch: registered rightly, and met in traced graphs."""

import linalg_kernels as lk
import pytest
import torch
from functorch.compile import make_boxed_func
from linalg_kernels.backends import native
from linalg_kernels.backends.plain import NATIVE_LIMIT
from linalg_kernels.testing import random_spd
from torch._dynamo.backends.common import aot_autograd

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())

INF = float("inf")
ops = torch.ops.linalg_kernels


def inputs(dtype=torch.float64):
    A = random_spd(3, 4, cond=10.0, dtype=dtype, generator=torch.Generator().manual_seed(0))
    w, V = torch.linalg.eigh(A)
    p = torch.tensor([0.5, -1.0, 0.3], dtype=dtype)
    return A, w, V.contiguous(), p, torch.linalg.cholesky(A).contiguous()


def cases():
    A, w, V, p, L = inputs()
    return {
        "eigh": (A, True),
        "eigvalsh": (A, False),
        "spectral": (A, None, "log", -INF, True),
        "evaluate": (w, V, p, "power", 0.1),
        "frechet": (w, V, A, None, "sqrt", -INF),
        "cholesky": (A, True),
        "cholesky_vjp": (L, A),
    }


@pytest.mark.parametrize("name", cases())
def test_opcheck(name):
    torch.library.opcheck(getattr(ops, name).default, cases()[name])


@pytest.mark.parametrize("name", cases())
def test_vmap(name):
    arguments = cases()[name]
    dims = tuple(0 if isinstance(a, torch.Tensor) else None for a in arguments)
    op = getattr(ops, name)
    got, wanted = torch.vmap(op, dims)(*arguments), op(*arguments)
    for x, y in zip(
        *((r,) if isinstance(r, torch.Tensor) else r for r in (got, wanted)), strict=True
    ):
        torch.testing.assert_close(x, y)


def test_a_derivative_of_an_operator_by_itself_is_refused():
    A = inputs()[0].requires_grad_()
    with pytest.raises(RuntimeError, match="no autograd formula"):
        torch.autograd.grad(ops.eigvalsh(A, True).sum(), A)


def names_in(fn, *arguments):
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    leaves = [a.clone().requires_grad_() for a in arguments]
    compiled = torch.compile(fn, backend=aot_autograd(fw_compiler=backend), fullgraph=True)
    torch.autograd.grad(compiled(*leaves).sum(), leaves)
    return " ".join(seen)


@pytest.mark.compile
def test_traced_graphs_call_the_operators():
    A = inputs()[0]
    assert "linalg_kernels.spectral" in (found := names_in(lk.logm, A))
    assert "linalg_kernels.frechet" in found
    assert "linalg_eigh" not in found
    assert "linalg_kernels.cholesky" in names_in(lk.cholesky, A)
    with lk.backend("torch"):
        assert "linalg_kernels" not in names_in(lk.logm, A)
    # What the library does not know is traced as what it consists of.
    assert "linalg_kernels" not in names_in(
        lk.logm, torch.eye(NATIVE_LIMIT + 1, dtype=A.dtype)[None]
    )
