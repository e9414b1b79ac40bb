"""Runs: created, waited for, streamed, come back to, cancelled, listed.

A caller who waits holds a connection, and the run does not: it goes on when the connection is
cut, unless the caller said ``on_disconnect: cancel``. Waiting answers begin early and send line
breaks, which JSON allows before a value, so that nothing on the way takes them for dead; they
name the place where the result will be. That is why a run that failed is told in the body.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from penstock.config.model import ChainTable
from penstock.errors import CallError, Forbidden, NotFound, NotServed, Unprocessable
from penstock.http.auth import Principal
from penstock.http.door import while_connected
from penstock.http.exchange import ClientGone, Exchange
from penstock.http.query import asking
from penstock.http.sse import CONTENT_TYPE, comment, event
from penstock.jobs.agent.execution import RunDetails
from penstock.jobs.agent.request import RunRequest, assistant_id, read_run, uuid_of
from penstock.jobs.agent.shapes import (
    BATCH_MAX,
    CancelQuery,
    JoinQuery,
    JoinStreamQuery,
    RunsQuery,
    StreamQuery,
)
from penstock.jobs.agent.threads import Threads, conflict, iso
from penstock.jobs.door import (
    PING_SECONDS,
    idempotency_of,
    last_event_id,
    numbered,
    principal_of,
    with_pings,
)
from penstock.jobs.engine import Jobs, Order
from penstock.jobs.states import State
from penstock.providers.request import join_fields
from penstock.store.jobs import Job
from penstock.units import Outcome

KIND: Final = "agent"
HEAD_SECONDS: Final = 2.0
"""How long the head of a waiting answer is held back."""
BREAK_SECONDS: Final = 5.0
"""Between two line breaks of an answer that waits."""
CANCEL_WAIT_SECONDS: Final = 60.0
OPEN: Final = (State.PENDING, State.RUNNING)
"""In this order: cancelling what runs would start what is pending."""

_STREAM_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class Chains(Protocol):
    """What the chains' own door knows."""

    def visible(self, principal: Principal) -> Mapping[str, ChainTable]:
        """The chains that this key may use, by name."""

    def wish_of(
        self, principal: Principal, name: str, headers: Mapping[str, str]
    ) -> tuple[str, float | None]:
        """The class of a run of that chain, and in how many seconds its caller wants it done."""


