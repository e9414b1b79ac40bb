"""What every route passes through: who may enter, how a failure looks, what is counted.

Authorisation hangs on the matched route object: a route *is* a Door, and a Door cannot be made
without saying who may use it. Nothing is ever decided on the text of a URL. The key is looked at
before a byte of the body is read.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from penstock.config.model import ServerTable
from penstock.errors import CallError, Draining, Forbidden, InternalError
from penstock.http.auth import Authenticator, Principal
from penstock.http.delegation import HEADER as DELEGATION_HEADER
from penstock.http.delegation import delegate
from penstock.http.error_body import ErrorShape, render, shape_for
from penstock.http.exchange import (
    Bodies,
    ClientGone,
    Exchange,
    while_connected,
)
from penstock.http.head import Head
from penstock.http.hosts import HostRule
from penstock.http.line import Scope
from penstock.http.query import query_kind
from penstock.telemetry.logs import REQUEST_LOGGER, log_facts
from penstock.telemetry.metrics import Metrics
from penstock.units import SUCCESS, Outcome

__all__ = ["Access", "Desk", "Door", "DoorBodies", "ErrorShape", "Handler", "while_connected"]

Handler: TypeAlias = Callable[[Exchange], Awaitable[Outcome]]

_UNKNOWN = Outcome.INTERNAL
"""Until it is known how a request ended."""

_log = logging.getLogger("penstock.http")
_request_log = logging.getLogger(REQUEST_LOGGER)


class Access(Enum):
    """Who may use a route."""

    PUBLIC = auto()  # anyone: health, and pages that hold no data
    KEY = auto()  # any known key
    ADMIN = auto()  # a key with ``admin = true``


_PUBLIC, _KEY, _ADMIN = Access


class Desk:
    """What every door shares. ``authenticator`` is replaced on a reload, ``adopt`` takes the rest.

    ``bodies`` has room for two of the largest bodies at least, whatever is configured.
    """

    def __init__(self, authenticator: Authenticator, server: ServerTable, metrics: Metrics) -> None:
        self.authenticator = authenticator
        self.metrics = metrics
        self.bodies = Bodies(0)
        self.adopt(server)

    def adopt(self, server: ServerTable) -> None:
        """Go by this table from now on."""
        self.server = server
        self.hosts = HostRule(server.host, server.allowed_hosts)
        self.bodies.bytes_max = max(server.bodies_bytes_max, 2 * server.body_bytes_max)


class DoorBodies(NamedTuple):
    """What a request's body must hold, what is answered with a status, and how a failure looks
    where not as the door's ``shape`` has it.

    Types that msgspec knows; the handler is what sees to all three. ``is_form`` is for a body that
    is no JSON but multipart/form-data. ``other`` are the content types of an answer with 200 that
    is not JSON, or not always.
    """

    request: Any = None
    answers: Mapping[int, Any] = MappingProxyType({})
    failure: Any = None
    is_form: bool = False
    other: tuple[str, ...] = ()

    @classmethod
    def showing(cls, shown: Any, request: Any = None, other: tuple[str, ...] = ()) -> DoorBodies:
        """Of a route that answers 200 with ``shown``; None: what that is, is not described."""
        return cls(request, {} if shown is None else {200: shown}, other=other)


class Door:
    """What answers on one route.

    ``door`` is its name in metrics and logs. ``shape`` None is that of whoever asks, for what is
    no protocol's own. ``bodies`` is for ``openapi``, as is ``query``, which the handler has with it
    (``http.query``). ``logged=False`` keeps answers that went well out of the request log: for what
    is polled.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        access: Access,
        shape: ErrorShape | None,
        door: str,
        desk: Desk,
        logged: bool = True,
        bodies: DoorBodies | None = None,
    ) -> None:
        self.access = access
        self.bodies = bodies or DoorBodies()
        self.door = door
        self.query = query_kind(handler)
        self.shape = shape
        self._handler = handler
        self._desk = desk
        self._logged = logged

    async def __call__(self, scope: Scope) -> None:
        """Answer one request, whatever happens in it."""
        began = time.perf_counter()
        exchange = Exchange(scope, self._desk.server, self._desk.bodies)
        outcome = _UNKNOWN
        try:
            outcome = await self._answer(exchange)
        except ClientGone:
            outcome = exchange.outcome_if_gone
        finally:
            exchange.close()
            if exchange.at_end is not None:
                exchange.at_end(outcome)
            if exchange.inside is not None and exchange.inside.on_end is not None:
                exchange.inside.on_end(outcome)
            if exchange.is_counted:
                self._record(exchange, outcome, time.perf_counter() - began)

    async def _answer(self, exchange: Exchange) -> Outcome:
        try:
            self._admit(exchange)
            outcome = await self._handler(exchange)
        except CallError as error:
            # A handler may hold its error, and the traceback holds the handler: a circle, with all
            # of the request in it.
            return await self._refuse(exchange, error.with_traceback(None))
        except asyncio.CancelledError:
            # Only a stopping server cancels a request: its caller is told to come back.
            return await self._refuse(exchange, Draining("The service is stopping."))
        except ClientGone:
            raise
        except Exception:  # noqa: BLE001 - what a handler raises ends its own request alone
            _log.exception("unexpected error in request %s", exchange.request_id)
            return await self._refuse(exchange, _internal_error())
        if not exchange.finished:
            _log.error("door %s left request %s unfinished", self.door, exchange.request_id)
            return await self._refuse(exchange, _internal_error())
        return outcome

    def _admit(self, exchange: Exchange) -> None:
        if self.access is _PUBLIC:
            return
        authenticator = self._desk.authenticator
        if exchange.inside is not None:
            exchange.principal = exchange.inside.principal
        else:
            exchange.principal = self._principal(exchange.head, authenticator)
        exchange.facts["key"] = exchange.principal.key_id
        exchange.facts["tenant"] = exchange.principal.tenant
        is_outside = exchange.inside is None and self.access is _KEY
        if is_outside and DELEGATION_HEADER in exchange.headers:
            delegate(exchange, authenticator)
        if self.access is _ADMIN and not exchange.principal.admin:
            raise Forbidden("This needs a key with 'admin = true'.")

    def _principal(self, head: Head, authenticator: Authenticator) -> Principal:
        """Whose key the head holds: found once, for as long as the keys stay and it is valid."""
        known: Principal
        if head.principal is not None and head.principal[0] is authenticator.mark:
            known = head.principal[1]
            if not authenticator.has_expired(known):
                return known
        known = authenticator.principal(head.named)
        head.principal = authenticator.mark, known
        return known

    async def _refuse(self, exchange: Exchange, error: CallError) -> Outcome:
        """Answer with the error; where an answer has begun, break it off visibly."""
        exchange.facts["error"] = error.code
        if exchange.started:
            exchange.abort()
            return error.outcome
        # The jitter spreads callers; nothing secret depends on it.
        jitter = random.random()  # noqa: S311
        shape = self.shape or shape_for(exchange.headers)
        status, headers, body = render(error, shape, exchange.request_id, jitter=jitter)
        content_type = headers.pop("content-type")
        exchange.response_headers.update(headers)
        await exchange.respond(status, body, content_type)
        return error.outcome

    def _record(self, exchange: Exchange, outcome: Outcome, seconds: float) -> None:
        facts = exchange.facts
        self._desk.metrics.request(
            self.door,
            outcome,
            seconds,
            class_name=str(facts.get("class", "")),
            tenant=str(facts.get("tenant", "")),
            chain=str(facts.get("chain", "")),
        )
        quiet = outcome is SUCCESS and not self._logged
        if quiet or not _request_log.isEnabledFor(logging.INFO):
            return
        line = {
            "request": exchange.request_id,
            "door": self.door,
            "outcome": outcome.value,
            "status": exchange.status,
            "ms": round(seconds * 1000, 1),
            **facts,
        }
        log_facts(_request_log, logging.INFO, "request", line)


def _internal_error() -> InternalError:
    return InternalError("A fault of this service. Its log has it under the request id.")
