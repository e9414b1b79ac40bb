"""Whether the ledger and the provider agree after callers hung up and the provider failed.

    ./dev run python benchmarks/ledger_reconciles.py [--calls 10000] [--seed 0] [--json]

Calls of every endpoint (chat, responses, messages; plain and streamed; embeddings) go through a
service to the sandbox, which fails some of them in every way that it knows to be passing. The
callers wait for the end, or hang up in the queue, after the head, in the midst of the answer.
Every call is told from all others by the provider, too: no two of one endpoint and model have
prompts of one length. So the provider's records and the ledger's rows are compared one by one:

- *whole*: the caller got all of it. Both sides hold the same tokens, exactly.
- *cut off*: the caller hung up, or the provider broke off, after the call was sent. The provider
  counts what it produced; the ledger holds the prompt and what had passed here, so never more
  output than was produced. What was produced and had not arrived nobody here can know. Where no
  answer had begun, the prompt counts as it was estimated.
- *uncounted*: the caller got all of it, and the provider said nothing of its usage. The ledger
  holds what was estimated, or seen.
- *failed*: the provider refused it or failed before there was an answer. The ledger holds nothing.
- *never sent*: the caller hung up in the queue. The ledger holds nothing, and neither does the
  provider, but for earlier attempts that it failed.

Also printed: how late a hang-up ended the wait (the row's times against the caller's), and the
provider's work (its record's). At the end nothing may wait, be in flight or be reserved.

The exit code is 0 when all of it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

KEY = "benchmark-key-with-letters"
CALLERS = 100
MODELS = 8
LENGTH_MIN = 8
WORDS = 12
SETTLE_SECONDS_MAX = 30.0
FAULTS = (
    "429", "500", "529", "reset-before", "reset-mid-stream", "close-mid-stream", "malformed-sse",
    "truncated-json", "html", "empty", "error-mid-stream", "huge-line", "bad-gzip", "no-usage",
    "stall", "stall-mid-stream",
)  # fmt: skip
FAULT_RATE = 0.004
CONFIGURATION = """
[store]
path = {store}
[workers]
count = 0
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
key_env = "BENCHMARK_KEY"
first_byte_timeout_seconds = 1
idle_timeout_seconds = 1
[providers.anthropic]
kind = "anthropic"
base_url = "{url}"
key_env = "BENCHMARK_KEY"
first_byte_timeout_seconds = 1
idle_timeout_seconds = 1
[keys.benchmark]
tenant = "benchmark"
admin = true
key_env = "BENCHMARK_KEY"
"""
DEPLOYMENT = """
[deployments.{provider}-{model}]
provider = "{provider}"
model = "{model}"
concurrency = 3
price_input = 1
price_output = 2
"""


class Kind(NamedTuple):
    """An endpoint, plain or streamed."""

    path: str
    stream: bool


KINDS = (
    Kind("/v1/chat/completions", stream=False),
    Kind("/v1/chat/completions", stream=True),
    Kind("/v1/responses", stream=False),
    Kind("/v1/responses", stream=True),
    Kind("/v1/messages", stream=False),
    Kind("/v1/messages", stream=True),
    Kind("/v1/embeddings", stream=False),
)


class Identity(NamedTuple):
    """What tells a call from all others on both sides."""

    kind: Kind
    model: str
    tokens_input: int


def all_identities(count: int) -> dict[str, Identity]:
    """So many calls, evenly over kinds and models; by the request id that each is sent with."""
    identities = {}
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        rest = number // len(KINDS)
        model, length = f"m{rest % MODELS}", LENGTH_MIN + rest // MODELS
        identities[f"call-{number}"] = Identity(kind, model, length)
    return identities


def request(name: str, identity: Identity) -> bytes:
    """One call's bytes: the sandbox counts a token for every four bytes of text."""
    kind, model, tokens = identity
    text = f"Say it in {WORDS} words.".ljust(4 * tokens, "x")[: 4 * tokens]
    body: dict[str, Any] = {"model": model}
    if kind.path.endswith("embeddings"):
        body |= {"input": text, "dimensions": 64}
    elif kind.path.endswith("responses"):
        body |= {"input": text, "max_output_tokens": 40, "stream": kind.stream}
    else:
        messages = [{"role": "user", "content": text}]
        body |= {"messages": messages, "max_tokens": 40, "stream": kind.stream}
    sent = json.dumps(body).encode()
    head = f"POST {kind.path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n"
    head += f"x-request-id: {name}\r\ncontent-length: {len(sent)}\r\n\r\n"
    return head.encode() + sent


