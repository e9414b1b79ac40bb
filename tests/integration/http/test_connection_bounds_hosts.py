"""The bound on one address' connections, between hosts that have addresses of their own.

Each host is a network namespace with the kernel's own stack. Making them takes iproute2 and root;
where they cannot be made, as in most containers, these tests skip, in CI, too: what is counted is
tested without them in ``tests/unit/http/test_connection_bounds.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

CLONE_NEWNET = 0x40000000
NAMESPACES = Path("/var/run/netns")
SERVER, SERVER_6 = "192.0.2.1", "2001:db8::1"
ONE, TWO = ("198.51.100.2",), ("203.0.113.2",)
ONE_6 = ("2001:db8:1::2", "2001:db8:1::3", "2001:db8:1:0:ffff::4")
TWO_6 = ("2001:db8:2::2",)
LOCAL = "fe80::1"
"""The server's on each of its links."""
LINKS = {
    "one": ("198.51.100.1", "2001:db8:1::1", (*ONE, *ONE_6)),
    "two": ("203.0.113.1", "2001:db8:2::1", (*TWO, *TWO_6)),
}
"""Of each client: the server's two addresses on the link between them, and its own."""

_T = TypeVar("_T")


class Host(NamedTuple):
    """A network namespace."""

    namespace: str

    def do(self, work: Callable[[], _T]) -> _T:
        """What the work gives, done on this host by a thread: a socket stays where it was made."""
        given: list[_T] = []

        def on_host() -> None:
            with (NAMESPACES / self.namespace).open() as entered:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(entered.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            given.append(work())

        thread = threading.Thread(target=on_host)
        thread.start()
        thread.join()
        return given[0]


class Hosts(NamedTuple):
    server: Host
    one: Host
    two: Host


def _ip(ip: str, *commands: str) -> None:
    """Raises CalledProcessError where it may not be done."""
    for command in commands:
        subprocess.run([ip, *command.split()], check=True, capture_output=True, timeout=30)


def _make(ip: str, server: str, one: str, two: str) -> None:
    """The hosts, with what a machine may lack: namespaces, links between them, IPv6."""
    for name in (server, one, two):
        _ip(ip, f"netns add {name}", f"-n {name} link set lo up")
    for client, named in ((one, "one"), (two, "two")):
        _ip(ip, f"-n {server} link add {named} type veth peer name wire netns {client}")
    _ip(ip, f"-n {server} address add {SERVER}/32 dev lo")
    _ip(ip, f"-n {server} address add {SERVER_6}/128 dev lo nodad")


def _connect(ip: str, server: str, client: str, named: str) -> None:
    """Give both ends of a link their addresses."""
    near, near_6, addresses = LINKS[named]
    for address in addresses:
        bits = "64 nodad" if ":" in address else "30"
        _ip(ip, f"-n {client} address add {address}/{bits} dev wire")
    _ip(
        ip,
        f"-n {server} address add {near}/30 dev {named}",
        f"-n {server} address add {near_6}/64 dev {named} nodad",
        f"-n {server} address add {LOCAL}/64 dev {named} nodad",
        f"-n {server} link set {named} up",
        f"-n {client} address add fe80::2/64 dev wire nodad",
        f"-n {client} address add fe80::3/64 dev wire nodad",
        f"-n {client} link set wire up",
        f"-n {client} route add default via {near}",
        f"-n {client} route add default via {near_6}",
    )


@pytest.fixture(scope="module")
def hosts(program: Callable[[str], str]) -> Iterator[Hosts]:
    """A server's host, and two clients', each on a link of its own."""
    ip = program("ip")
    server, one, two = names = [f"penstock-{os.getpid()}-{name}" for name in Hosts._fields]
    try:
        try:
            _make(ip, *names)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no hosts can be made here: {error.stderr.decode().strip()}")
        _connect(ip, server, one, "one")
        _connect(ip, server, two, "two")
        yield Hosts(*map(Host, names))
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(ip, f"netns delete {name}")


def _listening(address: str, *, dual: bool = False) -> Callable[[], socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return lambda: socket.create_server((address, 0), family=family, dualstack_ipv6=dual)


def _found(address: str, port: int) -> Any:
    return socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]


class Callers:
    """Connections to one server from several hosts; all are kept open."""

    def __init__(self, port: int, stack: AsyncExitStack) -> None:
        self.port = port
        self._stack = stack

    async def status(
        self, host: Host, target: str, source: str | None = None, headers: bytes = b""
    ) -> int:
        """Of the first request on a new connection, which then stays."""
        made = host.do(lambda: self._connected(target, source))
        reader, writer = await asyncio.open_connection(sock=made)
        self._stack.push_async_callback(writer.wait_closed)
        self._stack.callback(writer.transport.abort)
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n")
        return int((await reader.readuntil(b"\r\n\r\n")).split()[1])

    def _connected(self, target: str, source: str | None) -> socket.socket:
        family, _, _, _, address = _found(target, self.port)
        made = socket.socket(family, socket.SOCK_STREAM)
        made.settimeout(10)
        if source is not None:
            made.bind(_found(source, 0)[4])
        # The server's turn is not needed: the kernel takes the connection in.
        made.connect(address)
        made.setblocking(False)
        return made


@pytest.fixture
def calling(serving: Any, hosts: Hosts) -> Callable[..., Any]:
    """``async with calling(address, **server_table) as callers``: a server on its own host."""

    @asynccontextmanager
    async def start(address: str, *, dual: bool = False, **table: Any) -> Any:
        listening = hosts.server.do(_listening(address, dual=dual))
        port = listening.getsockname()[1]
        async with serving(sockets=[listening], **table), AsyncExitStack() as stack:
            yield Callers(port, stack)

    return start


def test_one_host_is_turned_away_and_another_is_served(run, calling, hosts) -> None:
    async def scenario() -> None:
        async with calling(SERVER, connections_per_address_max=2) as callers:
            found = [await callers.status(hosts.one, SERVER) for _ in range(4)]
            assert found == [200, 200, 429, 429]
            assert [await callers.status(hosts.two, SERVER) for _ in range(3)] == [200, 200, 429]

    run(scenario())


def test_where_nothing_is_said_one_host_gets_half(run, calling, hosts) -> None:
    async def scenario() -> None:
        async with calling(SERVER, connections_max=4) as callers:
            assert [await callers.status(hosts.one, SERVER) for _ in range(3)] == [200, 200, 429]
            assert [await callers.status(hosts.two, SERVER) for _ in range(2)] == [200, 200]
            assert await callers.status(hosts.two, SERVER) in (429, 503)

    run(scenario())


def test_all_addresses_of_one_prefix_are_one(run, calling, hosts) -> None:
    """IPv6: whoever has a /64 has all of its addresses."""

    async def scenario() -> None:
        async with calling(SERVER_6, connections_per_address_max=2) as callers:
            found = [await callers.status(hosts.one, SERVER_6, source) for source in ONE_6]
            assert found == [200, 200, 429]
            assert await callers.status(hosts.two, SERVER_6, TWO_6[0]) == 200

    run(scenario())


def test_ipv4_callers_of_a_socket_for_both_are_told_apart(run, calling, hosts) -> None:
    """There they come as ``::ffff:a.b.c.d``, all of one prefix."""

    async def scenario() -> None:
        async with calling("::", dual=True, connections_per_address_max=1) as callers:
            assert [await callers.status(hosts.one, SERVER) for _ in range(2)] == [200, 429]
            assert [await callers.status(hosts.two, SERVER) for _ in range(2)] == [200, 429]
            assert [await callers.status(hosts.one, SERVER_6) for _ in range(2)] == [200, 429]

    run(scenario())


def test_addresses_of_one_link_are_one_and_those_of_another_another(run, calling, hosts) -> None:
    """Link-local: every link has the same prefix, and the same addresses may be there."""

    async def scenario() -> None:
        async with calling("::", connections_per_address_max=1) as callers:
            local = f"{LOCAL}%wire"
            assert await callers.status(hosts.one, local, "fe80::2%wire") == 200
            assert await callers.status(hosts.one, local, "fe80::3%wire") == 429
            assert await callers.status(hosts.two, local, "fe80::2%wire") == 200

    run(scenario())


@pytest.mark.parametrize(
    ("address", "dual", "targets"),
    [
        (SERVER, False, [SERVER]),
        (SERVER_6, False, [SERVER_6]),
        ("0.0.0.0", False, [SERVER, "127.0.0.1", LINKS["one"][0]]),  # noqa: S104 - a namespace
        ("::", True, [SERVER, SERVER_6, "127.0.0.1", "::1", f"{LOCAL}%one"]),
    ],
)
def test_the_servers_own_host_is_not_counted(run, calling, hosts, address, dual, targets) -> None:
    """By whichever of its addresses it calls itself."""

    async def scenario() -> None:
        async with calling(address, dual=dual, connections_per_address_max=1) as callers:
            for target in targets:
                assert [await callers.status(hosts.server, target) for _ in range(2)] == [200, 200]

    run(scenario())


def test_a_proxy_is_one_address_whomever_it_speaks_for(run, calling, hosts) -> None:
    """What it says of its callers can be made up, and is not looked at."""

    async def scenario() -> None:
        async with calling(SERVER, connections_per_address_max=2) as callers:
            found = []
            for number in range(3):
                said = b"x-forwarded-for: 10.0.0.%d\r\nforwarded: for=10.0.0.%d\r\n"
                found.append(
                    await callers.status(hosts.one, SERVER, headers=said % (number, number))
                )
            assert found == [200, 200, 429]
            named = b"x-forwarded-for: %b\r\n" % ONE[0].encode()
            assert await callers.status(hosts.two, SERVER, headers=named) == 200

    run(scenario())
