"""How many connections there may be: of everybody, and from one address.

Without the second bound one caller, who needs no key for it, could take all connections there
are. Half of them is what one address gets where the configuration says nothing, as one tenant
gets half of a queue: whoever comes from elsewhere still gets in, and an office or a cluster behind
one address is not cut short.

What comes from this machine is not counted by address: our own chain workers, and a proxy that
stands beside the service and has everybody behind it. One that stands elsewhere is one address;
its operator sets the bound to what the proxy may have. Whom a proxy speaks for is not looked at:
the proxy can bound that, and a header that says so can be made up.

An IPv6 address counts by its first 64 bits, which is the least that one customer is given. Of
link-local ones, which have the same bits everywhere, those of one link are one.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from penstock.config.model import ServerTable
from penstock.errors import CallError, Refused

TOLD_MAX: Final = 128
"""So many connections over a bound are told so at once; the rest are cut without a word."""
RETRY_SECONDS: Final = 1.0
CODE: Final = "too_many_connections"

Bound: TypeAlias = Literal["all", "address"]
"""Which bound a connection was over: the label of a metric."""


class ConnectionBounds:
    """Who has a connection. ``on_refused`` is told of each that was over a bound."""

    def __init__(self, on_refused: Callable[[Bound], None]) -> None:
        self._on_refused = on_refused
        self._held: dict[object, str | None] = {}
        self._by_address: Counter[str] = Counter()
        self._told: set[object] = set()

    def enter(self, caller: object, address: str | None, table: ServerTable) -> Entry:
        """Take a connection in, unless there are too many. ``address`` None is not counted."""
        address_max = table.connections_per_address_max or max(1, table.connections_max // 2)
        refusal: CallError
        if address is not None and self._by_address[address] >= address_max:
            self._on_refused("address")
            refusal = Refused(
                f"There are {address_max} open connections from this address, as many as one may "
                "have ([server] connections_per_address_max). Close some, or share them.",
                code=CODE,
                retry_after_seconds=RETRY_SECONDS,
            )
        elif len(self._held) >= table.connections_max:
            self._on_refused("all")
            refusal = CallError(
                f"There are {table.connections_max} open connections, as many as this service "
                "takes ([server] connections_max). Try again in a moment.",
                status=503,
                code=CODE,
                retry_after_seconds=RETRY_SECONDS,
            )
        else:
            self._held[caller] = address
            if address is not None:
                self._by_address[address] += 1
            return None
        if len(self._told) >= TOLD_MAX:
            return "cut"
        self._told.add(caller)
        return refusal

    def leave(self, caller: object) -> None:
        """A connection has ended, however it was taken."""
        self._told.discard(caller)
        address = self._held.pop(caller, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


Entry: TypeAlias = CallError | Literal["cut"] | None
"""What a connection gets: an answer that says why not, its end without one, or a place."""


def counted_address(caller: Any, own: Any) -> str | None:
    """What a connection counts for, by both ends' socket addresses; None if it is not counted."""
    if not isinstance(caller, tuple) or not isinstance(own, tuple) or caller[0] == own[0]:
        return None  # a Unix socket, or from this machine to itself
    address = ipaddress.ip_address(str(caller[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            network = ipaddress.ip_network((address, 64), strict=False)
            if address.is_link_local:
                return f"{network}%{caller[3]}"
            return None if address.is_loopback else str(network)
        address = address.ipv4_mapped
    return None if address.is_loopback else str(address)
