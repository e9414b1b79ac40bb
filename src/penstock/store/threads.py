"""Threads at rest: a tenant's conversations, what is shown of them and what they are searched by.

Their states are not here: a graph's own saver keeps those. Every statement names the tenant, and
no text from a request is ever part of one: metadata is compared with SQLite's JSON functions.
"""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from penstock.store.reader import Reader
from penstock.store.writer import Writer

THREADS_MAX: Final = 100_000
"""Threads of one tenant."""
METADATA_BYTES_MAX: Final = 64 * 1024
"""Metadata of one thread, all that was added together."""


class Thread(msgspec.Struct, frozen=True):
    """One thread. ``state`` is JSON that its protocol keeps, ``metadata`` a JSON object."""

    thread_id: str
    chain: str
    metadata: bytes
    status: str
    state: bytes
    created_at: float
    updated_at: float


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Which threads are wanted. ``metadata`` is a JSON object whose entries they must have."""

    metadata: bytes = b"{}"
    status: str | None = None
    ids: list[str] | None = None
    sort_by: str = "created_at"
    descending: bool = True
    limit: int = 10
    offset: int = 0


class TooManyThreads(Exception):
    """The tenant has as many threads as it may."""


class TooMuchMetadata(Exception):
    """A thread's metadata would grow over METADATA_BYTES_MAX."""


class ThreadStore:
    """The table of threads. A thread is busy while a run of it has not ended."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    def create(
        self, tenant: str, thread_id: str, metadata: bytes, now: float
    ) -> Future[tuple[Thread, bool]]:
        """Store a thread; where it is there already, that one and False.

        The future raises TooManyThreads.
        """

        def work(connection: sqlite3.Connection) -> tuple[Thread, bool]:
            known = _find(connection, tenant, thread_id)
            if known is not None:
                return known, False
            if connection.execute(_COUNT_ALL, (tenant,)).fetchone()[0] >= THREADS_MAX:
                raise TooManyThreads
            values = (tenant, thread_id, metadata.decode(), now, now)
            connection.execute(_INSERT, values)
            return _certain(connection, tenant, thread_id), True

        return self._writer.submit(work)

    def get(self, tenant: str, thread_id: str) -> Future[Thread | None]:
        """A tenant's thread."""
        return self._reader.submit(lambda connection: _find(connection, tenant, thread_id))

    def search(self, tenant: str, search: Search) -> Future[list[Thread]]:
        """A tenant's threads."""
        statement = _SEARCHES[_COLUMNS[search.sort_by], search.descending]
        values = _values(tenant, search)

        def query(connection: sqlite3.Connection) -> list[Thread]:
            return [_thread(row) for row in connection.execute(statement, values)]

        return self._reader.submit(query)

    def count(self, tenant: str, search: Search) -> Future[int]:
        """How many threads a search finds, whatever its limit."""
        values = _values(tenant, search)

        def query(connection: sqlite3.Connection) -> int:
            return int(connection.execute(_COUNT, values).fetchone()[0])

        return self._reader.submit(query)

    def update(
        self,
        tenant: str,
        thread_id: str,
        now: float,
        *,
        chain: str | None = None,
        metadata: bytes = b"{}",
        status: str | None = None,
        state: bytes | None = None,
    ) -> Future[Thread | None]:
        """Change what is given; ``metadata`` is added to what there is. None: no such thread.

        The future raises TooMuchMetadata.
        """

        def work(connection: sqlite3.Connection) -> Thread | None:
            known = _find(connection, tenant, thread_id)
            if known is None:
                return None
            merged = msgspec.json.encode(
                {**msgspec.json.decode(known.metadata), **msgspec.json.decode(metadata)}
            )
            if len(merged) > METADATA_BYTES_MAX:
                raise TooMuchMetadata
            values = (
                chain if chain is not None else known.chain,
                merged.decode(),
                status or known.status,
                known.state if state is None else state,
                now,
                tenant,
                thread_id,
            )
            connection.execute(_UPDATE, values)
            return _find(connection, tenant, thread_id)

        return self._writer.submit(work)

    def delete(self, tenant: str, thread_id: str) -> Future[None]:
        """Remove a thread, if it is there."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_DELETE, (tenant, thread_id))

        return self._writer.submit(work)


def _values(tenant: str, search: Search) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "metadata": search.metadata.decode(),
        "status": search.status,
        "ids": None if search.ids is None else msgspec.json.encode(search.ids).decode(),
        "limit": search.limit,
        "offset": search.offset,
    }


def _find(connection: sqlite3.Connection, tenant: str, thread_id: str) -> Thread | None:
    row = connection.execute(_ONE, (tenant, thread_id)).fetchone()
    return None if row is None else _thread(row)


def _certain(connection: sqlite3.Connection, tenant: str, thread_id: str) -> Thread:
    return _thread(connection.execute(_ONE, (tenant, thread_id)).fetchone())


def _thread(row: sqlite3.Row) -> Thread:
    return Thread(
        thread_id=row["thread_id"],
        chain=row["chain"],
        metadata=row["metadata"].encode(),
        status=row["status_now"],
        state=bytes(row["state"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


_ROWS = """
    SELECT * FROM (
        SELECT *, CASE WHEN EXISTS (
            SELECT 1 FROM jobs
            WHERE jobs.tenant = threads.tenant AND jobs.thread_id = threads.thread_id
              AND jobs.state IN ('pending', 'running')
        ) THEN 'busy' ELSE status END AS status_now
        FROM threads
    ) AS listed
"""
_SEARCH = (
    _ROWS  # noqa: S608 - of constants
    + """
    WHERE tenant = :tenant
      AND (:status IS NULL OR status_now = :status)
      AND (:ids IS NULL OR thread_id IN (SELECT value FROM json_each(:ids)))
      AND NOT EXISTS (
          SELECT 1 FROM json_each(:metadata) AS wanted
          WHERE NOT EXISTS (SELECT 1 FROM json_each(listed.metadata) AS had
                            WHERE had.key = wanted.key AND had.type = wanted.type
                              AND had.value IS wanted.value))
"""
)
_COLUMNS = {
    "created_at": "created_at",
    "updated_at": "updated_at",
    "thread_id": "thread_id",
    "status": "status_now",
}
_SEARCHES = {
    (column, descending): _SEARCH + f"ORDER BY {column} {'DESC' if descending else 'ASC'}, "
    "thread_id LIMIT :limit OFFSET :offset"
    for column in _COLUMNS.values()
    for descending in (False, True)
}
_COUNT = "SELECT COUNT(*) FROM (" + _SEARCH + ")"  # noqa: S608 - of constants
_COUNT_ALL = "SELECT COUNT(*) FROM threads WHERE tenant = ?"
_ONE = _ROWS + "WHERE tenant = ? AND thread_id = ?"
_INSERT = """
    INSERT INTO threads (tenant, thread_id, metadata, created_at, updated_at)
    VALUES (?, ?, ?, ?, ?)
"""
_UPDATE = """
    UPDATE threads SET chain = ?, metadata = ?, status = ?, state = ?, updated_at = ?
    WHERE tenant = ? AND thread_id = ?
"""
_DELETE = "DELETE FROM threads WHERE tenant = ? AND thread_id = ?"
