"""Whose responses the providers keep, and where: what ``previous_response_id`` may name.

A provider keeps a response for the account that asked for it, and all tenants ask with the same
account: whoever knows an id could have the conversation continued for them. So an id means
something only to the tenant that was given it, and a call that continues a response goes to the
deployment that keeps it, whatever has more room.

The latest are in memory, all of them in the store (``store.kept_responses``), where they survive a
restart. They are written together, every ``FLUSH_SECONDS`` while there are some: the call that
made one does not wait for that, and a process that is killed loses those of its last moment. An id
that is not known any more is answered as the provider answers one that has expired.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from penstock.dispatch.planning import queue_name
from penstock.errors import InvalidRequest, StoreError, StoreUnavailable
from penstock.providers.base import Endpoint
from penstock.scheduler.scheduler import Scheduler
from penstock.store.kept_responses import KeptRow, ResponseStore

RESPONSES_MAX: Final = 10_000
"""Responses in memory: those that are continued at once need no look into the store."""
ROWS_WAITING_MAX: Final = 10_000
FLUSH_SECONDS: Final = 0.1

_log = logging.getLogger("penstock.gateway")


class KeptResponses:
    """The responses of all tenants, by tenant and id. ``wall`` gives Unix time."""

    def __init__(self, store: ResponseStore, wall: Callable[[], float]) -> None:
        self._store = store
        self._wall = wall
        self._latest: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._rows: list[KeptRow] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_failing = False

    def keep(self, tenant: str, response_id: str, deployment: str) -> None:
        """Remember one."""
        self._latest[tenant, response_id] = deployment
        if len(self._latest) > RESPONSES_MAX:
            self._latest.popitem(last=False)
        if len(self._rows) < ROWS_WAITING_MAX:
            self._rows.append(KeptRow(tenant, response_id, deployment, self._wall()))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    async def find(self, tenant: str, response_id: str) -> str:
        """The deployment that keeps the response which a call continues.

        Raises InvalidRequest for one that is not this tenant's, or not known (any more), and
        StoreUnavailable where that cannot be looked up.
        """
        deployment = self._latest.get((tenant, response_id))
        if deployment is None:
            asked = self._store.find(tenant, response_id, self._wall())
            try:
                deployment = await asyncio.wrap_future(asked)
            except StoreError as error:
                _log.error("kept responses cannot be read: %s", error)
                raise StoreUnavailable(
                    "Where 'previous_response_id' is kept cannot be looked up now. Send the whole "
                    "conversation as 'input', or try again later.",
                    param="previous_response_id",
                ) from error
        if deployment is None:
            raise InvalidRequest(
                "'previous_response_id' names no response that is kept. Send the whole "
                "conversation as 'input'.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return deployment

    def flush(self) -> None:
        """Hand to the store what is not written yet; what fails there is known in memory only."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        rows, self._rows = self._rows, []
        if not rows:
            return
        try:
            written = self._store.keep(rows, self._wall())
        except StoreError as error:
            self._note(error)
            return
        loop = asyncio.get_running_loop()

        def done(future: Future[None]) -> None:
            loop.call_soon_threadsafe(self._note, future.exception())

        written.add_done_callback(done)

    def _note(self, error: BaseException | None) -> None:
        if error is not None and not self._is_failing:
            _log.error("kept responses are not written, a restart forgets them: %s", error)
        self._is_failing = error is not None


def pinned_model(scheduler: Scheduler, model: str, deployment: str) -> str:
    """The queue of a model at one deployment. Raises InvalidRequest where it is not there."""
    queue = queue_name(Endpoint.RESPONSES.dialect, model, deployment)
    if not scheduler.serves(queue):
        raise InvalidRequest(
            "The response that 'previous_response_id' names is not kept where this model is "
            "served. Ask for the model that gave it.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return queue
