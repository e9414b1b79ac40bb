"""A provider that answers with raw bytes, and what a gateway in front of it is configured to."""

from __future__ import annotations

import contextlib
import re
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator

import httpx
import pytest

PLAIN = (
    b'{"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"hi"}}],"content":[{"type":"text","text":"hi"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"input_tokens":1,"output_tokens":1}}'
)
CONFIG = """
[workers]
count = 0
[providers.up]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
first_byte_timeout_seconds = 5
idle_timeout_seconds = 2
[providers.messages]
kind = "anthropic"
base_url = "{url}"
key_env = "UPSTREAM_KEY"
first_byte_timeout_seconds = 5
idle_timeout_seconds = 2
[deployments.one]
provider = "up"
model = "sandbox"
rpm = 60_000
concurrency = 8
[deployments.two]
provider = "messages"
model = "sandbox"
rpm = 60_000
concurrency = 8
[deployments.other]
provider = "up"
[keys.person]
tenant = "web"
class = "interactive"
key_env = "PERSON_KEY"
[keys.nightly]
tenant = "nightly"
class = "batch"
ceiling = "batch"
key_env = "NIGHTLY_KEY"
[keys.narrow]
tenant = "narrow"
models = ["other"]
key_env = "NARROW_KEY"
[keys.boss]
tenant = "boss"
admin = true
key_env = "ADMIN_KEY"
"""
KEYS = {
    "UPSTREAM_KEY": "upstream-key-that-nobody-sees",
    "PERSON_KEY": "person-key-with-enough-letters",
    "NIGHTLY_KEY": "nightly-key-with-enough-letters",
    "NARROW_KEY": "narrow-key-with-enough-letters",
    "ADMIN_KEY": "admin-key-with-enough-letters",
}


def answer(body: bytes, head: bytes = b"content-type: application/json", status: int = 200):
    """A whole answer's bytes."""
    length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return [b"HTTP/1.1 %d Said\r\n%b\r\n%b%b" % (status, head, length, body)]


class RawProvider(socketserver.ThreadingTCPServer):
    """``answers`` makes the next answers' bytes; ``seen`` holds the heads that came."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.answers: Callable[[], Iterable[bytes]] = lambda: answer(PLAIN)
        self.seen: list[bytes] = []
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.StreamRequestHandler):
    server: RawProvider

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self._answered():
                pass

    def _answered(self) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return False
            head += line
        length = re.search(rb"content-length: (\d+)", head.lower())
        self.server.seen.append(head)
        self.server.bodies.append(self.rfile.read(int(length[1])) if length else b"")
        for piece in self.server.answers():
            self.wfile.write(piece)
        return True


@pytest.fixture(scope="package")
def raw_providers() -> Iterator[Callable[[], RawProvider]]:
    """Starts raw providers; they end with the package."""
    started: list[RawProvider] = []

    def start() -> RawProvider:
        provider = RawProvider()
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        started.append(provider)
        return provider

    yield start
    for provider in started:
        provider.shutdown()
        provider.server_close()


@pytest.fixture(scope="session")
def said() -> Callable[..., list[bytes]]:
    """``said(body, head, status)``: a whole answer of a raw provider."""
    return answer


@pytest.fixture(scope="session")
def hostile_config() -> Callable[[str], str]:
    """The configuration of a gateway in front of the provider at an address."""
    return lambda url: CONFIG.replace("{url}", url)


@pytest.fixture(scope="session")
def keys() -> dict[str, str]:
    """The keys of that configuration."""
    return KEYS


@pytest.fixture(scope="session")
def is_idle(keys: dict[str, str]) -> Callable[..., bool]:
    """``is_idle(service)``: nothing waits, nothing is in flight, every slot is free."""

    def look(service) -> bool:
        headers = {"x-api-key": keys["ADMIN_KEY"]}
        shown = httpx.get(f"{service.url}/admin/live", headers=headers).json()
        limits = [limit for one in shown["deployments"] for limit in one["limits"]]
        slots = [limit for limit in limits if limit["name"] == "concurrency"]
        assert slots
        return (
            shown["totals"]["waiting"] == shown["totals"]["in_flight"] == 0
            and all(limit["level"] == limit["capacity"] for limit in slots)
            and not any(one["in_flight"] for one in shown["deployments"])
        )

    return look
