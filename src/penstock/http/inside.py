"""Requests that this process makes to its own doors, without a socket between.

A durable run or a batch's line is a request like any other: it must find its route, its rights,
its limits and its error bodies where a caller from outside finds them, or there would be a
second way past each of them. Loopback HTTP would do that at the price of a client, a parser and
a socket for every line, and would need a key that stands for every tenant. Here the same doors
are asked with a scope that no parser can make: it carries the principal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias
from urllib.parse import quote

from penstock.errors import InternalError
from penstock.http.exchange import INSIDE, Inside
from penstock.http.line import HangUp, Message, Scope

Answering: TypeAlias = Callable[[Scope], Awaitable[None]]

PIECES_HELD_MAX: Final = 8
"""How far a door may be ahead of who reads its answer."""


class InsideAnswer:
    """An answer under way: ``status`` and ``headers`` (lower-case) are there, the body comes."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_whole = False
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._begun = asyncio.Event()
        self._gone = asyncio.Event()
        self._is_closed = False
        self._asked: bytes | None = None
        self.hang_up = HangUp()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. ``is_whole`` then says whether it came to its end."""
        while (piece := await self._pieces.get()) is not None:
            self._room.set()
            yield piece

    async def body(self, bytes_max: int) -> bytes | None:
        """The whole body; None where it is larger."""
        whole = bytearray()
        async for piece in self.pieces():
            whole += piece
            if len(whole) > bytes_max:
                return None
        return bytes(whole)

    # What a door sees: the line to its caller.

    def is_closing(self) -> bool:
        """Whether nobody reads any more."""
        return self._is_closed or self.hang_up.is_gone

    def close(self) -> None:
        """The answer breaks off."""
        self._is_closed = True

    def whole_body(self) -> bytes | None:
        """The request's body, once."""
        asked, self._asked = self._asked, None
        return asked

    async def receive(self) -> Message:
        """The same as ASGI has it, then the hang-up."""
        asked = self.whole_body()
        if asked is not None:
            return {"type": "http.request", "body": asked, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """The head is here."""
        self.status = status
        self.headers = dict(headers)
        if length is not None:
            self.headers["content-length"] = str(length)
        self._begun.set()

    def write(self, chunk: bytes, *, is_last: bool) -> None:
        """A piece is here."""
        self.is_whole = is_last
        if chunk:
            self._pieces.put_nowait(chunk)

    @property
    def is_full(self) -> bool:
        """Whether too many pieces are here."""
        return self._pieces.qsize() >= PIECES_HELD_MAX and not self.hang_up.is_gone

    async def drained(self) -> None:
        """Wait for room, as long as somebody reads."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def _hang_up(self) -> None:
        self._gone.set()
        self.hang_up.tell()
        self._room.set()

    async def _run(self, answer: Answering, scope: Scope, body: bytes) -> None:
        self._asked = body
        scope["state"] = {"line": self}
        try:
            await answer(scope)
        finally:
            self._begun.set()
            self._pieces.put_nowait(None)


class InsideCalls:
    """Makes requests to the doors; ``doors``, which the composition root sets, finds theirs."""

    def __init__(self) -> None:
        self.doors: Answering | None = None

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
        assert self.doors is not None
        answer = InsideAnswer()
        scope = _scope(method, path, len(body), inside, headers or {})
        task = asyncio.ensure_future(answer._run(self.doors, scope, body))  # noqa: SLF001 - one module
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
) -> Scope:
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
