"""The description of the machine, and which distributions are members."""

import json
from pathlib import Path

import pytest
from eigenworks import machine


def test_description_is_plain_and_names_what_matters() -> None:
    described = machine.describe(threads=3)
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert described["threads"] == 3
    assert described["cpu"]
    assert described["cores"] >= 1
    assert described["packages"]["eigenworks"]
    assert described["libraries"]["torch"]


def test_members_are_this_workspace_and_no_other_library() -> None:
    names = set(machine.members())
    assert "eigenworks" in names
    assert not names & {"torch", "numpy", "rich", "pytest"}


def test_member_describes_itself_and_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        def __init__(self, name: str, value: object) -> None:
            self.name, self.value = name, value

        def load(self):
            if isinstance(self.value, Exception):
                raise self.value
            return lambda: self.value

    points = [Point("kernels", Path("native.so")), Point("other", OSError("no library"))]

    def entry_points(group: str) -> list[Point]:
        return points if group == "eigenworks.machine" else []

    monkeypatch.setattr(machine, "entry_points", entry_points)
    described = machine.describe(threads=1)
    assert described["kernels"] == "native.so"
    assert described["other"] == "OSError: no library"
