"""The server bounds whatever a caller can make long or slow, and stays a good HTTP/1.1 server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import resource
import socket
import weakref

import pytest

from penstock.http.connection import LINGER_SECONDS, Connection
from penstock.http.exchange import while_connected
from penstock.units import Outcome

ENCODED = b"transfer-encoding: chunked\r\n"
HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answer)]


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param([b"GET /" + b"a" * 300_000], id="request line"),
        pytest.param([b"GET / HTTP/1.1\r\nx: " + b"a" * 300_000], id="one header"),
        pytest.param([b"GET / HTTP/1.1\r\n", *[b"x: " + b"a" * 60 + b"\r\n"] * 3000], id="many"),
        pytest.param([HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 300_000], id="ext"),
        pytest.param(
            [HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x: " + b"a" * 300_000],
            id="trailer",
        ),
        pytest.param([b"\r\n" * 100_000], id="empty lines"),
    ],
)
def test_more_bytes_than_the_cap_without_a_milestone_are_refused(run, serving, endless) -> None:
    async def scenario() -> None:
        async with serving() as service:
            answer = await service.talk(*endless)
            assert statuses(answer) in ([431], [400])
            assert b"connection: close" in answer
            assert b"urn:penstock:error:" in answer
            assert statuses(await service.talk(HEAD + b"connection: close\r\n\r\n")) == [200]

    run(scenario())


def test_a_huge_head_costs_neither_memory_nor_other_callers_time(run, serving) -> None:
    """Plain httptools needed 24.6 s for 64 MiB, quadratically; here the first cap ends it."""

    async def scenario() -> None:
        async with serving() as service:
            before = resource.getrusage(resource.RUSAGE_SELF)
            reader, writer = await service.connect()
            writer.write(b"GET / HTTP/1.1\r\nx: ")
            with contextlib.suppress(ConnectionError):  # it is read and thrown away, or cut
                for _ in range(2048):
                    writer.write(b"a" * 32_768)
                    await writer.drain()
                    await asyncio.sleep(0)
            assert statuses(await service.rest_of(reader)) in ([431], [])
            after = resource.getrusage(resource.RUSAGE_SELF)
            assert after.ru_maxrss - before.ru_maxrss < 32 * 1024
            assert after.ru_utime - before.ru_utime < 3

    run(scenario())


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
        (HEAD + b"content-length: -1\r\n\r\n", 400),
        (HEAD + b"content-length: 1e3\r\n\r\n", 400),
        (HEAD + b"content-length: 99999999999999999999999\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: gzip\r\n\r\nabc", 400),
        (HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + ENCODED + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: gzip, chunked\r\n" + ENCODED + b"\r\n0\r\n\r\n", 400),
        (HEAD + ENCODED + ENCODED + b"\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"content-length: 3, 3\r\n\r\nabc", 400),
        (HEAD + b"content-length: +3\r\n\r\nabc", 400),
        (HEAD + b"content-length:\r\n\r\n", 400),
        (HEAD + b"x: a\r\n b: folded\r\n\r\n", 400),
        (HEAD + b"x: a\nb: c\r\n\r\n", 400),
        (HEAD + b"x: a\rb: c\r\n\r\n", 400),
        (b"POST / HTTP/1.1\nhost: localhost\n\n", 400),
        (b"GET / HTTP/1.1\r\n host: localhost\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n3;a=b\rX\r\nabc\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\nx: y\r\nbad trailer\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
        (HEAD + b"x y: 1\r\n\r\n", 400),
        (HEAD + b"x : 1\r\n\r\n", 400),
        (HEAD + b"x: a\x00b\r\n\r\n", 400),
        (HEAD + b": empty\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /#/../admin HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nhost: localhost\r\n\r\n", 505),
        (b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (HEAD + b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 3\r\n\r\nabc", 400),
        (HEAD + b"x: 1\r\n" * 257 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400),
    ],
)
def test_what_others_may_read_differently_is_refused_and_never_500(
    run, serving, request_bytes, expected
) -> None:
    async def scenario() -> None:
        async with serving() as service:
            reader, writer = await service.connect()
            writer.write(request_bytes)
            async with asyncio.timeout(10):
                answer = await reader.readuntil(b"\r\n\r\n")
                assert statuses(answer) == [expected]

    run(scenario())


def test_a_refused_request_is_never_followed_by_an_answer_to_what_came_behind_it(
    run, serving
) -> None:
    """The smuggled second request of a request with both lengths is not served."""

    async def scenario() -> None:
        async with serving() as service:
            both = b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            assert statuses(await service.talk(HEAD + both + GET + GET)) == [400]

    run(scenario())


def test_a_refused_caller_sees_the_end_of_its_answer_at_once(run, serving) -> None:
    """Our side is closed for writing, while what still comes is thrown away."""

    async def scenario() -> None:
        async with serving() as service, asyncio.timeout(LINGER_SECONDS / 2):
            assert statuses(await service.talk(b"rubbish\r\n\r\n")) == [400]

    run(scenario())


def test_trailers_do_not_become_headers(run, serving) -> None:
    async def handler(exchange):
        await exchange.body()
        named = exchange.headers.get("authorization", "none")
        await exchange.respond(200, named.encode(), "text/plain")

    async def scenario() -> None:
        async with serving(handler) as service:
            answer = await service.talk(
                HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
                b"0\r\nauthorization: Bearer x\r\n\r\n"
            )
            assert answer.endswith(b"\r\n\r\nnone")

    run(scenario())


def test_pipelined_requests_are_answered_in_order_on_one_connection(run, serving) -> None:
    async def scenario() -> None:
        async with serving() as service:
            requests = b"".join(
                HEAD + b"content-length: 1\r\n\r\n" + bytes([ord("a") + i]) for i in range(20)
            )
            answer = await service.talk(requests + HEAD + b"connection: close\r\n\r\n")
            assert statuses(answer) == [200] * 21
            bodies = [part[:1] for part in answer.split(b"content-length: 1\r\n\r\n")[1:]]
            assert bodies == [bytes([ord("a") + i]) for i in range(20)]

    run(scenario())


def test_a_bad_pipelined_request_does_not_answer_for_the_one_before_it(run, serving) -> None:
    """The caller must not take the 400 for the answer to its first request."""
    entered = asyncio.Event()

    async def handler(exchange):
        entered.set()
        await while_connected(exchange, asyncio.Event().wait())

    async def scenario() -> None:
        async with serving(handler) as service:
            reader, writer = await service.connect()
            writer.write(GET)
            await entered.wait()
            writer.write(b"rubbish\r\n\r\n")
            assert await service.rest_of(reader) == b""

    run(scenario())


def test_more_pipelined_requests_than_the_cap_end_the_connection(run, serving) -> None:
    async def scenario() -> None:
        async with serving() as service:
            answer = await service.talk(GET * 1000)
            assert len(statuses(answer)) < 1000

    run(scenario())


def test_an_offered_upgrade_is_ignored_and_the_next_request_served(run, serving) -> None:
    async def scenario() -> None:
        async with serving() as service:
            offer = (
                b"GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
            )
            answer = await service.talk(offer + HEAD + b"connection: close\r\n\r\n")
            assert statuses(answer) == [200, 200]

    run(scenario())


@pytest.mark.parametrize("said", [b"", b"GET / HT", HEAD, b"\r\n\r\n"])
def test_a_head_that_does_not_arrive_in_time_ends_the_connection(run, serving, said) -> None:
    async def scenario() -> None:
        async with serving(header_timeout_seconds=0.2) as service:
            answer = await service.talk(said)
            assert statuses(answer) == ([408] if said else [])

    run(scenario())


def test_a_head_that_drips_is_timed_from_its_first_byte(run, serving) -> None:
    async def scenario() -> None:
        async with serving(header_timeout_seconds=0.3) as service:
            reader, writer = await service.connect()
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + b"x: ")
            began = asyncio.get_running_loop().time()

            async def drip() -> None:
                while True:
                    writer.write(b"x")
                    await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            answer = await reader.read()
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
            assert statuses(answer) == [408]
            assert asyncio.get_running_loop().time() - began < 3

    run(scenario())


def test_a_reader_that_takes_nothing_is_cut_off(run, serving) -> None:
    ended: list[str] = []
    done = asyncio.Event()

    async def handler(exchange):
        try:
            await exchange.start(200, "text/plain")
            while True:
                await exchange.write(b"x" * 65_536)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise
        finally:
            done.set()

    async def scenario() -> None:
        async with serving(handler, write_timeout_seconds=0.4) as service:
            sock = socket.create_connection(("127.0.0.1", service.server.port))
            sock.sendall(GET)
            async with asyncio.timeout(10):
                await done.wait()
            sock.close()
            assert ended == ["ClientGone"]

    run(scenario())


def test_a_whole_answer_that_nobody_takes_does_not_hold_the_connection(run, serving) -> None:
    """The handler is long done; what stays is only the transport's buffer."""
    answered = asyncio.Event()
    service = None

    watched: list[asyncio.Task[None]] = []

    async def handler(exchange):
        await exchange.respond(200, b"x" * 50_000_000)
        watched.append(asyncio.create_task(service.server._all_closed()))
        answered.set()

    async def scenario() -> None:
        nonlocal service
        async with serving(handler, write_timeout_seconds=0.4) as service:
            sock = socket.create_connection(("127.0.0.1", service.server.port))
            sock.sendall(HEAD + b"connection: close\r\n\r\n")
            async with asyncio.timeout(10):
                await answered.wait()
                await watched[0]
            sock.close()

    run(scenario())


