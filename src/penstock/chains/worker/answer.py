"""Writes one answer to the front: whole, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from penstock.chains.late_error import late_error
from penstock.chains.spec import OUTCOME_HEADER
from penstock.chains.worker.faults import InvalidInput
from penstock.errors import CallError
from penstock.http.error_body import ErrorShape, render
from penstock.http.sse import comment
from penstock.units import Outcome

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

PING_SECONDS = 15.0
"""How long a stream may be silent; also how long its status is held back for a first chunk."""


class Answer:
    """Writes one answer to the front."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.started = False
        self.headers: dict[str, str] = {}
        self.shape = ErrorShape.PROBLEM

    async def json(self, body: bytes) -> None:
        """A whole answer of status 200."""
        await self._whole(200, Outcome.SUCCESS, {"content-type": "application/json"}, body)

    async def error(self, error: CallError) -> None:
        """A whole answer that is an error; late in a stream, its last event."""
        if self.started:
            await self._write(late_error(error, self.shape, self._request_id))
            await self._finish()
            return
        status, headers, body = render(error, self.shape, self._request_id)
        if isinstance(error, InvalidInput) and self.shape is ErrorShape.PROBLEM:
            # The protocol's clients look for pydantic's list here, not for RFC 9457's text.
            body = msgspec.json.encode({**msgspec.json.decode(body), "detail": error.details})
        await self._whole(status, error.outcome, {**headers, **self.headers}, body)

    async def stream(self, frames: AsyncGenerator[bytes, None], end: bytes) -> None:
        """Whole events as they come, a comment where none comes for long, ``end`` after the last.

        The status is held back until the first frame or the first error: that one still becomes
        the answer's status. Raises CallError only while nothing has been sent.
        """
        try:
            async with aclosing(frames), aclosing(pinged(frames)) as upcoming:
                async for frame in upcoming:
                    await self._start_stream()
                    await self._write(comment("ping") if frame is None else frame)
        except CallError as error:
            if not self.started:
                raise
            await self.error(error)
            return
        await self._start_stream()
        await self._write(end)
        await self._finish()

    async def _start_stream(self) -> None:
        if not self.started:
            headers = {
                "content-type": "text/event-stream",
                "cache-control": "no-cache",
                "x-accel-buffering": "no",
            }
            await self._head(200, Outcome.SUCCESS, headers)

    async def _write(self, data: bytes) -> None:
        """A part of the body; waits while the front does not take it."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _whole(
        self, status: int, outcome: Outcome, headers: Mapping[str, str], body: bytes
    ) -> None:
        await self._head(status, outcome, {**headers, "content-length": str(len(body))})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _head(self, status: int, outcome: Outcome, headers: Mapping[str, str]) -> None:
        self.started = True
        all_headers = {**headers, OUTCOME_HEADER: outcome.value}
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (name.encode("latin-1"), value.encode("latin-1"))
                    for name, value in all_headers.items()
                ],
            }
        )


async def pinged(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes | None, None]:
    """The chunks, and None whenever there was none for PING_SECONDS."""
    upcoming: asyncio.Task[bytes] | None = None
    try:
        while True:
            if upcoming is None:
                upcoming = asyncio.create_task(_next(chunks))
            await asyncio.wait({upcoming}, timeout=PING_SECONDS)
            if not upcoming.done():
                yield None
                continue
            finished, upcoming = upcoming, None
            try:
                chunk = finished.result()
            except StopAsyncIteration:
                return
            yield chunk
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.wait({upcoming})


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    return await anext(chunks)
