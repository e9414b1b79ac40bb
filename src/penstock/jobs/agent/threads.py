"""Threads: made, found, changed and removed; their states are asked of a worker."""

from __future__ import annotations

import asyncio
import datetime
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, get_args

import msgspec

from penstock.errors import (
    CallError,
    ChainFailed,
    InvalidRequest,
    NotFound,
    NotServed,
    QueueFull,
    StoreError,
    StoreUnavailable,
    Unprocessable,
)
from penstock.http.door import while_connected
from penstock.http.exchange import Exchange, Inside
from penstock.http.inside import InsideCalls
from penstock.http.query import asking
from penstock.jobs.agent.execution import Standing
from penstock.jobs.agent.request import (
    Fields,
    assistant_id,
    checked_checkpoint,
    checkpoint_of,
    metadata_of,
    uuid_of,
)
from penstock.jobs.agent.shapes import (
    IDS_MAX,
    HistoryQuery,
    HistoryWanted,
    SortBy,
    StateChange,
    StateQuery,
    StateWanted,
    Status,
    ThreadBody,
    ThreadChange,
    ThreadSearch,
    fields_of,
)
from penstock.jobs.door import principal_of
from penstock.jobs.engine import Jobs
from penstock.jobs.execution import refused
from penstock.jobs.states import State
from penstock.store.jobs import Job
from penstock.store.threads import (
    METADATA_BYTES_MAX,
    Search,
    Thread,
    ThreadStore,
    TooManyThreads,
    TooMuchMetadata,
)
from penstock.units import Outcome

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a worker's answer about a thread's states."""

EMPTY_STATE: Final[dict[str, Any]] = {
    "values": {},
    "next": [],
    "tasks": [],
    "metadata": {},
    "created_at": None,
    "checkpoint": None,
    "parent_checkpoint": None,
    "interrupts": [],
}
"""That of a thread on which nothing has run."""

_T = TypeVar("_T")


class Threads:
    """Handlers of ``/threads``, and what runs need of them."""

    def __init__(self, store: ThreadStore, jobs: Jobs, calls: InsideCalls) -> None:
        self._store = store
        self._jobs = jobs
        self._calls = calls
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    # What runs need.

    @asynccontextmanager
    async def one_at_a_time(self, tenant: str, thread_id: str) -> AsyncIterator[None]:
        """Within it nobody else creates a run of the thread, or removes it."""
        key = (tenant, thread_id)
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)

    async def begin(self, tenant: str, thread_id: str, chain: str, *, create: bool) -> None:
        """A run of ``chain`` is about to be created on the thread. Raises NotFound, QueueFull."""
        about = msgspec.json.encode({"graph_id": chain, "assistant_id": assistant_id(chain)})
        if create:
            await self._create(tenant, thread_id, b"{}")
        await self._update(tenant, thread_id, chain=chain, metadata=about)

    async def settle(self, job: Job, status: str, standing: Standing | None) -> None:
        """A run has ended on its thread."""
        assert job.thread_id is not None
        state = None if standing is None else msgspec.json.encode(standing)
        changed = self._store.update(
            job.tenant, job.thread_id, time.time(), status=status, state=state
        )
        await stored(changed)

    async def named(self, exchange: Exchange) -> Thread:
        """The thread that the path names, of the caller's own tenant. Raises NotFound."""
        thread_id = uuid_of(exchange.path_params["thread"], "thread's id")
        asked = self._store.get(principal_of(exchange).tenant, thread_id)
        thread = await stored(asked)
        if thread is None:
            raise _no_thread()
        return thread

    # What callers do.

    async def create(self, exchange: Exchange) -> Outcome:
        """``POST /threads``."""
        fields = Fields(
            await exchange.body(), fields_of(ThreadBody), frozenset({"supersteps", "ttl"})
        )
        named = fields.read("thread_id", str, "a UUID")
        thread_id = str(uuid.uuid4()) if named is None else uuid_of(named, "thread's id")
        if_exists = fields.read("if_exists", str, "raise or do_nothing") or "raise"
        if if_exists not in ("raise", "do_nothing"):
            raise Unprocessable("'if_exists' must be raise or do_nothing.", param="if_exists")
        tenant = principal_of(exchange).tenant
        thread, created = await self._create(tenant, thread_id, metadata_of(fields))
        if not created and if_exists == "raise":
            raise conflict("There is a thread of this id already.", code="thread_exists")
        return await _respond(exchange, document(thread))

    async def get(self, exchange: Exchange) -> Outcome:
        """``GET /threads/{thread}``."""
        return await _respond(exchange, document(await self.named(exchange)))

    async def change(self, exchange: Exchange) -> Outcome:
        """``PATCH /threads/{thread}``: add to its metadata."""
        fields = Fields(await exchange.body(), fields_of(ThreadChange), frozenset({"ttl"}))
        thread = await self.named(exchange)
        tenant = principal_of(exchange).tenant
        metadata = metadata_of(fields)
        return await _respond(
            exchange, document(await self._update(tenant, thread.thread_id, metadata=metadata))
        )

    async def delete(self, exchange: Exchange) -> Outcome:
        """``DELETE /threads/{thread}``: with its runs and its state; what runs is cancelled."""
        thread = await self.named(exchange)
        tenant = principal_of(exchange).tenant
        async with self.one_at_a_time(tenant, thread.thread_id):
            while jobs := await self._jobs.page(tenant, thread_id=thread.thread_id, limit=100):
                for job in jobs:
                    await self._jobs.delete(tenant, job.job_id)
            if thread.chain:
                await self._ask(exchange, thread, "forget", {})
            await stored(self._store.delete(tenant, thread.thread_id))
        await exchange.respond(200, b"{}")
        return Outcome.SUCCESS

    async def search(self, exchange: Exchange) -> Outcome:
        """``POST /threads/search``."""
        fields = Fields(
            await exchange.body(), fields_of(ThreadSearch), frozenset({"values", "extract"})
        )
        search = _search(fields)
        select = fields.read("select", list[str], "a list of names")
        found = self._store.search(principal_of(exchange).tenant, search)
        shown = [document(thread) for thread in await stored(found)]
        if select is not None:
            shown = [{name: one[name] for name in select if name in one} for one in shown]
        return await _respond(exchange, shown)

    async def count(self, exchange: Exchange) -> Outcome:
        """``POST /threads/count``."""
        fields = Fields(await exchange.body(), fields_of(ThreadSearch), frozenset({"values"}))
        counted = self._store.count(principal_of(exchange).tenant, _search(fields))
        return await _respond(exchange, await stored(counted))

    @asking(StateQuery)
    async def state(self, exchange: Exchange, query: StateQuery) -> Outcome:
        """``GET /threads/{thread}/state`` and ``…/state/{checkpoint}``."""
        checkpoint_id = checked_checkpoint(exchange.path_params.get("checkpoint"), None)
        return await self._show_state(exchange, checkpoint_id, subgraphs=query.subgraphs)

    async def state_at(self, exchange: Exchange) -> Outcome:
        """``POST /threads/{thread}/state/checkpoint``."""
        fields = Fields(await exchange.body(), fields_of(StateWanted))
        subgraphs = fields.read("subgraphs", bool, "true or false") or False
        return await self._show_state(exchange, checkpoint_of(fields), subgraphs=subgraphs)

    async def change_state(self, exchange: Exchange) -> Outcome:
        """``POST /threads/{thread}/state``: as if a node had given these values."""
        fields = Fields(await exchange.body(), fields_of(StateChange))
        thread = await self.named(exchange)
        tenant = principal_of(exchange).tenant
        if not thread.chain:
            raise Unprocessable(
                "No run has been created on this thread, so it is not known which graph's state "
                "it has.",
                code="thread_without_graph",
            )
        checkpoint_id = fields.read("checkpoint_id", str, "a checkpoint's id")
        asked = {
            "values": fields.given.get("values"),
            "as_node": fields.read("as_node", str, "a node's name"),
            "checkpoint_id": checked_checkpoint(checkpoint_id, None) or checkpoint_of(fields),
        }
        async with self.one_at_a_time(tenant, thread.thread_id):
            for state in (State.RUNNING, State.PENDING):
                if await self._jobs.page(tenant, thread_id=thread.thread_id, state=state, limit=1):
                    raise conflict("A run of this thread has not ended.", code="thread_busy")
            answer = await self._ask(exchange, thread, "update", asked)
            changed = msgspec.json.decode(answer, type=_Updated)
            status = "interrupted" if changed.thread.is_paused else "idle"
            encoded = msgspec.json.encode(changed.thread)
            await self._update(tenant, thread.thread_id, status=status, state=encoded)
        # Older clients read the three fields at the top, newer ones the whole.
        checkpoint = msgspec.json.decode(changed.checkpoint)
        return await _respond(exchange, {"checkpoint": checkpoint, **checkpoint})

    @asking(HistoryQuery)
    async def history(self, exchange: Exchange, query: HistoryQuery) -> Outcome:
        """``GET /threads/{thread}/history``: its states, the newest first."""
        return await self._show_history(exchange, query.limit, query.before)

    async def search_history(self, exchange: Exchange) -> Outcome:
        """``POST /threads/{thread}/history``: the same with a body."""
        not_served = frozenset({"metadata", "checkpoint", "select"})
        fields = Fields(await exchange.body(), fields_of(HistoryWanted), not_served)
        return await self._show_history(exchange, fields.limit(), checkpoint_of(fields, "before"))

    # Within.

    async def _show_state(
        self, exchange: Exchange, checkpoint_id: str | None, *, subgraphs: bool
    ) -> Outcome:
        thread = await self.named(exchange)
        if thread.chain:
            asked = {"checkpoint_id": checkpoint_id, "subgraphs": subgraphs}
            await exchange.respond(200, await self._ask(exchange, thread, "state", asked))
            return Outcome.SUCCESS
        return await _respond(exchange, EMPTY_STATE)

    async def _show_history(self, exchange: Exchange, limit: int, before: str | None) -> Outcome:
        thread = await self.named(exchange)
        answer = b"[]"
        if thread.chain:
            asked = {"limit": limit, "checkpoint_id": before}
            answer = await self._ask(exchange, thread, "history", asked)
        await exchange.respond(200, answer)
        return Outcome.SUCCESS

    async def _ask(
        self, exchange: Exchange, thread: Thread, what: str, asked: dict[str, Any]
    ) -> bytes:
        """A worker's answer. Raises what it refuses with."""
        body = msgspec.json.encode({**asked, "thread_id": thread.thread_id})
        path = f"/chains/{thread.chain}/agent.{what}"
        return await while_connected(exchange, ask(self._calls, exchange, path, body))

    async def _create(self, tenant: str, thread_id: str, metadata: bytes) -> tuple[Thread, bool]:
        try:
            created = self._store.create(tenant, thread_id, metadata, time.time())
            return await stored(created)
        except TooManyThreads:
            raise QueueFull("This tenant has as many threads as this service keeps.") from None

    async def _update(self, tenant: str, thread_id: str, **changes: Any) -> Thread:
        try:
            updated = self._store.update(tenant, thread_id, time.time(), **changes)
            thread = await stored(updated)
        except TooMuchMetadata:
            raise Unprocessable(
                f"A thread's metadata has at most {METADATA_BYTES_MAX} bytes.", param="metadata"
            ) from None
        if thread is None:
            raise _no_thread()
        return thread


