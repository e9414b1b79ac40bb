"""One request on a caller's connection, and its answer: a ``Line``, and ASGI for whoever wants it.

An answer's head is one piece of text, checked for line breaks as a whole and sent with the body
where that follows at once: header by header it was half of what the server cost a request.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Collection, Mapping
from http import HTTPStatus
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Final

from penstock.http.line import Message, Scope

if TYPE_CHECKING:
    from penstock.http.connection import Connection

_CLOSE: Final = b"connection: close\r\n"
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}
_BODILESS: Final = (204, 304)
_RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time at all: closing resets the connection."""


class Turn:
    """One request on a connection: a ``Line``. Its body comes in, its answer goes out.

    ``receive`` and ``send`` are ASGI's, for an app that is no Door.
    """

    __slots__ = (
        "_connection",
        "_expects_continue",
        "_has_news",
        "_head",
        "_is_chunked",
        "_is_head",
        "_left",
        "_pieces",
        "_waiter",
        "hang_up",
        "held_bytes",
        "is_answered",
        "is_gone",
        "is_started",
        "keeps_alive",
        "more_body",
        "scope",
        "task",
    )

    def __init__(
        self, connection: Connection, scope: Scope, *, keeps_alive: bool, expects_continue: bool
    ) -> None:
        self._connection = connection
        self.hang_up = connection.hang_up
        self.scope = scope
        self.task: asyncio.Task[None]
        self.keeps_alive = keeps_alive
        self.more_body = True
        self.held_bytes = 0
        self.is_started = False
        self.is_answered = False
        self.is_gone = False
        self._expects_continue = expects_continue
        self._pieces: list[bytes] = []
        self._has_news = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_head = scope["method"] == "HEAD"
        self._is_chunked = False
        self._left: int | None = 0
        self._head = b""

    # The request.

    def take(self, piece: bytes) -> None:
        """A piece of the body has come."""
        self._pieces.append(piece)
        self.held_bytes += len(piece)
        self.tell()

    def tell(self) -> None:
        """Something has happened: whoever waits in ``receive`` is to look."""
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def whole_body(self) -> bytes | None:
        """The body, once; None where some of it is still to come, or nobody sends it."""
        return None if self.more_body or self.is_gone else self._taken()

    async def receive(self) -> Message:
        """The next piece of the body, or, when there is none, the end."""
        connection = self._connection
        if not self.is_gone and not self.is_answered:
            if self._expects_continue:
                self._expects_continue = False
                connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.resume_reading()
            while not self._has_news:
                self._waiter = connection.loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            self._has_news = False
        if self.is_gone or self.is_answered:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._taken(), "more_body": self.more_body}

    def _taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self.held_bytes = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # The answer.

    def is_closing(self) -> bool:
        """Whether nothing reaches the caller any more."""
        return self.is_gone or self._connection.transport.is_closing()

    def close(self) -> None:
        """End the connection under an unfinished answer."""
        transport = self._connection.transport
        self._send_head()
        if self._left is None:
            # The end of the connection would be the good end: only a reset tells of a break.
            transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            transport.abort()
        else:
            transport.close()

    def begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """Send the head; that of a body which follows at once goes with it."""
        self._begin(status, headers.items(), length)

    def _begin(self, status: int, headers: Collection[tuple[str, str]], length: int | None) -> None:
        # Joined in C: line by line they were a fortieth of what a call cost.
        fields = "\r\n".join([*map(": ".join, headers), ""]).encode("latin-1")
        if fields.count(b"\n") != len(headers) or fields.count(b"\r") != len(headers):
            raise ValueError("a header's name or value holds a line break")
        self.is_started = True
        self._expects_continue = False
        if self.more_body:
            self.keeps_alive = False  # what is still to come of the body has no bound
        framing = b""
        if length is not None:
            framing = b"content-length: %d\r\n" % length
            self._left = length
        elif not self._is_head and status not in _BODILESS:
            if self.scope["http_version"] == "1.1":
                self._is_chunked = True
                framing = _CHUNKED
            else:
                self._left = None  # HTTP/1.0 knows no chunks: the body ends with the connection
        self._head = b"%b%b%b%b%b\r\n" % (
            STATUS_LINES[status],
            self._connection.listener.date_line,
            fields,
            framing,
            b"" if self.keeps_alive else _CLOSE,
        )
        if length is None and not self.is_gone:
            # It goes with the first piece, where that comes in this turn of the loop.
            self._connection.loop.call_soon(self._send_head)

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self.is_gone:
            self._connection.transport.write(head)

    @property
    def is_full(self) -> bool:
        """Whether the caller reads slower than we write."""
        return self._connection.writable is not None and not self.is_gone

    async def drained(self) -> None:
        """Return when the caller has caught up, or is gone."""
        while self._connection.writable is not None and not self.is_gone:
            await self._connection.writable.wait()

    def write(self, chunk: bytes, *, is_last: bool) -> None:
        """Send a piece of the body."""
        if self.is_gone:
            return
        connection = self._connection
        if self._is_chunked:
            if chunk:
                chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
            if is_last:
                chunk += b"0\r\n\r\n"
        elif self._is_head:
            chunk = b""
        elif self._left is not None:
            self._left -= len(chunk)
            if self._left < 0 or (is_last and self._left):
                raise RuntimeError("an answer's body is not as long as its head says")
        if self._head:
            chunk, self._head = self._head + chunk, b""
        if chunk:
            connection.written_bytes = len(chunk)
            connection.transport.write(chunk)
        if is_last:
            self.is_answered = True
            connection.turn_ended(self)

    async def send(self, message: Message) -> None:
        """ASGI's: the head, or a piece of the body."""
        if message["type"] == "http.response.start":
            headers: list[tuple[str, str]] = []
            length = None
            for raw_name, raw_value in message["headers"]:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
                if name == "content-length":
                    length = int(value)
                elif name == "connection":
                    self.keeps_alive = self.keeps_alive and "close" not in value.lower()
                elif name != "transfer-encoding":
                    headers.append((name, value))
            self._begin(message["status"], headers, length)
        else:
            is_last = not message.get("more_body", False)
            self.write(message.get("body", b""), is_last=is_last)
            if not is_last:
                await self.drained()
