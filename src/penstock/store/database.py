"""One SQLite database: opened with a check, brought to the newest schema, errors worded.

SQLAlchemy Core, synchronous, so that the same statements can run on Postgres. WAL lets the
service read while a command writes; a writer takes the lock at ``BEGIN`` and the others wait
for it up to the busy timeout, instead of failing at their first write. ``quick_check`` at every
open costs milliseconds at the sizes that keys have.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from penstock.errors import StoreError
from penstock.store.schema import STEPS

BUSY_TIMEOUT_SECONDS: Final = 5.0
_AUTOCOMMIT: Final = "AUTOCOMMIT"


class Database:
    """An open database. ``read`` and ``write`` give connections; both raise StoreError."""

    def __init__(self, file: Path) -> None:
        self._file = file
        _create_private(file)
        self._engine = sqlalchemy.create_engine(
            sqlalchemy.URL.create("sqlite", database=str(file)),
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
            hide_parameters=True,
        )
        event.listen(self._engine, "connect", _on_connect)
        event.listen(self._engine, "begin", _on_begin)
        self._reading = self._engine.execution_options(isolation_level=_AUTOCOMMIT)
        try:
            self._check()
            self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection on which every statement stands alone."""
        with self._worded(), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock; committed at the end, else rolled back."""
        with self._worded(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"{self._file}: {_words(error)}") from error

    def _check(self) -> None:
        with self.read() as connection:
            found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        if found != "ok":
            raise StoreError(f"{self._file}: {_DAMAGED}")

    def _version(self, connection: Connection) -> int:
        if not sqlalchemy.inspect(connection).has_table("schema_version"):
            return 0
        statement = text("SELECT COALESCE(MAX(version), 0) FROM schema_version")
        return int(connection.execute(statement).scalar_one())

    def _migrate(self) -> None:
        with self.read() as connection:
            version = self._version(connection)
        if version > len(STEPS):
            raise StoreError(
                f"{self._file}: its schema has version {version}, and this Penstock knows "
                f"{len(STEPS)}; run the newer Penstock that wrote it, or restore a copy from "
                "before the upgrade"
            )
        if version == len(STEPS):
            return
        with self.write() as connection:
            connection.execute(
                text(
                    "CREATE TABLE IF NOT EXISTS schema_version "
                    "(version INTEGER PRIMARY KEY, applied_at REAL NOT NULL)"
                )
            )
            # Another process may have migrated while this one waited for the lock.
            for number in range(self._version(connection) + 1, len(STEPS) + 1):
                for statement in STEPS[number - 1]:
                    connection.execute(text(statement))
                connection.execute(
                    text("INSERT INTO schema_version VALUES (:version, :applied_at)"),
                    {"version": number, "applied_at": time.time()},
                )


_DAMAGED = (
    "the database is damaged; stop all Penstock processes and restore a copy, or move the file "
    "away to begin with an empty store (its keys are then gone)"
)


def _words(error: DBAPIError) -> str:
    """What SQLite said, with the way out. Neither statement nor parameters are repeated."""
    code = getattr(error.orig, "sqlite_errorname", "")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return _DAMAGED
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            f"another process has held the database for {BUSY_TIMEOUT_SECONDS:g} s; "
            "try again, or see which one it is"
        )
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return "the database cannot be written; check the owner and mode of the directory"
    if code.startswith("SQLITE_FULL"):
        return "the disk is full; make room and try again"
    return f"the database failed ({code or type(error.orig).__name__}); nothing was changed"


def _create_private(file: Path) -> None:
    """Make the file before SQLite does: its journals take over the mode, whatever the umask."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(
            f"{file}: the store cannot be opened ({os.strerror(error.errno or 0)}); check the "
            "directory's owner and mode, or set [store] path"
        ) from error


def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
    # SQLAlchemy begins transactions itself (see _on_begin); the driver must not.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _on_begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != _AUTOCOMMIT:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
