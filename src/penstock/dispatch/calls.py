"""One call, from its submission to its settlement.

``OpenCall`` waits for a grant, sends, and goes back to the unit's place as often as
``retries`` allows, until the first byte of a good answer is here: nothing has reached the
caller before, so nothing is sent twice to it. Whatever then happens (the end, a hang-up, a
break, an error of ours), the reservation is settled exactly once, by the end of one context
manager (a class: ``contextlib``'s costs several times as much; no asynchronous one: nothing is
waited for at its end).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import NoReturn, Protocol

import msgspec

from penstock.dispatch.dispatcher import Dispatcher
from penstock.dispatch.upstream import (
    ERROR_BODY_BYTES_MAX,
    Timeouts,
    Upstream,
    UpstreamFault,
    UpstreamResponse,
)
from penstock.errors import (
    CallError,
    UpstreamAuth,
    UpstreamExhausted,
    UpstreamInvalid,
    UpstreamOversized,
    UpstreamRejected,
    UpstreamUnavailable,
)
from penstock.providers.base import Adapter, Failure, FailureKind, ParsedCall, StreamReader
from penstock.scheduler.events import Cancelled, Event, Failed, Observed, Settled
from penstock.scheduler.retries import consequence, may_retry
from penstock.telemetry.metrics import Metrics
from penstock.units import Grant, Unit, Usage

_log = logging.getLogger("penstock.dispatch")

ATTEMPTS_BEFORE_ANOTHER = 2
"""A provider that fails twice is left for another model, where the configuration names one."""

_OPERATORS = {
    FailureKind.AUTH: "the provider refused our key; look at key_env or key_file of its provider",
    FailureKind.FATAL: "the account at the provider has no quota left",
}

END_SECONDS_MAX = 1.0
"""How long the connection's end may lag behind the protocol's before it is cut."""


class Target(msgspec.Struct, frozen=True):
    """How a deployment is reached. ``base_url`` is as the provider's SDK takes it."""

    deployment: str
    base_url: str
    model: str
    adapter: Adapter
    timeouts: Timeouts
    key: str | None = None
    api_version: str | None = None
    service_tiers: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Target({self.deployment!r})"


class AttemptFailed(Exception):
    """One attempt did not lead to an answer; ``error`` is for the caller if it was the last."""

    def __init__(self, failure: Failure, error: CallError, *, was_sent: bool = True) -> None:
        super().__init__(error.message)
        self.failure = failure
        self.error = error
        self.was_sent = was_sent
        self.is_stale = False
        self.observed: Observed | None = None


class Answer:
    """A good answer under way: whole, or a stream whose first piece is here.

    ``body`` is None for a stream. ``usage`` is final once the body or the stream has been read.
    ``tier_sent`` is the service tier that it was asked for in, where it may be; else empty.
    """

    def __init__(
        self, unit: Unit, grant: Grant, body: bytes | None, reported: Usage | None
    ) -> None:
        self.grant = grant
        self.body = body
        self.is_complete = body is not None
        self.tier_sent = ""
        self._estimate = unit.estimate
        self._reported = reported

    @property
    def reported(self) -> Usage | None:
        """What the provider reported, so far."""
        return self._reported

    @property
    def tokens_output_seen(self) -> int:
        """What has passed, where nothing was reported: of a whole answer, what was expected."""
        return self._estimate.tokens_output

    @property
    def response_id(self) -> str | None:
        """The provider's id of a streamed response; None in other protocols."""
        return None

    @property
    def events_seen(self) -> int:
        """How many numbered events have passed."""
        return 0

    @property
    def usage(self) -> Usage:
        """What the provider reported, or what was seen where it has reported nothing."""
        usage = self.reported or Usage(self._estimate.tokens_input, self.tokens_output_seen)
        if self.tier_sent and not usage.service_tier:
            return msgspec.structs.replace(usage, service_tier=self.tier_sent)
        return usage

    def close(self) -> None:
        """Give the connection back, or cut it where the answer is not complete."""


