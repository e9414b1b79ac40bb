"""One worker process, from its start to its end.

Its specification goes to standard input, which stays open: when this process dies, the pipe
closes and the worker ends itself. What it writes goes to the service's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping

import aiohttp
import msgspec

from penstock.chains.spec import LogLine, Problem, Ready, WorkerLine, WorkerSpec, WorkerStatus

logger = logging.getLogger(__name__)

LINE_BYTES_MAX = 1024 * 1024
SUSPECT_SECONDS = 1.0
PING_SECONDS = 1.0
"""How often a worker is asked whether its loop turns, and how long it may take to say so."""
BLOCKED_SECONDS_MAX = 60.0
"""A loop that stands still for so long is not waited for: its runs are lost, a new one starts."""
EXIT_SECONDS = 5.0
"""Between SIGTERM and SIGKILL for a worker that has no runs left."""

LineTaker = Callable[[bytes], None]

_line_decoder: msgspec.json.Decoder[WorkerLine] = msgspec.json.Decoder(WorkerLine)
_status_decoder = msgspec.json.Decoder(WorkerStatus)
_log_decoder = msgspec.json.Decoder(LogLine)


class WorkerFailedToStart(Exception):
    """The process ended, or said nothing in time, before it was ready."""


class WorkerProcess:
    """A running worker. ``runs`` counts what it is doing; only its pool changes it."""

    def __init__(self, name: str, spec: WorkerSpec) -> None:
        self.name = name
        self.runs = 0
        self.ready = False
        self.blocked = False
        self._condemned = False
        self.problems: dict[str, str] = {}
        self.chat_chains: frozenset[str] = frozenset()
        self.status = WorkerStatus(resident_bytes=0, threads_overdue=0)
        self.idle = asyncio.Event()
        self.idle.set()
        self._spec = spec
        self._started_at = time.monotonic()
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._heard_ready = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None before the start."""
        return self._process.pid if self._process else None

    @property
    def uptime_seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP client of its socket: no redirects, no cookies, no proxy, no decompression."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._spec.socket_path, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def start(self, environment: Mapping[str, str], timeout_seconds: float) -> None:
        """Start it and wait until it is ready. Raises WorkerFailedToStart."""
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock.chains.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            env=dict(environment),
            # Its own session: Ctrl-C in a terminal is for the front, which then drains.
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise WorkerFailedToStart("no pipes")
        self._readers = [
            asyncio.create_task(self._read_lines(process.stdout, self._heard)),
            asyncio.create_task(self._read_lines(process.stderr, self._log)),
        ]
        with contextlib.suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(self._spec) + b"\n")
            await process.stdin.drain()
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._heard_ready.wait())
        try:
            await asyncio.wait(
                {ended, ready}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ended.cancel()
            ready.cancel()
        if process.returncode is not None:
            raise WorkerFailedToStart(f"it ended with code {process.returncode}")
        if not self._heard_ready.is_set():
            raise WorkerFailedToStart(f"it was not ready within {timeout_seconds:g} s")
        self.ready = True

    async def wait(self) -> int:
        """Its exit code, when it has ended."""
        if self._process is None:
            return 0
        return await self._process.wait()

    def suspect(self, trusted_again: Callable[[], None]) -> None:
        """Give it nothing for a second: a connection broke, so it is probably dying.

        The kernel closes a dying process's connections before its listening socket, and we are
        told of its end later still. ``trusted_again`` is called if it turns out to live.
        """
        if not self.ready:
            return
        self.ready = False

        def trust() -> None:
            if self._process is not None and self._process.returncode is None:
                self.ready = not self._condemned
                trusted_again()

        asyncio.get_running_loop().call_later(SUSPECT_SECONDS, trust)

    @property
    def places_taken(self) -> int:
        """By runs, and by threads that work on for runs that are over."""
        return self.runs + self.status.threads_overdue

    async def keep_watch(self, answered: Callable[[], None]) -> None:
        """Ask how it is; ``blocked`` says that its loop does not turn at the moment.

        A chain that blocks the loop holds up every run of its worker, and a worker with few runs
        would be handed ever more. ``answered`` is called each time that it has said how it is.
        """
        while not self._condemned:
            await asyncio.sleep(PING_SECONDS)
            ping = asyncio.create_task(self._ping())
            try:
                await asyncio.wait({ping}, timeout=PING_SECONDS)
                if ping.done():
                    answered()
                    continue
                self.blocked = True
                logger.warning("%s: a chain blocks its loop; it gets no new runs", self.name)
                await asyncio.wait({ping}, timeout=BLOCKED_SECONDS_MAX)
            finally:
                ping.cancel()
            if not ping.done():
                logger.error(
                    "%s: a chain has blocked its loop for %g s, so it is ended; what blocks "
                    "belongs into a plain function, which runs in a thread",
                    self.name,
                    BLOCKED_SECONDS_MAX,
                )
                self.condemn()
                return
            self.blocked = False
            answered()

    async def _ping(self) -> None:
        """Whatever it answers, it lives; a broken connection is its end, which its place sees."""
        with contextlib.suppress(aiohttp.ClientError, OSError, msgspec.DecodeError):
            async with self.session.get("http://worker/") as answer:
                self.status = _status_decoder.decode(await answer.read())

    def condemn(self) -> None:
        """Take it out of service: it does not answer. Its place starts another."""
        self.ready = False
        self._condemned = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self, drain_seconds: float) -> None:
        """Let its runs end, then end it; SIGKILL what is left when the time is over."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await self.idle.wait()
        if process.returncode is None and self.idle.is_set():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_SECONDS):
                    await process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it at once, and give back all that it held here."""
        self.condemn()
        if self._process is not None:
            await self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._readers:
            await asyncio.wait(self._readers, timeout=EXIT_SECONDS)
            for reader in self._readers:
                reader.cancel()
        if self._session is not None:
            await self._session.close()

    async def _read_lines(self, stream: asyncio.StreamReader, take: LineTaker) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                logger.warning("%s: a line over %d bytes was left out", self.name, LINE_BYTES_MAX)
                continue
            if not line:
                return
            take(line.rstrip(b"\r\n"))

    def _heard(self, line: bytes) -> None:
        try:
            said = _line_decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            logger.info("%s: %s", self.name, line.decode(errors="replace"))
            return
        if isinstance(said, Problem):
            self.problems[said.chain] = said.problem
            logger.error("%s: chain %s failed to load: %s", self.name, said.chain, said.problem)
        elif isinstance(said, Ready):
            logger.info("%s is ready after %.1f CPU-s", self.name, said.start_cpu_seconds)
            self.chat_chains = frozenset(said.chat_chains)
            self._heard_ready.set()

    def _log(self, line: bytes) -> None:
        try:
            record = _log_decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            logger.info("%s: %s", self.name, line.decode(errors="replace"))
            return
        logger.log(record.level, "%s: %s: %s", self.name, record.logger, record.message)
