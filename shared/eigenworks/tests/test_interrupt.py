"""Ctrl-C as a terminal sends it, and `kill`, to a process in the middle of an experiment."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SLOW = """
import time
def run(trial):
    Path(f"started{trial.seed}").touch()
    if trial.seed == 1 and not Path("go").exists():
        time.sleep(120)
    yield Row("a", "accuracy", trial.seed)
slow = Experiment("demo/slow", "Slow", CLAIM, run, Size(0.1, (0, 1)), Size(0.1))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process alone")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_reports_what_is_done_and_a_rerun_resumes(
    offer: Callable[..., Path], tmp_path: Path, sent: signal.Signals
) -> None:
    site = offer(SLOW, "slow")
    command = [sys.executable, "-m", "eigenworks", "run", "demo"]
    environment = os.environ | {"PYTHONPATH": str(site)}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts what it runs in the background with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "started1").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command goes on from here" in output
    assert "Traceback" not in output
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    slow = next(e for e in data["experiments"] if e["name"] == "demo/slow")
    assert (slow["status"], slow["measured"][0]["values"]) == ("incomplete", {"0": 0.0})

    (tmp_path / "go").touch()
    (tmp_path / "started0").unlink()
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not (tmp_path / "started0").exists()
