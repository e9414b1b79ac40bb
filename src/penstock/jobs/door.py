"""Durable runs over HTTP: ordered with ``Prefer: respond-async``, looked after under ``/jobs``.

The conventions are others': RFC 7240 for the preference, the IETF draft for ``Idempotency-Key``,
server-sent events with ``Last-Event-ID`` for what a job says. A key sees the jobs of its own
tenant; those of another are not there.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from starlette.routing import Route

from penstock.errors import CallError, Forbidden, InternalError, InvalidRequest
from penstock.http.auth import Principal
from penstock.http.door import (
    Access,
    Desk,
    Door,
    DoorBodies,
    ErrorShape,
    Handler,
    while_connected,
)
from penstock.http.exchange import Exchange
from penstock.http.query import asking
from penstock.http.sse import CONTENT_TYPE, MEDIA_TYPE, comment, event
from penstock.jobs.engine import Jobs, Order, worded
from penstock.jobs.shapes import JobDeleted, JobPage, JobShown, JobsQuery, WebhookSecret
from penstock.jobs.states import State
from penstock.jobs.webhooks import Webhooks, message
from penstock.providers.request import join_fields, read_field, split_fields
from penstock.store.jobs import Idempotency, Job
from penstock.units import Outcome

KIND: Final = "request"
"""Jobs that are a request to a chain; other protocols name their own kind."""

ENDPOINTS: Final = frozenset({"invoke", "batch", "stream"})
"""What of a chain can be asked for asynchronously."""

AFTER_SECONDS_MAX: Final = 30 * 86_400.0
WAIT_SECONDS_MAX: Final = 60.0
PING_SECONDS: Final = 15.0

_PREFER_CHARACTERS_MAX: Final = 256
_WAIT: Final = re.compile(r"wait[ \t]*=[ \t]*\"?([0-9]{1,9})\"?\Z", re.IGNORECASE)
_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,255}\Z")
_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z")
_CONTROL: Final = frozenset({"after_seconds", "webhook"})
_AFTER_DECODER: Final = msgspec.json.Decoder(float)
_URL_DECODER: Final = msgspec.json.Decoder(str)
_STREAM_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}

ClassOf = Callable[[Principal, str, Mapping[str, str]], str]
"""The class that a run of that chain gets, from its key and headers. Raises CallError."""

_T = TypeVar("_T")


class JobsDoor:
    """Handlers of ``/jobs``, and what stands before the chains' own handler."""

    def __init__(self, jobs: Jobs, class_of: ClassOf, webhooks: Webhooks) -> None:
        webhooks.bodies[KIND] = _message
        self._webhooks = webhooks
        self._jobs = jobs
        self._class_of = class_of

    def routes(self, desk: Desk) -> list[Route]:
        """Every route of the door."""

        def route(
            path: str, handler: Handler, method: str, shown: Any = None, *other: str
        ) -> Route:
            door = Door(
                handler,
                access=Access.KEY,
                shape=ErrorShape.OPENAI,
                door="jobs",
                desk=desk,
                bodies=DoorBodies.showing(shown, other=other),
            )
            return Route(path, door, methods=[method])

        return [
            route("/jobs", self.page, "GET", JobPage),
            route("/jobs/{job}", self.get, "GET", JobShown),
            route("/jobs/{job}", self.delete, "DELETE", JobDeleted),
            route("/jobs/{job}/events", self.events, "GET", None, MEDIA_TYPE),
            route("/jobs/{job}/cancel", self.cancel, "POST", JobShown),
            route("/webhooks/secret", self.secret, "GET", WebhookSecret),
        ]

    def or_later(self, handler: Handler) -> Handler:
        """``handler`` for ``/chains/{name}/{rest}``; a caller who prefers so gets a job."""

        async def handle(exchange: Exchange) -> Outcome:
            wanted = exchange.scope["method"] == "POST" and exchange.inside is None
            if wanted and exchange.path_params["rest"] in ENDPOINTS:
                preferences = _preferences(exchange.headers)
                if "respond-async" in preferences:
                    return await self.order(exchange, _wait_seconds(preferences))
            return await handler(exchange)

        return handle

    async def order(self, exchange: Exchange, wait_seconds: float | None) -> Outcome:
        """Accept a run: 202, or its answer if it ends within what the caller waits."""
        principal = principal_of(exchange)
        chain = exchange.path_params["name"]
        class_name = self._class_of(principal, chain, exchange.headers)
        exchange.facts.update({"class": class_name, "chain": chain})
        body = await exchange.body()
        fields = split_fields(body, _CONTROL)
        after_seconds = read_field(fields, "after_seconds", _AFTER_DECODER, "a number of seconds")
        if after_seconds is not None and not 0 <= after_seconds <= AFTER_SECONDS_MAX:
            raise InvalidRequest(
                f"'after_seconds' must be from 0 to {AFTER_SECONDS_MAX:g}.", param="after_seconds"
            )
        webhook = read_field(fields, "webhook", _URL_DECODER, "a URL")
        path = exchange.scope["path"]
        order = Order(
            principal=principal,
            class_name=class_name,
            kind=KIND,
            chain=chain,
            path=path,
            body=join_fields({k: v for k, v in fields.items() if k not in _CONTROL}),
            after_seconds=after_seconds or 0.0,
            webhook=None if webhook is None else self._webhooks.check(webhook),
        )
        job, _ = await self._jobs.create(order, idempotency_of(exchange, path, body))
        exchange.facts["run"] = job.job_id
        if wait_seconds:
            waiting = self._jobs.wait(job.tenant, job.job_id, min(wait_seconds, WAIT_SECONDS_MAX))
            job = await while_connected(exchange, waiting)
        headers = exchange.response_headers
        headers["location"] = f"/jobs/{job.job_id}"
        if wait_seconds and job.state == State.SUCCESS:
            result = await self._jobs.result(job)
            if result is not None:
                await exchange.respond(200, result[1], result[0])
                return Outcome.SUCCESS
        headers["preference-applied"] = "respond-async"
        await exchange.respond(202, msgspec.json.encode(document(job)))
        return Outcome.SUCCESS

    @asking(JobsQuery)
    async def page(self, exchange: Exchange, query: JobsQuery) -> Outcome:
        """``GET /jobs``: the tenant's jobs, the newest first."""
        jobs = await self._jobs.page(
            principal_of(exchange).tenant,
            kind=KIND,
            state=query.status,
            before=query.after,
            limit=query.limit + 1,
        )
        data = [document(job) for job in jobs[: query.limit]]
        listed = {"object": "list", "data": data, "has_more": len(jobs) > query.limit}
        await exchange.respond(200, msgspec.json.encode(listed))
        return Outcome.SUCCESS

    async def get(self, exchange: Exchange) -> Outcome:
        """``GET /jobs/{id}``: state, attempts, times, and the result once there is one."""
        job = await self._jobs.get(*_named(exchange))
        shown = document(job)
        result = await self._jobs.result(job)
        if result is not None:
            shown["result"] = msgspec.Raw(result[1])
        await exchange.respond(200, msgspec.json.encode(shown))
        return Outcome.SUCCESS

    async def cancel(self, exchange: Exchange) -> Outcome:
        """``POST /jobs/{id}/cancel``: end it; one that has ended stays as it is."""
        await exchange.body()
        job = await self._jobs.cancel(*_named(exchange))
        await exchange.respond(200, msgspec.json.encode(document(job)))
        return Outcome.SUCCESS

    async def delete(self, exchange: Exchange) -> Outcome:
        """``DELETE /jobs/{id}``: remove it, with its result and events."""
        tenant, job_id = _named(exchange)
        await self._jobs.delete(tenant, job_id)
        deleted = {"id": job_id, "object": "job.deleted", "deleted": True}
        await exchange.respond(200, msgspec.json.encode(deleted))
        return Outcome.SUCCESS

    async def secret(self, exchange: Exchange) -> Outcome:
        """``GET /webhooks/secret``: what the tenant's receivers check messages with."""
        principal = principal_of(exchange)
        if principal.is_delegated:
            raise Forbidden("Only a key of the tenant itself is told the secret of its webhooks.")
        with worded():
            secret = self._webhooks.secret(principal.tenant)
        await exchange.respond(200, msgspec.json.encode({"secret": secret}))
        return Outcome.SUCCESS

    async def events(self, exchange: Exchange) -> Outcome:
        """``GET /jobs/{id}/events``: what it says, from where the reader left off."""
        tenant, job_id = _named(exchange)
        await self._jobs.get(tenant, job_id)
        after = last_event_id(exchange)
        exchange.response_headers.update(_STREAM_HEADERS)
        await exchange.start(200, CONTENT_TYPE)
        last = await while_connected(exchange, self._pass_on(exchange, tenant, job_id, after))
        await exchange.write(last)
        await exchange.finish()
        return Outcome.SUCCESS

    async def _pass_on(self, exchange: Exchange, tenant: str, job_id: str, after: int) -> bytes:
        events = self._jobs.events(tenant, job_id, after)
        async for told in with_pings(events, PING_SECONDS):
            if told is None:
                await exchange.write(comment("ping"))
                continue
            await exchange.write(numbered(told.sequence, told.name, told.data))
        try:
            job = await self._jobs.get(tenant, job_id)
        except CallError:
            return event("end", b'{"status":"deleted"}')
        return event("end", msgspec.json.encode(document(job)))


