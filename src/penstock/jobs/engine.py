"""Runs durable jobs: accepts, starts, keeps, attempts again, tells, forgets.

*Accepted means stored*: ``create`` returns after the commit. *Started in order*: by class,
deadline and arrival, with headroom for the more urgent (``states.places_free``); the store is
asked for what may start whenever something changes, so nothing about waiting jobs is kept in
memory but their number. *Running jobs belong to a process*: whoever holds the store's lock
(``store/owner``) owns them, so the next process takes all of them over at once. *Attempted
again*: what broke off begins anew, and the journal at the gateway gives it the LLM calls that it
had finished (``states`` says when that ends). *Told in order*: events carry numbers and are
shown once they are stored, so that a reader can come back with the last number it saw.

Other protocols build on this class; nothing in it knows HTTP. Rejected: a broker or a library
for jobs (a second store beside ours, whose commit is not that of the journal), a lease with a
heartbeat per job (a write per job and second, and still seconds until a death is noticed).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import msgspec

from penstock.config.model import ClassTable, JobsTable
from penstock.errors import (
    Draining,
    NotFound,
    QueueFull,
    StoreError,
    StoreUnavailable,
    Unprocessable,
)
from penstock.http.auth import Principal, PrincipalOf
from penstock.jobs.events import EventSink
from penstock.jobs.execution import Attempt, Ending, Executor
from penstock.jobs.states import Happening, State, after, after_break, places_free
from penstock.store.jobs import (
    Event,
    Finish,
    Idempotency,
    IdempotencyConflict,
    Job,
    JobStore,
    NewJob,
)
from penstock.store.owner import Owner

_log = logging.getLogger("penstock.jobs")

OWNER_SECONDS: Final = 0.5
"""How often a process that is not the owner tries to become it."""
STORE_RETRY_SECONDS: Final = 1.0
"""Between two tries to store how a job ended, while the store fails."""
LOSS_SEEN_SECONDS: Final = 0.1
LOSSES_SEEN_MAX: Final = 1000
PURGE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 5.0
"""How long a reader of events sleeps at most: another process may have the job."""
EVENTS_READ_MAX: Final = 200
STARTING_MAX: Final = 100
"""Attempts that are on their way to their executor: after a restart there may be very many to
start, and the event loop serves others meanwhile."""
KEPT_TOGETHER_MAX: Final = 1000
"""Works that are given to the store at once: it takes so many, and others have some."""
DAY_SECONDS: Final = 86_400.0

_T = TypeVar("_T")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: POST ``body`` to ``path`` in this principal's name, durably.

    ``kind`` picks the executor; ``details`` is JSON that the protocol keeps for itself. Jobs of
    one ``thread_id`` of a tenant run one at a time, in order of arrival. ``deadline_seconds``
    from now it must have been started.
    """

    principal: Principal
    class_name: str
    kind: str
    path: str
    body: bytes
    chain: str = ""
    after_seconds: float = 0.0
    deadline_seconds: float | None = None
    thread_id: str | None = None
    details: bytes = b"{}"
    webhook: str | None = None
    job_id: str | None = None


