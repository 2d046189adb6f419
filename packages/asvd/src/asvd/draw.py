"""The report of a compression as a page and as pictures."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from asvd.report import CompressionReport
from asvd.spill import write_json

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>asvd report</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }
td.n, th.n { text-align: right; }
img { max-width: 100%; background: white; border-radius: 6px; }
.wide { overflow-x: auto; }
</style></head><body>
<h1>asvd report</h1>
<p>Method {{ r.method }}, allocation {{ r.allocation }}, asked for {{ r.target }}.
Kept {{ "%.4f"|format(r.ratio) }} of what was asked to shrink (removed {{ "%.4f"|format(1 - r.ratio) }}),
{{ "%.4f"|format(r.model_ratio) }} of all parameters.</p>
{% if figures %}<table><thead><tr><th>Measured</th><th class="n">Value</th></tr></thead><tbody>
{% for name, value in figures.items() %}<tr><td>{{ name }}</td><td class="n">{{ "%.4g"|format(value) }}</td></tr>
{% endfor %}</tbody></table>{% endif %}
{% for title, picture in pictures.items() %}<h2>{{ title }}</h2><img alt="{{ title }}" src="{{ picture }}">{% endfor %}
<h2>Layers</h2><div class="wide"><table>
<thead><tr><th>Layer</th><th class="n">Shape</th><th class="n">Rank</th><th class="n">Kept</th><th class="n">Lost of its norm</th></tr></thead><tbody>
{% for l in r.layers %}<tr><td>{{ l.name }}</td><td class="n">{{ l.shape[0] }} × {{ l.shape[1] }}</td><td class="n">{{ "dense" if l.rank is none else l.rank }}</td><td class="n">{{ "%.3f"|format(l.ratio) }}</td><td class="n">{{ "%.2e"|format(l.loss) if l.loss == l.loss else "–" }}</td></tr>
{% endfor %}</tbody></table></div>
<h2>Seconds</h2><table><tbody>{% for name, value in r.seconds.items() %}<tr><td>{{ name }}</td><td class="n">{{ "%.1f"|format(value) }}</td></tr>{% endfor %}</tbody></table>
</body></html>
"""  # noqa: E501 - one page, read as HTML


def write(
    folder: Path,
    report: CompressionReport,
    figures: Mapping[str, float] = {},
    curve: Mapping[str, Sequence[tuple[float, float]]] = {},
) -> Path:
    """Writes asvd_report.json, PNG pictures and asvd_report.html; returns the page's path.

    Args:
        figures: Measured values by name, such as perplexities.
        curve: (kept ratio, perplexity) points by method.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"report": report.to_json(), "figures": dict(figures)}
    data["curve"] = {name: [list(point) for point in points] for name, points in curve.items()}
    write_json(folder / "asvd_report.json", data)
    drawn = {"Kept share of each layer": heat_map(report)}
    if curve:
        drawn["Perplexity against kept share"] = curve_plot(curve)
    pictures = {}
    for title, png in drawn.items():
        name = "allocation" if title.startswith("Kept") else "curve"
        (folder / f"asvd_{name}.png").write_bytes(png)
        pictures[title] = "data:image/png;base64," + base64.b64encode(png).decode()
    page = Environment(autoescape=True).from_string(PAGE)
    path = folder / "asvd_report.html"
    path.write_text(page.render(r=report, figures=figures, pictures=pictures), encoding="utf-8")
    return path


def heat_map(report: CompressionReport) -> bytes:
    """PNG: blocks to the right, kinds of layers downwards, colour the kept share."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(_kind(layer.name) for layer in report.layers))
    blocks = list(dict.fromkeys(_block(layer.name) for layer in report.layers))
    table = np.full((len(kinds), len(blocks)), np.nan)
    for layer in report.layers:
        table[kinds.index(_kind(layer.name)), blocks.index(_block(layer.name))] = layer.ratio
    figure = Figure(figsize=(2 + 0.3 * len(blocks), 1.2 + 0.35 * len(kinds)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(0, len(blocks), max(1, len(blocks) // 12)))
    axes.set_xlabel("block")
    figure.colorbar(image, label="kept share")
    return _png(figure)


def curve_plot(curve: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """PNG: perplexity on a logarithmic scale against the kept share, a line for each method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curve.items():
        ordered = sorted(points)
        axes.plot([x for x, _ in ordered], [y for _, y in ordered], marker="o", label=name)
    axes.set_yscale("log")
    axes.set_xlabel("kept share of the compressed layers' weights")
    axes.set_ylabel("perplexity")
    axes.legend()
    return _png(figure)


def read(path: Path) -> dict[str, Any]:
    """What `write` left in the folder or file. Raises ValueError for anything else."""
    file = path / "asvd_report.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data["report"]["layers"], list):
            raise TypeError("layers must be a list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a report of asvd: {error}") from error
    return data


def _block(name: str) -> str:
    numbers = [part for part in name.split(".") if part.isdecimal()]
    return numbers[0] if numbers else ""


def _kind(name: str) -> str:
    return ".".join(part for part in name.split(".") if not part.isdecimal())


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
