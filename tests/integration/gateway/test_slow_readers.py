"""Many callers who take nothing of their streams cost a bounded amount of memory."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import httpx
import pytest

STREAMS = 50
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"a" * 4_000)


def resident_bytes(service) -> int:
    """What the front process holds."""
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture(scope="module")
def provider(raw_providers):
    return raw_providers()


@pytest.fixture(scope="module")
def service(serve, provider, hostile_config, keys):
    config = hostile_config(provider.url).replace("concurrency = 8", "concurrency = 400")
    started = serve(config, **keys)
    started.wait_ready()
    return started


@contextlib.contextmanager
def readers(service, key, count, *, stream=True):
    """So many callers, who have asked and take nothing."""
    body = json.dumps({"model": "sandbox", "messages": [], "stream": stream}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"x-api-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.connect(address)
            sock.sendall(head + body)
            made.append(sock)
        yield made


def test_streams_that_nobody_reads_stop_at_their_provider(service, provider, keys, poll):
    """Each of them held 530 kB while the event loop chose how much it read at a time."""
    with readers(service, keys["PERSON_KEY"], 1, stream=False) as (first,):
        assert first.recv(12) == b"HTTP/1.1 200"  # what a first call takes is nobody's fault
    sent = [0]

    def endless():
        yield b"HTTP/1.1 200 Fine\r\ncontent-type: text/event-stream\r\n\r\n"
        while True:
            sent[0] += len(EVENT)
            yield EVENT

    provider.seen.clear()
    provider.answers = endless
    before, seen = resident_bytes(service), [-1, -2]

    def stands_still() -> bool:
        seen.append(sent[0])
        return len(provider.seen) >= STREAMS and len(set(seen[-20:])) == 1

    with readers(service, keys["PERSON_KEY"], STREAMS):
        poll(stands_still, 60)
        grown = resident_bytes(service) - before
        assert httpx.get(f"{service.url}/healthz", timeout=10).status_code == 200

    assert grown < STREAMS * 400_000
