"""The chains door: who may run which chain, how urgently, and the way to a worker and back.

The front knows a chain by its name and its table only. It checks the key, makes the run's
identity, waits for a free worker, and passes bytes through in both directions: a caller who
hangs up closes the worker's connection, which cancels the run; a slow caller makes the worker
wait; a worker that dies becomes an error in the protocol's own words.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import uuid
from collections.abc import Callable, Mapping

import aiohttp
import msgspec

from penstock.chains.call import Call, Ending
from penstock.chains.spec import AGENT_ENDPOINTS, CHAT_ENDPOINT
from penstock.chains.supervisor import WorkerPool
from penstock.config.model import ChainTable, ClassTable
from penstock.errors import ChainFailed, Forbidden, InternalError, InvalidRequest, NotFound
from penstock.http.auth import Principal
from penstock.http.door import while_connected
from penstock.http.error_body import ErrorShape
from penstock.http.exchange import Exchange
from penstock.http.run_identity import sign
from penstock.http.urgency import Urgency, urgency
from penstock.providers.base import ParsedCall
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

CHAIN_MODEL_PREFIX = "chain:"

DEADLINE_MESSAGE = (
    "the deadline that this request names passed while the chain ran, so it was cancelled; "
    "ask for a later one"
)
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
            for name, table in self.visible(principal).items()
        ]
        await exchange.respond(200, msgspec.json.encode({"chains": listed}))
        return Outcome.SUCCESS

    async def handle(self, exchange: Exchange) -> Outcome:
        """``/chains/{name}/{rest}``: run the chain, or ask for its schemas."""
        name = exchange.path_params["name"]
        table = self._chain(_principal(exchange), name)
        rest = exchange.path_params["rest"]
        if exchange.inside is not None and rest in AGENT_ENDPOINTS:
            return await self._pass(exchange, name, rest, table.timeout_seconds)
        route = ROUTE.match(rest)
        if route is None:
            raise NotFound("no such route under this chain; there are invoke, batch and stream")
        _check_needs_no_langsmith(exchange, route[1])
        limit_seconds = table.timeout_seconds if route[1] in ONE_RUN else None
        return await self._pass(exchange, name, route[0].rstrip("/"), limit_seconds)

    def chat_models(self, principal: Principal) -> frozenset[str]:
        """The chains that this key may call as models, by the models' names."""
        return frozenset(
            CHAIN_MODEL_PREFIX + name
            for name in self._pool.chat_chains & self._chains.keys()
            if principal.chains is None or name in principal.chains
        )

    async def complete(self, exchange: Exchange, call: ParsedCall) -> Outcome:
        """A chat completion whose model is a chain. Raises CallError."""
        principal = _principal(exchange)
        if principal.internal:
            # Places are few: runs that wait for runs behind them would wait for each other.
            raise Forbidden("a chain cannot call a chain as a model: import it", param="model")
        name = call.model.removeprefix(CHAIN_MODEL_PREFIX)
        table = self._chain(principal, name)
        return await self._pass(exchange, name, CHAT_ENDPOINT, table.timeout_seconds, call)

    async def _pass(
        self,
        exchange: Exchange,
        name: str,
        route: str,
        limit_seconds: float | None,
        completion: ParsedCall | None = None,
    ) -> Outcome:
        """Lease a worker, let the request through, and end the answer."""
        arrival = self._clock()
        principal = _principal(exchange)
        wish = urgency(
            principal,
            exchange.headers,
            self._classes,
            arrival,
            priority=None if completion is None else completion.priority,
            service_tier=None if completion is None else completion.service_tier,
            default=self._chains[name].class_default,
        )
        inside = exchange.inside
        job_id = "" if inside is None else inside.job_id
        identity = RunIdentity(
            run_id=job_id or str(uuid.uuid4()),
            chain=name,
            key_id=principal.key_id,
            tenant=principal.tenant,
            class_name=wish.class_name,
            arrival=arrival if inside is None or inside.arrival is None else inside.arrival,
            deadline=self._run_deadline(wish, arrival),
            job_id=job_id,
            attempt=0 if inside is None else inside.attempt,
        )
        exchange.facts.update({"class": wish.class_name, "chain": name, "run": identity.run_id})
        exchange.response_headers["penstock-class"] = wish.class_name
        body = await exchange.body()
        shape = ErrorShape.OPENAI if completion else ErrorShape.PROBLEM
        call = Call(exchange, name, route, body, sign(identity, self._run_key), shape)
        rank = self._classes[wish.class_name].rank
        limit = _Limit(identity.deadline, limit_seconds, self._clock)
        try:
            ending = await while_connected(exchange, self._run(call, rank, wish.deadline, limit))
        except ChainFailed as error:
            if not exchange.started:
                raise
            ending = call.broken_off(error)
        return await ending.send(exchange)

    def visible(self, principal: Principal) -> dict[str, ChainTable]:
        """The chains that this key may use, by name."""
        return {
            name: table
            for name, table in sorted(self._chains.items())
            if principal.chains is None or name in principal.chains
        }

    def class_of(self, principal: Principal, name: str, headers: Mapping[str, str]) -> str:
        """The class that a run of this chain would get. Raises Forbidden, NotFound."""
        return self.wish_of(principal, name, headers)[0]

    def wish_of(
        self, principal: Principal, name: str, headers: Mapping[str, str]
    ) -> tuple[str, float | None]:
        """The same, and in how many seconds the caller wants it done, where it says so."""
        table = self._chain(principal, name)
        now = self._clock()
        wish = urgency(principal, headers, self._classes, now, default=table.class_default)
        deadline = self._run_deadline(wish, now)
        return wish.class_name, None if deadline is None else deadline - now

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

    async def _run(self, call: Call, rank: int, deadline: float | None, limit: _Limit) -> Ending:
        began = self._clock()
        while True:
            async with self._pool.lease(rank, deadline) as worker:
                wait_ms = round((self._clock() - began) * 1000)
                call.exchange.facts["wait_ms"] = wait_ms
                call.exchange.response_headers["penstock-wait-ms"] = str(wait_ms)
                call.exchange.outcome_if_gone = Outcome.CANCELLED_SENT
                try:
                    async with asyncio.timeout(limit.seconds_left()):
                        return await call.through(worker)
                except aiohttp.ClientConnectorError:
                    # It died, and its place has not noticed yet. Nothing was sent.
                    worker.condemn()
                except TimeoutError as error:
                    raise limit.reached() from error


