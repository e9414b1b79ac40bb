"""What people notice of a batch, and what a batch notices of a kill.

    ./dev run python benchmarks/batch_beside_people.py [--lines 10000] [--json]

``penstock serve`` and a sandbox that enforces a limit, each a process of its own. People make
interactive calls at a steady rate: alone, then beside a batch that the OpenAI SDK uploads and
creates, and that could use the whole limit for minutes, then alone again. When half of it is
answered the people pause, the service is killed with SIGKILL and started again, and both go on.
It is checked, and printed, that

- every line is answered once: the custom_ids of output and error file are those of the input;
- finished lines are not repeated: calls that the sandbox admitted = lines + people's calls +
  lines that were in flight at the kill (asked, and not on the disk when the service was gone);
- people wait for their grants as if they were alone: of 99 in 100 (``wait``, as the service
  tells it in ``penstock-wait-ms``) at most 0.25 s longer.

``whole`` is a call from its first byte to its last, at the client. Memory is what the service's
own process holds. The exit code is 0 when all three hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import openai

BEYOND_SECONDS_MAX = 0.25
START_SECONDS_MAX = 120.0
POLL_SECONDS = 0.25
QUIET_SECONDS = 1.0
"""After a kill: what the sandbox was asked has ended by then."""
CONFIGURATION = """
[server]
port = {port}
[store]
path = {store}
[providers.sandbox]
kind = "openai"
base_url = "{sandbox}/v1"
key_env = "BENCHMARK_KEY"
[deployments.m]
provider = "sandbox"
model = "sandbox"
serves = ["m"]
rpm = {rpm}
tpm = 10000000
burst_seconds = {burst}
[keys.people]
tenant = "people"
key_env = "BENCHMARK_KEY"
class = "interactive"
"""
KEY = "benchmark-key"
CALL = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "a"}]}


class Call(NamedTuple):
    """One call of a person, in seconds."""

    wait: float
    whole: float


class Front:
    """The service, killed and started again on the same port and store."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.peak_mb = 0.0
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, http: aiohttp.ClientSession) -> None:
        """Start it, and wait until it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "penstock", "serve"),
            *("--config", str(self._folder / "penstock.toml"), "--log-level", "error"),
            stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "BENCHMARK_KEY": KEY},
        )
        async with asyncio.timeout(START_SECONDS_MAX):
            while True:
                try:
                    async with http.get(self.url + "/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """SIGKILL."""
        self.resident_mb()
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def resident_mb(self) -> float:
        """What it holds now."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        now, peak = (
            int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) / 1e3 for name in ("VmRSS", "VmHWM")
        )
        self.peak_mb = max(self.peak_mb, peak)
        return round(now, 1)


class People:
    """Make a call every so often, however long each takes."""

    def __init__(self, http: aiohttp.ClientSession, url: str, calls_a_second: float) -> None:
        self.count = 0
        self._http = http
        self._url = url + "/v1/chat/completions"
        self._between_seconds = 1 / calls_a_second

    @asynccontextmanager
    async def calling(self, calls: list[Call]) -> AsyncIterator[None]:
        """They call while this is open; at its end every call has ended."""
        over = asyncio.Event()
        going = asyncio.create_task(self._go(over, calls))
        try:
            yield
        finally:
            over.set()
            await going

    async def _go(self, over: asyncio.Event, calls: list[Call]) -> None:
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                group.create_task(self._call(calls))
                await asyncio.sleep(self._between_seconds)

    async def _call(self, calls: list[Call]) -> None:
        began = time.perf_counter()
        self.count += 1
        async with self._http.post(self._url, json=CALL) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise RuntimeError(f"a person was answered {answer.status}: {text[:300]}")
        wait = int(answer.headers["penstock-wait-ms"]) / 1000
        calls.append(Call(wait, time.perf_counter() - began))


class Watch:
    """One batch, from its upload to its end, and the sandbox's view of it."""

    def __init__(
        self, folder: Path, front: Front, http: aiohttp.ClientSession, sandbox: str
    ) -> None:
        self._folder = folder
        self._front = front
        self._http = http
        self._sandbox = sandbox
        self._client = openai.AsyncOpenAI(
            api_key=KEY, base_url=front.url + "/v1", max_retries=0, timeout=60
        )
        self._batch_id = ""

    async def begin(self, ids: list[str]) -> None:
        """Upload a file with one line for each id, and have it run."""
        path = self._folder / "in.jsonl"
        with path.open("w") as file:
            for custom_id in ids:
                line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions"}
                file.write(json.dumps({**line, "body": CALL}) + "\n")
        file_id = (await self._client.files.create(file=path, purpose="batch")).id
        batch = await self._client.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        self._batch_id = batch.id

    async def until(self, lines: int) -> Any:
        """The batch, once so many lines are answered or it has ended."""
        while True:
            batch = await self._client.batches.retrieve(self._batch_id)
            self._front.resident_mb()
            is_open = batch.status in ("validating", "in_progress", "finalizing")
            counts = batch.request_counts
            if not is_open or (counts and counts.completed + counts.failed >= lines):
                return batch
            await asyncio.sleep(POLL_SECONDS)

    async def admitted(self) -> int:
        """How many calls the sandbox has let through its limits, once all have ended."""
        before = -1
        while True:
            async with self._http.get(self._sandbox + "/stats") as answer:
                models = (await answer.json())["by_model"]
            count = int(models["sandbox"]["admitted"]) if models else 0
            if count == before:
                return count
            before = count
            await asyncio.sleep(QUIET_SECONDS)

    def on_disk(self) -> int:
        """How many lines the service had written the answers of."""
        count = 0
        for path in (self._folder / "store" / "files").iterdir():
            whole, _, _ = path.read_bytes().rpartition(b"\n")
            count += sum(line.startswith(b'{"id":"batch_req_') for line in whole.split(b"\n"))
        return count

    async def answered(self, batch: Any) -> Counter[str]:
        """How often each custom_id stands in output and error file."""
        found: Counter[str] = Counter()
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                content = (await self._client.files.content(file_id)).read()
                found.update(json.loads(line)["custom_id"] for line in content.splitlines())
        return found


