"""SIGKILL in the middle of each long command: the same again ends as if nothing had been."""

import os
import random
from typing import Any

import pytest

KILLS = 20
QUICK = ("flowfactor train", "eigenworks run")
"""Commands with few imports, of which one case is in the default set."""
COMMANDS = (*QUICK, "asvd compress", "householder-gan finetune", "chemflow optimize")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "kills"),
    [(name, 1) for name in QUICK]
    + [pytest.param(name, KILLS, marks=pytest.mark.slow) for name in COMMANDS],
)
def test_a_rerun_ends_as_an_undisturbed_run(name: str, kills: int, start: Any) -> None:
    """So many times at a moment at random, and as often just after a change of a file."""
    rng = random.Random(f"{name} {kills}")
    server = start(name)
    server.clear()
    whole = server.run()
    assert whole.status == 0, whole.printed
    expected = server.snapshot()
    moments: list[dict[str, Any]] = [
        {"seconds": rng.uniform(0.02, whole.seconds)} for _ in range(kills)
    ]
    moments += [
        {"change": rng.randint(1, whole.changes), "after": rng.uniform(0, 0.003)}
        for _ in range(kills)
    ]
    hit = 0
    for moment in moments:
        server.clear()
        killed = server.run(**moment)
        hit += killed.status < 0
        server.snapshot(unfinished=True)
        again = server.run()
        # What was ready before the process ended need not be taken again.
        ready = again.status == 2 and "must be an empty folder" in again.printed
        assert again.status == 0 or ready, (moment, killed, again.printed)
        found = server.snapshot()
        assert found.keys() == expected.keys(), (moment, killed)
        for file, held in expected.items():
            assert found[file] == held, (moment, killed, file)
        assert server.is_tidy(), (moment, killed)
    # By chance a run can end just before its moment.
    assert hit >= kills