class _Limit:
    """How long a run may take: until its caller's deadline, and the chain's own time limit.

    The worker itself keeps the chain's limit; that it has not done so means that it is blocked.
    """

    def __init__(
        self, deadline: float | None, run_seconds: float | None, clock: Callable[[], float]
    ) -> None:
        self._deadline = deadline
        self._run_seconds = run_seconds
        self._clock = clock
        self._is_callers = False

    def seconds_left(self) -> float | None:
        """For a run that begins now; None where nothing bounds it."""
        caller_seconds, chain_seconds = math.inf, math.inf
        if self._deadline is not None:
            caller_seconds = max(0.0, self._deadline - self._clock())
        if self._run_seconds is not None:
            chain_seconds = self._run_seconds + OVERTIME_SECONDS
        # Noted here, since a timer may ring a moment early by another clock.
        self._is_callers = caller_seconds <= chain_seconds
        left = min(caller_seconds, chain_seconds)
        return None if left == math.inf else left

    def reached(self) -> ChainFailed:
        """What the caller is told when the time of ``seconds_left`` is over."""
        if self._is_callers:
            return ChainFailed(DEADLINE_MESSAGE, status=504, code="deadline_exceeded")
        return ChainFailed(BLOCKED_MESSAGE, status=504, code="chain_timeout")


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


def _principal(exchange: Exchange) -> Principal:
    if exchange.principal is None:
        raise InternalError("the chains door was opened without a key")
    return exchange.principal