class _Updated(msgspec.Struct):
    checkpoint: msgspec.Raw
    thread: Standing


async def ask(calls: InsideCalls, exchange: Exchange, path: str, body: bytes) -> bytes:
    """What a door of this process answers in the caller's name. Raises CallError as it refused."""
    inside = Inside(principal_of(exchange))
    headers = {name: exchange.headers[name] for name in ("priority",) if name in exchange.headers}
    async with calls.open("POST", path, body, inside, headers) as answer:
        content = await answer.body(ANSWER_BYTES_MAX)
        if content is None:
            raise ChainFailed(f"The states are larger than {ANSWER_BYTES_MAX} bytes.")
        if answer.status != 200:
            raise refusal(answer.status, content)
        return content


async def stored(future: Future[_T]) -> _T:
    """The result of a work of the store. Raises StoreUnavailable where it fails."""
    try:
        return await asyncio.wrap_future(future)
    except StoreError:
        raise StoreUnavailable(
            "This service cannot store anything at the moment; its log says why."
        ) from None


def conflict(message: str, *, code: str) -> InvalidRequest:
    """What is asked does not go together with what is there."""
    return InvalidRequest(message, status=409, code=code)


def refusal(status: int, body: bytes) -> CallError:
    """A worker's refusal in our own words again."""
    ending = refused(status, body)
    kind = InvalidRequest if status < 500 else NotServed if status == 501 else ChainFailed
    return kind(ending.message or "It was refused.", status=status, code=ending.code)


