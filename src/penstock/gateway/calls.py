"""One LLM call, from the caller's bytes to the caller's bytes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from typing import Protocol

import msgspec

from penstock.config.model import ClassTable
from penstock.dispatch.calls import Answer, Calls, OpenCall, StreamedAnswer
from penstock.dispatch.planning import queue_name
from penstock.errors import CallError, InternalError, NotFound
from penstock.gateway.accounts import Account, Accounts
from penstock.gateway.fallbacks import Fallbacks, leads_on
from penstock.gateway.kept import KeptResponses, pinned_model
from penstock.gateway.large_bodies import LARGE_BYTES, LargeBodies
from penstock.gateway.late_errors import late_error
from penstock.gateway.limit_headers import LimitsTold
from penstock.gateway.named_runs import NamedRun, NamedRuns
from penstock.gateway.notices import STREAM_HEADERS, QueueNotices
from penstock.gateway.reuse import Reuse
from penstock.gateway.who import Caller, caller_of, check_model
from penstock.http.auth import Principal
from penstock.http.door import Desk, while_connected
from penstock.http.exchange import Exchange
from penstock.http.urgency import Urgency, body_seconds, class_and_seconds
from penstock.limits.pool import Pool
from penstock.providers import responses
from penstock.providers.base import CHAT, RESPONSES, Endpoint, ParsedCall
from penstock.providers.estimate import Estimator, Forecast
from penstock.providers.registry import READERS
from penstock.units import (
    CANCELLED_SENT,
    CANCELLED_WAITING,
    SUCCESS,
    Grant,
    Outcome,
    RunPlace,
    Unit,
    Usage,
)


class Asked(msgspec.Struct, frozen=True):
    """A call that may be made: who makes it, how urgent it is, when it came."""

    call: ParsedCall
    caller: Caller
    forecast: Forecast
    wish: Urgency
    arrived_at: float
    request_id: str
    account: Account
    named: NamedRun | None = None


class ChainModels(Protocol):
    """Chains that are called as if they were models: ``chain:NAME``, in chat completions."""

    def chat_models(self, principal: Principal) -> frozenset[str]:
        """The names of those that this key may call."""

    async def complete(self, exchange: Exchange, call: ParsedCall) -> Outcome:
        """Answer the whole request. Raises CallError."""


class Background(Protocol):
    """Responses that nobody waits for."""

    async def accept(
        self, exchange: Exchange, call: ParsedCall, principal: Principal, class_name: str
    ) -> Outcome:
        """Store the call and answer at once. Raises CallError."""

    async def upstream_id(self, tenant: str, response_id: str) -> str | None:
        """The provider's id of one that has ended; None where it is not this tenant's."""


CHAIN_PREFIX = "chain:"


class GatewayCalls:
    """Answers the endpoints of every protocol.

    ``classes`` is replaced on a reload; ``kept`` is given before the first call.
    """

    kept: KeptResponses

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
        self.background: Background | None = None
        self.reuse: Reuse | None = None
        self._chains = chains
        self.classes = classes
        self.fallbacks = Fallbacks(calls.dispatcher.scheduler, {})
        self._limits_told = LimitsTold()
        self._named_runs = NamedRuns()
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
        body = await exchange.body()
        is_large = len(body) >= LARGE_BYTES
        reader = READERS[endpoint]
        if is_large:
            call = await self._large.run(partial(reader.parse, endpoint, body))
        else:
            call = reader.parse(endpoint, body)
        if self._chains and endpoint is CHAT and call.model.startswith(CHAIN_PREFIX):
            exchange.at_end = None  # a run is no call; those that it makes leave rows
            return await self._chains.complete(exchange, call)
        check_model(caller.principal, call.model)
        self._check_served(call)
        wish = self._wish(exchange, caller, call, arrived_at)
        if call.background and self.background is not None:
            exchange.at_end = None  # the call that it makes leaves the row
            return await self.background.accept(exchange, call, caller.principal, wish.class_name)
        if self.reuse and self.reuse.concerns(exchange, call.model, caller.principal.key_id):
            reused = await self.reuse.answer(exchange, call, caller, wish.class_name, account)
            if reused is not None:
                return reused
        if is_large:
            estimate = partial(self._estimator.estimate, call, caller.route)
            forecast = await self._large.run(estimate)
        else:
            forecast = self._estimator.estimate(call, caller.route)
        named = self._sub_tenant_and_run(exchange, account, caller, call)
        asked = Asked(call, caller, forecast, wish, arrived_at, exchange.request_id, account, named)
        _note_caller(exchange, asked)
        return await self._answered(exchange, asked)

    def _sub_tenant_and_run(
        self, exchange: Exchange, account: Account, caller: Caller, call: ParsedCall
    ) -> NamedRun | None:
        """What a caller says of its own users, who take turns, and of its runs, for the ledger."""
        if call.sub_tenant is not None:
            user = f"{caller.principal.tenant}/{call.sub_tenant}"
            account.row.sub_tenant = self._desk.authenticator.pseudonym(user)
        if caller.run is not None:
            return None
        principal, row = caller.principal, account.row
        named = self._named_runs.read(exchange.headers, call.continuation_id, principal)
        if named is not None:
            row.run_id, row.chain, row.step = named.run_id, named.chain, named.step
        return named

    async def _answered(self, exchange: Exchange, asked: Asked) -> Outcome:
        """Send what may be sent, and pass the answer on."""
        begun: list[Answer] = []
        work = self._told if asked.call.stream else self._pass_on
        try:
            whole = await while_connected(exchange, work(exchange, asked, begun))
        except CallError as error:
            if not exchange.started:
                exchange.response_headers.update(self._limits_told_before(asked))
                raise
            answer = begun[-1] if begun else None
            return await _end_late(exchange, error, asked.call.endpoint, answer)
        if whole is not None:
            await exchange.respond(200, whole)
        else:
            await exchange.finish()
        return SUCCESS

    def _wish(self, exchange: Exchange, caller: Caller, call: ParsedCall, now: float) -> Urgency:
        """Class and deadline; what runs in the background is batch work, and has all the time."""
        principal, classes, head = caller.principal, self.classes, exchange.head
        is_timed = call.deadline is not None or call.window_seconds is not None
        says_more = call.priority is not None or call.service_tier is not None
        is_by_head = not (says_more or is_timed or call.background)
        known = head.wish if is_by_head else None
        if known is None or known[0] is not principal or known[1] is not classes:
            class_name, seconds = class_and_seconds(
                principal,
                exchange.headers,
                classes,
                priority=call.priority,
                service_tier=call.service_tier,
                body_seconds=body_seconds(call, self._accounts.wall()) if is_timed else None,
                default=max(classes, key=lambda name: classes[name].rank)
                if call.background
                else None,
            )
            known = principal, classes, class_name, seconds
            head.wish = known if is_by_head else None
        is_patient = exchange.inside is not None and exchange.inside.is_patient
        return Urgency(known[2], None if is_patient else now + known[3])

    def _check_served(self, call: ParsedCall) -> None:
        serves = self._calls.dispatcher.scheduler.serves
        if serves(queue_name(call.endpoint.dialect, call.model)):
            return
        paths = [path for path in Endpoint if serves(queue_name(path.dialect, call.model))]
        if paths:
            raise NotFound(
                f"The model '{call.model}' is not served at {call.endpoint.value}, but at "
                f"{', '.join(sorted(paths))}.",
                param="model",
                code="model_not_found",
            )
        raise NotFound(
            "No deployment serves this model. GET /v1/models lists those that are served.",
            param="model",
            code="model_not_found",
        )

    def _unit(self, asked: Asked, model: str) -> Unit:
        """The unit that waits under a queue's name."""
        caller, deadline, run = asked.caller, asked.wish.deadline, asked.caller.run
        # The caller's request id may come twice; a unit's must not.
        unit_id = f"{asked.request_id}-{next(self._numbers)}"
        place = RunPlace(unit_id, asked.arrived_at)
        affinity = asked.call.cache_key
        if affinity is None and asked.named is not None and not asked.named.is_trace:
            affinity = asked.named.run_id
        if affinity is not None:
            affinity = f"{caller.principal.tenant}/{affinity}"
        if run is not None:
            place = RunPlace(run.run_id, run.arrival, run.step, run.chain)
            affinity = affinity or run.run_id
            if run.deadline is not None:
                deadline = min(run.deadline, deadline) if deadline is not None else run.deadline
        return Unit(
            unit_id=unit_id,
            model=model,
            tenant=caller.principal.tenant,
            class_name=asked.wish.class_name,
            estimate=asked.forecast,
            place=place,
            deadline=deadline,
            affinity=affinity,
            sub_tenant=asked.account.row.sub_tenant,
        )

    async def _told(self, exchange: Exchange, asked: Asked, begun: list[Answer]) -> bytes | None:
        """``_pass_on`` of a stream: its caller is told of its wait meanwhile."""
        scheduler = self._calls.dispatcher.scheduler
        known = partial(self._limits_told_before, asked)
        async with QueueNotices(exchange, scheduler, self._clock, known) as notices:
            return await self._pass_on(exchange, asked, begun, notices)

    async def _pass_on(
        self,
        exchange: Exchange,
        asked: Asked,
        begun: list[Answer],
        notices: QueueNotices | None = None,
    ) -> bytes | None:
        """The answer of the first model that gives one; see ``_pass_on_from``."""
        call, principal = asked.call, asked.caller.principal
        previous = call.previous_response_id
        if previous is not None and self.background and previous.startswith("resp_"):
            upstream_id = await self.background.upstream_id(principal.tenant, previous)
            previous = upstream_id or previous
        if previous is not None:
            keeper = await self.kept.find(principal.tenant, previous)
            call = msgspec.structs.replace(call, previous_response_id=previous)
            pinned = pinned_model(self._calls.dispatcher.scheduler, call.model, keeper)
            return await self._pass_on_from(exchange, asked, call, pinned, begun, notices)
        first_error: CallError | None = None
        models = self.fallbacks.candidates(call, principal, self._clock())
        for number, model in enumerate(models, start=1):
            queue = queue_name(call.endpoint.dialect, model)
            has_more = number < len(models)
            try:
                return await self._pass_on_from(
                    exchange, asked, call, queue, begun, notices, gives_way=has_more
                )
            except CallError as error:
                # What the model that was asked for said tells a caller most.
                first_error = first_error or error
                if begun:
                    raise
                if not has_more or not leads_on(error):
                    raise first_error from None
                exchange.facts["fallback_after"] = error.code
        raise InternalError("a call had no model to go to")

    async def _pass_on_from(
        self,
        exchange: Exchange,
        asked: Asked,
        call: ParsedCall,
        queue: str,
        begun: list[Answer],
        notices: QueueNotices | None,
        *,
        gives_way: bool = False,
    ) -> bytes | None:
        """A whole answer's body; a stream is passed on up to its end, and gives None."""
        model = queue.partition("/")[2].partition(" ")[0]
        unit = self._unit(asked, queue)
        if notices is not None:
            notices.unit_id = unit.unit_id
        asked.account.submit(unit, model, asked.caller, call.service_tier)
        exchange.facts["model"] = queue.partition(" ")[0]
        watcher = _Watcher(exchange, asked, call, model, self._estimator)
        headers = exchange.headers
        with OpenCall(self._calls, unit, call, headers, watcher, gives_way=gives_way) as opened:
            answer = await opened.begin()
            begun.append(answer)
            exchange.response_headers["penstock-model"] = model
            if not exchange.started:
                self._note_limits(exchange, asked, answer.grant)
            _note_times(exchange, answer, self._clock())
            if not isinstance(answer, StreamedAnswer):
                _note_usage(exchange, asked, answer)
                self._keep(asked, answer)
                return answer.body
            self._keep(asked, answer)
            try:
                if notices is not None:
                    await notices.end()
                if not exchange.started:
                    exchange.response_headers.update(STREAM_HEADERS)
                    await exchange.start(200, "text/event-stream")
                await answer.pass_to(exchange.pass_on, exchange.drained)
            finally:
                _note_usage(exchange, asked, answer)
        return None

    def _note_limits(self, exchange: Exchange, asked: Asked, grant: Grant) -> None:
        """What the caller may still use, in its answer's headers."""
        scheduler = self._calls.dispatcher.scheduler
        pool = scheduler.limits_for(asked.caller.principal.tenant, grant.deployment)
        exchange.response_headers.update(self._limit_headers(asked, pool))

    def _limits_told_before(self, asked: Asked) -> Mapping[str, str]:
        """The same for what has no grant: a refusal, and a stream whose head goes out early."""
        tenant, call = asked.caller.principal.tenant, asked.call
        queue = queue_name(call.endpoint.dialect, call.model)
        pool = self._calls.dispatcher.scheduler.limits_before(tenant, queue)
        return self._limit_headers(asked, pool)

    def _limit_headers(self, asked: Asked, pool: Pool | None) -> Mapping[str, str]:
        if pool is None or not pool.buckets:
            return {}
        wire = READERS[asked.call.endpoint].wire
        return self._limits_told.headers(pool, self._clock(), self._accounts.wall(), wire)

    def _keep(self, asked: Asked, answer: Answer) -> None:
        """Remember whose response this is: a later one may continue it."""
        if asked.call.endpoint is not RESPONSES:
            return
        named = answer.response_id
        if answer.body is not None:
            named = responses.response_id(answer.body)
        if named is not None:
            self.kept.keep(asked.caller.principal.tenant, named, answer.grant.deployment)


