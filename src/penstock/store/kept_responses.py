"""Which deployment keeps a response: one small row for each, found by its tenant and its id.

A provider keeps a response for 30 days (OpenAI's guide "Conversation state", read 2026-11), so
longer is of no use; and so many rows at most, some 150 bytes each, the oldest going first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from penstock.store.reader import Reader
from penstock.store.writer import Writer

KEEP_SECONDS: Final = 30 * 86_400.0
ROWS_MAX: Final = 1_000_000
REMOVED_TOGETHER: Final = 1_000
"""Rows that one transaction removes, so that none holds the lock for long: a millisecond or two."""


class KeptRow(NamedTuple):
    """One response. ``kept_at`` is Unix seconds."""

    tenant: str
    response_id: str
    deployment: str
    kept_at: float


class ResponseStore:
    """The table of kept responses. Futures raise StoreError."""

    def __init__(self, writer: Writer, reader: Reader, *, rows_max: int = ROWS_MAX) -> None:
        self._writer = writer
        self._reader = reader
        self._rows_max = rows_max

    def keep(self, rows: Sequence[KeptRow], now: float) -> Future[None]:
        """Write rows, the oldest first, and remove what is too old at ``now`` (Unix seconds)."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_KEEP, rows)
            parameters = (REMOVED_TOGETHER, now - KEEP_SECONDS, self._rows_max)
            connection.execute(_FORGET, parameters)

        return self._writer.submit(work)

    def find(self, tenant: str, response_id: str, now: float) -> Future[str | None]:
        """The deployment that keeps a tenant's response; None where that is not known."""

        def query(connection: sqlite3.Connection) -> str | None:
            found = connection.execute(_FIND, (tenant, response_id, now - KEEP_SECONDS)).fetchone()
            return None if found is None else str(found[0])

        return self._reader.submit(query)


_KEEP = """
    INSERT INTO kept_responses (tenant, response_id, deployment, kept_at) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET deployment = excluded.deployment, kept_at = excluded.kept_at
"""
# Numbers grow with time, so the oldest are found without an index on it.
_FORGET = """
    DELETE FROM kept_responses WHERE number IN (
        SELECT number FROM (SELECT number, kept_at FROM kept_responses ORDER BY number LIMIT ?)
        WHERE kept_at < ? OR number <= (SELECT MAX(number) FROM kept_responses) - ?
    )
"""
_FIND = """
    SELECT deployment FROM kept_responses WHERE tenant = ? AND response_id = ? AND kept_at >= ?
"""
