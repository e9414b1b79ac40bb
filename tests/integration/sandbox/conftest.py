"""A sandbox on a free port in a thread of its own, and the real SDKs' clients for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import anthropic
import httpx
import openai
import pytest

from penstock.sandbox.app import Sandbox
from penstock.sandbox.server import SandboxServer
from penstock.sandbox.settings import SandboxSettings
from penstock.sandbox.statistics import CallRecord

KEY = "sk-anything-1234"


class Watched(Sandbox):
    """A sandbox whose finished calls can be waited for from another thread."""

    def __init__(self, settings: SandboxSettings) -> None:
        super().__init__(settings)
        self.changed = threading.Condition()
        count = self.statistics.add

        def add(record: CallRecord) -> None:
            with self.changed:
                count(record)
                self.changed.notify_all()

        self.statistics.add = add


class Running:
    """One sandbox that runs; made by the ``start`` fixture."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.sandbox = Watched(settings)
        self.server = SandboxServer(self.sandbox)
        self.clients: list[openai.OpenAI | anthropic.Anthropic] = []
        self.url = self.server.url
        self.http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {KEY}", "anthropic-version": "2023-06-01"},
            timeout=20,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self.server.run())

    def openai(self) -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{self.url}/openai/v1", api_key=KEY, max_retries=0)
        self.clients.append(client)
        return client

    def anthropic(self) -> anthropic.Anthropic:
        client = anthropic.Anthropic(base_url=f"{self.url}/anthropic", api_key=KEY, max_retries=0)
        self.clients.append(client)
        return client

    def chat(self, text: str = "Hello", **fields: object) -> httpx.Response:
        headers = fields.pop("headers", None)
        body = {"model": "sandbox", "messages": [{"role": "user", "content": text}], **fields}
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    def stats(self, calls: int = 0) -> dict:
        return self.http.get("/stats", params={"calls": calls}).json()

    def wait_until_ended(self, calls: int = 1) -> None:
        """Wait until so many calls have ended, from the provider's view."""
        with self.sandbox.changed:
            assert self.sandbox.changed.wait_for(
                lambda: self.sandbox.statistics.calls >= calls, timeout=5
            )

    def stop(self) -> None:
        for client in (self.http, *self.clients):
            client.close()
        self._loop.call_soon_threadsafe(self.server.stop)
        self._thread.join(5)
        assert not self._thread.is_alive()


AT_ONCE = {"latency_seconds": 0.0, "tokens_per_second": 0.0}


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts sandboxes; the default answers at once and has no limits."""
    started: list[Running] = []

    def start_one(**settings: object) -> Running:
        started.append(Running(SandboxSettings(**{**AT_ONCE, **settings})))
        return started[-1]

    yield start_one
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Running]:
    """The one behind ``sandbox``: starting and stopping takes longer than most tests."""
    running = Running(SandboxSettings(**AT_ONCE))
    yield running
    running.stop()


@pytest.fixture
def sandbox(running_sandbox) -> Running:
    """One without limits that answers at once; its counts start from zero."""
    running_sandbox.http.post("/stats/reset")
    running_sandbox.http.post("/faults", json={"faults": []})
    return running_sandbox
