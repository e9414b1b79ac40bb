"""The HTTP server: uvicorn's httptools protocol with limits of our own in front.

httptools (llhttp) is the fast parser and a strict one, but as uvicorn drives it nothing bounds a
request's head: one unauthenticated connection with a 64 MiB header stalled every other caller
for seconds. h11 has a bound, at several times the CPU per request. So the bytes are counted
before the parser gets them: between two milestones (a complete head, a piece of a body, the end
of a message) at most ``header_bytes_max`` may pass. That one rule covers endless request lines,
headers, trailers and chunk extensions, and the parser never holds more than that.

Time-outs are not timers per request. One sweep over all connections a few times a second looks
at three moments that each connection notes: since when it owes a head, since when it is idle,
since when it has taken nothing of what we wrote. That costs nothing on the hot path, and is as
precise as the sweep.

uvicorn's ``Server`` is not used: it owns signals and exits the process, which is for the
composition root to do. granian was rejected: it answers 500 to malformed chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from penstock.config.model import ServerTable
from penstock.errors import CallError, InvalidRequest
from penstock.http.error_body import ErrorShape, render
from penstock.http.exchange import HangUp

IDLE_SECONDS_MAX: Final = 75.0
"""How long an idle connection is kept: longer than the 60 s of common load balancers, so that
it is they who close first."""
LINGER_SECONDS: Final = 2.0
"""How long a refused connection is read and thrown away: closing at once would reset it, and
the caller would never see why."""
HEADERS_MAX: Final = 256
PIPELINE_MAX: Final = 64
"""Requests that may wait on one connection behind the one that is being answered; together they
may have ``header_bytes_max`` bytes. uvicorn stops to read there, and then sees no hang-up."""
OVERFLOW_CONNECTIONS: Final = 128
"""So many connections over the cap are told 503; the rest are cut without a word."""
SWEEP_SECONDS_MAX: Final = 1.0
BACKLOG: Final = 2048


class _Refused(Exception):
    """Raised inside a parser callback; carries the status to refuse with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class GuardedHttpToolsProtocol(HttpToolsProtocol):
    """One connection, with bounds on everything that a caller can make long or slow.

    The app finds the transport in ``scope["state"]["transport"]`` and, beside it in ``hang_up``,
    what tells it that the caller is gone.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        table: ServerTable,
        lost: Callable[[], None],
    ) -> None:
        super().__init__(config, server_state, {}, asyncio.get_running_loop())
        self._table = table
        self._lost = lost
        self._head_since: float | None = None
        self._idle_since: float | None = None
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._lingers_until: float | None = None
        self._running: RequestResponseCycle | None = None
        self._pipelined_bytes = 0
        self._reading_body = False
        self._bytes_since_milestone = 0
        self._refusal: _Refused | None = None

    # What the transport says.

    # uvicorn narrows the argument's type, too: its protocols only ever get a Transport.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self._hang_up = HangUp()
        self.app_state = {"transport": transport, "hang_up": self._hang_up}
        self._unsent_since = self._head_since = self.loop.time()
        excess = len(self.connections) - self._table.connections_max
        if excess > OVERFLOW_CONNECTIONS:
            transport.abort()
        elif excess > 0:
            self._refuse(503, "Too many connections.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request in progress that its caller is gone.

        uvicorn tells the one that came last, which only waits where requests are pipelined.
        """
        super().connection_lost(exc)
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
            self._hang_up.tell()
        self.app_state = {}
        self._lost()

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
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            # An upgrade is an offer; it is not taken. What follows is the next request.
            return piece[upgrade.args[0] :]
        except httptools.HttpParserError:
            refusal = self._refusal or _Refused(400, "This is no valid HTTP/1.1 request.")
            self._refuse(refusal.status, refusal.message)
            return None
        return b""

    # What the parser says.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are dropped, they must not become headers of the request."""
        if self._reading_body:
            return
        if len(self.headers) >= HEADERS_MAX:
            self._raise_refusal(431, f"More than {HEADERS_MAX} headers.")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuse what would be read differently by someone in front of us; else go on."""
        self._head_since = None
        self._reading_body = True
        self._bytes_since_milestone = 0
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._raise_refusal(505, "This service speaks HTTP/1.1 and HTTP/1.0.")
        if not self.url.startswith(b"/") or b"#" in self.url:
            self._raise_refusal(400, "The request target must be a path that begins with '/'.")
        names = [name for name, _ in self.headers]
        encoded = b"transfer-encoding" in names
        if encoded and (version == "1.0" or b"content-length" in names):
            self._raise_refusal(400, "Transfer-Encoding needs HTTP/1.1 without Content-Length.")
        if self.parser.should_upgrade() and (encoded or b"content-length" in names):
            self._raise_refusal(400, "A request with a body cannot ask for an upgrade.")
        if len(self.pipeline) >= PIPELINE_MAX:
            self._raise_refusal(429, f"More than {PIPELINE_MAX} requests before an answer.")
        super().on_headers_complete()
        if self.pipeline:
            self._wait_in_line(sum(len(name) + len(value) for name, value in self.headers))
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """Pass a piece on."""
        self._bytes_since_milestone = 0
        if self.pipeline:
            self._wait_in_line(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._bytes_since_milestone = 0
        self._reading_body = False
        super().on_message_complete()

    def _wait_in_line(self, size: int) -> None:
        self._pipelined_bytes += size
        if self._pipelined_bytes > self._table.header_bytes_max:
            self._raise_refusal(429, "Too many bytes behind a request that is being answered.")

    def _raise_refusal(self, status: int, message: str) -> None:
        """Leave the parser by the only way there is: an exception that it replaces."""
        self._refusal = _Refused(status, message)
        raise self._refusal

    # What the answer says.

    # uvicorn's own method, overridden because it is the one place where a request begins to run.
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, partial(self._run, cycle, app))

    async def _run(
        self, cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Any
    ) -> None:
        await app(scope, receive, partial(self._send_early, cycle) if cycle.more_body else send)
        if self.transport.is_closing():
            # Nobody can get the rest; uvicorn would log that as an error, and send a 500.
            cycle.disconnected = True

    async def _send_early(self, cycle: RequestResponseCycle, message: Any) -> None:
        """Send what may come before the end of the request's body: the connection's last answer.

        uvicorn would close under the body that is still on its way, or, where it keeps the
        connection, read it to its end. The first resets the connection, so that the caller never
        sees the answer; the second has no bound.
        """
        if cycle.more_body and message["type"] == "http.response.start":
            cycle.keep_alive = False
        is_end = message["type"] == "http.response.body" and not message.get("more_body")
        if not (is_end and cycle.more_body):
            await cycle.send(message)
            return
        cycle.keep_alive = True  # so that uvicorn leaves it open
        await cycle.send(message)
        self._linger(self._table.header_timeout_seconds)

    def on_response_complete(self) -> None:
        """Go on with the next pipelined request, or be idle. Arms no timer, unlike uvicorn."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._pipelined_bytes = 0
            self._idle_since = self.loop.time()

    # Ends.

    def _refuse(self, status: int, message: str) -> None:
        """Answer in one go, read no more, and close once the caller had time to see it."""
        cycle = self._running
        if cycle is not None and cycle.response_complete:
            cycle = None
        if cycle is not None and (cycle.response_started or not cycle.more_body):
            # An answer to an earlier request is under way; a second one would be taken for it.
            self.transport.abort()
            return
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
            self._hang_up.tell()
        self.transport.write(_refusal_bytes(status, message))
        self._linger(LINGER_SECONDS)

    def _linger(self, seconds: float) -> None:
        """Read and throw away for a while, so that the caller sees its answer before the end."""
        if self.transport.is_closing():
            return
        self._lingers_until = self.loop.time() + seconds
        self.flow.resume_reading()
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
    return b"%b%b\r\n%b" % (STATUS_LINE[status], lines.encode("ascii"), body)


