"""One request and its answer, over raw ASGI.

Starlette's Request and Response cost six times what this does on the hot route, and hide what a
gateway must see: whether the caller is still there, and whether an answer has begun. Everything
here is bounded: the body by bytes and by time, a write by the server's flow control.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec

from penstock.config.model import ServerTable
from penstock.errors import (
    InvalidRequest,
    PenstockError,
    QueueFull,
    TooLarge,
    UnsupportedMedia,
)
from penstock.http.auth import Principal
from penstock.http.head import Head
from penstock.http.line import HangUp, Line, Message, Scope
from penstock.units import CANCELLED_WAITING, Outcome

_T = TypeVar("_T")

# To tell requests apart, from each other and after a restart; nothing is opened by it.
_number: Final = partial(random.Random().getrandbits, 128)  # noqa: S311
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
INSIDE: Final = "penstock.inside"
"""Where the scope has an ``Inside``; no parser of requests makes one."""
_BODY_HEADERS: Final = ("content-length", "transfer-encoding")
_DIGITS: Final = re.compile(r"[0-9]{1,18}\Z")


class Inside(msgspec.Struct, frozen=True):
    """In whose name this process asks itself (``inside``), and for which attempt of which job.

    ``arrival`` (monotonic seconds) is when that job arrived; None: now. ``is_patient``: it has all
    the time it takes. ``on_end`` is told the outcome of a call that several callers share.
    """

    principal: Principal
    job_id: str = ""
    attempt: int = 0
    arrival: float | None = None
    is_patient: bool = True
    on_end: Callable[[Outcome], None] | None = None


class ClientGone(PenstockError):
    """The caller hung up, or was cut off because it took nothing: there is nobody to answer."""


class Bodies:
    """The bytes of all request bodies held at the moment, and who holds them.

    A call keeps its body while it waits, so ten thousand of them within every other bound are
    more than a machine has. One tenant may hold half, so that none can keep the others out; our
    own workers, who call in everybody's name, all of it.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self._by_tenant: dict[str, int] = {}

    def take(self, principal: Principal | None, size: int) -> None:
        """Count so many bytes more. Raises QueueFull (503), having counted nothing."""
        tenant = principal.tenant if principal else ""
        own = self._by_tenant.get(tenant, 0) + size
        is_internal = principal is not None and principal.internal
        own_max = self.bytes_max if is_internal else self.bytes_max // 2
        if own > own_max or self.held_bytes + size > self.bytes_max:
            raise QueueFull(
                "The calls that wait hold as many bytes as this service takes. Come back when "
                "some of them have been sent.",
                status=503,
            )
        self.held_bytes += size
        self._by_tenant[tenant] = own

    def give_back(self, principal: Principal | None, size: int) -> None:
        """Count so many bytes less."""
        tenant = principal.tenant if principal else ""
        self.held_bytes -= size
        left = self._by_tenant.get(tenant, 0) - size
        if left > 0:
            self._by_tenant[tenant] = left
        else:
            self._by_tenant.pop(tenant, None)


class Recorder(Protocol):
    """Sees an answer before its caller does, and may hold it up until that is kept."""

    async def whole(self, status: int, body: bytes) -> None:
        """A whole answer is about to be sent."""

    def piece(self, chunk: bytes) -> bytes:
        """A piece of a stream has come: what of it, and of those before, may be sent now."""

    async def last(self) -> bytes:
        """The stream has ended: what is still to be sent."""