class Clocks(msgspec.Struct, frozen=True):
    """Monotonic seconds, and Unix seconds: what is stored outlives the first kind."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


class _Running(msgspec.Struct, frozen=True):
    """An attempt under way: what is cancelled, and what stores how it ended."""

    work: asyncio.Task[Ending]
    attempt: asyncio.Task[None]


class Jobs:
    """The job engine. All methods belong to the event loop's thread.

    ``principal_of`` finds a key by its id and the tenant it acts for; ``finished`` is told the
    job. ``attempt_ended`` is told its id, and says whether the attempt was waiting for an LLM call
    when it broke off.
    """

    def __init__(
        self,
        store: JobStore,
        owner: Owner,
        table: JobsTable,
        classes: Mapping[str, ClassTable],
        clocks: Clocks,
        principal_of: PrincipalOf,
    ) -> None:
        self.table = table
        self.classes = classes
        self.executors: dict[str, Executor] = {}
        self.attempt_ended: Callable[[str], bool] = lambda _job_id: False
        self.finished: Callable[[Job], None] = lambda _job: None
        self.store = store
        self._owner = owner
        self._clocks = clocks
        self._principal_of = principal_of
        self._open: dict[str, tuple[int, int]] = {}
        self._running: dict[str, _Running] = {}
        self._running_of_rank: Counter[int] = Counter()
        self._starting: set[str] = set()
        self._keeping = asyncio.Semaphore(KEPT_TOGETHER_MAX)
        self._cancelling: set[str] = set()
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self.owned = asyncio.Event()
        self._losses: deque[float] = deque(maxlen=LOSSES_SEEN_MAX)
        self._wake = asyncio.Event()
        self._stopping = False
        self._began_at = clocks.wall()

    # What callers do.

    async def create(
        self, order: Order, idempotency: Idempotency | None = None
    ) -> tuple[Job, bool]:
        """Store a job. Where the idempotency key has made one already, that one and False.

        Raises QueueFull, Draining, Unprocessable (the key was used for another body),
        StoreUnavailable.
        """
        if self._stopping:
            raise Draining("The service is stopping.")
        tenant = order.principal.tenant
        self._check_room(tenant, len(order.body))
        now = self._clocks.wall()
        new = NewJob(
            job_id=order.job_id or str(uuid.uuid4()),
            tenant=tenant,
            key_id=order.principal.key_id,
            kind=order.kind,
            chain=order.chain,
            path=order.path,
            class_name=order.class_name,
            rank=self.classes[order.class_name].rank,
            body=order.body,
            created_at=now,
            due_at=now + order.after_seconds,
            deadline=None if order.deadline_seconds is None else now + order.deadline_seconds,
            thread_id=order.thread_id,
            details=order.details,
            webhook=order.webhook,
        )
        self._count(tenant, 1, len(new.body))
        created = False
        try:
            job, created = await self._stored(self.store.create, new, idempotency)
        except IdempotencyConflict:
            raise Unprocessable(
                "This Idempotency-Key was used for another request; take a new one for a new "
                "request.",
                code="idempotency_key_reused",
            ) from None
        finally:
            if not created:
                self._count(tenant, -1, -len(new.body))
        self._wake.set()
        return job, created

    async def get(self, tenant: str, job_id: str) -> Job:
        """A tenant's job. Raises NotFound, the same for one of another tenant."""
        job = await self._stored(self.store.get, tenant, job_id)
        if job is None:
            raise NotFound("There is no such job, or it has been removed.", code="job_not_found")
        return job

    async def page(
        self,
        tenant: str,
        *,
        kind: str | None = None,
        thread_id: str | None = None,
        state: State | None = None,
        before: str | None = None,
        limit: int = 20,
    ) -> list[Job]:
        """A tenant's jobs, the newest first; ``before`` is the last one of the page before."""
        with worded():
            listed = self.store.page(
                tenant, kind=kind, thread_id=thread_id, state=state, before=before, limit=limit
            )
            return await asyncio.wrap_future(listed)

    async def result(self, job: Job) -> tuple[str, bytes] | None:
        """The content type and body of what a job gave; None where it gave nothing."""
        return await self._stored(self.store.result, job.job_id)

    async def wait(self, tenant: str, job_id: str, seconds: float | None = None) -> Job:
        """The job once it has ended, or as it is after so many seconds. Raises NotFound."""
        with self._watching(job_id) as changed:
            job = await self.get(tenant, job_id)
            try:
                async with asyncio.timeout(seconds):
                    while not State(job.state).is_final:
                        await _look(changed)
                        job = await self.get(tenant, job_id)
            except TimeoutError:
                pass
            return job

    async def events(self, tenant: str, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Its events behind number ``after``, those to come, too; ends with the job."""
        with self._watching(job_id) as changed:
            while True:
                changed.clear()
                # The state is read first: what is told afterwards is asked for again.
                job = await self.get(tenant, job_id)
                events = await self._stored(self.store.events, job_id, after, EVENTS_READ_MAX)
                for event in events:
                    after = event.sequence
                    yield event
                if events:
                    continue
                if State(job.state).is_final:
                    return
                await _look(changed, clear=False)

    async def cancel(self, tenant: str, job_id: str) -> Job:
        """End a job where it stands; one that has ended stays as it is. Raises NotFound."""
        job = await self.get(tenant, job_id)
        if State(job.state) is State.PENDING:
            await self._finish(job, State.PENDING, Ending(Happening.CANCELLED))
            job = await self.get(tenant, job_id)
        if State(job.state) is State.RUNNING:
            await self._stored(self.store.request_cancel, tenant, job_id)
            self._cancelling.add(job_id)
            running = self._running.get(job_id)
            if running is not None:
                running.work.cancel()
            job = await self.wait(tenant, job_id, STORE_RETRY_SECONDS)
        return job

    async def delete(self, tenant: str, job_id: str) -> None:
        """Remove a job and all that it left; one that runs is cancelled. Raises NotFound."""
        job = await self.cancel(tenant, job_id)
        if not State(job.state).is_final:
            await self.wait(tenant, job_id)
        await self._stored(self.store.delete, tenant, job_id)

    @property
    def running_count(self) -> int:
        """How many attempts run now."""
        return len(self._running)

    def look(self) -> None:
        """There may be something to do: the store is there now."""
        self._wake.set()

    # What the service does.

    async def run(self) -> None:
        """Own and run the store's jobs, until cancelled."""
        if not self._owner.store_exists():
            await self._wake.wait()
        await self._become_owner()
        await self._take_over()
        self.owned.set()
        purging = asyncio.create_task(self._purge())
        try:
            while True:
                self._wake.clear()
                # One moment for both: what comes due between two would be in neither answer.
                now = self._clocks.wall()
                await self._start_due(now)
                due_at = await self._kept(self.store.next_due_at, now)
                delay = None if due_at is None else max(0.0, due_at - self._clocks.wall())
                try:
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            purging.cancel()
            self._owner.close()

    async def stop(self, seconds: float) -> None:
        """Start nothing more; give back what has not ended in time, for the next process."""
        self._stopping = True
        running = list(self._running.values())
        if running:
            await asyncio.wait({one.attempt for one in running}, timeout=seconds)
            for one in running:
                one.work.cancel()
            await asyncio.wait({one.attempt for one in running})

    async def _become_owner(self) -> None:
        said = ""
        while True:
            try:
                if self._owner.acquire():
                    return
            except OSError as error:
                if said != (said := str(error)):
                    _log.error("jobs wait for the store: %s", error)
            await asyncio.sleep(OWNER_SECONDS)

    async def _take_over(self) -> None:
        """What ran in a process that is gone is pending again; that was no fault of its own."""
        open_jobs = await self._kept(self.store.open_by_tenant, self._began_at)
        for tenant, (count, size) in open_jobs.items():
            self._count(tenant, count, size)
        given_back = after(State.RUNNING, Happening.GIVEN_BACK)
        now, taken_over = self._clocks.wall(), 0
        while some := await self._kept(
            self.store.give_back, self._owner.name, given_back.value, now
        ):
            taken_over += some
        if taken_over:
            _log.warning("%d jobs of a process that ended are taken over", taken_over)
            for job_id in self._watchers:
                self._changed(job_id)

    async def _start_due(self, now: float) -> None:
        ranks = sorted({table.rank for table in self.classes.values()})
        for rank in ranks:
            if self._stopping:
                return
            free = places_free(ranks, self._running_of_rank, self.table.running_max)[rank]
            free = min(free, STARTING_MAX - len(self._starting))
            if not free:
                continue
            jobs = await self._kept(self.store.claim, self._owner.name, rank, free, now)
            self._running_of_rank[rank] += len(jobs)
            self._starting.update(job.job_id for job in jobs)
            for job in jobs:
                work = asyncio.create_task(self._carried_out(job))
                attempt = asyncio.create_task(self._attempt(job, work))
                self._running[job.job_id] = _Running(work, attempt)
                self._changed(job.job_id)

    async def _attempt(self, job: Job, work: asyncio.Task[Ending]) -> None:
        """One attempt, from its start to what is stored of its end; never cancelled itself."""
        await asyncio.wait({work})
        self._has_started(job.job_id)
        if work.cancelled():
            ending = Ending(Happening.GIVEN_BACK, code="draining")
            if job.job_id in self._cancelling:
                ending = Ending(Happening.CANCELLED)
        elif (error := work.exception()) is not None:
            _log.error("job %s failed by a fault of ours", job.job_id, exc_info=error)
            message = "A fault of this service; its log has it under the job's id."
            ending = Ending(Happening.BROKEN_OFF, 500, code="internal_error", message=message)
        else:
            ending = work.result()
        await self._conclude(job, ending)
        self._running.pop(job.job_id, None)
        self._running_of_rank[job.rank] -= 1
        self._cancelling.discard(job.job_id)
        self._wake.set()

    def _has_started(self, job_id: str) -> None:
        """It is on its way no more; once none is, more may be."""
        if job_id in self._starting:
            self._starting.remove(job_id)
            if not self._starting:
                self._wake.set()

    async def _carried_out(self, job: Job) -> Ending:
        if job.cancel_requested or job.job_id in self._cancelling:
            return Ending(Happening.CANCELLED)
        if job.deadline is not None and job.deadline < self._clocks.wall():
            message = "The deadline passed before the job could be started."
            return Ending(Happening.TIMED_OUT, code="deadline_exceeded", message=message)
        principal = self._principal_of(job.key_id, job.tenant)
        executor = self.executors.get(job.kind)
        if principal is None or executor is None:
            message = "The API key that ordered this job is not valid any more."
            return Ending(Happening.FAILED, 401, code="invalid_api_key", message=message)
        principal = msgspec.structs.replace(
            principal, class_default=job.class_name, ceiling=job.class_name
        )
        age_seconds = self._clocks.wall() - job.created_at
        attempt = Attempt(
            job=job,
            body=await self._kept(self.store.body, job.job_id),
            principal=principal,
            arrival=self._clocks.monotonic() - max(0.0, age_seconds),
        )
        last, size = (0, 0)
        if job.attempts > 1:
            last, size = await self._kept(self.store.last_event, job.job_id)
        self._has_started(job.job_id)

        async def keep(events: Sequence[Event], lost: bool) -> None:  # noqa: FBT001 - as Keep has it
            await self._kept(_append_events(self.store, lost), job.job_id, events)
            self._changed(job.job_id)

        sink = EventSink(keep, last, size, self.table.events_bytes_max)
        try:
            return await executor(attempt, sink.emit)
        finally:
            await sink.close()

    async def _conclude(self, job: Job, ending: Ending) -> None:
        """Store how an attempt ended, and what follows."""
        beside = 0
        if ending.code == "worker_lost":
            # Its calls to the gateway break at the same moment, and are perhaps seen later.
            lost_at = self._clocks.monotonic()
            self._losses.append(lost_at)
            await asyncio.sleep(LOSS_SEEN_SECONDS)
            beside = sum(abs(at - lost_at) < LOSS_SEEN_SECONDS for at in self._losses) - 1
        in_a_call = self.attempt_ended(job.job_id)
        happening, blame, delay = ending.happening, job.blame, 0.0
        journaled = job.journaled
        if self._stopping and happening is Happening.BROKEN_OFF:
            happening = Happening.GIVEN_BACK
        if happening is Happening.BROKEN_OFF:
            journaled = await self._kept(self.store.journaled, job.job_id)
            sequel = after_break(
                blame,
                self.table.attempts_max,
                got_on=journaled > job.journaled,
                in_a_call=in_a_call and ending.code == "worker_lost",
                beside=beside,
                found_place=ending.code != QueueFull.code,
            )
            happening, blame, delay = sequel.happening, sequel.blame, sequel.delay_seconds
            if happening is Happening.FAILED:
                ending = _given_up(ending, job.attempts)
            _log.info("job %s broke off (%s): %s", job.job_id, ending.code, happening)
        if after(State.RUNNING, happening) is State.PENDING:
            due_at = self._clocks.wall() + delay
            await self._kept(
                _again(self.store, due_at, blame, journaled),
                job.job_id,
            )
            self._changed(job.job_id)
            self._wake.set()
        else:
            await self._finish(
                job, State.RUNNING, msgspec.structs.replace(ending, happening=happening)
            )

    async def _finish(self, job: Job, from_state: State, ending: Ending) -> None:
        state = after(from_state, ending.happening)
        result = None
        if ending.body is not None and state is State.SUCCESS:
            result = (ending.content_type, ending.body)
        finish = Finish(
            state=state.value,
            status=ending.status,
            result=result,
            error_code=ending.code,
            error_message=None if ending.message is None else ending.message[:2000],
        )
        ended = await self._kept(
            self.store.finish, job.job_id, from_state.value, finish, self._clocks.wall()
        )
        if ended is not None:
            self._count(ended.tenant, -1, -ended.body_bytes)
            self._changed(job.job_id)
            self.finished(ended)
            self._wake.set()

    async def _purge(self) -> None:
        """Remove what has been kept for long enough, a little at a time."""
        while True:
            before = self._clocks.wall() - self.table.keep_days * DAY_SECONDS
            removed = await self._kept(self.store.purge, before)
            await asyncio.sleep(0 if removed else PURGE_SECONDS)

    # The store, the watchers, the counts.

    async def _stored(self, work: Callable[..., Future[_T]], *arguments: Any) -> _T:
        """The result of a work. Raises StoreUnavailable where the store fails."""
        with worded():
            return await asyncio.wrap_future(work(*arguments))

    async def _kept(self, work: Callable[..., Future[_T]], *arguments: Any) -> _T:
        """The same, tried until the store works again: what has happened must not be lost."""
        async with self._keeping:
            while True:
                try:
                    return await asyncio.wrap_future(work(*arguments))
                except StoreError as error:
                    _log.error("jobs wait for the store: %s", error)
                    await asyncio.sleep(STORE_RETRY_SECONDS)

    @contextmanager
    def _watching(self, job_id: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(changed)
        try:
            yield changed
        finally:
            watchers.discard(changed)
            if not watchers:
                self._watchers.pop(job_id, None)

    def _changed(self, job_id: str) -> None:
        for changed in self._watchers.get(job_id, ()):
            changed.set()

    def _check_room(self, tenant: str, size: int) -> None:
        count, held = self._open.get(tenant, (0, 0))
        if count >= self.table.queue_max or held + size > self.table.queue_bytes_max:
            raise QueueFull(
                "As many jobs of this tenant wait as this service keeps. Come back when some of "
                "them have ended."
            )

    def _count(self, tenant: str, jobs: int, size: int) -> None:
        count, held = self._open.get(tenant, (0, 0))
        if count + jobs > 0:
            self._open[tenant] = (count + jobs, held + size)
        else:
            self._open.pop(tenant, None)


def _given_up(ending: Ending, attempts: int) -> Ending:
    message = f"Attempt {attempts} broke off as those before, without getting on: "
    return msgspec.structs.replace(ending, message=message + (ending.message or ending.code or ""))


def _append_events(
    store: JobStore,
    lost: bool,  # noqa: FBT001 - as Keep has it
) -> Callable[[str, Sequence[Event]], Future[None]]:
    return lambda job_id, events: store.append_events(job_id, events, events_lost=lost)


def _again(
    store: JobStore, due_at: float, blame: int, journaled: int
) -> Callable[[str], Future[None]]:
    return lambda job_id: store.again(job_id, due_at=due_at, blame=blame, journaled=journaled)


@contextmanager
def worded() -> Iterator[None]:
    """The store's troubles as a caller is told them: StoreUnavailable."""
    try:
        yield
    except StoreError as error:
        _log.error("the store failed: %s", error)
        raise StoreUnavailable(
            "This service cannot store anything at the moment; its log says why."
        ) from None


async def _look(changed: asyncio.Event, *, clear: bool = True) -> None:
    """Return when something has changed, or it is time to look by oneself."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await changed.wait()
    except TimeoutError:
        pass
    if clear:
        changed.clear()
