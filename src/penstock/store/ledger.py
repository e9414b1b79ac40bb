"""The ledger: one row for each LLM call that came with a known key, however it ended.

A call pays an append to a list. Twenty times a second what has gathered is handed to the writer
as one work, so a process that is killed loses the rows of its last moments only: those of the
50 ms before a flush, and those of a commit under way. With the rows, in the same transaction,
goes what each key has spent on each day (UTC, by the call's arrival): budgets are counted from
that after a restart, without reading a month of calls, and it outlives the rows' retention.

A store that falls behind or a full disk holds up no call. So many rows wait in memory, what
comes beyond is lost, counted and said; a batch that failed is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

import msgspec

from penstock.errors import StoreError
from penstock.store.writer import Writer

FLUSH_SECONDS: Final = 0.05
"""How long a row waits for others before they are written."""
RETRY_SECONDS: Final = 1.0
"""How long a store that has failed is left alone."""
ROWS_WAITING_MAX: Final = 20_000
"""Rows in memory: some 15 MB."""
DELETED_TOGETHER: Final = 1_000
"""Old rows that one transaction removes, so that none holds the lock for long."""
FORGET_SECONDS: Final = 600.0
DAY_SECONDS: Final = 86_400

_log = logging.getLogger("penstock.store")


class CallRow(msgspec.Struct, kw_only=True):
    """One call, filled in as it gets on. What it never came to stays empty or zero.

    ``arrived_at`` is Unix seconds. ``nano_dollars`` is None where no price is known. The fields
    stand in the order of the table's columns.
    """

    request_id: str
    arrived_at: float
    tenant: str
    sub_tenant: str = ""
    key_id: str
    class_name: str = ""
    model: str = ""
    deployment: str = ""
    chain: str = ""
    run_id: str = ""
    step: int = 0
    tokens_input_estimated: int = 0
    tokens_output_estimated: int = 0
    tokens_output_max: int | None = None
    tokens_input: int = 0
    tokens_input_cached: int = 0
    tokens_output: int = 0
    tokens_reasoning: int = 0
    nano_dollars: int | None = 0
    wait_seconds: float = 0.0
    upstream_seconds: float = 0.0
    deadline_seconds: float | None = None
    attempts: int = 0
    outcome: str = ""


class Spent(msgspec.Struct):
    """What calls have used: tokens both ways, and dollars where a price is known."""

    calls: int = 0
    tokens: int = 0
    nano_dollars: int = 0

    def add(self, calls: int, tokens: int, nano_dollars: int) -> None:
        """So much more."""
        self.calls += calls
        self.tokens += tokens
        self.nano_dollars += nano_dollars


_INSERT = (
    "INSERT INTO calls VALUES "
    "(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SPEND = (
    "INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "calls = calls + excluded.calls, tokens = tokens + excluded.tokens, "
    "nano_dollars = nano_dollars + excluded.nano_dollars"
)
_DELETE = (
    "DELETE FROM calls WHERE number IN "
    "(SELECT number FROM calls WHERE arrived_at < ? ORDER BY arrived_at LIMIT ?)"
)


def day_of(unix_seconds: float) -> int:
    """The day (UTC), counted from 1970-01-01."""
    return int(unix_seconds // DAY_SECONDS)


def write_rows(connection: sqlite3.Connection, rows: list[CallRow]) -> None:
    """Add the rows, and what they spent; inside a transaction."""
    connection.executemany(_INSERT, map(msgspec.structs.astuple, rows))
    sums: dict[tuple[int, str, str], Spent] = {}
    for row in rows:
        spent = sums.setdefault((day_of(row.arrived_at), row.tenant, row.key_id), Spent())
        spent.add(1, row.tokens_input + row.tokens_output, row.nano_dollars or 0)
    connection.executemany(
        _SPEND, [(*key, *msgspec.structs.astuple(spent)) for key, spent in sums.items()]
    )


class Ledger:
    """Takes rows on the event loop and has them written. ``on_lost`` is told how many were not."""

    def __init__(self, writer: Writer, on_lost: Callable[[int], None]) -> None:
        self._writer = writer
        self._on_lost = on_lost
        self._rows: list[CallRow] = []
        self._in_flight: list[CallRow] = []
        self._timer: asyncio.TimerHandle | None = None
        self._written = asyncio.Event()
        self._failing = False
        self._lost = 0

    def add(self, row: CallRow) -> None:
        """Have the row of a call that has ended written."""
        if len(self._rows) + len(self._in_flight) >= ROWS_WAITING_MAX:
            self._lose(1)
            return
        self._rows.append(row)
        if self._timer is None and not self._in_flight:
            self._flush_in(FLUSH_SECONDS)

    async def close(self) -> None:
        """Write what there is; what cannot be written now is lost, and said."""
        if self._in_flight:
            self._written.clear()
            await self._written.wait()
        if self._timer is not None:
            self._timer.cancel()
        if self._rows:
            self._written.clear()
            self._flush()
            await self._written.wait()
        if self._timer is not None:
            self._timer.cancel()
        if self._rows:
            _log.error("%d rows of the ledger are lost", len(self._rows))
            self._lose(len(self._rows))
            self._rows = []

    def _flush_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        """Hand the rows to the writer; one batch at a time, the next gathers meanwhile."""
        self._timer = None
        rows, self._rows = self._rows, []
        self._in_flight = rows
        loop = asyncio.get_running_loop()
        try:
            future = self._writer.submit(lambda connection: write_rows(connection, rows))
        except StoreError as error:
            self._end_flush(error)
            return

        def done(future: Future[None]) -> None:
            loop.call_soon_threadsafe(self._end_flush, future.exception())

        future.add_done_callback(done)

    def _end_flush(self, error: BaseException | None) -> None:
        rows, self._in_flight = self._in_flight, []
        if isinstance(error, StoreError):
            if not self._failing:
                _log.error("the ledger cannot be written, calls go on without it: %s", error)
            self._rows = rows + self._rows
        elif error is not None:
            # A fault of ours in a row: the same again would not go better.
            _log.error("%d rows of the ledger are lost", len(rows), exc_info=error)
            self._on_lost(len(rows))
        elif self._failing:
            _log.warning("the ledger is written again; %d rows were lost", self._lost)
            self._lost = 0
        self._failing = isinstance(error, StoreError)
        if self._rows:
            self._flush_in(RETRY_SECONDS if self._failing else FLUSH_SECONDS)
        self._written.set()

    def _lose(self, count: int) -> None:
        self._lost += count
        self._on_lost(count)


async def forget_old(
    writer: Writer, keep_days: Callable[[], int], wall: Callable[[], float]
) -> None:
    """Every ten minutes, remove the rows that are older than is kept, until cancelled."""
    while True:
        await asyncio.sleep(FORGET_SECONDS)
        before = wall() - keep_days() * DAY_SECONDS
        try:
            while await asyncio.wrap_future(writer.submit(delete_before(before))):
                pass
        except StoreError as error:
            _log.error("old rows of the ledger cannot be removed: %s", error)


def delete_before(unix_seconds: float) -> Callable[[sqlite3.Connection], int]:
    """A work that removes some of the oldest rows that arrived before; gives how many."""

    def work(connection: sqlite3.Connection) -> int:
        return connection.execute(_DELETE, (unix_seconds, DELETED_TOGETHER)).rowcount

    return work
