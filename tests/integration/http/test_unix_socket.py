"""The server also listens on a Unix socket, for this user alone."""

from __future__ import annotations

import asyncio
import stat

import pytest

from penstock.config.model import ServerTable
from penstock.http.server import HttpServer


async def _app(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def test_a_unix_socket_serves_is_private_and_goes_away(run, tmp_path) -> None:
    path = tmp_path / "penstock.sock"

    async def scenario() -> None:
        for _ in range(2):  # the second start finds no remains of the first
            server = HttpServer(_app, ServerTable(), uds=path)
            await server.start()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 204")
            writer.close()
            with pytest.raises(RuntimeError):
                _ = server.port
            await server.stop(1)
            assert not path.exists()

    run(scenario())


def test_what_a_killed_service_left_is_replaced(run, tmp_path) -> None:
    path = tmp_path / "penstock.sock"

    async def scenario() -> None:
        dead = await asyncio.start_unix_server(lambda reader, writer: None, path)
        dead.close()
        await dead.wait_closed()
        assert path.exists()
        server = HttpServer(_app, ServerTable(), uds=path)
        await server.start()
        await server.stop(0)

    run(scenario())
