"""The HTTP client towards providers: one class, so that another library could stand in.

A pool of ``connection.Connection``, which took the place of aiohttp's client because of its CPU a
call (docs/dependencies.md; ``benchmarks/gateway_speed.py`` compares them). Nothing is decided here:
no retries, no redirects (a provider that redirects would get the key sent to another origin),
no decompression (a bomb could not be bounded), no environment proxies. What goes wrong becomes
an ``UpstreamFault`` that says whether the provider may have seen the request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from penstock.dispatch.connection import (
    BUFFER_BYTES,
    READ_BYTES_MAX,
    Connection,
    Sink,
    UpstreamFault,
)
from penstock.errors import UpstreamOversized

__all__ = ["READ_BYTES_MAX", "Timeouts", "Upstream", "UpstreamFault", "UpstreamResponse"]

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
"""A whole answer's cap; embeddings of a large batch are the largest known, some 30 MiB."""

ERROR_BODY_BYTES_MAX: Final = 256 * 1024
"""What is read of an unsuccessful answer."""

CONNECTIONS_MAX: Final = 4_096
"""Connections to all providers; what may be in flight is the scheduler's matter."""

IDLE_SECONDS_MAX: Final = 30.0
"""How long a connection is kept for the next call."""

SWEEP_SECONDS: Final = 0.1
"""How precise time-outs are."""

_TARGETS_MAX: Final = 1_024


class Timeouts(msgspec.Struct, frozen=True):
    """How long a provider may take, in seconds."""

    connect_seconds: float
    first_byte_seconds: float
    idle_seconds: float
    total_seconds: float


class _Origin(NamedTuple):
    """Where a connection leads."""

    host: str
    port: int
    is_tls: bool


class _Target:
    """A URL, taken apart once. ``begun`` is how the last request to it began, up to the length of
    its body: so do most that follow.
    """

    __slots__ = ("begun", "head", "headers", "origin")

    def __init__(self, origin: _Origin, head: str) -> None:
        self.origin = origin
        self.head = head
        self.headers: Mapping[str, str] | None = None
        self.begun = b""


