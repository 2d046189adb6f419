"""One call of an experiment: what becomes of what it yields, raises or asks for."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from eigenworks import Claim, Experiment, Row, Size, Trial
from eigenworks.run import Task, run_task, tasks_of
from eigenworks.store import Unit

Run = Callable[[Trial], Iterator[Row]]


def task(run: Run, seed: int = 0, **parameters) -> Task:
    size = Size(1.0, (0, 1, 2), parameters)
    return Task(Experiment("demo/x", "X", Claim("c", "s"), run, size, size), "1.0", "quick", seed)


def call(run: Run, seed: int = 0, threads: int = 1, **parameters) -> Unit:
    return run_task(
        task(run, seed, **parameters), threads=threads, machine={}, progress=lambda *_: None
    )


def test_rows_parameters_and_seed_arrive() -> None:
    def run(trial: Trial) -> Iterator[Row]:
        yield Row("a", "m", trial.parameters["n"] + trial.seed)
        yield Row("b", "m", 2)

    unit = call(run, seed=2, n=40, names=("x", "y"))
    assert unit.status == "done"
    assert [(row.label, row.value) for row in unit.rows] == [("a", 42.0), ("b", 2.0)]
    assert unit.parameters == {"n": 40, "names": ["x", "y"]}


@pytest.mark.parametrize(
    ("thing", "error"),
    [
        (ValueError("no"), "ValueError: no"),
        (SystemExit(3), "SystemExit: 3"),
        (torch.linalg.LinAlgError("element 3"), "element 3"),
    ],
)
def test_what_is_raised_is_kept_with_its_traceback(thing: BaseException, error: str) -> None:
    def run(trial: Trial) -> Iterator[Row]:
        yield Row("a", "m", trial.seed)
        raise thing

    unit = call(run)
    assert unit.status == "failed"
    assert error in unit.error
    assert "raise thing" in unit.traceback
    assert len(unit.rows) == 1


def test_keyboard_interrupt_passes_through() -> None:
    def run(trial: Trial) -> Iterator[Row]:
        yield Row("a", "m", trial.seed)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(run)


@pytest.mark.parametrize(
    ("yielded", "error"),
    [
        ([], "ValueError: demo/x yielded no rows"),
        (["a"], "TypeError: an experiment must yield eigenworks.Row, got str"),
        ([Row("a", "m", 1), Row("a", "m", 2)], "row 'a' (m) was yielded twice"),
    ],
)
def test_what_is_not_a_result_fails(yielded: list, error: str) -> None:
    unit = call(lambda _: iter(yielded))
    assert unit.status == "failed"
    assert error in unit.error


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_fails(value: float) -> None:
    unit = call(lambda _: (Row("a", "loss", v) for v in [value]))
    assert "value of row 'a' (loss) must be finite" in unit.error


def test_seed_fixes_every_global_generator() -> None:
    def run(_: Trial) -> Iterator[Row]:
        yield Row("torch", "", torch.rand(()).item())
        yield Row("numpy", "", np.random.random())  # noqa: NPY002
        yield Row("python", "", random.random())

    first, again, other = ([row.value for row in call(run, seed=seed).rows] for seed in (1, 1, 2))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        unit = call(
            lambda t: iter([Row("a", "", torch.get_num_threads() + 10 * t.threads)]), threads=2
        )
        assert unit.rows[0].value == 22
    finally:
        torch.set_num_threads(before)


def test_progress_is_passed_on_and_checked() -> None:
    told = []

    def run(trial: Trial) -> Iterator[Row]:
        trial.progress(0.5, "half")
        yield Row("a", "", 1)
        trial.progress(1.5, "too far")

    unit = run_task(task(run), threads=1, machine={}, progress=lambda *a: told.append(a))
    assert told == [(0.5, "half")]
    assert "fraction must be between 0 and 1, got 1.5" in unit.error


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [((0, 1), None, [0, 1]), ((0, 1), (5, 6, 7), [5, 6, 7]), ((), None, [0]), ((), (5, 6), [0])],
)
def test_seeds_of_a_run(own, asked, expected) -> None:
    size = Size(1.0, own)
    experiment = Experiment("demo/x", "X", Claim("c", "s"), lambda _: [], size, size)
    assert [t.seed for t in tasks_of(experiment, "1.0", "full", asked)] == expected


@pytest.mark.parametrize(
    ("version", "release", "n", "answers"),
    [(1, "1.0", 40, True), (2, "1.0", 40, False), (1, "1.1", 40, False), (1, "1.0", 41, False)],
)
def test_stored_unit_answers_for_the_same_question_only(version, release, n, answers) -> None:
    unit = call(lambda _: iter([Row("a", "", 1)]), n=40, names=("x",))
    size = Size(1.0, (0,), {"n": n, "names": ("x",)})
    experiment = Experiment(
        "demo/x", "X", Claim("c", "s"), lambda _: [], size, size, version=version
    )
    assert Task(experiment, release, "quick", 0).answered_by(unit) is answers


def test_importing_the_protocol_imports_no_torch() -> None:
    code = (
        "import sys, eigenworks, eigenworks.cli\n"
        "print({'torch', 'numpy', 'jinja2', 'rich.progress'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["demo", "demo/", "/x", "a/b/c"])
def test_name_is_package_and_experiment(name: str) -> None:
    size = Size(1.0)
    with pytest.raises(ValueError, match="name must be '<package>/<experiment>'"):
        Experiment(name, "X", Claim("c", "s"), lambda _: [], size, size)


def test_size_refuses_equal_seeds_and_no_time() -> None:
    with pytest.raises(ValueError, match="seeds must differ"):
        Size(1.0, (1, 1))
    with pytest.raises(ValueError, match="seconds must be > 0, got 0"):
        Size(0)
