"""Plot data that a row may carry: curves, bars, heat maps and pictures.

An experiment says what there is to see, in numbers; the report decides how it is
drawn. Arrays may be given as nested sequences, NumPy arrays or tensors on the CPU
and are kept as tuples, so that a plot is frozen and goes into JSON as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from eigenworks.statistics import Real

LARGEST = 65_536
"""The most numbers one plot may hold: a report is read by a person, in one file."""


@runtime_checkable
class _Array(Protocol):
    def tolist(self) -> Any: ...


Numbers = Sequence[Real] | _Array
Grid = Sequence[Sequence[Real]] | _Array


@dataclass(frozen=True)
class Curve:
    """One named line: y over x, both of shape (k,), with an optional band low..high."""

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None

    def __post_init__(self) -> None:
        _freeze_vector(self, "x", None)
        _freeze_vector(self, "y", len(_numbers(self.x)))
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high of a curve must be given together")
        if self.low is not None:
            _freeze_vector(self, "low", len(_numbers(self.x)))
            _freeze_vector(self, "high", len(_numbers(self.x)))


@dataclass(frozen=True)
class Lines:
    """Curves in one pair of axes. `log_y` draws the ordinate on a logarithmic scale."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_y: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "curves", tuple(self.curves))
        if not self.curves:
            raise ValueError(f"curves of {self.title!r} must not be empty")
        if self.log_y and min(min(_numbers(curve.y)) for curve in self.curves) <= 0:
            raise ValueError(f"log_y of {self.title!r} asks for positive values of y")
        _check_size(self.title, sum(len(_numbers(curve.x)) for curve in self.curves))


@dataclass(frozen=True)
class Bars:
    """Grouped bars: `values` of shape (series, categories), one colour a series."""

    title: str
    value_label: str
    categories: Sequence[str]
    series: Sequence[str]
    values: Grid

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))
        object.__setattr__(self, "series", tuple(self.series))
        _freeze_grid(self, "values", (len(self.series), len(self.categories)))


@dataclass(frozen=True)
class HeatMap:
    """A matrix in colours: `values` of shape (rows, columns), such as a confusion matrix."""

    title: str
    values: Grid
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    row_label: str = ""
    column_label: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        object.__setattr__(self, "columns", tuple(self.columns))
        _freeze_grid(self, "values", (len(self.rows) or None, len(self.columns) or None))


@dataclass(frozen=True)
class Picture:
    """An image: `pixels` of shape (height, width) or (height, width, 3), whole numbers 0..255."""

    title: str
    pixels: Sequence[Sequence[Any]] | _Array

    def __post_init__(self) -> None:
        rows = _as_list(self.pixels)
        width = len(rows[0]) if rows else 0
        if not width or any(len(row) != width for row in rows):
            raise ValueError(
                f"pixels of {self.title!r} must be (height, width) or (height, width, 3)"
            )
        flat: list[int] = []
        for row in rows:
            for pixel in row:
                channels = [pixel] if isinstance(pixel, int | float) else list(pixel)
                if len(channels) not in (1, 3):
                    raise ValueError(
                        f"pixels of {self.title!r} must have 1 or 3 channels, got {len(channels)}"
                    )
                flat.extend(channels)
        if len(flat) not in (len(rows) * width, len(rows) * width * 3):
            raise ValueError(f"pixels of {self.title!r} mix grey and colour")
        if any(value != int(value) or not 0 <= value <= 255 for value in flat):
            raise ValueError(f"pixels of {self.title!r} must be whole numbers from 0 to 255")
        _check_size(self.title, len(flat))
        frozen = tuple(
            tuple(
                int(pixel) if isinstance(pixel, int | float) else tuple(int(c) for c in pixel)
                for pixel in row
            )
            for row in rows
        )
        object.__setattr__(self, "pixels", frozen)


Plot = Lines | Bars | HeatMap | Picture

_KINDS: Mapping[str, type[Plot]] = {
    "lines": Lines,
    "bars": Bars,
    "heat map": HeatMap,
    "picture": Picture,
}


def plot_to_json(plot: Plot) -> dict[str, Any]:
    """The plot as plain JSON values, with its `kind`."""
    kind = next(kind for kind, cls in _KINDS.items() if type(plot) is cls)
    return {"kind": kind, **asdict(plot)}


def plot_from_json(data: Mapping[str, Any]) -> Plot:
    """The inverse of `plot_to_json`. An unknown `kind` raises ValueError."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"kind of a plot must be one of {sorted(_KINDS)}, got {kind!r}")
    if kind == "lines":
        fields["curves"] = tuple(Curve(**curve) for curve in fields["curves"])
    return _KINDS[kind](**fields)


def _as_list(values: Any) -> list[Any]:
    """Arrays and tensors know `tolist`; sequences are taken as they are."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    return list(values)


def _numbers(values: Numbers) -> list[float]:
    return _as_list(values)


def _finite(owner: str, name: str, values: Sequence[Any]) -> tuple[float, ...]:
    out = tuple(float(value) for value in values)
    bad = next((i for i, value in enumerate(out) if not math.isfinite(value)), None)
    if bad is not None:
        raise ValueError(f"{name} of {owner!r} must be finite, got {out[bad]} at index {bad}")
    return out


def _freeze_vector(curve: Curve, name: str, length: int | None) -> None:
    values = _finite(curve.name, name, _as_list(getattr(curve, name)))
    if not values or (length is not None and len(values) != length):
        expected = "at least one number" if length is None else f"{length} numbers, as x has"
        raise ValueError(f"{name} of {curve.name!r} must hold {expected}, got {len(values)}")
    object.__setattr__(curve, name, values)


def _freeze_grid(plot: Bars | HeatMap, name: str, shape: tuple[int | None, int | None]) -> None:
    rows = tuple(_finite(plot.title, name, _as_list(row)) for row in _as_list(getattr(plot, name)))
    height, width = shape
    width = len(rows[0]) if width is None and rows else width
    if not rows or not width or any(len(row) != width for row in rows):
        raise ValueError(
            f"{name} of {plot.title!r} must be a grid with {width or 'equally many'} columns, "
            f"got rows of {sorted({len(row) for row in rows})}"
        )
    if height is not None and len(rows) != height:
        raise ValueError(f"{name} of {plot.title!r} must have {height} rows, got {len(rows)}")
    _check_size(plot.title, len(rows) * width)
    object.__setattr__(plot, name, rows)


def _check_size(title: str, count: int) -> None:
    if count > LARGEST:
        raise ValueError(f"the plot {title!r} may hold at most {LARGEST} numbers, got {count}")
