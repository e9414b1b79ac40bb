"""A batch over a real store and real files, with a door that the test plays."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.config.model import BatchesTable, ClassTable
from penstock.http.auth import Principal
from penstock.http.inside import InsideCalls
from penstock.jobs import lines
from penstock.jobs.batches import Batches, BatchOrder
from penstock.jobs.files import Files, new_file_id
from penstock.store.batches import OPEN_STATES, BatchRow, BatchStore, FileRow
from penstock.store.database import DATABASE_FILE
from penstock.store.reader import Reader
from penstock.store.writer import Writer


class Door:
    """Answers each line when the test says so; ``asked`` are the values so far."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go: dict[str, asyncio.Event] = {}

    def allow(self, value: str) -> None:
        self.go.setdefault(value, asyncio.Event()).set()

    async def __call__(self, scope) -> None:
        line = scope["state"]["line"]
        value = json.loads(line.whole_body())["value"]
        self.asked.append(value)
        going = asyncio.ensure_future(self.go.setdefault(value, asyncio.Event()).wait())
        gone = asyncio.ensure_future(line.receive())
        await asyncio.wait({going, gone}, return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        gone.cancel()
        line.begin(200, {"content-type": "application/json"}, None)
        line.write(json.dumps(value).encode(), is_last=True)


class Bench:
    """One process's batches."""

    def __init__(self, folder: Path, principal: Principal) -> None:
        self.door = Door()
        self.principal = principal
        self.writer = Writer(folder / DATABASE_FILE)
        self.reader = Reader(folder / DATABASE_FILE)
        self.store = BatchStore(self.writer, self.reader)
        calls = InsideCalls()
        calls.doors = self.door
        self.clock = asyncio.get_running_loop().time
        self.files = Files(folder / "files", self.store, BatchesTable(), self.clock)
        self.batches = Batches(
            self.store,
            self.files,
            calls,
            BatchesTable(),
            self.clock,
            lambda _key, _tenant: principal,
        )
        self.batches.classes = {"batch": ClassTable(rank=2)}

    async def order(self, *values: str) -> BatchRow:
        """A batch with one line for each value, which is its custom_id, too."""
        file_id = new_file_id()
        with self.files.open_new(file_id) as file:
            for value in values:
                line = {
                    "custom_id": value,
                    "method": "POST",
                    "url": "/x",
                    "body": {"value": value},
                }
                file.write(json.dumps(line).encode() + b"\n")
        row = FileRow(
            file_id=file_id,
            tenant=self.principal.tenant,
            filename="in",
            purpose="batch",
            bytes=1,
            created_at=0.0,
            expires_at=1e12,
        )
        await asyncio.wrap_future(self.store.add_file(row, None))
        order = BatchOrder(
            principal=self.principal,
            endpoint="/x",
            input_file_id=file_id,
            window="24h",
            seconds=86_400.0,
            metadata=b"null",
        )
        return await self.batches.create(order, None)

    async def until(self, row: BatchRow, condition: Callable[[BatchRow], bool]) -> BatchRow:
        async with asyncio.timeout(20):
            while True:
                found = await self.batches.get(row.tenant, row.batch_id)
                if condition(found):
                    return found

    async def ended(self, row: BatchRow) -> BatchRow:
        return await self.until(row, lambda one: one.state not in OPEN_STATES)

    def answers(self, row: BatchRow) -> list[str]:
        """The custom_ids of the output file."""
        path = self.files.path(row.output_file_id)
        if not path.exists():
            return []
        return [json.loads(one)["custom_id"] for one in path.read_bytes().splitlines()]


@pytest.fixture
def bench(tmp_path: Path, own: Principal) -> Callable[..., object]:
    @asynccontextmanager
    async def start() -> AsyncIterator[Bench]:
        one = Bench(tmp_path, own)
        owned = asyncio.Event()
        owned.set()
        running = asyncio.create_task(one.batches.run(owned))
        try:
            yield one
        finally:
            await one.batches.stop()
            running.cancel()
            await asyncio.wait({running})
            await asyncio.to_thread(one.writer.close)
            await asyncio.to_thread(one.reader.close)

    return start


def test_an_answer_that_comes_while_others_are_written_is_written_too(bench, monkeypatch):
    append = lines.append

    async def work() -> None:
        loop = asyncio.get_running_loop()
        is_held, go_on = asyncio.Event(), asyncio.Event()

        def held(path: Path, answers: list[bytes]) -> None:
            loop.call_soon_threadsafe(is_held.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
            append(path, answers)

        monkeypatch.setattr(lines, "append", held)
        async with bench() as one:
            one.door.allow("a")
            row = await one.order("a", "b")
            await is_held.wait()
            one.door.allow("b")
            run, _ = one.batches._running[row.batch_id]
            async with asyncio.timeout(20):
                await run._over.wait()
            go_on.set()

            assert (await one.ended(row)).state == "completed"
            assert sorted(one.answers(row)) == ["a", "b"]

    asyncio.run(work())


def test_a_service_that_stops_writes_what_is_answered_and_the_next_asks_the_rest(bench):
    async def work() -> None:
        async with bench() as one:
            one.door.allow("a")
            row = await one.order("a", "b", "c")
            await one.until(row, lambda now: now.completed == 1)
        assert one.answers(row) == ["a"]

        async with bench() as one:
            one.door.allow("b")
            one.door.allow("c")
            assert (await one.ended(row)).completed == 3
            assert sorted(one.door.asked) == ["b", "c"]
            assert sorted(one.answers(row)) == ["a", "b", "c"]

    asyncio.run(work())


@pytest.mark.parametrize("seed", range(5))
def test_every_line_stands_once_in_the_files_whenever_answers_come(bench, seed):
    chance = random.Random(seed)
    values = [f"v{number}" for number in range(60)]

    async def work() -> None:
        async with bench() as one:
            row = await one.order(*values)
            for value in sorted(values, key=lambda _: chance.random()):
                one.door.allow(value)
                for _ in range(chance.randrange(40)):
                    await asyncio.sleep(0)
            await one.ended(row)

            assert sorted(one.answers(row)) == sorted(values)
            assert sorted(one.door.asked) == sorted(values)

    asyncio.run(work())
