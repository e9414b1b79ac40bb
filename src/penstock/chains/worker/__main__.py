"""The worker process: reads its spec, loads its chains, serves until it is told to stop.

It stops on SIGTERM, after its runs have ended, and when standard input closes, which means that
the front is gone and nobody is left to answer.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import uvicorn

from penstock.chains.spec import LogLine, Problem, Ready, WorkerLine, WorkerSpec, WorkerStatus
from penstock.chains.worker.environment import point_at_gateway
from penstock.chains.worker.identity import IdentityHook, carry_into_threads
from penstock.chains.worker.memory import resident_bytes
from penstock.chains.worker.threads import Threads
from penstock.telemetry.logs import log_unhandled, rows_without_texts

ORPHANED_SECONDS = 5.0
"""What an orphaned worker gives its chains to clean up before it ends itself."""

KEEP_ALIVE_SECONDS = 3600
"""Longer than the front keeps an idle connection, so that the front is the one to close it."""

logger = logging.getLogger("penstock.chains.worker")


class LineFormatter(logging.Formatter):
    """A record as one JSON line, its traceback inside, for the front to log.

    Of an exception the places and the type, as everywhere: a chain's exceptions hold what it was
    working on. Its text, too, where the level is DEBUG.
    """

    def __init__(self, *, exception_texts: bool) -> None:
        super().__init__()
        self._exception_texts = exception_texts

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """Type and places; the text too where it was asked for."""
        if self._exception_texts or ei[1] is None:
            return super().formatException(ei)
        return "\n".join(rows_without_texts(ei[1]))

    def format(self, record: logging.LogRecord) -> str:
        """The line without its end."""
        line = LogLine(record.levelno, record.name, super().format(record))
        return msgspec.json.encode(line).decode()


class Server(uvicorn.Server):
    """uvicorn's server, stopped by our signals: its own would end the process with the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM; leave SIGINT, which a terminal sends to all, to the front."""

        def stop(_signal: int, _frame: FrameType | None) -> None:
            self.should_exit = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        yield


def main() -> int:
    """Run the worker. Exit code 2 says that standard input held no spec."""
    try:
        spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerSpec)
    except msgspec.DecodeError as error:
        sys.stderr.write(
            "python -m penstock.chains.worker is started by 'penstock serve', which writes its "
            f"specification to standard input: {error}\n"
        )
        return 2
    _log_to_stderr(spec.log_level)
    point_at_gateway(os.environ, spec.gateway_url, spec.gateway_key)
    sys.path[:0] = spec.path
    threads = Threads(spec.runs_max, spec.classes)
    server, chat_chains = _server(spec, threads)
    threading.Thread(target=_stop_when_orphaned, args=[server], daemon=True).start()
    listener = _listen(spec.socket_path)
    asyncio.run(_serve(server, listener, spec, chat_chains, threads))
    return 0


async def _serve(
    server: Server,
    listener: socket.socket,
    spec: WorkerSpec,
    chat_chains: list[str],
    threads: Threads,
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads)
    loop.set_exception_handler(log_unhandled)
    # The socket listens already: whoever connects now is answered as soon as the loop turns.
    _say(Ready(os.getpid(), sorted(spec.chains), time.process_time(), chat_chains))
    await server.serve(sockets=[listener])
    threads.shutdown(wait=False, cancel_futures=True)


def _server(spec: WorkerSpec, threads: Threads) -> tuple[Server, list[str]]:
    """The server over the loaded chains, and which of them can be called as models."""
    # Imported here, not above: this is what loads LangChain, and it must find the environment set.
    from penstock.chains.worker.agent import AgentRuns  # noqa: PLC0415
    from penstock.chains.worker.app import App  # noqa: PLC0415
    from penstock.chains.worker.chain import Chain  # noqa: PLC0415
    from penstock.chains.worker.chat import ChatCompletions  # noqa: PLC0415
    from penstock.chains.worker.langserve import LangServe  # noqa: PLC0415
    from penstock.chains.worker.runs import Runs  # noqa: PLC0415
    from penstock.chains.worker.thread_memory import ThreadMemory  # noqa: PLC0415

    run_key = base64.b64decode(spec.run_key_base64)
    IdentityHook(spec.gateway_url, run_key).install()
    carry_into_threads()
    chains, failed = {}, set()
    for name, table in spec.chains.items():
        try:
            chains[name] = Chain.load(name, table)
        except (Exception, SystemExit) as error:
            failed.add(name)
            _say(Problem(name, type(error).__name__))
            logger.exception("chain %s failed to load", name)
    # What is loaded stays: a collection need not look at LangChain's objects again and again.
    gc.collect()
    gc.freeze()
    runs = Runs(spec.gateway_url, spec.runs_max)
    endpoints = {
        **LangServe(runs).endpoints(),
        **ChatCompletions(runs).endpoints(),
        **AgentRuns(runs, ThreadMemory(Path(spec.threads_path))).endpoints(),
    }

    def status() -> bytes:
        return msgspec.json.encode(WorkerStatus(resident_bytes(), threads.overdue))

    app = App(chains, frozenset(failed), endpoints, run_key, status)
    chat_chains = [name for name, chain in chains.items() if chain.chat is not None]
    server = Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
    )
    return server, chat_chains


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    Path(path).unlink(missing_ok=True)
    listener.bind(path)
    Path(path).chmod(0o600)
    listener.listen(1024)
    return listener


def _say(line: WorkerLine) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(exception_texts=level.upper() == "DEBUG"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _stop_when_orphaned(server: Server) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True
    server.force_exit = True
    # A chain that blocks the loop, or a thread that does not end, must not outlive the service.
    time.sleep(ORPHANED_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
