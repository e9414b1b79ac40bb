"""Runs batches: a file of lines in, a file of answers and one of failures out.

Each line is a request that this process makes to its own doors, in the name of the batch's key
and in the least urgent class: so lines wait in the one scheduler for whatever the others leave of
a limit, and nothing about a line is special. In process, not over loopback HTTP: see
``http/inside``.

What is under way is bounded by a window that feels out the limit (``window``), so memory does
not grow with the file. What is answered is appended to the output or the error file and synced,
many lines at a time, before it counts; after a crash these files say which lines are done, and
only what was in flight is asked again. A line that cannot be answered now (a provider that is
down, a service that drains) keeps its place and is asked again, until the batch's window ends.

States and documents are those of OpenAI's Batch API, so that its SDKs work unchanged.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.config.model import BatchesTable, ClassTable
from penstock.errors import (
    InvalidRequest,
    NotFound,
    PenstockError,
    QueueFull,
    StoreError,
    Unprocessable,
)
from penstock.http.auth import Principal, PrincipalOf
from penstock.http.exchange import Inside
from penstock.http.inside import InsideCalls
from penstock.jobs import lines
from penstock.jobs.execution import ERROR_BYTES_MAX, refused
from penstock.jobs.files import DAY_SECONDS, Files, new_file_id
from penstock.jobs.shapes import ENDED_STATES, BatchCounts, BatchProblems, BatchShown
from penstock.jobs.states import BACKOFF_SECONDS_MAX, Happening
from penstock.jobs.window import LINES_FIRST, next_window
from penstock.store.batches import OPEN_STATES, BatchRow, BatchStore, FileRow
from penstock.store.jobs import Idempotency, IdempotencyConflict

_log = logging.getLogger("penstock.jobs")

FLUSH_SECONDS: Final = 0.05
"""How long an answer waits for others before it is synced."""
PROGRESS_SECONDS: Final = 1.0
"""Between two changes of the counts that callers see."""
ATTEMPTS_MAX: Final = 6
"""Of one line that the provider fails; a full queue or a missed deadline here counts as none."""
PATIENT_CODES: Final = frozenset(
    {"queue_full", "draining", "deadline_exceeded", "deadline_unreachable", "worker_lost"}
)
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
FORGET_SECONDS: Final = 300.0
STORE_RETRY_SECONDS: Final = 1.0


class BatchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: every line of a file asked at ``endpoint``, within ``seconds``."""

    principal: Principal
    endpoint: str
    input_file_id: str
    window: str
    seconds: float
    metadata: bytes


