"""Multinomial logistic regression of SPD matrices under any metric."""

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from linalg_kernels import errors
from linalg_kernels.packed import pack, pack_lower, symmetric, triangular
from spd_metrics.inputs import Kind, tangent
from torch import Tensor, nn

from rmlr.families import GeneralForm, form_of, has_theta
from rmlr.flat import Flat
from rmlr.form import Form, Theta
from rmlr.general import Carry, Geometry

if TYPE_CHECKING:
    from geoopt.manifolds.base import Manifold
else:
    Manifold = Any


def _samples(S: Tensor, n: int) -> None:
    errors.require_float(S, "S")
    errors.require_real(S, "S")
    errors.require_square(S, "S", n)


def scores(
    metric: Geometry,
    S: Float[Tensor, "*batch n n"],
    P: Float[Tensor, "c n n"],
    A: Float[Tensor, "c n n"],
    *,
    memory: int | None = None,
) -> Float[Tensor, "*batch c"]:
    """Logits ⟨Log_P S, Ã⟩_P of samples S for the hyperplanes through P with the normals A.

    Args:
        metric: Any metric of spd-metrics, or any `Geometry`.
        S: Points.
        P: A point for each class.
        A: A tangent vector at the identity for each class, symmetric; `carried` to P.
        memory: Bytes that the pairs of a curved metric may take at once; None means 1 GiB.

    Equal to `general_scores`, by the closed form of the metric's family where it has one.
    Raises ValueError or LinAlgError naming the argument and the element. Source: Chen et al.,
    NeurIPS 2024, Theorems 3.3 and 4.2.
    """
    form = form_of(metric)
    if P.ndim != 3:
        raise ValueError(f"P must be (classes, n, n), got {tuple(P.shape)}")
    _samples(S, P.shape[-1])
    errors.require_same_kind(S, P, ("S", "P"))
    A = tangent(P, A, "A", form.kind).expand(P.shape)
    F = _flattened(form.features(S))
    return form.scores(F, form.place(P), pack_tangent(A, form.kind), memory).view(
        *S.shape[:-2], len(P)
    )


def _flattened(F: Float[Tensor, "*batch n n"]) -> Float[Tensor, "b n n"]:
    # A view of the same shape would be one more step for autograd.
    return F if F.ndim == 3 else F.reshape(-1, *F.shape[-2:])


def pack_tangent(A: Float[Tensor, "c n n"], kind: Kind) -> Float[Tensor, "c m"]:
    """A tangent vector as numbers."""
    return pack_lower(A) if kind == "lower" else pack(A)


