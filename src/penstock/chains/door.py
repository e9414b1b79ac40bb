"""The chains door: who may run which chain, how urgently, and the way to a worker and back.

The front knows a chain by its name and its table only. It checks the key, makes the run's
identity, waits for a free worker, and passes bytes through in both directions: a caller who
hangs up closes the worker's connection, which cancels the run; a slow caller makes the worker
wait; a worker that dies becomes an error in the protocol's own words.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from penstock.chains.event_frames import ErrorEvent, EventFrames
from penstock.chains.process import WorkerProcess
from penstock.chains.spec import OUTCOME_HEADER, REQUEST_ID_HEADER
from penstock.chains.supervisor import WorkerPool
from penstock.config.model import ChainTable, ClassTable
from penstock.errors import (
    CallError,
    ChainFailed,
    Forbidden,
    InternalError,
    InvalidRequest,
    NotFound,
    WorkerLost,
)
from penstock.http.auth import Principal
from penstock.http.door import while_connected
from penstock.http.exchange import Exchange
from penstock.http.run_identity import HEADER, sign
from penstock.http.sse import event
from penstock.http.urgency import Urgency, urgency
from penstock.units import Outcome, RunIdentity

ROUTE = re.compile(r"(?:c/[A-Za-z0-9+$-]{1,4096}/)?([a-z_]{1,32})/?\Z")
"""What may stand behind a chain's name; nothing else reaches a worker."""

ONE_RUN = frozenset({"invoke", "stream", "stream_events", "stream_log"})

LANGSMITH_METHODS = {
    "feedback": ("POST", "HEAD"),
    "token_feedback": ("POST",),
    "public_trace_link": ("PUT", "HEAD"),
}
"""What LangServe passes on to LangSmith, and answers with 400 where there is none, as here."""

OVERTIME_SECONDS = 10.0
"""What a worker gets beyond a run's time limit to say so itself; then its loop must be blocked."""

PASSED_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "allow")
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
EVENT_STREAM = "text/event-stream"

LOST_MESSAGE = "the worker process of this chain died; the run is lost, others are not affected"

BLOCKED_MESSAGE = "the chain took longer than its timeout_seconds, and its worker is blocked"


