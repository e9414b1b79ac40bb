"""Large bodies are read beside the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from penstock.errors import InvalidRequest
from penstock.gateway.large_bodies import LargeBodies


@pytest.mark.timeout(10)
def test_the_loop_turns_while_a_large_body_is_read():
    async def go() -> bool:
        turned = threading.Event()
        asyncio.get_running_loop().call_soon(turned.set)
        return await LargeBodies().run(lambda: turned.wait(5))

    assert asyncio.run(go())


def test_large_bodies_are_read_one_after_the_other():
    async def go() -> list[int]:
        reading = 0
        seen = []

        def read() -> None:
            nonlocal reading
            reading += 1
            seen.append(reading)
            reading -= 1

        large = LargeBodies()
        await asyncio.gather(*(large.run(read) for _ in range(20)))
        return seen

    assert asyncio.run(go()) == [1] * 20


def test_what_is_wrong_with_a_large_body_is_raised():
    def refuse() -> None:
        raise InvalidRequest("not so")

    with pytest.raises(InvalidRequest, match="not so"):
        asyncio.run(LargeBodies().run(refuse))