class Runs:
    """Handlers of every route with ``runs`` in it."""

    def __init__(
        self, jobs: Jobs, threads: Threads, chains: Chains, checked_url: Callable[[str], str]
    ) -> None:
        self._jobs = jobs
        self._checked_url = checked_url
        self._threads = threads
        self._chains = chains

    # Creating.

    async def create(self, exchange: Exchange) -> Outcome:
        """``POST /runs`` and ``POST /threads/{thread}/runs``."""
        job, _ = await self._accept(exchange, await exchange.body())
        exchange.response_headers["content-location"] = _place(job)
        await exchange.respond(200, msgspec.json.encode(document(job)))
        return Outcome.SUCCESS

    async def batch(self, exchange: Exchange) -> Outcome:
        """``POST /runs/batch``: each is a run of its own."""
        try:
            bodies = msgspec.json.decode(await exchange.body(), type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Unprocessable("The body must be a list of runs.") from None
        if len(bodies) > BATCH_MAX:
            raise Unprocessable(f"{len(bodies)} runs at once; at most {BATCH_MAX}: send several.")
        # All are looked at before the first is made.
        requests = [read_run(bytes(body)) for body in bodies]
        jobs = [await self._order(exchange, request, None) for request in requests]
        await exchange.respond(200, msgspec.json.encode([document(job) for job in jobs]))
        return Outcome.SUCCESS

    async def create_and_wait(self, exchange: Exchange) -> Outcome:
        """``POST …/runs/wait``: create it, and answer with what it came to."""
        job, request = await self._accept(exchange, await exchange.body())
        return await self._answer_result(exchange, job, cancels=request.cancels_on_disconnect)

    @asking(StreamQuery)
    async def create_and_stream(self, exchange: Exchange, query: StreamQuery) -> Outcome:
        """``POST …/runs/stream``: create it, and tell it as it goes on."""
        job, request = await self._accept(exchange, await exchange.body())
        cancels, mode = request.cancels_on_disconnect, query.stream_mode
        return await self._answer_stream(exchange, job, 0, cancels=cancels, mode=mode)

    # Those that are there.

    @asking(RunsQuery)
    async def page(self, exchange: Exchange, query: RunsQuery) -> Outcome:
        """``GET /threads/{thread}/runs``: the newest first."""
        thread = await self._threads.named(exchange)
        jobs = await self._jobs.page(
            principal_of(exchange).tenant,
            kind=KIND,
            thread_id=thread.thread_id,
            state=query.status,
            limit=query.limit + query.offset,
        )
        listed = [document(job) for job in jobs[query.offset :]]
        await exchange.respond(200, msgspec.json.encode(listed))
        return Outcome.SUCCESS

    async def get(self, exchange: Exchange) -> Outcome:
        """``GET /threads/{thread}/runs/{run}``."""
        await exchange.respond(200, msgspec.json.encode(document(await self._named(exchange))))
        return Outcome.SUCCESS

    @asking(JoinQuery)
    async def join(self, exchange: Exchange, query: JoinQuery) -> Outcome:
        """``GET …/join``: what it came to, once it has ended."""
        job = await self._named(exchange)
        return await self._answer_result(exchange, job, cancels=query.cancel_on_disconnect)

    @asking(JoinStreamQuery)
    async def stream(self, exchange: Exchange, query: JoinStreamQuery) -> Outcome:
        """``GET …/stream``: what it tells, from behind ``Last-Event-ID``."""
        job = await self._named(exchange)
        after = last_event_id(exchange)
        cancels, mode = query.cancel_on_disconnect, query.stream_mode
        return await self._answer_stream(exchange, job, after, cancels=cancels, mode=mode)

    @asking(CancelQuery)
    async def cancel(self, exchange: Exchange, query: CancelQuery) -> Outcome:
        """``POST …/cancel``: end it where it stands, and with ``wait`` tell when it has ended."""
        await exchange.body()
        job = await self._named(exchange)
        if query.action == "rollback":
            if not details_of(job).is_stateless:
                raise _no_rollback("action")
            await self._jobs.delete(job.tenant, job.job_id)
        else:
            await self._jobs.cancel(job.tenant, job.job_id)
            if query.wait:
                await self._jobs.wait(job.tenant, job.job_id, CANCEL_WAIT_SECONDS)
        await exchange.respond(200, b"{}")
        return Outcome.SUCCESS

    async def delete(self, exchange: Exchange) -> Outcome:
        """``DELETE /threads/{thread}/runs/{run}``: remove it; one under way is cancelled."""
        job = await self._named(exchange)
        await self._jobs.delete(job.tenant, job.job_id)
        await exchange.respond(200, b"{}")
        return Outcome.SUCCESS

    # Within.

    async def _accept(self, exchange: Exchange, body: bytes) -> tuple[Job, RunRequest]:
        request = read_run(body)
        thread = exchange.path_params.get("thread")
        thread_id = None if thread is None else uuid_of(thread, "thread's id")
        return await self._order(exchange, request, thread_id, body), request

    async def _order(
        self, exchange: Exchange, request: RunRequest, thread_id: str | None, body: bytes = b""
    ) -> Job:
        """Store one run. Raises CallError."""
        principal = principal_of(exchange)
        if principal.internal:
            # Places are few: runs that wait for runs behind them would wait for each other.
            raise Forbidden("A chain cannot run a chain through this door: import it.")
        chain = self.chain_of(principal, request.assistant)
        class_name, seconds = self._chains.wish_of(principal, chain, exchange.headers)
        exchange.facts.update({"class": class_name, "chain": chain})
        exchange.response_headers["penstock-class"] = class_name
        run_thread = thread_id or str(uuid.uuid4())
        details = RunDetails(
            thread_id=run_thread,
            is_stateless=thread_id is None,
            multitask=request.multitask,
            metadata=msgspec.Raw(request.metadata),
            deadline=None if seconds is None else time.time() + seconds,
        )
        to_worker = dict(request.to_worker)
        if thread_id is not None:
            to_worker["thread_id"] = msgspec.Raw(msgspec.json.encode(thread_id))
        order = Order(
            principal=principal,
            class_name=class_name,
            kind=KIND,
            chain=chain,
            path=f"/chains/{chain}/agent.run",
            body=join_fields(to_worker),
            after_seconds=request.after_seconds,
            deadline_seconds=seconds,
            thread_id=thread_id,
            details=msgspec.json.encode(details),
            webhook=None if request.webhook is None else self._checked_url(request.webhook),
        )
        if thread_id is None:
            job = await self._create(exchange, order, body)
        else:
            async with self._threads.one_at_a_time(principal.tenant, thread_id):
                await self._threads.begin(
                    principal.tenant, thread_id, chain, create=request.creates_thread
                )
                await self._make_way(principal.tenant, thread_id, request.multitask)
                job = await self._create(exchange, order, body)
        exchange.facts["run"] = job.job_id
        return job

    async def _create(self, exchange: Exchange, order: Order, body: bytes) -> Job:
        idempotency = idempotency_of(exchange, exchange.scope["path"], body) if body else None
        job, _ = await self._jobs.create(order, idempotency)
        return job

    async def _make_way(self, tenant: str, thread_id: str, strategy: str) -> None:
        """What becomes of runs of the thread that have not ended. Raises Conflict, NotServed."""
        if strategy == "rollback":
            raise _no_rollback("multitask_strategy")
        if strategy == "enqueue":
            return
        for state in OPEN:
            while jobs := await self._jobs.page(tenant, thread_id=thread_id, state=state):
                if strategy == "reject":
                    raise conflict(
                        "The thread is busy with another run. Wait for it, or choose another "
                        "multitask_strategy.",
                        code="thread_busy",
                    )
                for job in jobs:
                    await self._jobs.cancel(tenant, job.job_id)
                    await self._jobs.wait(tenant, job.job_id, CANCEL_WAIT_SECONDS)

    def chain_of(self, principal: Principal, assistant: str) -> str:
        """The chain that an assistant's id or name means. Raises NotFound."""
        names = self._chains.visible(principal)
        if assistant in names:
            return assistant
        for name in names:
            if assistant_id(name) == assistant:
                return name
        raise NotFound(
            "There is no such assistant; POST /assistants/search lists those that this key may use."
        )

    async def _named(self, exchange: Exchange) -> Job:
        """The run that the path names, of the caller's own tenant. Raises NotFound."""
        job: Job | None
        try:
            job = await self._jobs.get(principal_of(exchange).tenant, exchange.path_params["run"])
        except NotFound:
            job = None
        thread = exchange.path_params.get("thread")
        is_here = job is not None and job.kind == KIND
        if job is None or not is_here or thread != details_of(job).thread_id:
            raise NotFound("There is no such run, or it has been removed.", code="run_not_found")
        return job

    async def _answer_result(self, exchange: Exchange, job: Job, *, cancels: bool) -> Outcome:
        exchange.response_headers.update(
            {"location": _place(job) + "/join", "content-location": _place(job)}
        )
        try:
            body = await while_connected(exchange, self._waited(exchange, job))
        except ClientGone:
            await self._left(job, cancels=cancels)
            raise
        if exchange.started:
            await exchange.write(body)
            await exchange.finish()
        else:
            await exchange.respond(200, body)
        return Outcome.SUCCESS

    async def _waited(self, exchange: Exchange, job: Job) -> bytes:
        seconds = HEAD_SECONDS
        while True:
            job = await self._jobs.wait(job.tenant, job.job_id, seconds)
            if State(job.state).is_final:
                return await self._result(job)
            if not exchange.started:
                await exchange.start(200, "application/json")
            await exchange.write(b"\n")
            seconds = BREAK_SECONDS

    async def _result(self, job: Job) -> bytes:
        if job.state != State.SUCCESS:
            return msgspec.json.encode({"__error__": failure_of(job)})
        result = await self._jobs.result(job)
        return b"null" if result is None else result[1]

    async def _answer_stream(
        self, exchange: Exchange, job: Job, after: int, *, cancels: bool, mode: str | None
    ) -> Outcome:
        exchange.response_headers.update(
            {
                **_STREAM_HEADERS,
                "location": _place(job) + "/stream",
                "content-location": _place(job),
            }
        )
        await exchange.start(200, CONTENT_TYPE)
        try:
            last = await while_connected(exchange, self._pass_on(exchange, job, after, mode))
        except ClientGone:
            await self._left(job, cancels=cancels)
            raise
        await exchange.write(last)
        await exchange.finish()
        return Outcome.SUCCESS

    async def _pass_on(self, exchange: Exchange, job: Job, after: int, wanted: str | None) -> bytes:
        """Write the events as they come; the end of the stream is given back."""
        events = self._jobs.events(job.tenant, job.job_id, after)
        async for told in with_pings(events, PING_SECONDS):
            if told is None:
                await exchange.write(comment("ping"))
            elif wanted is None or _is_of_mode(told.name or "", wanted):
                await exchange.write(numbered(told.sequence, told.name, told.data))
        try:
            job = await self._jobs.get(job.tenant, job.job_id)
        except CallError:
            return b""
        if job.state == State.SUCCESS:
            return b""
        return event("error", msgspec.json.encode(failure_of(job)))

    async def _left(self, job: Job, *, cancels: bool) -> None:
        """The caller hung up."""
        if cancels:
            await asyncio.shield(self._jobs.cancel(job.tenant, job.job_id))


def details_of(job: Job) -> RunDetails:
    """What the protocol kept of a run."""
    return msgspec.json.decode(job.details, type=RunDetails)


def failure_of(job: Job) -> dict[str, Any]:
    """How clients are told that a run gave nothing."""
    if job.state == State.INTERRUPTED:
        return {"error": "interrupted", "message": "The run was cancelled."}
    return {"error": job.error_code or job.state, "message": job.error_message or "It failed."}


def document(job: Job) -> dict[str, Any]:
    """A run as the protocol shows it."""
    details = details_of(job)
    return {
        "run_id": job.job_id,
        "thread_id": details.thread_id,
        "assistant_id": assistant_id(job.chain),
        "created_at": iso(job.created_at),
        "updated_at": iso(job.finished_at or job.started_at or job.created_at),
        "status": job.state,
        "metadata": details.metadata,
        "multitask_strategy": details.multitask,
        "kwargs": {},
    }


def webhook_message(job: Job) -> bytes:
    """What a webhook is told of a run; its result is fetched with the key."""
    failure = None if job.state == State.SUCCESS else failure_of(job)
    return msgspec.json.encode({**document(job), "error": failure})


def _place(job: Job) -> str:
    return f"/threads/{details_of(job).thread_id}/runs/{job.job_id}"


def _is_of_mode(name: str, wanted: str) -> bool:
    mode = "messages" if wanted == "messages-tuple" else wanted
    return name == "metadata" or name.partition("|")[0].partition("/")[0] == mode


def _no_rollback(param: str) -> NotServed:
    return NotServed(
        f"{param} 'rollback' is not served for runs on a thread: what they have done to its state "
        "stays.",
        param=param,
    )
