"""Files and batches at rest: what is known of them. Their bytes lie beside the database."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future
from typing import Final

import msgspec

from penstock.store.jobs import Idempotency, claim_key
from penstock.store.reader import Reader
from penstock.store.writer import Writer

OPEN_STATES: Final = ("validating", "in_progress", "finalizing", "cancelling")


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a tenant. Times are Unix seconds."""

    file_id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: float


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One batch. ``moments`` is JSON of when it came to which state, ``errors`` of why it failed.

    The ids of output and error file are given from the start; the files are there at the end.
    """

    batch_id: str
    tenant: str
    key_id: str
    endpoint: str
    input_file_id: str
    output_file_id: str
    error_file_id: str
    window: str
    metadata: bytes
    created_at: float
    expires_at: float
    state: str = "validating"
    moments: bytes = b"{}"
    errors: bytes = b"[]"
    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchStore:
    """The tables of files and batches. Futures have their result once it is on the disk."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    def add_file(self, row: FileRow, idempotency: Idempotency | None) -> Future[FileRow]:
        """Make a file known; where the idempotency key has made one, give that.

        The future raises IdempotencyConflict where the key was used for something else.
        """

        def work(connection: sqlite3.Connection) -> FileRow:
            if idempotency is not None:
                known = claim_key(connection, row.tenant, idempotency, row.file_id, row.created_at)
                found = known and connection.execute(_FILE, (row.tenant, known)).fetchone()
                if found:
                    return _file(found)
            connection.execute(_ADD_FILE, msgspec.structs.asdict(row))
            return row

        return self._writer.submit(work)

    def file(self, tenant: str, file_id: str) -> Future[FileRow | None]:
        """A tenant's file."""

        def query(connection: sqlite3.Connection) -> FileRow | None:
            row = connection.execute(_FILE, (tenant, file_id)).fetchone()
            return None if row is None else _file(row)

        return self._reader.submit(query)

    def files(
        self, tenant: str, purpose: str | None, after: str | None, limit: int
    ) -> Future[list[FileRow]]:
        """A tenant's files, the newest first; ``after`` is the last one of the page before."""
        values = {"tenant": tenant, "purpose": purpose, "after": after, "limit": limit}

        def query(connection: sqlite3.Connection) -> list[FileRow]:
            return [_file(row) for row in connection.execute(_FILES, values)]

        return self._reader.submit(query)

    def bytes_of(self, tenant: str) -> Future[int]:
        """What a tenant's files have together."""

        def query(connection: sqlite3.Connection) -> int:
            return int(connection.execute(_BYTES, (tenant,)).fetchone()[0])

        return self._reader.submit(query)

    def remove_file(self, tenant: str, file_id: str) -> Future[bool]:
        """Forget a file, unless a batch still reads it; whether it is forgotten."""

        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute(_READ_BY, (file_id,)).fetchone() is not None:
                return False
            connection.execute(_REMOVE_FILE, (tenant, file_id))
            return True

        return self._writer.submit(work)

    def ended_files(self, now: float) -> Future[list[FileRow]]:
        """Files past their time."""

        def query(connection: sqlite3.Connection) -> list[FileRow]:
            return [_file(row) for row in connection.execute(_ENDED_FILES, (now,))]

        return self._reader.submit(query)

    def known_ids(self) -> Future[set[str]]:
        """Every file that is known, and those that open batches are writing."""

        def query(connection: sqlite3.Connection) -> set[str]:
            return {row[0] for row in connection.execute(_KNOWN_IDS)}

        return self._reader.submit(query)

    def add_batch(
        self, row: BatchRow, idempotency: Idempotency | None, open_max: int
    ) -> Future[BatchRow | None]:
        """Store a batch; where the idempotency key has made one, give that.

        None where the tenant has ``open_max`` already. The future raises IdempotencyConflict
        where the key was used for something else.
        """

        def work(connection: sqlite3.Connection) -> BatchRow | None:
            if idempotency is not None:
                known = claim_key(connection, row.tenant, idempotency, row.batch_id, row.created_at)
                found = known and connection.execute(_BATCH, (row.tenant, known)).fetchone()
                if found:
                    return _batch(found)
            if connection.execute(_OPEN_COUNT, (row.tenant,)).fetchone()[0] >= open_max:
                connection.execute(_FORGET_KEY, (row.batch_id,))
                return None
            connection.execute(_ADD_BATCH, msgspec.structs.asdict(row))
            return row

        return self._writer.submit(work)

    def batch(self, tenant: str, batch_id: str) -> Future[BatchRow | None]:
        """A tenant's batch."""

        def query(connection: sqlite3.Connection) -> BatchRow | None:
            row = connection.execute(_BATCH, (tenant, batch_id)).fetchone()
            return None if row is None else _batch(row)

        return self._reader.submit(query)

    def batches(self, tenant: str, after: str | None, limit: int) -> Future[list[BatchRow]]:
        """A tenant's batches, the newest first; ``after`` is the last one of the page before."""
        values = {"tenant": tenant, "after": after, "limit": limit}

        def query(connection: sqlite3.Connection) -> list[BatchRow]:
            return [_batch(row) for row in connection.execute(_BATCHES, values)]

        return self._reader.submit(query)

    def open_batches(self) -> Future[list[BatchRow]]:
        """Every batch that has not ended, the earliest deadline first."""

        def query(connection: sqlite3.Connection) -> list[BatchRow]:
            return [_batch(row) for row in connection.execute(_OPEN)]

        return self._reader.submit(query)

    def change(
        self, row: BatchRow, from_states: tuple[str, ...], files: tuple[FileRow, ...] = ()
    ) -> Future[bool]:
        """Store what has become of a batch, with the files that it leaves.

        False, and nothing changed, where it is in none of those states any more.
        """

        def work(connection: sqlite3.Connection) -> bool:
            found = connection.execute(_BATCH, (row.tenant, row.batch_id)).fetchone()
            if found is None or found["state"] not in from_states:
                return False
            connection.execute(_CHANGE, msgspec.structs.asdict(row))
            for file in files:
                connection.execute(_ADD_FILE, msgspec.structs.asdict(file))
            return True

        return self._writer.submit(work)

    def forget_batches(self, created_before: float) -> Future[None]:
        """Forget batches that ended and are old."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_FORGET, (created_before,))

        return self._writer.submit(work)


def _file(row: sqlite3.Row) -> FileRow:
    return FileRow(**{name: row[name] for name in FileRow.__struct_fields__})


def _batch(row: sqlite3.Row) -> BatchRow:
    return BatchRow(**{name: row[name] for name in BatchRow.__struct_fields__})


_ADD_FILE = """
    INSERT OR REPLACE INTO files
    VALUES (:file_id, :tenant, :filename, :purpose, :bytes, :created_at, :expires_at)
