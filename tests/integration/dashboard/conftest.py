"""The live page on a real server, and a real Chromium spoken to over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from penstock.config.model import ServerTable
from penstock.dashboard.page import routes
from penstock.dashboard.snapshot import (
    ClassView,
    DeploymentView,
    LimitView,
    LiveSnapshot,
    TenantView,
    Totals,
    WorkerView,
)
from penstock.http.auth import Authenticator, Principal, digest
from penstock.http.door import Desk
from penstock.http.entrance import Entrance
from penstock.http.server import HttpServer
from penstock.telemetry.metrics import Metrics

PEPPER = b"pepper of the tests"
HOSTILE_NAME = "<img src=x onerror=document.title='owned'>"
# Without these Chromium asks hosts of its maker, which a closed network refuses.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


def snapshot(waiting: int = 41) -> LiveSnapshot:
    """A busy service; one tenant has a name that is made to hurt."""
    return LiveSnapshot(
        now=1_800_000_000.0,
        deployments=[
            DeploymentView(
                "gpt-main",
                [
                    LimitView("rpm", 87.4, 600, 10, reserve=60, source="configured"),
                    LimitView("tpm", 1_250_000, 2_000_000, 33_333.3, 200_000, "learnt"),
                    LimitView("concurrency", 3, 32, 0),
                ],
                in_flight=29,
            ),
            DeploymentView(
                "claude-eu",
                [LimitView("itpm", -1200.5, 80_000, 1333.3), LimitView("rpm", 50, 50, 0.83)],
                paused_seconds=7.2,
                answers_429=3,
            ),
        ],
        classes=[
            ClassView("batch", 2, waiting, 20, 93.2),
            ClassView("interactive", 0, 0, 4, 0.0),
            ClassView("standard", 1, 3, 5, 0.42),
        ],
        tenants=[TenantView("acme", 30, 20, 93.2), TenantView(HOSTILE_NAME, 14, 9, 12.0)],
        workers=[WorkerView("worker-1", alive=True, runs=12), WorkerView("worker-2", alive=False)],
        totals=Totals(waiting + 3, 29, 93.2, 9.97, 3),
    )


class Source:
    """Where the page's numbers come from in a test; ``waiting`` may be changed."""

    def __init__(self) -> None:
        self.waiting = 41
        self.asked = 0

    def __call__(self) -> LiveSnapshot:
        self.asked += 1
        return snapshot(self.waiting)


@pytest.fixture
def serving() -> Callable[..., Any]:
    """``async with serving() as (server, source)``."""

    @asynccontextmanager
    async def start() -> AsyncIterator[tuple[HttpServer, Source]]:
        admin = Principal("boss", "acme", "standard", "interactive", admin=True)
        user = Principal("user", "acme", "standard", "interactive")
        keys = {digest("admin-key", PEPPER): admin, digest("user-key", PEPPER): user}
        table = ServerTable(port=0)
        desk = Desk(Authenticator(keys, PEPPER), table, Metrics())
        source = Source()
        server = HttpServer(Entrance(routes(desk, source), desk), table)
        await server.start()
        try:
            yield server, source
        finally:
            await server.stop(0)

    return start


class Page:
    """One tab of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0
        self._loaded = False
        self.complaints: list[str] = []

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a DevTools method and wait for its answer."""
        self._count += 1
        await self._socket.send_str(
            json.dumps({"id": self._count, "method": method, "params": params})
        )
        while True:
            message = await self._message()
            if message.get("id") == self._count:
                assert "error" not in message, message["error"]
                return message["result"]

    async def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.receive_str())
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(message["params"]))
        self._loaded |= message.get("method") == "Page.loadEventFired"
        return message

    async def open(self, url: str) -> None:
        """Go there, and return when the page and its module have loaded."""
        self._loaded = False
        await self.send("Page.navigate", url=url)
        while not self._loaded:
            await self._message()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (a promise's when it gives one)."""
        result = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, expression: str) -> Any:
        """The expression's value once it is true; asks every animation frame, up to 10 s."""
        return await self.evaluate(
            "new Promise((done, fail) => { const began = Date.now();"
            f"const look = () => {{ const value = ({expression}); if (value) done(value);"
            "else if (Date.now() - began > 10000) fail(new Error('never true'));"
            "else setTimeout(look, 20); }; look(); })"
        )

    async def screenshot(self) -> bytes:
        """The whole page as PNG."""
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@pytest.fixture
def browsing(program: Callable[[str], str], tmp_path: Path) -> Callable[..., Any]:
    """``async with browsing(url) as page``."""
    chromium = program("chromium")

    @asynccontextmanager
    async def start(url: str) -> AsyncIterator[Page]:
        process = await asyncio.create_subprocess_exec(
            chromium,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                address = await _devtools_address(process)
            root = address.removeprefix("ws://").partition("/")[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{root}/json/list") as answer:
                    (tab,) = [one for one in await answer.json() if one["type"] == "page"]
                async with session.ws_connect(
                    tab["webSocketDebuggerUrl"], max_msg_size=2**26
                ) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log"):
                        await page.send(f"{domain}.enable")
                    await page.open(url)
                    yield page
        finally:
            process.terminate()
            await process.communicate()

    return start


async def _devtools_address(process: asyncio.subprocess.Process) -> str:
    async for line in process.stderr:
        _, found, address = line.decode().partition("DevTools listening on ")
        if found:
            return address.strip()
    raise AssertionError("Chromium ended before it listened")
