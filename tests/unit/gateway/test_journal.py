"""The journal: what a finished call of a durable run is answered with when it is asked again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.accounts import Accounts
from penstock.gateway.journal import Journal, _Attempt
from penstock.http.auth import Authenticator, Principal
from penstock.http.exchange import ClientGone
from penstock.http.run_identity import HEADER, sign
from penstock.store.database import DATABASE_FILE
from penstock.store.jobs import JobStore, NewJob
from penstock.store.journal import JournalStore
from penstock.store.reader import Reader
from penstock.store.writer import Writer
from penstock.units import Outcome, RunIdentity

RUN_KEY = b"r" * 32
OWN = Principal("key", "acme", "standard", "interactive")
WORKERS = Principal("penstock-workers", "w", "standard", "standard", internal=True)


class Asked:
    """Stands for an exchange: what the journal and a handler see of one."""

    def __init__(self, body: bytes, attempt: int, job_id: str = "job") -> None:
        identity = RunIdentity(
            "job", "c", "key", "acme", "batch", 0.0, job_id=job_id, attempt=attempt
        )
        self.principal = WORKERS
        self.headers = {HEADER: sign(identity, RUN_KEY)}
        self.scope = {"path": "/v1/chat/completions"}
        self.facts: dict[str, object] = {}
        self.response_headers: dict[str, str] = {}
        self.request_id = "r"
        self.recorder = None
        self.sent = b""
        self._body = body

    async def body(self) -> bytes:
        return self._body

    async def respond(self, status: int, body: bytes) -> None:
        if self.recorder is not None:
            await self.recorder.whole(status, body)
        self.sent += body

    async def start(self, _status: int, _content_type: str) -> None:
        self.sent = b""

    async def write(self, chunk: bytes) -> None:
        self.sent += chunk if self.recorder is None else self.recorder.piece(chunk)

    async def finish(self) -> None:
        self.sent += b"" if self.recorder is None else await self.recorder.last()


class Desk:
    """A journal over a real store that has one running job, and a provider that counts."""

    def __init__(self, folder: Path) -> None:
        self.writer = Writer(folder / DATABASE_FILE)
        self.reader = Reader(folder / DATABASE_FILE)
        new = NewJob(
            job_id="job",
            tenant="acme",
            key_id="key",
            kind="k",
            chain="c",
            path="/",
            class_name="batch",
            rank=2,
            body=b"",
            created_at=0.0,
            due_at=0.0,
        )
        JobStore(self.writer, self.reader).create(new, None).result(10)
        self.paid = 0
        self.begin()

    def begin(self) -> None:
        """As a process does that has just been started."""
        desk = SimpleNamespace(authenticator=Authenticator({"d": OWN}, b"p"))
        accounts = Accounts.__new__(Accounts)
        self.rows: list[object] = []

        def opened(exchange, principal):
            row = SimpleNamespace(tenant=principal.tenant)
            self.rows.append(row)
            return SimpleNamespace(row=row)

        accounts.open = opened
        store = JournalStore(self.writer, self.reader)
        self.journal = Journal(store, desk, accounts, RUN_KEY)

    async def ask(self, attempt: int, body: bytes = b"{}", fails: bool = False, **asked) -> bytes:
        exchange = Asked(body, attempt, **asked)

        async def provider(exchange) -> Outcome:
            self.paid += 1
            if fails:
                raise ClientGone
            await exchange.respond(200, b"answer %d" % self.paid)
            return Outcome.SUCCESS

        await self.journal.around(provider)(exchange)
        return exchange.sent

    async def stream(self, attempt: int, pieces: list[bytes], seen: list[bytes]) -> bytes:
        exchange = Asked(b"s", attempt)

        async def provider(exchange) -> Outcome:
            self.paid += 1
            await exchange.start(200, "text/event-stream")
            for piece in pieces:
                await exchange.write(piece)
                seen.append(exchange.sent)
            await exchange.finish()
            return Outcome.SUCCESS

        await self.journal.around(provider)(exchange)
        return exchange.sent


@pytest.fixture
def desk(tmp_path: Path):
    made = Desk(tmp_path)
    yield made
    made.writer.close()
    made.reader.close()


def test_a_finished_call_is_answered_from_the_journal_in_the_next_attempt(desk: Desk) -> None:
    async def work() -> None:
        first = await desk.ask(1)
        desk.begin()

        assert await desk.ask(2) == first
        assert desk.paid == 1
        assert vars(desk.rows[0]) == {
            "tenant": "acme",
            "chain": "c",
            "run_id": "job",
            "step": 0,
            "class_name": "batch",
        }

    asyncio.run(work())


def test_equal_calls_are_told_apart_by_their_order(desk: Desk) -> None:
    async def work() -> None:
        said = [await desk.ask(1) for _ in range(3)]
        desk.journal.attempt_ended("job")
        again = [await desk.ask(2) for _ in range(4)]

        assert again[:3] == said
        assert (again[3], desk.paid) == (b"answer 4", 4)

    asyncio.run(work())


def test_a_failed_call_gives_its_place_to_its_repetition(desk: Desk) -> None:
    async def work() -> None:
        with pytest.raises(ClientGone):
            await desk.ask(1, fails=True)
        said = await desk.ask(1)
        desk.journal.attempt_ended("job")

        assert await desk.ask(2) == said
        assert desk.paid == 2

    asyncio.run(work())


def test_another_request_or_another_job_is_paid_for(desk: Desk) -> None:
    async def work() -> None:
        await desk.ask(1)
        desk.journal.attempt_ended("job")
        await desk.ask(2, b"other")
        await desk.ask(2, job_id="another")

        assert desk.paid == 3

    asyncio.run(work())


def test_a_run_that_is_not_durable_is_passed_on(desk: Desk) -> None:
    async def work() -> None:
        for _ in range(2):
            await desk.ask(0, job_id="")

        assert desk.paid == 2

    asyncio.run(work())


def test_the_end_of_a_stream_is_held_back_until_it_is_kept(desk: Desk) -> None:
    async def work() -> None:
        seen: list[bytes] = []
        whole = await desk.stream(1, [b"a", b"b", b"c"], seen)
        desk.begin()

        assert seen == [b"", b"a", b"ab"]
        assert await desk.stream(2, [], []) == whole == b"abc"
        assert desk.paid == 1

    asyncio.run(work())


def test_nothing_is_kept_for_a_job_that_has_ended(desk: Desk) -> None:
    async def work() -> None:
        await desk.ask(1, job_id="ended-long-ago")
        kept = JournalStore(desk.writer, desk.reader)

        assert await asyncio.wrap_future(kept.find("ended-long-ago", b"", 0)) is None
        assert (
            desk.writer.submit(
                lambda connection: connection.execute(
                    "SELECT COUNT(*) FROM job_journal"
                ).fetchone()[0]
            ).result(10)
            == 0
        )

    asyncio.run(work())


def test_the_journal_says_whether_an_attempt_was_waiting_for_a_call(desk: Desk) -> None:
    async def work() -> None:
        await desk.ask(1)
        assert not desk.journal.attempt_ended("job")
        with pytest.raises(ClientGone):
            await desk.ask(2, b"x", fails=True)
        assert desk.journal.attempt_ended("job")
        assert not desk.journal.attempt_ended("job")

    asyncio.run(work())


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=30))
def test_no_two_open_calls_share_an_ordinal_and_the_lowest_is_taken(steps) -> None:
    attempt, held = _Attempt(), []
    for step in steps:
        if step is None or step >= len(held):
            ordinal = attempt.take(b"d")
            assert ordinal == min(set(range(len(held) + 1)) - set(held))
            held.append(ordinal)
        else:
            attempt.give_back(b"d", held.pop(step))
