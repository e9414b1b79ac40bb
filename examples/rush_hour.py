"""Rush hour: a nightly batch at five times a provider's limit, and people who want answers.

    ./dev run python examples/rush_hour.py [--seconds N] [--json]

The same load runs twice against a sandbox provider that allows 600 requests a minute: once with
the plain OpenAI SDK, its own retries, straight to the provider; once through Penstock. Each time
one tenant's batch offers 50 calls a second, five times the limit; beside it people make single
calls (2 a second) and three-step chains (one every 3 s, its calls one after the other). Printed
is what the people got, and what the provider saw. "Use of the limit" is what was admitted, of
what could have been: the burst that the provider's bucket held at first, plus its refill, less
what is still in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2  # what the OpenAI SDK speaks with
import openai

RPM = 600
BURST_SECONDS = 10
SEED = 1
CALL = {"model": "sandbox", "messages": [{"role": "user", "content": "Say it in 12 words."}]}

CONFIG = """
[workers]
count = 0
[providers.sandbox]
kind = "openai"
base_url = "{url}/v1"
key_env = "RUSH_HOUR_PROVIDER_KEY"
[deployments.sandbox]
provider = "sandbox"
rpm = {rpm}
[keys.web]
tenant = "web"
class = "interactive"
key_env = "RUSH_HOUR_WEB_KEY"
[keys.nightly]
tenant = "nightly"
class = "batch"
ceiling = "batch"
key_env = "RUSH_HOUR_NIGHTLY_KEY"
"""
KEYS = {
    "RUSH_HOUR_PROVIDER_KEY": "provider-key-of-the-rush-hour",
    "RUSH_HOUR_WEB_KEY": "web-key-of-the-rush-hour-example",
    "RUSH_HOUR_NIGHTLY_KEY": "nightly-key-of-the-rush-hour-example",
}


@dataclass
class People:
    """What the interactive callers met with: seconds of each call that was answered."""

    answered: list[float] = field(default_factory=list)
    failed: int = 0
    chains_answered: list[float] = field(default_factory=list)
    chains_failed: int = 0
    began: float = field(default_factory=time.monotonic)


async def single(client: openai.AsyncOpenAI, people: People) -> None:
    began = time.monotonic()
    try:
        await client.chat.completions.create(**CALL)
    except openai.OpenAIError:
        people.failed += 1
    else:
        people.answered.append(time.monotonic() - began)


async def chain(client: openai.AsyncOpenAI, people: People) -> None:
    began = time.monotonic()
    try:
        for _ in range(3):
            await client.chat.completions.create(**CALL)
    except openai.OpenAIError:
        people.chains_failed += 1
    else:
        people.chains_answered.append(time.monotonic() - began)


async def batch(client: openai.AsyncOpenAI) -> None:
    # A batch that fails is the nightly job's own trouble; the provider's statistics count it.
    try:
        await client.chat.completions.create(**CALL)
    except openai.OpenAIError:
        return


async def arrivals(
    rate: float, seconds: float, chance: random.Random, start: Callable[[], object]
) -> None:
    """Poisson arrivals, ``rate`` a second."""
    next_at = time.monotonic()
    ends_at = next_at + seconds
    while (next_at := next_at + chance.expovariate(rate)) < ends_at:
        await asyncio.sleep(next_at - time.monotonic())
        start()


async def rush_hour(web_key: str, nightly_key: str, base_url: str, seconds: float) -> People:
    """Offer the load for so many seconds, then let the people have their last answers."""
    people = People()
    web = openai.AsyncOpenAI(api_key=web_key, base_url=base_url)
    unlimited = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
    nightly = openai.AsyncOpenAI(
        api_key=nightly_key,
        base_url=base_url,
        http_client=openai.DefaultAsyncHttpxClient(limits=unlimited),
    )
    chances = [random.Random(SEED + number) for number in range(3)]
    batches: list[asyncio.Task[None]] = []

    def offer_batch() -> None:
        batches.append(asyncio.create_task(batch(nightly)))

    async with web, nightly:
        async with asyncio.TaskGroup() as group:
            for rate, chance, start in (
                (
                    RPM / 60 * 5,
                    chances[0],
                    lambda: batches.append(asyncio.create_task(batch(nightly))),
                ),
                (2.0, chances[1], lambda: group.create_task(single(web, people))),
                (1 / 3, chances[2], lambda: group.create_task(chain(web, people))),
            ):
                group.create_task(arrivals(rate, seconds, chance, start))
        for task in batches:
            task.cancel()
        await asyncio.gather(*batches, return_exceptions=True)
    return people


@asynccontextmanager
async def started(*arguments: str, pattern: str) -> AsyncIterator[str]:
    """A penstock command in a process of its own; the URL that it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", **KEYS},
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        found = re.search(pattern, line)
        if found is None:
            raise SystemExit(f"penstock {arguments[0]} did not start: {line!r}")
        yield found[0]
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def sandbox() -> AsyncIterator[str]:
    limits = ["--rpm", str(RPM), "--burst-seconds", str(BURST_SECONDS)]
    arguments = ["sandbox", "--port", "0", *limits, "--latency-ms", "200"]
    async with started(*arguments, pattern=r"http://[\d.]+:\d+") as url:
        yield url