class Batches:
    """The batches of all tenants. ``table`` and ``classes`` are replaced on a reload.

    ``created`` is told that there is something in the store now.
    """

    def __init__(
        self,
        store: BatchStore,
        files: Files,
        calls: InsideCalls,
        table: BatchesTable,
        wall: Callable[[], float],
        principal_of: PrincipalOf,
    ) -> None:
        self.table = table
        self.classes: Mapping[str, ClassTable] = {}
        self.created: Callable[[], None] = lambda: None
        self.line_bytes_max = 8 * 1024 * 1024
        self._store = store
        self._files = files
        self._calls = calls
        self._wall = wall
        self._principal_of = principal_of
        self._running: dict[str, tuple[BatchRun, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    async def create(self, order: BatchOrder, idempotency: Idempotency | None) -> BatchRow:
        """Store a batch. Raises NotFound (no such file), QueueFull, Unprocessable."""
        principal = order.principal
        await self._files.get(principal.tenant, order.input_file_id)
        now = self._wall()
        row = BatchRow(
            batch_id=f"batch_{secrets.token_hex(16)}",
            tenant=principal.tenant,
            key_id=principal.key_id,
            endpoint=order.endpoint,
            input_file_id=order.input_file_id,
            output_file_id=new_file_id(),
            error_file_id=new_file_id(),
            window=order.window,
            metadata=order.metadata,
            created_at=now,
            expires_at=now + order.seconds,
        )
        try:
            adding = self._store.add_batch(row, idempotency, self.table.queue_max)
            stored = await asyncio.wrap_future(adding)
        except IdempotencyConflict:
            raise Unprocessable(
                "This Idempotency-Key was used for another request; take a new one.",
                code="idempotency_key_reused",
            ) from None
        if stored is None:
            raise QueueFull(
                f"This tenant has {self.table.queue_max} batches that have not ended, which is "
                "as many as this service keeps. Come back when one has ended."
            )
        self.created()
        self._wake.set()
        return stored

    async def get(self, tenant: str, batch_id: str) -> BatchRow:
        """A tenant's batch. Raises NotFound, the same for one of another tenant."""
        row = await asyncio.wrap_future(self._store.batch(tenant, batch_id))
        if row is None:
            raise NotFound("There is no such batch.", code="batch_not_found")
        running = self._running.get(batch_id)
        return row if running is None else running[0].shown(row)

    async def page(self, tenant: str, after: str | None, limit: int) -> list[BatchRow]:
        """A tenant's batches, the newest first."""
        return await asyncio.wrap_future(self._store.batches(tenant, after, limit))

    async def cancel(self, tenant: str, batch_id: str) -> BatchRow:
        """End a batch; what is answered stays. Raises NotFound, InvalidRequest (409)."""
        row = await self.get(tenant, batch_id)
        if row.state not in OPEN_STATES:
            raise InvalidRequest(
                f"This batch is {row.state}: it cannot be cancelled any more.",
                status=409,
                code="batch_ended",
            )
        cancelled = moved(row, "cancelling", self._wall())
        stored = await asyncio.wrap_future(
            self._store.change(cancelled, ("validating", "in_progress", "cancelling"))
        )
        running = self._running.get(batch_id)
        if running is not None and stored:
            running[0].cancel(cancelled)
        self._wake.set()
        return await self.get(tenant, batch_id)

    async def run(self, owned: asyncio.Event) -> None:
        """Run every batch there is, until cancelled; begins when the store is owned."""
        await owned.wait()
        forgetting = asyncio.create_task(self._forget())
        try:
            while True:
                self._wake.clear()
                try:
                    await self._start()
                except StoreError as error:
                    _log.error("batches wait for the store: %s", error)
                    await asyncio.sleep(STORE_RETRY_SECONDS)
                    continue
                await self._wake.wait()
        finally:
            forgetting.cancel()

    async def stop(self) -> None:
        """Leave every batch where it is, for the next process."""
        self._stopping = True
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _start(self) -> None:
        """Start what may start: the earliest deadline first, one tenant at most half."""
        for row in await asyncio.wrap_future(self._store.open_batches()):
            if self._stopping or len(self._running) >= self.table.running_max:
                return
            own = sum(run.row.tenant == row.tenant for run, _ in self._running.values())
            is_last_half = own >= max(1, self.table.running_max // 2)
            if row.batch_id in self._running or is_last_half:
                continue
            run = BatchRun(self, row)
            task = asyncio.create_task(self._carry_out(run))
            self._running[row.batch_id] = (run, task)

    async def _carry_out(self, run: BatchRun) -> None:
        batch_id = run.row.batch_id
        try:
            await run.carry_out()
        except (PenstockError, OSError):
            _log.exception("batch %s stands still; it is taken up again", batch_id)
            await asyncio.sleep(STORE_RETRY_SECONDS)
        finally:
            self._running.pop(batch_id, None)
            self._wake.set()

    async def _forget(self) -> None:
        while True:
            try:
                await self._files.sweep()
                await self._files.forget_old()
                before = self._wall() - self.table.keep_days * DAY_SECONDS
                await asyncio.wrap_future(self._store.forget_batches(before))
            except (StoreError, OSError) as error:
                _log.error("old files cannot be removed: %s", error)
            await asyncio.sleep(FORGET_SECONDS)

    # What one run of a batch asks.

    @property
    def lines_max(self) -> int:
        """How many lines one batch may have under way."""
        return max(1, self.table.lines_in_flight_max // max(1, len(self._running)))

    def principal(self, row: BatchRow) -> Principal | None:
        """In whose name its lines are asked, in the least urgent class."""
        principal = self._principal_of(row.key_id, row.tenant)
        if principal is None:
            return None
        least = max(self.classes, key=lambda name: self.classes[name].rank)
        return msgspec.structs.replace(principal, class_default=least, ceiling=least)

    def path(self, file_id: str) -> Path:
        """Where a file's bytes are."""
        return self._files.path(file_id)

    def now(self) -> float:
        """Unix seconds."""
        return self._wall()

    async def change(self, row: BatchRow, from_states: tuple[str, ...], *files: FileRow) -> bool:
        """Store what has become of a batch."""
        return await asyncio.wrap_future(self._store.change(row, from_states, files))

    async def asked(
        self, row: BatchRow, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes | None]:
        """One line's answer: status, headers, and the body where it is not too large."""
        principal = self.principal(row)
        if principal is None:
            return 401, {}, b'{"error":{"code":"invalid_api_key","message":"The key is gone."}}'
        opened = self._calls.open("POST", row.endpoint, body, Inside(principal))
        async with opened as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                return 400, answer.headers, b'{"error":{"message":"A line must not stream."}}'
            bytes_max = ANSWER_BYTES_MAX if answer.status == 200 else ERROR_BYTES_MAX
            return answer.status, answer.headers, await answer.body(bytes_max)


class BatchRun:
    """One batch on its way, in this process."""

    def __init__(self, batches: Batches, row: BatchRow) -> None:
        self.row = row
        self._batches = batches
        self._window = LINES_FIRST
        self._done = bytearray()
        self._completed = 0
        self._failed = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._good: list[bytes] = []
        self._bad: list[bytes] = []
        self._freed = asyncio.Event()
        self._cancelled = asyncio.Event()
        self._over = asyncio.Event()

    def cancel(self, row: BatchRow) -> None:
        """Start nothing more, and give up what is under way. ``row`` says so already."""
        self.row = row
        self._cancelled.set()

    def shown(self, row: BatchRow) -> BatchRow:
        """The row with the counts of this moment."""
        return msgspec.structs.replace(row, completed=self._completed, failed=self._failed)

    async def carry_out(self) -> None:
        """From wherever it stands to its end. Raises StoreError, OSError."""
        if self.row.state == "cancelling":
            self._cancelled.set()
        if self.row.state == "validating" and not await self._validated():
            return
        self._done = bytearray(self.row.total + 1)
        await self._take_up()
        flushing = asyncio.create_task(self._flush())
        try:
            await self._ask_all(flushing)
        finally:
            # Never cancelled: what is answered is written, also where this process stops, and
            # nothing is still being appended when another run takes the files up.
            self._over.set()
            await asyncio.wait({flushing})
        flushing.result()
        await self._end()
        _log.info("batch %s is %s", self.row.batch_id, self.row.state)

    async def _validated(self) -> bool:
        batches, row = self._batches, self.row
        path = batches.path(row.input_file_id)
        try:
            scan = await asyncio.to_thread(
                lines.scan, path, batches.line_bytes_max, batches.table.lines_max
            )
        except FileNotFoundError:
            scan = lines.Scan(0, [lines.BatchProblem("file_not_found", "The input file is gone.")])
        if scan.problems:
            failed = moved(row, "failed", batches.now(), errors=msgspec.json.encode(scan.problems))
            await batches.change(failed, ("validating", "cancelling"))
            self.row = failed
            return False
        begun = moved(row, "in_progress", batches.now(), total=scan.total)
        if not await batches.change(begun, ("validating",)):
            begun = moved(begun, "cancelling", batches.now())
            self._cancelled.set()
        self.row = begun
        return True

    async def _take_up(self) -> None:
        """See what a process before this one has answered."""
        for file_id, is_good in ((self.row.output_file_id, True), (self.row.error_file_id, False)):
            numbers = await asyncio.to_thread(lines.answered, self._batches.path(file_id))
            for number in numbers:
                if number < len(self._done):
                    self._done[number] = 1
            if is_good:
                self._completed = len(numbers)
            else:
                self._failed = len(numbers)

    async def _ask_all(self, flushing: asyncio.Task[None]) -> None:
        """Ask every line that is not answered yet; ends early if ``flushing`` does."""
        batches = self._batches
        patience_seconds = max(0.0, self.row.expires_at - batches.now())
        cancelled = asyncio.create_task(self._cancelled.wait())
        asking = asyncio.create_task(self._ask_in_turn())
        try:
            await asyncio.wait(
                {cancelled, asking, flushing},
                timeout=patience_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if asking.done():
                asking.result()
        finally:
            cancelled.cancel()
            asking.cancel()
            await asyncio.wait({asking})
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _ask_in_turn(self) -> None:
        batches = self._batches
        index = 0
        with batches.path(self.row.input_file_id).open("rb") as file:
            for number, raw in lines.numbered(file, batches.line_bytes_max):
                index += 1
                if index >= len(self._done) or self._done[index]:
                    continue
                while len(self._tasks) >= self._window:
                    self._freed.clear()
                    await self._freed.wait()
                task = asyncio.create_task(self._line(index, number, raw))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._freed.set()
        if not task.cancelled() and task.exception() is not None:
            _log.error("a line of %s failed", self.row.batch_id, exc_info=task.exception())

    async def _line(self, index: int, number: int, raw: bytes | None) -> None:
        """One line, from its bytes to what is said of it."""
        custom_id: str | None = None
        try:
            if raw is None:
                message = f"The line is longer than {self._batches.line_bytes_max} bytes."
                raise lines.Bad("line_too_long", message, None)  # noqa: TRY301 - as those below
            line = lines.read(raw, self.row.endpoint)
            custom_id = line.custom_id
            await self._answered(index, custom_id, bytes(line.body))
        except lines.Bad as bad:
            error = {"code": bad.code, "message": bad.message, "line": number}
            self._fail(index, bad.custom_id, error=error)
        except Exception:  # noqa: BLE001 - one line's fault must not be that of the others
            _log.exception("line %d of %s failed by a fault of ours", number, self.row.batch_id)
            error = {"code": "internal_error", "message": "A fault of this service."}
            self._fail(index, custom_id, error=error)

    async def _answered(self, index: int, custom_id: str, body: bytes) -> None:
        """Ask until there is an answer that stays."""
        attempt = 0
        while True:
            status, headers, answer = await self._batches.asked(self.row, body)
            self._feel(headers)
            if status == 200:
                break
            ending = refused(status, answer or b"")
            if ending.happening is not Happening.BROKEN_OFF:
                break
            if ending.code not in PATIENT_CODES:
                attempt += 1
            if attempt >= ATTEMPTS_MAX:
                break
            await asyncio.sleep(min(BACKOFF_SECONDS_MAX, 2.0**attempt))
        if answer is None:
            message = f"The answer is larger than {ANSWER_BYTES_MAX} bytes."
            self._fail(index, custom_id, error={"code": "answer_too_large", "message": message})
            return
        response = {
            "status_code": status,
            "request_id": headers.get("x-request-id", ""),
            "body": _on_one_line(answer),
        }
        if status != 200:
            self._fail(index, custom_id, response=response)
            return
        self._done[index] = 1
        self._completed += 1
        self._good.append(lines.answer(self.row.batch_id, index, custom_id, response=response))

    def _feel(self, headers: Mapping[str, str]) -> None:
        waited = headers.get("penstock-wait-ms", "")
        if waited.isdigit():
            seconds = int(waited) / 1000
            self._window = next_window(self._window, seconds, self._batches.lines_max)

    def _fail(self, index: int, custom_id: str | None, **said: Any) -> None:
        self._done[index] = 1
        self._failed += 1
        self._bad.append(lines.answer(self.row.batch_id, index, custom_id, **said))

    async def _flush(self) -> None:
        """Have answers on the disk soon after they came, and the counts seen now and then.

        Answers come while others are written, so it ends with a write that began after ``_over``.
        """
        told_at = 0.0
        while not self._over.is_set():
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._over.wait()
            except TimeoutError:
                pass
            await self._flushed()
            now = asyncio.get_running_loop().time()
            if now - told_at > PROGRESS_SECONDS and not self._over.is_set():
                told_at = now
                await self._batches.change(self.shown(self.row), (self.row.state,))
        await self._flushed()

    async def _flushed(self) -> None:
        for file_id, answers in (
            (self.row.output_file_id, self._good),
            (self.row.error_file_id, self._bad),
        ):
            if answers:
                taken = answers[:]
                answers.clear()
                await asyncio.to_thread(lines.append, self._batches.path(file_id), taken)

    async def _end(self) -> None:
        """Make the files known, and the state final."""
        batches = self._batches
        is_whole = all(self._done[1:])
        if is_whole:
            state = "completed"
        elif self._cancelled.is_set():
            state = "cancelled"
        else:
            state = "expired"
            await self._expire_rest()
        now = batches.now()
        files = []
        for file_id, kind in (
            (self.row.output_file_id, "output"),
            (self.row.error_file_id, "error"),
        ):
            path = batches.path(file_id)
            if path.exists():
                files.append(
                    FileRow(
                        file_id=file_id,
                        tenant=self.row.tenant,
                        filename=f"{self.row.batch_id}_{kind}.jsonl",
                        purpose="batch_output",
                        bytes=path.stat().st_size,
                        created_at=now,
                        expires_at=now + batches.table.keep_days * DAY_SECONDS,
                    )
                )
        self.row = moved(moved(self.shown(self.row), "finalizing", now), state, now)
        await batches.change(self.row, OPEN_STATES, *files)

    async def _expire_rest(self) -> None:
        """Say of each line that was not reached that it was not."""
        index = 0
        error = {"code": "batch_expired", "message": "The batch ended before this line's turn."}
        with self._batches.path(self.row.input_file_id).open("rb") as file:
            for _, raw in lines.numbered(file, self._batches.line_bytes_max):
                index += 1
                if index < len(self._done) and not self._done[index]:
                    custom_id = None if raw is None else lines.custom_id_of(raw)
                    self._fail(index, custom_id, error=error)
                    if len(self._bad) >= 1000:
                        await self._flushed()
        await self._flushed()


def moved(row: BatchRow, state: str, now: float, **changes: Any) -> BatchRow:
    """The row in another state, with the moment when it came there."""
    moments: dict[str, int] = msgspec.json.decode(row.moments)
    moments.setdefault(state, int(now))
    return msgspec.structs.replace(
        row, state=state, moments=msgspec.json.encode(moments), **changes
    )


def document(row: BatchRow) -> BatchShown:
    """A batch as the OpenAI SDKs know it."""
    moments: dict[str, int] = msgspec.json.decode(row.moments)
    problems = msgspec.json.decode(row.errors, type=list[lines.BatchProblem])
    has_ended = row.state in ENDED_STATES
    return BatchShown(
        id=row.batch_id,
        object="batch",
        endpoint=row.endpoint,
        errors=BatchProblems("list", problems) if problems else None,
        input_file_id=row.input_file_id,
        completion_window=row.window,
        status=row.state,
        output_file_id=row.output_file_id if has_ended and row.completed else None,
        error_file_id=row.error_file_id if has_ended and row.failed else None,
        created_at=int(row.created_at),
        in_progress_at=moments.get("in_progress"),
        expires_at=int(row.expires_at),
        finalizing_at=moments.get("finalizing"),
        completed_at=moments.get("completed"),
        failed_at=moments.get("failed"),
        expired_at=moments.get("expired"),
        cancelling_at=moments.get("cancelling"),
        cancelled_at=moments.get("cancelled"),
        request_counts=BatchCounts(row.total, row.completed, row.failed),
        metadata=msgspec.json.decode(row.metadata),
    )


def _on_one_line(body: bytes) -> msgspec.Raw | str:
    """An answer as JSON without line ends; what is no JSON as a text."""
    try:
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
        return msgspec.Raw(msgspec.json.format(body, indent=-1) if b"\n" in body else body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")
