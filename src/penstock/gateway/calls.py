"""One LLM call, from the caller's bytes to the caller's bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from penstock.config.model import ClassTable
from penstock.dispatch.calls import Answer, Calls
from penstock.dispatch.planning import queue_name
from penstock.errors import CallError, InternalError, NotFound
from penstock.gateway.accounts import Account, Accounts
from penstock.gateway.large_bodies import LargeBodies
from penstock.gateway.who import Caller, caller_of, check_model
from penstock.http.auth import Principal
from penstock.http.door import Desk, ErrorShape, while_connected
from penstock.http.error_body import document
from penstock.http.exchange import Exchange
from penstock.http.sse import event
from penstock.http.urgency import urgency
from penstock.providers.base import Adapter, Endpoint, ParsedCall
from penstock.providers.estimate import Estimator
from penstock.providers.registry import ADAPTERS
from penstock.units import Estimate, Grant, Outcome, RunPlace, Unit, Usage

STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
ADAPTER_OF = {endpoint: adapter for adapter in ADAPTERS.values() for endpoint in adapter.endpoints}


class ChainModels(Protocol):
    """Chains that are called as if they were models: ``chain:NAME``, in chat completions."""

    def chat_models(self, principal: Principal) -> frozenset[str]:
        """The names of those that this key may call."""

    async def complete(self, exchange: Exchange, call: ParsedCall) -> Outcome:
        """Answer the whole request. Raises CallError."""


CHAIN_PREFIX = "chain:"


class GatewayCalls:
    """Answers the endpoints of every protocol. ``classes`` is replaced on a reload."""

    def __init__(
        self,
        calls: Calls,
        estimator: Estimator,
        desk: Desk,
        classes: Mapping[str, ClassTable],
        run_key: bytes,
        accounts: Accounts,
        chains: ChainModels | None = None,
    ) -> None:
        self._chains = chains
        self.classes = classes
        self._calls = calls
        self._estimator = estimator
        self._desk = desk
        self._run_key = run_key
        self._accounts = accounts
        self._clock = accounts.clock
        self._numbers = itertools.count()
        self._large = LargeBodies()

    async def answer(self, exchange: Exchange, endpoint: Endpoint) -> Outcome:
        """Parse, admit, wait, send, pass the answer on."""
        arrived_at = self._clock()
        if exchange.principal is None:
            raise InternalError("the gateway was opened without a key")
        account = self._accounts.open(exchange, exchange.principal)
        authenticator = self._desk.authenticator
        caller = caller_of(exchange.principal, exchange.headers, authenticator, self._run_key)
        adapter = ADAPTER_OF[endpoint]
        body = await exchange.body()
        call = await self._large.run(body, partial(adapter.parse, endpoint, body))
        if self._chains and endpoint is Endpoint.CHAT and call.model.startswith(CHAIN_PREFIX):
            exchange.at_end = None  # a run is no call; those that it makes leave rows
            return await self._chains.complete(exchange, call)
        check_model(caller.principal, call.model)
        self._check_served(adapter, call)
        forecast = await self._large.run(
            body, partial(self._estimator.estimate, call, caller.route)
        )
        unit = self._unit(exchange, caller, call, forecast, arrived_at)
        _note_caller(exchange, caller, unit)
        account.submit(unit, call.model, caller)
        learn = partial(self._estimator.learn, call, caller.route, forecast)
        # What ends the answer stays outside: having all of it looks like a hang-up from inside.
        try:
            whole = await while_connected(
                exchange, self._pass_on(exchange, call, unit, learn, account)
            )
        except CallError as error:
            if not exchange.started:
                raise
            return await _end_late(exchange, error, adapter.kind)
        if whole is not None:
            await exchange.respond(200, whole)
        else:
            await exchange.finish()
        return Outcome.SUCCESS

    def _check_served(self, adapter: Adapter, call: ParsedCall) -> None:
        serves = self._calls.dispatcher.scheduler.serves
        if serves(queue_name(adapter.kind, call.model)):
            return
        for other in ADAPTERS.values():
            if serves(queue_name(other.kind, call.model)):
                paths = ", ".join(sorted(other.endpoints))
                raise NotFound(
                    f"This model speaks another protocol: it is served at {paths}.",
                    param="model",
                    code="model_not_found",
                )
        raise NotFound(
            "No deployment serves this model. GET /v1/models lists those that are served.",
            param="model",
            code="model_not_found",
        )

    def _unit(
        self, exchange: Exchange, caller: Caller, call: ParsedCall, estimate: Estimate, now: float
    ) -> Unit:
        wish = urgency(
            caller.principal,
            exchange.headers,
            self.classes,
            now,
            priority=call.priority,
            service_tier=call.service_tier,
        )
        deadline, run = wish.deadline, caller.run
        # The caller's request id may come twice; a unit's must not.
        unit_id = f"{exchange.request_id}-{next(self._numbers)}"
        place = RunPlace(unit_id, now)
        if run is not None:
            place = RunPlace(run.run_id, run.arrival, run.step)
            if run.deadline is not None:
                deadline = min(run.deadline, deadline) if deadline is not None else run.deadline
        return Unit(
            unit_id=unit_id,
            model=queue_name(ADAPTER_OF[call.endpoint].kind, call.model),
            tenant=caller.principal.tenant,
            class_name=wish.class_name,
            estimate=estimate,
            place=place,
            deadline=deadline,
            affinity=None if run is None else run.run_id,
        )

    async def _pass_on(
        self,
        exchange: Exchange,
        call: ParsedCall,
        unit: Unit,
        learn: Callable[[Usage], None],
        account: Account,
    ) -> bytes | None:
        """A whole answer's body; a stream is passed on up to its end, and gives None."""

        def note_grant(grant: Grant) -> None:
            exchange.outcome_if_gone = Outcome.CANCELLED_SENT
            _note_grant(exchange, grant)
            account.granted(grant)

        opened = self._calls.open(unit, call, exchange.headers, on_grant=note_grant, on_usage=learn)
        async with opened as answer:
            _note_times(exchange, answer, self._clock())
            if answer.body is not None:
                _note_usage(exchange, answer)
                account.used(answer.usage)
                return answer.body
            exchange.response_headers.update(STREAM_HEADERS)
            await exchange.start(200, "text/event-stream")
            try:
                async for piece in answer.chunks():
                    await exchange.write(piece)
            finally:
                _note_usage(exchange, answer)
                account.used(answer.usage)
        return None


