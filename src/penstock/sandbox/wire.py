"""One request and its answer over raw ASGI: bounded body, hang-ups, pauses, broken connections.

A hang-up is noticed only while the sandbox waits: an answer that takes no time needs no
watching task, which is most of what a request costs here.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from penstock.http.line import Receive, Scope, Send
from penstock.sandbox.headers import Headers

BODY_BYTES_MAX = 32 * 1024 * 1024
_LINGER_NOT = struct.pack("ii", 1, 0)


class HungUp(Exception):
    """The client is gone."""


class BodyTooLarge(Exception):
    """The body passes ``BODY_BYTES_MAX``."""


class Wire:
    """One exchange. Not to be used by two tasks at once."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watch: asyncio.Task[None] | None = None

    async def body(self) -> bytes:
        """The whole body. Raises BodyTooLarge, HungUp."""
        message = await self._receive()
        if message["type"] != "http.request":
            raise HungUp
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return body
        chunks, length = [body], len(body)
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] != "http.request":
                raise HungUp
            chunks.append(message.get("body", b""))
            length += len(chunks[-1])
            if length > BODY_BYTES_MAX:
                raise BodyTooLarge
        return b"".join(chunks)

    async def pause(self, seconds: float | None) -> None:
        """Wait; None waits until the client is gone. Raises HungUp as soon as it is."""
        if seconds is not None and seconds <= 0:
            return
        if self._watch is None:
            self._watch = asyncio.create_task(self._until_gone())
        gone, _ = await asyncio.wait((self._watch,), timeout=seconds)
        if gone:
            raise HungUp

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, status: int, headers: Headers) -> None:
        """The status and headers of an answer; ``write`` and ``finish`` follow."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, chunk: bytes) -> None:
        """A part of the body; waits while the client does not read. Raises HungUp."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        if self._watch is not None and self._watch.done():
            raise HungUp

    async def finish(self) -> None:
        """The end of the body."""
        await self._send({"type": "http.response.body", "body": b""})

    async def cut(self, *, reset: bool) -> None:
        """Break the connection: with a TCP reset, or by closing in the middle of the answer."""
        transport = self._transport()
        if reset:
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT
            )
            transport.abort()
        else:
            transport.close()
        if self._watch is None:
            await self._until_gone()
        else:
            await asyncio.wait((self._watch,))

    def abort(self) -> None:
        """Drop the connection; whoever waits on this wire finds its client gone."""
        self._transport().abort()

    def close(self) -> None:
        """Stop watching; to be called when the exchange is over."""
        if self._watch is not None:
            self._watch.cancel()

    def _transport(self) -> asyncio.Transport:
        # Our HTTP server passes it here; ASGI itself knows no way to break a connection.
        transport: asyncio.Transport = self._scope["state"]["transport"]
        return transport

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
