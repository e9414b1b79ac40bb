"""Carries a run's identity to the gateway, without the chain knowing.

A ContextVar holds the run; LangChain, LangGraph and asyncio copy the context wherever they
start a task or a thread, so it is right in concurrent runs, too. A hook on the ``send`` of the
httpx and httpx2 clients, which both SDKs end in, adds the signed identity as a header to
requests for the gateway's origin, and to no other.

Why the transport and not a LangChain callback: callbacks know nothing of a bare SDK client, and
do not fire when a call is cancelled. Why not a client argument: models that the user constructs
would have to be changed. A ``threading.Thread`` that a chain starts by itself, and a bare
``ThreadPoolExecutor``, begin with an empty context: ``carry_into_threads`` patches both, as
tracing libraries do. A thread so started belongs to its run until that ends; what a pool's thread
does belongs to the run that submitted it. What remains: a chain's own worker thread that takes
work of several runs from a queue counts as the first one's, and as nobody's after that has ended.

A step is one LLM call of a run. The SDKs repeat a failed call by themselves, and say so in
``x-stainless-retry-count``: a repetition keeps the step of its call, which is remembered in the
context that the SDK's loop runs in.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import msgspec

from penstock.http.run_identity import HEADER, sign
from penstock.units import RunIdentity

RETRY_COUNT_HEADER = "x-stainless-retry-count"

T = TypeVar("T")

DEFAULT_PORTS = {"http": 80, "https": 443}


class RunAbandoned(RuntimeError):
    """An LLM call of a run that was cancelled or timed out: nobody waits for it."""


class Run:
    """One execution of a chain: its identity, and the count of its LLM calls.

    ``abandoned`` says that it ended by cancellation or its time limit; what is left of it in
    threads makes no further calls, which somebody would pay for.
    """

    def __init__(self, identity: RunIdentity) -> None:
        self.identity = identity
        # The count is taken from several threads; next() of itertools.count is atomic.
        self._steps = itertools.count()
        self.steps_begun = 0
        self.ended = False
        self.abandoned = False

    def next_step(self) -> int:
        """The number of the LLM call that begins now; the first is 0."""
        step = next(self._steps)
        self.steps_begun = step + 1
        return step


current_run: ContextVar[Run | None] = ContextVar("penstock_run", default=None)
_threads_run: WeakKeyDictionary[threading.Thread, Run | None] = WeakKeyDictionary()
_last_call: ContextVar[tuple[Run, int] | None] = ContextVar("penstock_last_call", default=None)


class IdentityHook:
    """Adds the identity header to requests for one gateway."""

    def __init__(self, gateway_url: str, run_key: bytes) -> None:
        self._origin = _origin(gateway_url)
        self._run_key = run_key

    def install(self) -> list[str]:
        """Patch the clients of httpx and httpx2, as far as installed; returns which."""
        installed = []
        for name in ("httpx", "httpx2"):
            if importlib.util.find_spec(name) is None:
                continue
            module = importlib.import_module(name)
            self.patch(module.Client)
            self.patch(module.AsyncClient)
            installed.append(name)
        return installed

    def patch(self, client: type[Any]) -> None:
        """Wrap ``client.send``; it may be a coroutine function or a plain one."""
        send = client.send

        @functools.wraps(send)
        def send_with_identity(this: Any, request: Any, *arguments: Any, **options: Any) -> Any:
            # Runs in the caller's context for the asynchronous client, too: a coroutine
            # function's body would do so only once awaited, which is the same context.
            self.add_to(request)
            return send(this, request, *arguments, **options)

        client.send = send_with_identity

    def add_to(self, request: Any) -> None:
        """Put the header on ``request``, if it goes to the gateway from within a run."""
        if HEADER in request.headers:
            del request.headers[HEADER]
        run = current_run.get() or _run_of_thread()
        if run is None or _origin(str(request.url)) != self._origin:
            return
        if run.abandoned:
            raise RunAbandoned("this run was cancelled or timed out: it makes no more LLM calls")
        identity = run.identity
        if request.method == "POST":
            identity = msgspec.structs.replace(identity, step=_step(run, request.headers))
        request.headers[HEADER] = sign(identity, self._run_key)


def carry_into_threads() -> None:
    """Let threads that a chain starts by itself belong to its run. Call it once per process."""
    # Any: both classes are changed for all who use them, which no type allows.
    thread_class: Any = threading.Thread
    pool_class: Any = ThreadPoolExecutor
    start, submit = thread_class.start, pool_class.submit

    def start_with_run(thread: threading.Thread) -> None:
        _threads_run[thread] = current_run.get() or _run_of_thread()
        start(thread)

    def submit_with_run(pool: Any, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        run = current_run.get() or _run_of_thread()

        def work() -> T:
            # Also without a run: the pool's thread may have been started by another one.
            work_for(run)
            return fn(*args, **kwargs)

        future: Future[T] = submit(pool, work)
        return future

    thread_class.start = start_with_run
    pool_class.submit = submit_with_run


def work_for(run: Run | None) -> None:
    """From now on this thread works for that run, or for none: a pool's serves many."""
    _threads_run[threading.current_thread()] = run


def _run_of_thread() -> Run | None:
    run = _threads_run.get(threading.current_thread())
    return None if run is None or run.ended else run


def _step(run: Run, headers: Any) -> int:
    last = _last_call.get()
    repeated = headers.get(RETRY_COUNT_HEADER, "0") not in ("", "0")
    if repeated and last is not None and last[0] is run:
        return last[1]
    step = run.next_step()
    _last_call.set((run, step))
    return step


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme)
