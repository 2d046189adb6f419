"""The report of a compression, and of a rank search, as a page and as pictures."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from asvd.report import CompressionReport
from asvd.search import RankList
from asvd.spill import write_bytes, write_json

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
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
<h1>{{ title }}</h1>
"""
PICTURES = """{% for title, picture in pictures.items() %}<h2>{{ title }}</h2>
<img alt="{{ title }}" src="{{ picture }}">{% endfor %}
"""
PAGE = """<p>Method {{ r.method }}, allocation {{ r.allocation }}, asked for {{ r.target }}.
Kept {{ "%.4f"|format(r.ratio) }} of what was asked to shrink (removed {{ "%.4f"|format(1 - r.ratio) }}),
{{ "%.4f"|format(r.model_ratio) }} of all parameters.</p>
{% if figures %}<table><thead><tr><th>Measured</th><th class="n">Value</th></tr></thead><tbody>
{% for name, value in figures.items() %}<tr><td>{{ name }}</td><td class="n">{{ "%.4g"|format(value) }}</td></tr>
{% endfor %}</tbody></table>{% endif %}
"""  # noqa: E501 - read as HTML
LAYERS = """<h2>Layers</h2><div class="wide"><table>
<thead><tr><th>Layer</th><th class="n">Shape</th><th class="n">Rank</th><th class="n">Kept</th><th class="n">Lost of its norm</th></tr></thead><tbody>
{% for l in r.layers %}<tr><td>{{ l.name }}</td><td class="n">{{ l.shape[0] }} × {{ l.shape[1] }}</td><td class="n">{{ "dense" if l.rank is none else l.rank }}</td><td class="n">{{ "%.3f"|format(l.ratio) }}</td><td class="n">{{ "%.2e"|format(l.loss) if l.loss == l.loss else "–" }}</td></tr>
{% endfor %}</tbody></table></div>
<h2>Seconds</h2><table><tbody>{% for name, value in r.seconds.items() %}<tr><td>{{ name }}</td><td class="n">{{ "%.1f"|format(value) }}</td></tr>{% endfor %}</tbody></table>
"""  # noqa: E501 - read as HTML
CURVE = """<h2>Perplexity by kept share</h2><table><thead><tr><th>Method</th><th class="n">Kept</th>
<th class="n">Perplexity</th></tr></thead><tbody>
{% for name, points in curve.items() %}{% for kept, value in points %}<tr><td>{{ name }}</td>
<td class="n">{{ "%.4f"|format(kept) }}</td><td class="n">{{ "%.4g"|format(value) }}</td></tr>
{% endfor %}{% endfor %}</tbody></table>
"""


def write(folder: Path, report: CompressionReport, figures: Mapping[str, float] = {}) -> Path:
    """Writes asvd_report.json, asvd_allocation.png and asvd_report.html; returns the page's path.

    Args:
        figures: Measured values by name, such as perplexities.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"report": report.to_json(), "figures": dict(figures)}
    write_json(folder / "asvd_report.json", data)
    pictures = _save(folder, {"allocation": ("Kept share of each layer", heat_map(report))})
    return _page(
        folder / "asvd_report.html", "asvd report", PAGE + PICTURES + LAYERS,
        r=report, figures=figures, pictures=pictures,
    )  # fmt: skip


def write_search(
    folder: Path, ranked: RankList, curve: Mapping[str, Sequence[tuple[float, float]]]
) -> Path:
    """Writes asvd_sensitivity.png, asvd_curve.png and asvd_search.html; returns the page's path.

    Args:
        ranked: The probes.
        curve: (kept share, perplexity) by method.
    """
    pictures = _save(folder, {
        "sensitivity": ("Perplexity with one layer at a ratio", sensitivity_map(ranked)),
        "curve": ("Perplexity against kept share", curve_plot(curve)),
    })  # fmt: skip
    return _page(
        folder / "asvd_search.html", "asvd rank search", PICTURES + CURVE,
        pictures=pictures, curve=curve,
    )  # fmt: skip


def _save(folder: Path, pictures: Mapping[str, tuple[str, bytes]]) -> dict[str, str]:
    """Writes asvd_NAME.png, and gives each as a data URL by its title."""
    urls = {}
    for name, (title, png) in pictures.items():
        write_bytes(folder / f"asvd_{name}.png", png)
        urls[title] = "data:image/png;base64," + base64.b64encode(png).decode()
    return urls


def _page(path: Path, title: str, body: str, **values: Any) -> Path:
    template = Environment(autoescape=True).from_string(HEAD + body + "</body></html>\n")
    write_bytes(path, template.render(title=title, **values).encode())
    return path


def sensitivity_map(ranked: RankList) -> bytes:
    """PNG: layers downwards, candidate ratios to the right, colour the perplexity."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    layers = list(ranked.shapes)
    ratios = sorted({ratio for _, ratio, _ in ranked.entries})
    table = np.full((len(layers), len(ratios)), np.nan)
    for layer, ratio, harm in ranked.entries:
        table[layers.index(layer), ratios.index(ratio)] = harm
    figure = Figure(figsize=(6, 1.2 + 0.16 * len(layers)), layout="constrained")
    axes = figure.subplots()
    # A layer that ruins the model would leave all others in one colour.
    scale = LogNorm() if np.nanmin(table) > 0 else None
    image = axes.imshow(table, cmap="magma", norm=scale, aspect="auto")
    axes.set_yticks(range(len(layers)), layers, fontsize=6)
    axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axes.set_xlabel("kept share of the layer")
    figure.colorbar(image, label="perplexity")
    return _png(figure)


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
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
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
