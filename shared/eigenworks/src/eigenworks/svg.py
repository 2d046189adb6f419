"""Plots as inline SVG whose colours come from the page's style sheet.

Every shape carries a class and no colour of its own, so that one drawing serves a light
and a dark page; series differ by dash or hatch as well as by colour.
"""

import base64
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from html import escape
from typing import cast

from eigenworks.formatting import number
from eigenworks.plots import Bars, Curve, HeatMap, Lines, Picture, Plot
from eigenworks.statistics import Interval, Real

WIDTH = 460
SERIES = 6
"""Colours that the style sheet has; further series start again from the first."""


def draw(plot: Plot) -> str:
    """The plot as markup for an HTML page."""
    match plot:
        case Lines():
            return _lines(plot)
        case Bars():
            return _bars(plot)
        case HeatMap():
            return _heat_map(plot)
        case Picture():
            return _picture(plot)


def strip(
    mean: float,
    interval: Interval | None,
    published: Sequence[tuple[float, float | None]],
    span: tuple[float, float],
) -> str:
    """A measured value with its interval beside published ones, on the scale `span`.

    Dot and whisker: measured here. Vertical mark: published, with its tolerance as a band.
    """
    width, height = 200, 22
    low, high = span

    def x(value: float) -> float:
        return 8 + (width - 16) * (value - low) / (high - low)

    middle = height / 2
    parts = [f'<line class="axis" x1="8" x2="{width - 8}" y1="{middle}" y2="{middle}"/>']
    for value, tolerance in published:
        if tolerance:
            left, right = x(max(low, value - tolerance)), x(min(high, value + tolerance))
            parts.append(
                f'<rect class="band" x="{left:.1f}" y="2" width="{max(right - left, 1):.1f}" '
                f'height="{height - 4}"/>'
            )
        parts.append(
            f'<line class="published" x1="{x(value):.1f}" x2="{x(value):.1f}" '
            f'y1="2" y2="{height - 2}"/>'
        )
    if interval is not None and interval.low < interval.high:
        left, right = x(interval.low), x(interval.high)
        parts.append(
            f'<path class="whisker" d="M{left:.1f} {middle}H{right:.1f}'
            f'M{left:.1f} {middle - 4}v8M{right:.1f} {middle - 4}v8"/>'
        )
    parts.append(f'<circle class="dot" cx="{x(mean):.1f}" cy="{middle}" r="4"/>')
    return _svg(width, height, "measured against published", parts, "strip")


def strip_span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a scale that holds all values with a little air on both sides."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def _lines(plot: Lines) -> str:
    height, left, right, top, bottom = 320, 62, 14, 12, 46
    every_y = [
        v
        for c in plot.curves
        for v in (*_floats(c.y), *(_floats(c.low) if c.low else ()), *(_floats(c.high or ())))
    ]
    every_x = [v for c in plot.curves for v in _floats(c.x)]
    x_ticks = ticks(min(every_x), max(every_x), 6)
    y_ticks = (
        decades(min(every_y), max(every_y)) if plot.log_y else ticks(min(every_y), max(every_y), 5)
    )
    x_low, x_high = min(every_x[0], min(every_x), x_ticks[0]), max(max(every_x), x_ticks[-1])
    y_low, y_high = min(min(every_y), y_ticks[0]), max(max(every_y), y_ticks[-1])
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5

    def level(value: float) -> float:
        return math.log10(value) if plot.log_y else value

    def px(value: float) -> float:
        return left + (WIDTH - left - right) * (value - x_low) / (x_high - x_low)

    def py(value: float) -> float:
        share = (level(value) - level(y_low)) / (level(y_high) - level(y_low))
        return height - bottom - (height - top - bottom) * share

    parts = [
        f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{py(tick):.1f}" '
        f'y2="{py(tick):.1f}"/>'
        f'<text class="tick" x="{left - 8}" y="{py(tick) + 4:.1f}" '
        f'text-anchor="end">{_tick(tick)}</text>'
        for tick in y_ticks
    ]
    parts.extend(_x_axis(x_ticks, px, top, height - bottom))
    for index, curve in enumerate(plot.curves):
        parts.extend(_curve(curve, index, px, py))
    parts.append(
        f'<text class="label" x="{(left + WIDTH - right) / 2}" y="{height - 8}" '
        f'text-anchor="middle">{escape(plot.x_label)}</text>'
        f'<text class="label" transform="translate(14 {(top + height - bottom) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(plot.y_label)}</text>'
    )
    names = [curve.name for curve in plot.curves]
    return _legend(names, "line") + _svg(WIDTH, height, plot.title, parts)


