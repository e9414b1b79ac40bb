"""What the journal of durable runs costs a call, beside the same calls without it, in one run.

Run it with ``./dev run python benchmarks/journal_cost.py``. The calls pass the journal's door
over a real store in a temporary directory; the handler behind it answers at once. Those of a run
that is not durable are passed on, those of a durable one are committed before they are answered.
The two take turns, round after round, with one caller and with many, who share commits. CPU is
that of the whole process, the writer's thread too. Medians of rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from penstock.gateway.accounts import Accounts
from penstock.gateway.journal import Journal
from penstock.http.auth import Authenticator, Principal
from penstock.http.door import Desk, Handler
from penstock.http.exchange import Exchange
from penstock.http.run_identity import HEADER, sign
from penstock.store.database import DATABASE_FILE
from penstock.store.jobs import JobStore, NewJob
from penstock.store.journal import JournalStore
from penstock.store.reader import Reader
from penstock.store.writer import Writer
from penstock.units import Outcome, RunIdentity

CALLS, ROUNDS, CALLERS = 400, 7, (1, 20, 100)
RUN_KEY = b"r" * 32
ANSWER = b'{"choices":[{"message":{"role":"assistant","content":"%b"}}]}' % (b"word " * 400)
OWN = Principal("key", "acme", "standard", "interactive")
WORKERS = Principal("penstock-workers", "w", "standard", "standard", internal=True)
JOB = NewJob(
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


class Asked:
    """Stands for an exchange: what the journal and a handler see of one."""

    def __init__(self, body: bytes, job_id: str) -> None:
        run = RunIdentity("r", "c", "key", "acme", "batch", 0.0, job_id=job_id, attempt=1)
        self.principal = WORKERS
        self.headers = {HEADER: sign(run, RUN_KEY)}
        self.scope = {"path": "/v1/chat/completions"}
        self.facts: dict[str, object] = {}
        self.recorder: Any = None
        self._body = body

    async def body(self) -> bytes:
        """What is asked."""
        return self._body

    async def respond(self) -> None:
        """Answer, once the journal has it."""
        if self.recorder is not None:
            await self.recorder.whole(200, ANSWER)


async def _handle(exchange: Exchange) -> Outcome:
    await cast("Any", exchange).respond()
    return Outcome.SUCCESS


class Round(NamedTuple):
    """CPU microseconds a call, and the milliseconds of its median and its 99th percentile."""

    cpu_us: float
    median_ms: float
    p99_ms: float


async def measured(door: Handler, job_id: str, callers: int, salt: int) -> Round:
    """So many calls by so many callers, each of whom makes one after the other."""
    numbers = iter(range(CALLS))
    seconds: list[float] = []

    async def call_on() -> None:
        for number in numbers:
            asked = Asked(b"%d of %d" % (number, salt), job_id)
            began = time.perf_counter()
            await door(cast("Exchange", asked))
            seconds.append(time.perf_counter() - began)

    began = time.process_time()
    await asyncio.gather(*(call_on() for _ in range(callers)))
    cpu_us = (time.process_time() - began) / CALLS * 1e6
    cuts = statistics.quantiles(seconds, n=100)
    return Round(cpu_us=cpu_us, median_ms=cuts[49] * 1e3, p99_ms=cuts[98] * 1e3)


async def compare(folder: Path) -> None:
    """One line for each number of callers, without the journal and with it."""
    writer, reader = Writer(folder / DATABASE_FILE), Reader(folder / DATABASE_FILE)
    jobs = JobStore(writer, reader)
    await asyncio.wrap_future(jobs.create(JOB, None))
    await asyncio.wrap_future(jobs.claim("me", 2, 1, 1.0))
    desk: Any = SimpleNamespace(authenticator=Authenticator({"digest": OWN}, b"pepper"))
    journal = Journal(
        JournalStore(writer, reader), cast("Desk", desk), cast("Accounts", None), RUN_KEY
    )
    door = journal.around(_handle)
    print("callers   journal   CPU us a call   median ms   p99 ms")
    for callers in CALLERS:
        rounds: dict[str, list[Round]] = {"": [], "job": []}
        for number in range(ROUNDS):
            for job_id, told in rounds.items():
                told.append(await measured(door, job_id, callers, number * 1000 + callers))
        for job_id, told in rounds.items():
            cpu, median, p99 = (
                statistics.median(getattr(one, name) for one in told)
                for name in ("cpu_us", "median_ms", "p99_ms")
            )
            name = "with" if job_id else "without"
            print(f"{callers:7}   {name:7}   {cpu:13.0f}   {median:9.2f}   {p99:6.2f}")
    await asyncio.to_thread(writer.close)
    await asyncio.to_thread(reader.close)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder)))


if __name__ == "__main__":
    main()