class StreamedAnswer(Answer):
    """A stream that has begun well."""

    _cut_at: float | None = None  # the loop's time, once the protocol's end has passed

    def __init__(
        self,
        unit: Unit,
        grant: Grant,
        response: UpstreamResponse,
        reader: StreamReader,
        key: str | None,
    ) -> None:
        super().__init__(unit, grant, None, None)
        self._response = response
        self._reader = reader
        self._key = key
        self._first = b""

    @property
    def reported(self) -> Usage | None:
        """What the provider reported, so far."""
        return self._reader.usage

    @property
    def tokens_output_seen(self) -> int:
        """What has passed, where nothing was reported."""
        return self._reader.tokens_output_seen

    @property
    def response_id(self) -> str | None:
        """The provider's id of a streamed response; None in other protocols."""
        return self._reader.response_id

    @property
    def events_seen(self) -> int:
        """How many numbered events have passed."""
        return self._reader.events_seen

    async def begin(self) -> None:
        """Read until there is something to pass on: until then a failure may be retried.

        Raises AttemptFailed, UpstreamInvalid.
        """
        while not self._first and not self.is_complete:
            try:
                self._first = await self._next_piece()
            except (UpstreamUnavailable, UpstreamRejected) as error:
                failure = self._reader.failure or Failure(FailureKind.UNAVAILABLE)
                raise AttemptFailed(failure, error) from None

    async def pass_to(
        self, write: Callable[[bytes], bool], drained: Callable[[], Awaitable[None]]
    ) -> None:
        """Give the stream to ``write`` as it comes, which says whether more may be sent at once.

        Where not, ``drained`` is waited for; else no task runs from one piece to the next. Raises
        CallError where the provider fails or breaks off, and what ``write`` raises.
        """
        reader = self._reader

        def take(chunk: bytes) -> bool:
            piece = reader.feed(chunk)
            has_room = write(piece) if piece else True
            return has_room and not reader.finished and reader.failure is None

        write(self._first)
        while not self.is_complete:
            if not reader.finished and reader.failure is None:
                await drained()
                await self._response.flow(take)
            await drained()
            piece = await self._next_piece()
            if piece:
                write(piece)

    def close(self) -> None:
        """Give the connection back, or cut it: that is how a provider learns of a hang-up."""
        self._response.release(is_complete=self.is_complete)

    async def _next_piece(self) -> bytes:
        """What goes to the caller next, perhaps nothing; notices the end.

        Raises UpstreamUnavailable where the provider broke off or reported an error of its own,
        UpstreamRejected where the error is the caller's to read, UpstreamInvalid where what came
        is not the protocol. What came before the error in one chunk is passed on first.
        """
        if self._reader.failure is not None:
            raise self._error_of(self._reader.failure)
        try:
            chunk = await (self._last_chunk() if self._reader.finished else self._response.chunk())
        except UpstreamFault as fault:
            raise _broken_off(timed_out=fault.is_timeout) from None
        if chunk:
            piece = self._reader.feed(chunk)
        else:
            piece = self._reader.flush()
            self.is_complete = self._reader.finished
            if not self.is_complete and self._reader.failure is None:
                raise _broken_off(timed_out=False)
        if self._reader.failure is not None and not piece:
            raise self._error_of(self._reader.failure)
        return piece

    def _error_of(self, failure: Failure) -> CallError:
        if failure.kind is not FailureKind.REJECTED:
            return UpstreamUnavailable("The provider reported an error in the midst of its answer.")
        reader = self._reader
        if not _may_be_passed_on(reader.failure_body, self._key):
            return UpstreamRejected(400, None, exceeds_context=failure.exceeds_context)
        return UpstreamRejected(
            400,
            reader.failure_body,
            exceeds_context=failure.exceeds_context,
            event=reader.failure_event,
        )

    async def _last_chunk(self) -> bytes:
        """What comes behind the protocol's end: all that the caller wants is here already."""
        if self._response.has_ended:
            return b""
        if self._cut_at is None:
            self._cut_at = asyncio.get_running_loop().time() + END_SECONDS_MAX
        try:
            async with asyncio.timeout_at(self._cut_at):
                return await self._response.chunk()
        except (TimeoutError, UpstreamFault):
            return b""


class Watcher(Protocol):
    """Is told how a call gets on."""

    def granted(self, grant: Grant) -> None:
        """It will be sent now; told of each attempt."""

    def returned(self) -> None:
        """An attempt has failed, and it waits again."""

    def used(self, usage: Usage) -> None:
        """What a complete answer used, where the provider reported it."""


