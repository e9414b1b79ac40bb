"""The reference: a proxy on the same server and client libraries which does nothing but forward.

Raw ASGI on uvicorn (httptools, uvloop); towards the provider either aiohttp or the client of our
own. No keys, no limits, no queue, no usage, no ledger, no metrics, no bounds: what is left is the
price of server and client, so that a gateway's own work can be told from it.

Usage: ``reference.py PORT_FILE UPSTREAM_URL aiohttp|own``.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
import uvloop

from penstock.dispatch.upstream import Timeouts, Upstream

TIMEOUTS = Timeouts(connect_seconds=5, first_byte_seconds=60, idle_seconds=60, total_seconds=600)

SENT_HEADERS = {"content-type": "application/json", "authorization": "Bearer benchmark"}


async def body_of(receive: Any) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


class ForwardWithAiohttp:
    """The ASGI app, with aiohttp's client."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.upstream = upstream
        self.session = session

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await body_of(receive)
        url = self.upstream + scope["path"]
        async with self.session.post(url, data=body, headers=SENT_HEADERS) as answer:
            kind = answer.headers["content-type"].encode()
            headers = [(b"content-type", kind)]
            if kind == b"application/json":
                whole = await answer.read()
                headers.append((b"content-length", str(len(whole)).encode()))
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": whole})
                return
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


class Forward:
    """The ASGI app, with our client."""

    def __init__(self, upstream: str, client: Upstream) -> None:
        self.upstream = upstream
        self.client = client

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await body_of(receive)
        url = self.upstream + scope["path"]
        answer = await self.client.send(url, SENT_HEADERS, body, TIMEOUTS)
        kind = answer.headers["content-type"].encode()
        headers = [(b"content-type", kind)]
        if kind == b"application/json":
            whole = await answer.body()
            headers.append((b"content-length", str(len(whole)).encode()))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": whole})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while chunk := await answer.chunk():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        answer.release(is_complete=True)


async def _serve(port_file: Path, upstream: str, client: str) -> None:
    async with AsyncExitStack() as stack:
        app: Any
        if client == "aiohttp":
            connector = aiohttp.TCPConnector(limit=4096)
            session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
            app = ForwardWithAiohttp(upstream, await stack.enter_async_context(session))
        else:
            own = Upstream()
            stack.push_async_callback(own.close)
            app = Forward(upstream, own)
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        config = uvicorn.Config(
            app, http="httptools", lifespan="off", log_level="error", access_log=False
        )
        port_file.write_text(str(listener.getsockname()[1]))
        await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
