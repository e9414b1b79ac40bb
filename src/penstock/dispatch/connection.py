"""One connection to a provider: HTTP/1.1 on llhttp (httptools), one call at a time.

The server's parser, turned round. It does what a gateway needs and no more, and bounds what a
provider can make long: the head, what stands between two pieces of a body, interim answers, and
what is read ahead of a slow caller. Everything that RFC 9112 leaves to the reader's judgement is
refused: other transfer codings than ``chunked``, a length beside it, an upgrade, bytes behind the
end of an answer.

There are no timers here. Each connection notes until when it may be silent; the pool's sweep
(``upstream``) looks at all of them ten times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

import httptools

from penstock.errors import UpstreamInvalid

HEADER_BYTES_MAX: Final = 64 * 1024
"""A head; also chunk sizes, extensions and trailers since the last read that had body in it."""

INTERIM_MAX: Final = 16
"""Answers 1xx before the answer."""

READ_BYTES_MAX: Final = 32 * 1024
"""What is taken of an answer at a time. A provider that sends as fast as it can, in the smallest
of events, costs so little in one turn of the loop that others' calls do not wait for it."""

_HELD_BYTES_MAX: Final = READ_BYTES_MAX
"""What may lie here unread before the provider is made to wait."""

BUFFER_BYTES: Final = 40 * 1024
"""What the loop reads at a time, into a buffer of ours. By itself uvloop reads 256 kB, all of which
came to lie here for each caller who had stopped to read: 530 kB a caller, now 280. It is more than
``READ_BYTES_MAX``, so that a read which fills it makes the provider wait: else the loop reads
another 31 times before anybody else has a turn."""


_ONCE: Final = frozenset(
    ("content-encoding", "content-length", "content-type", "transfer-encoding")
)
"""Fields that say how to read the body: of two, nobody knows which counts."""


Sink: TypeAlias = Callable[[bytes], bool]
"""Takes a piece; whether the next one may come at once."""


