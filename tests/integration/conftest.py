"""Real processes over loopback: sandbox providers and services, each ended by its fixture."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

READY_SECONDS_MAX = 60.0


class Running:
    """A penstock command in a process of its own, listening at ``url``."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        self._log_file = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent), **environment},
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline().decode()
        found = re.search(r"http://[\d.]+:\d+", first)
        if found is None:
            self.stop(signal.SIGKILL)
            pytest.fail(f"penstock {arguments} did not start: {first!r} {log.read_text()}")
        self.url = found[0]

    def get(self, path: str, key: str | None = None) -> tuple[int, Any]:
        """GET a JSON document, whatever its status."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        request = urllib.request.Request(self.url + path, headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def post(self, path: str, body: Any) -> None:
        """POST a JSON document."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method="POST")  # noqa: S310
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310

    def wait_ready(self) -> None:
        """Return when ``/readyz`` says 200."""
        poll(lambda: self.get("/readyz")[0] == 200, READY_SECONDS_MAX)

    def logged(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and give its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log_file.close()
        return code


NOT_MADE = ("no such table", "unable to open database file")


def poll(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until another process has got somewhere; fails after a bounded time.

    A store that is still to be made holds nothing yet.
    """

    def holds() -> bool:
        try:
            return condition()
        except sqlite3.OperationalError as error:
            if str(error).partition(":")[0] not in NOT_MADE:
                raise
            return False

    ends_at = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends_at:
            pytest.fail(f"it did not happen within {seconds:g} s")
        time.sleep(0.02)


@pytest.fixture(scope="session", name="poll")
def _poll() -> Callable[..., None]:
    return poll


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """``running("sandbox", "--rpm", "60")``: start a command; it ends with the session."""
    started: list[Running] = []

    def start(*arguments: str, **environment: str) -> Running:
        log = tmp_path_factory.mktemp(arguments[0]) / "log.jsonl"
        process = Running(list(arguments), log, environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()


@pytest.fixture(scope="session")
def fast_sandbox(running: Callable[..., Running]) -> Callable[..., Running]:
    """A sandbox without delays, with the given limits."""

    def start(*arguments: str) -> Running:
        speed = ["--latency-ms", "0", "--tokens-per-second", "0"]
        return running("sandbox", "--port", "0", *speed, *arguments)

    return start


@pytest.fixture(scope="session")
def serve(
    running: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Running]:
    """``serve(toml)``: a service with this configuration."""

    def start(toml: str, **environment: str) -> Running:
        file = tmp_path_factory.mktemp("serve") / "penstock.toml"
        file.write_text(toml)
        return running("serve", "--config", str(file), "--port", "0", **environment)

    return start


@pytest.fixture(scope="session")
def service(running: Callable[..., Running]) -> Running:
    """The service as a newcomer gets it: no configuration, the key ``dev``; ready."""
    process = running("serve", "--port", "0")
    process.wait_ready()
    return process


NOT_SERVED = 501
CHECKED = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
LEAKS = re.compile(rb"Traceback|File \"|upstream-key|\bat 0x[0-9a-f]{6}|penstock\.[a-z_]+\.[a-z_]+")


@pytest.fixture(scope="session")
def by_document() -> Callable[..., Counter[tuple[str, int]]]:
    """``by_document(url, document, headers=...)``: requests made from it, counted by operation
    (``GET /jobs``) and status.

    Each answer is held against the document; none is a fault of ours or shows an inside.
    ``headers`` has the key as a bearer token: of one of its own Schemathesis makes up the other.
    ``sharpened`` changes a case before it is sent, ``once`` names paths that are asked once.
    """
    import schemathesis  # noqa: PLC0415 - two seconds, for two files of tests
    from hypothesis import HealthCheck, Phase, given, settings  # noqa: PLC0415 - likewise
    from schemathesis.checks import CHECKS  # noqa: PLC0415 - likewise

    def ask(
        url: str,
        document: dict[str, Any],
        *,
        headers: Mapping[str, str],
        exclude: str,
        once: re.Pattern[str],
        sharpened: Callable[[Any], None],
        examples: int = 8,
    ) -> Counter[tuple[str, int]]:
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=url)
        schema = schema.exclude(path_regex=exclude)
        checks = [one for one in CHECKS.get_all() if one.__name__ in CHECKED]
        assert len(checks) == len(CHECKED)
        seen: Counter[tuple[str, int]] = Counter()

        for operation in (found.ok() for found in schema.get_all_operations()):
            count = examples if (operation.body or operation.query) and headers else 2
            count = 1 if once.match(operation.path) else count

            @given(case=operation.as_strategy())
            @settings(
                max_examples=count,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def answered(case: Any) -> None:
                sharpened(case)
                answer = case.call(headers={**headers}, timeout=30)
                seen[case.operation.label, answer.status_code] += 1
                case.validate_response(answer, checks=checks)
                asked = (case.method, case.path, case.path_parameters, case.query, case.body)
                shown = (*asked, answer.content)
                assert answer.status_code < 500 or answer.status_code == NOT_SERVED, shown
                assert not LEAKS.search(answer.content), shown

            answered()
        return seen

    return ask


# Without these Chromium asks hosts of its maker, which a closed network refuses.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


class Page:
    """One tab of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0
        self._loaded = False
        self.complaints: list[str] = []

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a DevTools method and wait for its answer."""
        self._count += 1
        await self._socket.send_str(
            json.dumps({"id": self._count, "method": method, "params": params})
        )
        while True:
            message = await self._message()
            if message.get("id") == self._count:
                assert "error" not in message, message["error"]
                return message["result"]

    async def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.receive_str())
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(message["params"]))
        self._loaded |= message.get("method") == "Page.loadEventFired"
        return message

    async def open(self, url: str) -> None:
        """Go there, and return when the page and its module have loaded."""
        self._loaded = False
        await self.send("Page.navigate", url=url)
        while not self._loaded:
            await self._message()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (a promise's when it gives one)."""
        result = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, expression: str) -> Any:
        """The expression's value once it is true; asks every animation frame, up to 10 s."""
        return await self.evaluate(
            "new Promise((done, fail) => { const began = Date.now();"
            f"const look = () => {{ const value = ({expression}); if (value) done(value);"
            "else if (Date.now() - began > 10000) fail(new Error('never true'));"
            "else setTimeout(look, 20); }; look(); })"
        )

    async def screenshot(self) -> bytes:
        """The whole page as PNG."""
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@pytest.fixture
def browsing(program: Callable[[str], str], tmp_path: Path) -> Callable[..., Any]:
    """``async with browsing(url) as page``."""
    chromium = program("chromium")

    @asynccontextmanager
    async def start(url: str) -> AsyncIterator[Page]:
        process = await asyncio.create_subprocess_exec(
            chromium,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                address = await _devtools_address(process)
            root = address.removeprefix("ws://").partition("/")[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{root}/json/list") as answer:
                    (tab,) = [one for one in await answer.json() if one["type"] == "page"]
                async with session.ws_connect(
                    tab["webSocketDebuggerUrl"], max_msg_size=2**26
                ) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log"):
                        await page.send(f"{domain}.enable")
                    await page.open(url)
                    yield page
        finally:
            process.terminate()
            await process.communicate()

    return start


async def _devtools_address(process: asyncio.subprocess.Process) -> str:
    async for line in process.stderr:
        _, found, address = line.decode().partition("DevTools listening on ")
        if found:
            return address.strip()
    raise AssertionError("Chromium ended before it listened")