class HttpServer:
    """Listens, and serves an ASGI app.

    On a TCP address (``table.host`` and ``table.port``), on ``sockets`` that are already bound,
    or on a Unix socket at ``uds``, readable by this user alone.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        table: ServerTable,
        *,
        sockets: Sequence[socket.socket] | None = None,
        uds: str | os.PathLike[str] | None = None,
    ) -> None:
        self._table = table
        self._sockets = list(sockets) if sockets is not None else None
        self._uds = Path(uds) if uds is not None else None
        self._config = uvicorn.Config(
            app,
            http=GuardedHttpToolsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._config.load()
        self._state = ServerState()
        self._unconnected = asyncio.Event()
        self._unconnected.set()
        self._servers: list[asyncio.Server] = []
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._sweep_seconds = min(
            SWEEP_SECONDS_MAX, table.header_timeout_seconds / 4, table.write_timeout_seconds / 4
        )

    @property
    def port(self) -> int:
        """The TCP port that it listens on. Raises RuntimeError before ``start``, or without one."""
        for server in self._servers:
            for bound in server.sockets:
                if bound.family in (socket.AF_INET, socket.AF_INET6):
                    return cast("int", bound.getsockname()[1])
        raise RuntimeError("this server listens on no TCP port")

    async def start(self) -> None:
        """Listen; connections are taken when it returns. Raises OSError."""
        loop = asyncio.get_running_loop()

        def connection() -> GuardedHttpToolsProtocol:
            return GuardedHttpToolsProtocol(
                self._config, self._state, self._table, self._connection_lost
            )

        self._sweep(loop)
        if self._uds is not None:
            bound = _bind_unix(self._uds)
            self._servers = [await loop.create_unix_server(connection, sock=bound, backlog=BACKLOG)]
        elif self._sockets is not None:
            for given in self._sockets:
                self._servers.append(
                    await loop.create_server(connection, sock=given, backlog=BACKLOG)
                )
        else:
            self._servers = [
                await loop.create_server(
                    connection, self._table.host, self._table.port, backlog=BACKLOG
                )
            ]

    async def stop(self, drain_seconds: float) -> None:
        """Take no more connections, let answers in progress end within the limit, then cut."""
        for server in self._servers:
            server.close()
        if self._uds is not None:
            self._uds.unlink(missing_ok=True)
        for connection in list(self._state.connections):
            connection.shutdown()
        deadline = asyncio.get_running_loop().time() + drain_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._drained()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel("the server stopped")
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._all_closed()

    async def _drained(self) -> None:
        """Return when no request is in progress and everything written has been taken."""
        while self._state.tasks:
            await asyncio.wait(list(self._state.tasks))
            await asyncio.sleep(0)  # a pipelined request starts, a done task leaves
        await self._all_closed()

    async def _all_closed(self) -> None:
        if self._state.connections:
            self._unconnected.clear()
            await self._unconnected.wait()

    def _connection_lost(self) -> None:
        if not self._state.connections:
            self._unconnected.set()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at every connection, and set the Date header for the next second."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode("ascii"))]
        now = loop.time()
        for connection in list(self._state.connections):
            cast("GuardedHttpToolsProtocol", connection).sweep(now)
        self._sweep_handle = loop.call_later(self._sweep_seconds, self._sweep, loop)


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed, for ``asyncio.run(..., loop_factory=...)``."""
    try:
        import uvloop  # noqa: PLC0415 - CPython only, so it may be missing
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _bind_unix(path: Path) -> socket.socket:
    """A socket at that path for this user alone: nobody can connect before the mode is set."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound
