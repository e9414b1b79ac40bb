"""A job engine over a real store, with an executor that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.config.model import ClassTable, JobsTable
from penstock.http.auth import Principal
from penstock.jobs.engine import Clocks, Jobs, Order
from penstock.jobs.execution import Attempt, Emit, Ending
from penstock.jobs.states import Happening
from penstock.store.database import DATABASE_FILE
from penstock.store.jobs import JobStore
from penstock.store.owner import Owner
from penstock.store.reader import Reader
from penstock.store.writer import Writer

CLASSES = {
    "interactive": ClassTable(rank=0),
    "standard": ClassTable(rank=1),
    "batch": ClassTable(rank=2),
}
OWN = Principal("key", "acme", "standard", "interactive")
OTHER = Principal("other", "zeta", "standard", "interactive")


class Played:
    """An executor whose attempts wait until the test ends them; ``begun`` are those so far."""

    def __init__(self) -> None:
        self.begun: list[Attempt] = []
        self.another = asyncio.Event()
        self.cancelled: list[str] = []
        self.emits: dict[str, Emit] = {}
        self.endings: dict[str, asyncio.Future[Ending]] = {}

    async def __call__(self, attempt: Attempt, emit: Emit) -> Ending:
        job_id = attempt.job.job_id
        self.begun.append(attempt)
        self.another.set()
        self.emits[job_id] = emit
        self.endings[job_id] = asyncio.get_running_loop().create_future()
        try:
            return await self.endings[job_id]
        except asyncio.CancelledError:
            self.cancelled.append(job_id)
            raise

    def end(self, job_id: str, body: bytes = b'"done"') -> None:
        self.endings[job_id].set_result(Ending(Happening.SUCCEEDED, 200, body=body))

    def break_off(self, job_id: str, code: str = "worker_lost") -> None:
        ending = Ending(Happening.BROKEN_OFF, 502, code=code, message="it died")
        self.endings[job_id].set_result(ending)


class Bench:
    """One process's engine."""

    def __init__(self, folder: Path, table: JobsTable) -> None:
        self.played = Played()
        self.writer = Writer(folder / DATABASE_FILE)
        self.reader = Reader(folder / DATABASE_FILE)
        self.store = JobStore(self.writer, self.reader)
        keys = {principal.key_id: principal for principal in (OWN, OTHER)}
        loop = asyncio.get_running_loop()
        self.jobs = Jobs(
            self.store,
            Owner(folder),
            table,
            CLASSES,
            Clocks(loop.time, loop.time),
            lambda key_id, _tenant: keys.get(key_id),
        )
        self.jobs.executors["test"] = self.played

    async def order(self, principal: Principal = OWN, **wishes) -> str:
        wishes = {"class_name": "standard", "body": b"{}", "path": "/x", **wishes}
        job, _ = await self.jobs.create(Order(principal=principal, kind="test", **wishes))
        return job.job_id

    async def begun(self, count: int) -> list[str]:
        """The ids of the first so many attempts, once they have begun."""
        async with asyncio.timeout(10):
            while len(self.played.begun) < count:
                self.played.another.clear()
                await self.played.another.wait()
        return [attempt.job.job_id for attempt in self.played.begun]


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., object]:
    """``async with bench() as one``: an engine that runs; ``dies=True`` leaves as a crash does."""

    @asynccontextmanager
    async def start(*, dies: bool = False, **settings) -> AsyncIterator[Bench]:
        one = Bench(tmp_path, JobsTable(**settings))
        running = asyncio.create_task(one.jobs.run())
        try:
            yield one
        finally:
            if not dies:
                await one.jobs.stop(0.0)
            running.cancel()
            await asyncio.wait({running})
            for attempt in list(one.jobs._running.values()):
                attempt.attempt.cancel()
                attempt.work.cancel()
            await asyncio.to_thread(one.writer.close)
            await asyncio.to_thread(one.reader.close)

    return start


@pytest.fixture
def own() -> Principal:
    return OWN


@pytest.fixture
def other() -> Principal:
    return OTHER