def test_what_callers_leave_untaken_is_bounded_together_and_the_largest_are_cut(
    run, serving
) -> None:
    """Three large answers are one too many; who holds little stays, and so do two of them."""
    ended = asyncio.Semaphore(0)

    async def handler(exchange):
        size = 9_000_000 if exchange.headers.get("x-size") == "large" else 20_000
        await exchange.respond(200, b"x" * size)
        ended.release()

    async def scenario() -> None:
        # Twenty megabytes, less what the kernel takes from us of each.
        table = {"bodies_bytes_max": 20_000_000, "write_timeout_seconds": 0.8}
        async with serving(handler, **table) as service:
            cut, listener = asyncio.Event(), service.server._listener
            on_lost = listener.on_lost
            listener.on_lost = lambda: (cut.set(), on_lost())
            large = [await service.connect() for _ in range(3)]
            small_reader, small = await service.connect()
            small.write(GET)
            for _, writer in large:
                writer.transport.pause_reading()
                writer.write(GET.replace(b"\r\n\r\n", b"\r\nx-size: large\r\n\r\n"))
            for _ in range(4):
                await ended.acquire()
            await cut.wait()
            assert len(listener.connections) == 3
            assert statuses(await small_reader.readuntil(b"\r\n\r\n")) == [200]

    run(scenario())