class Exchange:
    """One request and its answer.

    ``headers`` have lower-case names; where a name came several times, the first one counts.
    ``response_headers`` are added to whatever answer is sent. ``facts`` is what the log line of
    this request says beyond what the door knows (``class``, ``tenant``, ``run``, ``chain``,
    ``step``, ``deployment``, ``wait_ms``); ``facts["class"]`` is also the metric's label.
    ``outcome_if_gone`` is what a hang-up means at this moment: the handler moves it on when it
    sends the call upstream. ``at_end`` is told the outcome, once, when all is over.
    ``inside`` says in whose name this process asks itself; None: somebody outside asks.
    ``is_counted``: this request stands in metrics and log; False: another stands for it.
    """

    __slots__ = (
        "_bodies",
        "_body",
        "_held_bytes",
        "_line",
        "_server",
        "at_end",
        "facts",
        "finished",
        "head",
        "headers",
        "inside",
        "is_counted",
        "outcome_if_gone",
        "path_params",
        "principal",
        "recorder",
        "request_id",
        "response_headers",
        "scope",
        "started",
        "status",
    )

    def __init__(self, scope: Scope, server: ServerTable, bodies: Bodies) -> None:
        self.scope = scope
        self._server = server
        state = scope["state"]
        self._line: Line = state["line"]
        self._body: bytes | None = None
        self._bodies = bodies
        self._held_bytes = 0
        self.head: Head = state.get("head") or Head(scope["headers"])
        self.headers = self.head.headers(state.get("varying", ()))
        named = self.headers.get("x-request-id")
        self.request_id = named if named and _REQUEST_ID.match(named) else f"{_number():032x}"
        self.principal: Principal | None = None
        self.inside: Inside | None = scope.get(INSIDE)
        self.recorder: Recorder | None = None
        self.is_counted = True
        self.path_params: Mapping[str, str] = scope.get("path_params") or {}
        self.response_headers: dict[str, str] = {}
        self.facts: dict[str, object] = {}
        self.outcome_if_gone = CANCELLED_WAITING
        self.at_end: Callable[[Outcome], None] | None = None
        self.status: int | None = None
        self.started = False
        self.finished = False

    async def body(self) -> bytes:
        """The whole body; the same bytes every time.

        Raises UnsupportedMedia for an encoded one, TooLarge past ``body_bytes_max``,
        InvalidRequest (408) past ``body_timeout_seconds``, QueueFull (503) where the bodies of
        others have taken what there is, ClientGone.
        """
        if self._body is None:
            self._check_coding()
            whole = self._line.whole_body()
            if whole is not None:
                self._hold(len(whole))
                self._body = whole
                return whole
            self._check_declared(self._server.body_bytes_max)
            if self.headers.keys().isdisjoint(_BODY_HEADERS):
                self._body = b""  # RFC 9112 section 6.3: neither header, no body
                return self._body
            try:
                async with asyncio.timeout(self._server.body_timeout_seconds):
                    self._body = await self._read_body()
            except TimeoutError:
                raise InvalidRequest(
                    f"The body did not arrive within {self._server.body_timeout_seconds:g} s.",
                    status=408,
                    code="request_timeout",
                ) from None
        return self._body

    async def upload(self, bytes_max: int) -> AsyncIterator[bytes]:
        """The body piece by piece, for what does not fit into memory; instead of ``body``.

        Raises as ``body`` does, with ``bytes_max`` instead, and the time for each piece.
        """
        self._check_coding()
        self._check_declared(bytes_max)
        count, more = 0, True
        while more:
            try:
                async with asyncio.timeout(self._server.body_timeout_seconds):
                    message = await self._line.receive()
            except TimeoutError:
                raise InvalidRequest(
                    f"Nothing of the body came for {self._server.body_timeout_seconds:g} s.",
                    status=408,
                    code="request_timeout",
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            count += len(piece)
            if count > bytes_max:
                raise _too_large(bytes_max)
            more = message.get("more_body", False)
            yield piece

    def _check_coding(self) -> None:
        encoding = self.headers.get("content-encoding")
        if encoding is not None and encoding.strip().lower() not in ("identity", ""):
            raise UnsupportedMedia(
                "Bodies are read without a Content-Encoding only: send it as 'identity'."
            )

    def _check_declared(self, bytes_max: int) -> None:
        declared = self.headers.get("content-length")
        if declared is not None and _DIGITS.match(declared) and int(declared) > bytes_max:
            raise _too_large(bytes_max)

    async def _read_body(self) -> bytes:
        message = await self._line.receive()
        first = self._piece(message)
        if not message.get("more_body", False):
            return first
        whole = bytearray(first)
        while message.get("more_body", False):
            message = await self._line.receive()
            whole += self._piece(message)
        return bytes(whole)

    def _piece(self, message: Message) -> bytes:
        """What came of the body, counted and within the bounds."""
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        self._hold(len(piece))
        return piece

    def _hold(self, size: int) -> None:
        if self._held_bytes + size > self._server.body_bytes_max:
            raise _too_large(self._server.body_bytes_max)
        self._bodies.take(self.principal, size)
        self._held_bytes += size

    def close(self) -> None:
        """The exchange is over: what it held is given back."""
        self._bodies.give_back(self.principal, self._held_bytes)
        self._held_bytes = 0

    async def respond(
        self, status: int, body: bytes, content_type: str = "application/json"
    ) -> None:
        """Send a whole answer. Raises ClientGone."""
        if self.recorder is not None:
            await self.recorder.whole(status, body)
        self._start(status, content_type, len(body))
        self.finished = True
        self._line.write(body, is_last=True)

    async def start(self, status: int, content_type: str) -> None:
        """Begin an answer of unknown length: ``write`` and ``finish`` follow."""
        self._start(status, content_type, None)

    def _start(self, status: int, content_type: str, length: int | None) -> None:
        self._check_connected()
        self.started = True
        self.status = status
        headers = {
            "content-type": content_type,
            "x-request-id": self.request_id,
            "request-id": self.request_id,
            "x-content-type-options": "nosniff",
            **self.response_headers,
        }
        self._line.begin(status, headers, length)

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the answer; waits while the caller reads slower than we write.

        Raises ClientGone when the caller hung up or was cut off for taking nothing.
        """
        if not self.pass_on(chunk):
            await self.drained()

    def pass_on(self, chunk: bytes) -> bool:
        """Send a piece of the answer; whether more may be sent without waiting.

        Raises ClientGone.
        """
        line = self._line
        if line.is_closing():
            raise ClientGone
        if self.recorder is not None:
            chunk = self.recorder.piece(chunk)
        if chunk:
            line.write(chunk, is_last=False)
        return not line.is_full

    async def drained(self) -> None:
        """Wait while the caller reads slower than we write. Raises ClientGone."""
        if self._line.is_full:
            await self._line.drained()
        self._check_connected()

    async def write_aside(self, chunk: bytes) -> None:
        """Send what is no part of the answer, such as a comment: it is not recorded.

        Raises ClientGone.
        """
        self._check_connected()
        self._line.write(chunk, is_last=False)
        await self.drained()

    async def finish(self) -> None:
        """End the answer: without it the caller sees that the answer broke off."""
        rest = b"" if self.recorder is None else await self.recorder.last()
        self._check_connected()
        self.finished = True
        self._line.write(rest, is_last=True)

    @property
    def hang_up(self) -> HangUp:
        """Tells that the caller is gone."""
        return self._line.hang_up

    def abort(self) -> None:
        """Close the connection under an unfinished answer, so that the caller sees it broken."""
        if not self.finished:
            self._line.close()

    def _check_connected(self) -> None:
        if self._line.is_closing():
            raise ClientGone


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than the {bytes_max} bytes that this service takes here.")


async def give_again(exchange: Exchange, body: bytes, *, is_stream: bool) -> None:
    """Send a good answer that was kept; a stream all at once. Raises ClientGone."""
    if not is_stream:
        await exchange.respond(200, body)
        return
    await exchange.start(200, "text/event-stream")
    await exchange.write(body)
    await exchange.finish()


async def while_connected(exchange: Exchange, coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The coroutine's result; a hang-up cancels it. Raises ClientGone then.

    It runs in the caller's own task, so context variables and stack traces stay whole. The body
    must have been taken before: what is not read of it hides the hang-up. Cancellation from
    outside passes through as such, counted as ``asyncio.timeout`` counts it.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("while_connected needs a running task")
    hang_up = exchange.hang_up
    if hang_up.is_gone:
        coroutine.close()
        raise ClientGone
    cancelling = task.cancelling()
    gone = False

    def cut() -> None:
        nonlocal gone
        gone = True
        task.cancel()

    before, hang_up.told = hang_up.told, cut
    try:
        return await coroutine
    except asyncio.CancelledError:
        if gone and task.uncancel() <= cancelling:
            gone = False
            raise ClientGone from None
        raise
    finally:
        hang_up.told = before
        if gone:
            task.uncancel()
