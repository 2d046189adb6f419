"""`eigenworks bench` on small scripts beside an editable install."""

import json
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path
from textwrap import dedent

import pytest
from eigenworks.bench import BenchError, read_script_output, source_folder
from eigenworks.cli import app
from typer.testing import CliRunner, Result

HEAD = """
import json, os, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
"""
GOOD = (
    HEAD
    + """
names = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS")
print("a table", [os.environ.get(name) for name in names])
row = {"label": "n=20", "metric": "speed", "value": 3.1, "low": 2.9, "high": 3.3, "peer": "torch"}
out.write_text(json.dumps({"question": "How fast?", "rows": [row]}))
"""
)

Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An editable install `demo` with benchmark scripts, and a wheel install `wheeled`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def write(**scripts: str) -> Path:
        source = tmp_path / "checkout"
        (source / "benchmarks").mkdir(parents=True)
        for name, text in scripts.items():
            (source / "benchmarks" / f"{name}.py").write_text(dedent(text))
        found = {}
        for name in ("demo", "wheeled"):
            info = tmp_path / f"{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n")
            found[name] = Distribution.at(info)
        url = {"url": source.as_uri(), "dir_info": {"editable": True}}
        (tmp_path / "demo-1.0.dist-info" / "direct_url.json").write_text(json.dumps(url))
        monkeypatch.setattr("eigenworks.bench.members", lambda: found)
        return source

    return write


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)


def test_script_runs_in_its_own_clean_process(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    project(good=GOOD)
    ended = bench("--threads", "3")
    assert ended.exit_code == 0, ended.output
    assert "a table [None, None, '3']" in capfd.readouterr().out
    assert "wheeled: installed without its source" in ended.output
    data = json.loads(Path("report", "bench.json").read_text())
    (entry,) = data["benches"]
    assert (entry["name"], entry["status"], entry["question"]) == ("demo/good", "done", "How fast?")
    assert entry["rows"][0]["peer"] == "torch"
    assert data["machines"][0]["threads"] == 3


def test_failing_script_is_red_and_the_rest_goes_on(project: Project) -> None:
    project(a_fails="raise ValueError('no such CPU')", b_silent="pass", c_good=GOOD)
    ended = bench()
    assert ended.exit_code == 1
    data = json.loads(Path("report", "bench.json").read_text())
    assert [b["status"] for b in data["benches"]] == ["failed", "failed", "done"]
    assert data["benches"][0]["error"] == "exit status 1: ValueError: no such CPU"
    assert data["benches"][1]["error"] == "it wrote nothing to the path after --out"


def test_names_select(project: Project) -> None:
    project(one=GOOD, two=GOOD)
    bench("demo/two")
    data = json.loads(Path("report", "bench.json").read_text())
    assert [b["name"] for b in data["benches"]] == ["demo/two"]
    ended = bench("demo/tow")
    assert ended.exit_code == 2
    assert "no package or benchmark is called 'demo/tow'; did you mean demo/two" in ended.stderr
    ended = bench("wheeled")
    assert ended.exit_code == 1
    assert "benchmarks are in a checkout only" in ended.output


def test_interrupt_keeps_what_had_ended(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(a=GOOD, b=GOOD)
    from eigenworks import bench as module

    run = module.run_script

    def interrupted(script: module.Script, *, threads: int, quick: bool) -> module.Bench:
        if script.path.stem == "b":
            raise KeyboardInterrupt
        return run(script, threads=threads, quick=quick)

    monkeypatch.setattr(module, "run_script", interrupted)
    assert bench().exit_code == 130
    data = json.loads(Path("report", "bench.json").read_text())
    assert [b["name"] for b in data["benches"]] == ["demo/a"]


def test_quick_is_passed_on_and_said(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project(good=GOOD + "print('quick' if '--quick' in sys.argv else 'whole')")
    bench()
    assert "whole" in capfd.readouterr().out
    ended = bench("--quick")
    assert "quick" in capfd.readouterr().out
    assert "quick: not a claim" in ended.output
    assert json.loads(Path("report", "bench.json").read_text())["quick"] is True
    assert "A quick run" in Path("report", "bench.html").read_text()


def test_script_that_cannot_measure_here_is_skipped(project: Project) -> None:
    skipping = """
    from eigenworks.timing import arguments, write_skipped
    write_skipped(arguments("").parse_args().out, "How fast?", "there is no GPU")
    """
    project(a_gpu=skipping, good=GOOD)
    ended = bench()
    assert ended.exit_code == 0
    data = json.loads(Path("report", "bench.json").read_text())
    assert [b["status"] for b in data["benches"]] == ["skipped", "done"]
    assert data["benches"][0]["error"] == "there is no GPU"
    assert "skipped: there is no GPU" in ended.output


def test_table_and_page_show_every_rival(project: Project) -> None:
    both = GOOD.replace("[row]", "[row, row | {'label': 'n=30', 'value': 5.1, 'high': 6.0}]")
    project(good='"""How fast?\n\nOne <thread>.\n"""\n' + both)
    ended = bench()
    table = [line.split() for line in ended.output.partition("median")[2].splitlines()]
    assert ["demo/good"] in [words[:1] for words in table]
    assert ["speed", "2", "4.100", "3.100", "5.100"] in table
    page = Path("report", "bench.html").read_text()
    for text in ("One &lt;thread&gt;.", "3.10 ± 0.20", "n=30", "peer", "torch"):
        assert text in page, text


def row(**fields: object) -> dict[str, object]:
    return {"label": "a", "metric": "b", "value": 1.0} | fields


def test_no_finite_number_is_null(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"rows": [row(value=None)]}))
    assert read_script_output(path)[1][0]["value"] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no list of rows"),
        ([1], "row 0 must be an object, got int"),
        ([row(label=None)], "row 0 must have a text under 'label'"),
        ([{"label": "a", "metric": "b"}], "row 0 must have a number or null under 'value'"),
        ([row(value="3")], "finite number under 'value', got '3'"),
        ([row(value=True)], "finite number under 'value', got True"),
        ([row(), row()], r"row 1 repeats \('a', 'b'\)"),
        ([row(low=1)], "low <= high, both or neither"),
        ([row(low=2, high=1)], "low <= high, both or neither"),
        ([row(better="more")], "'higher' or 'lower' under 'better'"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, rows: list[object], message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"rows": rows}))
    with pytest.raises(BenchError, match=message):
        read_script_output(path)


@pytest.mark.parametrize(
    ("direct_url", "expected"),
    [
        (None, None),
        ('{"url": "https://example.org/a.whl", "archive_info": {}}', None),
        ('{"url": "file:///tmp/a%20b", "dir_info": {}}', None),
        ('{"url": "file:///tmp/a%20b", "dir_info": {"editable": true}}', Path("/tmp/a b")),
    ],
)
def test_source_folder_is_that_of_an_editable_install(direct_url, expected) -> None:
    assert source_folder(direct_url) == expected