async def straight(seconds: float) -> dict[str, object]:
    """The load with plain SDKs, straight to the provider."""
    async with sandbox() as url:
        people = await rush_hour("web", "nightly", f"{url}/v1", seconds)
        return report(people, stats(url))


async def through_penstock(seconds: float) -> dict[str, object]:
    """The same load with the same SDKs through Penstock."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "penstock.toml"
        async with sandbox() as url:
            file.write_text(CONFIG.format(url=url, rpm=RPM))
            arguments = ["serve", "--config", str(file), "--port", "0"]
            async with started(*arguments, pattern=r"http://[\d.]+:\d+") as service:
                keys = KEYS["RUSH_HOUR_WEB_KEY"], KEYS["RUSH_HOUR_NIGHTLY_KEY"]
                people = await rush_hour(*keys, f"{service}/v1", seconds)
                return report(people, stats(url))


def stats(url: str) -> dict[str, object]:
    with urllib.request.urlopen(f"{url}/stats", timeout=10) as answer:
        return json.load(answer)


def percentile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None


def report(people: People, provider: dict) -> dict[str, object]:
    statuses = provider["by_status"]
    admitted = provider["by_answer"]["success"] + provider["by_answer"]["cancelled"]
    left = next(limit["remaining"] for limit in provider["pools"][0]["limits"])
    reachable = RPM / 60 * (time.monotonic() - people.began + BURST_SECONDS) - left
    calls = len(people.answered) + people.failed
    chains = len(people.chains_answered) + people.chains_failed
    return {
        "interactive_calls": calls,
        "interactive_success": round(len(people.answered) / max(1, calls), 4),
        "interactive_seconds": {
            name: percentile(people.answered, share)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
        "chains": chains,
        "chain_success": round(len(people.chains_answered) / max(1, chains), 4),
        "chain_seconds": {
            name: percentile(people.chains_answered, share)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
        "limit_use": round(admitted / reachable, 4),
        "answers_429": statuses.get("429", 0),
    }


def print_table(results: dict[str, dict]) -> None:
    rows = [
        ("interactive calls answered", lambda r: f"{r['interactive_success']:.1%}"),
        ("  p50 / p95 / p99 seconds", lambda r: _three(r["interactive_seconds"])),
        ("three-step chains finished", lambda r: f"{r['chain_success']:.1%}"),
        ("  p50 / p95 / p99 seconds", lambda r: _three(r["chain_seconds"])),
        ("use of the limit", lambda r: f"{r['limit_use']:.1%}"),
        ("429s from the provider", lambda r: str(r["answers_429"])),
    ]
    print(f"{'':30}{'SDK retries':>22}{'through Penstock':>22}")
    for title, text in rows:
        print(f"{title:30}{text(results['straight']):>22}{text(results['penstock']):>22}")


def _three(values: dict) -> str:
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long each load is offered")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()

    async def both() -> dict[str, dict]:
        return {
            "straight": await straight(options.seconds),
            "penstock": await through_penstock(options.seconds),
        }

    results = asyncio.run(both())
    if options.json:
        print(json.dumps({"version": 1, "seconds": options.seconds, **results}))
    else:
        print_table(results)


if __name__ == "__main__":
    main()
