"""The schema as numbered steps, forwards only.

A step that was released never changes; what comes next is a new step at the end. There is no
way back: a database that is newer than the program is refused, not guessed at. SQL texts rather
than a migration tool, since three statements a release do not pay for one.
"""

from __future__ import annotations

from typing import Final

from penstock.store.job_schema import BATCH_TABLES, JOB_TABLES, THREAD_TABLES

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        CREATE TABLE keys (
            key_id        TEXT PRIMARY KEY,
            name          TEXT NOT NULL,
            digest        TEXT NOT NULL UNIQUE,
            tenant        TEXT NOT NULL,
            class_default TEXT NOT NULL,
            ceiling       TEXT NOT NULL,
            models        TEXT,
            chains        TEXT,
            admin         INTEGER NOT NULL,
            created_at    REAL NOT NULL,
            revoked_at    REAL
        )
        """,
        # A name is free again once its key is revoked; the revoked row stays for the records.
        "CREATE UNIQUE INDEX keys_name_in_force ON keys (name) WHERE revoked_at IS NULL",
        # One row: what a running service polls, and which pepper the digests were made with.
        """
        CREATE TABLE keys_state (
            row                INTEGER PRIMARY KEY CHECK (row = 1),
            version            INTEGER NOT NULL,
            pepper_fingerprint TEXT NOT NULL
        )
        """,
    ),
    (
        # One row for each LLM call that came with a known key. Times in Unix seconds.
        """
        CREATE TABLE calls (
            number                  INTEGER PRIMARY KEY,
            request_id              TEXT NOT NULL,
            arrived_at              REAL NOT NULL,
            tenant                  TEXT NOT NULL,
            sub_tenant              TEXT NOT NULL,
            key_id                  TEXT NOT NULL,
            class                   TEXT NOT NULL,
            model                   TEXT NOT NULL,
            deployment              TEXT NOT NULL,
            chain                   TEXT NOT NULL,
            run_id                  TEXT NOT NULL,
            step                    INTEGER NOT NULL,
            tokens_input_estimated  INTEGER NOT NULL,
            tokens_output_estimated INTEGER NOT NULL,
            tokens_output_max       INTEGER,
            tokens_input            INTEGER NOT NULL,
            tokens_input_cached     INTEGER NOT NULL,
            tokens_output           INTEGER NOT NULL,
            tokens_reasoning        INTEGER NOT NULL,
            nano_dollars            INTEGER,
            wait_seconds            REAL NOT NULL,
            upstream_seconds        REAL NOT NULL,
            deadline_seconds        REAL,
            attempts                INTEGER NOT NULL,
            outcome                 TEXT NOT NULL
        )
        """,
        "CREATE INDEX calls_by_arrival ON calls (arrived_at)",
        # What budgets are counted by, written with the rows: it outlives them.
        """
        CREATE TABLE spent (
            day          INTEGER NOT NULL,
            tenant       TEXT NOT NULL,
            key_id       TEXT NOT NULL,
            calls        INTEGER NOT NULL,
            tokens       INTEGER NOT NULL,
            nano_dollars INTEGER NOT NULL,
            PRIMARY KEY (day, tenant, key_id)
        ) WITHOUT ROWID
        """,
    ),
    JOB_TABLES,
    BATCH_TABLES,
    (
        "ALTER TABLE keys ADD COLUMN expires_at REAL",
        # After a rotation the secret before counts until then, too.
        "ALTER TABLE keys ADD COLUMN digest_previous TEXT",
        "ALTER TABLE keys ADD COLUMN previous_until REAL",
        # A JSON object: the fields of [keys.NAME] that begin with budget_.
        "ALTER TABLE keys ADD COLUMN budget TEXT NOT NULL DEFAULT '{}'",
    ),
    (
        # Kept answers, by a digest of what was asked. ``kept_at`` in Unix seconds.
        """
        CREATE TABLE answers (
            digest    BLOB PRIMARY KEY,
            kept_at   REAL NOT NULL,
            is_stream INTEGER NOT NULL,
            bytes     INTEGER NOT NULL,
            body      BLOB NOT NULL
        )
        """,
        "CREATE INDEX answers_by_age ON answers (kept_at, bytes)",
    ),
    THREAD_TABLES,
    (
        # Who keeps a response that a later one may continue. ``kept_at`` in Unix seconds.
        """
        CREATE TABLE kept_responses (
            number      INTEGER PRIMARY KEY,
            tenant      TEXT NOT NULL,
            response_id TEXT NOT NULL,
            deployment  TEXT NOT NULL,
            kept_at     REAL NOT NULL,
            UNIQUE (tenant, response_id)
        )
        """,
    ),
    (
        # What operators set of tenants: a JSON object of fields of [tenants.NAME].
        """
        CREATE TABLE tenants (
            name       TEXT PRIMARY KEY,
            fields     TEXT NOT NULL,
            changed_at REAL NOT NULL
        ) WITHOUT ROWID
        """,
        # A JSON array of the tenants that a key may act for.
        "ALTER TABLE keys ADD COLUMN acts_for TEXT NOT NULL DEFAULT '[]'",
    ),
    # When the next job is due is asked whenever one comes, however many wait.
    ("CREATE INDEX jobs_due ON jobs (due_at) WHERE state = 'pending'",),
)
"""Step 1 stands first; the version of a database is the number of steps that it has taken."""
