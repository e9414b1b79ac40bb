"""One caller's connection: HTTP/1.1 on llhttp (httptools), with bounds on all of it.

uvicorn drives the same parser, but bounds no request's head: one unauthenticated connection with
a 64 MiB header stalled every other caller for seconds. Its protocol was first subclassed, then
left: what had to be overridden was most of it and none of its interface, and half of what a
request cost in server code was its answer's head, header by header. h11 has bounds, at several
times the CPU a request; granian was rejected because it answers 500 to malformed chunks.

So the bytes are counted before the parser gets them: between two milestones (a complete head, a
piece of a body, the end of a message) at most ``header_bytes_max`` may pass. That one rule covers
endless request lines, headers, trailers and chunk extensions, and the parser never holds more.

Time-outs are not timers per request. One sweep over all connections a few times a second looks
at three moments that each connection notes: since when it owes a head, since when it is idle,
since when it has taken nothing of what we wrote. That costs nothing on the hot path, and is as
precise as the sweep.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import httptools

from penstock.config.model import ServerTable
from penstock.errors import CallError, InvalidRequest
from penstock.http.error_body import ErrorShape, render
from penstock.http.line import Application, HangUp, Message, Scope

IDLE_SECONDS_MAX: Final = 75.0
"""How long an idle connection is kept: longer than the 60 s of common load balancers, so that
it is they who close first."""
LINGER_SECONDS: Final = 2.0
"""How long a refused connection is read and thrown away: closing at once would reset it, and
the caller would never see why."""
HEADERS_MAX: Final = 256
PIPELINE_MAX: Final = 64
"""Requests that may wait on one connection behind the one that is being answered; together they
may have ``header_bytes_max`` bytes."""
OVERFLOW_CONNECTIONS: Final = 128
"""So many connections over the cap are told 503; the rest are cut without a word."""
BODY_BYTES_HELD_MAX: Final = 64 * 1024
"""Of a body that nobody has asked for yet; then reading stops until somebody does."""

_log = logging.getLogger("penstock.http")

_CLOSE: Final = b"connection: close\r\n"
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


_STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}
_BODILESS: Final = (204, 304)


class _Refused(Exception):
    """Raised inside a parser callback; carries the status to refuse with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Listener:
    """What all connections of one server share. ``date_line`` is set anew every second."""

    def __init__(self, app: Application, table: ServerTable, on_lost: Callable[[], None]) -> None:
        self.app = app
        self.table = table
        self.on_lost = on_lost
        self.date_line = b""
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()


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
    )

    def __init__(
        self, connection: Connection, scope: Scope, *, keeps_alive: bool, expects_continue: bool
    ) -> None:
        self._connection = connection
        self.hang_up = connection.hang_up
        self.scope = scope
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
        self._left = 0
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
        if self._expects_continue:
            self._expects_continue = False
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.is_gone and not self.is_answered:
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
        self._connection.transport.close()

    def begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """Send the head; that of a body which follows at once goes with it."""
        self._begin(status, [f"{name}: {value}\r\n" for name, value in headers.items()], length)

    def _begin(self, status: int, lines: list[str], length: int | None) -> None:
        fields = "".join(lines)
        if fields.count("\n") != len(lines) or fields.count("\r") != len(lines):
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
            self._is_chunked = True
            framing = _CHUNKED
        self._head = b"%b%b%b%b%b\r\n" % (
            _STATUS_LINES[status],
            self._connection.listener.date_line,
            fields.encode("latin-1"),
            framing,
            b"" if self.keeps_alive else _CLOSE,
        )
        if length is None and not self.is_gone:
            self._connection.transport.write(self._head)
            self._head = b""

    async def write(self, chunk: bytes, *, is_last: bool) -> None:
        """Send a piece of the body; waits while the caller reads slower than we write."""
        connection = self._connection
        if connection.writable is not None and not self.is_gone:
            await connection.writable.wait()
        if self.is_gone:
            return
        if self._is_chunked:
            if chunk:
                chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
            if is_last:
                chunk += b"0\r\n\r\n"
        elif self._is_head:
            chunk = b""
        else:
            self._left -= len(chunk)
            if self._left < 0 or (is_last and self._left):
                raise RuntimeError("an answer's body is not as long as its head says")
        if self._head:
            chunk, self._head = self._head + chunk, b""
        if chunk:
            connection.transport.write(chunk)
        if is_last:
            self.is_answered = True
            connection.turn_ended(self)

    async def send(self, message: Message) -> None:
        """ASGI's: the head, or a piece of the body."""
        if message["type"] == "http.response.start":
            lines, length = [], None
            for raw_name, raw_value in message["headers"]:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
                if name == "content-length":
                    length = int(value)
                elif name == "connection":
                    self.keeps_alive = self.keeps_alive and "close" not in value.lower()
                elif name != "transfer-encoding":
                    lines.append(f"{name}: {value}\r\n")
            self._begin(message["status"], lines, length)
        else:
            is_last = not message.get("more_body", False)
            await self.write(message.get("body", b""), is_last=is_last)


