"""One call that several callers wait for: made once, its answer read by all of them.

The call is nobody's own: it is made from inside, and goes on as long as one of its readers is
there, whoever came first. What has come is held for readers who come later, up to a bound; past
that nobody may join, what every reader has taken is let go, and the call waits for the slowest,
who is cut off by the server if it takes nothing at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final

from penstock.units import Outcome

HELD_BYTES_MAX: Final = 4 * 1024 * 1024
"""What is held of one answer."""


class SharedCall:
    """The answer of a call under way, for its readers. ``task`` makes the call.

    ``status`` is 0 until the head is here; ``is_whole`` says after the end that nothing is
    missing, ``outcome`` how the call ended.
    """

    def __init__(self, asked: bytes) -> None:
        self.asked = asked
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.is_whole = False
        self.outcome = Outcome.INTERNAL
        self.task: asyncio.Task[None] | None = None
        self._pieces: deque[bytes] = deque()
        self._first = 0
        self._held_bytes = 0
        self._is_trimmed = False
        self._has_ended = False
        self._readers: set[Reading] = set()
        self._change = asyncio.Event()

    @property
    def may_be_joined(self) -> bool:
        """Whether somebody who comes now can still have all of it."""
        return not self._is_trimmed and not self._has_ended

    def pieces(self) -> list[bytes] | None:
        """All that came, piece by piece; None where it was too much to hold."""
        return None if self._is_trimmed else list(self._pieces)

    def read(self) -> Reading:
        """A reader, from the beginning: to be closed."""
        reading = Reading(self)
        self._readers.add(reading)
        return reading

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head is here."""
        self.status, self.headers = status, headers
        self._tell()

    async def add(self, piece: bytes) -> None:
        """The next piece is here; waits while too much is held for slow readers."""
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        self._is_trimmed = self._is_trimmed or self._held_bytes > HELD_BYTES_MAX
        self._tell()
        while self._is_trimmed and self._held_after_trimming() > HELD_BYTES_MAX:
            await self._changed()

    def end(self) -> None:
        """Nothing more comes."""
        self._has_ended = True
        self._tell()

    def leave(self, reading: Reading) -> None:
        """One reader less; without any the call is given up."""
        self._readers.discard(reading)
        if not self._readers and not self._has_ended and self.task is not None:
            self._is_trimmed = True
            self.task.cancel()
        self._tell()

    async def piece(self, reading: Reading) -> bytes | None:
        """The piece at a reader's position; None at the end."""
        while reading.position - self._first >= len(self._pieces):
            if self._has_ended:
                return None
            await self._changed()
        piece = self._pieces[reading.position - self._first]
        reading.position += 1
        if self._is_trimmed:
            self._tell()
        return piece

    async def begun(self) -> None:
        """Return when the head is here, or will not come."""
        while not self.status and not self._has_ended:
            await self._changed()

    def _held_after_trimming(self) -> int:
        slowest = min((reading.position for reading in self._readers), default=self._first)
        while self._first < slowest:
            self._held_bytes -= len(self._pieces.popleft())
            self._first += 1
        return self._held_bytes

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def _changed(self) -> None:
        await self._change.wait()


class Reading:
    """One reader's place in an answer."""

    def __init__(self, call: SharedCall) -> None:
        self.position = 0
        self._call = call

    async def begun(self) -> None:
        """Return when the head is here, or will not come."""
        await self._call.begun()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The answer from its beginning."""
        while (piece := await self._call.piece(self)) is not None:
            yield piece

    def close(self) -> None:
        """Read no more."""
        self._call.leave(self)
