"""Tells others that a job has ended: signed, tried again for a day, never into our own network.

Signatures and the times between attempts are those of Standard Webhooks: the signature is an
HMAC-SHA256 over id, timestamp and body under a secret of the tenant, so that a receiver can
check with any library of that name where a message comes from and that it is fresh. Secrets are
derived from the store's pepper: no tenant can sign for another.

A URL that a caller names is a way to make this service call somebody. So the address is looked
at, not the name: the name is resolved once, every address must be public, and the connection
goes to the addresses that were looked at, which leaves no second resolution to lie in. There are
no redirects, no proxy, no answer is read but its status, and time is bounded.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from penstock.config.model import WebhooksTable
from penstock.errors import InvalidRequest, StoreError
from penstock.store.jobs import Job, JobStore
from penstock.store.webhooks import WebhookRow, WebhookStore

_log = logging.getLogger("penstock.jobs")

URL_CHARACTERS_MAX: Final = 2048
SECONDS_MAX: Final = 15.0
AT_ONCE_MAX: Final = 16
DELAYS_SECONDS: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""Between two attempts, as Standard Webhooks has it; after the last it is given up."""
STORE_RETRY_SECONDS: Final = 5.0
_PURPOSE: Final = b"penstock: webhook secrets, 1: "
_TRANSLATED: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)
"""IPv6 addresses that stand for an IPv4 address behind a translator or tunnel."""


class NotPublic(OSError):
    """The name leads to an address that this service does not call."""


def is_public(address: str) -> bool:
    """Whether it is an address of the public internet."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if any(found in network for network in _TRANSLATED):
            return False
    return found.is_global and not found.is_multicast


def secret_of(pepper: bytes, tenant: str) -> bytes:
    """The key that a tenant's messages are signed with."""
    return hmac.digest(pepper, _PURPOSE + tenant.encode(), "sha256")


def shown_secret(secret: bytes) -> str:
    """The key as the libraries of receivers take it."""
    return "whsec_" + base64.b64encode(secret).decode("ascii")


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode("ascii")


class Resolver(AbstractResolver):
    """Resolves a name, and gives its addresses only where all of them may be called."""

    def __init__(self, allows_private: Callable[[], bool]) -> None:
        self._allows_private = allows_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses that are connected to. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        results = []
        for one_family, _, protocol, _, address in found:
            if not self._allows_private() and not is_public(str(address[0])):
                raise NotPublic("the name leads to an address that is not public")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=one_family,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is held."""


class Webhooks:
    """Delivers. ``table`` is replaced on a reload; ``bodies`` has each kind's own message."""

    def __init__(
        self,
        store: WebhookStore,
        jobs: JobStore,
        table: WebhooksTable,
        pepper: Callable[[], bytes],
        wall: Callable[[], float],
    ) -> None:
        self.table = table
        self.bodies: dict[str, Callable[[Job], bytes]] = {}
        self._store = store
        self._jobs = jobs
        self._pepper = pepper
        self._wall = wall
        self._wake = asyncio.Event()

    def check(self, url: str) -> str:
        """The URL, if it may be one. Raises InvalidRequest; names are resolved later."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port, parts = "", None, urlsplit("")
        schemes = ("https", "http") if self.table.allow_private else ("https",)
        is_plain = url.isascii() and url.isprintable() and " " not in url and port != 0
        if parts.scheme not in schemes or not host or not is_plain or "@" in parts.netloc:
            raise InvalidRequest(
                "'webhook' must be an https URL without a user name in it.", param="webhook"
            )
        if len(url) > URL_CHARACTERS_MAX:
            raise InvalidRequest(
                f"'webhook' must have at most {URL_CHARACTERS_MAX} characters.", param="webhook"
            )
        is_listed = self.table.hosts is None or host in self.table.hosts
        if not is_listed or not (self.table.allow_private or not _is_private_literal(host)):
            raise InvalidRequest(
                "This service calls no webhook at that host: the operator's [webhooks] says which.",
                param="webhook",
            )
        return url

    def secret(self, tenant: str) -> str:
        """What a tenant checks its messages with. Raises StoreError."""
        return shown_secret(secret_of(self._pepper(), tenant))

    def ended(self, _job: Job) -> None:
        """A job has ended: there may be something to deliver."""
        self._wake.set()

    async def run(self, owned: asyncio.Event) -> None:
        """Deliver what is due, until cancelled."""
        await owned.wait()
        connector = aiohttp.TCPConnector(
            resolver=Resolver(lambda: self.table.allow_private),
            use_dns_cache=False,
            force_close=True,
            limit=AT_ONCE_MAX,
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=SECONDS_MAX),
            trust_env=False,
            auto_decompress=False,
        ) as session:
            while True:
                self._wake.clear()
                try:
                    delay = await self._deliver_due(session)
                except StoreError as error:
                    _log.error("webhooks wait for the store: %s", error)
                    delay = STORE_RETRY_SECONDS
                try:
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _deliver_due(self, session: aiohttp.ClientSession) -> float | None:
        """Deliver all that is due; how long to wait for the next."""
        # One moment for both questions: what comes due between two would be in neither answer.
        now = self._wall()
        while rows := await asyncio.wrap_future(self._store.due(now, AT_ONCE_MAX)):
            await asyncio.gather(*(self._deliver(session, row) for row in rows))
            now = self._wall()
        due_at = await asyncio.wrap_future(self._store.next_due_at(now))
        return None if due_at is None else max(0.0, due_at - self._wall())

    async def _deliver(self, session: aiohttp.ClientSession, row: WebhookRow) -> None:
        """One attempt, and what follows from it. Raises StoreError."""
        job = await asyncio.wrap_future(self._jobs.get(row.tenant, row.job_id))
        failure = "" if job is None else await self._sent(session, row, job)
        if not failure:
            await asyncio.wrap_future(self._store.done(row.job_id))
            return
        if row.attempts >= len(DELAYS_SECONDS):
            _log.warning("the webhook of job %s is given up: %s", row.job_id, failure)
            await asyncio.wrap_future(self._store.done(row.job_id))
            return
        due_at = self._wall() + DELAYS_SECONDS[row.attempts]
        await asyncio.wrap_future(self._store.again(row.job_id, due_at, failure))

    async def _sent(self, session: aiohttp.ClientSession, row: WebhookRow, job: Job) -> str:
        """Why it was not delivered; empty if it was, or is not wanted any more."""
        try:
            self.check(row.url)  # by the rules of now, not those of when it was ordered
        except InvalidRequest as error:
            return error.message
        body = self.bodies[job.kind](job)
        message_id, timestamp = f"msg_{job.job_id}", int(self._wall())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(
                secret_of(self._pepper(), row.tenant), message_id, timestamp, body
            ),
        }
        try:
            async with session.post(
                row.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                is_over = 200 <= answer.status < 300 or answer.status == 410
                return "" if is_over else f"it answered {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return type(error).__name__


def _is_private_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return not is_public(host)


def message(kind: str, timestamp: float, data: dict[str, object]) -> bytes:
    """A message's body: its type, when, and what it is about."""
    return msgspec.json.encode({"type": kind, "timestamp": timestamp, "data": data})
