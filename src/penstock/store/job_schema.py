"""The tables of durable runs: jobs, what they were asked, gave and said on the way, the journal.

What is large stands in tables of its own, so that a list of jobs reads none of it. Times are
Unix seconds; ``deadline`` is ``NEVER`` where there is none, so that one index gives the order
in which jobs start.
"""

from __future__ import annotations

from typing import Final

NEVER: Final = 1e12
"""A deadline that does not come: in some thirty thousand years."""

JOB_TABLES: Final = (
    """
    CREATE TABLE jobs (
        job_id             TEXT PRIMARY KEY,
        tenant             TEXT NOT NULL,
        key_id             TEXT NOT NULL,
        kind               TEXT NOT NULL,
        chain              TEXT NOT NULL,
        path               TEXT NOT NULL,
        class_name         TEXT NOT NULL,
        rank               INTEGER NOT NULL,
        thread_id          TEXT,
        details            BLOB NOT NULL,
        body_bytes         INTEGER NOT NULL,
        created_at         REAL NOT NULL,
        due_at             REAL NOT NULL,
        deadline           REAL NOT NULL,
        state              TEXT NOT NULL,
        attempts           INTEGER NOT NULL DEFAULT 0,
        attempts_fruitless INTEGER NOT NULL DEFAULT 0,
        journaled          INTEGER NOT NULL DEFAULT 0,
        owner              TEXT,
        cancel_requested   INTEGER NOT NULL DEFAULT 0,
        started_at         REAL,
        finished_at        REAL,
        status             INTEGER,
        error_code         TEXT,
        error_message      TEXT,
        events_lost        INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE INDEX jobs_startable ON jobs (rank, deadline, created_at)
    WHERE state = 'pending'
    """,
    "CREATE INDEX jobs_running ON jobs (owner) WHERE state = 'running'",
    "CREATE INDEX jobs_of_tenant ON jobs (tenant, created_at, job_id)",
    """
    CREATE INDEX jobs_of_thread ON jobs (tenant, thread_id, created_at)
    WHERE thread_id IS NOT NULL
    """,
    "CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL",
    "CREATE TABLE job_bodies (job_id TEXT PRIMARY KEY, body BLOB NOT NULL)",
    """
    CREATE TABLE job_results (
        job_id TEXT PRIMARY KEY, content_type TEXT NOT NULL, body BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE job_events (
        job_id   TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        name     TEXT,
        data     BLOB NOT NULL,
        PRIMARY KEY (job_id, sequence)
    )
    """,
    """
    CREATE TABLE job_journal (
        job_id      TEXT NOT NULL,
        digest      BLOB NOT NULL,
        ordinal     INTEGER NOT NULL,
        is_stream   INTEGER NOT NULL,
        body        BLOB NOT NULL,
        PRIMARY KEY (job_id, digest, ordinal)
    )
    """,
    """
    CREATE TABLE job_webhooks (
        job_id     TEXT PRIMARY KEY,
        tenant     TEXT NOT NULL,
        url        TEXT NOT NULL,
        attempts   INTEGER NOT NULL DEFAULT 0,
        due_at     REAL,
        last_error TEXT
    )
    """,
    "CREATE INDEX job_webhooks_due ON job_webhooks (due_at) WHERE due_at IS NOT NULL",
    """
    CREATE TABLE idempotency (
        tenant     TEXT NOT NULL,
        key        TEXT NOT NULL,
        digest     BLOB NOT NULL,
        target_id  TEXT NOT NULL,
        created_at REAL NOT NULL,
        PRIMARY KEY (tenant, key)
    )
    """,
    "CREATE INDEX idempotency_by_age ON idempotency (created_at)",
)

BATCH_TABLES: Final = (
    "ALTER TABLE jobs RENAME COLUMN attempts_fruitless TO blame",
    """
    CREATE TABLE files (
        file_id    TEXT PRIMARY KEY,
        tenant     TEXT NOT NULL,
        filename   TEXT NOT NULL,
        purpose    TEXT NOT NULL,
        bytes      INTEGER NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL
    )
    """,
    "CREATE INDEX files_of_tenant ON files (tenant, created_at, file_id)",
    "CREATE INDEX files_by_end ON files (expires_at)",
    """
    CREATE TABLE batches (
        batch_id       TEXT PRIMARY KEY,
        tenant         TEXT NOT NULL,
        key_id         TEXT NOT NULL,
        endpoint       TEXT NOT NULL,
        input_file_id  TEXT NOT NULL,
        output_file_id TEXT NOT NULL,
        error_file_id  TEXT NOT NULL,
        window         TEXT NOT NULL,
        metadata       BLOB NOT NULL,
        created_at     REAL NOT NULL,
        expires_at     REAL NOT NULL,
        state          TEXT NOT NULL,
        moments        BLOB NOT NULL,
        errors         BLOB NOT NULL,
        total          INTEGER NOT NULL DEFAULT 0,
        completed      INTEGER NOT NULL DEFAULT 0,
        failed         INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX batches_of_tenant ON batches (tenant, created_at, batch_id)",
    """
    CREATE INDEX batches_open ON batches (expires_at)
    WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling')
    """,
)

THREAD_TABLES: Final = (
    # Threads of the Agent Server protocol: what is shown of them. Their states are kept by the
    # graphs' own saver, in files beside this one.
    """
    CREATE TABLE threads (
        tenant      TEXT NOT NULL,
        thread_id   TEXT NOT NULL,
        chain       TEXT NOT NULL DEFAULT '',
        metadata    TEXT NOT NULL,
        status      TEXT NOT NULL DEFAULT 'idle',
        state       BLOB NOT NULL DEFAULT x'',
        created_at  REAL NOT NULL,
        updated_at  REAL NOT NULL,
        PRIMARY KEY (tenant, thread_id)
    )
    """,
    "CREATE INDEX threads_of_tenant ON threads (tenant, created_at)",
)
