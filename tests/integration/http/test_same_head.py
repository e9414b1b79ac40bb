"""A head is read once a connection, and never stands for another one."""

from __future__ import annotations

import asyncio
from weakref import ref

from penstock.http.auth import Authenticator, Principal, digest
from penstock.http.door import Access
from penstock.units import Outcome

PEPPER = b"pepper of the tests"
USER = b"authorization: Bearer user-key\r\n"


async def whose(exchange):
    body = await exchange.body()
    told = f"{exchange.principal.key_id} {exchange.headers.get('traceparent', '-')} "
    await exchange.respond(200, told.encode() + body, "text/plain")
    return Outcome.SUCCESS


async def asked(reader, writer, fields: bytes, body: bytes = b"", method: bytes = b"POST") -> str:
    """The answer's status and body, on a connection that stays."""
    length = b"content-length: %d\r\n" % len(body) if body else b""
    writer.write(b"%b / HTTP/1.1\r\nhost: localhost\r\n%b%b\r\n%b" % (method, fields, length, body))
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).lower()
    size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    content = await asyncio.wait_for(reader.readexactly(size), 10)
    status = head.split()[1].decode()
    return f"{status} {content.decode()}" if status == "200" else status


def test_each_request_of_a_connection_is_its_own_keys(run, serving) -> None:
    async def scenario() -> None:
        async with serving(whose, access=Access.KEY) as service:
            connection = await service.connect()
            assert await asked(*connection, USER, b"a") == "200 user - a"
            assert await asked(*connection, USER, b"another") == "200 user - another"
            assert await asked(*connection, b"authorization: Bearer admin-key\r\n") == "200 boss - "
            assert await asked(*connection, b"authorization: Bearer user-kez\r\n") == "401"
            assert await asked(*connection, b"") == "401"
            assert await asked(*connection, USER) == "200 user - "

    run(scenario())


def test_what_is_new_in_each_request_is_read_in_each(run, serving) -> None:
    async def scenario() -> None:
        async with serving(whose, access=Access.KEY) as service:
            connection = await service.connect()
            for trace in (b"one", b"two", b"two"):
                told = await asked(*connection, USER + b"traceparent: %b\r\n" % trace)
                assert told == f"200 user {trace.decode()} "
            assert await asked(*connection, USER) == "200 user - "

    run(scenario())


def test_the_same_fields_with_another_method_are_another_head(run, serving) -> None:
    async def scenario() -> None:
        async with serving(whose, access=Access.KEY) as service:
            connection = await service.connect()
            assert await asked(*connection, USER) == "200 user - "
            assert await asked(*connection, USER, method=b"DELETE") == "405"
            assert await asked(*connection, USER) == "200 user - "

    run(scenario())


def test_a_body_behind_the_head_of_a_tunnel_is_no_request_of_its_own(run, serving) -> None:
    """A parser takes what follows CONNECT for another protocol, whatever length its body has."""

    async def scenario() -> None:
        async with serving(whose, access=Access.KEY) as service:
            connection = await service.connect()
            assert await asked(*connection, USER, method=b"CONNECT") == "405"
            inner = b"GET / HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % USER
            assert await asked(*connection, USER, inner, method=b"CONNECT") == "400"
            assert await service.rest_of(connection[0]) == b""

    run(scenario())


def test_a_table_of_keys_that_was_replaced_stays_for_no_idle_connection(run, serving) -> None:
    async def scenario() -> None:
        async with serving(whose, access=Access.KEY) as service:
            connection = await service.connect()
            assert await asked(*connection, USER) == "200 user - "
            replaced = ref(service.desk.authenticator)

            service.desk.authenticator = Authenticator({}, PEPPER)

            assert replaced() is None

    run(scenario())


def test_a_key_that_is_known_no_more_is_refused_on_a_connection_that_it_had(run, serving) -> None:
    async def scenario() -> None:
        async with serving(whose, access=Access.KEY) as service:
            connection = await service.connect()
            assert await asked(*connection, USER) == "200 user - "

            service.desk.authenticator = Authenticator({}, PEPPER)
            assert await asked(*connection, USER) == "401"

    run(scenario())


def test_a_key_whose_time_is_over_is_refused_on_a_connection_that_it_had(run, serving) -> None:
    async def scenario() -> None:
        now = 100.0
        key = Principal("user", "acme", "standard", "interactive", expires_at=200.0)
        async with serving(whose, access=Access.KEY) as service:
            known = {digest("user-key", PEPPER): key}
            service.desk.authenticator = Authenticator(known, PEPPER, lambda: now)
            connection = await service.connect()
            assert await asked(*connection, USER) == "200 user - "

            now = 200.0
            assert await asked(*connection, USER) == "401"

    run(scenario())


def test_a_head_with_a_second_host_is_another_head(run, serving) -> None:
    async def scenario() -> None:
        async with serving(whose, access=Access.KEY) as service:
            connection = await service.connect()
            assert await asked(*connection, USER + b"host: localhost\r\n") == "400"
            assert await asked(*connection, USER) == "200 user - "
            assert await asked(*connection, USER + b"host: evil.example\r\n") == "400"

    run(scenario())
