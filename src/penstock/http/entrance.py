"""The way in: Host and path are checked, the route is matched, its door takes over.

Starlette's Route objects do the matching; its Router is not used, because it answers unknown
routes in plain text, redirects trailing slashes, and takes any callable as a route. Here every
route must lead to a Door, or the service does not start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Final

from starlette.routing import BaseRoute, Match, Route

from penstock.errors import CallError, InvalidRequest, NotFound
from penstock.http.door import Access, Desk, Door, Handler
from penstock.http.error_body import ErrorShape
from penstock.http.exchange import Exchange
from penstock.http.head import Head
from penstock.http.hosts import check_path
from penstock.http.line import Receive, Scope, Send
from penstock.units import Outcome

_ONE_READING: Final = frozenset({b"authorization", b"openai-organization", b"x-api-key"})
"""Who asks, and for whom: a proxy in front may read the last one, where this reads the first."""


def require_doors(routes: Sequence[BaseRoute]) -> list[tuple[Route, Door]]:
    """Each route with its door. Raises TypeError naming the first that leads elsewhere."""
    pairs = []
    for route in routes:
        if not isinstance(route, Route) or not isinstance(route.endpoint, Door):
            where = getattr(route, "path", route)
            raise TypeError(f"route {where!r} leads to no Door, so nobody said who may use it")
        pairs.append((route, route.endpoint))
    return pairs


def check_one_reading(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises InvalidRequest where a header that says who asks comes with two values."""
    said: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in _ONE_READING and said.setdefault(name, value) != value:
            text = name.decode("ascii")
            raise InvalidRequest(f"The header '{text}' stands there twice, with two values.")


class Entrance:
    """The ASGI app of the whole service."""

    def __init__(self, routes: Sequence[BaseRoute], desk: Desk) -> None:
        self._pairs = require_doors(routes)
        # A path without parameters is found in one step, whatever stands before it; as it is
        # compared byte by byte, it is in its canonical form.
        self._exact: dict[tuple[str, bytes], Door] = {}
        for route, door in self._pairs:
            if "{" not in route.path:
                for method in route.methods or ():
                    self._exact.setdefault((method, route.path.encode("ascii")), door)
        self._desk = desk

    def __call__(
        self,
        scope: Scope,
        receive: Receive,  # noqa: ARG002 - ASGI's; the line does what it does
        send: Send,  # noqa: ARG002 - likewise
    ) -> Awaitable[None]:
        """Pass one request on to its door; as ASGI has it."""
        return self.answer(scope)

    def answer(self, scope: Scope) -> Awaitable[None]:
        """Pass one request on to its door. ``scope["state"]["line"]`` is where it came from."""
        return self._door(scope)(scope)

    def _door(self, scope: Scope) -> Door:
        head: Head | None = scope["state"].get("head")
        hosts = self._desk.hosts
        if head is not None and head.door is not None and head.door[0] is hosts:
            known: Door = head.door[1]
            return known
        try:
            named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            hosts.check(named)
            check_one_reading(scope["headers"])
            exact = self._exact.get((scope["method"], scope["raw_path"]))
            if exact is not None:
                if head is not None:
                    head.door = hosts, exact
                return exact
            check_path(scope["raw_path"])
        except InvalidRequest as error:
            return self._refusal(error)
        allowed: set[str] = set()
        shape: ErrorShape | None = None
        for route, door in self._pairs:
            match, child = route.matches(scope)
            if match is Match.FULL:
                scope.update(child)
                return door
            if match is Match.PARTIAL:
                allowed |= route.methods or set()
                shape = door.shape
        if allowed:
            return self._wrong_method(sorted(allowed), shape)
        message = "There is no such route; GET /openapi.json lists those there are."
        return self._refusal(NotFound(message, code="route_not_found"))

    def _wrong_method(self, allowed: list[str], shape: ErrorShape | None) -> Door:
        allow = ", ".join(allowed)
        error = InvalidRequest(
            f"This route answers {allow} only.", code="method_not_allowed", status=405
        )
        return self._refusal(error, shape, allow=allow)

    def _refusal(self, error: CallError, shape: ErrorShape | None = None, **headers: str) -> Door:
        async def refuse(exchange: Exchange) -> Outcome:
            exchange.response_headers.update(headers)
            raise error

        handler: Handler = refuse
        return Door(handler, access=Access.PUBLIC, shape=shape, door="none", desk=self._desk)
