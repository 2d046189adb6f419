"""The page: it opens without a network, escapes what it shows, and says what was asked."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from eigenworks import (
    Bars,
    Claim,
    Curve,
    Experiment,
    Figure,
    HeatMap,
    Interval,
    Lines,
    Picture,
    Row,
    Size,
)
from eigenworks.data import EMG
from eigenworks.experiment import SizeName
from eigenworks.headline import headline, tally
from eigenworks.report import metrics, render, write_report
from eigenworks.store import Unit
from eigenworks.summary import Result, summarise

PLOTS = (
    Lines("Loss", "epoch", "loss", (Curve("ours", [0, 1], [2, 1]),)),
    Bars("Accuracy", "accuracy (%)", ("mg", "rr"), ("ours",), [[1, 2]]),
    HeatMap("Confusion", [[1, 2], [3, 4]]),
    Picture("A face", [[[1, 2, 3], [4, 5, 6]]]),
)
FINISHED = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Page(HTMLParser):
    """Collects what a browser would load, the visible text, and tags left open."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "poster", "data") or (name == "href" and tag != "a"):
                self.loads.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name == "id":
                self.ids.add(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        kept = {"script": self.scripts, "style": self.styles}.get(inside, self.words)
        kept.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def result(
    *,
    label: str = "LieBN",
    size: SizeName = "full",
    error: str = "",
    notes: str = "Windows overlap.",
    published: bool = True,
) -> Result:
    sizes = Size(1.0, (0, 1), {"window": 250, "metrics": ("aim", "lem")})
    figure = Figure(label, "accuracy", 93.22, "LieBN, Table 4", 0.5)
    experiment = Experiment(
        "demo/x",
        "A title",
        Claim("A <b>claim</b>", "A source"),
        lambda _: [],
        sizes,
        sizes,
        data=(EMG,),
        figures=(figure,) if published else (),
        notes=notes,
    )
    status = "failed" if error else "done"
    units = [
        Unit(
            "demo/x", size, seed, 1, "1.0", {}, status, 1.0, "2026-01-02T03:04:05+00:00",
            {"cpu": "A processor", "cores": 2},
            (Row(label, "accuracy", 93 + seed / 10, "%", "higher", plots=PLOTS),), error, error,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    return summarise(experiment, "1.0", size, (0, 1), units)


def pages(*results: Result, interrupted: bool = False) -> dict[str, Page]:
    texts = render(results, size="full", finished=FINISHED, interrupted=interrupted)
    return {name: Page(text) for name, text in texts.items()}


def page(*results: Result) -> Page:
    """The page of the package."""
    return pages(*results)["demo.html"]


def test_nothing_is_loaded_from_anywhere() -> None:
    for shown in pages(result(), result(size="quick")).values():
        assert shown.loads
        assert all(load.startswith("data:") for load in shown.loads), shown.loads
        styles = "".join(shown.styles)
        assert "@import" not in styles
        assert not re.search(r"url\(", styles)
        assert not re.search(r"\b(fetch|XMLHttpRequest|import)\b", "".join(shown.scripts))


def test_every_tag_is_closed_and_every_link_leads_somewhere() -> None:
    found = pages(result(), result(size="quick"))
    assert set(found) == {"demo.html", "index.html"}
    for name, shown in found.items():
        assert shown.open == []
        assert shown.links
        for link in shown.links:
            file, _, anchor = link.partition("#")
            assert not anchor or anchor in found[file or name].ids, link
            assert not file or file in found, link


def test_index_has_a_row_for_each_size_and_the_first_compared_row() -> None:
    text = pages(result(), result(size="quick"), interrupted=True)["index.html"].text
    assert text.count("A <b>claim</b>") == 1
    assert text.index("quick: not a claim") < text.index("demo/x, full")
    for expected in ("93.22 %", "93.05 ± 0.64 %", "LieBN, accuracy", "✓ holds", "2.0 s"):
        assert expected in text
    assert "This run was interrupted" in text
    failed = pages(result(error="ValueError: no"))["index.html"].text
    assert "✕ failed" in failed


def test_an_experiment_names_the_row_that_stands_for_it() -> None:
    rows = (Row("a", "m", 1), Row("b", "m", 2), Row("c", "m", 3))
    unit = Unit("demo/x", "full", 0, 1, "1.0", {}, "done", 1.0, "", {}, rows)

    def shown(**more: Any) -> str:
        size = Size(1.0)
        experiment = Experiment("demo/x", "t", Claim("c", "s"), lambda _: [], size, size, **more)
        row = headline(summarise(experiment, "1.0", "full", (0,), [unit]))
        assert row is not None
        return row.label

    assert shown() == "a"
    assert shown(figures=(Figure("b", "m", 2.0, "s"),)) == "b"
    assert shown(figures=(Figure("b", "m", 2.0, "s"),), headline=(("z", "m"), ("c", "m"))) == "c"


def test_verdicts_are_counted() -> None:
    rows = tuple(Row(str(i), "m", i) for i in range(4))
    figures = tuple(Figure(str(i), "m", min(i, 2), "s", 0.5) for i in range(3))
    figures += (Figure("3", "m", 9, "s", 0.5),)
    size = Size(1.0)
    experiment = Experiment(
        "demo/x", "t", Claim("c", "s"), lambda _: [], size, size, figures=figures
    )
    unit = Unit("demo/x", "full", 0, 1, "1.0", {}, "done", 1.0, "", {}, rows)
    assert tally(summarise(experiment, "1.0", "full", (0,), [unit])) == [
        ("holds", 3),
        ("does not hold", 1),
    ]


def test_page_says_claim_source_figure_measure_and_verdict() -> None:
    text = page(result()).text
    for expected in (
        "A <b>claim</b>",
        "A source",
        "93.22 %",
        "LieBN, Table 4, to be met within 0.5",
        "93.05 ± 0.64 %",
        "95 % t over 2 seeds",
        "✓ holds",
        "Windows overlap.",
        "A processor",
        "pip install --no-deps geomstats",
        "eigenworks run demo/x --full",
        "aim, lem",
        "2 January 2026",
    ):
        assert expected in text


def test_what_an_experiment_says_is_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    for text in render(
        [result(label=evil, error=evil, notes=evil)],
        size="full",
        finished=FINISHED,
        interrupted=False,
    ).values():
        assert evil not in text
        assert "&lt;script&gt;" in text


def test_every_kind_of_plot_is_drawn() -> None:
    text = page(result()).text
    for plot in PLOTS:
        assert plot.title in text
    assert "seed 0 of 2" in text


def test_status_is_told_in_words_and_not_by_colour_alone() -> None:
    text = page(result(error="ValueError: no\n  at line 3")).text
    assert "✕ failed" in text
    assert "ValueError: no at line 3" in text
    assert "Traceback of seed 1" in text


def test_quick_is_marked() -> None:
    assert "◦ quick: not a claim" in page(result(size="quick")).text


def test_rows_of_one_metric_share_a_scale() -> None:
    (metric,) = metrics(result())
    assert metric.span is not None
    low, high = metric.span
    row = metric.shown[0]
    assert row.interval is not None
    assert low < row.interval.low
    assert max(row.interval.high, 93.22) < high


def test_values_of_many_decades_have_a_logarithmic_scale() -> None:
    rows = tuple(Row(str(i), "m", 10.0**i) for i in range(5))
    size = Size(1.0)
    experiment = Experiment("demo/x", "t", Claim("c", "s"), lambda _: [], size, size)
    unit = Unit("demo/x", "full", 0, 1, "1.0", {}, "done", 1.0, "", {}, rows)
    found = summarise(experiment, "1.0", "full", (0,), [unit])
    (metric,) = metrics(found)
    assert metric.log
    assert metric.span is not None
    assert -1 < metric.span[0] < 0
    assert 4 < metric.span[1] < 5
    assert "(log)" in page(found).text
    assert not metrics(result())[0].log


def test_lone_value_has_no_scale() -> None:
    assert metrics(result(published=False))[0].span is None
    assert metrics(result(published=True))[0].span is not None
    exact = summarise(
        Experiment("demo/x", "t", Claim("c", "s"), lambda _: [], Size(1.0), Size(1.0)),
        "1.0",
        "full",
        (0,),
        [Unit("demo/x", "full", 0, 1, "1.0", {}, "done", 1.0, "", {}, (Row("a", "b", 1),))],
    )
    assert metrics(exact)[0].span is None
    assert "nothing random, run once" in page(exact).text


def test_empty_folder_is_a_sentence() -> None:
    assert "No experiment has a result in this folder." in pages()["index.html"].text


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report([result()], tmp_path, size="full", finished=FINISHED, interrupted=False)
    before = path.read_text()
    broken: Callable[..., dict[str, str]] = lambda *_, **__: {"index.html": "\udc80"}  # noqa: E731
    monkeypatch.setattr("eigenworks.report.render", broken)
    with pytest.raises(UnicodeEncodeError):
        write_report([], tmp_path, size="full", finished=FINISHED, interrupted=False)
    assert path.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo.html", "index.html", "report.json"]


def test_lopsided_interval_is_written_with_both_ends() -> None:
    size = Size(1.0)
    experiment = Experiment("demo/x", "t", Claim("c", "s"), lambda _: [], size, size)
    row = Row("a", "b", 76, "%", interval=Interval(72.5, 79.0, "95 % Wilson, 720 windows"))
    unit = Unit("demo/x", "full", 0, 1, "1.0", {}, "done", 1.0, "", {}, (row,))
    text = page(summarise(experiment, "1.0", "full", (0,), [unit])).text
    assert "76.0 [72.5, 79.0] %" in text
    assert "95 % Wilson, 720 windows" in text
