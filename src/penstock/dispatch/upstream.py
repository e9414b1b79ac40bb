"""The HTTP client towards providers: one class, so that another library could stand in.

aiohttp, because it cost a sixth of httpx's CPU per call side by side. Nothing is decided here:
no retries, no redirects (a provider that redirects would get the key sent to another origin),
no decompression (a bomb could not be bounded), no environment proxies. What goes wrong becomes
an ``UpstreamFault`` that says whether the provider may have seen the request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp
import msgspec

from penstock.errors import UpstreamInvalid

BODY_BYTES_MAX = 64 * 1024 * 1024
"""A whole answer's cap; embeddings of a large batch are the largest known, some 30 MiB."""

ERROR_BODY_BYTES_MAX = 256 * 1024
"""What is read of an unsuccessful answer."""

HEADER_BYTES_MAX = 64 * 1024

READ_BYTES_MAX = 32 * 1024
"""What is taken of an answer at a time. A provider that sends as fast as it can, in the smallest
of events, costs so little in one turn of the loop that others' calls do not wait for it."""

CONNECTIONS_MAX = 4_096
"""Connections to all providers; what may be in flight is the scheduler's matter."""


class Timeouts(msgspec.Struct, frozen=True):
    """How long a provider may take, in seconds."""

    connect_seconds: float
    first_byte_seconds: float
    idle_seconds: float
    total_seconds: float


class UpstreamFault(Exception):
    """The provider could not be reached, or broke off.

    ``was_sent`` is False where it cannot have seen the request; ``is_stale`` where a kept
    connection had been closed by the other side before anything came back.
    """

    def __init__(
        self, reason: str, *, was_sent: bool, is_timeout: bool = False, is_stale: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.was_sent = was_sent
        self.is_timeout = is_timeout
        self.is_stale = is_stale


class UpstreamResponse:
    """One answer under way. ``headers`` have lower-case names."""

    def __init__(
        self, response: aiohttp.ClientResponse, timeouts: Timeouts, ends_at: float
    ) -> None:
        self._response = response
        self._timeouts = timeouts
        self._ends_at = ends_at
        self.status = response.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }

    async def chunk(self) -> bytes:
        """What has arrived; empty at the end. Raises UpstreamFault."""
        loop = asyncio.get_running_loop()
        limit_at = min(self._ends_at, loop.time() + self._timeouts.idle_seconds)
        try:
            async with asyncio.timeout_at(limit_at):
                chunk = await self._response.content.read(READ_BYTES_MAX)
                if len(chunk) == READ_BYTES_MAX:
                    await asyncio.sleep(0)  # More is here already: the others go first.
                return chunk
        except TimeoutError:
            raise UpstreamFault("the answer stalled", was_sent=True, is_timeout=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFault(type(error).__name__, was_sent=True) from None

    async def body(self, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        """The whole answer. Raises UpstreamFault, UpstreamInvalid where it passes the cap."""
        whole = bytearray()
        while chunk := await self.chunk():
            whole += chunk
            if len(whole) > bytes_max:
                raise UpstreamInvalid(f"The provider's answer has more than {bytes_max} bytes.")
        return bytes(whole)

    def release(self, *, is_complete: bool) -> None:
        """Give the connection back after a complete answer; else close it, which cancels it."""
        if is_complete:
            self._response.release()
        else:
            self._response.close()


class Upstream:
    """A client for all providers, with its pool of connections."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS_MAX, ssl=tls if tls is not None else True, keepalive_timeout=30.0
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
            trust_env=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> UpstreamResponse:
        """POST, and wait for the answer's head.

        Raises UpstreamFault, UpstreamInvalid where the head is malformed or over its caps.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        ends_at = began + timeouts.total_seconds
        head_at = min(ends_at, began + timeouts.connect_seconds + timeouts.first_byte_seconds)
        try:
            async with asyncio.timeout_at(head_at):
                response = await self._session.post(
                    url,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(sock_connect=timeouts.connect_seconds),
                )
        except aiohttp.ConnectionTimeoutError:
            raise UpstreamFault("no connection in time", was_sent=False, is_timeout=True) from None
        except TimeoutError:
            raise UpstreamFault("no answer in time", was_sent=True, is_timeout=True) from None
        except aiohttp.ClientConnectorError as error:
            raise UpstreamFault(type(error).__name__, was_sent=False) from None
        except aiohttp.ClientResponseError:
            raise UpstreamInvalid("The provider's answer has a head that cannot be read.") from None
        except aiohttp.ServerDisconnectedError as error:
            raise UpstreamFault(type(error).__name__, was_sent=True, is_stale=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFault(type(error).__name__, was_sent=True) from None
        return UpstreamResponse(response, timeouts, ends_at)
