"""A stream's way from the provider's socket to its caller, where one of them is out of step."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from penstock.dispatch import calls
from penstock.dispatch.calls import StreamedAnswer
from penstock.dispatch.upstream import Timeouts, Upstream
from penstock.providers.base import Endpoint
from penstock.providers.openai import OpenAIAdapter

ADAPTER = OpenAIAdapter()
CALL = ADAPTER.parse(
    Endpoint.CHAT, b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}'
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
TIMEOUTS = Timeouts(connect_seconds=5, first_byte_seconds=5, idle_seconds=5, total_seconds=20)


async def passed_on(talk, write, drained):
    """Has what a provider says passed on to a caller; the answer."""

    async def handle(reader, writer):
        await reader.readuntil(b"{}")
        try:
            await talk(writer)
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    upstream = Upstream()
    try:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        response = await upstream.send(url, {}, b"{}", TIMEOUTS)
        unit = SimpleNamespace(estimate=SimpleNamespace(tokens_input=1, tokens_output=1))
        answer = StreamedAnswer(unit, None, response, ADAPTER.stream_reader(CALL), None)
        try:
            await answer.begin()
            await answer.pass_to(write, drained)
        finally:
            answer.close()
        return answer
    finally:
        await upstream.close()
        server.close()
        await server.wait_closed()


async def at_once():
    """A caller who takes everything."""


def test_whatever_a_provider_says_behind_the_end_of_a_stream_does_not_prolong_it(monkeypatch):
    monkeypatch.setattr(calls, "END_SECONDS_MAX", 0.1)
    got = []
    taken = asyncio.Queue()

    async def talk(writer):
        writer.write(HEAD + DELTA + DONE)
        while await taken.get():
            writer.write(b": still here\n\n")
            await writer.drain()

    def write(piece):
        got.append(piece)
        taken.put_nowait(piece)
        return True

    async def go():
        async with asyncio.timeout(3):
            answer = await passed_on(talk, write, at_once)
        assert answer.is_complete
        taken.put_nowait(None)

    asyncio.run(go())

    assert b"".join(got).startswith(DELTA + DONE)
