"""Durable runs at rest. Every change is one work of the one writer; queries go to the reader.

Methods give futures, which have their result once it is on the disk. Nothing is decided here:
states, delays and reasons come from ``jobs/``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from penstock.store.job_schema import NEVER
from penstock.store.reader import Reader
from penstock.store.writer import Writer

PURGED_TOGETHER_MAX: Final = 100
"""Jobs that one work removes: the writer's other works wait meanwhile."""
GIVEN_BACK_TOGETHER_MAX: Final = 1000
"""The same of those that ran for another process: some 50 ms."""


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored when a job is accepted. ``details`` is its protocol's own JSON."""

    job_id: str
    tenant: str
    key_id: str
    kind: str
    chain: str
    path: str
    class_name: str
    rank: int
    body: bytes
    created_at: float
    due_at: float
    deadline: float | None = None
    thread_id: str | None = None
    details: bytes = b"{}"
    webhook: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One durable run as it stands. ``attempts`` counts those begun, the present one too."""

    job_id: str
    tenant: str
    key_id: str
    kind: str
    chain: str
    path: str
    class_name: str
    rank: int
    thread_id: str | None
    details: bytes
    body_bytes: int
    created_at: float
    due_at: float
    deadline: float | None
    state: str
    attempts: int
    blame: int
    journaled: int
    cancel_requested: bool
    started_at: float | None
    finished_at: float | None
    status: int | None
    error_code: str | None
    error_message: str | None
    events_lost: bool


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended. ``result`` is a body and its content type."""

    state: str
    status: int | None = None
    result: tuple[str, bytes] | None = None
    error_code: str | None = None
    error_message: str | None = None


class Event(msgspec.Struct, frozen=True):
    """One event of a job's stream; ``sequence`` counts from 1 over all its attempts."""

    sequence: int
    name: str | None
    data: bytes


class Idempotency(msgspec.Struct, frozen=True):
    """A caller's key for one creation, and the digest of what it asked."""

    key: str
    digest: bytes


class IdempotencyConflict(Exception):
    """The key was used for something else."""


