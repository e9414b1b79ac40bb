"""What stands where under ``/admin``. All of it needs an admin key."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from starlette.routing import Route

from penstock.admin.answers import StoreUnavailable, respond_json
from penstock.admin.keys import KeyChange, KeysDoor, NewKey, Rotation
from penstock.admin.shapes import (
    KeyList,
    KeyMade,
    KeyRevoked,
    KeyShown,
    TenantList,
    TenantShown,
    UsageQuery,
    UsageShown,
    limits_shown,
)
from penstock.admin.tenants import TenantsDoor
from penstock.config.model import TenantTable
from penstock.errors import InvalidRequest, StoreError
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.http.query import NoQuery, asking
from penstock.store.reader import Reader
from penstock.store.usage import UsageSum, moment, sums_csv, usage
from penstock.units import Outcome

CSV: Final = "text/csv"

_T = TypeVar("_T")


class AdminDoor:
    """Answers operators. ``limits`` gives the present state of every deployment's limits."""

    def __init__(
        self, reader: Reader, limits: Callable[[], Any], wall: Callable[[], float]
    ) -> None:
        self._reader = reader
        self._limits = limits
        self._wall = wall

    @asking(UsageQuery)
    async def usage(self, exchange: Exchange, query: UsageQuery) -> Outcome:
        """Sums of the ledger, as JSON or CSV."""
        since = self._moment(query.since, "since")
        until = math.inf if query.until is None else self._moment(query.until, "until")
        asked = partial(usage, group_by=query.group_by, since=since, until=until)
        sums: list[UsageSum] = await stored(asyncio.wrap_future(self._reader.submit(asked)))
        if query.format == "csv":
            exchange.response_headers["cache-control"] = "no-store"
            await exchange.respond(200, sums_csv(sums).encode(), f"{CSV}; charset=utf-8")
        else:
            await respond_json(exchange, UsageShown(query.group_by, sums))
        return Outcome.SUCCESS

    @asking(NoQuery)
    async def limits(self, exchange: Exchange, _query: NoQuery) -> Outcome:
        """Each deployment's limits: configured or learnt, and what is left of them."""
        await respond_json(exchange, {"deployments": self._limits()})
        return Outcome.SUCCESS

    def _moment(self, text: str, name: str) -> float:
        try:
            return moment(text, self._wall())
        except ValueError as error:
            raise InvalidRequest(f"'{name}' {error}.", param=name) from None


async def stored(waiting: asyncio.Future[_T]) -> _T:
    """What the store answers. Raises StoreUnavailable."""
    try:
        return await waiting
    except StoreError as error:
        raise StoreUnavailable(str(error)) from None


def admin_routes(
    admin: AdminDoor, keys: KeysDoor, tenants: TenantsDoor, desk: Desk, deployment: Any
) -> list[Route]:
    """Every route of this door. ``deployment`` is what is shown of the limits of one."""

    def route(
        path: str,
        handler: Handler,
        method: str,
        shown: Any,
        request: type[msgspec.Struct] | None = None,
        *,
        status: int = 200,
        other: tuple[str, ...] = (),
    ) -> Route:
        door = Door(
            handler,
            access=Access.ADMIN,
            shape=ErrorShape.PROBLEM,
            door="admin",
            desk=desk,
            bodies=DoorBodies(request, {status: shown}, other=other),
        )
        return Route(path, door, methods=[method])

    tenant, key = "/admin/tenants/{name:path}", "/admin/keys/{name:path}"
    return [
        route("/admin/usage", admin.usage, "GET", UsageShown, other=(CSV,)),
        route("/admin/limits", admin.limits, "GET", limits_shown(deployment)),
        route("/admin/tenants", tenants.list, "GET", TenantList),
        route(tenant, tenants.get, "GET", TenantShown),
        route(tenant, tenants.put, "PUT", TenantShown, TenantTable),
        route(tenant, tenants.patch, "PATCH", TenantShown, TenantTable),
        route(tenant, tenants.delete, "DELETE", TenantShown),
        route("/admin/keys", keys.list, "GET", KeyList),
        route("/admin/keys", keys.create, "POST", KeyMade, NewKey, status=201),
        route(key + "/rotate", keys.rotate, "POST", KeyMade, Rotation),
        route(key, keys.get, "GET", KeyShown),
        route(key, keys.change, "PATCH", KeyShown, KeyChange),
        route(key, keys.revoke, "DELETE", KeyRevoked),
    ]
