"""Which Host headers and paths are answered at all, before any route is looked for.

A page on the internet can point its own name at 127.0.0.1 and let a visitor's browser call a
service there (DNS rebinding). The browser then sends that name as Host, so a service that
listens on loopback answers loopback names only. One that listens elsewhere answers the names it
was given; where it was given none, any well-formed one, since it cannot know by what names it
is reached.

Paths are taken in one spelling only. Whoever routes or filters in front of us may read ``//``,
``/./`` or ``%2f`` in another way than we do, and holes live in that difference.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from penstock.errors import InvalidRequest

# RFC 3986 section 3.2.2, host [":" port]; names are limited to what DNS and containers use.
_HOST: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})))"
    r"(?::(?P<port>[0-9]{0,5}))?\Z"
)
# A path of segments, each unreserved or sub-delims (without ";"), ":" or "@"; of the percent
# codes only those that a client's encodeURIComponent makes of the same characters.
_PATH: Final = re.compile(
    rb"/(?:(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%(?:2[14689ABCabc]|27|3[ADad]|40))+/)*"
    rb"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%(?:2[14689ABCabc]|27|3[ADad]|40))*\Z"
)
_DOTS: Final = re.compile(rb"/\.\.?(?:/|\Z)")
_CACHE: Final = 256
_HOST_CHARACTERS_MAX: Final = 262  # a DNS name, a colon, a port


class HostRule:
    """Which Host headers are answered, for a service that listens on ``listen``."""

    def __init__(self, listen: str, allowed: Iterable[str]) -> None:
        self._names = frozenset(_plain(name) for name in allowed)
        self._open = not self._names and not is_loopback(_plain(listen))
        self._names |= {_plain(listen)}
        self.permits = lru_cache(maxsize=_CACHE)(self._permits)

    def check(self, hosts: list[str]) -> None:
        """Raises InvalidRequest unless there is exactly one Host, and it may be answered."""
        if len(hosts) != 1:
            raise InvalidRequest("A request needs exactly one Host header.", code="invalid_host")
        if len(hosts[0]) > _HOST_CHARACTERS_MAX or not self.permits(hosts[0]):
            raise InvalidRequest(
                "This service does not answer to that Host. "
                "Names besides its own stand in 'allowed_hosts' of [server].",
                code="invalid_host",
            )

    def _permits(self, host: str) -> bool:
        match = _HOST.match(host)
        if match is None or int(match["port"] or 0) > 65535:
            return False
        if match["six"] is not None and not _is_address(match["six"]):
            return False
        name = (match["six"] or match["name"]).lower().removesuffix(".")
        return self._open or name in self._names or is_loopback(name)


def check_path(raw_path: bytes) -> None:
    """Raises InvalidRequest for a path that has another spelling, too."""
    if not _PATH.match(raw_path) or _DOTS.search(raw_path):
        raise InvalidRequest(
            "The path is not in its canonical form: no empty or dot segments, no ';' and no "
            "encoded slashes, dots, letters or control characters.",
            code="invalid_path",
        )


def is_loopback(name: str) -> bool:
    """Whether a lower-case host name or address is this machine's own."""
    if name == "localhost":
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _plain(name: str) -> str:
    return name.lower().strip("[]").removesuffix(".")
