"""The threads of a worker, in which synchronous chains run: as many as it runs at once.

LangChain runs what is synchronous in the event loop's executor, which is this one. Where all
threads are taken, the most urgent run's work goes first, and less urgent work leaves some free
(``places``): a batch chain with four synchronous branches is not to keep an interactive run from
its one thread. A thread cannot be stopped, so one whose run has been cancelled or has timed out
goes on until its function returns. Those are counted as *overdue*; the front takes them for
places that are taken, and replaces a worker that has lost many.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from penstock.chains.places import PlaceQueue
from penstock.chains.worker.identity import Run, current_run, work_for
from penstock.config.model import ClassTable

T = TypeVar("T")


class _Work:
    """One function to call in a thread, and the run that wants it."""

    def __init__(self, call: Callable[[], Any], run: Run | None) -> None:
        self.call = call
        self.run = run
        self.future: Future[Any] = Future()

    def do(self) -> None:
        """Call it, unless nobody waits for it any more."""
        if not self.future.set_running_or_notify_cancel():
            return
        work_for(self.run)
        try:
            result = self.call()
        except BaseException as error:  # noqa: BLE001 - whoever awaits the future raises it
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Threads(ThreadPoolExecutor):
    """An executor whose threads go to the most urgent run."""

    def __init__(self, threads_max: int, classes: Mapping[str, ClassTable]) -> None:
        super().__init__(threads_max, thread_name_prefix="chain")
        self._threads_max = threads_max
        self._classes = classes
        # What belongs to no run (a host's name to look up) is quick, and holds up many.
        self._first_rank = min((table.rank for table in classes.values()), default=0)
        self._lock = threading.Lock()
        self._waiting: PlaceQueue[_Work] = PlaceQueue(classes.values())
        self._active: set[_Work] = set()

    @property
    def overdue(self) -> int:
        """How many threads still work for a run that is over."""
        with self._lock:
            return sum(1 for work in self._active if work.run is not None and work.run.abandoned)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call ``fn`` in a thread, when it is the turn of the run that asks."""
        run = current_run.get()
        work = _Work(lambda: fn(*args, **kwargs), run)
        with self._lock:
            deadline = None if run is None else run.identity.deadline
            self._waiting.push(self._rank(run), deadline, work)
            self._start_what_may()
        return work.future

    def _rank(self, run: Run | None) -> int:
        table = None if run is None else self._classes.get(run.identity.class_name)
        return self._first_rank if table is None else table.rank

    def _start_what_may(self) -> None:
        while len(self._active) < self._threads_max:
            work = self._waiting.pop(len(self._active), self._threads_max)
            if work is None:
                return
            self._active.add(work)
            super().submit(self._work, work)

    def _work(self, work: _Work) -> None:
        try:
            work.do()
        finally:
            with self._lock:
                self._active.discard(work)
                self._start_what_may()
