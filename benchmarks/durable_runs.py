"""What a durable run costs when workers and the whole service are killed under it.

    ./dev run python benchmarks/durable_runs.py [--runs 50] [--kills 100] [--seed 1] [--json]

Runs of five LLM calls in sequence are ordered with ``Prefer: respond-async``. Then, at random
moments of a seeded generator, a worker or the front process is killed with SIGKILL; the front is
started again at once, as a supervisor would. The provider is this process: it counts each prompt
it is paid for, and knows which calls were in flight at a kill. At the end it is checked, and
printed, that

- no run was lost: each ended with success and the right result;
- no run was done twice: each ended once, and its result is that of five calls in order;
- calls paid = calls needed + calls in flight at a kill: every call that was paid for again had
  been in flight when something was killed.

A call counts as in flight from the moment when it may have been on its way to the provider until
its answer had time to be stored: ``--slack`` seconds (0.5) before and after the provider saw it.
On an idle machine both take some milliseconds.

The exit code is 0 when all three hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp

HERE = Path(__file__).parent / "durable"
STEPS = 5
KEY = "benchmark-key"
CALLS_AT_ONCE = 6
START_SECONDS_MAX = 120.0
POLL_SECONDS = 0.05
T = TypeVar("T")
CONFIGURATION = """
path = [{here}]
[server]
port = {port}
[store]
path = {store}
[workers]
count = {workers}
[providers.counted]
kind = "openai"
base_url = "http://127.0.0.1:{provider}/v1"
[deployments.counted]
provider = "counted"
concurrency = {at_once}
[chains.five]
import = "five_steps:chain"
[keys.benchmark]
tenant = "benchmark"
key_env = "BENCHMARK_KEY"
"""


class Paid(NamedTuple):
    """One call that the provider was asked for: its prompt, and when."""

    prompt: str
    began: float
    ended: float


class Provider:
    """Answers every prompt after some time, and remembers it."""

    def __init__(self, seconds: float) -> None:
        self.paid: list[Paid] = []
        self.in_flight = 0
        self._seconds = seconds
        self._server: asyncio.Server | None = None

    async def is_busy(self) -> bool:
        """Whether it is being asked now."""
        return self.in_flight > 0

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                answer = await self._answer(body["messages"][-1]["content"])
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d"
                    b"\r\n\r\n%b" % (len(answer), answer)
                )
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, prompt: str) -> bytes:
        began = time.monotonic()
        self.in_flight += 1
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.in_flight -= 1
            self.paid.append(Paid(prompt, began, time.monotonic()))
        name, step, _ = prompt.split(" ", 2)
        message = {"role": "assistant", "content": f"{name}-answered-{step}"}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 0,
                "model": "counted",
                "choices": [choice],
                "usage": usage,
            }
        ).encode()


class Front:
    """The service, killed and started again on the same port and store."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self._folder / "log.jsonl").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "penstock",
                "serve",
                "--config",
                str(self._folder / "penstock.toml"),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "BENCHMARK_KEY": KEY},
            )

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def workers(self) -> list[int]:
        """The process ids of its chain workers."""
        assert self._process is not None
        task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        found = []
        for child in task.read_text().split():
            command = Path(f"/proc/{child}/cmdline")
            if command.exists() and b"penstock.chains.worker" in command.read_bytes():
                found.append(int(child))
        return found


async def order(session: aiohttp.ClientSession, url: str, name: str) -> str:
    """Have a run accepted; its path."""
    headers = {"Prefer": "respond-async", "Idempotency-Key": name}
    path = "/chains/five/invoke"
    async with session.post(url + path, json={"input": name}, headers=headers) as answer:
        answer.raise_for_status()
        return answer.headers["location"]


async def look(session: aiohttp.ClientSession, url: str) -> Any:
    """A document, or None while the service is down."""
    try:
        async with session.get(url) as answer:
            return await answer.json(content_type=None) if answer.status == 200 else None
    except (aiohttp.ClientError, OSError):
        return None