def _x_axis(
    marks: Sequence[float], px: Callable[[float], float], top: Real, bottom: Real
) -> list[str]:
    return [
        f'<line class="grid" x1="{px(mark):.1f}" x2="{px(mark):.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text class="tick" x="{px(mark):.1f}" y="{bottom + 17}" '
        f'text-anchor="middle">{_tick(mark)}</text>'
        for mark in marks
    ]


def _curve(
    curve: Curve, index: int, px: Callable[[float], float], py: Callable[[float], float]
) -> list[str]:
    xs, ys = _floats(curve.x), _floats(curve.y)
    parts = []
    if curve.low is not None and curve.high is not None:
        forth = [f"{px(x):.1f} {py(y):.1f}" for x, y in zip(xs, _floats(curve.high), strict=True)]
        back = [f"{px(x):.1f} {py(y):.1f}" for x, y in zip(xs, _floats(curve.low), strict=True)]
        outline = "L".join(forth + back[::-1])
        parts.append(f'<path class="area s{index % SERIES}" d="M{outline}Z"/>')
    points = [f"{px(x):.1f} {py(y):.1f}" for x, y in zip(xs, ys, strict=True)]
    parts.append(f'<path class="curve s{index % SERIES}" d="M{"L".join(points)}"/>')
    # A few points are measurements to be seen one by one; many are a line.
    if len(xs) <= 24:
        parts.extend(
            f'<circle class="point s{index % SERIES}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6"/>'
            for x, y in zip(xs, ys, strict=True)
        )
    return parts


def _bars(plot: Bars) -> str:
    """Horizontal, so that names of any length stand beside their bars."""
    values = _grid(plot.values)
    thick, gap = 13, 12
    group = thick * len(plot.series) + gap
    left = min(240, 16 + 7 * max(len(name) for name in plot.categories))
    right, top, bottom = 58, 8, 42
    height = top + bottom + group * len(plot.categories)
    flat = [value for row in values for value in row]
    marks = ticks(min(0.0, *flat), max(0.0, *flat), 5)
    low, high = min(0.0, *flat, marks[0]), max(0.0, *flat, marks[-1])
    if low == high:
        high = low + 1

    def px(value: float) -> float:
        return left + (WIDTH - left - right) * (value - low) / (high - low)

    parts = _x_axis(marks, px, top, height - bottom)
    for c, category in enumerate(plot.categories):
        y = top + gap / 2 + c * group
        middle = y + thick * len(plot.series) / 2
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">'
            f"{escape(_cut(category, 32))}</text>"
        )
        for s in range(len(plot.series)):
            value = values[s][c]
            start, end = sorted((px(0.0), px(value)))
            parts.append(
                f'<rect class="bar s{s % SERIES}" x="{start:.1f}" y="{y + s * thick:.1f}" '
                f'width="{max(end - start, 0.5):.1f}" height="{thick - 2}"/>'
                f'<text class="value" x="{end + 5:.1f}" y="{y + s * thick + 9.5:.1f}">'
                f"{number(value)}</text>"
            )
    parts.append(
        f'<text class="label" x="{(left + WIDTH - right) / 2}" y="{height - 8}" '
        f'text-anchor="middle">{escape(plot.value_label)}</text>'
    )
    legend = _legend(plot.series, "bar") if len(plot.series) > 1 else ""
    return legend + _svg(WIDTH, height, plot.title, parts)


