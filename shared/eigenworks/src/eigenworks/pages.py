"""Templates as pages of one look: each a file that opens without a network."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING, Any

from eigenworks import formatting, svg
from eigenworks.headline import headline, kind, tally

if TYPE_CHECKING:
    from jinja2 import Environment

MARKS = {"done": "✓", "failed": "✕", "skipped": "–", "incomplete": "…"}
VERDICT_MARKS = {
    "holds": "✓",
    "does not hold": "✕",
    "undecided": "?",
    "not comparable": "≁",
    "quick: not a claim": "◦",
}


def fill(
    template: str, *, finished: datetime, filters: Mapping[str, Any] | None = None, **values: object
) -> str:
    """The page as one string of HTML. What it shows is escaped."""
    environment = _environment().overlay()
    environment.filters = {**_environment().filters, **(filters or {})}
    return environment.get_template(template).render(
        marks=MARKS,
        verdict_marks=VERDICT_MARKS,
        finished=finished.strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        **values,
    )


def summary_of(package: str) -> str:
    """The line by which an installed distribution describes itself; empty for none."""
    try:
        return metadata(package)["Summary"] or ""
    except PackageNotFoundError:
        return ""


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("eigenworks", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "draw": lambda plot: Markup(svg.draw(plot)),
        "duration": formatting.duration,
        "published": formatting.published,
        "anchor": lambda result: f"{result.name.replace('/', '-')}-{result.size}",
        "headline": headline,
        "kind": kind,
        "tally": tally,
    }
    return environment
