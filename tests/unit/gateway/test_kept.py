"""A response is known at once, and again after a restart; a store that fails is said to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from penstock.errors import InvalidRequest, StoreUnavailable
from penstock.gateway import kept
from penstock.gateway.kept import KeptResponses
from penstock.store.kept_responses import KeptRow, ResponseStore
from penstock.store.reader import Reader
from penstock.store.writer import Writer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResponseStore]:
    writer, reader = Writer(tmp_path / "penstock.db"), Reader(tmp_path / "penstock.db")
    yield ResponseStore(writer, reader)
    writer.close()
    reader.close()


def test_a_new_process_knows_what_the_last_one_kept(store: ResponseStore) -> None:
    async def one() -> None:
        responses = KeptResponses(store, lambda: 1.0)
        responses.keep("a", "r1", "one")
        assert "one" == await responses.find("a", "r1"), "before it is written"
        responses.flush()
        store.keep([], 1.0).result()  # what was written before this is on the disk

    async def other() -> None:
        responses = KeptResponses(store, lambda: 2.0)
        assert "one" == await responses.find("a", "r1")
        with pytest.raises(InvalidRequest, match="names no response that is kept"):
            await responses.find("b", "r1")

    asyncio.run(one())
    asyncio.run(other())


def test_it_is_written_by_itself_and_together(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "FLUSH_SECONDS", 0.0)
    batches: list[int] = []
    keep = store.keep

    async def run() -> None:
        written = asyncio.Event()

        def noted(rows: list[KeptRow], now: float) -> Future[None]:
            batches.append(len(rows))
            written.set()
            return keep(rows, now)

        monkeypatch.setattr(store, "keep", noted)
        responses = KeptResponses(store, lambda: 1.0)
        for number in range(20):
            responses.keep("a", f"r{number}", "one")
        async with asyncio.timeout(10):
            await written.wait()

    asyncio.run(run())
    assert [20] == batches
    keep([], 1.0).result()
    assert "one" == store.find("a", "r19", 1.0).result()


def test_memory_is_bounded_and_the_store_knows_the_rest(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "RESPONSES_MAX", 2)

    async def run() -> None:
        responses = KeptResponses(store, lambda: 1.0)
        for number in range(5):
            responses.keep("a", f"r{number}", "one")
        responses.flush()
        store.keep([], 1.0).result()
        assert 2 == len(responses._latest)
        assert "one" == await responses.find("a", "r0")

    asyncio.run(run())


def test_a_store_that_cannot_be_read_is_no_word_about_the_response(tmp_path: Path) -> None:
    (tmp_path / "penstock.db").write_bytes(b"this is no database at all, is it?" * 100)
    writer, reader = Writer(tmp_path / "penstock.db"), Reader(tmp_path / "penstock.db")

    async def run() -> None:
        responses = KeptResponses(ResponseStore(writer, reader), lambda: 1.0)
        responses.keep("a", "r1", "one")
        responses.flush()
        assert "one" == await responses.find("a", "r1")
        with pytest.raises(StoreUnavailable):
            await responses.find("a", "r2")

    asyncio.run(run())
    writer.close()
    reader.close()
