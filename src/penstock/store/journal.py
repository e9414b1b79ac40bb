"""The journal at rest: finished LLM calls of jobs that have not ended, as they were answered."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future

import msgspec

from penstock.store.reader import Reader
from penstock.store.writer import Writer


class KeptCall(msgspec.Struct, frozen=True):
    """One answer: the bytes that its caller got."""

    body: bytes
    is_stream: bool


class JournalStore:
    """The table of finished calls. Futures have their result once it is on the disk."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    def find(self, job_id: str, digest: bytes, ordinal: int) -> Future[KeptCall | None]:
        """The answer of the job's call with this digest and ordinal."""

        def query(connection: sqlite3.Connection) -> KeptCall | None:
            row = connection.execute(_FIND, (job_id, digest, ordinal)).fetchone()
            return None if row is None else KeptCall(bytes(row["body"]), bool(row["is_stream"]))

        return self._reader.submit(query)

    def keep(self, job_id: str, digest: bytes, ordinal: int, call: KeptCall) -> Future[None]:
        """Keep an answer; the first one for its place stays, and none for a job that has ended."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                _KEEP,
                {
                    "job_id": job_id,
                    "digest": digest,
                    "ordinal": ordinal,
                    "is_stream": int(call.is_stream),
                    "body": call.body,
                },
            )

        return self._writer.submit(work)


_FIND = "SELECT is_stream, body FROM job_journal WHERE job_id = ? AND digest = ? AND ordinal = ?"
_KEEP = """
    INSERT OR IGNORE INTO job_journal (job_id, digest, ordinal, is_stream, body)
    SELECT :job_id, :digest, :ordinal, :is_stream, :body
    WHERE EXISTS (
        SELECT 1 FROM jobs WHERE job_id = :job_id AND state IN ('pending', 'running'))
"""
