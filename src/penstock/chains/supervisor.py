"""Keeps the chain workers alive, and hands each request the least-loaded of them.

Every place in the pool has a task that starts a worker, waits for its end and starts the next,
later each time it fails at once. A request *leases* a worker; when all have ``runs_max`` runs,
or none is up yet, it waits here until its deadline, and ``places`` says whose turn it is. The
queue is the front's own, not the scheduler's: a run takes a place in a process, not a share of a
provider's limit.

A worker that holds too much memory, or has lost half of its places to threads that do not end, is
replaced: its successor starts beside it, takes over, and only then is it drained.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from penstock.chains.places import PlaceQueue
from penstock.chains.process import WorkerFailedToStart, WorkerProcess
from penstock.chains.spec import WorkerSpec
from penstock.config.model import ClassTable, WorkersTable
from penstock.errors import DeadlineExceeded, Draining, QueueFull, WorkerLost

logger = logging.getLogger(__name__)

BACKOFF_SECONDS_MIN = 0.25
BACKOFF_SECONDS_MAX = 30.0
STABLE_SECONDS = 30.0
"""A worker that lived for so long was no failure to start: its successor starts at once."""
WAITING_MAX = 10_000
ENDINGS_REMEMBERED = 64
RETRY_AFTER_SECONDS_MAX = 60.0
REPLACED_AFTER_SECONDS_MIN = 30.0
"""How old a worker must be to be replaced for what it holds: below that a limit is just too low
for what its chains are, and processes would be started for ever."""
DRAIN_EXTRA_SECONDS = 30.0
"""What a replaced worker gets beyond the longest time that a chain of its may take."""


class WorkerView(msgspec.Struct, frozen=True):
    """What the live view shows of one worker."""

    name: str
    pid: int | None
    ready: bool
    runs: int
    restarts: int
    uptime_seconds: float


class ReloadFailed(Exception):
    """No worker of the new specification came up; the old ones go on."""


class _Place:
    """One worker after another; ``worker`` is the present one, or None between two."""

    def __init__(self, name: str, spec: WorkerSpec) -> None:
        self.name = name
        self.spec = spec
        self.is_replaced = False
        self.worker: WorkerProcess | None = None
        self.restarts = 0
        self.settled = asyncio.Event()  # its first worker is ready, or has failed
        self.task: asyncio.Task[None] | None = None


class WorkerPool:
    """The workers of the service. All methods belong to the event loop's thread."""

    def __init__(
        self,
        table: WorkersTable,
        environment: Mapping[str, str] | None = None,
        classes: Mapping[str, ClassTable] | None = None,
    ) -> None:
        self._table = table
        self._environment = os.environ if environment is None else environment
        self._places: list[_Place] = []
        self._waiting: PlaceQueue[asyncio.Future[WorkerProcess]] = PlaceQueue(
            (classes or {}).values()
        )
        self._endings: deque[float] = deque(maxlen=ENDINGS_REMEMBERED)
        self._generation = itertools.count()
        self._successors = itertools.count(1)
        self._retired: list[_Place] = []
        self._draining: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._directory: Path | None = None

    @property
    def ready(self) -> bool:
        """Whether at least one worker answers (or none is wanted)."""
        return any(place.worker and place.worker.ready for place in self._places) or (
            self._table.count == 0
        )

    @property
    def waiting(self) -> int:
        """How many requests wait for a worker."""
        return len(self._waiting)

    @property
    def failed_chains(self) -> dict[str, str]:
        """The chains that a worker could not load, with the exception's type."""
        found: dict[str, str] = {}
        for place in self._places:
            if place.worker is not None:
                found.update(place.worker.problems)
        return found

    @property
    def chat_chains(self) -> frozenset[str]:
        """The chains that can be called as models, as far as a worker has loaded them."""
        workers = (place.worker for place in self._places)
        return frozenset().union(*(worker.chat_chains for worker in workers if worker))

    def view(self) -> list[WorkerView]:
        """All workers, for the live view."""
        return [
            WorkerView(
                name=place.name,
                pid=worker.pid if worker else None,
                ready=bool(worker and worker.ready),
                runs=worker.runs if worker else 0,
                restarts=place.restarts,
                uptime_seconds=worker.uptime_seconds if worker else 0.0,
            )
            for place in self._places
            for worker in [place.worker]
        ]

    async def start(self, spec: WorkerSpec) -> None:
        """Begin to start the workers; ``spec.socket_path`` and ``runs_max`` are set here."""
        # mkdtemp makes it with mode 0700: nobody else reaches the sockets.
        self._directory = Path(tempfile.mkdtemp(prefix="penstock-"))
        self._places = self._open_places(spec)

    async def wait_ready(self) -> None:
        """Wait until every place has started its first worker, or failed to."""
        await asyncio.gather(*(place.settled.wait() for place in self._places))

    def adopt(self, classes: Mapping[str, ClassTable]) -> None:
        """Let who waits go by these classes from now on."""
        self._waiting.adopt(classes.values())

    async def reload(self, spec: WorkerSpec, drain_seconds: float = 30.0) -> None:
        """Start workers by the new specification, switch to them, then drain the old ones.

        Raises ReloadFailed when none comes up; then nothing has changed.
        """
        places = self._open_places(spec)
        await asyncio.gather(*(place.settled.wait() for place in places))
        if places and not any(place.worker and place.worker.ready for place in places):
            await self._close(places, 0.0)
            raise ReloadFailed("no worker of the new configuration came up; see the log")
        old, self._places = self._places, places
        self._hand_out()
        self._retire(old, drain_seconds)

    def _retire(self, places: list[_Place], drain_seconds: float) -> None:
        """Drain workers that get no more runs, beside all else."""
        self._retired += places

        async def drain() -> None:
            await self._close(places, drain_seconds)
            self._retired = [place for place in self._retired if place not in places]

        self._beside(drain())

    def _beside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def stop(self, drain_seconds: float) -> None:
        """Take no new runs, let those in flight end, end the workers."""
        self._stopping = True
        while (future := self._waiting.pop(0, WAITING_MAX)) is not None:
            if not future.done():
                future.set_exception(Draining("the service is stopping"))
        for task in self._draining:
            task.cancel()
        if self._draining:
            await asyncio.wait(self._draining)
        await self._close([*self._places, *self._retired], drain_seconds)
        self._places = []
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    @asynccontextmanager
    async def lease(self, rank: int, deadline: float | None) -> AsyncIterator[WorkerProcess]:
        """A worker for one request; waits while all are busy.

        ``rank`` is the class's (lower goes first), ``deadline`` in monotonic seconds. Raises
        Draining, QueueFull and DeadlineExceeded.
        """
        worker = await self._acquire(rank, deadline)
        try:
            yield worker
        except WorkerLost:
            worker.suspect(self._hand_out)
            raise
        finally:
            self._give_back(worker)

    async def _acquire(self, rank: int, deadline: float | None) -> WorkerProcess:
        if self._stopping:
            raise Draining("the service is stopping")
        if self.waiting >= WAITING_MAX or self._waiting.is_full(rank):
            raise QueueFull(
                f"{self.waiting} requests wait for a chain worker, as many as may",
                retry_after_seconds=self._retry_after_seconds(),
            )
        future: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.push(rank, deadline, future)
        self._hand_out()
        patience_seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(patience_seconds):
                return await future
        except TimeoutError as error:
            self._withdraw(future)
            message = "the deadline passed before a chain worker was free; ask for a later one"
            raise DeadlineExceeded(message) from error
        except asyncio.CancelledError:
            self._withdraw(future)
            raise

    def _retry_after_seconds(self) -> float:
        """How long those who wait will take, at the pace of the last runs that have ended."""
        if len(self._endings) < 2:
            return 1.0
        pace_seconds = (time.monotonic() - self._endings[0]) / len(self._endings)
        return min(RETRY_AFTER_SECONDS_MAX, max(1.0, pace_seconds * self.waiting))

    def _withdraw(self, future: asyncio.Future[WorkerProcess]) -> None:
        """Give up waiting; the worker may have been handed over at the same moment."""
        if future.done() and not future.cancelled() and future.exception() is None:
            self._give_back(future.result())
        else:
            self._waiting.withdraw(future)

    def _give_back(self, worker: WorkerProcess) -> None:
        worker.runs -= 1
        self._endings.append(time.monotonic())
        if worker.runs == 0:
            worker.idle.set()
        self._hand_out()

    def _hand_out(self) -> None:
        """Give free workers to those who wait, in their order."""
        while worker := self._least_loaded():
            serving = self._serving()
            busy = sum(one.places_taken for one in serving)
            future = self._waiting.pop(busy, len(serving) * self._table.runs_max)
            if future is None:
                return
            if future.done():
                continue
            worker.runs += 1
            worker.idle.clear()
            future.set_result(worker)

    def _serving(self) -> list[WorkerProcess]:
        return [
            place.worker
            for place in self._places
            if place.worker and place.worker.ready and not place.worker.blocked
        ]

    def _least_loaded(self) -> WorkerProcess | None:
        free = [one for one in self._serving() if one.places_taken < self._table.runs_max]
        return min(free, key=lambda worker: worker.places_taken, default=None)

    def _answered(self, place: _Place) -> None:
        """A worker has said how it is: it may have places again, or have to go."""
        self._hand_out()
        worker = place.worker
        if worker is None or place.is_replaced or place not in self._places:
            return
        reason = self._reason_to_go(worker)
        if reason is not None:
            place.is_replaced = True
            logger.warning("%s is replaced: %s", place.name, reason)
            self._beside(self._replace(place))

    def _reason_to_go(self, worker: WorkerProcess) -> str | None:
        if worker.uptime_seconds < REPLACED_AFTER_SECONDS_MIN:
            return None
        memory_bytes_max = self._table.memory_bytes_max
        resident_bytes, overdue = worker.status.resident_bytes, worker.status.threads_overdue
        if memory_bytes_max is not None and resident_bytes > memory_bytes_max:
            return f"it holds {resident_bytes} bytes, over memory_bytes_max = {memory_bytes_max}"
        if overdue > self._table.runs_max // 2:
            return f"{overdue} of its threads work on for runs that are over"
        return None

    async def _replace(self, place: _Place) -> None:
        """Start a successor; once it is ready let it take over, and drain this one."""
        name = f"{place.name.partition('+')[0]}+{next(self._successors)}"
        fresh = self._open_place(name, place.spec)
        fresh.restarts = place.restarts
        try:
            await fresh.settled.wait()
            took_over = place in self._places and fresh.worker is not None and fresh.worker.ready
            if took_over:
                self._places[self._places.index(place)] = fresh
        except asyncio.CancelledError:
            self._retired.append(fresh)
            raise
        if took_over:
            self._hand_out()
            longest = max((one.timeout_seconds for one in place.spec.chains.values()), default=0.0)
            self._retire([place], longest + DRAIN_EXTRA_SECONDS)
        else:
            # It is tried again when the old one next says that it holds too much.
            await self._close([fresh], 0.0)
            await asyncio.sleep(BACKOFF_SECONDS_MAX)
            place.is_replaced = False

    def _open_places(self, spec: WorkerSpec) -> list[_Place]:
        generation = next(self._generation)
        names = [
            f"worker-{index}" if generation == 0 else f"worker-{generation}.{index}"
            for index in range(self._table.count)
        ]
        return [self._open_place(name, spec) for name in names]

    def _open_place(self, name: str, spec: WorkerSpec) -> _Place:
        path = str((self._directory or Path()) / f"{name}.sock")
        place = _Place(
            name,
            msgspec.structs.replace(spec, socket_path=path, runs_max=self._table.runs_max),
        )
        place.task = asyncio.create_task(self._keep(place))
        return place

    async def _keep(self, place: _Place) -> None:
        """Start a worker in this place, and the next one when it has ended, for ever."""
        failures = 0
        while True:
            place.worker = worker = WorkerProcess(place.name, place.spec)
            watch: asyncio.Task[None] | None = None
            try:
                await worker.start(self._environment, self._table.start_timeout_seconds)
                place.settled.set()
                self._hand_out()
                watch = asyncio.create_task(worker.keep_watch(partial(self._answered, place)))
                code = await worker.wait()
                logger.error("%s ended with code %d and is started again", place.name, code)
            except (WorkerFailedToStart, OSError) as error:
                logger.error("%s did not start: %s", place.name, error)  # noqa: TRY400 - no fault of ours
                place.settled.set()
                failures += 1
            except asyncio.CancelledError:
                raise
            else:
                failures = 0 if worker.uptime_seconds > STABLE_SECONDS else failures + 1
            finally:
                if watch is not None:
                    watch.cancel()
            await worker.kill()
            place.restarts += 1
            await asyncio.sleep(backoff_seconds(failures))

    async def _close(self, places: list[_Place], drain_seconds: float) -> None:
        for place in places:
            if place.task is not None:
                place.task.cancel()
        tasks = [place.task for place in places if place.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        workers = [place.worker for place in places if place.worker is not None]
        await asyncio.gather(*(worker.stop(drain_seconds) for worker in workers))


def backoff_seconds(failures: int) -> float:
    """How long to wait before a start, after so many failures in a row; doubles, to 30 s."""
    if failures == 0:
        return 0.0
    return min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2.0 ** min(failures - 1, 20))
