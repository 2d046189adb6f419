"""Public functions on the Triton kernels: the derivatives, words and graphs of the other paths."""

import math
import os
import subprocess
import sys

import linalg_kernels as lk
import numpy as np
import pytest
import torch
from linalg_kernels import errors, testing
from linalg_kernels.backends import gpu, native
from torch._subclasses.fake_tensor import FakeTensorMode

unavailable = pytest.mark.skipif(bool(gpu.why_unavailable()), reason=gpu.why_unavailable())


def runs(test):
    """Marks a test that runs kernels."""
    return unavailable(pytest.mark.compile(test))


DEVICE = "cpu" if gpu.interpreted() else "cuda"


@pytest.fixture(autouse=True)
def numpy_keeps_quiet():
    """The interpreter is NumPy, which warns of what IEEE arithmetic does as a matter of course."""
    with np.errstate(all="ignore"):
        yield


def spd(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return testing.random_spd(*shape, cond=20.0, dtype=dtype, generator=generator).to(DEVICE)


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels that were launched."""
    operators = gpu.operators()
    names = []
    original = operators.launch

    def spy(kernel, *arguments, **constants):
        names.append(kernel.__name__.removesuffix("_kernel"))
        return original(kernel, *arguments, **constants)

    monkeypatch.setattr(operators, "launch", spy)
    return names


def custom(A):
    return lk.spectral_fn(A, torch.tanh, lambda x: 1 - torch.tanh(x) ** 2, length=1.0)


# What is called, and which kernels that takes in forward and backward.
FUNCTIONS = {
    "logm": (lk.logm, {"spectral", "frechet"}),
    "powm": (lambda A: lk.powm(A, 0.3), {"spectral", "frechet"}),
    "floored": (lambda A: lk.logm(A, nonpos="clamp", eps=3.0), {"spectral", "frechet"}),
    "custom": (custom, {"eigh", "evaluate", "frechet"}),
    "eigvalsh": (lk.eigvalsh, {"eigh"}),
    "chol_log": (lk.chol_log, {"cholesky", "cholesky_vjp"}),
    "distance": (
        lambda A: lk.pencil_log_norm(A[:1], A, alpha=0.7, beta=0.3), {"pencil", "pencil_vjp"},
    ),
    "square": (lambda A: lk.pencil_log_square(A.flip(0), A[:1]), {"pencil", "pencil_vjp"}),
    "remove_rank1": (lk.remove_rank1, {"rank_one"}),
    "rank1": (lambda A: lk.rank1(A)[1], {"rank_one"}),
    "householder_product": (lk.householder_product, {"householder"}),
    "householder_apply": (
        lambda A: lk.householder_apply(A[:1], A.flip(0), adjoint=True), {"householder"},
    ),
}  # fmt: skip


@runs
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_agree(name, launched):
    function, wanted = FUNCTIONS[name]
    A = spd(2, 3)
    results = []
    for choice in ("torch", "triton"):
        with lk.backend(choice):
            leaf = A.clone().requires_grad_()
            F = function(leaf)
            weights = torch.linspace(0.5, 1, F.numel(), dtype=A.dtype, device=DEVICE)
            (grad,) = torch.autograd.grad((F * weights.view_as(F)).sum(), leaf)
            results.append((F.detach(), grad))
        if choice == "torch":
            assert not launched
    assert set(launched) == wanted
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@runs
@pytest.mark.parametrize("function", [lk.logm, lk.eigh, lk.cholesky])
def test_errors_are_worded_as_by_the_reference(function):
    with lk.backend("triton"):
        A = spd(2, 3)
        A[1, 0, 2] = math.nan
        with pytest.raises(lk.LinAlgError, match=r"A\[1\] contains NaN or Inf"):
            function(A)
        A = spd(2, 3)
        A[1, 0, 2] += 100
        with pytest.raises(ValueError, match=r"A\[1\] must be symmetric"):
            function(A)


@runs
def test_what_is_not_positive_definite():
    A = spd(2, 3)
    A[1] *= -1
    with lk.backend("triton"):
        with pytest.raises(lk.LinAlgError, match=r"A\[1\] must be positive definite"):
            lk.cholesky(A)
        with pytest.raises(lk.LinAlgError, match=r"Q\[1\] must be positive definite"):
            lk.pencil_log_norm(A[:1], A)
        assert lk.cholesky_ex(A).info.tolist() == [0, 1]


@runs
def test_unchecked_bad_matrices_are_nan():
    A = spd(2, 3)
    A[1, 1, 1] = math.inf
    with lk.backend("triton"):
        for F in (lk.logm(A, check=False), lk.eigvalsh(A, check=False)):
            assert F[1].isnan().all()
            assert F[0].isfinite().all()
        L, info = lk.cholesky_ex(A)
    assert info.tolist() == [0, 4]
    assert L[1].isnan().all()


@runs
def test_what_did_not_converge_is_computed_by_torch(monkeypatch):
    A = spd(1, 3)
    operators = gpu.operators()

    def gives_up(A, *_):
        return (
            torch.zeros_like(A[..., 0]),
            torch.zeros_like(A),
            torch.full_like(A[..., 0, 0], 2).int(),
        )

    monkeypatch.setattr(operators, "eigh", gives_up)
    with lk.backend("triton"):
        got = lk.eigh(A).w
    torch.testing.assert_close(got, torch.linalg.eigvalsh(A))


@runs
def test_what_the_kernels_do_not_take(launched):
    with lk.backend("triton"):
        lk.eigvalsh(spd(1, gpu.LIMIT + 1))
        lk.eigvalsh(spd(1, 3, dtype=torch.complex128))
        lk.eigvalsh(spd(1, 3)[:0])
        lk.rank1(torch.ones(1, 80, gpu.RANK_ONE_LIMIT + 1, device=DEVICE))
    assert not launched


@runs
def test_derivatives_and_transforms():
    A = spd(1, 2).requires_grad_()
    with lk.backend("triton"):
        assert torch.autograd.gradcheck(lk.logm, (A,), check_forward_ad=True, fast_mode=True)
        assert torch.autograd.gradgradcheck(lk.logm, (A,), fast_mode=True)
        assert torch.autograd.gradgradcheck(
            lk.pencil_log_square, (A, spd(1, 2, seed=1)), fast_mode=True
        )
        B = A.detach()
        torch.testing.assert_close(torch.func.vmap(lk.sqrtm)(B), lk.sqrtm(B))
        grad = torch.func.vmap(torch.func.grad(lambda X: lk.cholesky(X, check=False).sum()))(B)
    with lk.backend("torch"):
        wanted = torch.autograd.grad(lk.cholesky(A).sum(), A)[0]
    torch.testing.assert_close(grad, wanted)


@runs
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("eigh", lambda A: (A, True, 0.02)),
        ("spectral", lambda A: (A, None, 1, -math.inf, True, 0.02)),
        ("cholesky", lambda A: (A, True, 0.02)),
        ("leading_triple", lambda A: (A, 5, 1e-9)),
        ("householder", lambda A: (A, A, False)),
    ],
)
def test_operators_are_registered_rightly(name, arguments):
    A = spd(2, 2)
    operator = getattr(torch.ops.linalg_kernels, f"triton_{name}") if gpu.operators() else None
    assert operator is not None
    arguments = arguments(A)
    torch.library.opcheck(operator.default, arguments)
    dims = tuple(0 if isinstance(a, torch.Tensor) else None for a in arguments)
    got, wanted = torch.vmap(operator, dims)(*arguments), operator(*arguments)
    torch.testing.assert_close(got, wanted)


@runs
def test_more_programs_than_a_grid_may_have(monkeypatch):
    monkeypatch.setattr(gpu.operators(), "LAUNCH", 2)
    A = spd(3, 2)
    with lk.backend("triton"):
        got = lk.eigvalsh(A)
    torch.testing.assert_close(got, torch.linalg.eigvalsh(A))


@runs
def test_more_than_2_to_31_numbers():
    """The last matrix of a batch whose offsets need 64 bits; only touched pages are there."""
    n = 8
    batch = 2**31 // (n * n) + 3
    try:
        A = torch.empty(batch, n, n, dtype=torch.float32, device=DEVICE)
        V = torch.empty(batch, n, n, dtype=torch.float32, device=DEVICE)
    except (RuntimeError, torch.OutOfMemoryError) as error:
        pytest.skip(f"no room for addresses: {error}")
    w = torch.empty(batch, n, device=DEVICE)
    found = torch.empty(batch, dtype=torch.int32, device=DEVICE)
    operators = gpu.operators()
    A[-1] = spd(n, dtype=torch.float32)
    V[0] = 7
    operators.eigh_kernel[(1, 1)](
        A, w, V, found, n, first=batch - 1, tolerance=0.02,
        N=8, ROUNDS=7, SYMMETRIZE=True, VECTORS=True, num_warps=1, **operators.OPTIONS,
    )  # fmt: skip
    torch.testing.assert_close(w[-1], torch.linalg.eigvalsh(A[-1]))
    torch.testing.assert_close((V[-1] * w[-1]) @ V[-1].mT, A[-1])
    # Where an offset of 32 bits would have landed.
    assert (V[0] == 7).all()


# --- waiting for the device -----------------------------------------------------------------


def tall():
    return torch.randn(2, 6, 3, device="cuda")


def square():
    return torch.eye(3, device="cuda").expand(2, 3, 3).clone()


def sets():
    return torch.eye(3, device="cuda").expand(2, 4, 3, 3).clone()


UNCHECKED = {
    "eigh": lambda: lk.eigh(square(), check=False),
    "eigvalsh": lambda: lk.eigvalsh(square(), check=False),
    "logm": lambda: lk.logm(square(), check=False),
    "expm": lambda: lk.expm(square(), check=False),
    "sqrtm": lambda: lk.sqrtm(square(), check=False),
    "inv_sqrtm": lambda: lk.inv_sqrtm(square(), check=False),
    "powm": lambda: lk.powm(square(), 0.3, check=False),
    "clamp_eigvals": lambda: lk.clamp_eigvals(square(), 0.1, check=False),
    "floored": lambda: lk.logm(square(), check=False, nonpos="clamp", eps=0.1),
    "spectral_fn": lambda: lk.spectral_fn(square(), torch.exp, torch.exp, length=1.0, check=False),
    "multi_spectral": lambda: lk.multi_spectral(square(), check=False),
    "frechet": lambda: lk.frechet(square(), square(), check=False),
    "cholesky": lambda: lk.cholesky(square(), check=False),
    "cholesky_ex": lambda: lk.cholesky_ex(square()),
    "chol_log": lambda: lk.chol_log(square(), check=False),
    "chol_power": lambda: lk.chol_power(square(), 0.5, check=False),
    "logdet": lambda: lk.logdet(square(), check=False),
    "lyapunov": lambda: lk.lyapunov(square(), square(), check=False),
    "sylvester": lambda: lk.sylvester(square(), square(), square(), check=False),
    "karcher_mean": lambda: lk.karcher_mean(sets(), check=False),
    "wasserstein_mean": lambda: lk.wasserstein_mean(sets(), check=False),
    "log_cholesky_mean": lambda: lk.log_cholesky_mean(sets(), check=False),
    "so_exp": lambda: lk.so_exp(square() - square(), check=False),
    "so_log": lambda: lk.so_log(square(), check=False),
    "polar": lambda: lk.polar(tall(), "newton_schulz", check=False),
    "householder_product": lambda: lk.householder_product(tall(), check=False),
    "householder_apply": lambda: lk.householder_apply(tall(), tall(), check=False),
    "rank1": lambda: lk.rank1(tall(), check=False),
    "remove_rank1": lambda: lk.remove_rank1(tall(), check=False),
    "svd_topk": lambda: lk.svd_topk(tall(), 2, check=False),
    "whitened_lowrank": lambda: lk.whitened_lowrank(tall(), square(), 2, check=False),
    "newton_schulz_sqrtm": lambda: lk.newton_schulz_sqrtm(square(), check=False),
    "pade_sqrtm": lambda: lk.pade_sqrtm(square(), check=False),
    "logabsdet_sym": lambda: lk.logabsdet_sym(square(), check=False),
    "vech": lambda: lk.vech(square(), check=False),
    "covariance": lambda: lk.covariance(tall(), check=False),
    "shrink_covariance": lambda: lk.shrink_covariance(square(), 0.1, check=False),
}


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Stand-ins for tensors of a GPU, of which the package believes that they can be read.

    Reading one, by bool() or .item(), raises an error.
    """

    class Never:
        pass

    monkeypatch.setattr(errors, "FakeTensor", Never)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(gpu, "_capable", lambda _: True)
    with FakeTensorMode():
        yield


@pytest.mark.compile
@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("name", UNCHECKED)
def test_unchecked_operations_read_nothing_back(name, kernels, on_a_gpu):  # noqa: ARG001
    if kernels and not gpu._installed():
        pytest.skip("no Triton")
    with lk.backend("auto" if kernels else "torch"):
        for result in testing.outputs(UNCHECKED[name]()):
            assert result.device.type == "cuda"


@pytest.mark.parametrize("function", [lk.logm, lk.cholesky, lk.eigh, lk.rank1])
def test_checked_operations_do(function, on_a_gpu):  # noqa: ARG001
    with pytest.raises(Exception, match=r"data-dependent|local_scalar_dense"):
        function(square())


# Compiled kernels and interpreted ones do not live in one process.
GRAPHS = """
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
import linalg_kernels as lk

seen = []
def keep(graph, _):
    seen.append(graph)
    return make_boxed_func(graph.forward)

def step(A):
    F = lk.logm(A, check=False) + lk.frechet(A, A, check=False) + lk.cholesky(A, check=False)
    return F + lk.remove_rank1(A, check=False)

with FakeTensorMode(), torch.no_grad():
    A = torch.eye(5, device="cuda").expand(4, 5, 5).clone()
    backend = aot_autograd(fw_compiler=keep, inference_compiler=keep)
    torch.compile(step, backend=backend, fullgraph=True)(A)
code = "".join(str(graph.graph) for graph in seen)
print(len(seen), "graphs")
for word in ("triton_kernel_wrapper", "_local_scalar_dense", ".item", "linalg_eigh"):
    print(word, word in code)
"""


@pytest.mark.compile
@pytest.mark.skipif(not gpu._installed(), reason="no Triton")
def test_compiled_graphs_show_their_kernels_and_read_nothing_back():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GRAPHS], env=environment, capture_output=True,
        text=True, check=False, timeout=200,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:5] == [
        "1 graphs",
        "triton_kernel_wrapper True",
        "_local_scalar_dense False",
        ".item False",
        "linalg_eigh False",
    ]


