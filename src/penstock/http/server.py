"""The HTTP server: it listens, sweeps over its connections, and stops in good order.

uvicorn's ``Server`` is not used: it owns signals and exits the process, which is for the
composition root to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Sequence
from email.utils import formatdate
from operator import attrgetter
from pathlib import Path
from typing import Final, cast

from penstock.config.model import ServerTable
from penstock.http.connection import Connection, Listener
from penstock.http.connection_bounds import Bound
from penstock.http.line import Application

SWEEP_SECONDS_MAX: Final = 1.0
BACKLOG: Final = 2048

_log = logging.getLogger("penstock.http")


class HttpServer:
    """Listens, and serves an ASGI app.

    On a TCP address (``table.host`` and ``table.port``), on ``sockets`` that are already bound,
    or on a Unix socket at ``uds``, readable by this user alone. ``on_refused`` is told of each
    connection over a bound.
    """

    def __init__(
        self,
        app: Application,
        table: ServerTable,
        *,
        sockets: Sequence[socket.socket] | None = None,
        uds: str | os.PathLike[str] | None = None,
        on_refused: Callable[[Bound], None] = lambda _bound: None,
    ) -> None:
        self._sockets = list(sockets) if sockets is not None else None
        self._uds = Path(uds) if uds is not None else None
        self._listener = Listener(app, table, self._connection_lost, on_refused)
        self._unconnected = asyncio.Event()
        self._unconnected.set()
        self._servers: list[asyncio.Server] = []
        self._sweep_handle: asyncio.TimerHandle | None = None
        self.adopt(table)

    def adopt(self, table: ServerTable) -> None:
        """Go by the bounds of this table from now on; connections that are open keep theirs."""
        self._table = self._listener.table = table
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

        def connection() -> Connection:
            return Connection(self._listener, loop)

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
        for connection in list(self._listener.connections):
            connection.shut_down()
        deadline = asyncio.get_running_loop().time() + drain_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._drained()
        tasks = list(self._listener.tasks)
        for task in tasks:
            task.cancel("the server stopped")
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for connection in list(self._listener.connections):
            connection.transport.abort()
        await self._all_closed()

    async def _drained(self) -> None:
        """Return when no request is in progress and everything written has been taken."""
        while self._listener.tasks:
            await asyncio.wait(list(self._listener.tasks))
            await asyncio.sleep(0)  # a pipelined request starts, a done task leaves
        await self._all_closed()

    async def _all_closed(self) -> None:
        if self._listener.connections:
            self._unconnected.clear()
            await self._unconnected.wait()

    def _connection_lost(self) -> None:
        if not self._listener.connections:
            self._unconnected.set()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at every connection, and set the Date header for the next second."""
        self._listener.date_line = b"date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        now = loop.time()
        untaken_bytes = 0
        for connection in list(self._listener.connections):
            connection.sweep(now)
            untaken_bytes += connection.untaken_bytes
        if untaken_bytes > self._table.bodies_bytes_max:
            self._cut_slowest(untaken_bytes - self._table.bodies_bytes_max)
        self._sweep_handle = loop.call_later(self._sweep_seconds, self._sweep, loop)

    def _cut_slowest(self, excess_bytes: int) -> None:
        """Cut those who hold most, since callers have left too much untaken, all together.

        A stream waits for its reader; a whole answer has nowhere else to be, and 64 MiB of it
        for each of a few hundred callers who take nothing are more than a machine has.
        """
        cut = 0
        by_size = attrgetter("untaken_bytes")
        for connection in sorted(self._listener.connections, key=by_size, reverse=True):
            connection.transport.abort()
            excess_bytes -= connection.untaken_bytes
            cut += 1
            if excess_bytes <= 0:
                break
        _log.warning("%d callers were cut off: they left too much of their answers untaken", cut)


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
