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
from penstock.http.connection_bounds import Bound, ConnectionBounds, counted_address
from penstock.http.error_body import ErrorShape, render
from penstock.http.head import Fields, Head, RequestLine
from penstock.http.line import Application, HangUp
from penstock.http.turn import STATUS_LINES, Turn

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
BODY_BYTES_HELD_MAX: Final = 64 * 1024
"""Of a body that nobody has asked for yet; then reading stops until somebody does."""

_log = logging.getLogger("penstock.http")


class _Refused(Exception):
    """Raised inside a parser callback; carries the status to refuse with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Listener:
    """What all connections of one server share. ``date_line`` is set anew every second."""

    def __init__(
        self,
        app: Application,
        table: ServerTable,
        on_lost: Callable[[], None],
        on_refused: Callable[[Bound], None],
    ) -> None:
        self.app = app
        self.table = table
        self.on_lost = on_lost
        self.date_line = b""
        self.bounds = ConnectionBounds(on_refused)
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()


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
        self._fields: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._arriving: Turn | None = None
        self._running: Turn | None = None
        self._waiting: deque[Turn] = deque()
        self._waiting_bytes = 0
        self._is_paused = False
        self._head_since: float | None = None
        self._idle_since: float | None = None
        self.written_bytes = 0
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
        self.listener.connections.add(self)
        self._unsent_since = self._head_since = self.loop.time()
        address = counted_address(*self._addresses)
        entry = self.listener.bounds.enter(self, address, self._table)
        if entry == "cut":
            self.transport.abort()
        elif entry is not None:
            self._turn_away(entry)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the contract
        """Tell whoever is at work that the caller is gone."""
        self.listener.connections.discard(self)
        self.listener.bounds.leave(self)
        for turn in (self._running, *self._waiting, self._arriving):
            if turn is not None and not turn.is_answered:
                turn.is_gone = True
                turn.tell()
        self._waiting.clear()
        self.resume_writing()
        if self._running is not None and not self._running.is_answered:
            self.hang_up.tell()
        # They lead back to here, and circles are looked for rarely.
        self._running = self._arriving = None
        del self._parser
        self.listener.on_lost()

    def pause_writing(self) -> None:
        """The caller reads slower than we write."""
        self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """It has caught up."""
        writable, self.writable = self.writable, None
        if writable is not None:
            writable.set()
        if self._waiting and self._running is not None and self._running.is_answered:
            self._start_next()

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

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are dropped, they must not become headers of the request."""
        if not self._reading_body:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Refuse what would be read differently by someone in front of us; else go on."""
        self._head_since = None
        self._reading_body = True
        self._bytes_since_milestone = 0
        head = self._head
        parser, version = self._parser, self._parser.get_http_version()
        fields, line = self._fields, (parser.get_method(), self._url, version)
        if len(fields) > HEADERS_MAX:
            self._raise_refusal(431, f"More than {HEADERS_MAX} headers.")
        if len(self._waiting) >= PIPELINE_MAX:
            self._raise_refusal(429, f"More than {PIPELINE_MAX} requests before an answer.")
        varying = None if head is None or head.line != line else head.varying_of(fields)
        if head is None or varying is None:
            head, varying = self._read_head(line)
            # CONNECT asks for an upgrade without a field that says so: a body would be refused.
            is_kept = head.is_worth_keeping and not parser.should_upgrade()
            self._head = head if is_kept else None
        scope = head.scope.copy()
        scope["headers"] = [*head.fields, *varying]
        turn = self._arriving = Turn(
            self, scope, keeps_alive=head.keeps_alive, expects_continue=head.expects_continue
        )
        scope["state"] = {
            "line": turn,
            "transport": self.transport,
            "head": head,
            "varying": varying,
        }
        # An idle connection is not to hold them beside the head that is kept.
        self._url, self._fields = b"", []
        is_free = self._running is None or self._running.is_answered
        if is_free and self.writable is None:
            self._start(turn)
        else:
            # A whole answer is not held up by a slow reader; so the request behind it is.
            self._waiting.append(turn)
            self._wait_in_line(_head_bytes(turn))

    def _read_head(self, line: RequestLine) -> tuple[Head, Fields]:
        """What the head says, unless it is refused, and what varies in it."""
        method, url, version = line
        head, varying = Head.read(self._fields, line)
        self._check_head(url, version, head.named, varying)
        path, _, query = url.partition(b"?")
        text = path.decode("ascii")
        head.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": "http",
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "client": self._addresses[0],
            "server": self._addresses[1],
        }
        if version == "1.1":
            head.keeps_alive = self._parser.should_keep_alive()
            head.expects_continue = head.named.get("expect", "").lower() == "100-continue"
        return head, varying

    def _check_head(
        self, url: bytes, version: str, named: Mapping[str, str], varying: Fields
    ) -> None:
        if version not in ("1.1", "1.0"):
            self._raise_refusal(505, "This service speaks HTTP/1.1 and HTTP/1.0.")
        if not url.startswith(b"/") or b"#" in url or not url.isascii():
            self._raise_refusal(400, "The request target must be a path that begins with '/'.")
        is_encoded = "transfer-encoding" in named
        has_length = any(name == b"content-length" for name, _ in varying)
        if is_encoded and (version == "1.0" or has_length):
            self._raise_refusal(400, "Transfer-Encoding needs HTTP/1.1 without Content-Length.")
        if is_encoded and named["transfer-encoding"].lower() != "chunked":
            self._raise_refusal(400, "Transfer-Encoding must be 'chunked' and nothing beside it.")
        if self._parser.should_upgrade() and (is_encoded or has_length):
            self._raise_refusal(400, "A request with a body cannot ask for an upgrade.")

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
        if self._is_paused:
            self.resume_reading()  # nobody asks for more, and a hang-up must be seen

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
        # Without a name a task writes itself one.
        turn.task = asyncio.Task(self._run(turn), loop=self.loop, name="request")
        self.listener.tasks.add(turn.task)

    def _start_next(self) -> None:
        if not self.transport.is_closing():
            turn = self._waiting.popleft()
            self._waiting_bytes -= _head_bytes(turn) + turn.held_bytes
            self._start(turn)

    async def _run(self, turn: Turn) -> None:
        """Have the app answer; one that does not is answered for, or its connection closed."""
        try:
            await self.listener.app(turn.scope, turn.receive, turn.send)
        except Exception:  # noqa: BLE001 - whatever it is, its caller is answered
            _log.exception("the application failed")
        finally:
            self.listener.tasks.discard(turn.task)
        # Each leads to the other: so they would lie here, with a body that nobody asked for,
        # until circles are looked for, which is rarely.
        del turn.scope, turn.task
        if turn.is_answered or turn.is_gone or self.transport.is_closing():
            return
        if turn.is_started:
            turn.close()
        else:
            body = b"Internal Server Error"
            turn.begin(500, {"content-type": "text/plain"}, len(body))
            turn.write(body, is_last=True)

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
        if not self._waiting:
            self._idle_since = self.loop.time()
        elif self.writable is None:
            self._start_next()

    # Ends.

    def shut_down(self) -> None:
        """Take no further request: close when the one under way is answered."""
        if self._running is None or self._running.is_answered:
            self.transport.close()
        else:
            self._running.keeps_alive = False

    @property
    def untaken_bytes(self) -> int:
        """What it held at the last sweep that its caller had not taken.

        What was written at once stays whole until its last byte is gone.
        """
        return max(self._unsent_bytes, self.written_bytes) if self._unsent_bytes else 0

    def _refuse(self, status: int, message: str) -> None:
        """Answer in one go, read no more, and close once the caller had time to see it."""
        turn = self._running
        if turn is not None and turn.is_answered:
            turn = None
        if self._waiting or (turn is not None and (turn.is_started or not turn.more_body)):
            # An answer to an earlier request is under way; a second one would be taken for it.
            self.transport.abort()
            return
        if turn is not None:
            turn.is_gone = True
            turn.tell()
            self.hang_up.tell()
        phrase = HTTPStatus(status).phrase.lower().replace(" ", "_")
        kind = InvalidRequest if status < 500 else CallError
        self._turn_away(kind(message, status=status, code=phrase))

    def _turn_away(self, error: CallError) -> None:
        self.transport.write(_refusal_bytes(error))
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


def _head_bytes(turn: Turn) -> int:
    return sum(len(name) + len(value) for name, value in turn.scope["headers"])


def _older(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since > seconds


def _refusal_bytes(error: CallError) -> bytes:
    """A whole answer in the shape that doors use: callers see one kind of error."""
    status, headers, body = render(error, ErrorShape.OPENAI, secrets.token_hex(16))
    headers |= {"content-length": str(len(body)), "connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"%b%b\r\n%b" % (STATUS_LINES[status], lines.encode("ascii"), body)