class UpstreamResponse:
    """One answer under way. ``headers`` have lower-case names."""

    __slots__ = (
        "_connection",
        "_ends_at",
        "_idle_seconds",
        "_origin",
        "_pool",
        "headers",
        "status",
    )

    def __init__(
        self,
        pool: Upstream,
        origin: _Origin,
        connection: Connection,
        timeouts: Timeouts,
        ends_at: float,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: Connection | None = connection
        self._idle_seconds = timeouts.idle_seconds
        self._ends_at = ends_at
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    @property
    def has_ended(self) -> bool:
        """Whether all of it came, and was taken."""
        return self._connection is None or self._connection.is_read

    def chunk(self) -> Coroutine[Any, Any, bytes]:
        """What has arrived; empty at the end. Raises UpstreamFault, UpstreamInvalid."""
        connection = self._connection
        if connection is None:
            return _nothing()
        connection.silent_until = min(self._ends_at, self._pool.time() + self._idle_seconds)
        return connection.chunk()

    async def flow(self, sink: Sink) -> None:
        """Give each piece to ``sink`` as it comes, until ``chunk`` must be asked."""
        if self._connection is not None:
            self._connection.silent_until = min(
                self._ends_at, self._pool.time() + self._idle_seconds
            )
            await self._connection.flow(sink, self._idle_seconds, self._ends_at)

    async def body(self, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        """The whole answer. Raises UpstreamFault, UpstreamOversized where it passes the cap."""
        if self._connection is not None and self._connection.is_here:
            return self._connection.rest()
        whole = await self.chunk()
        if self.has_ended:
            return whole
        pieces = bytearray(whole)
        while chunk := await self.chunk():
            pieces += chunk
            if len(pieces) > bytes_max:
                raise UpstreamOversized(f"The provider's answer has more than {bytes_max} bytes.")
        return bytes(pieces)

    def release(self, *, is_complete: bool) -> None:
        """Give the connection back after a complete answer; else close it, which cancels it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(self._origin, connection, is_complete=is_complete)


class Upstream:
    """A client for all providers, with its pool of connections."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._targets: dict[str, _Target] = {}
        self._idle: dict[_Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def close(self) -> None:
        """Close every connection."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in [*self._busy, *(one for kept in self._idle.values() for one in kept)]:
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # Transports tell of their end in the next turn.

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> UpstreamResponse:
        """POST, and wait for the answer's head.

        Raises UpstreamFault, UpstreamInvalid where the head is malformed or over its caps.
        """
        target = self._targets.get(url) or self._target(url)
        request = _request(target, headers, body)
        began = self.time()
        ends_at = began + timeouts.total_seconds
        head_seconds = timeouts.connect_seconds + timeouts.first_byte_seconds
        connection = self._kept(target.origin)
        if connection is None:
            connection = await self._connected(target.origin, timeouts.connect_seconds)
        connection.silent_until = min(ends_at, began + head_seconds)
        self._busy.add(connection)
        self._watch()
        try:
            await connection.exchange_heads(request)
        except BaseException:
            self.give_back(target.origin, connection, is_complete=False)
            raise
        return UpstreamResponse(self, target.origin, connection, timeouts, ends_at)

    def give_back(self, origin: _Origin, connection: Connection, *, is_complete: bool) -> None:
        """Take a connection back, for the next call where its answer came whole."""
        self._busy.discard(connection)
        if is_complete and connection.is_reusable and not self._is_closed:
            connection.silent_until = self.time() + IDLE_SECONDS_MAX
            self._idle.setdefault(origin, []).append(connection)
        else:
            connection.close()
            self._room.release()

    def _target(self, url: str) -> _Target:
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        target = _Target(_Origin(parts.hostname or "", port, is_tls), head)
        if len(self._targets) >= _TARGETS_MAX:
            self._targets.clear()
        self._targets[url] = target
        return target

    def _kept(self, origin: _Origin) -> Connection | None:
        """A connection that stands already; the one used last, so that the others may end."""
        kept = self._idle.get(origin)
        while kept:
            connection = kept.pop()
            if connection.is_reusable:
                return connection
            self._room.release()
        return None

    async def _connected(self, origin: _Origin, seconds: float) -> Connection:
        """A new connection. Raises UpstreamFault."""
        if self._room.locked():
            self._close_an_idle_one()
        has_room = False
        try:
            async with asyncio.timeout(seconds):
                has_room = await self._room.acquire()
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop, self._buffer),
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.is_tls else None,
                )
        except BaseException as error:
            if has_room:
                self._room.release()
            if isinstance(error, TimeoutError):
                fault = UpstreamFault("no connection in time", was_sent=False, is_timeout=True)
                raise fault from None
            if isinstance(error, OSError):
                raise UpstreamFault(type(error).__name__, was_sent=False) from None
            raise
        return connection

    def _close_an_idle_one(self) -> None:
        """Give up a kept connection for one to elsewhere: the one unused for longest, if any."""
        for origin, kept in self._idle.items():
            if kept:
                kept.pop(0).close()
                self._room.release()
                if not kept:
                    del self._idle[origin]
                return

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _watch(self) -> None:
        if self._sweep is None and not self._is_closed:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._look_at_all)

    def _look_at_all(self) -> None:
        """End what was silent for too long; goes on while there is anything to look at."""
        self._sweep = None
        now = self.time()
        for connection in self._busy:
            if connection.is_silent(now):
                connection.time_out()
        for origin, kept in list(self._idle.items()):
            staying = [one for one in kept if one.is_reusable and one.silent_until > now]
            for connection in set(kept).difference(staying):
                connection.close()
                self._room.release()
            if staying:
                self._idle[origin] = staying
            else:
                del self._idle[origin]
        if self._busy or self._idle:
            self._watch()


async def _nothing() -> bytes:
    return b""


def _request(target: _Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """The request's bytes. Raises ValueError for a header that would be two."""
    if headers != target.headers:
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        head = target.head + "".join(lines)
        if head.count("\n") != len(lines) + 2 or head.count("\r") != len(lines) + 2:
            raise ValueError("a header's name or value holds a line break")
        target.headers, target.begun = headers, head.encode("latin-1")
    return b"%bcontent-length: %d\r\n\r\n%b" % (target.begun, len(body), body)