"""
_FILE = "SELECT * FROM files WHERE tenant = ? AND file_id = ?"
_FILES = """
    SELECT * FROM files
    WHERE tenant = :tenant AND (:purpose IS NULL OR purpose = :purpose)
      AND (:after IS NULL OR (created_at, file_id) < (
          SELECT created_at, file_id FROM files WHERE tenant = :tenant AND file_id = :after))
    ORDER BY created_at DESC, file_id DESC LIMIT :limit
"""
_BYTES = "SELECT COALESCE(SUM(bytes), 0) FROM files WHERE tenant = ?"
_READ_BY = """
    SELECT 1 FROM batches WHERE input_file_id = ?
    AND state IN ('validating', 'in_progress', 'finalizing', 'cancelling')
"""
_REMOVE_FILE = "DELETE FROM files WHERE tenant = ? AND file_id = ?"
_ENDED_FILES = "SELECT * FROM files WHERE expires_at < ? LIMIT 100"
_KNOWN_IDS = """
    SELECT file_id FROM files UNION SELECT output_file_id FROM batches
    UNION SELECT error_file_id FROM batches
"""
_ADD_BATCH = """
    INSERT INTO batches VALUES (
        :batch_id, :tenant, :key_id, :endpoint, :input_file_id, :output_file_id, :error_file_id,
        :window, :metadata, :created_at, :expires_at, :state, :moments, :errors, :total,
        :completed, :failed)
"""
_BATCH = "SELECT * FROM batches WHERE tenant = ? AND batch_id = ?"
_BATCHES = """
    SELECT * FROM batches
    WHERE tenant = :tenant AND (:after IS NULL OR (created_at, batch_id) < (
        SELECT created_at, batch_id FROM batches WHERE tenant = :tenant AND batch_id = :after))
    ORDER BY created_at DESC, batch_id DESC LIMIT :limit
"""
_OPEN_COUNT = """
    SELECT COUNT(*) FROM batches WHERE tenant = ?
    AND state IN ('validating', 'in_progress', 'finalizing', 'cancelling')
"""
_OPEN = """
    SELECT * FROM batches
    WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling')
    ORDER BY expires_at, created_at
"""
_CHANGE = """
    UPDATE batches SET state = :state, moments = :moments, errors = :errors, total = :total,
                       completed = :completed, failed = :failed
    WHERE tenant = :tenant AND batch_id = :batch_id
"""
_FORGET = """
    DELETE FROM batches WHERE created_at < ?
    AND state NOT IN ('validating', 'in_progress', 'finalizing', 'cancelling')
"""
_FORGET_KEY = "DELETE FROM idempotency WHERE target_id = ?"
