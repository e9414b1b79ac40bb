"""A provider that costs next to nothing: fixed answers over a raw asyncio protocol.

It is no sandbox: it keeps no limits and reads nothing but where a request ends. A body with
``"stream": true`` or ``"stream":true`` gets twenty chunks and an end with usage, each chunk in a
write of its own, so that nobody can pass them on in one piece; any other gets 2 kB of JSON.
``hold`` in the path keeps a stream open after its first chunk.

Usage: ``mock_provider.py PORT_FILE``; it writes its port there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

CHUNKS = 20


def _completion(text: str) -> dict[str, object]:
    return {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "benchmark",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 400, "completion_tokens": 400, "total_tokens": 800},
    }


def _chunk(number: int) -> bytes:
    choice = {"index": 0, "delta": {"content": f"word {number} and some more "}}
    data = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "benchmark",
        "choices": [{**choice, "finish_reason": None}],
    }
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _last_chunk() -> bytes:
    data = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "benchmark",
        "choices": [],
        "usage": {"prompt_tokens": 400, "completion_tokens": 20, "total_tokens": 420},
    }
    return b"data: " + json.dumps(data).encode() + b"\n\ndata: [DONE]\n\n"


def _framed(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


_BODY = json.dumps(_completion("An answer of usual length. " * 64)).encode()
PLAIN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY)
) + _BODY
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_PIECES = [*(_framed(_chunk(number)) for number in range(CHUNKS)), _framed(_last_chunk())]
STREAM_END = b"0\r\n\r\n"


class Provider(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.received = bytearray()
        self.pieces: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.received += data
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self.received[:head_end]).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(self.received) < head_end + 4 + length:
            return
        body = bytes(self.received[head_end + 4 :])
        self.received.clear()
        if b'"stream": true' not in body and b'"stream":true' not in body:
            self.transport.write(PLAIN)
            return
        self.transport.write(STREAM_HEAD + STREAM_PIECES[0])
        if b"hold the line" not in body:
            self.pieces = [*STREAM_PIECES[1:], STREAM_END]
            asyncio.get_running_loop().call_soon(self.write_piece)

    def write_piece(self) -> None:
        self.transport.write(self.pieces.pop(0))
        if self.pieces:
            asyncio.get_running_loop().call_soon(self.write_piece)


async def _serve(port_file: Path) -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=2048)
    port_file.write_text(str(server.sockets[0].getsockname()[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
