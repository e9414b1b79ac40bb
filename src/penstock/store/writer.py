"""The one writer of the store: many works in one transaction, each of them alone in its failure.

A commit with a full sync takes milliseconds, a row microseconds, and SQLite has one write lock.
So everything that the service writes goes through one thread: what has been submitted while it
was committing makes up the next transaction (group commit). Each work stands in a savepoint of
its own, so that one which fails leaves the others as they are; nobody is told of success before
the commit. With several writers instead, the longest commits take a hundred times as long.

The database is opened by the thread at the first work, and again when its file was replaced.
Commands in other processes write beside it in short transactions, under SQLite's own lock.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from penstock.errors import StoreError
from penstock.store.database import LateDatabase, words

WORKS_WAITING_MAX: Final = 10_000
WORKS_TOGETHER_MAX: Final = 500
"""Works of one transaction: bounds how long commands wait for the lock, some 50 ms."""

_T = TypeVar("_T")
_Item: TypeAlias = tuple[Callable[[sqlite3.Connection], Any], "Future[Any]"]


class Writer:
    """Writes to the database in ``file`` from a thread of its own, until ``close``."""

    def __init__(self, file: Path, *, works_waiting_max: int = WORKS_WAITING_MAX) -> None:
        self._database = LateDatabase(file)
        self._queue: queue.Queue[_Item | None] = queue.Queue()
        self._waiting_max = works_waiting_max
        self._closing = threading.Lock()
        self._is_closed = False
        # A daemon, so that a process which fails before it closes its writer still ends.
        self._thread = threading.Thread(target=self._run, name="penstock-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], _T]) -> Future[_T]:
        """Have ``work`` done in a transaction; never blocks.

        The future has its result once that is on the disk. It raises what ``work`` raised, whose
        changes are then undone, or StoreError where the database failed. ``work`` runs in the
        writer's thread, begins and ends no transaction, and must be quick.
        Raises StoreError where too many wait already, or after ``close``.
        """
        future: Future[_T] = Future()
        with self._closing:
            if self._is_closed:
                raise StoreError(f"{self._database.file}: the store is closed")
            if self._queue.qsize() >= self._waiting_max:
                raise StoreError(
                    f"{self._database.file}: the store falls behind, {self._waiting_max} changes "
                    "wait for it; try again in a moment, and see whether its disk is slow"
                )
            self._queue.put((work, future))
        return future

    def close(self) -> None:
        """Take no more work, finish what was submitted, close the database."""
        with self._closing:
            if not self._is_closed:
                self._queue.put(None)
            self._is_closed = True
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch: list[_Item] = []
            item = self._queue.get()
            while item is not None:
                # A caller that has cancelled meanwhile does not want it done.
                if item[1].set_running_or_notify_cancel():
                    batch.append(item)
                if len(batch) >= WORKS_TOGETHER_MAX:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            is_open = item is not None
            if batch:
                self._write(batch)
        self._database.close()

    def _write(self, batch: list[_Item]) -> None:
        """One transaction; then, and only then, everybody is told."""
        done: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            with self._database.opened().write() as connection:
                for work, future in batch:
                    done.append((future, *_carry_out(work, connection)))
        except StoreError as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for future, result, failure in done:
            if failure is None:
                future.set_result(result)
            elif isinstance(failure, sqlite3.Error):
                future.set_exception(self._worded(failure))
            else:
                future.set_exception(failure)

    def _worded(self, failure: sqlite3.Error) -> StoreError:
        error = StoreError(f"{self._database.file}: {words(failure)}")
        error.__cause__ = failure
        return error


def _carry_out(
    work: Callable[[sqlite3.Connection], Any], connection: sqlite3.Connection
) -> tuple[Any, Exception | None]:
    """A work's result or failure; a failed one has changed nothing.

    Raises where SQLite has given up the whole transaction, as it does on a full disk.
    """
    connection.execute("SAVEPOINT work")
    try:
        result = work(connection)
    except Exception as failure:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        return None, failure
    connection.execute("RELEASE work")
    return result, None
