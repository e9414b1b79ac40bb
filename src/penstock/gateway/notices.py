"""What a caller reads while its stream waits: its position and how long it will take.

A stream that has waited for a second begins: its head is sent, then comments (``: queued
position=3 eta=12``, in seconds), which every client skips and every proxy counts as life. From
then on the status is 200, so whatever goes wrong is told in the stream, and what is known only at
the grant (deployment, wait) is in no header. A stream whose turn comes earlier has both as they
are, and so has every call that is not a stream. A grant ends the comments; what is sent back to
its place by a refusing provider waits, and reads them, again.

The more calls wait, the rarer each is told: together they are told 500 times a second at most.

Rejected: white space before a JSON body (a late error would be a good answer that is none), one
shared timer for all streams (its readers would be written to in bursts, the slow ones among them).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Final

from penstock.http.exchange import ClientGone, Exchange
from penstock.http.sse import comment
from penstock.scheduler.scheduler import Scheduler

FIRST_SECONDS: Final = 1.0
"""How long a stream keeps the right to a status of its own."""
AGAIN_SECONDS: Final = 3.0
AGAIN_SECONDS_MAX: Final = 25.0
"""Shorter than what proxies take for a dead connection, however many wait."""
TOLD_PER_SECOND_MAX: Final = 500
NOTICE_START: Final = b": queued "
STREAM_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class QueueNotices:
    """Tells one stream's caller of its wait, from its making until ``end``.

    ``unit_id`` is set to the unit that waits for it, and again where another one does; ``known``
    gives the headers that can be told before a grant. Belongs into an ``async with`` around all
    that may wait.
    """

    def __init__(
        self,
        exchange: Exchange,
        scheduler: Scheduler,
        clock: Callable[[], float],
        known: Callable[[], Mapping[str, str]],
    ) -> None:
        self.unit_id = ""
        self._exchange = exchange
        self._scheduler = scheduler
        self._clock = clock
        self._known = known
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FIRST_SECONDS, self._begin)

    async def __aenter__(self) -> QueueNotices:
        """Itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing running."""
        await self.end()

    async def end(self) -> None:
        """Say no more; what is being written is written to its end. May be called twice."""
        self._timer.cancel()
        self._ended.set()
        task, self._task = self._task, None
        if task is None:
            return
        try:
            await asyncio.shield(task)
        except ClientGone:
            pass  # Whoever writes next meets it, too.
        except asyncio.CancelledError:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClientGone):
                await task
            raise

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        exchange = self._exchange
        while not self._ended.is_set():
            position = self._scheduler.position(self.unit_id)
            if position is not None:
                if not exchange.started:
                    exchange.response_headers.update(STREAM_HEADERS)
                    exchange.response_headers.update(self._known())
                    await exchange.start(200, "text/event-stream")
                await exchange.write_aside(comment(self._notice(position)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._ended.wait()

    def _notice(self, position: int) -> str:
        eta_seconds = self._scheduler.eta_seconds(self.unit_id, self._clock())
        if eta_seconds is None or not math.isfinite(eta_seconds):
            return f"queued position={position}"
        return f"queued position={position} eta={math.ceil(eta_seconds)}"

    def _pause_seconds(self) -> float:
        shared = self._scheduler.waiting_count / TOLD_PER_SECOND_MAX
        return min(max(AGAIN_SECONDS, shared), AGAIN_SECONDS_MAX)