class Calls:
    """Carries calls to the deployments. ``wall`` gives Unix time, for reset dates in headers."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        upstream: Upstream,
        metrics: Metrics,
        wall: Callable[[], float],
    ) -> None:
        self.dispatcher = dispatcher
        self.targets: Mapping[str, Target] = {}
        self._upstream = upstream
        self._metrics = metrics
        self._wall = wall

    async def begin(self, opened: OpenCall) -> Answer:
        """The first good answer, after as many attempts as it takes."""
        dispatcher, unit, gives_way = self.dispatcher, opened.unit, opened.gives_way
        grant = await dispatcher.grant(unit, gives_way=gives_way)
        while True:
            try:
                opened.watcher.granted(grant)
                return await self._attempt(opened, grant)
            except (AttemptFailed, UpstreamInvalid) as error:
                failed = _as_failed(error, grant)
                requeue = self._goes_back(failed.failure.kind, unit, grant, gives_way=gives_way)
                events = _aftermath(failed, unit, grant, requeue=requeue)
                if not requeue:
                    for event in events:
                        dispatcher.post(event)
                    raise failed.error from None
                opened.watcher.returned()
                grant = await dispatcher.grant_again(events, unit, gives_way=gives_way)
            except asyncio.CancelledError:
                dispatcher.post(Cancelled(unit.unit_id, was_sent=True))
                raise
            except BaseException:
                dispatcher.post(Failed(unit.unit_id, requeue=False))
                raise

    def _goes_back(self, kind: FailureKind, unit: Unit, grant: Grant, *, gives_way: bool) -> bool:
        """Whether a unit waits again after a failed attempt."""
        if kind in {FailureKind.AUTH, FailureKind.FATAL}:
            _log.error("%s: %s", grant.deployment, _OPERATORS[kind])
            now = self.dispatcher.clock()
            return self.dispatcher.scheduler.has_other(unit.model, grant.deployment, now)
        if kind is FailureKind.INVALID:
            # It may have been paid for, and would come again: only somebody else is asked.
            now = self.dispatcher.clock()
            if not self.dispatcher.scheduler.has_other(unit.model, grant.deployment, now):
                return False
        if gives_way and _is_outage(kind, grant.attempt):
            return False
        return may_retry(kind, grant.attempt)

    async def _attempt(self, opened: OpenCall, grant: Grant) -> Answer:
        """Send once. Raises AttemptFailed, or UpstreamInvalid for an answer that is none."""
        target = self.targets.get(grant.deployment)
        if target is None:
            # A reload took the deployment away between the grant and now.
            error = UpstreamUnavailable("The deployment was just removed.", status=503)
            raise AttemptFailed(Failure(FailureKind.UNAVAILABLE), error, was_sent=False)
        clock = self.dispatcher.clock
        sent_at = clock()
        response = await self._send(target, opened.call, opened.headers)
        self._metrics.upstream_answer(target.deployment, response.status)
        readings = tuple(target.adapter.limit_readings(response.headers, self._wall()))
        # The ledger knows this call by the moment of its grant.
        is_good = response.status == 200
        observed = Observed(target.deployment, grant.granted_at, readings, accepted=is_good)
        if is_good:
            self.dispatcher.post(observed)
        try:
            if response.status != 200 or not _is_plain(response):
                await _refuse(target, response)
            answer = await _begin(target, opened.call, opened.unit, grant, response)
        except BaseException as error:
            response.release(is_complete=False)
            if isinstance(error, AttemptFailed) and response.status != 200:
                error.observed = observed
            raise
        self._metrics.first_byte(target.deployment, clock() - sent_at)
        answer.tier_sent = _sent_tier(target, opened.call)
        return answer

    async def _send(
        self, target: Target, call: ParsedCall, headers: Mapping[str, str]
    ) -> UpstreamResponse:
        url = target.adapter.url(target.base_url, call.endpoint, target.model, target.api_version)
        if _sent_tier(target, call):
            call = msgspec.structs.replace(call, sends_tier=True)
        body = target.adapter.upstream_body(call, target.model)
        sent_headers = target.adapter.upstream_headers(headers, target.key)
        try:
            return await self._upstream.send(url, sent_headers, body, target.timeouts)
        except UpstreamInvalid:
            self._metrics.upstream_answer(target.deployment, None)
            raise
        except UpstreamFault as fault:
            self._metrics.upstream_answer(target.deployment, None)
            _log.warning("%s: %s", target.deployment, fault.reason)
            raise _failed(fault) from None

    def end(self, unit: Unit, answer: Answer, watcher: Watcher, *, broke_off: bool) -> None:
        """Settle, first of all: nothing that fails after it can leave a reservation behind."""
        if broke_off:
            failure = consequence(Failure(FailureKind.UNAVAILABLE), answer.grant.deployment)
            if failure is not None:
                self.dispatcher.post(failure)
        usage = answer.usage
        if answer.is_complete:
            self.dispatcher.post(Settled(unit.unit_id, usage))
        else:
            self.dispatcher.post(Cancelled(unit.unit_id, was_sent=True, usage=usage))
        self._metrics.tokens(answer.grant.deployment, usage)
        self._metrics.unit_waited(unit.class_name, answer.grant.wait_seconds)
        if answer.is_complete and answer.reported is not None:
            watcher.used(usage)


class OpenCall:
    """A call from its submission to its settlement: ``with OpenCall(...) as opened``.

    ``await opened.begin()`` waits, sends, and gives the answer; it is settled when the block is
    left, however it is left. ``headers`` are the caller's. ``gives_way`` says that another model
    can be asked instead, so that an outage is not waited for.
    """

    __slots__ = ("_answer", "_calls", "call", "gives_way", "headers", "unit", "watcher")

    def __init__(
        self,
        calls: Calls,
        unit: Unit,
        call: ParsedCall,
        headers: Mapping[str, str],
        watcher: Watcher,
        *,
        gives_way: bool = False,
    ) -> None:
        self._calls = calls
        self._answer: Answer | None = None
        self.unit = unit
        self.call = call
        self.headers = headers
        self.watcher = watcher
        self.gives_way = gives_way

    def __enter__(self) -> OpenCall:
        return self

    async def begin(self) -> Answer:
        """Wait and send. Raises CallError."""
        self._answer = answer = await self._calls.begin(self)
        return answer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Settle, and give the connection back or cut it."""
        answer = self._answer
        if answer is None:
            return
        broke_off = isinstance(error, UpstreamUnavailable)
        try:
            self._calls.end(self.unit, answer, self.watcher, broke_off=broke_off)
        finally:
            answer.close()