class ChainsDoor:
    """Handlers for ``/chains`` and ``/chains/{name}/{rest:path}``."""

    def __init__(
        self,
        pool: WorkerPool,
        chains: Mapping[str, ChainTable],
        classes: Mapping[str, ClassTable],
        run_key: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._chains = chains
        self._classes = classes
        self._run_key = run_key
        self._clock = clock

    def reload(self, chains: Mapping[str, ChainTable], classes: Mapping[str, ClassTable]) -> None:
        """Take another configuration's tables; requests in flight keep theirs."""
        self._chains = chains
        self._classes = classes

    async def list_chains(self, exchange: Exchange) -> Outcome:
        """``GET /chains``: the chains that the key may use."""
        principal = _principal(exchange)
        listed = [
            {
                "name": name,
                "description": table.description,
                "input_schema": f"/chains/{name}/input_schema",
                "output_schema": f"/chains/{name}/output_schema",
                "config_schema": f"/chains/{name}/config_schema",
            }
            for name, table in sorted(self._chains.items())
            if principal.chains is None or name in principal.chains
        ]
        await exchange.respond(200, msgspec.json.encode({"chains": listed}))
        return Outcome.SUCCESS

    async def handle(self, exchange: Exchange) -> Outcome:
        """``/chains/{name}/{rest}``: run the chain, or ask for its schemas."""
        arrival = self._clock()
        principal = _principal(exchange)
        name = exchange.path_params["name"]
        table = self._chain(principal, name)
        route = ROUTE.match(exchange.path_params["rest"])
        if route is None:
            raise NotFound("no such route under this chain; there are invoke, batch and stream")
        _check_needs_no_langsmith(exchange, route[1])
        wish = urgency(
            principal, exchange.headers, self._classes, arrival, default=table.class_default
        )
        rank = self._classes[wish.class_name].rank
        identity = RunIdentity(
            run_id=str(uuid.uuid4()),
            chain=name,
            key_id=principal.key_id,
            tenant=principal.tenant,
            class_name=wish.class_name,
            arrival=arrival,
            deadline=self._run_deadline(wish, arrival),
        )
        exchange.facts.update({"class": wish.class_name, "chain": name, "run": identity.run_id})
        exchange.response_headers["penstock-class"] = wish.class_name
        body = await exchange.body()
        call = _Call(exchange, name, route[0].rstrip("/"), body, sign(identity, self._run_key))
        limit_seconds = table.timeout_seconds + OVERTIME_SECONDS if route[1] in ONE_RUN else None
        # What ends the answer stays outside: having it whole looks like a hang-up from inside.
        try:
            ending = await while_connected(
                exchange, self._run(call, rank, wish.deadline, limit_seconds)
            )
        except ChainFailed as error:
            if not exchange.started:
                raise
            ending = _Ending(outcome=error.outcome, last_event=_late(error), torn=call.torn)
        return await ending.send(exchange)

    def _chain(self, principal: Principal, name: str) -> ChainTable:
        # A key learns nothing of chains that it may not use, not even that there are none.
        if principal.chains is not None and name not in principal.chains:
            raise Forbidden("this key may not use this chain")
        table = self._chains.get(name)
        if table is None:
            raise NotFound("no such chain; GET /chains lists those that this key may use")
        return table

    def _run_deadline(self, wish: Urgency, arrival: float) -> float | None:
        """The caller's own deadline. A class's patience is for one wait, not for a whole run."""
        patience_seconds = self._classes[wish.class_name].wait_seconds_max
        if wish.deadline is None or wish.deadline >= arrival + patience_seconds:
            return None
        return wish.deadline

    async def _run(
        self, call: _Call, rank: int, deadline: float | None, limit_seconds: float | None
    ) -> _Ending:
        began = self._clock()
        while True:
            async with self._pool.lease(rank, deadline) as worker:
                wait_ms = round((self._clock() - began) * 1000)
                call.exchange.facts["wait_ms"] = wait_ms
                call.exchange.response_headers["penstock-wait-ms"] = str(wait_ms)
                call.exchange.outcome_if_gone = Outcome.CANCELLED_SENT
                try:
                    async with asyncio.timeout(limit_seconds):
                        return await call.through(worker)
                except aiohttp.ClientConnectorError:
                    # It died, and its place has not noticed yet. Nothing was sent.
                    worker.condemn()
                except TimeoutError as error:
                    blocked = ChainFailed(BLOCKED_MESSAGE, status=504, code="chain_timeout")
                    raise blocked from error


class _Ending(msgspec.Struct):
    """What is left to send: a whole answer, or the end of a stream."""

    outcome: Outcome
    whole: tuple[int, bytes, str] | None = None
    last_event: bytes = b""
    torn: bool = False

    async def send(self, exchange: Exchange) -> Outcome:
        if self.whole is not None:
            await exchange.respond(*self.whole)
        elif self.torn:
            exchange.abort()
            exchange.finished = True
        else:
            await exchange.write(self.last_event)
            await exchange.finish()
        return self.outcome


class _Call:
    """One request on its way through a worker."""

    def __init__(
        self, exchange: Exchange, chain: str, route: str, body: bytes, identity: str
    ) -> None:
        self.exchange = exchange
        self.torn = False
        self._url = URL.build(scheme="http", host="worker", path=f"/{chain}/{route}", encoded=True)
        self._body = body
        self._headers = {
            "content-type": "application/json",
            HEADER: identity,
            REQUEST_ID_HEADER: exchange.request_id,
        }

    async def through(self, worker: WorkerProcess) -> _Ending:
        """Send it and pass the answer on.

        Raises ClientConnectorError when nothing was sent, WorkerLost when it was.
        """
        frames = EventFrames()
        try:
            async with worker.session.request(
                self.exchange.scope["method"],
                self._url,
                data=self._body,
                headers=self._headers,
                allow_redirects=False,
            ) as answer:
                self._copy_headers(answer)
                if answer.content_type != EVENT_STREAM:
                    content = await answer.read()
                    return _Ending(
                        outcome=_outcome(answer.headers.get(OUTCOME_HEADER, "")),
                        whole=(answer.status, content, answer.headers["content-type"]),
                    )
                await self._stream(answer, frames)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientError, ConnectionError) as error:
            self.torn = frames.torn
            raise WorkerLost(LOST_MESSAGE) from error
        return _Ending(outcome=_outcome_of_stream(frames.error))

    async def _stream(self, answer: aiohttp.ClientResponse, frames: EventFrames) -> None:
        await self.exchange.start(answer.status, EVENT_STREAM)
        async for chunk in answer.content.iter_any():
            events = frames.feed(chunk)
            if events:
                await self.exchange.write(events)

    def _copy_headers(self, answer: aiohttp.ClientResponse) -> None:
        headers = self.exchange.response_headers
        for name in PASSED_HEADERS:
            if name in answer.headers:
                headers[name] = answer.headers[name]
        if answer.content_type == EVENT_STREAM:
            headers.update(STREAM_HEADERS)


def _late(error: CallError) -> bytes:
    data: dict[str, Any] = {
        "status_code": error.status,
        "message": error.message,
        "code": error.code,
    }
    return event("error", msgspec.json.encode(data))


def _check_needs_no_langsmith(exchange: Exchange, endpoint: str) -> None:
    methods = LANGSMITH_METHODS.get(endpoint)
    if methods is None:
        return
    if exchange.scope["method"] not in methods:
        exchange.response_headers["allow"] = ", ".join(methods)
        raise InvalidRequest(f"{endpoint} takes {' and '.join(methods)}", status=405)
    raise InvalidRequest(
        f"{endpoint} hands data to LangSmith, which this service does not use",
        code="langsmith_only",
    )


def _outcome(text: str) -> Outcome:
    try:
        return Outcome(text)
    except ValueError:
        return Outcome.INTERNAL


def _outcome_of_stream(error: ErrorEvent | None) -> Outcome:
    if error is None:
        return Outcome.SUCCESS
    if error.status_code == 429:
        return Outcome.UPSTREAM_RATE_LIMITED
    if error.code.startswith("upstream"):
        return Outcome.UPSTREAM_UNAVAILABLE
    return Outcome.CHAIN_FAILED


def _principal(exchange: Exchange) -> Principal:
    if exchange.principal is None:
        raise InternalError("the chains door was opened without a key")
    return exchange.principal
