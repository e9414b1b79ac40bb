"""Runs the sandbox on a socket, on the same HTTP server as Penstock itself.

Stopping breaks off what is in flight: a sandbox owes nobody an end, and whoever uses it learns
what a provider's death looks like.
"""

from __future__ import annotations

import asyncio
import socket

from penstock.config.model import ServerTable
from penstock.http.server import HttpServer
from penstock.sandbox.app import Sandbox

BACKLOG = 2048
DRAIN_SECONDS = 1.0
"""For what was broken off to be counted; nothing is answered any more."""


class SandboxServer:
    """One sandbox on one socket. ``port`` 0 takes any free one; raises OSError if taken."""

    def __init__(self, sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sandbox = sandbox
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.port: int = bound.getsockname()[1]
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        self._server = HttpServer(sandbox, ServerTable(), sockets=[bound])
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Serve until ``stop``. The socket listens already: connections made now are kept."""
        await self._server.start()
        await self._stopped.wait()
        self.sandbox.break_off()
        await self._server.stop(DRAIN_SECONDS)

    def stop(self) -> None:
        """Let ``run`` return, within two seconds. Only from the loop's own thread."""
        self._stopped.set()