def _is_outage(kind: FailureKind, attempt: int) -> bool:
    """Whether a failed attempt is reason enough to ask another model, where there is one."""
    is_lasting = kind in {FailureKind.DAY, FailureKind.TIMED_OUT}
    return is_lasting or (kind is not FailureKind.RATE and attempt >= ATTEMPTS_BEFORE_ANOTHER)


def _as_failed(error: AttemptFailed | UpstreamInvalid, grant: Grant) -> AttemptFailed:
    """An answer that is none as a failed attempt; one over its cap says nothing of its provider."""
    if isinstance(error, AttemptFailed):
        return error
    _log.warning("%s: %s", grant.deployment, error.message)
    is_oversized = isinstance(error, UpstreamOversized)
    return AttemptFailed(
        Failure(FailureKind.REJECTED if is_oversized else FailureKind.INVALID), error
    )


def _aftermath(failed: AttemptFailed, unit: Unit, grant: Grant, *, requeue: bool) -> list[Event]:
    """What the scheduler is told of a failed attempt, in the order in which it must hear it.

    First that nothing is owed, then what the refusal's headers said, which knows of no charge,
    then the pause: the other way round the refund would lift the level again.
    """
    events: list[Event] = [Failed(unit.unit_id, requeue, failed.was_sent)]
    if failed.observed is not None:
        events.append(failed.observed)
    learnt = consequence(failed.failure, grant.deployment, goes_elsewhere=requeue)
    # A kept connection that was closed meanwhile says nothing of the provider.
    if learnt is not None and not (failed.is_stale and grant.attempt == 1):
        events.append(learnt)
    return events


def _sent_tier(target: Target, call: ParsedCall) -> str:
    """The caller's service tier, where this deployment may be asked for it; else nothing."""
    tier = call.service_tier
    return tier if tier is not None and tier in target.service_tiers else ""


