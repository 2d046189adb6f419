"""The real functions that act on eigenvalues, each with its divided differences.

A scalar function is a small frozen object without tensors: `value(w, p)`, the first and
third divided differences, and `by_exponent`, the function that is its derivative with
respect to the exponent p (only powers have one).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from linalg_kernels import divided, divided_third


def _missing(order: str, name: str) -> NotImplementedError:
    return NotImplementedError(f"{order} derivatives of {name} are not implemented")


@runtime_checkable
class ScalarFunction(Protocol):
    """What the spectral machinery asks of a function; `p` is None but for powers.

    `p` broadcasts against the other arguments.
    """

    @property
    def name(self) -> str: ...
    def value(self, w: Tensor, p: Tensor | None) -> Tensor: ...
    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor: ...
    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor: ...
    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor: ...
    def by_exponent(self) -> "ScalarFunction": ...


@dataclass(frozen=True)
class Elementary:
    """A function without parameters: its value and divided differences."""

    name: str
    f: Callable[[Tensor], Tensor]
    f1: Callable[[Tensor, Tensor], Tensor]
    f2: Callable[[Tensor, Tensor, Tensor], Tensor]
    f3: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.f(w)

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.f1(a, b)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.f2(a, b, c)

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.f3(a, b, c, d)

    def by_exponent(self) -> ScalarFunction:
        raise TypeError(f"{self.name} has no exponent")


LOG = Elementary("log", torch.log, divided.log, divided.log2, divided_third.log)
EXP = Elementary("exp", torch.exp, divided.exp, divided.exp2, divided_third.exp)
SQRT = Elementary("sqrt", torch.sqrt, divided.sqrt, divided.sqrt2, divided_third.sqrt)
INV_SQRT = Elementary(
    "inv_sqrt", torch.rsqrt, divided.inv_sqrt, divided.inv_sqrt2, divided_third.inv_sqrt
)
INV = Elementary("inv", torch.reciprocal, divided.inv, divided.inv2, divided_third.inv)

ELEMENTARY = {fn.name: fn for fn in (LOG, EXP, SQRT, INV_SQRT, INV)}


@dataclass(frozen=True)
class Power:
    """x^p (log x)^order. Orders above 0 are derivatives with respect to p."""

    order: int = 0

    @property
    def name(self) -> str:
        return "power" if self.order == 0 else f"power_log{self.order}"

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:
        assert p is not None
        return w**p if self.order == 0 else w**p * torch.log(w) ** self.order

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:
        assert p is not None
        if self.order > 1:
            raise NotImplementedError("third derivatives of a matrix power are not implemented")
        return (divided.power, divided.power_log)[self.order](a, b, p)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:
        assert p is not None
        if self.order > 0:
            raise NotImplementedError("third derivatives of a matrix power are not implemented")
        return divided.power2(a, b, c, p)

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:
        assert p is not None
        if self.order > 0:
            raise _missing("fourth", self.name)
        return divided_third.power(a, b, c, d, p)

    def by_exponent(self) -> "Power":
        return Power(self.order + 1)


POWER = Power()


@dataclass(frozen=True)
class Clamp:
    """max(x, floor)."""

    floor: float
    name: str = "clamp"

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return w.clamp(min=self.floor)

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return divided.clamp(a, b, self.floor)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return divided.clamp2(a, b, c, self.floor)

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        raise _missing("third", self.name)

    def by_exponent(self) -> ScalarFunction:
        raise TypeError("clamp has no exponent")


@dataclass(frozen=True)
class Floored:
    """f(max(x, floor)): eigenvalues at or below the floor are moved to it, with derivative 0."""

    base: ScalarFunction
    floor: float

    @property
    def name(self) -> str:
        return f"floored_{self.base.name}"

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:
        return self.base.value(w.clamp(min=self.floor), p)

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:
        return divided.floored(lambda x, y: self.base.first(x, y, p), a, b, self.floor)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:
        return divided.floored2(
            lambda x, y: self.base.first(x, y, p),
            lambda x, y, z: self.base.second(x, y, z, p),
            a,
            b,
            c,
            self.floor,
        )

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        raise _missing("third", self.name)

    def by_exponent(self) -> "Floored":
        return Floored(self.base.by_exponent(), self.floor)


@dataclass(frozen=True)
class Custom:
    """A user's function with its derivatives; see `spectral_fn`."""

    f: Callable[[Tensor], Tensor]
    df: Callable[[Tensor], Tensor]
    dd: Callable[[Tensor, Tensor], Tensor] | None
    d2f: Callable[[Tensor], Tensor] | None
    length: float | None
    name: str = "custom"

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.f(w)

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.dd is not None:
            return self.dd(a, b)
        return divided.generic(self.f, self.df, a, b, self.length)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:
        if self.d2f is None:
            raise NotImplementedError(
                "a second derivative of spectral_fn needs d2f, the second derivative of f"
            )
        return divided.generic2(lambda x, y: self.first(x, y, p), self.d2f, a, b, c, self.length)

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        raise _missing("third", self.name)

    def by_exponent(self) -> ScalarFunction:
        raise TypeError("spectral_fn has no exponent")


# --- functions as words and numbers ---------------------------------------------------------


def encode(fn: ScalarFunction) -> tuple[str, float] | None:
    """A name and a floor that `decode` reads, or None for a function that has none."""
    floor = -math.inf
    if isinstance(fn, Clamp):
        return "clamp", fn.floor
    if isinstance(fn, Floored):
        fn, floor = fn.base, fn.floor
    if isinstance(fn, Elementary):
        return fn.name, floor
    if isinstance(fn, Power) and fn.order == 0:
        return "power", floor
    return None


def decode(name: str, floor: float) -> ScalarFunction:
    """The function that `encode` put into words."""
    if name == "clamp":
        return Clamp(floor)
    fn = POWER if name == "power" else ELEMENTARY[name]
    return fn if floor == -math.inf else Floored(fn, floor)