async def until(condition: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What the condition gives, once it is something."""
    for _ in range(int(seconds / POLL_SECONDS)):
        found = await condition()
        if found:
            return found
        await asyncio.sleep(POLL_SECONDS)
    raise TimeoutError(f"it did not happen within {seconds:g} s")


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    await until(lambda: look(session, f"{url}/readyz"), START_SECONDS_MAX)


async def all_ended(session: aiohttp.ClientSession, urls: list[str]) -> list[Any] | None:
    """Every job's document, once none is on its way."""
    documents = []
    for url in urls:
        document = await look(session, url)
        if document is None or document["status"] in ("pending", "running"):
            return None
        documents.append(document)
    return documents


async def kill_at_random(
    front: Front, provider: Provider, chance: random.Random, options: argparse.Namespace
) -> list[float]:
    """Kill so often, each time while calls are in flight; the moments."""
    moments = []
    while len(moments) < options.kills:
        await until(provider.is_busy, START_SECONDS_MAX)
        await asyncio.sleep(chance.uniform(0, options.between))
        if chance.random() < options.front_share:
            moments.append(time.monotonic())
            await front.kill()
            await front.start()
        elif workers := front.workers():
            moments.append(time.monotonic())
            os.kill(chance.choice(workers), signal.SIGKILL)
    return moments


def summary(
    documents: list[Any], paid: list[Paid], kills: list[float], slack: float
) -> dict[str, Any]:
    """What is printed: counts, and which of them break a promise."""
    by_prompt: dict[str, list[Paid]] = {}
    for call in sorted(paid, key=lambda one: one.began):
        by_prompt.setdefault(call.prompt, []).append(call)
    excused = repeated = 0
    for calls in by_prompt.values():
        for call in calls[:-1]:
            repeated += 1
            excused += any(call.began - slack <= moment <= call.ended + slack for moment in kills)
    right = [
        document["status"] == "success"
        and document["result"]["output"].endswith(f"-answered-{STEPS - 1}")
        for document in documents
    ]
    needed = len(documents) * STEPS
    reasons = [document["error"]["message"] for document in documents if document["error"]]
    return {
        "runs": len(documents),
        "kills": len(kills),
        "runs_ended_right": sum(right),
        "runs_lost_and_why": sorted(set(reasons)),
        "attempts": sum(document["attempts"] for document in documents),
        "calls_needed": needed,
        "calls_paid": len(paid),
        "calls_in_flight_at_a_kill_and_repeated": excused,
        "calls_repeated_without_reason": repeated - excused,
        "holds": all(right) and repeated == excused and len(paid) == needed + excused,
    }


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    provider = Provider(options.call_seconds)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "penstock.toml").write_text(
        CONFIGURATION.format(
            here=json.dumps(str(HERE)),
            store=json.dumps(str(folder / "store")),
            port=port,
            provider=await provider.start(),
            workers=options.workers,
            at_once=CALLS_AT_ONCE,
        )
    )
    front = Front(folder, port)
    await front.start()
    headers = {"Authorization": f"Bearer {KEY}"}
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            await until_ready(session, front.url)
            orders = [order(session, front.url, f"run-{n}") for n in range(options.runs)]
            urls = [front.url + path for path in await asyncio.gather(*orders)]
            chance = random.Random(options.seed)  # noqa: S311 - repeatable, not secret
            kills = await kill_at_random(front, provider, chance, options)
            patience_seconds = START_SECONDS_MAX + options.runs * STEPS
            documents = await until(lambda: all_ended(session, urls), patience_seconds)
    finally:
        await front.kill()
    return summary(documents, provider.paid, kills, options.slack)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--call-seconds", type=float, default=1.0)
    parser.add_argument("--between", type=float, default=2.0, help="longest wait before a kill")
    parser.add_argument("--front-share", type=float, default=0.3)
    parser.add_argument("--slack", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(options, Path(folder)))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name.replace('_', ' '):45}{value}")
    return 0 if figures["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
