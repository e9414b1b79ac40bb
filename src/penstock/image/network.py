"""Asking over HTTP: bounded in time, in bytes and at once; where a login goes and where not.

Addresses come from a lock file, which may be hostile. So a file's address is asked only where it
is HTTPS at a named host, or lies at an index that the project configures; never this machine or a
bare number. A login goes to the origin that it was configured for and to no other. A redirect is
followed to HTTPS, or within one origin. Answers are read up to a bound and no further.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
from collections.abc import Iterable
from functools import cache
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from penstock.image.indexes import Index, Login

AT_ONCE_MAX: Final = 24
REQUEST_SECONDS_MAX: Final = 20.0
REDIRECTS_MAX: Final = 5
PAGE_BYTES_MAX: Final = 24 * 1024 * 1024


class Answer(NamedTuple):
    """What came back. ``total``: the whole file's bytes, where the answer is a part of it."""

    status: int
    body: bytes
    content_type: str
    url: str
    total: int | None


class Unanswered(Exception):
    """Nothing came that can be used; the message says why, without an address."""


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address. Raises ``ValueError``."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)


class Network:
    """All requests of one check. ``indexes``: those whose origins may be asked."""

    def __init__(self, indexes: Iterable[Index]) -> None:
        self._logins: dict[tuple[str, str, int], Login | None] = {}
        for index in indexes:
            if index.url:
                self._logins.setdefault(origin(index.url), index.login)
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE_MAX, ssl=_certificates()),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX),
            trust_env=True,
            auto_decompress=False,
            raise_for_status=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def may_ask(self, url: str) -> bool:
        """Whether an address that a lock or a page names may be asked."""
        try:
            scheme, host, _ = at = origin(url)
        except ValueError:
            return False
        if at in self._logins:
            return True
        return scheme == "https" and _is_public_name(host)

    async def get(
        self, url: str, *, accept: str = "*/*", span: str | None = None, bytes_max: int
    ) -> Answer:
        """The answer to a GET, the first ``bytes_max`` of it at most.

        ``span``: a Range. Raises ``Unanswered``; one that is larger is one of these.
        """
        assert self._session is not None
        async with self._turns:
            try:
                return await self._follow(url, accept, span, bytes_max)
            except (aiohttp.ClientError, OSError) as error:
                raise Unanswered(type(error).__name__) from None
            except TimeoutError:
                raise Unanswered(f"no answer within {REQUEST_SECONDS_MAX:g} s") from None
            except ValueError:
                raise Unanswered("an address that is none") from None

    async def _follow(self, url: str, accept: str, span: str | None, bytes_max: int) -> Answer:
        assert self._session is not None
        for _ in range(REDIRECTS_MAX + 1):
            headers = {"Accept": accept, "Accept-Encoding": "identity"}
            if span is not None:
                headers["Range"] = span
            login = self._logins.get(origin(url))
            if login is not None:
                words = f"{login.user}:{login.password}".encode()
                headers["Authorization"] = f"Basic {base64.b64encode(words).decode()}"
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status in {301, 302, 303, 307, 308}:
                    there = urljoin(url, response.headers.get("Location", ""))
                    if origin(there) != origin(url) and not self.may_ask(there):
                        raise Unanswered("a redirect to where nothing is asked")
                    url = there
                    continue
                return await self._read(response, url, span, bytes_max)
        raise Unanswered(f"more than {REDIRECTS_MAX} redirects")

    async def _read(
        self, response: aiohttp.ClientResponse, url: str, span: str | None, bytes_max: int
    ) -> Answer:
        total = None
        if response.status == 206:
            total = _total(response.headers.get("Content-Range", ""))
        elif span is not None and response.status == 200:
            length = response.content_length
            if length is None or length > bytes_max:
                raise Unanswered("the index answers no range requests")
        body = bytearray()
        async for chunk in response.content.iter_chunked(65_536):
            body += chunk
            if len(body) > bytes_max:
                raise Unanswered(f"more than {bytes_max >> 20} MiB")
        return Answer(response.status, bytes(body), response.content_type, url, total)


@cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates: a company's own authority stands there. Reading takes 50 ms."""
    return ssl.create_default_context()


def _total(content_range: str) -> int | None:
    """The whole of which ``bytes 1-2/3`` is a part."""
    unit, _, rest = content_range.partition(" ")
    total = rest.rpartition("/")[2]
    return int(total) if unit == "bytes" and total.isascii() and total.isdigit() else None


def _is_public_name(host: str) -> bool:
    """A host's name, as opposed to a number or a name of this machine and its network."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        is_number = host.rpartition(".")[2].isdigit() or host.lower().startswith("0x")
        is_here = host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
        return "." in host and not is_number and not is_here
    return False