def _is_plain(response: UpstreamResponse) -> bool:
    return response.headers.get("content-encoding", "identity").lower() in ("", "identity")


async def _refuse(target: Target, response: UpstreamResponse) -> NoReturn:
    """What is not a 200 whose bytes are plain. Raises AttemptFailed, UpstreamInvalid."""
    if not _is_plain(response):
        raise UpstreamInvalid("The provider compressed its answer although it was asked not to.")
    if response.status < 400:
        raise UpstreamInvalid(f"The provider answered {response.status}, which is no answer here.")
    try:
        body = await response.body(ERROR_BODY_BYTES_MAX)
    except (UpstreamFault, UpstreamInvalid):
        body = b""
    failure = target.adapter.classify(response.status, response.headers, body)
    passed_on = body if _may_be_passed_on(body, target.key) else None
    raise AttemptFailed(failure, _caller_error(failure, response.status, passed_on))


def _may_be_passed_on(body: bytes, key: str | None) -> bool:
    """Whether a refusal is JSON, as SDKs expect it, and does not show our key."""
    if not body.lstrip().startswith((b"{", b"[")) or (key is not None and key.encode() in body):
        return False
    try:
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _caller_error(failure: Failure, status: int, body: bytes | None) -> CallError:
    """What a failure is for the caller, if it is the end."""
    match failure.kind:
        case FailureKind.REJECTED:
            return UpstreamRejected(status, body, exceeds_context=failure.exceeds_context)
        case FailureKind.AUTH:
            return UpstreamAuth(
                "The provider refused the key of this service. Its operator has to mend that; "
                "your own key is fine."
            )
        case FailureKind.FATAL:
            return UpstreamExhausted(
                "The account at the provider has no quota left. Its operator has to mend that."
            )
        case FailureKind.OVERLOADED | FailureKind.RATE | FailureKind.DAY:
            return UpstreamUnavailable("The provider is overloaded.", status=503)
        case FailureKind.UNAVAILABLE | FailureKind.TIMED_OUT | FailureKind.INVALID:
            return UpstreamUnavailable(f"The provider answered {status}.")


def _failed(fault: UpstreamFault) -> AttemptFailed:
    """A broken connection as a failed attempt. What took too long is not tried again."""
    if fault.is_timeout and fault.was_sent:
        error = UpstreamUnavailable("The provider did not answer in time.", status=504)
        return AttemptFailed(Failure(FailureKind.TIMED_OUT), error)
    error = UpstreamUnavailable("The provider could not be reached, or broke off.")
    failed = AttemptFailed(Failure(FailureKind.UNAVAILABLE), error, was_sent=fault.was_sent)
    failed.is_stale = fault.is_stale
    return failed


async def _begin(
    target: Target, call: ParsedCall, unit: Unit, grant: Grant, response: UpstreamResponse
) -> Answer:
    """Read a whole answer, or the first piece of a stream. Raises AttemptFailed."""
    if not call.stream:
        try:
            body = await response.body()
        except UpstreamFault as fault:
            raise _failed(fault) from None
        response.release(is_complete=True)
        return Answer(unit, grant, body, _usage_of(target, call, body))
    content_type = response.headers.get("content-type", "")
    if not content_type.startswith("text/event-stream"):
        raise UpstreamInvalid("The provider did not stream although it was asked to.")
    reader = target.adapter.stream_reader(call)
    answer = StreamedAnswer(unit, grant, response, reader, target.key)
    await answer.begin()
    return answer


def _usage_of(target: Target, call: ParsedCall, body: bytes) -> Usage | None:
    """What a whole answer reports. Raises AttemptFailed, UpstreamInvalid where it is none."""
    try:
        return target.adapter.usage(call, body)
    except UpstreamInvalid:
        failure = target.adapter.failure_within(body)
        if failure is None:
            raise
        passed_on = body if _may_be_passed_on(body, target.key) else None
        status = 400 if failure.kind is FailureKind.REJECTED else 502
        raise AttemptFailed(failure, _caller_error(failure, status, passed_on)) from None


def _broken_off(*, timed_out: bool) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        "The provider's answer stalled." if timed_out else "The provider's answer broke off.",
        code="upstream_timeout" if timed_out else "upstream_disconnected",
        status=504 if timed_out else 502,
    )