def document(thread: Thread) -> dict[str, Any]:
    """A thread as the protocol shows it."""
    standing = msgspec.json.decode(thread.state, type=Standing) if thread.state else Standing()
    return {
        "thread_id": thread.thread_id,
        "created_at": iso(thread.created_at),
        "updated_at": iso(thread.updated_at),
        "metadata": msgspec.Raw(thread.metadata),
        "status": thread.status,
        "config": {},
        "values": standing.values,
        "interrupts": standing.interrupts,
    }


def iso(seconds: float) -> str:
    """Unix seconds as ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def _search(fields: Fields) -> Search:
    status = fields.read("status", str, "a status")
    if status is not None and status not in get_args(Status):
        raise Unprocessable("'status' must be one of " + ", ".join(get_args(Status)) + ".")
    ids = fields.read("ids", list[str], "a list of ids")
    if ids is not None and len(ids) > IDS_MAX:
        raise Unprocessable(f"'ids' must have at most {IDS_MAX} entries.", param="ids")
    sort_by = fields.read("sort_by", str, "a column") or "created_at"
    if sort_by not in get_args(SortBy):
        raise Unprocessable(
            "'sort_by' must be created_at, updated_at, thread_id or status.", param="sort_by"
        )
    return Search(
        metadata=metadata_of(fields),
        status=status,
        ids=ids,
        sort_by=sort_by,
        descending=(fields.read("sort_order", str, "asc or desc") or "desc") != "asc",
        limit=fields.limit(),
        offset=fields.offset(),
    )


def _no_thread() -> NotFound:
    return NotFound("There is no such thread, or it has been removed.", code="thread_not_found")


async def _respond(exchange: Exchange, shown: Any) -> Outcome:
    await exchange.respond(200, msgspec.json.encode(shown))
    return Outcome.SUCCESS