@asynccontextmanager
async def sandbox_of(options: argparse.Namespace) -> AsyncIterator[str]:
    """A sandbox with the limit; its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock", "sandbox", "--port", "0", "--exit-with-parent"),
        *("--rpm", str(options.rpm), "--burst-seconds", str(options.burst_seconds)),
        *("--latency-ms", "300", "--tokens-per-second", "0"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        found = re.search(rb"http://[\d.]+:\d+", await process.stdout.readline())
        assert found is not None, "the sandbox did not start"
        yield found[0].decode()
    finally:
        process.kill()
        await process.wait()


async def measure(options: argparse.Namespace, folder: Path, sandbox: str) -> dict[str, Any]:
    """Everything that is printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "penstock.toml").write_text(
        CONFIGURATION.format(
            port=port,
            store=json.dumps(str(folder / "store")),
            sandbox=sandbox,
            rpm=options.rpm,
            burst=options.burst_seconds,
        )
    )
    front = Front(folder, port)
    headers = {"Authorization": f"Bearer {KEY}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:
        try:
            await front.start(http)
            return await _measured(options, front, http, Watch(folder, front, http, sandbox))
        finally:
            await front.kill()


async def _measured(
    options: argparse.Namespace, front: Front, http: aiohttp.ClientSession, watch: Watch
) -> dict[str, Any]:
    people = People(http, front.url, options.calls_a_second)
    alone: list[Call] = []
    beside: list[Call] = []
    async with people.calling(alone):
        await asyncio.sleep(options.alone_seconds / 2)
    memory = {"before": front.resident_mb()}
    ids = [f"line-{number}" for number in range(options.lines)]
    await watch.begin(ids)
    began = time.monotonic()
    async with people.calling(beside):
        await watch.until(options.lines // 2)
    memory["at the kill"] = front.resident_mb()
    await front.kill()
    written = watch.on_disk()
    in_flight = await watch.admitted() - people.count - written
    await front.start(http)
    async with people.calling(beside):
        batch = await watch.until(options.lines + 1)
    seconds = time.monotonic() - began
    memory |= {"at the end": front.resident_mb(), "highest": round(front.peak_mb, 1)}
    found = await watch.answered(batch)
    repeated = await watch.admitted() - people.count - options.lines
    async with people.calling(alone):
        await asyncio.sleep(options.alone_seconds / 2)
    waits = {"alone": figures(alone), "beside": figures(beside)}
    longer = waits["beside"]["wait_p99"] - waits["alone"]["wait_p99"]
    is_once = found == Counter(ids)
    return {
        "lines": options.lines,
        "status": batch.status,
        "seconds": round(seconds, 1),
        "lines_answered_once": sum(count == 1 for count in found.values()),
        "lines_answered_more_than_once": sum(count > 1 for count in found.values()),
        "lines_failed": batch.request_counts.failed,
        "lines_on_disk_at_the_kill": written,
        "lines_in_flight_at_the_kill": in_flight,
        "lines_repeated": repeated,
        "people_alone_seconds": waits["alone"],
        "people_beside_seconds": waits["beside"],
        "front_mb": memory,
        "holds": is_once and repeated == in_flight and longer <= BEYOND_SECONDS_MAX,
    }


def figures(calls: list[Call]) -> dict[str, float]:
    """Median and 99th percentile of so many calls."""
    told: dict[str, float] = {"calls": len(calls)}
    for name in Call._fields:
        cuts = statistics.quantiles((getattr(call, name) for call in calls), n=100)
        told |= {f"{name}_p50": round(cuts[49], 3), f"{name}_p99": round(cuts[98], 3)}
    return told


async def work(options: argparse.Namespace) -> dict[str, Any]:
    """Start what is needed, measure, and leave nothing."""
    with tempfile.TemporaryDirectory() as folder:
        async with sandbox_of(options) as sandbox:
            return await measure(options, Path(folder), sandbox)


def main() -> int:
    """Measure and print; 0 where everything holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--rpm", type=float, default=4_800.0, help="the sandbox's limit")
    parser.add_argument("--burst-seconds", type=float, default=2.0)
    parser.add_argument("--calls-a-second", type=float, default=5.0, help="of people")
    parser.add_argument("--alone-seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told = asyncio.run(work(options))
    if options.json:
        print(json.dumps(told))
    else:
        for name, value in told.items():
            print(f"{name.replace('_', ' '):32}{value}")
    return 0 if told["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
