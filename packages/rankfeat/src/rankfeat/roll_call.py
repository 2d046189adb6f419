"""Which processes are gone, told where a collective of torch.distributed fails."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

WAIT = 10.0
"""Seconds for the others to answer, who may notice later; at most half the group's timeout, so that
an error comes within one and a half times that."""


class LostProcessError(RuntimeError):
    """A collective failed; the message names the processes that do not answer."""


@contextmanager
def roll_call(what: str, group: "dist.ProcessGroup | None" = None) -> Generator[None]:
    """While it lasts, an error of a collective becomes one that says which process is missing.

    The backend knows a broken connection or that nothing came in time, and not from whom. Who
    fails leaves a note in the store of the group and looks for those of the others. One that
    lives, but has not noticed within that time, is named beside the one that is lost.

    Raises LostProcessError.
    """
    try:
        yield
    except LostProcessError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise LostProcessError(f"{what}: {_missing(group)} ({reason})") from error


def _missing(group: "dist.ProcessGroup | None") -> str:
    chosen = dist.group.WORLD if group is None else group
    assert chosen is not None
    ranks = dist.get_process_group_ranks(chosen)
    me = dist.get_rank(chosen)
    try:
        store: Any = chosen.get_group_store()
        store.set(f"roll call/{me}", "here")
        wait = min(WAIT, store.timeout.total_seconds() / 2)
        end = time.monotonic() + wait
        others = [r for r in range(len(ranks)) if r != me]
        while True:
            others = [r for r in others if not store.check([f"roll call/{r}"])]
            if not others:
                return "all processes are there, but the collective failed in each"
            if time.monotonic() > end:
                break
            time.sleep(0.05)
    except RuntimeError:
        return (
            "process 0 does not answer, or torchrun where that started the processes: "
            "the store of the group, which it keeps, is gone"
        )
    names = ", ".join(str(ranks[r]) for r in others)
    return f"process {names} of {len(ranks)} died or does not answer"