def document(job: Job) -> dict[str, Any]:
    """A job as its owner sees it. Times are Unix seconds."""
    failure = None
    if job.error_code is not None and State(job.state).is_final:
        failure = {"code": job.error_code, "message": job.error_message, "status": job.status}
    return {
        "id": job.job_id,
        "object": "job",
        "status": job.state,
        "chain": job.chain,
        "path": job.path,
        "class": job.class_name,
        "attempts": job.attempts,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "error": failure,
        "events_truncated": job.events_lost,
        "result": None,
    }


def _message(job: Job) -> bytes:
    """What a webhook is told of a job; its result is fetched with the key."""
    return message(f"job.{job.state}", job.finished_at or job.created_at, document(job))


def principal_of(exchange: Exchange) -> Principal:
    """Who asks; a door that needs a key has one."""
    if exchange.principal is None:
        raise InternalError("the jobs door was opened without a key")
    return exchange.principal


def idempotency_of(exchange: Exchange, path: str, body: bytes) -> Idempotency | None:
    """The request's ``Idempotency-Key``, tied to what it asks. Raises InvalidRequest."""
    key = exchange.headers.get("idempotency-key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.match(key):
        raise InvalidRequest(
            "Idempotency-Key must be 1 to 255 visible ASCII characters.", param="Idempotency-Key"
        )
    return Idempotency(key, hashlib.sha256(path.encode() + b"\x00" + body).digest())


def last_event_id(exchange: Exchange) -> int:
    """Where the reader left off; what is no number of ours is the beginning."""
    text = exchange.headers.get("last-event-id", "")
    return int(text) if _NUMBER.match(text) else 0


def numbered(sequence: int, name: str | None, data: bytes) -> bytes:
    """An event with its number, by which a reader comes back."""
    return b"id: %d\n%b" % (sequence, event(name, data))


async def with_pings(items: AsyncIterator[_T], seconds: float) -> AsyncIterator[_T | None]:
    """The items, and None whenever there was none for so long."""
    upcoming: asyncio.Task[_T] | None = None

    async def following() -> _T:
        return await anext(items)

    try:
        while True:
            if upcoming is None:
                upcoming = asyncio.create_task(following())
            await asyncio.wait({upcoming}, timeout=seconds)
            if not upcoming.done():
                yield None
                continue
            ended, upcoming = upcoming, None
            try:
                item = ended.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.wait({upcoming})


def _named(exchange: Exchange) -> tuple[str, str]:
    return principal_of(exchange).tenant, exchange.path_params["job"]


def _preferences(headers: Mapping[str, str]) -> list[str]:
    text = headers.get("prefer", "")
    if len(text) > _PREFER_CHARACTERS_MAX:
        return []
    return [part.partition(";")[0].strip().lower() for part in text.split(",")]


def _wait_seconds(preferences: list[str]) -> float | None:
    for preference in preferences:
        match = _WAIT.match(preference)
        if match is not None:
            return float(match[1])
    return None
