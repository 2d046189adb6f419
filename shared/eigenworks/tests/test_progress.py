"""The estimate of the time left, on a clock that the test moves."""

import io

import pytest
from eigenworks import Claim, Experiment, Row, Size
from eigenworks.progress import Estimate, LiveWatch
from eigenworks.run import Task, work
from rich.console import Console


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_estimate_follows_the_pace_of_what_is_done() -> None:
    clock = Clock()
    estimate = Estimate([10, 10, 20], clock)
    assert estimate.left == 40
    estimate.start()
    clock.now += 4
    assert estimate.left == 36
    clock.now += 16  # twice as long as declared: nothing is left of it, the rest waits
    assert estimate.left == 30
    estimate.end()
    assert estimate.left == 60  # the machine takes twice the declared time
    estimate.start()
    clock.now += 5
    assert estimate.left == 15 + 40
    estimate.report(0.5)
    assert estimate.left == 5 + 40
    estimate.end()
    estimate.start()
    clock.now += 100
    estimate.end()
    assert estimate.left == 0


@pytest.mark.parametrize("terminal", [True, False])
def test_each_unit_leaves_a_line(tmp_path, terminal: bool) -> None:
    def run(trial):
        trial.progress(0.5, "half [way]")
        if trial.seed == 1:
            raise ValueError("no [bold]")
        yield Row("a", "b", 1)

    size = Size(1.0, (0, 1))
    experiment = Experiment("demo/x", "X", Claim("c", "s"), run, size, size)
    tasks = [Task(experiment, "1.0", "quick", seed) for seed in (0, 1)]
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, color_system=None, width=120)
    with LiveWatch(console, tasks) as watch:
        work(tasks, tmp_path, threads=1, machine={}, watch=watch)
    shown = file.getvalue()
    assert "demo/x seed 0" in shown
    assert "ValueError: no [bold]" in shown
    assert "2 to run, by their own word 2.0 s" in shown
    assert "about" in shown
    assert ("2/2" in shown) is terminal
