"""Queries off the event loop, beside the writer: WAL gives each a state as it was at one moment.

One thread with a connection that cannot write. A query that takes too long is given up, so that
whoever asks for a year of rows does not keep out who asks for the last hour.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from penstock.store.database import LateDatabase

QUERY_SECONDS_MAX: Final = 30.0
_STEPS_BETWEEN_CHECKS: Final = 100_000
"""Instructions of SQLite's machine after which the time is looked at: about a millisecond."""

_T = TypeVar("_T")


class Reader:
    """Reads the database in ``file`` from a thread of its own, until ``close``."""

    def __init__(self, file: Path, *, query_seconds_max: float = QUERY_SECONDS_MAX) -> None:
        self._seconds_max = query_seconds_max
        self._database = LateDatabase(file, reads_only=True)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="penstock-reader")

    def submit(self, query: Callable[[sqlite3.Connection], _T]) -> Future[_T]:
        """Have ``query`` answered in the reader's thread.

        The future raises StoreError where the database failed or the query took too long.
        """
        return self._threads.submit(self._answer, query)

    def close(self) -> None:
        """Answer what was asked, and close the database."""
        self._threads.shutdown(cancel_futures=True)
        self._database.close()

    def _answer(self, query: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._database.opened().read() as connection:
            ends_at = time.monotonic() + self._seconds_max
            connection.set_progress_handler(
                lambda: time.monotonic() > ends_at, _STEPS_BETWEEN_CHECKS
            )
            connection.execute("BEGIN")
            try:
                return query(connection)
            finally:
                connection.set_progress_handler(None, 0)
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
