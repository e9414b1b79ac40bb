"""The live page on a real server, and a real Chromium spoken to over its DevTools protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

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
