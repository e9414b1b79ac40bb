"""The one writer: what stands together in a transaction, and what fails alone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

import pytest

from penstock.errors import StoreError
from penstock.store import database
from penstock.store.reader import Reader
from penstock.store.writer import WORKS_TOGETHER_MAX, Writer

SECONDS_MAX = 20


def make_table(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")


def insert(value: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
        return value

    return work


def values(connection: sqlite3.Connection) -> list[int]:
    return [row["a"] for row in connection.execute("SELECT a FROM t ORDER BY a")]


class Gate:
    """A work that holds the writer's thread until it is opened."""

    def __init__(self, writer: Writer) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()
        self.future: Future[None] = writer.submit(self._work)
        assert self._entered.wait(SECONDS_MAX)

    def _work(self, connection: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._opened.wait(SECONDS_MAX)

    def open(self) -> None:
        self._opened.set()


def test_a_result_is_told_when_others_can_read_it(
    writer: Writer, readers: Callable[..., Reader]
) -> None:
    writer.submit(make_table).result(SECONDS_MAX)

    assert writer.submit(insert(7)).result(SECONDS_MAX) == 7
    assert readers().submit(values).result(SECONDS_MAX) == [7]


def test_works_that_came_during_a_commit_share_the_next_one(writer: Writer, file: Path) -> None:
    writer.submit(make_table).result(SECONDS_MAX)
    connections: list[int] = []

    def changes(connection: sqlite3.Connection) -> None:
        # The version of the file as others see it counts up once for each commit.
        with sqlite3.connect(file) as other:
            connections.append(other.execute("SELECT count(*) FROM t").fetchone()[0])
        other.close()

    gate = Gate(writer)
    works = [writer.submit(insert(number)) for number in range(100)]
    seen = writer.submit(changes)
    gate.open()
    wait([*works, seen], SECONDS_MAX)

    assert seen.result() is None
    assert connections == [0], "a hundred rows were visible before their common commit"


def test_a_work_that_fails_fails_alone_and_leaves_nothing(
    writer: Writer, readers: Callable[..., Reader]
) -> None:
    writer.submit(make_table).result(SECONDS_MAX)

    def half(connection: sqlite3.Connection) -> None:
        insert(2)(connection)
        raise ValueError("half way")

    gate = Gate(writer)
    before, broken = writer.submit(insert(1)), writer.submit(half)
    twice, after = writer.submit(insert(1)), writer.submit(insert(3))
    gate.open()

    with pytest.raises(ValueError, match="half way"):
        broken.result(SECONDS_MAX)
    with pytest.raises(StoreError, match="SQLITE_CONSTRAINT"):
        twice.result(SECONDS_MAX)
    assert [before.result(SECONDS_MAX), after.result(SECONDS_MAX)] == [1, 3]
    assert readers().submit(values).result(SECONDS_MAX) == [1, 3]


def test_a_commit_that_fails_fails_all_of_its_works_and_later_ones_go_on(
    writer: Writer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.01)
    writer.submit(make_table).result(SECONDS_MAX)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    held = [writer.submit(insert(number)) for number in range(3)]
    wait(held, SECONDS_MAX)
    other.execute("ROLLBACK")
    other.close()

    for future in held:
        with pytest.raises(StoreError, match="another process has held the database"):
            future.result()
    assert writer.submit(insert(1)).result(SECONDS_MAX) == 1


def test_a_full_disk_undoes_the_whole_transaction_and_is_said(
    writer: Writer, readers: Callable[..., Reader]
) -> None:
    writer.submit(make_table).result(SECONDS_MAX)

    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        connection.executemany("INSERT INTO t VALUES (?)", ((n,) for n in range(100, 100_000)))

    def make_room(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1000000")

    gate = Gate(writer)
    before, broken = writer.submit(insert(1)), writer.submit(fill)
    gate.open()
    wait([before, broken], SECONDS_MAX)
    with pytest.raises(StoreError, match="the disk is full; make room"):
        broken.result()
    rows = readers().submit(values).result(SECONDS_MAX)
    assert rows == ([1] if before.exception() is None else [])
    writer.submit(make_room).result(SECONDS_MAX)
    assert writer.submit(insert(2)).result(SECONDS_MAX) == 2


def test_more_works_than_may_wait_are_refused_at_once(file: Path) -> None:
    writer = Writer(file, works_waiting_max=2)
    gate = Gate(writer)
    waiting = [writer.submit(lambda connection: None) for _ in range(2)]
    with pytest.raises(StoreError, match="falls behind, 2 changes wait"):
        writer.submit(lambda connection: None)
    gate.open()
    wait(waiting, SECONDS_MAX)
    writer.close()


def test_closing_finishes_what_was_submitted_and_takes_no_more(
    file: Path, readers: Callable[..., Reader]
) -> None:
    writer = Writer(file)
    writer.submit(make_table).result(SECONDS_MAX)
    gate = Gate(writer)
    works = [writer.submit(insert(number)) for number in range(2 * WORKS_TOGETHER_MAX)]
    gate.open()
    writer.close()
    writer.close()

    assert all(future.done() for future in works)
    assert len(readers().submit(values).result(SECONDS_MAX)) == len(works)
    with pytest.raises(StoreError, match="the store is closed"):
        writer.submit(insert(1))


def test_a_cancelled_work_is_not_done(writer: Writer, readers: Callable[..., Reader]) -> None:
    writer.submit(make_table).result(SECONDS_MAX)
    gate = Gate(writer)
    cancelled, kept = writer.submit(insert(1)), writer.submit(insert(2))
    assert cancelled.cancel()
    gate.open()
    kept.result(SECONDS_MAX)

    assert readers().submit(values).result(SECONDS_MAX) == [2]


def test_a_store_that_cannot_be_opened_fails_each_work_and_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    writer = Writer(tmp_path / "store" / "penstock.db")
    with pytest.raises(StoreError, match="check the directory's owner and mode"):
        writer.submit(make_table).result(SECONDS_MAX)
    (tmp_path / "store").unlink()

    writer.submit(make_table).result(SECONDS_MAX)
    writer.close()


def test_a_file_that_takes_the_place_of_another_is_written_from_then_on(
    writer: Writer, file: Path, tmp_path: Path, readers: Callable[..., Reader]
) -> None:
    writer.submit(make_table).result(SECONDS_MAX)
    file.parent.rename(tmp_path / "away")
    writer.submit(make_table).result(SECONDS_MAX)
    writer.submit(insert(1)).result(SECONDS_MAX)

    assert readers().submit(values).result(SECONDS_MAX) == [1]


def test_a_reader_cannot_write_and_gives_up_what_takes_too_long(
    writer: Writer, readers: Callable[..., Reader]
) -> None:
    writer.submit(make_table).result(SECONDS_MAX)
    endless = "WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n) SELECT max(a) FROM n"

    with pytest.raises(StoreError, match="check the owner and mode"):
        readers().submit(insert(1)).result(SECONDS_MAX)
    hasty = readers(query_seconds_max=0.0)
    with pytest.raises(StoreError, match="took too long"):
        hasty.submit(lambda connection: connection.execute(endless).fetchone()).result(SECONDS_MAX)
    assert hasty.submit(values).result(SECONDS_MAX) == []
