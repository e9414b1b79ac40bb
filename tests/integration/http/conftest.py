"""A server over loopback, on both event loops, and callers that write raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.routing import Route

from penstock.config.model import ServerTable
from penstock.http.auth import Authenticator, Principal, digest
from penstock.http.door import Access, Desk, Door, ErrorShape, Handler
from penstock.http.entrance import Entrance
from penstock.http.exchange import Exchange
from penstock.http.server import HttpServer, event_loop_factory
from penstock.telemetry.metrics import Metrics
from penstock.units import Outcome

PEPPER = b"pepper of the tests"
ANSWER_SECONDS_MAX = 10.0


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a test's coroutine; fails when it leaves a task behind."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else event_loop_factory()

    def run_it(coroutine: Coroutine[Any, Any, None]) -> None:
        async def checked() -> None:
            async with asyncio.timeout(60):
                await coroutine
            await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(checked())

    return run_it


async def _echo(exchange: Exchange) -> Outcome:
    await exchange.respond(200, await exchange.body(), "application/octet-stream")
    return Outcome.SUCCESS


class Service:
    """One running server: its desk, its port, and ways to call it."""

    def __init__(self, server: HttpServer, desk: Desk) -> None:
        self.server = server
        self.desk = desk
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection with nothing said yet."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self._writers.append(writer)
        return reader, writer

    async def talk(self, *pieces: bytes) -> bytes:
        """Everything that is answered to the pieces until the server closes."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            return await reader.read()

    async def rest_of(self, reader: asyncio.StreamReader) -> bytes:
        """What still comes until the server closes; nothing where it resets."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await reader.read()
        except ConnectionError:
            return b""

    async def hang_up(self) -> None:
        """Close every caller's connection."""
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def count(self, **labels: str) -> float:
        """The request counter's value for those labels."""
        return sum(
            sample.value
            for metric in self.desk.metrics.registry.collect()
            if metric.name == "penstock_requests"
            for sample in metric.samples
            if sample.name.endswith("_total")
            and all(sample.labels[name] == value for name, value in labels.items())
        )


@pytest.fixture
def serving(caplog: pytest.LogCaptureFixture) -> Callable[..., Any]:
    """``async with serving(handler or routes, **server_table) as service``."""
    caplog.set_level(logging.INFO, "penstock.request")

    @asynccontextmanager
    async def start(
        handler: Handler | None = None,
        *,
        shape: ErrorShape = ErrorShape.OPENAI,
        access: Access = Access.PUBLIC,
        app: Callable[..., Awaitable[None]] | None = None,
        routes: Sequence[tuple[str, str, Handler, Access]] = (),
        sockets: Sequence[socket.socket] | None = None,
        **table: Any,
    ) -> AsyncIterator[Service]:
        server_table = ServerTable(port=0, **table)
        user = Principal("user", "acme", "standard", "interactive")
        admin = Principal("boss", "acme", "standard", "interactive", admin=True)
        known = {digest("user-key", PEPPER): user, digest("admin-key", PEPPER): admin}
        desk = Desk(Authenticator(known, PEPPER), server_table, Metrics())

        def door(handler: Handler, access: Access) -> Door:
            return Door(handler, access=access, shape=shape, door="test", desk=desk)

        listed = [
            Route(path, door(one, needs), methods=[method]) for method, path, one, needs in routes
        ] or [Route("/", door(handler or _echo, access), methods=["GET", "POST"])]
        server = HttpServer(app or Entrance(listed, desk), server_table, sockets=sockets)
        await server.start()
        service = Service(server, desk)
        try:
            yield service
        finally:
            await service.hang_up()
            await server.stop(0)

    return start
