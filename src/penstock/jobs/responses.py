"""Background responses: ``background: true`` of ``/v1/responses``, on the job engine.

Accepted means stored: the answer to the request is a response that is ``queued``, under an id of
ours; the call itself is made by a job, through the same door as any other, with all the time it
takes. It survives a restart of the service; an attempt that broke off is made again. What the
provider gave is shown as it came, but for the id. ``?stream=true`` tells the states as they come
and the whole response at its end, without the deltas between: nobody was there to read them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from starlette.routing import Route

from penstock.errors import InternalError, NotFound
from penstock.http.auth import Principal
from penstock.http.door import Access, Desk, Door, ErrorShape, Handler, while_connected
from penstock.http.exchange import Exchange
from penstock.http.query import asking
from penstock.http.sse import CONTENT_TYPE, comment, event
from penstock.jobs.door import PING_SECONDS, idempotency_of
from penstock.jobs.engine import Jobs, Order
from penstock.jobs.shapes import ResponseQuery
from penstock.jobs.states import State
from penstock.providers.base import ParsedCall
from penstock.providers.control import with_changes
from penstock.store.jobs import Job
from penstock.units import Outcome

KIND: Final = "response"
PATH: Final = "/v1/responses"

_STATUS: Final = {
    State.PENDING: "queued",
    State.RUNNING: "in_progress",
    State.SUCCESS: "completed",
    State.ERROR: "failed",
    State.TIMEOUT: "failed",
    State.INTERRUPTED: "cancelled",
}
_STREAM_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class _Details(msgspec.Struct):
    model: str
    previous_response_id: str | None = None


class _Named(msgspec.Struct):
    id: str | None = None


class BackgroundResponses:
    """Accepts them, and shows, cancels and removes them."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self, desk: Desk, prefixes: tuple[str, ...]) -> list[Route]:
        """Every route but that of the POST, which stands at the gateway."""

        def route(path: str, handler: Handler, method: str) -> Route:
            shape = ErrorShape.OPENAI
            door = Door(handler, access=Access.KEY, shape=shape, door="gateway", desk=desk)
            return Route(path, door, methods=[method])

        return [
            one
            for prefix in prefixes
            for one in (
                route(f"{prefix}{PATH}/{{response}}", self.get, "GET"),
                route(f"{prefix}{PATH}/{{response}}", self.delete, "DELETE"),
                route(f"{prefix}{PATH}/{{response}}/cancel", self.cancel, "POST"),
            )
        ]

    async def accept(
        self, exchange: Exchange, call: ParsedCall, principal: Principal, class_name: str
    ) -> Outcome:
        """Store the call and answer at once, or tell of it as it gets on. Raises CallError."""
        details = _Details(call.model, call.previous_response_id)
        changed = {"stream": b"false"} if call.stream else {}
        order = Order(
            principal=principal,
            class_name=class_name,
            kind=KIND,
            path=PATH,
            body=with_changes(call, call.model, changed),
            details=msgspec.json.encode(details),
            job_id=f"resp_{secrets.token_hex(24)}",
            deadline_seconds=call.window_seconds,
        )
        idempotency = idempotency_of(exchange, PATH, call.body)
        job, _ = await self._jobs.create(order, idempotency)
        exchange.facts["run"] = job.job_id
        if call.stream:
            return await self._stream(exchange, job, after=-1)
        await exchange.respond(200, msgspec.json.encode(await self._document(job)))
        return Outcome.SUCCESS

    @asking(ResponseQuery)
    async def get(self, exchange: Exchange, query: ResponseQuery) -> Outcome:
        """``GET /v1/responses/{id}``, also ``?stream=true``."""
        job = await self._named(exchange)
        if query.stream:
            after = -1 if query.starting_after is None else query.starting_after
            return await self._stream(exchange, job, after=after)
        await exchange.respond(200, msgspec.json.encode(await self._document(job)))
        return Outcome.SUCCESS

    async def cancel(self, exchange: Exchange) -> Outcome:
        """``POST /v1/responses/{id}/cancel``: end it; one that has ended stays as it is."""
        await exchange.body()
        job = await self._named(exchange)
        job = await self._jobs.cancel(job.tenant, job.job_id)
        await exchange.respond(200, msgspec.json.encode(await self._document(job)))
        return Outcome.SUCCESS

    async def delete(self, exchange: Exchange) -> Outcome:
        """``DELETE /v1/responses/{id}``: remove it; one under way is cancelled."""
        job = await self._named(exchange)
        await self._jobs.delete(job.tenant, job.job_id)
        deleted = {"id": job.job_id, "object": "response", "deleted": True}
        await exchange.respond(200, msgspec.json.encode(deleted))
        return Outcome.SUCCESS

    async def upstream_id(self, tenant: str, response_id: str) -> str | None:
        """The provider's id of one that has ended; None where it is not this tenant's."""
        try:
            job = await self._jobs.get(tenant, response_id)
        except NotFound:
            return None
        result = await self._jobs.result(job) if job.kind == KIND else None
        return None if result is None else msgspec.json.decode(result[1], type=_Named).id

    async def _named(self, exchange: Exchange) -> Job:
        if exchange.principal is None:
            raise InternalError("a response was asked for without a key")
        named = exchange.path_params["response"]
        try:
            job = await self._jobs.get(exchange.principal.tenant, named)
        except NotFound:
            job = None
        if job is None or job.kind != KIND:
            raise NotFound(
                "There is no such background response, or it has been removed. Others are kept "
                "by their provider, and are not shown here.",
                code="response_not_found",
            )
        return job

    async def _stream(self, exchange: Exchange, job: Job, *, after: int) -> Outcome:
        exchange.response_headers.update(_STREAM_HEADERS)
        await exchange.start(200, CONTENT_TYPE)
        last = await while_connected(exchange, self._tell(exchange, job, after))
        await exchange.write(last)
        await exchange.finish()
        return Outcome.SUCCESS

    async def _tell(self, exchange: Exchange, job: Job, after: int) -> bytes:
        """Write the states as they come; the last event is given back."""
        number = 0
        async for state in self._states(job):
            if state is None:
                await exchange.write(comment("ping"))
                continue
            shown = await self._document(state)
            is_final = State(state.state).is_final
            name = "response.created" if number == 0 and not is_final else _event_name(shown)
            data = {"type": name, "sequence_number": number, "response": shown}
            told = event(name, msgspec.json.encode(data))
            if is_final:
                return told
            if number > after:
                await exchange.write(told)
            number += 1
        raise InternalError("a response ended without its end")

    async def _states(self, job: Job) -> AsyncIterator[Job | None]:
        """The job in each state that it comes to, and None when there was no news for a while."""
        yield job
        while not State(job.state).is_final:
            before = job.state
            job = await self._jobs.wait(job.tenant, job.job_id, PING_SECONDS)
            yield job if job.state != before else None
            await asyncio.sleep(0)

    async def _document(self, job: Job) -> dict[str, Any]:
        """A response as its owner sees it."""
        state = State(job.state)
        result = await self._jobs.result(job) if state is State.SUCCESS else None
        details = msgspec.json.decode(job.details, type=_Details)
        if result is not None:
            given: dict[str, Any] = dict(
                msgspec.json.decode(result[1], type=dict[str, msgspec.Raw])
            )
            own = {"id": job.job_id, "background": True}
            return {**given, **own, "previous_response_id": details.previous_response_id}
        error = None
        if _STATUS[state] == "failed":
            error = {"code": _error_code(job), "message": job.error_message or "It failed."}
        return {
            "id": job.job_id,
            "object": "response",
            "created_at": int(job.created_at),
            "status": _STATUS[state],
            "background": True,
            "error": error,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": details.model,
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": details.previous_response_id,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
        }


def _event_name(shown: dict[str, Any]) -> str:
    status = shown["status"]
    if isinstance(status, msgspec.Raw):
        status = msgspec.json.decode(status)
    return {
        "queued": "response.queued",
        "in_progress": "response.in_progress",
        "completed": "response.completed",
        "incomplete": "response.incomplete",
    }.get(status, "response.failed")


def _error_code(job: Job) -> str:
    """The protocol has a short list of codes; the message says the rest."""
    return "rate_limit_exceeded" if job.status == 429 else "server_error"
