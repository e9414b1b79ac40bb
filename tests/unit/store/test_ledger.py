"""The ledger: every row once, sums that are those of the rows, and no call held up."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.store import database, ledger
from penstock.store.ledger import CallRow, Ledger, Spent, delete_before, write_rows
from penstock.store.reader import Reader
from penstock.store.schema import STEPS
from penstock.store.writer import Writer

SECONDS_MAX = 20
amounts = st.integers(0, ledger.DAY_SECONDS)
rows = st.builds(
    CallRow,
    request_id=st.text("ab", max_size=3),
    arrived_at=st.floats(0, 3 * ledger.DAY_SECONDS),
    tenant=st.sampled_from(["web", "nightly"]),
    key_id=st.sampled_from(["one", "two"]),
    tokens_input=amounts,
    tokens_output=amounts,
    nano_dollars=st.none() | amounts,
    deadline_seconds=st.none() | st.floats(0, 600),
    outcome=st.just("success"),
)


def call(number: int, **fields: object) -> CallRow:
    return CallRow(
        request_id=f"r{number}", arrived_at=1000.0 + number, tenant="web", key_id="k", **fields
    )


def stored(connection: sqlite3.Connection) -> list[CallRow]:
    found = connection.execute("SELECT * FROM calls ORDER BY number")
    return [CallRow(**dict(zip(CallRow.__struct_fields__, row[1:], strict=True))) for row in found]


def in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    for step in STEPS:
        for statement in step:
            connection.execute(statement)
    return connection


def test_the_fields_of_a_row_stand_in_the_order_of_the_columns() -> None:
    connection = in_memory()
    columns = [row[1] for row in connection.execute("PRAGMA table_info(calls)")]
    connection.close()

    assert columns == ["number", *(n.removesuffix("_name") for n in CallRow.__struct_fields__)]


@settings(deadline=None)
@given(st.lists(st.lists(rows, max_size=8), max_size=4))
def test_every_row_comes_back_and_the_sums_by_day_are_those_of_the_rows(
    batches: list[list[CallRow]],
) -> None:
    connection = in_memory()
    for batch in batches:
        write_rows(connection, batch)
    written = [row for batch in batches for row in batch]
    sums: dict[tuple[int, str, str], Spent] = {}
    for row in written:
        key = (int(row.arrived_at // ledger.DAY_SECONDS), row.tenant, row.key_id)
        spent = sums.setdefault(key, Spent())
        spent.calls += 1
        spent.tokens += row.tokens_input + row.tokens_output
        spent.nano_dollars += row.nano_dollars or 0
    found = {tuple(row[:3]): Spent(*row[3:]) for row in connection.execute("SELECT * FROM spent")}

    assert stored(connection) == written
    assert found == sums
    connection.close()


def test_each_call_has_one_row_after_the_ledger_is_closed(
    writer: Writer, readers: Callable[..., Reader]
) -> None:
    async def play() -> None:
        book = Ledger(writer, pytest.fail)
        for number in range(300):
            book.add(call(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        await book.close()

    asyncio.run(play())
    found = readers().submit(stored).result(SECONDS_MAX)
    assert [row.request_id for row in found] == [f"r{number}" for number in range(300)]


class Said(logging.Handler):
    """Waits for what the ledger logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put_nowait(record.getMessage())


def test_a_store_that_fails_holds_nothing_up_and_what_memory_cannot_take_is_counted(
    writer: Writer,
    readers: Callable[..., Reader],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows that waited are written once the store can be written again."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(ledger, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "ROWS_WAITING_MAX", 50)
    writer.submit(lambda connection: None).result(SECONDS_MAX)
    other = sqlite3.connect(file, isolation_level=None)
    lost: list[int] = []

    async def play() -> list[str]:
        said = Said()
        logging.getLogger("penstock.store").addHandler(said)
        book = Ledger(writer, lost.append)
        other.execute("BEGIN IMMEDIATE")
        book.add(call(0))
        async with asyncio.timeout(SECONDS_MAX):
            lines = [await said.lines.get()]
            for number in range(1, 80):
                book.add(call(number))
            other.execute("ROLLBACK")
            lines.append(await said.lines.get())
        await book.close()
        logging.getLogger("penstock.store").removeHandler(said)
        return lines

    lines = asyncio.run(play())
    other.close()
    found = readers().submit(stored).result(SECONDS_MAX)

    assert [row.request_id for row in found] == [f"r{number}" for number in range(50)]
    assert sum(lost) == 30
    assert "calls go on without it" in lines[0]
    assert "written again; 30 rows were lost" in lines[1]


def test_a_row_that_cannot_be_written_does_not_hold_up_the_next(
    writer: Writer, readers: Callable[..., Reader]
) -> None:
    lost: list[int] = []

    async def play() -> None:
        book = Ledger(writer, lost.append)
        book.add(call(0, tokens_input=2**70))
        await book.close()
        book.add(call(1))
        await book.close()

    asyncio.run(play())
    assert lost == [1]
    assert [row.request_id for row in readers().submit(stored).result(SECONDS_MAX)] == ["r1"]


def test_old_rows_go_in_small_batches_and_their_sums_stay(
    writer: Writer, readers: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "DELETED_TOGETHER", 3)
    batch = [call(number, tokens_input=1) for number in range(10)]
    writer.submit(lambda connection: write_rows(connection, batch)).result(SECONDS_MAX)
    counts = [writer.submit(delete_before(1008.0)).result(SECONDS_MAX) for _ in range(4)]
    sums = readers().submit(lambda c: c.execute("SELECT tokens FROM spent").fetchone()[0])

    assert counts == [3, 3, 2, 0]
    assert readers().submit(stored).result(SECONDS_MAX) == batch[8:]
    assert sums.result(SECONDS_MAX) == 10
    assert msgspec.structs.astuple(batch[0])[0] == "r0"
