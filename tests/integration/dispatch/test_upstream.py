"""The client towards providers, against a provider that writes raw bytes."""

from __future__ import annotations

import asyncio
import gc
import random
import ssl
import subprocess
import weakref
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from penstock.dispatch.connection import HEADER_BYTES_MAX, INTERIM_MAX, Connection
from penstock.dispatch.upstream import READ_BYTES_MAX, Timeouts, Upstream, UpstreamFault
from penstock.errors import UpstreamInvalid
from penstock.http.server import event_loop_factory

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


HURRIED = Timeouts(connect_seconds=5, first_byte_seconds=0.05, idle_seconds=0.05, total_seconds=10)
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


async def whole_answer(*pieces):
    async with answered(*pieces) as response:
        return response.status, dict(response.headers), await response.body()


@asynccontextmanager
async def provider(talk):
    """An upstream and the address of a provider whose connections are handled by ``talk``."""
    talks = set()

    async def handle(reader, writer):
        talks.add(asyncio.current_task())
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    upstream = Upstream()
    try:
        yield upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?a=b"
    finally:
        await upstream.close()
        server.close()
        await asyncio.gather(*talks)
        await server.wait_closed()


async def ask(upstream, url, timeouts=TIMEOUTS):
    response = await upstream.send(url, {"x-one": "1"}, b"{}", timeouts)
    body = await response.body()
    response.release(is_complete=True)
    return body


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", b"ab"),
        (b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n" * INTERIM_MAX + WHOLE, b"{}"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
def test_every_way_to_end_a_body_is_understood(raw, expected):
    status, headers, body = asyncio.run(whole_answer(raw))

    assert (200, expected) == (status, body)
    assert "x" not in headers


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_MAX + 1) + WHOLE,
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-encoding: identity\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * (HEADER_BYTES_MAX + 1),
    ],
)
def test_what_is_left_to_a_reader_s_judgement_is_refused(raw):
    with pytest.raises(UpstreamInvalid, match="head that cannot be read"):
        asyncio.run(whole_answer(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"",
    ],
)
def test_a_torn_answer_is_a_fault_that_the_provider_may_have_seen(raw):
    with pytest.raises(UpstreamFault) as caught:
        asyncio.run(whole_answer(raw))

    assert caught.value.was_sent
    assert not caught.value.is_stale


def test_a_connection_is_kept_for_the_next_call_and_its_end_in_between_is_stale():
    requests = []

    async def twice(reader, writer):
        for _ in range(2):
            requests.append(await reader.readuntil(b"{}"))
            writer.write(WHOLE)

    async def go():
        async with provider(twice) as (upstream, url):
            assert [b"{}", b"{}"] == [await ask(upstream, url), await ask(upstream, url)]

    asyncio.run(go())

    first, second = requests
    assert first == second
    assert first.startswith(b"POST /v1/x?a=b HTTP/1.1\r\nhost: 127.0.0.1:")
    assert first.endswith(b"x-one: 1\r\ncontent-length: 2\r\n\r\n{}")


def test_a_connection_that_has_ended_is_gone(monkeypatch):
    made = weakref.WeakSet()

    class Watched(Connection):
        def connection_made(self, transport):
            made.add(self)
            super().connection_made(transport)

    monkeypatch.setattr("penstock.dispatch.upstream.Connection", Watched)

    async def once(reader, writer):
        await reader.readuntil(b"{}")
        writer.write(WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

    async def go():
        gc.collect()
        gc.disable()
        try:
            async with provider(once) as (upstream, url):
                for _ in range(5):
                    assert await ask(upstream, url) == b"{}"
            assert not made
        finally:
            gc.enable()

    asyncio.run(go())


def test_a_connection_that_ends_instead_of_a_second_answer_is_stale():
    async def once(reader, writer):
        await reader.readuntil(b"{}")
        writer.write(WHOLE)
        await reader.readuntil(b"{}")

    async def go():
        async with provider(once) as (upstream, url):
            await ask(upstream, url)
            with pytest.raises(UpstreamFault) as caught:
                await ask(upstream, url)
            return caught.value

    assert asyncio.run(go()).is_stale


def test_what_comes_behind_an_answer_ends_the_connection():
    connections = 0

    async def talkative(reader, writer):
        nonlocal connections
        connections += 1
        await reader.readuntil(b"{}")
        writer.write(WHOLE + WHOLE)
        await reader.read()

    async def go():
        async with provider(talkative) as (upstream, url):
            assert [b"{}", b"{}"] == [await ask(upstream, url), await ask(upstream, url)]

    asyncio.run(go())

    assert 2 == connections


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nabc", id="whose end is the connection's"),
    ],
)
def test_silence_ends_a_call_before_and_within_its_answer(said):
    async def silent(reader, writer):
        await reader.readuntil(b"{}")
        writer.write(said)
        await reader.read()

    async def go():
        timeouts = HURRIED if said else Timeouts(0.02, 0.03, 5, 10)
        async with provider(silent) as (upstream, url):
            with pytest.raises(UpstreamFault) as caught:
                await ask(upstream, url, timeouts)
            return caught.value

    fault = asyncio.run(go())

    assert fault.is_timeout
    assert fault.was_sent