class Callers:
    """Makes the calls. ``hung_up`` and ``ended`` say when and how, by name, in Unix time."""

    def __init__(self, port: int, seed: int) -> None:
        self.hung_up: dict[str, float] = {}
        self.ended: dict[str, int] = {}
        self.ways: Counter[str] = Counter()
        self._port = port
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._room = asyncio.Semaphore(CALLERS)

    async def call_all(self, identities: dict[str, Identity]) -> None:
        """All of them, in a random order, so many at once."""
        names = list(identities)
        self._chance.shuffle(names)
        async with asyncio.TaskGroup() as group:
            for name in names:
                await self._room.acquire()
                group.create_task(self._call(name, identities[name]))

    async def _call(self, name: str, identity: Identity) -> None:
        way = self._chance.choice(["waits", "head", "piece", "end", "end", "end", "end"])
        seconds, count = self._chance.random() * 0.1, self._chance.randrange(1, 2_000)
        self.ways[way] += 1
        try:
            async with asyncio.timeout(90):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(request(name, identity))
                if way == "waits":
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(seconds):
                            await reader.read(1)
                else:
                    await self._read(reader, way, count, name)
                if way != "end":
                    # At once: `abort` closes in the next turn of this loop, which may be late.
                    writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                    self.hung_up[name] = time.time()
                writer.transport.abort()
        finally:
            self._room.release()

    async def _read(self, reader: asyncio.StreamReader, way: str, count: int, name: str) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if way == "piece":
            await reader.read(count)
        if way != "end":
            return
        length = re.search(rb"content-length: (\d+)", head)
        if length is not None:
            await reader.readexactly(int(length[1]))
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        self.ended[name] = int(head.split(b" ")[1])


@contextmanager
def running(*arguments: str) -> Iterator[str]:
    """A command of this project; gives where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"BENCHMARK_KEY": KEY},
    )
    said = process.stdout
    assert said is not None
    try:
        found = re.search(rb"http://[\d.]+:\d+", said.readline())
        assert found, arguments
        yield found[0].decode()
    finally:
        process.terminate()
        process.wait(30)
        said.close()


def seen(url: str) -> Any:
    """A JSON document of either side."""
    asked = urllib.request.Request(url, headers={"x-api-key": KEY})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def is_idle(service: str, sandbox: str) -> bool:
    """Whether nothing waits, is in flight or is reserved, on either side."""
    live = seen(f"{service}/admin/live")
    slots = [
        limit["level"] == limit["capacity"]
        for one in live["deployments"]
        for limit in one["limits"]
        if limit["name"] == "concurrency"
    ]
    return (
        live["totals"]["waiting"] == live["totals"]["in_flight"] == 0
        and all(slots)
        and len(slots) >= MODELS
        and seen(f"{sandbox}/stats")["in_flight"] == 0
    )


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it came true within the time for that."""
    ends_at = time.monotonic() + SETTLE_SECONDS_MAX
    while not (holds := condition()) and time.monotonic() < ends_at:
        time.sleep(0.1)
    return holds


def rows_of(store: Path) -> dict[str, dict[str, Any]]:
    """The ledger, by request id; each may stand there once only."""
    connection = sqlite3.connect(store / "penstock.db")
    connection.row_factory = sqlite3.Row
    try:
        rows = [dict(row) for row in connection.execute("SELECT * FROM calls")]
    finally:
        connection.close()
    by_name = {row["request_id"]: row for row in rows}
    assert len(by_name) == len(rows), "a call stands in the ledger twice"
    return by_name


