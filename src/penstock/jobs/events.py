"""The events of one attempt on their way to the disk.

Nobody is shown an event before it is stored, so that its number means the same after a crash.
One commit is under way at a time, and what is told meanwhile makes up the next: a burst of
tokens becomes a few commits, and a single event waits for one only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from penstock.store.jobs import Event

BUFFERED_BYTES_MAX: Final = 1024 * 1024
"""What is told and not stored; more has to wait, and with it the run."""
FLUSH_SECONDS: Final = 0.02
"""Between two commits of one job's events."""

Keep = Callable[[Sequence[Event], bool], Awaitable[None]]
"""Stores events; the flag says that some were left out for their size."""


class EventSink:
    """Numbers and stores what one attempt tells. Over ``bytes_max`` nothing more is kept."""

    def __init__(self, keep: Keep, last: int, bytes_kept: int, bytes_max: int) -> None:
        self._keep = keep
        self._last = last
        self._bytes_left = bytes_max - bytes_kept
        self._lost = False
        self._buffer: list[Event] = []
        self._buffered_bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    async def emit(self, name: str | None, data: bytes) -> None:
        """Tell one event."""
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self._lost = True
            return
        self._last += 1
        self._buffer.append(Event(self._last, name, data))
        self._buffered_bytes += len(data)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        if self._buffered_bytes > BUFFERED_BYTES_MAX:
            await asyncio.shield(self._flushing)

    async def close(self) -> None:
        """Return when everything is stored."""
        while self._buffer or (self._flushing is not None and not self._flushing.done()):
            if self._flushing is None or self._flushing.done():
                self._flushing = asyncio.create_task(self._flush())
            await asyncio.shield(self._flushing)
        if self._lost:
            await self._keep([], True)  # noqa: FBT003 - the type names it

    async def _flush(self) -> None:
        while self._buffer:
            events, self._buffer = self._buffer, []
            self._buffered_bytes = 0
            await self._keep(events, False)  # noqa: FBT003 - the type names it
            await asyncio.sleep(FLUSH_SECONDS)