class _Watcher:
    """Notes how a call gets on, and what it teaches."""

    __slots__ = ("_asked", "_call", "_estimator", "_exchange", "_model")

    def __init__(
        self, exchange: Exchange, asked: Asked, call: ParsedCall, model: str, estimator: Estimator
    ) -> None:
        self._exchange = exchange
        self._asked = asked
        self._call = call
        self._model = model
        self._estimator = estimator

    def granted(self, grant: Grant) -> None:
        """It will be sent now."""
        exchange = self._exchange
        exchange.outcome_if_gone = CANCELLED_SENT
        facts = exchange.facts
        facts["deployment"] = grant.deployment.partition(" ")[0]
        facts["wait_ms"] = round(grant.wait_seconds * 1000)
        facts["attempt"] = grant.attempt
        if grant.causes:
            facts["wait_causes_ms"] = {
                cause: round(seconds * 1000) for cause, seconds in grant.causes.items()
            }
        self._asked.account.granted(grant)

    def returned(self) -> None:
        """It waits again."""
        self._exchange.outcome_if_gone = CANCELLED_WAITING

    def used(self, usage: Usage) -> None:
        """The next estimate of the kind is to be better."""
        call, asked = self._call, self._asked
        if call.model != self._model:
            call = msgspec.structs.replace(call, model=self._model)
        self._estimator.learn(call, asked.caller.route, asked.forecast, usage)


