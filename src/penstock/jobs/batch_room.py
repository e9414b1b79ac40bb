"""Files, batches and webhooks, put together: what the composition root needs to see of them."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

from starlette.routing import Route

from penstock.config.model import Config
from penstock.http.auth import PrincipalOf
from penstock.http.door import Desk
from penstock.http.inside import InsideCalls
from penstock.jobs.batch_door import BatchDoor
from penstock.jobs.batches import Batches
from penstock.jobs.door import ClassOf
from penstock.jobs.engine import Jobs
from penstock.jobs.files import Files
from penstock.jobs.webhooks import Webhooks
from penstock.store.batches import BatchStore
from penstock.store.pepper import pepper_in
from penstock.store.reader import Reader
from penstock.store.webhooks import WebhookStore
from penstock.store.writer import Writer


class BatchRoom:
    """``jobs`` owns the store: where it runs jobs, batches are run, too."""

    def __init__(
        self,
        config: Config,
        stored: tuple[Writer, Reader],
        calls: InsideCalls,
        jobs: Jobs,
        principal_of: PrincipalOf,
    ) -> None:
        place, store = Path(config.store.path), BatchStore(*stored)
        folder = place / "files"
        self._owned: asyncio.Event = jobs.owned
        self._files = Files(folder, store, config.batches, time.time)
        self._batches = Batches(store, self._files, calls, config.batches, time.time, principal_of)
        self._batches.created = jobs.look
        self.webhooks = Webhooks(
            WebhookStore(*stored),
            jobs.store,
            config.webhooks,
            partial(pepper_in, place, os.environ, create=True),
            time.time,
        )
        jobs.finished = self.webhooks.ended
        self.adopt(config)

    def adopt(self, config: Config) -> None:
        """Go by this configuration from now on."""
        self._files.table = self._batches.table = config.batches
        self._batches.classes = config.classes
        self.webhooks.table = config.webhooks
        self._batches.line_bytes_max = config.server.body_bytes_max

    def routes(self, desk: Desk, endpoints: frozenset[str], class_of: ClassOf) -> list[Route]:
        """Every route; ``endpoints`` are the gateway's that a batch may be for."""
        return BatchDoor(self._files, self._batches, endpoints, class_of).routes(desk)

    async def run(self) -> None:
        """Run every batch and deliver every webhook there is, until cancelled."""
        await asyncio.gather(self._batches.run(self._owned), self.webhooks.run(self._owned))

    async def stop(self) -> None:
        """Leave every batch where it is, for the next process."""
        await self._batches.stop()
