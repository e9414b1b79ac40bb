"""Requests that this process makes to its own doors, without a socket between.

A durable run or a batch's line is a request like any other: it must find its route, its rights,
its limits and its error bodies where a caller from outside finds them, or there would be a
second way past each of them. Loopback HTTP would do that at the price of a client, a parser and
a socket for every line, and would need a key that stands for every tenant. Here the same ASGI
application is called with a scope that no parser can make: it carries the principal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from penstock.errors import InternalError
from penstock.http.exchange import INSIDE, HangUp, Inside

_Message: TypeAlias = MutableMapping[str, Any]
Application: TypeAlias = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[_Message]],
        Callable[[_Message], Awaitable[None]],
    ],
    Awaitable[None],
]

PIECES_HELD_MAX: Final = 8
"""How far a door may be ahead of who reads its answer."""


class _Line:
    """Stands for the connection that there is none of."""

    def __init__(self) -> None:
        self.hang_up = HangUp()
        self.is_closed = False

    def is_closing(self) -> bool:
        return self.is_closed or self.hang_up.is_gone

    def close(self) -> None:
        self.is_closed = True


class InsideAnswer:
    """An answer under way: ``status`` and ``headers`` (lower-case) are there, the body comes."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_whole = False
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(PIECES_HELD_MAX)
        self._begun = asyncio.Event()
        self._gone = asyncio.Event()
        self._line = _Line()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. ``is_whole`` then says whether it came to its end."""
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def body(self, bytes_max: int) -> bytes | None:
        """The whole body; None where it is larger."""
        whole = bytearray()
        async for piece in self.pieces():
            whole += piece
            if len(whole) > bytes_max:
                return None
        return bytes(whole)

    async def _send(self, message: _Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                self.headers[name.decode("latin-1")] = value.decode("latin-1")
            self._begun.set()
            return
        self.is_whole = not message.get("more_body", False)
        if message.get("body"):
            await self._put(message["body"])

    async def _put(self, piece: bytes | None) -> None:
        """Wait for room, as long as somebody reads."""
        put = asyncio.ensure_future(self._pieces.put(piece))
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({put, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
            gone.cancel()

    def _hang_up(self) -> None:
        self._gone.set()
        self._line.hang_up.tell()

    async def _run(self, application: Application, scope: _Message, body: bytes) -> None:
        bodies = [body]
        scope["state"] = {"transport": self._line, "hang_up": self._line.hang_up}

        async def receive() -> _Message:
            if bodies:
                return {"type": "http.request", "body": bodies.pop(), "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        try:
            await application(scope, receive, self._send)
        finally:
            self._begun.set()
            await self._put(None)


class InsideCalls:
    """Makes requests to ``application``, which the composition root sets."""

    def __init__(self) -> None:
        self.application: Application | None = None

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: bytes,
        inside: Inside,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[InsideAnswer]:
        """The answer, once its head is there. Leaving the block early hangs up."""
        assert self.application is not None
        answer = InsideAnswer()
        scope = _scope(method, path, len(body), inside, headers or {})
        task = asyncio.ensure_future(answer._run(self.application, scope, body))  # noqa: SLF001 - one module
        try:
            await answer._begun.wait()  # noqa: SLF001 - one module
            if not answer.status:
                await task
                raise InternalError("a door ended without an answer")
            yield answer
        finally:
            answer._hang_up()  # noqa: SLF001 - one module
            await asyncio.wait({task})


def _scope(
    method: str, path: str, length: int, inside: Inside, headers: Mapping[str, str]
) -> _Message:
    named = {
        "host": "127.0.0.1",
        "content-type": "application/json",
        "content-length": str(length),
        **headers,
    }
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path, safe="/:@+$").encode("ascii"),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()
        ],
        "client": None,
        "server": None,
        INSIDE: inside,
    }
