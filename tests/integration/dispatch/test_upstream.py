"""The client towards providers, against a provider that writes raw bytes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from penstock.dispatch.upstream import READ_BYTES_MAX, Timeouts, Upstream

TIMEOUTS = Timeouts(connect_seconds=5, first_byte_seconds=5, idle_seconds=5, total_seconds=10)


@asynccontextmanager
async def answered(*pieces):
    """What a provider that answers with these bytes is answered like."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.writelines(pieces)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    upstream = Upstream()
    try:
        port = server.sockets[0].getsockname()[1]
        response = await upstream.send(f"http://127.0.0.1:{port}/", {}, b"{}", TIMEOUTS)
        yield response
        response.release(is_complete=False)
    finally:
        await upstream.close()
        server.close()
        await server.wait_closed()


def test_a_provider_that_sends_as_fast_as_it_can_lets_others_go_first():
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def go():
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
        async with answered(head, b"a" * 3_000_000) as response:
            counting = asyncio.create_task(count_turns())
            received = 0
            while chunk := await response.chunk():
                assert len(chunk) <= READ_BYTES_MAX
                received += len(chunk)
            counting.cancel()
        assert received == 3_000_000

    asyncio.run(go())

    assert turns >= 3_000_000 // READ_BYTES_MAX