class RiemannianMLR(nn.Module):
    """A classifier of SPD matrices: logits ⟨Log_{P_k} S, Ã_k⟩_{P_k}.

    With `LogEuclidean()` it is a linear layer on matrix logarithms. Points P and normals A
    may be read and set as attributes of these names, (classes, n, n) each; the optimiser sees
    unconstrained numbers instead: `location` and `normal`, n (n + 1)/2 each for a class.
    Points start at the identity, entries of normals at U(-√6/n, √6/n), with torch's global
    generator (Chen et al., NeurIPS 2024).

    Args:
        n: Size of the matrices.
        classes: Number of classes.
        metric: Any metric of spd-metrics, or any `Geometry`.
        bias: "point", or "scalar" for flat metrics, whose points matter by one number each:
            then `bias` is that number, P is gone, and any number is reached, not only those
            of points.
        manifold: A geoopt manifold. P then is a `geoopt.ManifoldParameter` on it, for geoopt's
            Riemannian optimisers, and not trivialised.
        learn_theta: Make θ of the metric a parameter, as θ exp(`log_theta`): its sign stays.
        carry: How normals get from the identity to P, for `general_scores` in place of a closed
            form: `parallel_transport` makes scores under `BuresWasserstein` invariant under
            rotations, at the price of an integration.
        memory: Bytes that the pairs (sample, class) of a curved metric may take at once; None
            means 1 GiB. More are computed in pieces, with the same result.

    Raises ValueError for sizes below 1 and parameters that the metric's theorem excludes.
    """

    location: nn.Parameter
    normal: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        n: int,
        classes: int,
        metric: Geometry,
        *,
        bias: Literal["point", "scalar"] = "point",
        manifold: Manifold | None = None,
        learn_theta: bool = False,
        carry: Carry | None = None,
        memory: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        if classes < 1:
            raise ValueError(f"classes must be >= 1, got {classes}")
        if not isinstance(metric, Geometry):
            raise TypeError(f"metric must have inner and log, got {type(metric).__name__}")
        if bias not in ("point", "scalar"):
            raise ValueError(f"bias must be 'point' or 'scalar', got {bias!r}")
        self.n, self.classes, self.metric, self.memory = n, classes, metric, memory
        self._form = form_of(metric) if carry is None else GeneralForm(metric, carry)
        self.log_theta: nn.Parameter | None = None
        if learn_theta:
            self._learn_theta(dtype, device)
        numbers = torch.zeros(classes, n * (n + 1) // 2, dtype=dtype, device=device)
        self.normal = nn.Parameter(numbers.clone())
        self.reset_normal()
        identity = torch.eye(n, dtype=dtype, device=device).expand(classes, n, n).clone()
        if bias == "scalar":
            if manifold is not None:
                raise ValueError("bias='scalar' leaves no points that could be on a manifold")
            self._start_bias(identity)
        elif manifold is not None:
            import geoopt

            self.register_parameter(
                "P",
                geoopt.ManifoldParameter(identity, manifold=manifold),  # ty: ignore[unknown-argument]
            )
        else:
            self.location = nn.Parameter(numbers)
        with torch.no_grad():
            # A metric whose parameters do not fit n says so now.
            self(identity[:1])

    def _learn_theta(self, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
        if isinstance(self._form, GeneralForm) or not has_theta(self.metric):
            raise ValueError(f"learn_theta needs a closed form with a power θ, not {self.metric!r}")
        if self.metric.theta == 0:  # ty: ignore[missing-attribute]
            raise ValueError("learn_theta needs a θ other than 0 to start from")
        self.log_theta = nn.Parameter(torch.zeros((), dtype=dtype, device=device))

    def _start_bias(self, identity: Tensor) -> None:
        form = self.form
        if not isinstance(form, Flat):
            raise ValueError(f"bias='scalar' needs a flat metric, got {self.metric!r}")
        with torch.no_grad():
            nothing = torch.zeros_like(identity[:1])
            shift = form.scores(nothing, form.place(identity), self.normal)[0]
        self.bias = nn.Parameter(-shift)

    def reset_normal(self) -> None:
        """Draw the entries of A anew from U(-√6/n, √6/n)."""
        bound = math.sqrt(6) / self.n
        nn.init.uniform_(self.normal, -bound, bound)

    @property
    def theta(self) -> Theta:
        """θ of the metric, as learned."""
        theta = self.metric.theta  # ty: ignore[missing-attribute]
        return theta if self.log_theta is None else theta * torch.exp(self.log_theta)

    @property
    def form(self) -> Form:
        """How scores are computed, at the present θ."""
        return self._form if self.log_theta is None else form_of(self.metric, self.theta)

    @property
    def A(self) -> Float[Tensor, "c n n"]:
        """Normals at the identity: symmetric, lower triangular for a metric on Cholesky factors."""
        return triangular(self.normal) if self.form.kind == "lower" else symmetric(self.normal)

    @A.setter
    def A(self, value: Tensor) -> None:
        self._check_shape(value, "A")
        with torch.no_grad():
            kind = self.form.kind
            self.normal.copy_(pack_tangent(tangent(value, value, "A", kind), kind))

    def _check_shape(self, value: Tensor, name: str) -> None:
        errors.require_float(value, name)
        expected = (self.classes, self.n, self.n)
        if tuple(value.shape) != expected:
            raise ValueError(f"{name} must be {expected}, got {tuple(value.shape)}")

    def __getattr__(self, name: str) -> Any:
        if name == "P" and "location" in self.__dict__["_parameters"]:
            return self.form.trivialisation.point(self.location)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "P" and not isinstance(value, nn.Parameter):
            self._set_points(value)
        else:
            super().__setattr__(name, value)

    def _set_points(self, P: Tensor) -> None:
        self._check_shape(P, "P")
        parameters = self.__dict__["_parameters"]
        with torch.no_grad():
            if "location" in parameters:
                self.location.copy_(self.form.trivialisation.numbers(P))
            elif "P" in parameters:
                self.form.place(P)
                parameters["P"].copy_(P)
            else:
                raise AttributeError("bias='scalar' has no points P; set bias")

    def features(self, S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """What logits need of samples: no parameters but θ enter, so it may be kept."""
        _samples(S, self.n)
        errors.require_same_kind(S, self.normal, ("S", "the parameters"))
        return self.form.features(S)

    def logits(self, F: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch c"]:
        """Logits of samples with the features F."""
        form, parameters = self.form, self._parameters
        flattened = _flattened(F)
        if "bias" in parameters:
            assert isinstance(form, Flat)
            logits = form.scores_with_bias(flattened, self.normal, self.bias)
        elif "location" in parameters and isinstance(form, Flat):
            logits = form.scores_at(flattened, self.location, self.normal)
        else:
            points = "location" in parameters
            X = form.place_of(self.location) if points else form.place(self.P)
            logits = form.scores(flattened, X, self.normal, self.memory)
        return logits if F.ndim == 3 else logits.view(*F.shape[:-2], self.classes)

    def forward(self, S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch c"]:
        """Logits. Raises ValueError or LinAlgError naming the element that is no point."""
        return self.logits(self.features(S))

    def extra_repr(self) -> str:
        """Sizes and the metric."""
        return f"{self.n}, {self.classes}, {self.metric!r}"
