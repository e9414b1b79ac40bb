"""Answers that are kept to be given again: in memory, or in the store.

Which answer a key stands for is the gateway's matter. Here are only bounds: an age after which an
answer is forgotten, and bytes for all of them together, the oldest going first. What is kept in
the store survives a restart and costs a commit and a read; it is read from a thread of its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from penstock.store.reader import Reader
from penstock.store.writer import Writer

OVERHEAD_BYTES: Final = 500
"""What an answer takes beyond its body, about."""
REMOVED_TOGETHER: Final = 200
"""Answers that one transaction removes, so that none holds the lock for long."""


class KeptAnswer(msgspec.Struct, frozen=True):
    """One answer as its first caller got it, and a digest of what was asked.

    ``kept_at`` is Unix seconds.
    """

    body: bytes
    is_stream: bool
    kept_at: float
    asked: bytes


class Bounds(msgspec.Struct, frozen=True):
    """How old answers may be, and how many bytes all of them may have."""

    age_seconds_max: float
    bytes_max: int


class Answers(Protocol):
    """Where answers are kept, by a digest of what was asked. ``bounds`` may be replaced."""

    bounds: Bounds

    async def find(self, digest: bytes, now: float) -> KeptAnswer | None:
        """The answer, if there is one that is not too old. Raises StoreError."""

    async def keep(self, digest: bytes, answer: KeptAnswer) -> None:
        """Keep an answer in the place of the one before. Raises StoreError."""


class AnswersInMemory:
    """Answers that end with the process."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.bytes_held = 0
        self._kept: OrderedDict[bytes, KeptAnswer] = OrderedDict()

    async def find(self, digest: bytes, now: float) -> KeptAnswer | None:
        """The answer, if there is one that is not too old."""
        answer = self._kept.get(digest)
        if answer is not None and now - answer.kept_at >= self.bounds.age_seconds_max:
            self._forget(digest)
            return None
        return answer

    async def keep(self, digest: bytes, answer: KeptAnswer) -> None:
        """Keep an answer in the place of the one before."""
        if digest in self._kept:
            self._forget(digest)
        self._kept[digest] = answer
        self.bytes_held += len(answer.body) + OVERHEAD_BYTES
        while self._kept and self.bytes_held > self.bounds.bytes_max:
            self._forget(next(iter(self._kept)))

    def _forget(self, digest: bytes) -> None:
        self.bytes_held -= len(self._kept.pop(digest).body) + OVERHEAD_BYTES


class AnswersInStore:
    """Answers that survive the process. What is asked is what they are kept by."""

    def __init__(
        self, writer: Writer, reader: Reader, bounds: Bounds, wall: Callable[[], float]
    ) -> None:
        self.bounds = bounds
        self._writer = writer
        self._reader = reader
        self._wall = wall

    async def find(self, digest: bytes, now: float) -> KeptAnswer | None:
        """The answer, if there is one that is not too old. Raises StoreError."""
        since = now - self.bounds.age_seconds_max

        def query(connection: sqlite3.Connection) -> KeptAnswer | None:
            row = connection.execute(_FIND, (digest, since)).fetchone()
            return None if row is None else _kept(digest, row)

        return await asyncio.wrap_future(self._reader.submit(query))

    async def keep(self, digest: bytes, answer: KeptAnswer) -> None:
        """Keep an answer in the place of the one before. Raises StoreError."""
        size = len(answer.body) + OVERHEAD_BYTES
        since, bytes_max = self._wall() - self.bounds.age_seconds_max, self.bounds.bytes_max

        def work(connection: sqlite3.Connection) -> None:
            kept = (digest, answer.kept_at, int(answer.is_stream), size, answer.body)
            connection.execute(_KEEP, kept)
            connection.execute(_FORGET_OLD, (since, REMOVED_TOGETHER))
            held = connection.execute(_HELD).fetchone()[0]
            while held > bytes_max:
                oldest = connection.execute(_OLDEST).fetchone()
                connection.execute(_FORGET, (oldest[0],))
                held -= oldest[1]

        await asyncio.wrap_future(self._writer.submit(work))


def _kept(digest: bytes, row: sqlite3.Row) -> KeptAnswer:
    return KeptAnswer(bytes(row["body"]), bool(row["is_stream"]), row["kept_at"], digest)


_FIND = "SELECT body, is_stream, kept_at FROM answers WHERE digest = ? AND kept_at > ?"
_KEEP = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)"
_FORGET_OLD = """
    DELETE FROM answers WHERE digest IN
    (SELECT digest FROM answers WHERE kept_at < ? ORDER BY kept_at LIMIT ?)
"""
_HELD = "SELECT coalesce(sum(bytes), 0) FROM answers"
_OLDEST = "SELECT digest, bytes FROM answers ORDER BY kept_at LIMIT 1"
_FORGET = "DELETE FROM answers WHERE digest = ?"
