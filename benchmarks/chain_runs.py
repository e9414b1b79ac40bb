"""What a run waits for besides its LLM calls: other people's runs. And whether runs leave memory.

    ./dev run python benchmarks/chain_runs.py wait [--json]
    ./dev run python benchmarks/chain_runs.py memory [--runs 20000] [--json]

``wait``: twenty, then sixty background runs of two seconds are kept in flight in class batch, on
two workers of ten places each, so that sixty are three times what fits. Beside them one
interactive run after the other, and what each takes beyond the median on the idle server. Twice:
with a chain that blocks its thread, and with one that makes one LLM call, through the gateway to
a sandbox that takes two seconds. And each of them through both doors: ``invoke`` of LangServe,
and the Agent Server protocol, where every run is stored before it is started. The exit code is 0
where no median is over 0.2 s.

``memory``: so many runs, whole and streamed in turn, of two chains, twenty at once; the resident
memory of the front and of the workers after each tenth of them.

Everything runs in processes of its own over loopback, as a user starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent / "chain_runs"
BACKGROUND_RUNS = (20, 60)
BACKGROUND_SECONDS = 2.0
INTERACTIVE_RUNS = 8
BEYOND_SECONDS_MAX = 0.2
AGENT_SERVER = "/runs/wait"
CONCURRENCY = 20
SAMPLES = 10
CONFIG = """
path = ["{path}"]

[store]
path = "{store}"

[workers]
count = 2
runs_max = {runs_max}

[providers.sandbox]
kind = "openai"
base_url = "{sandbox}/v1"
key_env = "SANDBOX_KEY"

[deployments.m]
provider = "sandbox"
model = "sandbox"
serves = ["m"]
rpm = 60000
tpm = 10000000
burst_seconds = 60

[chains.nap]
import = "naps:nap"

[chains.ask]
import = "naps:ask"
"""


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[tuple[int, str]]:
    """A penstock command in a process of its own: its process id and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "SANDBOX_KEY": "any"},
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        if found is None:
            sys.exit(f"penstock {arguments[0]} did not start")
        yield process.pid, found[0]
    finally:
        process.terminate()
        process.wait(60)


@contextlib.asynccontextmanager
async def service(latency_ms: int, runs_max: int) -> AsyncIterator[tuple[int, Client]]:
    """A service on a sandbox, ready: the front's process id, and a client."""
    limits = ("--rpm", "60000", "--tpm", "10000000", "--burst-seconds", "60")
    speed = ("--latency-ms", str(latency_ms), "--tokens-per-second", "0")
    with (
        tempfile.TemporaryDirectory() as directory,
        command("sandbox", "--port", "0", *speed, *limits) as (_, sandbox),
    ):
        file = Path(directory) / "penstock.toml"
        toml = CONFIG.format(path=HERE, store=directory, sandbox=sandbox, runs_max=runs_max)
        file.write_text(toml)
        with command("serve", "--config", str(file), "--port", "0", "--log-level", "error") as (
            pid,
            url,
        ):
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(url, connector=connector) as http:
                await _ready(http)
                yield pid, Client(http)


async def _ready(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(120):
        while True:
            async with http.get("/readyz") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.1)


class Client:
    """Runs chains; each run must succeed."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def run(self, chain: str, value: Any, urgency: int, endpoint: str = "invoke") -> float:
        """How many seconds it took."""
        began = time.perf_counter()
        headers = {"authorization": "Bearer dev", "priority": f"u={urgency}"}
        path, body = f"/chains/{chain}/{endpoint}", {"input": value}
        if endpoint == AGENT_SERVER:
            path, body = endpoint, {**body, "assistant_id": chain, "on_disconnect": "cancel"}
        async with self._http.post(path, json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 200 or "event: error" in text or "__error__" in text:
                raise RuntimeError(f"{path} answered {answer.status}: {text[:300]}")
        return time.perf_counter() - began


async def measure_wait() -> list[dict[str, Any]]:
    """One line for each chain and number of background runs."""
    lines = []
    async with service(latency_ms=round(BACKGROUND_SECONDS * 1000), runs_max=10) as (_, client):
        for door, chain, long, short in (
            (door, *chain)
            for door in ("invoke", AGENT_SERVER)
            for chain in (
                ("nap", BACKGROUND_SECONDS, 0.05),
                ("ask", {"topic": "a river"}, {"topic": "a river"}),
            )
        ):
            await client.run(chain, short, 0, door)
            idle = [await client.run(chain, short, 0, door) for _ in range(INTERACTIVE_RUNS)]
            for count in BACKGROUND_RUNS:
                busy = await _beside(client, door, chain, (long, short), count)
                base = statistics.median(idle)
                lines.append(
                    {
                        "door": door,
                        "chain": chain,
                        "background_runs": count,
                        "idle_median_seconds": round(base, 3),
                        "beyond_median_seconds": round(statistics.median(busy) - base, 3),
                        "beyond_longest_seconds": round(max(busy) - base, 3),
                    }
                )
    return lines


async def _beside(
    client: Client, door: str, chain: str, inputs: tuple[Any, Any], count: int
) -> list[float]:
    """The seconds of interactive runs while ``count`` background runs are kept in flight."""

    long, short = inputs

    async def again_and_again() -> None:
        while True:
            await client.run(chain, long, 7, door)

    tasks = [asyncio.create_task(again_and_again()) for _ in range(count)]
    try:
        # By then all have been asked for, and the first have ended and been followed by others.
        await asyncio.sleep(BACKGROUND_SECONDS * 1.5)
        return [await client.run(chain, short, 0, door) for _ in range(INTERACTIVE_RUNS)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure_memory(runs: int) -> list[dict[str, Any]]:
    """One line for each tenth of the runs."""
    lines = []
    async with service(latency_ms=0, runs_max=100) as (pid, client):
        for sample in range(SAMPLES + 1):
            if sample > 0:
                await _many(client, runs // SAMPLES)
            workers = [_resident_mb(each) for each in _children(pid)]
            lines.append(
                {
                    "runs": sample * (runs // SAMPLES),
                    "front_mb": _resident_mb(pid),
                    "workers_mb": sorted(workers),
                }
            )
    return lines


async def _many(client: Client, runs: int) -> None:
    kinds = [
        (chain, value, endpoint)
        for chain, value in (("nap", 0.0), ("ask", {"topic": "a river"}))
        for endpoint in ("invoke", "stream")
    ]
    numbers = iter(range(runs))

    async def work() -> None:
        for number in numbers:
            chain, value, endpoint = kinds[number % len(kinds)]
            await client.run(chain, value, urgency=0, endpoint=endpoint)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def _children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def main() -> int:
    """Measure and print; 1 where an interactive run waits for longer than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["wait", "memory"])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.what == "wait":
        lines = asyncio.run(measure_wait())
        good = all(line["beyond_median_seconds"] <= BEYOND_SECONDS_MAX for line in lines)
    else:
        lines = asyncio.run(measure_memory(options.runs))
        good = True
    if options.json:
        print(json.dumps(lines))
        return 0 if good else 1
    names = list(lines[0])
    print("  ".join(names))
    for line in lines:
        print("  ".join(str(line[name]).rjust(len(name)) for name in names))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
