"""Load over raw asyncio connections, cheap enough that the server is what is measured.

Usage: ``load.py SPEC``; SPEC is JSON: ``{"port", "count", "connections", "stream", "rate", "hold",
"wait", "from", "background"}``. ``rate`` (requests per second) paces arrivals evenly and
independent of answers; null sends each connection's next request after its last answer. ``hold``
opens ``count`` streams that do not end, ``wait`` sends ``count`` calls to the model that lets none
through, from the address ``from``; both print a line when all have begun, and wait for one on
standard input. ``background`` orders background responses of that model instead of plain calls.
Prints one JSON object: ``seconds``, ``answered``, ``failed``, ``latencies_ms`` (sorted).
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from typing import Any

import uvloop

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux's; Python has no name for it before 3.13."""
PROMPT = "A question of usual length, with some context before it. " * 34


def request(*, stream: bool, words: str = PROMPT, model: str = "benchmark") -> bytes:
    """One POST, with 2 kB of body unless the words are others."""
    message = {"role": "user", "content": words}
    fields = {"model": model, "messages": [message], "stream": stream}
    body = json.dumps(fields, separators=(",", ":")).encode()  # as the SDKs write it
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        "authorization: Bearer dev\r\ncontent-type: application/json\r\n"
        f"user-agent: benchmark\r\naccept: */*\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def order() -> bytes:
    """A POST of a background response, of the model that lets none through; its body has 2 kB."""
    fields = {"model": "scarce", "input": PROMPT, "background": True}
    body = json.dumps(fields, separators=(",", ":")).encode()
    head = (
        "POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        "authorization: Bearer dev\r\ncontent-type: application/json\r\n"
        f"user-agent: benchmark\r\naccept: */*\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Caller(asyncio.Protocol):
    """One connection with one request under way at a time."""

    def __init__(self) -> None:
        self.received = b""
        self.answer: asyncio.Future[bool] | None = None
        self.begun: asyncio.Future[None] | None = None
        self.body_from: int | None = None
        self.body_length: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(False)

    async def ask(self, message: bytes) -> bool:
        """Whether the whole answer came, and with status 200."""
        self.received = b""
        self.body_from = None
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return await self.answer

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.begun is not None and not self.begun.done() and b"data: " in self.received:
            self.begun.set_result(None)
        if self.body_from is None and not self._read_head():
            return
        if self.body_length is None:
            done = self.received.endswith(b"0\r\n\r\n")
        else:
            assert self.body_from is not None
            done = len(self.received) >= self.body_from + self.body_length
        if done and self.answer is not None and not self.answer.done():
            self.answer.set_result(self.received.startswith(b"HTTP/1.1 200"))

    def _read_head(self) -> bool:
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return False
        self.body_from = end + 4
        head = self.received[:end].lower()
        _, found, length = head.partition(b"content-length:")
        self.body_length = int(length.split(b"\r\n", 1)[0]) if found else None
        return True


async def _connect(port: int, address: str = "127.0.0.1") -> Caller:
    loop = asyncio.get_running_loop()
    connected = socket.socket()
    connected.settimeout(0)
    # The port is chosen when the other end is known: else each bind looks for one that is free.
    connected.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    # The end is a reset: an orderly one would keep the port for a minute.
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.bind((address, 0))
    await loop.sock_connect(connected, ("127.0.0.1", port))
    _, caller = await loop.create_connection(Caller, sock=connected)
    return caller


async def _closed_loop(spec: dict[str, Any]) -> list[float | None]:
    message = order() if spec.get("background") else request(stream=spec["stream"])
    callers = [await _connect(spec["port"]) for _ in range(spec["connections"])]
    left = iter(range(spec["count"]))
    latencies: list[float | None] = []

    async def work(caller: Caller) -> None:
        for _ in left:
            began = time.perf_counter()
            good = await caller.ask(message)
            latencies.append(time.perf_counter() - began if good else None)
            if not good:
                return

    await asyncio.gather(*(work(caller) for caller in callers))
    return latencies


async def _paced(spec: dict[str, Any]) -> list[float | None]:
    """Latency counts from the moment at which a request was due (no coordinated omission)."""
    message = request(stream=spec["stream"])
    free = [await _connect(spec["port"]) for _ in range(spec["connections"])]
    latencies: list[float | None] = []
    running = set()
    began = time.perf_counter()

    async def one(due: float) -> None:
        caller = free.pop() if free else await _connect(spec["port"])
        good = await caller.ask(message)
        latencies.append(time.perf_counter() - due if good else None)
        free.append(caller)

    for number in range(spec["count"]):
        due = began + number / spec["rate"]
        # A timer is a millisecond late at times; the rest of the way is spun.
        await asyncio.sleep(max(0.0, due - time.perf_counter() - 0.001))
        while time.perf_counter() < due:  # noqa: ASYNC110 - it is time that is awaited
            await asyncio.sleep(0)
        task = asyncio.create_task(one(due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return latencies


async def _held(spec: dict[str, Any]) -> list[float | None]:
    message = request(stream=True, words="hold the line")
    callers = [await _connect(spec["port"]) for _ in range(spec["count"])]
    loop = asyncio.get_running_loop()
    for caller in callers:
        caller.begun = loop.create_future()
        caller.transport.write(message)
    began = [caller.begun for caller in callers if caller.begun is not None]
    await asyncio.wait_for(asyncio.gather(*began), 60)
    print("all have begun", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    return [0.0] * len(callers)


async def _waiting(spec: dict[str, Any]) -> list[float | None]:
    message = request(stream=False, model="scarce").replace(
        b"user-agent: benchmark\r\n", b"user-agent: benchmark\r\npriority: u=7\r\n"
    )
    callers = []
    for _ in range(spec["count"]):
        caller = await _connect(spec["port"], spec["from"])
        caller.transport.write(message)
        callers.append(caller)
    print("all have begun", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for caller in callers:
        caller.transport.abort()
    return [0.0] * len(callers)


async def _run(spec: dict[str, Any]) -> None:
    began = time.perf_counter()
    if spec.get("wait"):
        latencies = await _waiting(spec)
    elif spec.get("hold"):
        latencies = await _held(spec)
    elif spec.get("rate"):
        latencies = await _paced(spec)
    else:
        latencies = await _closed_loop(spec)
    good = sorted(latency * 1000 for latency in latencies if latency is not None)
    answer = {
        "seconds": time.perf_counter() - began,
        "answered": len(good),
        "failed": spec["count"] - len(good),
        "latencies_ms": good,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    uvloop.run(_run(json.loads(sys.argv[1])))