# --- words ----------------------------------------------------------------------------------


def test_info_in_words(monkeypatch):
    monkeypatch.setattr(gpu, "_devices", lambda: ("an H100",))
    monkeypatch.setattr(gpu, "why_unavailable", lambda: "")
    monkeypatch.setattr(gpu.importlib.metadata, "version", lambda _: "9.9")
    told = str(lk.backend_info())
    assert "Triton 9.9 (an H100) for real matrices of order <= 32" in told
    assert "one matrix after the other above order 32" in told
    with lk.backend("torch"):
        assert 'on GPUs torch alone, because of backend("torch")' in str(lk.backend_info())


def test_without_triton(monkeypatch):
    monkeypatch.setattr(gpu, "why_unavailable", lambda: "Triton is not installed")
    assert lk.backend_info().triton is None
    assert "on GPUs torch alone: Triton is not installed" in str(lk.backend_info())
    with pytest.raises(gpu.TritonUnavailableError, match="not installed"), lk.backend("triton"):
        pass


WITHOUT = """
import sys
sys.modules["triton"] = None
import torch
import linalg_kernels as lk
print([name for name in sys.modules if name.startswith("linalg_kernels.backends.triton")])
print(lk.logm(torch.eye(2)).abs().max().item(), lk.backend_info().triton)
"""


def test_nothing_needs_triton():
    command = [sys.executable, "-c", WITHOUT]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[]", "0.0 None"]


def test_native_tables_match_the_kernels():
    """Numbers that stand in the kernels as such."""
    assert (native.NOT_FINITE, native.NOT_CONVERGED) == (1, 2)
    assert (native.NOT_POSITIVE, native.ASYMMETRIC) == (4, 8)
    kinds = ("IDENTITY", "LOG", "EXP", "SQRT", "INV_SQRT", "INVERSE", "POWER", "TABLE")
    assert [getattr(native, kind) for kind in kinds] == list(range(8))