async def _end_late(exchange: Exchange, error: CallError, kind: str) -> Outcome:
    """End a stream that began well with the protocol's own error: never with its good end."""
    exchange.facts["error"] = error.code
    await exchange.write(_late_error(error, kind, exchange.request_id))
    await exchange.finish()
    return error.outcome


def _late_error(error: CallError, kind: str, request_id: str) -> bytes:
    """An error in a stream that began well, as each protocol says it."""
    if kind == "anthropic":
        body = document(error, ErrorShape.ANTHROPIC, request_id)
        return event("error", msgspec.json.encode(body))
    body = document(error, ErrorShape.OPENAI, request_id)
    return event(None, msgspec.json.encode(body))


def _note_caller(exchange: Exchange, caller: Caller, unit: Unit) -> None:
    exchange.facts.update({"class": unit.class_name, "tenant": unit.tenant, "model": unit.model})
    exchange.response_headers["penstock-class"] = unit.class_name
    if caller.run is not None:
        run = caller.run
        exchange.facts.update({"run": run.run_id, "chain": run.chain, "step": run.step})


def _note_grant(exchange: Exchange, grant: Grant) -> None:
    exchange.facts["deployment"] = grant.deployment
    exchange.facts["wait_ms"] = round(grant.wait_seconds * 1000)
    exchange.facts["attempt"] = grant.attempt
    if grant.causes:
        exchange.facts["wait_causes_ms"] = {
            cause: round(seconds * 1000) for cause, seconds in grant.causes.items()
        }


def _note_times(exchange: Exchange, answer: Answer, now: float) -> None:
    """What the caller is told of the wait, in the headers of its answer."""
    grant = answer.grant
    queue_ms = grant.wait_seconds * 1000
    upstream_ms = (now - grant.granted_at) * 1000
    headers = exchange.response_headers
    headers["penstock-deployment"] = grant.deployment
    headers["penstock-wait-ms"] = f"{queue_ms:.0f}"
    headers["server-timing"] = f"queue;dur={queue_ms:.1f}, upstream;dur={upstream_ms:.1f}"


def _note_usage(exchange: Exchange, answer: Answer) -> None:
    usage = answer.usage
    exchange.facts["tokens_input"] = usage.tokens_input
    exchange.facts["tokens_output"] = usage.tokens_output
