"""Cancellations are counted as asyncio counts them; bodies within their bounds."""

from __future__ import annotations

import asyncio

import pytest

from penstock.config.model import ServerTable
from penstock.errors import QueueFull
from penstock.http.auth import Principal
from penstock.http.exchange import Bodies, ClientGone, Exchange, while_connected
from penstock.http.line import HangUp


class Caller:
    """The line to a caller that can hang up."""

    def __init__(self) -> None:
        self.hang_up = HangUp()

    def exchange(self) -> Exchange:
        scope = {"headers": [], "state": {"line": self}}
        return Exchange(scope, ServerTable(), Bodies(0))


def test_a_hang_up_and_a_cancellation_at_once_stay_a_cancellation() -> None:
    async def scenario() -> None:
        caller = Caller()

        async def work() -> None:
            await while_connected(caller.exchange(), asyncio.Event().wait())

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.hang_up.tell()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(scenario())


def test_work_that_finishes_although_the_caller_left_gives_its_result() -> None:
    """And the task is not left marked as cancelled, so a later time-out still works."""

    async def scenario() -> None:
        caller = Caller()
        settled = []

        async def work() -> str:
            caller.hang_up.tell()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                settled.append(True)
            return "settled"

        assert await while_connected(caller.exchange(), work()) == "settled"
        assert settled
        assert asyncio.current_task().cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(1)

    asyncio.run(scenario())


def test_the_caller_may_leave_before_the_work_begins() -> None:
    async def scenario() -> None:
        caller = Caller()
        caller.hang_up.tell()
        with pytest.raises(ClientGone):
            await while_connected(caller.exchange(), asyncio.Event().wait())
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(scenario())


def test_one_inside_the_other_both_end() -> None:
    async def scenario() -> None:
        caller = Caller()
        exchange = caller.exchange()
        asyncio.get_running_loop().call_soon(caller.hang_up.tell)
        with pytest.raises(ClientGone):
            await while_connected(exchange, while_connected(exchange, asyncio.Event().wait()))
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(scenario())


def test_nothing_watches_for_a_hang_up_once_the_work_is_done() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    async def scenario() -> None:
        caller = Caller()
        assert await while_connected(caller.exchange(), work()) == "done"
        caller.hang_up.tell()
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(scenario())


def principal(tenant: str, *, internal: bool = False) -> Principal:
    return Principal(tenant, tenant, "standard", "standard", internal=internal)


def test_one_tenant_holds_half_of_all_bodies_and_the_others_the_rest() -> None:
    bodies, web, nightly = Bodies(100), principal("web"), principal("nightly")
    bodies.take(web, 50)
    with pytest.raises(QueueFull) as full:
        bodies.take(web, 1)
    assert full.value.status == 503
    bodies.take(nightly, 50)
    with pytest.raises(QueueFull):
        bodies.take(principal("third"), 1)

    bodies.give_back(web, 50)

    bodies.take(web, 30)
    bodies.take(principal("third"), 20)
    assert bodies.held_bytes == 100


def test_our_own_workers_who_call_for_everybody_may_hold_all() -> None:
    bodies, workers = Bodies(100), principal("workers", internal=True)
    bodies.take(workers, 100)
    with pytest.raises(QueueFull):
        bodies.take(workers, 1)
