"""What indexes said before: one bounded SQLite file under the user's cache directory.

What a hash names never changes and is kept until room is needed; what an index lists is kept for
ten minutes. A cache that cannot be opened or is damaged is a cache that knows nothing: the work
is done without it.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

BYTES_MAX: Final = 128 * 1024 * 1024
VALUE_BYTES_MAX: Final = 32 * 1024 * 1024
LIST_SECONDS: Final = 600.0
SCHEMA: Final = 1


def place(environment: Mapping[str, str]) -> Path | None:
    """The file, by the XDG rules; None where there is no home to write to."""
    base = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # noqa: PTH117 - an empty text is no path
        home = environment.get("HOME", "")
        if not home:
            return None
        base = str(Path(home) / ".cache")
    return Path(base) / "penstock" / "image.sqlite3"


class Cache:
    """A bounded map from texts to bytes. ``now``: seconds since the epoch, of this run."""

    def __init__(self, path: Path | None, now: float) -> None:
        self._now = now
        self._base: sqlite3.Connection | None = None
        if path is None:
            return
        with suppress(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._base = self._open(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        try:
            return self._connect(path)
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            return self._connect(path)

    def _connect(self, path: Path) -> sqlite3.Connection:
        base = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        base.execute("PRAGMA synchronous = OFF")
        (version,) = base.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA:
            base.execute("DROP TABLE IF EXISTS said")
            base.execute(
                "CREATE TABLE said (key TEXT PRIMARY KEY, at REAL NOT NULL, value BLOB NOT NULL)"
            )
            base.execute("PRAGMA user_version = 1")
        base.execute("BEGIN")
        return base

    def get(self, key: str, *, is_list: bool = False) -> bytes | None:
        """What was said, if it is still true; ``is_list``: it is what an index lists."""
        if self._base is None:
            return None
        with suppress(sqlite3.Error, zlib.error):
            row = self._base.execute("SELECT at, value FROM said WHERE key = ?", (key,)).fetchone()
            if row is not None and not (is_list and abs(self._now - row[0]) > LIST_SECONDS):
                return zlib.decompressobj().decompress(row[1], VALUE_BYTES_MAX)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Remember what was said."""
        if self._base is None or len(value) > VALUE_BYTES_MAX:
            return
        with suppress(sqlite3.Error):
            self._base.execute(
                "INSERT OR REPLACE INTO said VALUES (?, ?, ?)",
                (key, self._now, zlib.compress(value, 1)),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is new, and forget the oldest beyond the bound."""
        if self._base is None:
            return
        with suppress(sqlite3.Error):
            (total,) = self._base.execute("SELECT total(length(value)) FROM said").fetchone()
            if total > BYTES_MAX:
                self._base.execute(
                    "DELETE FROM said WHERE at <= (SELECT at FROM said ORDER BY at LIMIT 1 "
                    "OFFSET (SELECT count(*) / 2 FROM said))"
                )
            self._base.execute("COMMIT")
        self._base.close()
        self._base = None