def test_what_flows_is_life_though_the_answer_before_it_was_as_long():
    """At the sweep that saw it last, the other answer had just as many bytes."""

    async def go():
        loop = asyncio.get_running_loop()
        connection = Connection(loop, memoryview(bytearray(100)))
        connection.connection_made(Mock(is_closing=lambda: False))

        def arrive(said):
            connection.get_buffer(-1)[: len(said)] = said
            connection.buffer_updated(len(said))

        for _ in range(2):
            asked = loop.create_task(connection.exchange_heads(b""))
            await asyncio.sleep(0)
            arrive(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            await asked
            connection.silent_until = 1.0
            flow = loop.create_task(connection.flow(lambda _: True, 1.0, 9.0))
            await asyncio.sleep(0)
            arrive(b"abc")
            assert not connection.is_silent(0.9)
            assert not connection.is_silent(1.8)
            arrive(b"defghi")
            await flow

    asyncio.run(go())


def test_a_header_with_a_line_break_is_never_sent():
    async def go():
        async with provider(lambda reader, writer: reader.read()) as (upstream, url):
            with pytest.raises(ValueError, match="line break"):
                await upstream.send(url, {"x": "a\r\nhost: b"}, b"{}", TIMEOUTS)

    asyncio.run(go())


@pytest.fixture(scope="module")
def certificate(program, tmp_path_factory) -> Path:
    """A key and a certificate for ``provider.test`` and ``localhost``, signed by itself."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += [
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=provider.test",
    ]
    command += ["-addext", "subjectAltName=DNS:provider.test,DNS:localhost"]
    command += ["-keyout", str(file), "-out", "-"]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    file.write_text(file.read_text() + made.stdout)
    return file


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_certificate_of_nobody_or_of_another_host_is_refused_unsent(certificate, is_trusted):
    """Whom we do not know, and whom we know by another name, get neither key nor prompt."""
    seen = []

    async def go():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

        async def talk(reader, writer):
            seen.append(await reader.read(1))
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
        upstream = Upstream(trusting(certificate) if is_trusted else None)
        port = server.sockets[0].getsockname()[1]
        try:
            with pytest.raises(UpstreamFault) as caught:
                await upstream.send(f"https://127.0.0.1:{port}/", {}, b"secret", TIMEOUTS)
        finally:
            await upstream.close()
            server.close()
            await server.wait_closed()
        return caught.value

    fault = asyncio.run(go())

    assert fault.reason == "SSLCertVerificationError"
    assert not fault.was_sent
    assert not any(seen)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, event_loop_factory()])
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_an_answer_in_many_records_comes_as_it_was_sent(certificate, factory, size):
    body = random.Random(size).randbytes(size)

    async def talk(reader, writer):
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for start in range(0, size, 1000):
            writer.write(body[start : start + 1000])
        await writer.drain()
        writer.close()

    async def go():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
        upstream = Upstream(trusting(certificate))
        try:
            url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
            return await ask(upstream, url)
        finally:
            await upstream.close()
            server.close()
            await server.wait_closed()

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(go()) == body


def test_connections_that_nobody_uses_make_room_for_a_call_elsewhere(monkeypatch):
    monkeypatch.setattr("penstock.dispatch.upstream.CONNECTIONS_MAX", 2)

    async def talk(reader, writer):
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            writer.write(WHOLE)

    async def go():
        async with provider(talk) as (upstream, first), provider(talk) as (_, second):
            kept = [await upstream.send(first, {}, b"{}", TIMEOUTS) for _ in range(2)]
            for response in kept:
                await response.body()
                response.release(is_complete=True)
            brief = Timeouts(0.5, 5, 5, 10)
            try:
                return await ask(upstream, second, brief)
            finally:
                await upstream.close()  # else the second provider waits for its caller's end

    assert asyncio.run(go()) == b"{}"


def test_without_room_for_another_connection_a_call_fails_in_time(monkeypatch):
    monkeypatch.setattr("penstock.dispatch.upstream.CONNECTIONS_MAX", 1)
    brief = Timeouts(0.05, 5, 5, 10)

    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()

    async def go():
        async with provider(talk) as (upstream, url):
            busy = asyncio.ensure_future(upstream.send(url, {}, b"{}", TIMEOUTS))
            await asyncio.sleep(0)
            with pytest.raises(UpstreamFault) as caught:
                await upstream.send(url, {}, b"{}", brief)
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
            return caught.value

    fault = asyncio.run(go())

    assert fault.is_timeout
    assert not fault.was_sent