class JobStore:
    """The tables of durable runs."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    def create(self, new: NewJob, idempotency: Idempotency | None) -> Future[tuple[Job, bool]]:
        """Store a job; where the idempotency key is known, give the first one and False.

        The future raises IdempotencyConflict where the key was used for something else.
        """

        def work(connection: sqlite3.Connection) -> tuple[Job, bool]:
            if idempotency is not None:
                known = claim_key(connection, new.tenant, idempotency, new.job_id, new.created_at)
                row = known and connection.execute(_ONE, (new.tenant, known)).fetchone()
                if row:
                    return _job(row), False
            _insert(connection, new)
            return _job(connection.execute(_ONE, (new.tenant, new.job_id)).fetchone()), True

        return self._writer.submit(work)

    def get(self, tenant: str, job_id: str) -> Future[Job | None]:
        """A tenant's job."""

        def query(connection: sqlite3.Connection) -> Job | None:
            row = connection.execute(_ONE, (tenant, job_id)).fetchone()
            return None if row is None else _job(row)

        return self._reader.submit(query)

    def page(
        self,
        tenant: str,
        *,
        kind: str | None = None,
        thread_id: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 20,
    ) -> Future[list[Job]]:
        """A tenant's jobs, the newest first; ``before`` is the last job of the page before."""
        values = {
            "tenant": tenant,
            "kind": kind,
            "thread_id": thread_id,
            "state": state,
            "before": before,
            "limit": limit,
        }

        def query(connection: sqlite3.Connection) -> list[Job]:
            return [_job(row) for row in connection.execute(_LIST, values)]

        return self._reader.submit(query)

    def body(self, job_id: str) -> Future[bytes]:
        """What the job was asked; empty once it has ended."""

        def query(connection: sqlite3.Connection) -> bytes:
            row = connection.execute(_BODY, (job_id,)).fetchone()
            return b"" if row is None else bytes(row["body"])

        return self._reader.submit(query)

    def result(self, job_id: str) -> Future[tuple[str, bytes] | None]:
        """The content type and body of what the job gave."""

        def query(connection: sqlite3.Connection) -> tuple[str, bytes] | None:
            row = connection.execute(_RESULT, (job_id,)).fetchone()
            return None if row is None else (row["content_type"], bytes(row["body"]))

        return self._reader.submit(query)

    def open_by_tenant(self, created_before: float) -> Future[dict[str, tuple[int, int]]]:
        """How many older jobs each tenant has that have not ended, and the bytes they hold."""

        def query(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
            rows = connection.execute(_OPEN, (created_before,)).fetchall()
            return {row["tenant"]: (row["jobs"], row["bytes"]) for row in rows}

        return self._reader.submit(query)

    def claim(self, owner: str, rank: int, count: int, now: float) -> Future[list[Job]]:
        """Start up to ``count`` jobs of one rank: by deadline, then by arrival.

        Of one thread only one runs at a time, in order of arrival.
        """

        def work(connection: sqlite3.Connection) -> list[Job]:
            values = {"rank": rank, "now": now, "count": count, "owner": owner}
            ids = [row["job_id"] for row in connection.execute(_CLAIMABLE, values)]
            connection.executemany(_CLAIM, [(owner, now, job_id) for job_id in ids])
            return [_job(connection.execute(_ANY, (job_id,)).fetchone()) for job_id in ids]

        return self._writer.submit(work)

    def next_due_at(self, now: float) -> Future[float | None]:
        """When the next pending job is due that is not due yet."""

        def query(connection: sqlite3.Connection) -> float | None:
            found = connection.execute(_NEXT_DUE, (now,)).fetchone()[0]
            return None if found is None else float(found)

        return self._reader.submit(query)

    def give_back(self, owner: str, state: str, now: float) -> Future[int]:
        """Bring some of the jobs that run for another owner to that state; how many they were."""

        def work(connection: sqlite3.Connection) -> int:
            values = (state, now, owner, GIVEN_BACK_TOGETHER_MAX)
            return connection.execute(_GIVE_BACK, values).rowcount

        return self._writer.submit(work)

    def journaled(self, job_id: str) -> Future[int]:
        """How many finished calls of the job the journal holds, all that was submitted included."""

        def work(connection: sqlite3.Connection) -> int:
            return int(connection.execute(_JOURNALED, (job_id,)).fetchone()[0])

        return self._writer.submit(work)

    def again(self, job_id: str, *, due_at: float, blame: int, journaled: int) -> Future[None]:
        """A running job is pending again."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_AGAIN, (due_at, blame, journaled, job_id))

        return self._writer.submit(work)

    def request_cancel(self, tenant: str, job_id: str) -> Future[None]:
        """Note that a running job is to be cancelled, also by the next process that has it."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_REQUEST_CANCEL, (tenant, job_id))

        return self._writer.submit(work)

    def finish(
        self, job_id: str, from_state: str, finish: Finish, now: float
    ) -> Future[Job | None]:
        """End a job for ever, with its result; None where it is not in that state any more."""

        def work(connection: sqlite3.Connection) -> Job | None:
            changed = connection.execute(
                _FINISH,
                {
                    "job_id": job_id,
                    "from_state": from_state,
                    "state": finish.state,
                    "now": now,
                    "status": finish.status,
                    "error_code": finish.error_code,
                    "error_message": finish.error_message,
                },
            )
            if not changed.rowcount:
                return None
            if finish.result is not None:
                connection.execute(_INSERT_RESULT, (job_id, *finish.result))
            # Neither will be asked for again: no attempt follows.
            connection.execute(_DELETE_BODY, (job_id,))
            connection.execute(_DELETE_JOURNAL, (job_id,))
            connection.execute(_WEBHOOK_DUE, (now, job_id))
            return _job(connection.execute(_ANY, (job_id,)).fetchone())

        return self._writer.submit(work)

    def delete(self, tenant: str, job_id: str) -> Future[bool]:
        """Remove a job that has ended, and all that belongs to it; whether it was there."""

        def work(connection: sqlite3.Connection) -> bool:
            if not connection.execute(_DELETE, (tenant, job_id)).rowcount:
                return False
            _delete_parts(connection, job_id)
            return True

        return self._writer.submit(work)

    def purge(self, finished_before: float) -> Future[int]:
        """Remove some of the jobs that ended before that; how many they were."""

        def work(connection: sqlite3.Connection) -> int:
            rows = connection.execute(_OLD, (finished_before, PURGED_TOGETHER_MAX)).fetchall()
            for row in rows:
                connection.execute(_DELETE, (row["tenant"], row["job_id"]))
                _delete_parts(connection, row["job_id"])
            connection.execute(_OLD_KEYS, (finished_before,))
            return len(rows)

        return self._writer.submit(work)

    def append_events(
        self, job_id: str, events: Sequence[Event], *, events_lost: bool = False
    ) -> Future[None]:
        """Keep what a job said."""

        def work(connection: sqlite3.Connection) -> None:
            rows = [(job_id, one.sequence, one.name, one.data) for one in events]
            connection.executemany(_INSERT_EVENT, rows)
            if events_lost:
                connection.execute(_EVENTS_LOST, (job_id,))

        return self._writer.submit(work)

    def events(self, job_id: str, after: int, limit: int) -> Future[list[Event]]:
        """The events behind sequence number ``after``."""

        def query(connection: sqlite3.Connection) -> list[Event]:
            rows = connection.execute(_EVENTS, (job_id, after, limit))
            return [Event(row["sequence"], row["name"], bytes(row["data"])) for row in rows]

        return self._reader.submit(query)

    def last_event(self, job_id: str) -> Future[tuple[int, int]]:
        """The last sequence number, and the bytes of all events."""

        def query(connection: sqlite3.Connection) -> tuple[int, int]:
            row = connection.execute(_LAST_EVENT, (job_id,)).fetchone()
            return int(row["last"]), int(row["bytes"])

        return self._reader.submit(query)


def claim_key(
    connection: sqlite3.Connection,
    tenant: str,
    idempotency: Idempotency,
    target_id: str,
    now: float,
) -> str | None:
    """What the key has made already; None where it is new, and then stands for ``target_id``.

    Raises IdempotencyConflict where it was used for something else.
    """
    row = connection.execute(_KEY, (tenant, idempotency.key)).fetchone()
    if row is None:
        values = (tenant, idempotency.key, idempotency.digest, target_id, now)
        connection.execute(_INSERT_KEY, values)
        return None
    if bytes(row["digest"]) != idempotency.digest:
        raise IdempotencyConflict
    return str(row["target_id"])


def _insert(connection: sqlite3.Connection, new: NewJob) -> None:
    values: dict[str, Any] = {
        name: getattr(new, name) for name in new.__struct_fields__ if name != "body"
    }
    values["deadline"] = NEVER if new.deadline is None else new.deadline
    values["body_bytes"] = len(new.body)
    connection.execute(_INSERT, values)
    connection.execute(_INSERT_BODY, (new.job_id, new.body))
    if new.webhook is not None:
        connection.execute(_INSERT_WEBHOOK, (new.job_id, new.tenant, new.webhook))


def _delete_parts(connection: sqlite3.Connection, job_id: str) -> None:
    for statement in (
        _DELETE_BODY,
        _DELETE_RESULT,
        _DELETE_EVENTS,
        _DELETE_JOURNAL,
        _DELETE_WEBHOOK,
        _DELETE_KEY,
    ):
        connection.execute(statement, (job_id,))


def _job(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in Job.__struct_fields__}
    if values["deadline"] >= NEVER:
        values["deadline"] = None
    for name in ("cancel_requested", "events_lost"):
        values[name] = bool(values[name])
    return Job(**values)


_INSERT = """
    INSERT INTO jobs (job_id, tenant, key_id, kind, chain, path, class_name, rank, thread_id,
                      details, body_bytes, created_at, due_at, deadline, state)
    VALUES (:job_id, :tenant, :key_id, :kind, :chain, :path, :class_name, :rank, :thread_id,
            :details, :body_bytes, :created_at, :due_at, :deadline, 'pending')
"""
_INSERT_BODY = "INSERT INTO job_bodies VALUES (?, ?)"
_INSERT_RESULT = "INSERT OR REPLACE INTO job_results VALUES (?, ?, ?)"
_INSERT_EVENT = "INSERT OR IGNORE INTO job_events VALUES (?, ?, ?, ?)"
_INSERT_WEBHOOK = "INSERT INTO job_webhooks (job_id, tenant, url) VALUES (?, ?, ?)"
_INSERT_KEY = "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)"
_KEY = "SELECT digest, target_id FROM idempotency WHERE tenant = ? AND key = ?"
_ONE = "SELECT * FROM jobs WHERE tenant = ? AND job_id = ?"
_ANY = "SELECT * FROM jobs WHERE job_id = ?"
_LIST = """
    SELECT * FROM jobs
    WHERE tenant = :tenant
      AND (:kind IS NULL OR kind = :kind)
      AND (:thread_id IS NULL OR thread_id = :thread_id)
      AND (:state IS NULL OR state = :state)
      AND (:before IS NULL OR (created_at, job_id) < (
          SELECT created_at, job_id FROM jobs WHERE tenant = :tenant AND job_id = :before))
    ORDER BY created_at DESC, job_id DESC
    LIMIT :limit
"""
_BODY = "SELECT body FROM job_bodies WHERE job_id = ?"
_RESULT = "SELECT content_type, body FROM job_results WHERE job_id = ?"
_OPEN = """
    SELECT tenant, COUNT(*) AS jobs, SUM(body_bytes) AS bytes FROM jobs
    WHERE state IN ('pending', 'running') AND created_at < ? GROUP BY tenant
"""
_CLAIMABLE = """
    SELECT job_id FROM jobs
    WHERE state = 'pending' AND rank = :rank AND due_at <= :now
      AND (thread_id IS NULL OR NOT EXISTS (
          SELECT 1 FROM jobs AS other
          WHERE other.tenant = jobs.tenant AND other.thread_id = jobs.thread_id
            AND (other.state = 'running'
                 OR (other.state = 'pending'
                     AND (other.created_at, other.job_id) < (jobs.created_at, jobs.job_id)))))
    ORDER BY deadline, created_at
    LIMIT :count
"""
_CLAIM = """
    UPDATE jobs SET state = 'running', attempts = attempts + 1, owner = ?, started_at = ?
    WHERE job_id = ?
"""
_NEXT_DUE = "SELECT MIN(due_at) FROM jobs WHERE state = 'pending' AND due_at > ?"
_GIVE_BACK = """
    UPDATE jobs SET state = ?, owner = NULL, due_at = ?
    WHERE job_id IN (SELECT job_id FROM jobs WHERE state = 'running' AND owner != ? LIMIT ?)
"""
_JOURNALED = "SELECT COUNT(*) FROM job_journal WHERE job_id = ?"
_AGAIN = """
    UPDATE jobs SET state = 'pending', owner = NULL, due_at = ?, blame = ?,
                    journaled = ?
    WHERE job_id = ? AND state = 'running'
"""
_REQUEST_CANCEL = "UPDATE jobs SET cancel_requested = 1 WHERE tenant = ? AND job_id = ?"
_FINISH = """
    UPDATE jobs SET state = :state, owner = NULL, finished_at = :now, status = :status,
                    error_code = :error_code, error_message = :error_message
    WHERE job_id = :job_id AND state = :from_state
"""
_WEBHOOK_DUE = "UPDATE job_webhooks SET due_at = ? WHERE job_id = ?"
_DELETE = """
    DELETE FROM jobs WHERE tenant = ? AND job_id = ? AND state NOT IN ('pending', 'running')
"""
_DELETE_BODY = "DELETE FROM job_bodies WHERE job_id = ?"
_DELETE_RESULT = "DELETE FROM job_results WHERE job_id = ?"
_DELETE_EVENTS = "DELETE FROM job_events WHERE job_id = ?"
_DELETE_JOURNAL = "DELETE FROM job_journal WHERE job_id = ?"
_DELETE_WEBHOOK = "DELETE FROM job_webhooks WHERE job_id = ?"
_DELETE_KEY = "DELETE FROM idempotency WHERE target_id = ?"
_OLD = "SELECT tenant, job_id FROM jobs WHERE finished_at < ? LIMIT ?"
_OLD_KEYS = """
    DELETE FROM idempotency WHERE created_at < ?
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.job_id = idempotency.target_id)
"""
_EVENTS = """
    SELECT sequence, name, data FROM job_events
    WHERE job_id = ? AND sequence > ? ORDER BY sequence LIMIT ?
"""
_LAST_EVENT = """
    SELECT COALESCE(MAX(sequence), 0) AS last, COALESCE(SUM(LENGTH(data)), 0) AS bytes
    FROM job_events WHERE job_id = ?
"""
_EVENTS_LOST = "UPDATE jobs SET events_lost = 1 WHERE job_id = ?"
