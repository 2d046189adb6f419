"""Work in other processes, in order, with a bounded number of pieces under way."""

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")


_PATIENCE = 200
"""Pieces that may wait in this process for others to start."""


def _context() -> BaseContext:
    """Processes that do not copy this one: a fork with threads of torch in it may hang."""
    if "forkserver" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["chemflow.scoring"])  # imported once, for all workers
    return context


class Pool:
    """`workers` processes, or this one alone for 1.

    A script that asks for more than one needs `if __name__ == "__main__":`, as for every pool of
    Python's that does not fork.
    """

    def __init__(
        self,
        workers: int = 1,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers
        # Without what an initializer prepares, this process can do a piece as well as another.
        self._helps = initializer is None
        self._executor: ProcessPoolExecutor | None = None
        if workers > 1:
            self._executor = ProcessPoolExecutor(workers, _context(), initializer, initargs)
        elif initializer is not None:
            initializer(*initargs)

    def map(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
        """The results in the order of the pieces; pieces are taken only as they are needed."""
        if self._executor is None:
            yield from map(work, pieces)
            return
        under_way: deque[Future[Result]] = deque()
        try:
            for piece in pieces:
                if self._helps and len(under_way) > self.workers and not self._started(under_way):
                    # Processes that are still importing: this one need not wait for them.
                    here: Future[Result] = Future()
                    here.set_result(work(piece))
                    under_way.append(here)
                    continue
                under_way.append(self._executor.submit(work, piece))
                while len(under_way) > 2 * self.workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()

    def _started(self, under_way: "deque[Future[Any]]") -> bool:
        """Whether the processes have given anything yet; or so much waits that they must."""
        if under_way[0].done() or len(under_way) > _PATIENCE:
            self._helps = False
        return not self._helps

    def close(self) -> None:
        """Ends the processes. Twice is once."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
            self.workers = 1

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
