"""Requests behind a request that is being answered change nothing for it, nor for its end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from penstock.http.door import while_connected
from penstock.units import Outcome

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(GET, id="a request"),
        pytest.param(GET * 20, id="many"),
        pytest.param(POST + b"content-length: 9\r\n\r\nabc", id="half a body"),
        pytest.param(GET[:20], id="half a head"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_hang_up_is_noticed_whatever_is_sent_behind_the_request(
    run, serving, caplog, at_once, behind
) -> None:
    """Whoever stops to read there sees no end."""
    waiting = asyncio.Event()
    cancelled = asyncio.Event()

    async def wait_for_ever() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def handler(exchange):
        await while_connected(exchange, wait_for_ever())

    async def scenario() -> None:
        async with serving(handler) as service:
            _, writer = await service.connect()
            writer.write(GET + behind if at_once else GET)
            await waiting.wait()
            if not at_once:
                writer.write(behind)
                await asyncio.sleep(0)
            writer.close()
            async with asyncio.timeout(5):
                await cancelled.wait()
        assert service.count(outcome=Outcome.CANCELLED_WAITING) == 1
        assert not [one for one in caplog.records if one.levelno >= logging.ERROR]

    run(scenario())


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(POST + b"content-length: 200000\r\n\r\n" + b"a" * 200_000, id="a large body"),
        pytest.param((GET[:-2] + b"x: " + b"a" * 9000 + b"\r\n\r\n") * 10, id="large heads"),
        pytest.param(POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", id="a malformed body"),
    ],
)
def test_what_is_too_much_or_malformed_ends_both_and_answers_neither(run, serving, behind) -> None:
    """An answer to it would be taken for the answer to the request before it."""
    entered = asyncio.Event()
    cancelled = asyncio.Event()

    async def handler(exchange):
        entered.set()
        try:
            await while_connected(exchange, asyncio.Event().wait())
        finally:
            cancelled.set()

    async def scenario() -> None:
        async with serving(handler) as service:
            reader, writer = await service.connect()
            writer.write(GET)
            await entered.wait()
            writer.write(behind)
            assert await service.rest_of(reader) == b""
            async with asyncio.timeout(5):
                await cancelled.wait()

    run(scenario())


def test_requests_wait_until_the_answers_before_them_are_taken(run, serving) -> None:
    """Whole answers are not held up by a slow reader: they would come to lie here."""
    answer = b"a" * 1_000_000
    asked = 0

    async def handler(exchange):
        nonlocal asked
        asked += 1
        await exchange.respond(200, answer)
        return Outcome.SUCCESS

    async def scenario() -> None:
        async with serving(handler) as service:
            reader, writer = await service.connect()
            writer.write(GET * 40)
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(200):
                await asyncio.sleep(0)
            assert asked < 20
            writer.write(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            rest = await reader.read()
        assert asked == 41
        assert rest.count(b"HTTP/1.1 200 OK") == 40

    run(scenario())


def test_too_much_behind_answers_that_nobody_takes_is_not_answered(run, serving) -> None:
    """An answer to it would be taken for that of the first one that waits."""

    async def handler(exchange):
        await exchange.respond(200, b"a" * 10_000_000)
        return Outcome.SUCCESS

    async def scenario() -> None:
        async with serving(handler) as service:
            reader, writer = await service.connect()
            writer.write(GET * 80)
            await writer.drain()
            assert b" 429 " not in await service.rest_of(reader)

    run(scenario())


def test_what_has_been_answered_counts_no_more_as_waiting(run, serving) -> None:
    one = GET[:-2] + b"x: " + b"a" * 1000 + b"\r\n\r\n"

    async def scenario() -> None:
        async with serving() as service:
            reader, writer = await service.connect()
            writer.write(one * 3)
            for _ in range(150):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
                writer.write(one)

    run(scenario())
