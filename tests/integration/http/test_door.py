"""Who enters a door, what a failure looks like, and that a hang-up ends the work."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from penstock.errors import QueueFull
from penstock.http.door import Access, ErrorShape
from penstock.http.exchange import ClientGone, while_connected
from penstock.units import Outcome

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
CLOSE = b"connection: close\r\n\r\n"


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


async def entered(exchange):
    await exchange.respond(200, b"in")
    return Outcome.SUCCESS


@pytest.mark.parametrize(
    ("access", "credential", "expected"),
    [
        (Access.PUBLIC, b"", 200),
        (Access.KEY, b"", 401),
        (Access.KEY, b"authorization: Bearer user-key\r\n", 200),
        (Access.KEY, b"authorization: bEaReR   user-key\r\n", 200),
        (Access.KEY, b"x-api-key: user-key\r\n", 200),
        (Access.KEY, b"authorization: Basic dTpw\r\nx-api-key: user-key\r\n", 200),
        (Access.KEY, b"authorization: Bearer wrong\r\nx-api-key: user-key\r\n", 401),
        (Access.KEY, b"authorization: Bearer w\r\nauthorization: Bearer user-key\r\n", 400),
        (Access.KEY, b"authorization: Bearer user-key\r\nauthorization: Bearer w\r\n", 400),
        (Access.KEY, b"authorization: Bearer user-ke\r\n", 401),
        (Access.KEY, b"authorization: Bearer user-keyy\r\n", 401),
        (Access.KEY, b"authorization: Bearer USER-KEY\r\n", 401),
        (Access.KEY, b"authorization: user-key\r\n", 401),
        (Access.KEY, b"authorization: Bearer user-key, user-key\r\n", 401),
        (Access.KEY, b"authorization: Bearer \xff\xfe\r\n", 401),
        (Access.KEY, b"authorization: Bearer " + b"k" * 10_000 + b"\r\n", 401),
        (Access.ADMIN, b"", 401),
        (Access.ADMIN, b"authorization: Bearer user-key\r\n", 403),
        (Access.ADMIN, b"authorization: Bearer admin-key\r\n", 200),
    ],
)
def test_only_a_known_key_that_may_enters(run, serving, access, credential, expected) -> None:
    async def scenario() -> None:
        async with serving(entered, access=access) as service:
            status, _, _ = parsed(await service.talk(GET + credential + CLOSE))
            assert status == expected

    run(scenario())


def test_every_401_reads_the_same(run, serving) -> None:
    async def scenario() -> None:
        async with serving(entered, access=Access.KEY) as service:
            bodies = set()
            for credential in (b"", b"x-api-key: wrong\r\n", b"authorization: Basic x\r\n"):
                fixed_id = b"x-request-id: same\r\n"
                _, headers, body = parsed(await service.talk(GET + fixed_id + credential + CLOSE))
                assert headers["www-authenticate"] == 'Bearer realm="penstock"'
                bodies.add(body)
            assert len(bodies) == 1

    run(scenario())


def test_the_key_is_looked_at_before_the_body(run, serving) -> None:
    """No byte of the body was sent, and none was asked for."""

    async def scenario() -> None:
        async with serving(entered, access=Access.KEY) as service:
            reader, writer = await service.connect()
            writer.write(POST + b"content-length: 100\r\nexpect: 100-continue\r\n\r\n")
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401")

    run(scenario())


def test_a_callers_request_id_is_kept_when_it_is_harmless(run, serving) -> None:
    async def scenario() -> None:
        async with serving(entered) as service:
            for given, kept in [
                (b"abc.DEF-1_2", True),
                (b"a" * 64, True),
                (b"a" * 65, False),
                (b"a b", False),
                (b"", False),
                (b"\xe2\x80\xae", False),
            ]:
                answer = await service.talk(GET + b"x-request-id: " + given + b"\r\n" + CLOSE)
                _, headers, _ = parsed(answer)
                assert headers["x-request-id"] == headers["request-id"]
                assert (headers["x-request-id"].encode() == given) is kept

    run(scenario())


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        (b"content-length: 1001\r\n", b"", 413),
        (b"content-length: 1000\r\n", b"x" * 1000, 200),
        (b"transfer-encoding: chunked\r\n", b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n", 413),
        (b"transfer-encoding: chunked\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n", 200),
        (b"transfer-encoding: chunked\r\n", b"1\r\nx\r\n" * 1001 + b"0\r\n\r\n", 413),
        (b"content-encoding: gzip\r\ncontent-length: 3\r\n", b"abc", 415),
        (b"content-encoding: identity\r\ncontent-length: 3\r\n", b"abc", 200),
        (b"content-length: 3\r\n", b"ab", 408),
        (b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n", 408),
    ],
)
def test_a_body_is_bounded_in_bytes_time_and_encoding(run, serving, head, body, expected) -> None:
    async def scenario() -> None:
        bounds = {"body_bytes_max": 1000, "body_timeout_seconds": 0.2}
        async with serving(**bounds, header_timeout_seconds=0.5) as service:
            status, headers, answered = parsed(await service.talk(POST + head + CLOSE + body))
            assert status == expected
            if status == 200:
                assert len(answered) >= 3
            else:
                assert headers["content-type"] == "application/problem+json"

    run(scenario())


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        (ErrorShape.OPENAI, lambda body: body["error"]["code"]),
        (ErrorShape.PROBLEM, lambda body: body["type"].rpartition(":")[2]),
        (ErrorShape.ANTHROPIC, lambda body: body["problem_type"].rpartition(":")[2]),
    ],
)
def test_what_a_handler_raises_has_the_routes_shape(run, serving, shape, read) -> None:
    async def handler(exchange):
        exchange.response_headers["penstock-class"] = "batch"
        raise QueueFull("The queue is full.", retry_after_seconds=2.0)

    async def scenario() -> None:
        async with serving(handler, shape=shape) as service:
            status, headers, body = parsed(await service.talk(GET + CLOSE))
            assert (status, read(json.loads(body))) == (429, "queue_full")
            assert 2000 <= int(headers["retry-after-ms"]) <= 2500
            assert headers["penstock-class"] == "batch"
            assert service.count(door="test", outcome="refused_queue_full") == 1

    run(scenario())


def test_an_unexpected_error_shows_nothing_of_itself(run, serving, caplog) -> None:
    async def handler(exchange):
        raise ValueError("the prompt of a tenant")

    async def scenario() -> None:
        async with serving(handler) as service:
            status, headers, body = parsed(await service.talk(GET + CLOSE))
            assert status == 500
            assert json.loads(body)["error"]["code"] == "internal_error"
            assert headers["x-request-id"] == json.loads(body)["instance"]
            assert b"prompt" not in body
            logged = [record for record in caplog.records if record.levelno == logging.ERROR]
            assert headers["x-request-id"] in logged[0].getMessage()
            assert service.count(outcome="internal") == 1

    run(scenario())


@pytest.mark.parametrize("failure", [ValueError, QueueFull])
def test_an_error_after_the_answer_began_breaks_it_visibly(run, serving, failure) -> None:
    async def handler(exchange):
        await exchange.start(200, "text/plain")
        await exchange.write(b"half")
        raise failure("x")

    async def scenario() -> None:
        async with serving(handler) as service:
            status, _, body = parsed(await service.talk(GET + b"\r\n"))
            assert status == 200
            assert body == b"4\r\nhalf\r\n"  # no last chunk

    run(scenario())


def test_a_handler_that_answers_nothing_is_a_fault_of_ours(run, serving) -> None:
    async def handler(exchange):
        return Outcome.SUCCESS

    async def scenario() -> None:
        async with serving(handler) as service:
            status, _, _ = parsed(await service.talk(GET + CLOSE))
            assert status == 500
            assert service.count(outcome="internal") == 1

    run(scenario())


def test_bodies_over_the_bound_of_all_are_refused_until_one_is_given_back(run, serving) -> None:
    holding = asyncio.Event()
    let_go = asyncio.Event()

    async def handler(exchange):
        await exchange.body()
        if not let_go.is_set():
            holding.set()
            await let_go.wait()
        await exchange.respond(200, b"{}")
        return Outcome.SUCCESS

    async def scenario() -> None:
        async with serving(handler, body_bytes_max=1000, bodies_bytes_max=2000) as service:
            request = POST + b"content-length: 900\r\n\r\n" + b"x" * 900
            reader, writer = await service.connect()
            writer.write(request)
            await holding.wait()
            last = request.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
            refused = await service.talk(last)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: " in refused
            let_go.set()
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            for _ in range(3):  # what ends in a refusal holds nothing, either
                answer = await service.talk(
                    request.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
                )
                assert answer.startswith(b"HTTP/1.1 200 ")
            assert service.desk.bodies.held_bytes == 0

    run(scenario())


@pytest.mark.parametrize("moved_on", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_hang_up_cancels_the_handler_and_is_counted_as_it_says(
    run, serving, moved_on, begun
) -> None:
    waiting = asyncio.Event()
    cancelled = asyncio.Event()

    async def wait_for_ever() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def handler(exchange):
        await exchange.body()
        if begun:
            await exchange.start(200, "text/event-stream")
            await exchange.write(b": hello\n\n")
        if moved_on:
            exchange.outcome_if_gone = Outcome.CANCELLED_SENT
        await while_connected(exchange, wait_for_ever())

    async def scenario() -> None:
        async with serving(handler) as service:
            _, writer = await service.connect()
            writer.write(POST + b"content-length: 3\r\n\r\nabc")
            await waiting.wait()
            writer.transport.abort()
            async with asyncio.timeout(0.1):
                await cancelled.wait()
        outcome = "cancelled_sent" if moved_on else "cancelled_waiting"
        assert service.count(outcome=outcome) == 1

    run(scenario())


def test_a_writer_learns_of_the_hang_up_without_watching_for_it(run, serving) -> None:
    ended: asyncio.Future[str] = None  # made where a loop runs

    async def handler(exchange):
        await exchange.start(200, "text/event-stream")
        try:
            while True:
                await exchange.write(b": x\n\n")
                await asyncio.sleep(0)
        except ClientGone:
            ended.set_result("gone")
            raise

    async def scenario() -> None:
        nonlocal ended
        ended = asyncio.get_running_loop().create_future()
        async with serving(handler) as service:
            reader, writer = await service.connect()
            writer.write(GET + b"\r\n")
            await reader.readuntil(b": x")
            writer.transport.abort()
            async with asyncio.timeout(5):
                assert await ended == "gone"

    run(scenario())


def test_while_connected_gives_the_result_and_leaves_nothing(run, serving) -> None:
    async def handler(exchange):
        async def work() -> bytes:
            await asyncio.sleep(0)
            return b"done"

        await exchange.respond(200, await while_connected(exchange, work()))
        return Outcome.SUCCESS

    async def scenario() -> None:
        async with serving(handler) as service:
            reader, writer = await service.connect()
            for _ in range(3):
                writer.write(GET + b"\r\n")
                answer = await reader.readuntil(b"done")
                assert answer.startswith(b"HTTP/1.1 200")

    run(scenario())


def test_what_the_work_raises_comes_through_while_connected(run, serving) -> None:
    async def handler(exchange):
        async def work() -> None:
            raise QueueFull("full")

        await while_connected(exchange, work())

    async def scenario() -> None:
        async with serving(handler) as service:
            assert parsed(await service.talk(GET + CLOSE))[0] == 429

    run(scenario())


def test_the_request_log_holds_the_handlers_facts(run, serving, caplog) -> None:
    async def handler(exchange):
        exchange.facts |= {"class": "batch", "run": "r1", "wait_ms": 12}
        await exchange.respond(200, b"{}")
        return Outcome.SUCCESS

    async def scenario() -> None:
        async with serving(handler, access=Access.KEY) as service:
            service.desk.metrics.know(["batch"])
            await service.talk(GET + b"x-api-key: user-key\r\n" + CLOSE)
            assert service.count(**{"class": "batch", "outcome": "success"}) == 1
        (record,) = [one for one in caplog.records if one.name == "penstock.request"]
        facts = record.penstock_facts
        assert facts["key"] == "user"
        assert facts["tenant"] == "acme"
        assert facts["class"] == "batch"
        assert (facts["run"], facts["wait_ms"]) == ("r1", 12)
        assert facts["outcome"] == "success"
        assert facts["status"] == 200

    run(scenario())


@pytest.mark.parametrize("size", [1_000, 70_000, 200_000])
def test_a_hang_up_is_noticed_whatever_the_size_of_the_body(run, serving, size) -> None:
    """What of a body is not asked for stops the reading; nobody asks for the end of it."""
    waiting = asyncio.Event()
    cancelled = asyncio.Event()

    async def wait_for_ever() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def handler(exchange):
        await exchange.body()
        await while_connected(exchange, wait_for_ever())

    async def scenario() -> None:
        async with serving(handler) as service:
            _, writer = await service.connect()
            head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % size
            writer.write(head + b"a" * size)
            await waiting.wait()
            writer.close()
            async with asyncio.timeout(5):
                await cancelled.wait()

    run(scenario())


def test_a_refused_request_is_cut_off_once(run, serving) -> None:
    """The end of its connection, which follows, does not interrupt what clears up behind it."""
    waiting, lost, cleared_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            await lost.wait()
            cleared_up.set()

    async def handler(exchange):
        await while_connected(exchange, work())

    async def scenario() -> None:
        async with serving(handler) as service:
            reader, writer = await service.connect()
            writer.write(
                b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            await waiting.wait()
            writer.write(b"zz\r\n")
            assert b" 400 " in await reader.read()
            (connection,) = service.server._listener.connections
            writer.close()
            for _ in range(1000):
                await asyncio.sleep(0)
            assert connection not in service.server._listener.connections
            lost.set()
            async with asyncio.timeout(5):
                await cleared_up.wait()

    run(scenario())
