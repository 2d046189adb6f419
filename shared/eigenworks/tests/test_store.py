"""Results on disk: whole or not at all."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eigenworks.experiment import Row
from eigenworks.plots import HeatMap
from eigenworks.statistics import Interval
from eigenworks.store import (
    Unit,
    UnreadableError,
    load_unit,
    save_unit,
    stored_seeds,
    unit_path,
    write_atomically,
)

ROW = Row("a", "b", 1.5, "%", "higher", Interval(1, 2, "by hand"), (HeatMap("h", [[1, 2]]),))
UNIT = Unit(
    experiment="demo/one",
    size="quick",
    seed=3,
    version=2,
    release="1.0",
    parameters={"n": 4, "names": ["x", "y"]},
    status="done",
    seconds=0.5,
    finished="2026-01-02T03:04:05+00:00",
    machine={"cpu": "a"},
    rows=(ROW,),
)


def test_unit_survives_the_disk(tmp_path: Path) -> None:
    path = save_unit(tmp_path, UNIT)
    assert path == unit_path(tmp_path, "demo/one", "quick", 3)
    assert load_unit(path) == UNIT


def test_no_file_is_no_unit(tmp_path: Path) -> None:
    assert load_unit(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not a whole result"),
        (lambda _: "[]", "is not in the format"),
        (lambda text: text.replace("eigenworks unit 1", "eigenworks unit 0"), "not in the format"),
        (lambda text: text.replace('"label"', '"lable"'), "not in the format .*(lable|label)"),
        (
            lambda text: text.replace('"seconds"', '"minutes"'),
            "not in the format .*(minutes|seconds)",
        ),
    ],
)
def test_another_file_is_refused(tmp_path: Path, edit, message: str) -> None:
    path = save_unit(tmp_path, UNIT)
    path.write_text(edit(path.read_text()))
    with pytest.raises(UnreadableError, match=message):
        load_unit(path)


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_seeds_of_one_size_only(tmp_path: Path) -> None:
    save_unit(tmp_path, UNIT)
    folder = unit_path(tmp_path, "demo/one", "quick", 0).parent
    for name in ("quick-seed12.json", "full-seed4.json", "quick-seedx.json", ".quick-seed5.json.p"):
        (folder / name).touch()
    assert list(stored_seeds(tmp_path, "demo/one", "quick")) == [3, 12]


def test_a_kill_in_the_middle_leaves_no_half_file(tmp_path: Path) -> None:
    """A process that rewrites one file without end is killed; the file is whole each time."""
    path = tmp_path / "a.json"
    program = (
        "import json, sys; from pathlib import Path\n"
        "from eigenworks.store import write_atomically\n"
        "text = json.dumps(list(range(300_000)))\n"
        "while True: write_atomically(Path(sys.argv[1]), text)"
    )
    for round_ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, str(path)])
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 + 0.013 * round_)
        process.kill()
        process.wait()
        assert len(json.loads(path.read_text())) == 300_000
