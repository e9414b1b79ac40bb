"""Webhooks that are to be delivered: at rest until they are, or nobody wants them any more."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future

import msgspec

from penstock.store.reader import Reader
from penstock.store.writer import Writer


class WebhookRow(msgspec.Struct, frozen=True):
    """One delivery: so many attempts have failed."""

    job_id: str
    tenant: str
    url: str
    attempts: int


class WebhookStore:
    """The table of deliveries. Futures have their result once it is on the disk."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    def due(self, now: float, limit: int) -> Future[list[WebhookRow]]:
        """The deliveries that are due, the oldest first."""

        def query(connection: sqlite3.Connection) -> list[WebhookRow]:
            rows = connection.execute(_DUE, (now, limit))
            return [
                WebhookRow(row["job_id"], row["tenant"], row["url"], row["attempts"])
                for row in rows
            ]

        return self._reader.submit(query)

    def next_due_at(self, now: float) -> Future[float | None]:
        """When the next one is due that is not due yet."""

        def query(connection: sqlite3.Connection) -> float | None:
            found = connection.execute(_NEXT, (now,)).fetchone()[0]
            return None if found is None else float(found)

        return self._reader.submit(query)

    def done(self, job_id: str) -> Future[None]:
        """It was delivered, or is given up."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_DONE, (job_id,))

        return self._writer.submit(work)

    def again(self, job_id: str, due_at: float, error: str) -> Future[None]:
        """It failed, and is due later."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_AGAIN, (due_at, error, job_id))

        return self._writer.submit(work)


_DUE = """
    SELECT job_id, tenant, url, attempts FROM job_webhooks WHERE due_at <= ?
    ORDER BY due_at LIMIT ?
"""
_NEXT = "SELECT MIN(due_at) FROM job_webhooks WHERE due_at > ?"
_DONE = "DELETE FROM job_webhooks WHERE job_id = ?"
_AGAIN = """
    UPDATE job_webhooks SET attempts = attempts + 1, due_at = ?, last_error = ? WHERE job_id = ?
"""
