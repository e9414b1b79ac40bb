"""One SQLite database: opened with a check, brought to the newest schema, errors worded.

The driver of the standard library, with statements written out and bound parameters. SQLAlchemy
Core stood here before: its import cost every service 0.8 s of CPU and 35 MB, a row of the ledger
three times the CPU (measured: 68 thousand rows a CPU-second against 208), and of what it offers
only the connection was used. What a second database would need is small and stays in this
module: the named parameters' spelling, ``BEGIN IMMEDIATE``, the words for its errors.

WAL lets the service read while another process writes; a writer takes the lock at ``BEGIN`` and
the others wait for it up to the busy timeout, instead of failing at their first write. The keys'
own pages are checked at every open, which takes a millisecond; damage elsewhere is met by the
statement that reads it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock.errors import StoreError
from penstock.store.schema import STEPS

DATABASE_FILE: Final = "penstock.db"
"""Its name in the store's directory."""
BUSY_TIMEOUT_SECONDS: Final = 5.0


class Database:
    """An open database, for one thread at a time.

    ``read`` and ``write`` give its connection, whose rows have their columns by name; both raise
    StoreError, as does opening it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        _create_private(file)
        self.identity = file_identity(file)
        with self._worded():
            self._connection = sqlite3.connect(
                file, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._worded():
                self._connection.row_factory = sqlite3.Row
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
            self._check()
            self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, on which every statement stands alone."""
        with self._worded():
            yield self._connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock; committed at the end, else rolled back."""
        connection = self._connection
        with self._worded():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back where the disk is full or fails.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._file}: {words(error)}") from error

    def _check(self) -> None:
        if not self._has_table("keys"):
            return
        with self.read() as connection:
            found = connection.execute("PRAGMA quick_check('keys')").fetchone()[0]
        if found != "ok":
            raise StoreError(f"{self._file}: {_DAMAGED}")

    def _has_table(self, name: str) -> bool:
        with self.read() as connection:
            statement = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
            return connection.execute(statement, (name,)).fetchone() is not None

    def _version(self) -> int:
        if not self._has_table("schema_version"):
            return 0
        with self.read() as connection:
            statement = "SELECT COALESCE(MAX(version), 0) FROM schema_version"
            return int(connection.execute(statement).fetchone()[0])

    def _migrate(self) -> None:
        version = self._version()
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
                "CREATE TABLE IF NOT EXISTS schema_version "
                "(version INTEGER PRIMARY KEY, applied_at REAL NOT NULL)"
            )
            # Another process may have migrated while this one waited for the lock.
            for number in range(self._version() + 1, len(STEPS) + 1):
                for statement in STEPS[number - 1]:
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO schema_version VALUES (:version, :applied_at)",
                    {"version": number, "applied_at": time.time()},
                )


class LateDatabase:
    """The database of a file, opened at first use, and again where another takes its place."""

    def __init__(self, file: Path, *, reads_only: bool = False) -> None:
        self.file = file
        self._reads_only = reads_only
        self._database: Database | None = None

    def opened(self) -> Database:
        """The open database. Raises StoreError."""
        if self._database is None or file_identity(self.file) != self._database.identity:
            self.close()
            self._database = Database(self.file)
            if self._reads_only:
                with self._database.read() as connection:
                    connection.execute("PRAGMA query_only = ON")
        return self._database

    def close(self) -> None:
        """Close it, if it is open."""
        if self._database is not None:
            self._database.close()
        self._database = None


def file_identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from another one that takes its place; None where there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"{file}: the store cannot be reached ({os.strerror(error.errno or 0)}); check the "
            "directory's owner and mode, or set [store] path"
        ) from error
    return status.st_dev, status.st_ino


_DAMAGED = (
    "the database is damaged; stop all Penstock processes and restore a copy, or move the file "
    "away to begin with an empty store (its keys are then gone)"
)


def words(error: sqlite3.Error) -> str:
    """What SQLite said, with the way out. Neither statement nor parameters are repeated."""
    code = getattr(error, "sqlite_errorname", "")
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
    if code.startswith("SQLITE_INTERRUPT"):
        return "the query took too long and was given up; ask for less"
    return f"the database failed ({code or type(error).__name__}); nothing was changed"


def _create_private(file: Path) -> None:
    """Make the file before SQLite does: its journals take over the mode, whatever the umask.

    One that exists is not opened: whoever closes a file gives up all locks that his process has on
    it (fcntl(2)), so a second connection would take the first one's away, and the next process
    to close the database would remove the journal that the first one still writes.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(
            f"{file}: the store cannot be opened ({os.strerror(error.errno or 0)}); check the "
            "directory's owner and mode, or set [store] path"
        ) from error
