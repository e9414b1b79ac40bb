"""Over the bounds on connections callers are told so, and those from elsewhere get in."""

from __future__ import annotations

import asyncio
import re

from penstock.config.model import ServerTable

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answer)]


def test_a_connection_over_the_cap_is_told_so_and_closed(run, serving) -> None:
    async def scenario() -> None:
        async with serving(connections_max=2) as service:
            held = [await service.connect() for _ in range(2)]
            for reader, writer in held:
                writer.write(GET)
                await reader.readuntil(b"\r\n\r\n")
            assert statuses(await service.talk(GET)) == [503]

    run(scenario())


def test_one_address_cannot_take_the_connections_of_all_others(run, serving, monkeypatch) -> None:
    """Loopback is not counted by address; here it is, to have two addresses at all."""
    monkeypatch.setattr("penstock.http.connection.counted_address", lambda caller, _own: caller[0])

    async def scenario() -> None:
        async with serving(connections_per_address_max=2) as service:
            port = service.server.port

            async def asked(address: str) -> tuple[int, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=(address, 0)
                )
                writer.write(GET)
                return statuses(await reader.readuntil(b"\r\n\r\n"))[0], writer

            answers = [await asked("127.0.0.2") for _ in range(3)]
            assert [status for status, _ in answers] == [200, 200, 429]
            status, elsewhere = await asked("127.0.0.3")
            assert status == 200
            for _, writer in (*answers, (200, elsewhere)):
                writer.close()
                await writer.wait_closed()

    run(scenario())


def test_other_bounds_count_for_the_next_connection(run, serving) -> None:
    async def scenario() -> None:
        async with serving(connections_max=1) as service:
            reader, writer = await service.connect()
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            refused = await service.talk(GET)
            assert statuses(refused) == [503]
            assert b"connections_max" in refused
            assert b"retry-after: 1" in refused

            service.server.adopt(ServerTable(connections_max=2))

            assert statuses(await service.talk(GET[:-2] + b"connection: close\r\n\r\n")) == [200]

    run(scenario())