class Sums(msgspec.Struct):
    """Tokens of one group of calls, on both sides."""

    calls: int = 0
    provider_input: int = 0
    ledger_input: int = 0
    provider_output: int = 0
    ledger_output: int = 0


class Findings(msgspec.Struct):
    """What came of the comparison."""

    groups: dict[str, Sums] = {}
    wrong: list[str] = []
    wait_ended_ms: list[float] = []
    upstream_ended_ms: list[float] = []


def group_of(row: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """In which of the module's groups a call belongs."""
    if row["outcome"] == "success":
        # Such an answer says nothing of its usage: both sides have counted for themselves.
        return "uncounted" if records[-1]["fault"] == "no-usage" else "whole"
    if row["outcome"] == "cancelled_sent" or row["tokens_input"]:
        return "cut off"
    return "never sent" if row["outcome"] == "cancelled_waiting" else "failed"


def compare(
    rows: dict[str, dict[str, Any]],
    records: dict[Identity, list[dict[str, Any]]],
    identities: dict[str, Identity],
    callers: Callers,
) -> Findings:
    """Go through the calls, one by one."""
    found = Findings(groups=defaultdict(Sums))
    for name, identity in identities.items():
        row, attempts = rows.get(name), records.get(identity, [])
        if row is None:  # hung up before the service had read it
            if attempts or name in callers.ended:
                found.wrong.append(f"{name}: no row, but the provider or the caller has seen it")
            continue
        group = group_of(row, attempts)
        last = attempts[-1] if attempts else {"tokens_input": 0, "tokens_output": 0}
        sums = found.groups[group]
        sums.calls += 1
        sums.ledger_input += row["tokens_input"]
        sums.ledger_output += row["tokens_output"]
        if group in ("whole", "uncounted", "cut off"):
            sums.provider_input += last["tokens_input"]
            sums.provider_output += last["tokens_output"]
        problem = problem_of(group, row, attempts, last)
        if problem:
            found.wrong.append(f"{name} {identity}: {problem}: {row} {attempts}")
        note_lateness(found, row, attempts, callers.hung_up.get(name))
    return found


def problem_of(
    group: str, row: dict[str, Any], attempts: list[dict[str, Any]], last: dict[str, Any]
) -> str:
    """What does not agree; empty where all does."""
    whole = sum(one["answer"] == "success" for one in attempts)
    same = all(row[name] == last[name] for name in ("tokens_input", "tokens_output"))
    is_free = row["tokens_input"] == row["tokens_output"] == 0
    price = 1_000 * row["tokens_input"] + 2_000 * row["tokens_output"]
    problems = {
        "answered twice": whole > 1,
        "another price": row["nano_dollars"] != price,
        "other tokens": group == "whole" and not (same and whole),
        "the prompt does not count": group in ("uncounted", "cut off") and not row["tokens_input"],
        "more than was produced": group == "cut off" and row["tokens_output"] > most(last),
        "charged, or answered": group in ("failed", "never sent") and not (is_free and not whole),
    }
    return ", ".join(name for name, is_so in problems.items() if is_so)


def most(record: dict[str, Any]) -> int:
    """The most that a reader may take for output: pieces count as one token at least."""
    return max(int(record["tokens_output"]), WORDS)


def note_lateness(
    found: Findings, row: dict[str, Any], attempts: list[dict[str, Any]], hung_up: float | None
) -> None:
    """How long after a hang-up the wait, or the provider's work, had ended.

    From the later of the hang-up and the call's arrival: before, there was nothing to end.
    """
    if hung_up is None:
        return
    if row["outcome"] == "cancelled_waiting":
        left_at = row["arrived_at"] + row["wait_seconds"] + row["upstream_seconds"]
        found.wait_ended_ms.append(1000 * (left_at - max(hung_up, row["arrived_at"])))
    if attempts and attempts[-1]["answer"] == "cancelled":
        stopped_at = attempts[-1]["at"] + attempts[-1]["duration_seconds"]
        found.upstream_ended_ms.append(1000 * (stopped_at - max(hung_up, attempts[-1]["at"])))


def measured(calls: int, seed: int, directory: Path) -> dict[str, Any]:
    """Run it all."""
    faults = [part for name in FAULTS for part in ("--fault", f"{name}:{FAULT_RATE}")]
    models = [part for number in range(MODELS) for part in ("--model", f"m{number}")]
    pace = ["--latency-ms", "5", "--tokens-per-second", "200", "--seed", str(seed)]
    identities = all_identities(calls)
    with running("sandbox", "--port", "0", *pace, *models, *faults) as sandbox:
        store = directory / "state"
        text = CONFIGURATION.replace("{url}", sandbox).replace("{store}", json.dumps(str(store)))
        for number in range(MODELS):
            for provider in ("openai", "anthropic"):
                text += DEPLOYMENT.format(provider=provider, model=f"m{number}")
        (directory / "penstock.toml").write_text(text)
        options = ["--config", str(directory / "penstock.toml"), "--port", "0"]
        with running("serve", *options) as service:
            wait_until(lambda: is_idle(service, sandbox))
            began = time.monotonic()
            callers = Callers(int(service.rpartition(":")[2]), seed)
            asyncio.run(callers.call_all(identities))
            seconds = time.monotonic() - began
            idle = wait_until(lambda: is_idle(service, sandbox))
            statistics = seen(f"{sandbox}/stats?calls=50000")
        # The service has ended: every row is written.
    records: dict[Identity, list[dict[str, Any]]] = defaultdict(list)
    for record in statistics["last_calls"]:
        kind = Kind(record["path"], record["stream"])
        records[Identity(kind, record["model"], record["tokens_input"])].append(record)
    found = compare(rows_of(store), records, identities, callers)
    return {
        "calls": calls,
        "seconds": round(seconds, 1),
        "provider_calls": statistics["calls"],
        "faults": statistics["faults_injected"],
        "callers": callers.ways,
        "groups": {name: msgspec.to_builtins(one) for name, one in found.groups.items()},
        "wrong": found.wrong,
        "wait_ended_ms": quantiles(found.wait_ended_ms),
        "upstream_ended_ms": quantiles(found.upstream_ended_ms),
        "is_idle": idle,
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """How many, the middle, the ninety-ninth hundredth, the largest."""
    ordered = sorted(values) or [0.0]
    last = len(ordered) - 1
    return {
        "count": len(values),
        "p50": round(ordered[last // 2], 1),
        "p99": round(ordered[round(last * 0.99)], 1),
        "max": round(ordered[-1], 1),
    }


def show(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    print(
        f"{figures['calls']} calls in {figures['seconds']} s; callers: {dict(figures['callers'])}"
    )
    print(f"the provider was called {figures['provider_calls']} times; faults: {figures['faults']}")
    print(
        f"{'':12}{'calls':>8}{'input: provider':>18}{'ledger':>10}{'output: provider':>18}", end=""
    )
    print(f"{'ledger':>10}")
    for name, one in sorted(figures["groups"].items()):
        print(
            f"{name:12}{one['calls']:>8}{one['provider_input']:>18}{one['ledger_input']:>10}",
            end="",
        )
        print(f"{one['provider_output']:>18}{one['ledger_output']:>10}")
    print(f"a hang-up in the queue ended the wait after (ms): {figures['wait_ended_ms']}")
    print(f"a hang-up ended the provider's work after (ms): {figures['upstream_ended_ms']}")
    print(f"nothing waits, is in flight or reserved: {figures['is_idle']}")
    print(f"calls that do not agree: {len(figures['wrong'])}")
    for line in figures["wrong"][:10]:
        print(f"  {line}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = measured(options.calls, options.seed, Path(directory))
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0 if figures["is_idle"] and not figures["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
