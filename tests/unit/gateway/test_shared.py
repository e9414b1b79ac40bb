"""One call for several readers: each has all of it, and none can make it hold without bound."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway import shared
from penstock.gateway.shared import SharedCall


async def read(reading) -> bytes:
    return b"".join([piece async for piece in reading.pieces()])


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=20),
    joins=st.lists(st.integers(0, 20), min_size=1, max_size=5),
)
def test_every_reader_has_the_whole_answer_whenever_it_came(pieces, joins):
    async def go():
        call = SharedCall(b"")
        tasks = [asyncio.ensure_future(read(call.read()))]
        call.begin(200, {})
        for number, piece in enumerate(pieces):
            tasks += [asyncio.ensure_future(read(call.read())) for at in joins if at == number]
            await call.add(piece)
        call.end()
        return await asyncio.gather(*tasks)

    assert {b"".join(pieces)} == set(asyncio.run(go()))


def test_what_is_held_is_bounded_by_the_slowest_reader(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared, "HELD_BYTES_MAX", 100)

    async def go():
        call = SharedCall(b"")
        slow, quick = call.read(), call.read()
        quick_task = asyncio.ensure_future(read(quick))
        made = 0

        async def make():
            nonlocal made
            for made in range(1, 31):  # noqa: B007 - looked at from outside
                await call.add(b"x" * 10)
            call.end()

        making = asyncio.ensure_future(make())
        for _ in range(200):
            await asyncio.sleep(0)
        assert not making.done()
        assert made <= 12
        assert not call.may_be_joined
        assert call.pieces() is None
        whole = await read(slow)
        await making
        return whole, await quick_task

    assert (b"x" * 300, b"x" * 300) == asyncio.run(go())


def test_a_call_goes_on_until_its_last_reader_leaves():
    async def go():
        call = SharedCall(b"")
        call.task = asyncio.ensure_future(asyncio.Event().wait())
        first, second = call.read(), call.read()
        first.close()
        await asyncio.sleep(0)
        assert not call.task.cancelled()
        assert call.may_be_joined
        second.close()
        await asyncio.gather(call.task, return_exceptions=True)
        return call

    call = asyncio.run(go())
    assert call.task.cancelled()
    assert not call.may_be_joined


def test_a_slow_reader_who_leaves_holds_up_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared, "HELD_BYTES_MAX", 10)

    async def go():
        call = SharedCall(b"")
        slow, quick = call.read(), call.read()
        task = asyncio.ensure_future(read(quick))

        async def make():
            for _ in range(5):
                await call.add(b"x" * 10)
            call.end()

        making = asyncio.ensure_future(make())
        for _ in range(50):
            await asyncio.sleep(0)
        slow.close()
        await making
        return await task

    assert b"x" * 50 == asyncio.run(asyncio.wait_for(go(), 5))
