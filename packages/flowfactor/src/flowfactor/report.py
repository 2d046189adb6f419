"""The evaluation of a model as one HTML page without anything from outside."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from .files import write_text
from .pictures import as_data_url

COLOURS = ("#0b6e99", "#b35900", "#6a737d", "#7b3fa0")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1e21; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .9rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
img { image-rendering: pixelated; max-width: 100%; display: block; margin: .5rem 0 }
svg text { font: 12px system-ui, sans-serif; fill: #444 }
"""


@dataclass
class Page:
    """What a page shows: lines of text, tables, curves and pictures, in order."""

    title: str
    parts: list[str] = field(default_factory=list)

    def text(self, line: str) -> None:
        """A paragraph."""
        self.parts.append(f"<p>{html.escape(line)}</p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        """Numbers are shown with four digits."""

        def row(cells: Sequence[str | float], tag: str) -> str:
            shown = [c if isinstance(c, str) else f"{c:.4g}" for c in cells]
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in shown) + "</tr>"

        body = "".join(row(cells, "td") for cells in rows)
        self.parts.append(f"<table>{row(head, 'th')}{body}</table>")

    def curves(self, title: str, x_label: str, lines: Mapping[str, Sequence[float]]) -> None:
        """Values at x = 1, 2, …, from zero upwards."""
        width, height, left, below = 560, 240, 60, 40
        count = max(len(values) for values in lines.values())
        top = max(max(values) for values in lines.values()) or 1.0

        def x(i: int) -> float:
            return left + (width - left - 10) * i / max(count - 1, 1)

        def y(value: float) -> float:
            return 10 + (height - below - 10) * (1 - value / top)

        drawn = []
        for number, (name, values) in enumerate(lines.items()):
            colour = COLOURS[number % len(COLOURS)]
            points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
            drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" />')
            drawn.append(
                f'<text x="{width + 5}" y="{20 + 18 * number}" style="fill:{colour}">'
                f"{html.escape(name)}</text>"
            )
        drawn += [
            f'<text x="{left - 8}" y="{y(level) + 4}" text-anchor="end">{level:.4g}</text>'
            for level in (0.0, top / 2, top)
        ]
        drawn += [
            f'<text x="{x(i)}" y="{height - 20}" text-anchor="middle">{i + 1}</text>'
            for i in range(count)
        ]
        drawn.append(
            f'<text x="{(left + width) / 2}" y="{height - 3}" text-anchor="middle">'
            f"{html.escape(x_label)}</text>"
        )
        self.parts.append(
            f"<h3>{html.escape(title)}</h3>"
            f'<svg viewBox="0 0 {width + 170} {height}" width="{width + 170}" role="img">'
            + "".join(drawn)
            + "</svg>"
        )

    def picture(self, caption: str, image: Image.Image) -> None:
        """A picture with its caption above."""
        words = html.escape(caption)
        self.parts.append(f'<p>{words}</p><img alt="{words}" src="{as_data_url(image)}">')

    def write(self, path: Path) -> None:
        """The page, as UTF-8."""
        title = html.escape(self.title)
        write_text(
            path,
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style><h1>{title}</h1>{''.join(self.parts)}</html>\n",
        )
