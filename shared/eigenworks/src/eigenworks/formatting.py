"""Numbers as a reader wants them: as many digits as the interval supports."""

import math
from collections.abc import Sequence

from eigenworks.experiment import Figure
from eigenworks.statistics import Interval, Real

PUBLISHED_SIGN = {"near": "", "at least": "≥ ", "at most": "≤ "}


def number(value: Real) -> str:
    """The value with four significant digits."""
    exponent = _exponent(value, 0.0)
    return _fixed(value, _decimals(value, 0.0, exponent), exponent)


def measured(
    value: Real, interval: Interval | None, unit: str = "", figures: Sequence[Figure] = ()
) -> str:
    """Mean and interval: "75.97 ± 0.31 %", or "75.97 [72.70, 79.04] %" where it is lopsided.

    Two digits of the interval's half width, and never fewer than a figure that the value
    is set against was printed with.
    """
    half = 0.0 if interval is None else (interval.high - interval.low) / 2
    exponent = _exponent(value, half)
    decimals = max([_decimals(value, half, exponent), *(_printed_decimals(f) for f in figures)])

    def fixed(number: Real) -> str:
        return f"{number / 10.0**exponent:.{decimals}f}"

    text = fixed(value)
    if interval is not None and half:
        above, below = interval.high - value, value - interval.low
        if math.isclose(above, below, rel_tol=1e-6):
            text += f" ± {fixed(above)}"
        else:
            text += f" [{fixed(interval.low)}, {fixed(interval.high)}]"
        if exponent:
            text = f"({text})"
    return f"{text}{f'e{exponent:+03d}' if exponent else ''} {unit}".rstrip()


def published(figure: Figure, unit: str = "") -> str:
    """A printed figure with the digits it was given: "75.97 %", "≥ 0 %"."""
    return f"{PUBLISHED_SIGN[figure.relation]}{figure.value:.10g} {unit}".rstrip()


def duration(seconds: Real) -> str:
    """Seconds in words of a person: "0.4 s", "12 s", "3 min 05 s", "1 h 02 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _exponent(value: Real, half: Real) -> int:
    """The power of ten that is put behind very large and very small numbers, else 0."""
    size = max(abs(value), half)
    return math.floor(math.log10(size)) if size and not 1e-3 <= size < 1e6 else 0


def _decimals(value: Real, half: Real, exponent: int) -> int:
    """Digits behind the point that show two of the half width, or four of the value."""
    if half:
        return max(0, 1 - math.floor(math.log10(half)) + exponent)
    if value == 0 or (value == int(value) and not exponent):
        return 0
    return max(0, 3 - math.floor(math.log10(abs(value))) + exponent)


def _printed_decimals(figure: Figure) -> int:
    digits = f"{figure.value:.10g}"
    return len(digits.partition(".")[2]) if "e" not in digits else 0


def _fixed(value: Real, decimals: int, exponent: int) -> str:
    digits = f"{value / 10.0**exponent:.{decimals}f}"
    return f"{digits}e{exponent:+03d}" if exponent else digits
