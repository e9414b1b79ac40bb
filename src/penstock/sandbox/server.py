"""Runs the sandbox on a socket: uvicorn with httptools, whose connections can be broken.

Stopping aborts what is in flight: a sandbox owes nobody an end, and whoever uses it learns
what a provider's death looks like.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock.sandbox.app import Sandbox
from penstock.sandbox.wire import TRANSPORT

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75


class _BreakableProtocol(HttpToolsProtocol):
    """Hands its transport on, so that a fault can reset the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]  # ASGI says dicts


class _Server(uvicorn.Server):
    """Leaves signals to the command line, and waits for nobody when it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


class SandboxServer:
    """One sandbox on one socket. ``port`` 0 takes any free one; raises OSError if taken."""

    def __init__(self, sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sandbox = sandbox
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        self._server = _Server(
            uvicorn.Config(
                sandbox,
                http=_BreakableProtocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,
            )
        )

    async def run(self) -> None:
        """Serve until ``stop``. The socket listens already: connections made now are kept."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Let ``run`` return, within two seconds. Only from the loop's own thread."""
        self._server.should_exit = True


@contextlib.asynccontextmanager
async def serving(server: SandboxServer) -> AsyncGenerator[None]:
    """Serve while the block runs."""
    running = asyncio.create_task(server.run())
    try:
        yield
    finally:
        server.stop()
        await running