class Connection(asyncio.Protocol):
    """Reads requests, one turn after the other."""

    transport: asyncio.Transport

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self.listener = listener
        self.loop = loop
        self.hang_up = HangUp()
        self.writable: asyncio.Event | None = None
        self._table = listener.table
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._arriving: Turn | None = None
        self._running: Turn | None = None
        self._waiting: deque[Turn] = deque()
        self._waiting_bytes = 0
        self._is_paused = False
        self._head_since: float | None = None
        self._idle_since: float | None = None
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._lingers_until: float | None = None
        self._reading_body = False
        self._bytes_since_milestone = 0
        self._refusal: _Refused | None = None
        self._addresses: tuple[Any, Any] = (None, None)

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless there are too many."""
        # uvloop's transports are no subclass of asyncio's.
        self.transport = transport  # type: ignore[assignment]
        self._addresses = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        connections = self.listener.connections
        connections.add(self)
        self._unsent_since = self._head_since = self.loop.time()
        excess = len(connections) - self._table.connections_max
        if excess > OVERFLOW_CONNECTIONS:
            self.transport.abort()
        elif excess > 0:
            self._refuse(503, "Too many connections.")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the contract
        """Tell whoever is at work that the caller is gone."""
        self.listener.connections.discard(self)
        for turn in (self._running, *self._waiting, self._arriving):
            if turn is not None and not turn.is_answered:
                turn.is_gone = True
                turn.tell()
        self._waiting.clear()
        self.resume_writing()
        if self._running is not None and not self._running.is_answered:
            self.hang_up.tell()
        self.listener.on_lost()

    def pause_writing(self) -> None:
        """The caller reads slower than we write."""
        self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """It has caught up."""
        writable, self.writable = self.writable, None
        if writable is not None:
            writable.set()

    def resume_reading(self) -> None:
        """Read on, if reading had stopped."""
        if self._is_paused:
            self._is_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, in pieces that keep the milestone rule exact."""
        if self._lingers_until is not None:
            return
        if self._idle_since is not None:
            self._idle_since = None
            self._head_since = self.loop.time()
        view: bytes | memoryview = data
        while view:
            room = self._table.header_bytes_max - self._bytes_since_milestone
            if len(view) <= room:
                piece, view = view, b""
            else:
                view = memoryview(view)
                piece, view = view[:room], view[room:]
            self._bytes_since_milestone += len(piece)
            rest = self._feed(piece)
            if rest is None:
                return
            if rest:
                view = bytes(rest) + bytes(view)
            if self._bytes_since_milestone >= self._table.header_bytes_max:
                self._refuse(431, f"Over {self._table.header_bytes_max} bytes without an end.")
                return

    def _feed(self, piece: bytes | memoryview) -> bytes | memoryview | None:
        """What the parser left over; None when the connection is done for."""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            # An upgrade is an offer; it is not taken. What follows is the next request.
            return piece[upgrade.args[0] :]
        except httptools.HttpParserError:
            refusal = self._refusal or _Refused(400, "This is no valid HTTP/1.1 request.")
            self._refuse(refusal.status, refusal.message)
            return None
        return b""

    # What the parser says.

    def on_message_begin(self) -> None:
        """Another request."""
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are dropped, they must not become headers of the request."""
        if not self._reading_body:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Refuse what would be read differently by someone in front of us; else go on."""
        self._head_since = None
        self._reading_body = True
        self._bytes_since_milestone = 0
        version = self._parser.get_http_version()
        names = dict(self._headers)
        self._check_head(version, names)
        path, _, query = self._url.partition(b"?")
        text = path.decode("ascii")
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": self._parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": self._addresses[0],
            "server": self._addresses[1],
        }
        turn = self._arriving = Turn(
            self,
            scope,
            keeps_alive=version == "1.1" and self._parser.should_keep_alive(),
            expects_continue=names.get(b"expect", b"").lower() == b"100-continue",
        )
        scope["state"] = {"line": turn, "transport": self.transport}
        if self._running is None or self._running.is_answered:
            self._start(turn)
        else:
            self._waiting.append(turn)
            self._wait_in_line(sum(len(name) + len(value) for name, value in self._headers))

    def _check_head(self, version: str, names: Mapping[bytes, bytes]) -> None:
        if len(self._headers) > HEADERS_MAX:
            self._raise_refusal(431, f"More than {HEADERS_MAX} headers.")
        if version not in ("1.1", "1.0"):
            self._raise_refusal(505, "This service speaks HTTP/1.1 and HTTP/1.0.")
        if not self._url.startswith(b"/") or b"#" in self._url or not self._url.isascii():
            self._raise_refusal(400, "The request target must be a path that begins with '/'.")
        is_encoded = b"transfer-encoding" in names
        if is_encoded and (version == "1.0" or b"content-length" in names):
            self._raise_refusal(400, "Transfer-Encoding needs HTTP/1.1 without Content-Length.")
        if self._parser.should_upgrade() and (is_encoded or b"content-length" in names):
            self._raise_refusal(400, "A request with a body cannot ask for an upgrade.")
        if len(self._waiting) >= PIPELINE_MAX:
            self._raise_refusal(429, f"More than {PIPELINE_MAX} requests before an answer.")

    def on_body(self, body: bytes) -> None:
        """Pass a piece on, unless the answer did not wait for it."""
        self._bytes_since_milestone = 0
        turn = self._arriving
        if self._waiting:
            self._wait_in_line(len(body))
        if turn is not None and not turn.is_answered:
            turn.take(body)
            if turn.held_bytes > BODY_BYTES_HELD_MAX and not self._waiting:
                self._pause_reading()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._bytes_since_milestone = 0
        self._reading_body = False
        turn, self._arriving = self._arriving, None
        if turn is not None and not turn.is_answered:
            turn.more_body = False
            turn.tell()

    def _wait_in_line(self, size: int) -> None:
        """Reading goes on behind a request that is being answered: a hang-up must be seen."""
        self._waiting_bytes += size
        if self._waiting_bytes > self._table.header_bytes_max:
            self._raise_refusal(429, "Too many bytes behind a request that is being answered.")

    def _raise_refusal(self, status: int, message: str) -> None:
        """Leave the parser by the only way there is: an exception that it replaces."""
        self._refusal = _Refused(status, message)
        raise self._refusal

    # The turns.

    def _start(self, turn: Turn) -> None:
        self._running = turn
        task = self.loop.create_task(self._run(turn))
        self.listener.tasks.add(task)
        task.add_done_callback(self.listener.tasks.discard)

    async def _run(self, turn: Turn) -> None:
        """Have the app answer; one that does not is answered for, or its connection closed."""
        try:
            await self.listener.app(turn.scope, turn.receive, turn.send)
        except Exception:  # noqa: BLE001 - whatever it is, its caller is answered
            _log.exception("the application failed")
        if turn.is_answered or turn.is_gone or self.transport.is_closing():
            return
        if turn.is_started:
            self.transport.close()
        else:
            body = b"Internal Server Error"
            turn.begin(500, {"content-type": "text/plain"}, len(body))
            await turn.write(body, is_last=True)

    def turn_ended(self, turn: Turn) -> None:
        """An answer is complete: the next request, idleness, or the end."""
        turn.tell()
        if turn.more_body:
            # Closing under a body that is still on its way would reset the connection, so that
            # the caller never sees this answer; to read all of it has no bound.
            self._linger(self._table.header_timeout_seconds)
            return
        if not turn.keeps_alive:
            self.transport.close()
        if self.transport.is_closing():
            return
        self.resume_reading()
        if self._waiting:
            self._start(self._waiting.popleft())
        else:
            self._waiting_bytes = 0
            self._idle_since = self.loop.time()

    # Ends.

    def shut_down(self) -> None:
        """Take no further request: close when the one under way is answered."""
        if self._running is None or self._running.is_answered:
            self.transport.close()
        else:
            self._running.keeps_alive = False

    def _refuse(self, status: int, message: str) -> None:
        """Answer in one go, read no more, and close once the caller had time to see it."""
        turn = self._running
        if turn is not None and turn.is_answered:
            turn = None
        if turn is not None and (turn.is_started or not turn.more_body):
            # An answer to an earlier request is under way; a second one would be taken for it.
            self.transport.abort()
            return
        if turn is not None:
            turn.is_gone = True
            turn.tell()
            self.hang_up.tell()
        self.transport.write(_refusal_bytes(status, message))
        self._linger(LINGER_SECONDS)

    def _linger(self, seconds: float) -> None:
        """Read and throw away for a while, so that the caller sees its answer before the end."""
        if self.transport.is_closing():
            return
        self._lingers_until = self.loop.time() + seconds
        self.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def sweep(self, now: float) -> None:
        """Cut the connection if it is late. ``now`` is the loop's time in seconds."""
        if self._lingers_until is not None:
            if now > self._lingers_until:
                self.transport.abort()
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent_bytes:
            self._unsent_since = now
        elif now - self._unsent_since > self._table.write_timeout_seconds:
            self.transport.abort()
            return
        self._unsent_bytes = unsent
        if _older(self._head_since, now, self._table.header_timeout_seconds):
            if self._bytes_since_milestone:
                self._refuse(408, "The request's head did not arrive in time.")
            else:
                self.transport.close()
        elif _older(self._idle_since, now, IDLE_SECONDS_MAX):
            self.transport.close()


def _older(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since > seconds


def _refusal_bytes(status: int, message: str) -> bytes:
    """A whole answer in the shape that doors use: callers see one kind of error."""
    phrase = HTTPStatus(status).phrase.lower().replace(" ", "_")
    kind = InvalidRequest if status < 500 else CallError
    error = kind(message, status=status, code=phrase)
    _, headers, body = render(error, ErrorShape.OPENAI, secrets.token_hex(16))
    headers |= {"content-length": str(len(body)), "connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"%b%b\r\n%b" % (_STATUS_LINES[status], lines.encode("ascii"), body)