class UpstreamFault(Exception):
    """The provider could not be reached, or broke off.

    ``was_sent`` is False where it cannot have seen the request; ``is_stale`` where a kept
    connection had been closed by the other side before anything came back.
    """

    def __init__(
        self, reason: str, *, was_sent: bool, is_timeout: bool = False, is_stale: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.was_sent = was_sent
        self.is_timeout = is_timeout
        self.is_stale = is_stale


class _Refused(Exception):
    """Raised inside a parser's callback: this is not how an answer may look."""


class Connection(asyncio.BufferedProtocol):
    """Sends a request, gives its answer piece by piece.

    ``silent_until`` is the loop's time at which ``time_out`` is due while something is awaited.
    ``buffer`` is what the loop reads into; all connections of one loop may share it, since what
    was read is taken out before anything else is read. It is a view: of anything else asyncio's
    TLS takes a slice, which is a copy, to read the second record of several into.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        self._loop = loop
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self.on_body = self._held.extend  # called for each piece of a body; see `_take`
        self._parser = httptools.HttpResponseParser(self)
        self._awaited: asyncio.Future[None] | None = None
        self._is_lost = False
        self._calls = 0
        self._sink: Sink | None = None
        self._sink_error: Exception | None = None
        self._idle_seconds = self._ends_at = 0.0
        self.silent_until = 0.0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._held.clear()
        self._is_paused = False
        self._has_head = False
        self._is_complete = False
        self._is_framed = False
        self._keeps_alive = False  # from the end of an answer to whatever comes behind it
        self._interim = 0
        self._bytes_received = self._bytes_seen = 0
        self._bytes_since_milestone = 0
        self._failure: UpstreamFault | UpstreamInvalid | None = None

    # What the pool does.

    @property
    def is_reusable(self) -> bool:
        """Whether another call may be sent over it: the last answer is whole, and no more came."""
        transport = self._transport
        return self._keeps_alive and transport is not None and not transport.is_closing()

    @property
    def is_read(self) -> bool:
        """Whether the answer came whole and all of it was taken."""
        return self._is_complete and not self._held

    @property
    def is_here(self) -> bool:
        """Whether the rest of the answer is here, and not more than is taken at a time."""
        return self._is_complete and len(self._held) <= READ_BYTES_MAX

    def close(self) -> None:
        """Cut the connection: that is how a provider learns of a hang-up."""
        if self._transport is not None:
            self._transport.abort()

    def is_silent(self, now: float) -> bool:
        """Whether it has been silent for too long. ``now`` is the loop's time."""
        if self._sink is not None and self._bytes_received != self._bytes_seen:
            self._bytes_seen = self._bytes_received
            self.silent_until = min(self._ends_at, now + self._idle_seconds)
        return self.silent_until <= now

    def time_out(self) -> None:
        """The silence was too long. Where nothing is awaited it is the caller who is slow."""
        if self._awaited is None or self._awaited.done():
            return
        self._fail(
            UpstreamFault(
                "the answer stalled" if self._has_head else "no answer in time",
                was_sent=True,
                is_timeout=True,
            )
        )

    async def exchange_heads(self, request: bytes) -> None:
        """Send a whole request, and wait for the head of its answer.

        Raises UpstreamFault, UpstreamInvalid.
        """
        self._reset()
        self._calls += 1
        if self._is_lost or self._transport is None:
            raise UpstreamFault("closed meanwhile", was_sent=False, is_stale=True)
        self._transport.write(request)
        while not self._has_head:
            if self._failure is not None:
                raise self._failure
            await self._news()

    async def chunk(self) -> bytes:
        """What has arrived of the body; empty at its end. Raises UpstreamFault, UpstreamInvalid."""
        while not self._held:
            if self._is_complete:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._news()
        if len(self._held) <= READ_BYTES_MAX:
            piece = self.rest()
        else:
            piece = bytes(self._held[:READ_BYTES_MAX])
            del self._held[:READ_BYTES_MAX]
            await asyncio.sleep(0)  # More is here already: the others go first.
        if self._is_paused and len(self._held) < READ_BYTES_MAX and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return piece

    def rest(self) -> bytes:
        """All that has arrived and was not taken."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    async def flow(self, sink: Sink, idle_seconds: float, ends_at: float) -> None:
        """Give each piece to ``sink`` as it comes, until there is something to look at.

        That is: the sink said that it takes no more at once, more is here than is taken at a
        time, the end, or a failure (``chunk`` tells which). Meanwhile no task runs: to wake one,
        through a dozen awaits, is half of what a piece costs. Raises what the sink raised.
        """
        if self._held or self._is_complete or self._failure is not None:
            return
        self._sink, self._idle_seconds, self._ends_at = sink, idle_seconds, ends_at
        try:
            await self._news()
        finally:
            self._sink = None
        if self._sink_error is not None:
            error, self._sink_error = self._sink_error, None
            raise error

    def _pour(self, sink: Sink) -> None:
        try:
            goes_on = sink(self.rest())
        except Exception as error:  # noqa: BLE001 - `flow` raises it
            self._sink_error = error
            goes_on = False
        if not goes_on:
            self._sink = None
            self._wake()

    def _news(self) -> asyncio.Future[None]:
        """Done when something has happened."""
        self._awaited = self._loop.create_future()
        return self._awaited

    def _wake(self) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            awaited.set_result(None)

    def _fail(self, failure: UpstreamFault | UpstreamInvalid) -> None:
        """The answer ends here; what came before it may still be read."""
        if self._failure is None and not self._is_complete:
            self._failure = failure
        self._keeps_alive = False
        self.close()
        self._wake()

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; a call follows."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side closed: the end of a body without a length, or a break."""
        self._is_lost = True
        is_end = self._has_head and not self._is_framed and exc is None
        if is_end and self._failure is None:  # else it is our own hanging up that ends it
            self._is_complete = True
        is_stale = self._calls > 1 and self._bytes_received == 0
        reason = "disconnected" if exc is None else type(exc).__name__
        self._fail(UpstreamFault(reason, was_sent=True, is_stale=is_stale))
        del self._parser  # it leads back to here, and circles are looked for rarely

    def eof_received(self) -> bool:
        """Close with the other side: no provider half-closes."""
        return False

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the contract
        """Where the loop may read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        self._take(self._buffer[:nbytes])

    def _take(self, data: memoryview) -> None:
        """Feed the parser, within the bounds."""
        if self._failure is not None:
            return
        if self._is_complete:
            self._keeps_alive = False  # What comes behind an answer is no answer to the next call.
            self.close()
            return
        self._bytes_received += len(data)
        self._bytes_since_milestone += len(data)
        held_bytes = len(self._held)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(self._unreadable())
            return
        if len(self._held) > held_bytes:
            self._bytes_since_milestone = 0
        if self._bytes_since_milestone > HEADER_BYTES_MAX and not self._is_complete:
            self._fail(self._unreadable())
            return
        if len(self._held) > _HELD_BYTES_MAX and not self._is_paused and not self._is_complete:
            self._is_paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        if self._sink is not None and 0 < len(self._held) <= READ_BYTES_MAX:
            self._pour(self._sink)
            if not self._is_complete:
                return
        if self._has_head:
            self._wake()

    def _unreadable(self) -> UpstreamInvalid:
        part = "body" if self._has_head else "head"
        return UpstreamInvalid(f"The provider's answer has a {part} that cannot be read.")

    # What the parser says. Whatever is raised here arrives as an HttpParserError.

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._is_complete:
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note one field, of the head or of a trailer; trailers are dropped."""
        if not self._has_head:
            lowered = name.lower().decode("latin-1")
            if lowered in _ONCE and lowered in self.headers:
                raise _Refused
            self.headers[lowered] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is whole, be it an interim one."""
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self._interim += 1
            if self._interim > INTERIM_MAX or self.status == 101:
                raise _Refused
            return
        coding = self.headers.get("transfer-encoding")
        length = self.headers.get("content-length")
        if coding is not None and (coding.strip().lower() != "chunked" or length is not None):
            raise _Refused
        self._is_framed = coding is not None or length is not None
        self._has_head = True
        self._bytes_since_milestone = 0

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one makes place for what follows it."""
        if not self._has_head:
            self.headers.clear()
            return
        self._is_complete = True
        self._keeps_alive = self._parser.should_keep_alive()
