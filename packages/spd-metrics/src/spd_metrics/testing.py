"""The conformance suite of a metric: what every Riemannian metric on these manifolds satisfies.

    check_metric(MyMetric())                        # raises AssertionError naming the property

or, in a test suite, one test for each property:

    @pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
    def test_my_metric(prop):
        prop(MyMetric(), Sample.draw(MyMetric(), n=4))

Tolerances are relative to the values compared and follow from the dtype.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from linalg_kernels.errors import LinAlgError
from linalg_kernels.testing import check_grad, random_spd
from torch import Tensor
from torch.autograd import gradcheck

from spd_metrics.metric import Metric


@dataclass(frozen=True)
class Sample:
    """Points P, Q, R (batch, n, n), tangent vectors V, W at P, and weights (batch,)."""

    P: Tensor
    Q: Tensor
    R: Tensor
    V: Tensor
    W: Tensor
    weights: Tensor
    lower: bool

    @staticmethod
    def draw(
        metric: Metric,
        n: int = 4,
        dtype: torch.dtype = torch.float64,
        *,
        batch: int = 5,
        cond: float = 20.0,
        scale: float = 1.0,
        seed: int = 0,
    ) -> "Sample":
        """Random points with condition numbers about `cond` and eigenvalues about `scale`.

        Tangent vectors are short enough for exp to exist.
        """
        draws = torch.Generator().manual_seed(seed)
        lower = getattr(getattr(metric, "chart", None), "kind", "symmetric") == "lower"

        def point() -> Tensor:
            size = scale / cond**0.5 if n > 1 else scale
            jitter = torch.exp(0.5 * torch.randn(batch, 1, 1, generator=draws, dtype=torch.float64))
            S = size * jitter * random_spd(batch, n, cond=cond, generator=draws)
            return (torch.linalg.cholesky(S) if lower else S).to(dtype)

        def velocity(P: Tensor) -> Tensor:
            noise = torch.randn(batch, n, n, generator=draws, dtype=torch.float64)
            L = P.double() if lower else torch.linalg.cholesky(P.double())
            V = (L @ noise).tril() if lower else L @ (noise + noise.mT) @ L.mT
            V = (V / max(n, 1)).to(dtype)
            reach = metric.exp_domain(P, V)
            return V * (0.4 * reach).clamp(max=1)[..., None, None]

        P, Q, R = point(), point(), point()
        weights = 0.1 + torch.rand(batch, generator=draws, dtype=torch.float64)
        return Sample(P, Q, R, velocity(P), velocity(P), weights.to(dtype), lower)

    @property
    def rtol(self) -> float:
        """Relative tolerance of a closed form."""
        return 2e4 * torch.finfo(self.P.dtype).eps

    @property
    def mean_rtol(self) -> float:
        """Relative tolerance of an iterated mean."""
        return 1e-7 if self.P.dtype == torch.float64 else 2e-3


def _close(got: Tensor, want: Tensor, rtol: float, what: str, size: Tensor | None = None) -> None:
    """Each matrix (number) within rtol of `want`, relative to its norm or to `size`."""
    if got.shape != want.shape:
        raise AssertionError(f"{what}: shape {tuple(got.shape)}, expected {tuple(want.shape)}")
    if got.dtype != want.dtype:
        raise AssertionError(f"{what}: dtype {got.dtype}, expected {want.dtype}")
    if want.numel() == 0:
        return
    if size is None:
        size = want.abs() if want.ndim < 2 else torch.linalg.matrix_norm(want)
    error = (got - want).abs() if want.ndim < 2 else torch.linalg.matrix_norm(got - want)
    bad = ~(error <= rtol * size)
    if bool(bad.any()):
        worst = (error / size)[bad].max().item()
        raise AssertionError(f"{what}: relative error {worst:.2g}, at most {rtol:.2g} expected")


def exp_inverts_log(metric: Metric, s: Sample) -> None:
    """Exp_P(Log_P Q) = Q and Log_P(Exp_P V) = V."""
    _close(metric.exp(s.P, metric.log(s.P, s.Q)), s.Q, s.rtol, "exp(P, log(P, Q)) = Q")
    back = metric.log(s.P, metric.exp(s.P, s.V))
    _close(back, s.V, s.rtol, "log(P, exp(P, V)) = V")


def exp_starts_with_its_velocity(metric: Metric, s: Sample) -> None:
    """d/dt Exp_P(tV) = V at t = 0, by a central difference."""
    h = torch.finfo(s.P.dtype).eps ** (1 / 3)
    difference = (metric.exp(s.P, h * s.V) - metric.exp(s.P, -h * s.V)) / (2 * h)
    size = torch.linalg.matrix_norm(s.P) + torch.linalg.matrix_norm(s.V)
    rtol = 300 * torch.finfo(s.P.dtype).eps ** (2 / 3)
    _close(difference, s.V, rtol, "d/dt exp(P, tV) = V", size)


def inner_is_an_inner_product(metric: Metric, s: Sample) -> None:
    """Bilinear, symmetric, positive; norm is its square root."""
    size = metric.norm(s.P, s.V) * metric.norm(s.P, s.W)
    cross = metric.inner(s.P, s.V, s.W)
    _close(metric.inner(s.P, s.W, s.V), cross, s.rtol, "inner is symmetric", size)
    sum_ = metric.inner(s.P, s.V - 2 * s.W, s.W)
    linear = cross - 2 * metric.inner(s.P, s.W, s.W)
    _close(sum_, linear, s.rtol, "inner is linear", size + metric.inner(s.P, s.W, s.W))
    if not bool((metric.inner(s.P, s.V, s.V) > 0).all()):
        raise AssertionError("inner(P, V, V) > 0 for V != 0")
    _close(metric.norm(s.P, s.V) ** 2, metric.inner(s.P, s.V, s.V), s.rtol, "norm² = inner")
    if bool(metric.norm(s.P, 0 * s.V).any()):
        raise AssertionError("norm(P, 0) = 0")


def dist_is_the_length_of_log(metric: Metric, s: Sample) -> None:
    """d(P, Q) = ‖Log_P Q‖_P = ‖Log_Q P‖_Q."""
    d = metric.dist(s.P, s.Q)
    _close(metric.norm(s.P, metric.log(s.P, s.Q)), d, s.rtol, "norm(P, log(P, Q)) = dist")
    _close(metric.norm(s.Q, metric.log(s.Q, s.P)), d, s.rtol, "norm(Q, log(Q, P)) = dist")


def dist_is_a_distance(metric: Metric, s: Sample) -> None:
    """Symmetric, zero exactly on the diagonal, triangle inequality; pairwise_dist agrees."""
    d = metric.dist(s.P, s.Q)
    _close(metric.dist(s.Q, s.P), d, s.rtol, "dist is symmetric")
    if not bool((d > 0).all()):
        raise AssertionError("dist(P, Q) > 0 for P != Q")
    if bool(metric.dist(s.P, s.P.clone()).any()):
        raise AssertionError("dist(P, P) = 0 exactly")
    detour = metric.dist(s.P, s.R) + metric.dist(s.R, s.Q)
    if not bool((d <= detour * (1 + s.rtol)).all()):
        raise AssertionError("dist(P, Q) <= dist(P, R) + dist(R, Q)")
    table = metric.pairwise_dist(s.P, s.Q[:2])
    looped = metric.dist(s.P[:, None], s.Q[None, :2])
    _close(table, looped, s.rtol, "pairwise_dist = dist of all pairs")


def dist_sees_small_steps(metric: Metric, s: Sample) -> None:
    """d(P, Exp_P(hV)) = h ‖V‖ for small h: no loss of digits near the diagonal."""
    h = 1e-3
    d = metric.dist(s.P, metric.exp(s.P, h * s.V))
    # The step itself carries rounding of the size eps/h, seen through the conditioning of P.
    _close(d, h * metric.norm(s.P, s.V), s.rtol / h**0.5, "dist(P, exp(P, hV)) = h norm(P, V)")


def geodesic_runs_at_constant_speed(metric: Metric, s: Sample) -> None:
    """γ(0) = P, γ(1) = Q, d(P, γ(t)) = t d(P, Q), γ = Exp(t Log); t may have batch shape."""
    _close(metric.geodesic(s.P, s.Q, 0.0), s.P, s.rtol, "geodesic(P, Q, 0) = P")
    _close(metric.geodesic(s.P, s.Q, 1.0), s.Q, s.rtol, "geodesic(P, Q, 1) = Q")
    middle = metric.geodesic(s.P, s.Q, 0.3)
    _close(metric.dist(s.P, middle), 0.3 * metric.dist(s.P, s.Q), s.rtol, "constant speed")
    along = metric.exp(s.P, 0.3 * metric.log(s.P, s.Q))
    _close(middle, along, s.rtol, "geodesic = exp(t log)")
    t = torch.linspace(0, 1, s.P.shape[0], dtype=s.P.dtype)
    each = torch.stack([metric.geodesic(s.P[i], s.Q[i], float(t[i])) for i in range(len(t))])
    _close(metric.geodesic(s.P, s.Q, t), each, s.rtol, "t of batch shape")


def transport_is_an_isometry(metric: Metric, s: Sample) -> None:
    """Isometric, linear, undone by going back, and carries Log_P Q to -Log_Q P."""
    V, W = metric.transport(s.P, s.Q, s.V), metric.transport(s.P, s.Q, s.W)
    size = metric.norm(s.P, s.V) * metric.norm(s.P, s.W)
    kept = metric.inner(s.Q, V, W)
    _close(kept, metric.inner(s.P, s.V, s.W), s.rtol, "transport is an isometry", size)
    _close(metric.transport(s.Q, s.P, V), s.V, s.rtol, "transport back undoes it")
    both = metric.transport(s.P, s.Q, s.V - 2 * s.W)
    norms = torch.linalg.matrix_norm(V) + torch.linalg.matrix_norm(W)
    _close(both, V - 2 * W, s.rtol, "transport is linear", norms)
    moved = metric.transport(s.P, s.Q, metric.log(s.P, s.Q))
    _close(moved, -metric.log(s.Q, s.P), s.rtol, "transport(log(P, Q)) = -log(Q, P)")


def gradient_is_dual_to_inner(metric: Metric, s: Sample) -> None:
    """g_P(gradient(P, G), V) = Σ G ∘ V, of metrics that have `gradient`."""
    gradient = getattr(metric, "gradient", None)
    if gradient is None:
        return
    G = s.W / torch.linalg.matrix_norm(s.P)[:, None, None] ** 2
    vector = gradient(s.P, G)
    size = metric.norm(s.P, vector) * metric.norm(s.P, s.V)
    _close(metric.inner(s.P, vector, s.V), (G * s.V).sum((-2, -1)), s.rtol, "gradient", size)


def mean_balances_logs(metric: Metric, s: Sample) -> None:
    """Σ w Log_M X_i = 0; order does not matter; the mean of copies, and of two points."""
    M = metric.mean(s.P, s.weights)
    logs = metric.log(M, s.P)
    weights = (s.weights / s.weights.sum())[:, None, None]
    size = torch.linalg.matrix_norm(logs).max()
    _close((weights * logs).sum(0), torch.zeros_like(M), s.mean_rtol, "Σ w log(M, X) = 0", size)
    _close(metric.mean(s.P.flip(0), s.weights.flip(0)), M, s.mean_rtol, "order of the points")
    copies = s.P[:1].expand_as(s.P)
    _close(metric.mean(copies, s.weights), s.P[0], s.mean_rtol, "mean of copies")
    pair = torch.stack([s.P[0], s.Q[0]])
    two = torch.tensor([0.7, 0.3], dtype=s.P.dtype)
    middle = metric.geodesic(s.P[0], s.Q[0], 0.3)
    _close(metric.mean(pair, two), middle, s.mean_rtol, "mean of two points = geodesic")
    both = metric.mean(torch.stack([s.P, s.Q]))
    _close(both[1], metric.mean(s.Q), s.mean_rtol, "batches of sets")


def exp_domain_is_where_exp_ends(metric: Metric, s: Sample) -> None:
    """exp exists up to exp_domain, and a metric that ends there says so beyond."""
    V = 8 * s.V
    reach = metric.exp_domain(s.P, V)
    if not bool((reach > 0).all()):
        raise AssertionError("exp_domain > 0")
    inside = 0.9 * reach.clamp(max=1)
    ends = reach.isfinite()
    further = metric.exp_domain(s.P, V / 2)
    _close(further[ends], 2 * reach[ends], s.rtol, "exp_domain(P, V/2) = 2 exp_domain(P, V)")
    end = metric.exp(s.P, inside[:, None, None] * V)
    if not bool(end.isfinite().all()):
        raise AssertionError("exp(P, V) is finite inside exp_domain")
    if getattr(metric, "domain", None) == "raise" and bool(ends.any()):
        i = int(torch.nonzero(ends)[0])
        try:
            metric.exp(s.P[i], 1.5 * reach[i] * V[i])
        except ValueError:
            return
        raise AssertionError("exp(P, V) raises ValueError beyond exp_domain")


def shapes_broadcast(metric: Metric, s: Sample) -> None:
    """Batch shapes broadcast, layouts do not matter, and nothing is computed on no matrices."""
    one = s.P[0]
    _close(
        metric.log(one, s.Q), torch.stack([metric.log(one, Q) for Q in s.Q]), s.rtol, "broadcast P"
    )
    V = s.V[:, None] * torch.tensor([1, 0.5], dtype=s.V.dtype)[:, None, None]
    table = torch.stack([metric.exp(s.P, V[:, 0]), metric.exp(s.P, V[:, 1])], dim=1)
    _close(metric.exp(s.P[:, None], V), table, s.rtol, "broadcast P against V")
    strided = s.Q.mT.contiguous().mT
    _close(metric.dist(s.P, strided), metric.dist(s.P, s.Q), s.rtol, "strides")
    empty = s.P[:0]
    for out, shape in (
        (metric.log(empty, empty), empty.shape),
        (metric.exp(empty, empty), empty.shape),
        (metric.dist(empty, empty), (0,)),
        (metric.geodesic(empty, empty, 0.5), empty.shape),
        (metric.transport(empty, empty, empty), empty.shape),
    ):
        if out.shape != shape:
            raise AssertionError(f"empty batch: shape {tuple(out.shape)}, expected {tuple(shape)}")


def gradients_are_exact(metric: Metric, s: Sample) -> None:
    """Reverse mode against finite differences, in float64."""
    P, Q, V, W = (T[:1].double() for T in (s.P, s.Q, s.V, s.W))
    read = torch.tril if s.lower else _symmetric
    scale = float(P.abs().mean())

    def at(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args: fn(*(scale * read(T) for T in args))

    check_grad(at(metric.dist), (P / scale, Q / scale))
    check_grad(at(metric.log), (P / scale, Q / scale))
    check_grad(at(metric.exp), (P / scale, V / scale))
    check_grad(at(metric.inner), (P / scale, V / scale, W / scale))
    # Transport may be integrated: along random directions instead of entry by entry.
    leaves = tuple((T / scale).requires_grad_() for T in (P, Q, V))
    gradcheck(at(metric.transport), leaves, fast_mode=True)
    pair, weights = torch.stack([P[0], Q[0]]) / scale, s.weights[:2].double()
    check_grad(lambda X, w: metric.mean(scale * read(X), w), (pair, weights))


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


def gradient_is_zero_on_the_diagonal(metric: Metric, s: Sample) -> None:
    """∂d(P, Q) at P = Q, and ∂‖V‖ at V = 0, are 0 and not NaN."""
    P, Q = s.P.clone().requires_grad_(), s.P.clone().requires_grad_()
    for gradient in torch.autograd.grad(metric.dist(P, Q).sum(), (P, Q)):
        if bool(gradient.any()):
            raise AssertionError("the gradient of dist(P, Q) at P = Q is 0")
    V = torch.zeros_like(s.V).requires_grad_()
    (gradient,) = torch.autograd.grad(metric.norm(s.P, V).sum(), (V,))
    if bool(gradient.any()):
        raise AssertionError("the gradient of norm(P, V) at V = 0 is 0")


def repeated_eigenvalues_are_ordinary(metric: Metric, s: Sample) -> None:
    """Gradients at multiples of I, where every eigenvalue is repeated."""
    Q = s.Q[0].double()
    identity = torch.eye(Q.shape[-1], dtype=torch.float64)
    read = torch.tril if s.lower else _symmetric
    Q = Q / float(Q.abs().mean())
    check_grad(lambda A, B: metric.log(read(A), read(B)), (2 * identity, Q))
    check_grad(lambda A, B: metric.dist(read(A), read(B)), (2 * identity, identity))


def vmap_agrees(metric: Metric, s: Sample) -> None:
    """torch.func.vmap over the batch gives the batched answer."""
    vmapped: Any = torch.func.vmap(metric.dist)(s.P, s.Q)
    _close(vmapped, metric.dist(s.P, s.Q), s.rtol, "vmap of dist")
    vmapped = torch.func.vmap(metric.log)(s.P, s.Q)
    _close(vmapped, metric.log(s.P, s.Q), s.rtol, "vmap of log")
    vmapped = torch.func.vmap(metric.exp)(s.P, s.V)
    _close(vmapped, metric.exp(s.P, s.V), s.rtol, "vmap of exp")


def bad_input_is_named(metric: Metric, s: Sample) -> None:
    """Shape, asymmetry, NaN and indefiniteness: an error that names the argument and element."""
    bad = s.Q.clone()
    bad[1, 0, 0] = torch.nan
    _expect(LinAlgError, "Q[1]", metric.dist, s.P, bad)
    bad = s.Q.clone()
    bad[2] = -bad[2]
    _expect((LinAlgError, ValueError), "Q[2]", metric.log, s.P, bad)
    _expect((LinAlgError, ValueError), "P[2]", metric.exp, bad, s.V)
    _expect(ValueError, "Q", metric.dist, s.P, s.Q[..., :-1])
    _expect(TypeError, "Q", metric.dist, s.P.double(), s.Q.float())
    if s.P.shape[-1] > 1:
        bad = s.Q.clone()
        bad[1, 0, -1] += bad[1].abs().max()
        _expect(ValueError, "Q[1]", metric.log, s.P, bad)
        bad = s.V.clone()
        bad[1, 0, -1] += bad[1].abs().max()
        _expect(ValueError, "V[1]", metric.exp, s.P, bad)


def _expect(
    kinds: type[Exception] | tuple[type[Exception], ...],
    named: str,
    fn: Callable[..., Tensor],
    *args: Tensor,
) -> None:
    try:
        fn(*args)
    except kinds as error:
        if named not in str(error):
            raise AssertionError(f"the error names {named}, got {str(error)!r}") from error
        return
    raise AssertionError(f"bad {named} raises an error")


def is_frozen(metric: Metric, _s: Sample) -> None:
    """Equal parameters make equal metrics, which hash and print."""
    if hash(metric) != hash(metric) or metric != metric or not repr(metric):
        raise AssertionError("a metric hashes, compares and prints")


PROPERTIES: tuple[Callable[[Metric, Sample], None], ...] = (
    is_frozen,
    exp_inverts_log,
    exp_starts_with_its_velocity,
    inner_is_an_inner_product,
    dist_is_the_length_of_log,
    dist_is_a_distance,
    dist_sees_small_steps,
    geodesic_runs_at_constant_speed,
    transport_is_an_isometry,
    gradient_is_dual_to_inner,
    mean_balances_logs,
    exp_domain_is_where_exp_ends,
    shapes_broadcast,
    gradients_are_exact,
    gradient_is_zero_on_the_diagonal,
    repeated_eigenvalues_are_ordinary,
    vmap_agrees,
    bad_input_is_named,
)
"""Every property of the suite: functions of a metric and a sample that raise AssertionError."""


def _name(prop: Callable[[Metric, Sample], None]) -> str:
    return getattr(prop, "__name__", repr(prop))


def check_metric(
    metric: Metric, n: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0
) -> None:
    """Hold `metric` to every property of `PROPERTIES` on random n x n matrices.

    Raises AssertionError naming the property and how far it was missed.
    """
    sample = Sample.draw(metric, n, dtype, seed=seed)
    for prop in PROPERTIES:
        try:
            prop(metric, sample)
        except AssertionError as error:
            raise AssertionError(f"{metric!r}, n={n}, {dtype}: {_name(prop)}: {error}") from error
