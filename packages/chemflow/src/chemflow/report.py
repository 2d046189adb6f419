"""A run as one page of HTML that opens without a network. Needs the extra `draw`."""

from collections.abc import Sequence
from pathlib import Path

from chemflow import plots
from chemflow.draw import chosen, strip
from chemflow.files import write_text
from chemflow.optimization import Optimization
from chemflow.trajectory import Point

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>chemflow: {{ title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 76rem;
       margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
code { overflow-wrap: anywhere } .strip { overflow-x: auto } figure { display: inline-block;
margin: 0 1rem 1rem 0 } svg { max-width: 100%; height: auto } .strip svg { max-width: none }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ "{:,}".format(found.size) }} rows, seed {{ found.seed }},
{{ found.steps | length - 1 }} steps. {{ "{:,}".format(found.calls.asked) }} codes decoded,
{{ "{:,}".format(found.calls.invalid) }} of them to no molecule; the oracles evaluated
{{ "{:,}".format(found.calls.evaluated) }} molecules, and the navigator asked for
{{ "{:,}".format(found.calls.navigator) }}. Values are the oracle's; the surrogate's stand
beside them.
{% if found.lost %}{{ found.lost | length }} rows had no code.{% endif %}</p>
<h2>By step</h2>
{% for name, oracle in by_step %}<figure>{{ oracle | safe }}</figure>{% endfor %}
{% for name, picture in densities %}<figure>{{ picture | safe }}</figure>{% endfor %}
<table><tr><th>step</th><th>valid</th><th>improved</th><th>mean length of z</th>
{% for name in found.names %}<th>{{ name }}</th><th>surrogate</th><th>its error</th>{% endfor %}
</tr>
{% for step in shown %}<tr><td>{{ step.step }}</td><td>{{ "%.1f"|format(100 * step.valid) }} %</td>
<td>{{ "%.1f"|format(100 * step.improved) }} %</td><td>{{ "%.2f"|format(step.norm) }}</td>
{% for name in found.names %}<td>{{ "%.3f"|format(step.mean[name]) }} ±
{{ "%.3f"|format(step.std[name]) }}</td>
<td>{{ "%.3f"|format(step.predicted[name]) if name in step.predicted else "–" }}</td>
<td>{{ "%.3f"|format(step.error[name]) if name in step.error else "–" }}</td>{% endfor %}</tr>
{% endfor %}</table>
<h2>Improvement under a similarity</h2>
<figure>{{ running | safe }}</figure>
<table><tr><th>property</th><th>from the</th><th>similarity at least</th><th>improved</th>
<th>by, where improved</th></tr>
{% for one in found.improvements %}<tr><td>{{ one.column }}</td><td>{{ one.reference }}</td>
<td>{{ one.threshold }}</td><td>{{ "%.1f"|format(100 * one.success) }} %</td>
<td>{{ "%.3f"|format(one.mean) }} ± {{ "%.3f"|format(one.std) }}</td></tr>{% endfor %}</table>
<h2>Best molecules</h2>
<table><tr><th>SMILES</th>{% for name in found.names %}<th>{{ name }}</th><th>surrogate</th>
{% endfor %}<th>similarity</th><th>row</th><th>step</th></tr>
{% for one in found.best[:20] %}<tr><td><code>{{ one.smiles }}</code></td>
{% for name in found.names %}<td>{{ "%.3f"|format(one.values[name]) }}</td>
<td>{{ "%.3f"|format(one.predicted[name]) if name in one.predicted else "–" }}</td>{% endfor %}
<td>{{ "%.2f"|format(one.similarity) if one.similarity == one.similarity else "–" }}</td>
<td>{{ one.row }}</td><td>{{ one.step }}</td></tr>{% endfor %}</table>
{% if strips %}<h2>Paths</h2>
{% for row, picture in strips %}<h3>Row {{ row }}</h3><div class="strip">{{ picture | safe }}</div>
{% endfor %}{% endif %}
<h2>Provenance</h2><table>
{% for name, value in found.settings.items() %}<tr><td>{{ name }}</td>
<td style="text-align: left"><code>{{ value }}</code></td></tr>{% endfor %}</table>
</body></html>
"""


def write_report(
    path: str | Path,
    found: Optimization,
    paths: Sequence[Sequence[Point]] = (),
    title: str | None = None,
) -> None:
    """The page. `paths` are trajectories of single rows to be drawn."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    last = len(found.steps) - 1
    shown = [found.steps[t] for t in sorted({round(last * i / 10) for i in range(11)})]
    strips = []
    for points in paths:
        picked = chosen(points)
        if picked:
            drawn = strip(picked).decode()
            strips.append((picked[0].row, drawn[drawn.index("<svg") :]))
    page = environment.from_string(_PAGE).render(
        title=title or f"{' + '.join(found.names)} by {found.settings['navigator']}",
        found=found,
        shown=shown,
        by_step=[
            (name, plots.svg(plots.oracle_and_surrogate(found, name))) for name in found.names
        ],
        densities=[(name, plots.svg(plots.densities(found, name))) for name in found.names],
        running=plots.svg(plots.running_best(found)),
        strips=strips,
    )
    write_text(Path(path), page)