def _heat_map(plot: HeatMap) -> str:
    values = _grid(plot.values)
    height_cells, width_cells = len(values), len(values[0])
    longest = max((len(name) for name in plot.rows), default=0)
    left = 10 + (18 if plot.row_label else 0) + 7 * min(longest, 20)
    top = 8 + (18 if plot.columns else 0) + (18 if plot.column_label else 0)
    cell = min(64.0, (WIDTH - left - 10) / width_cells)
    height = top + cell * height_cells + 8
    # Few cells leave the drawing narrower than the page; it is not stretched to fill it.
    width = left + cell * width_cells + 10
    largest = max(abs(value) for row in values for value in row) or 1.0
    written = cell >= 30
    whole = all(value == int(value) for row in values for value in row)
    decimals = 0 if whole else max(1, 2 - math.floor(math.log10(largest)))
    parts = []
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            x, y, strength = left + c * cell, top + r * cell, abs(value) / largest
            sign = "negative" if value < 0 else "positive"
            parts.append(
                f'<rect class="cell {sign}" x="{x:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" '
                f'height="{cell - 1:.1f}" fill-opacity="{0.04 + 0.96 * strength:.3f}"/>'
            )
            if written:
                # Where a cell is half strong, dark letters read on it in both themes.
                ink = "strong" if strength > 0.75 else "mid" if strength > 0.55 else "weak"
                parts.append(
                    f'<text class="value on-{ink}" x="{x + cell / 2:.1f}" '
                    f'y="{y + cell / 2 + 4:.1f}" '
                    f'text-anchor="middle">{value:.{decimals}f}</text>'
                )
    for r, name in enumerate(plot.rows):
        parts.append(
            f'<text class="tick" x="{left - 6}" y="{top + (r + 0.5) * cell + 4:.1f}" '
            f'text-anchor="end">{escape(_cut(name, 20))}</text>'
        )
    for c, name in enumerate(plot.columns):
        shown = _cut(name, max(3, int(cell / 6.5)))
        parts.append(
            f'<text class="tick" x="{left + (c + 0.5) * cell:.1f}" y="{top - 6}" '
            f'text-anchor="middle">{escape(shown)}</text>'
        )
    if plot.row_label:
        y = top + cell * height_cells / 2
        parts.append(
            f'<text class="label" transform="translate(12 {y:.1f}) rotate(-90)" '
            f'text-anchor="middle">{escape(plot.row_label)}</text>'
        )
    if plot.column_label:
        parts.append(
            f'<text class="label" x="{left + cell * width_cells / 2:.1f}" y="14" '
            f'text-anchor="middle">{escape(plot.column_label)}</text>'
        )
    note = f'<p class="unit">in {escape(plot.unit)}</p>' if plot.unit else ""
    return _svg(width, height, plot.title, parts) + note


def _picture(plot: Picture) -> str:
    rows = cast("Sequence[Sequence[int | Sequence[int]]]", plot.pixels)
    colour = not isinstance(rows[0][0], int)
    lines = b"".join(
        b"\0"
        + bytes(v for pixel in row for v in (pixel if isinstance(pixel, Sequence) else (pixel,)))
        for row in rows
    )
    height, width = len(rows), len(rows[0])
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colour else 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    )
    data = base64.b64encode(png).decode()
    scale = max(1, min(WIDTH // width, 320 // height))
    return (
        f'<img class="picture" alt="{escape(plot.title)}" width="{width * scale}" '
        f'height="{height * scale}" src="data:image/png;base64,{data}"/>'
    )


def ticks(low: Real, high: Real, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover low..high."""
    if low == high:
        return [float(low)]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(index * step) for index in range(first, last + 1)]


def decades(low: Real, high: Real) -> list[float]:
    """Powers of ten around low..high."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _tick(value: Real) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.10g}" if abs(value) > 1e-12 else "0"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _legend(names: Sequence[str], kind: str) -> str:
    keys = "".join(
        '<span class="key"><svg width="26" height="12" aria-hidden="true">'
        + (
            f'<path class="curve s{i % SERIES}" d="M1 6H25"/>'
            if kind == "line"
            else f'<rect class="bar s{i % SERIES}" x="1" y="1" width="24" height="10"/>'
        )
        + f"</svg>{escape(name)}</span>"
        for i, name in enumerate(names)
    )
    return f'<div class="legend">{keys}</div>'


def _svg(width: Real, height: Real, title: str, parts: Sequence[str], kind: str = "plot") -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _floats(values: object) -> Sequence[float]:
    """What a frozen plot holds in place of the array it was given."""
    return cast("Sequence[float]", values)


def _grid(values: object) -> Sequence[Sequence[float]]:
    return cast("Sequence[Sequence[float]]", values)
