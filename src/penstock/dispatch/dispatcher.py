"""The scheduler in real time: one object owns it, on one event loop.

Everybody else sends it values: events go in through ``post``, grants come back through the
futures of ``grant``. So every decision sees one consistent state, without a lock. Events of the
same turn of the loop are taken in one tick; only a unit that comes while none waits is decided
on at once: most calls of a service that is not at its limits, and each then costs no task
switch, no timer and no future that is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from penstock.dispatch.recent import RecentCount
from penstock.errors import (
    CallError,
    DeadlineExceeded,
    DeadlineUnreachable,
    Draining,
    NotFound,
    QueueFull,
    RequestTooLargeForLimit,
    UpstreamUnavailable,
)
from penstock.scheduler.events import (
    Cancelled,
    Decisions,
    Event,
    Eviction,
    EvictionReason,
    KeyRefused,
    Limited,
    Overloaded,
    Refusal,
    RefusalReason,
    Submitted,
)
from penstock.scheduler.scheduler import Scheduler
from penstock.units import Grant, Unit

_TROUBLES = (Overloaded, KeyRefused)


class Dispatcher:
    """Drives a scheduler by a clock.

    ``clock`` gives monotonic seconds and is the clock of the running loop's timers.
    """

    def __init__(self, scheduler: Scheduler, clock: Callable[[], float]) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self._events: list[Event] = []
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._futures: dict[str, asyncio.Future[Grant]] = {}
        self._broken: asyncio.Future[None] = self._loop.create_future()
        self._giving_way: dict[str, str] = {}
        self._is_draining = False
        self.grants = RecentCount()
        self.answers_429: dict[str, RecentCount] = {}

    async def run(self) -> None:
        """Return never; raises what the scheduler failed with, after which it decides no more."""
        await asyncio.shield(self._broken)

    def post(self, event: Event) -> None:
        """Tell the scheduler what happened; it decides at the end of this turn of the loop."""
        self._events.append(event)
        if self._turn is None:
            self._turn = self._loop.call_soon(self._decide)
        if isinstance(event, Limited):
            self.answers_429.setdefault(event.deployment, RecentCount()).add(self.clock())

    async def grant(self, unit: Unit, *, gives_way: bool = False) -> Grant:
        """Wait for permission to send a unit; one that ``gives_way`` does not wait for a model
        of which every deployment is out.

        Raises the refusal or eviction as a CallError. Cancelling the wait takes the unit out
        of the queue, or gives its reservation back where the grant came at the same moment.
        """
        if self._is_draining:
            raise Draining("The service is stopping and takes no new calls.")
        future = self._promised(unit.unit_id)
        if self.scheduler.waiting_count:
            self.post(Submitted(unit))
        else:
            self._events.append(Submitted(unit))
            self._decide()
            if future.done():
                del self._futures[unit.unit_id]
                return future.result()
        return await self._granted(unit, future, gives_way=gives_way)

    async def grant_again(
        self, events: Iterable[Event], unit: Unit, *, gives_way: bool = False
    ) -> Grant:
        """Post what sends a unit back to its place, and wait for its next grant."""
        future = self._promised(unit.unit_id)
        for event in events:
            self.post(event)
        return await self._granted(unit, future, gives_way=gives_way)

    def drain(self) -> None:
        """Take no new units; those that wait and those under way go on."""
        self._is_draining = True

    def refuse_all(self) -> None:
        """Refuse everything that still waits: the time to drain is over."""
        for future in list(self._futures.values()):
            if not future.done():
                future.set_exception(Draining("The service stopped before it was your turn."))

    def _promised(self, unit_id: str) -> asyncio.Future[Grant]:
        future: asyncio.Future[Grant] = self._loop.create_future()
        self._futures[unit_id] = future
        return future

    async def _granted(
        self, unit: Unit, future: asyncio.Future[Grant], *, gives_way: bool
    ) -> Grant:
        unit_id = unit.unit_id
        if gives_way:
            self._giving_way[unit_id] = unit.model
        try:
            return await future
        except (asyncio.CancelledError, Draining, UpstreamUnavailable):
            self.post(Cancelled(unit_id))
            raise
        finally:
            del self._futures[unit_id]
            self._giving_way.pop(unit_id, None)

    def _let_go(self, now: float) -> None:
        """Tell those who know another model that theirs is out."""
        is_out = {
            model: self.scheduler.is_out(model, now) for model in set(self._giving_way.values())
        }
        for unit_id, model in self._giving_way.items():
            if is_out[model]:
                error = UpstreamUnavailable("Every deployment of this model is out.", status=503)
                self._fail(unit_id, error)

    def _decide(self) -> None:
        """Take what was posted, carry out what is decided, and wake up when it says."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._broken.done():
            return
        events, self._events = self._events, []
        now = self.clock()
        try:
            decisions = self.scheduler.tick(now, events)
        except Exception as error:  # noqa: BLE001 - whatever it is, `run` raises it
            self._broken.set_exception(error)
            return
        self._carry_out(decisions)
        if self._giving_way and any(isinstance(event, _TROUBLES) for event in events):
            self._let_go(now)
        self._wake_at(decisions.wake_at, now)

    def _wake_at(self, moment: float | None, now: float) -> None:
        """Keep a timer that is early enough: one that is too early costs a tick, no more."""
        if self._timer is not None:
            if moment is not None and self._timer_at <= moment:
                return
            self._timer.cancel()
            self._timer = None
        if moment is not None:
            self._timer_at = moment
            self._timer = self._loop.call_later(max(0.0, moment - now), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._decide()

    def _carry_out(self, decisions: Decisions) -> None:
        for grant in decisions.grants:
            self.grants.add(grant.granted_at)
            future = self._futures.get(grant.unit_id)
            # Without a future its caller has just gone, and has said so with Cancelled.
            if future is not None and not future.done():
                future.set_result(grant)
        for refusal in decisions.refusals:
            self._fail(refusal.unit_id, _refused(refusal))
        for eviction in decisions.evictions:
            self._fail(eviction.unit_id, _evicted(eviction))

    def _fail(self, unit_id: str, error: CallError) -> None:
        future = self._futures.get(unit_id)
        if future is not None and not future.done():
            future.set_exception(error)


def _refused(refusal: Refusal) -> CallError:
    eta_seconds = refusal.eta_seconds
    match refusal.reason:
        case RefusalReason.TOO_LARGE:
            return RequestTooLargeForLimit(
                f"This request is larger than the {refusal.limit} limit of every deployment "
                "that serves the model, so it could never be sent. Make it smaller, or ask for "
                "fewer output tokens."
            )
        case RefusalReason.TOO_LARGE_FOR_TENANT:
            return RequestTooLargeForLimit(
                f"This request is larger than your own {refusal.limit} limit, so it could never be "
                "sent. Make it smaller, or have the limit raised."
            )
        case RefusalReason.QUEUE_FULL_FOR_TENANT:
            return QueueFull(
                "Your tenant has as many calls waiting in this class as it may (queue_max and "
                "queue_tenant_share of the class). Come back when some of them have been sent.",
                retry_after_seconds=max(1.0, eta_seconds),
            )
        case RefusalReason.QUEUE_FULL:
            return QueueFull(
                "The queue of this class is full (its queue_max). Come back when some of it has "
                "been sent.",
                retry_after_seconds=max(1.0, eta_seconds),
            )
        case RefusalReason.DEADLINE:
            what = f"This call would wait for about {eta_seconds:.0f} s, longer than it has."
            if eta_seconds < 0.5:
                what = "The deadline of this call is past, or is over before it can be sent."
            return DeadlineUnreachable(
                f"{what} Allow it more time, ask for a more urgent class, or send it later.",
                eta_seconds=eta_seconds,
            )
        case RefusalReason.NO_DEPLOYMENT:
            return NotFound("No deployment serves this model.", code="model_not_found")


def _evicted(eviction: Eviction) -> CallError:
    match eviction.reason:
        case EvictionReason.DEADLINE:
            return DeadlineExceeded(
                f"The deadline passed while the call waited for {eviction.wait_seconds:.0f} s. "
                "Allow it more time, or ask for a more urgent class."
            )
        case EvictionReason.NO_DEPLOYMENT:
            return NotFound(
                "The deployment that serves this model was removed while the call waited.",
                code="model_not_found",
            )