def test_a_slow_reader_that_takes_something_is_served_to_the_end(run, serving) -> None:
    async def handler(exchange):
        await exchange.respond(200, b"x" * 20_000_000)

    async def scenario() -> None:
        async with serving(handler, write_timeout_seconds=0.4) as service:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", service.server.port))
            await loop.sock_sendall(sock, HEAD + b"connection: close\r\n\r\n")
            taken = 0
            while data := await loop.sock_recv(sock, 1_000_000):
                taken += len(data)
                await asyncio.sleep(0.002)
            sock.close()
            assert taken > 20_000_000

    run(scenario())


def test_an_early_answer_lets_the_caller_finish_within_bounds(run, serving) -> None:
    """A 413 must be seen, not drowned by a reset; the connection then goes on."""

    async def scenario() -> None:
        async with serving(body_bytes_max=1000) as service:
            declared = HEAD + b"content-length: 1500\r\n\r\n" + b"x" * 1500
            answer = await service.talk(declared + HEAD + b"connection: close\r\n\r\n")
            assert statuses(answer) == [413, 200]

    run(scenario())


def test_an_answer_before_the_end_of_the_body_is_seen_and_is_the_connection_s_last(
    run, serving
) -> None:
    """Closing at once would reset it, and an HTTP/1.0 proxy then tells its own caller 502."""

    async def scenario() -> None:
        async with serving(body_bytes_max=1000) as service:
            for head in (HEAD, HEAD + b"connection: close\r\n", HEAD.replace(b"1.1", b"1.0")):
                reader, writer = await service.connect()
                writer.write(head + b"content-length: 4000000\r\n\r\n")
                for _ in range(40):  # the caller sends all before it reads anything
                    writer.write(b"x" * 100_000)
                    await writer.drain()
                answer = await service.rest_of(reader)
                assert statuses(answer) == [413]
                assert b"connection: close" in answer

    run(scenario())


def test_a_body_that_goes_on_and_on_after_its_refusal_is_cut(run, serving) -> None:
    async def scenario() -> None:
        async with serving(body_bytes_max=1000) as service:
            reader, writer = await service.connect()
            writer.write(HEAD + b"content-length: 100000\r\n\r\n")
            assert b" 413 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"x" * 5000)
            assert statuses(await service.rest_of(reader)) == []

    run(scenario())


def test_a_body_that_never_comes_after_its_refusal_is_not_waited_for(run, serving) -> None:
    async def scenario() -> None:
        async with serving(body_bytes_max=1000, header_timeout_seconds=0.3) as service:
            assert statuses(await service.talk(HEAD + b"content-length: 100000\r\n\r\n")) == [413]

    run(scenario())


