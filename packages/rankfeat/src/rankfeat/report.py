"""An evaluation as text, CSV, JSON and HTML. Figures are in per cent there."""

import csv
import html
import importlib.metadata
import io
import json
from pathlib import Path

import torch

from rankfeat.evaluate import CONVENTIONS, FIGURES, Evaluation, Row
from rankfeat.files import whole, write_text

_TITLES = {"fpr95": "FPR95 ↓", "auroc": "AUROC ↑", "aupr_in": "AUPR-in ↑", "aupr_out": "AUPR-out ↑"}


def _cell(row: Row, key: str) -> str:
    low, high = row.intervals[key]
    return f"{100 * row.figures[key]:.2f} [{100 * low:.1f}, {100 * high:.1f}]"


def to_text(evaluation: Evaluation) -> str:
    """Tables for a terminal, one for each convention."""
    lines = []
    width = max(len(name) for name in ("detector", *evaluation.id_scores))
    sets = max(len(row.ood) for row in evaluation.rows)
    for convention in CONVENTIONS:
        rows = [row for row in evaluation.rows if row.convention == convention.name]
        lines.append(f"{convention.name}; per cent, 95 % bootstrap intervals")
        heads = "".join(f"{_TITLES[key]:>22}" for key in FIGURES)
        lines.append(f"{'detector':{width}}  {'OOD':{sets}}{heads}")
        lines.extend(
            f"{row.detector:{width}}  {row.ood:{sets}}"
            + "".join(f"{_cell(row, key):>22}" for key in FIGURES)
            for row in rows
        )
        lines.append("")
    for name, one in evaluation.accuracy.items():
        lines.append(
            f"{name}: ID accuracy {100 * one.model:.1f} %, of the logits scored "
            f"{100 * one.edited:.1f} % ({one.samples} samples)"
        )
    return "\n".join(lines).rstrip() + "\n"


def to_csv(evaluation: Evaluation) -> str:
    """One line for each detector, set and convention."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    ends = [f"{key}{end}" for key in FIGURES for end in ("", "_low", "_high")]
    writer.writerow(["detector", "ood", "convention", "id_samples", "ood_samples", *ends])
    for row in evaluation.rows:
        values = [
            f"{100 * value:.6g}"
            for key in FIGURES
            for value in (row.figures[key], *row.intervals[key])
        ]
        writer.writerow(
            [row.detector, row.ood, row.convention, row.id_samples, row.ood_samples, *values]
        )
    return file.getvalue()


def to_json(evaluation: Evaluation) -> str:
    """Everything but the scores, with the versions of the software and the weights' digests."""
    versions = {name: importlib.metadata.version(name) for name in ("rankfeat", "torch")}
    told = {
        "format": "rankfeat evaluation 1",
        "versions": versions,
        "weights_sha256": dict(evaluation.weights),
        "resamples": evaluation.resamples,
        "seed": evaluation.seed,
        "groups": {name: list(sets) for name, sets in evaluation.groups.items()},
        "conventions": [vars(convention) for convention in CONVENTIONS],
        "accuracy_percent": {
            name: {"samples": one.samples, "model": 100 * one.model, "edited": 100 * one.edited}
            for name, one in evaluation.accuracy.items()
        },
        "rows_percent": [
            {
                "detector": row.detector,
                "ood": row.ood,
                "convention": row.convention,
                "id_samples": row.id_samples,
                "ood_samples": row.ood_samples,
                **{key: 100 * row.figures[key] for key in FIGURES},
                **{f"{key}_interval": [100 * end for end in row.intervals[key]] for key in FIGURES},
            }
            for row in evaluation.rows
        ],
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;text-align:right}
td:first-child,td:nth-child(2),th:first-child,th:nth-child(2){text-align:left}
tr.mean td{font-weight:600;border-bottom:1px solid #999}thead th{border-bottom:2px solid}
svg{max-width:100%;height:auto}"""


def to_html(evaluation: Evaluation, plots: bool = True) -> str:
    """A page by itself: the tables and, unless `plots` is False, histograms and ROC curves.

    Plots need matplotlib (`pip install "rankfeat[plots]"`).
    """
    parts = [f"<!doctype html><meta charset=utf-8><title>rankfeat</title><style>{_STYLE}</style>"]
    parts.append("<h1>Out-of-distribution detection</h1>")
    for convention in CONVENTIONS:
        parts.append(f"<h2>{html.escape(convention.name)}</h2><p>Per cent, with 95 % intervals of "
                     f"{evaluation.resamples} bootstrap resamples.</p>")  # fmt: skip
        heads = "".join(f"<th>{_TITLES[key]}</th>" for key in FIGURES)
        parts.append(f"<table><thead><tr><th>detector<th>OOD{heads}</tr></thead>")
        for row in evaluation.rows:
            if row.convention != convention.name:
                continue
            cells = "".join(f"<td>{_cell(row, key)}</td>" for key in FIGURES)
            mark = " class=mean" if row.ood == "mean" else ""
            names = "".join(f"<td>{html.escape(one)}</td>" for one in (row.detector, row.ood))
            parts.append(f"<tr{mark}>{names}{cells}</tr>")
        parts.append("</table>")
    if plots:
        from rankfeat.plots import histograms, roc, svg

        for detector in evaluation.id_scores:
            parts.append(f"<h2>{html.escape(detector)}</h2>")
            parts.append(svg(histograms(evaluation, detector)))
        parts.extend(
            f"<h2>{html.escape(name)}</h2>{svg(roc(evaluation, name))}"
            for name in next(iter(evaluation.ood_scores.values()))
        )
    return "\n".join(parts) + "\n"


def write(evaluation: Evaluation, path: str | Path) -> None:
    """Write by the ending of the path: .csv, .json, .html, .txt, or .pt with all scores."""
    path = Path(path)
    if path.suffix == ".pt":
        with whole(path) as part:
            torch.save({"id": dict(evaluation.id_scores), "ood": dict(evaluation.ood_scores)}, part)
        return
    formats = {".csv": to_csv, ".json": to_json, ".html": to_html, ".txt": to_text}
    if path.suffix not in formats:
        raise ValueError(f"path must end in {', '.join(formats)} or .pt, got {path.name!r}")
    write_text(path, formats[path.suffix](evaluation))