async def _end_late(
    exchange: Exchange, error: CallError, endpoint: Endpoint, answer: Answer | None
) -> Outcome:
    """End a stream that has begun with the protocol's own error: never with its good end."""
    exchange.facts["error"] = error.code
    named, seen = (None, 0) if answer is None else (answer.response_id, answer.events_seen)
    await exchange.write(late_error(error, endpoint, exchange.request_id, named, seen))
    await exchange.finish()
    return error.outcome


def _note_caller(exchange: Exchange, asked: Asked) -> None:
    class_name, tenant = asked.wish.class_name, asked.caller.principal.tenant
    exchange.facts.update({"class": class_name, "tenant": tenant})
    exchange.response_headers["penstock-class"] = class_name
    if asked.caller.run is not None:
        run = asked.caller.run
        exchange.facts.update({"run": run.run_id, "chain": run.chain, "step": run.step})


def _note_times(exchange: Exchange, answer: Answer, now: float) -> None:
    """What the caller is told of the wait, in the headers of its answer."""
    grant = answer.grant
    queue_ms = grant.wait_seconds * 1000
    upstream_ms = (now - grant.granted_at) * 1000
    headers = exchange.response_headers
    headers["penstock-deployment"] = grant.deployment.partition(" ")[0]
    headers["penstock-wait-ms"] = f"{queue_ms:.0f}"
    headers["server-timing"] = f"queue;dur={queue_ms:.1f}, upstream;dur={upstream_ms:.1f}"


def _note_usage(exchange: Exchange, asked: Asked, answer: Answer) -> None:
    usage = answer.usage
    asked.account.used(usage)
    exchange.facts["tokens_input"] = usage.tokens_input
    exchange.facts["tokens_output"] = usage.tokens_output