def test_expect_100_continue_is_asked_for_only_when_the_body_is_wanted(run, serving) -> None:
    async def scenario() -> None:
        async with serving(body_bytes_max=1000) as service:
            expect = b"expect: 100-continue\r\nconnection: close\r\ncontent-length: "
            reader, writer = await service.connect()
            writer.write(HEAD + expect + b"3\r\n\r\n")
            assert statuses(await reader.readuntil(b"\r\n\r\n")) == [100]
            writer.write(b"abc")
            answer = await service.rest_of(reader)
            assert statuses(answer) == [200]
            assert answer.endswith(b"abc")
            assert statuses(await service.talk(HEAD + expect + b"5000\r\n\r\n")) == [413]

    run(scenario())


def test_a_caller_of_http_1_0_gets_no_chunks_and_sees_where_a_body_breaks_off(run, serving) -> None:
    """RFC 9112 section 6.1: it does not know of chunks; the end of the connection is the end."""
    fails = False

    async def handler(exchange):
        await exchange.start(200, "text/event-stream")
        await exchange.write(b"one")
        await exchange.write(b"two")
        if fails:
            raise RuntimeError
        await exchange.finish()
        return Outcome.SUCCESS

    async def scenario() -> None:
        nonlocal fails
        async with serving(handler) as service:
            old = GET.replace(b"1.1", b"1.0")
            head, _, body = (await service.talk(old)).partition(b"\r\n\r\n")
            assert body == b"onetwo"
            assert b"transfer-encoding" not in head
            fails = True
            with pytest.raises(ConnectionResetError):
                await service.talk(old)

    run(scenario())


@pytest.mark.parametrize("path", [b"/", b"/nowhere"])
def test_a_request_and_its_unread_body_are_gone_when_the_next_is_answered(
    run, serving, path
) -> None:
    """Circles are looked for so rarely that hundreds of large bodies would lie here."""

    async def handler(exchange):
        await exchange.respond(200, b"")
        return Outcome.SUCCESS

    async def scenario() -> None:
        async with serving(handler) as service:
            reader, writer = await service.connect()

            async def ask(times: int) -> None:
                for _ in range(times):
                    writer.write(
                        HEAD.replace(b"/", path, 1) + b"content-length: 9\r\n\r\nnot taken"
                    )
                    await reader.readuntil(b"\r\n\r\n")

            await ask(2)
            gc.collect()
            gc.disable()
            try:
                await ask(20)
                assert gc.collect() < 20
            finally:
                gc.enable()

    run(scenario())


def test_a_connection_is_gone_when_it_is_lost(run, serving, monkeypatch) -> None:
    """With it what its last request sent, however many come only once."""
    made = weakref.WeakSet()

    class Watched(Connection):
        def connection_made(self, transport) -> None:
            made.add(self)
            super().connection_made(transport)

    monkeypatch.setattr("penstock.http.server.Connection", Watched)

    async def scenario() -> None:
        async with serving() as service:
            gc.collect()
            gc.disable()
            try:
                for _ in range(5):
                    assert await service.talk(HEAD + b"connection: close\r\n\r\n")
                await service.server.stop(1)
                assert not made
            finally:
                gc.enable()

    run(scenario())


def test_no_server_header_is_sent(run, serving) -> None:
    async def scenario() -> None:
        async with serving() as service:
            answer = (await service.talk(HEAD + b"connection: close\r\n\r\n")).lower()
            assert b"\r\nserver:" not in answer
            assert b"\r\ndate:" in answer

    run(scenario())


def test_stopping_lets_an_answer_in_progress_end(run, serving) -> None:
    entered = asyncio.Event()
    go = asyncio.Event()

    async def handler(exchange):
        entered.set()
        await go.wait()
        await exchange.respond(200, b"late")

    async def scenario() -> None:
        async with serving(handler) as service:
            idle_reader, _ = await service.connect()
            asking = asyncio.create_task(service.talk(GET))
            await entered.wait()
            port = service.server.port
            stopping = asyncio.create_task(service.server.stop(10))
            assert await idle_reader.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            go.set()
            assert (await asking).endswith(b"late")
            await stopping

    run(scenario())


def test_stopping_cuts_what_does_not_end_within_the_limit(run, serving) -> None:
    entered = asyncio.Event()

    async def handler(exchange):
        entered.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with serving(handler) as service:
            asking = asyncio.create_task(service.talk(GET))
            await entered.wait()
            await service.server.stop(0.05)
            assert statuses(await asking) == [503]
            assert service.count(outcome="refused_draining") == 1

    run(scenario())
